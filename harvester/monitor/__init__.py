"""The state of a running engine, its health and its alerts."""
