"""Runs captures: claims readings, sends requests, seals batches and uploads parts. All concurrency is here."""
