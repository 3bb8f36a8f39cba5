"""Logs and traces, and the code that keeps secrets out of both."""
