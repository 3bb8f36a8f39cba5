"""Logs, traces, and secrets kept out of both."""
