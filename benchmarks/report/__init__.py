"""Turns results into README.md and its pictures."""
