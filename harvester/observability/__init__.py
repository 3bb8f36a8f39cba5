"""Writes logs and traces, and removes secrets from both."""
