"""Injects random faults into the whole system, and checks its output from outside."""
