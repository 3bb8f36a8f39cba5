"""Compares harvester with alternatives, and tests it with random faults."""
