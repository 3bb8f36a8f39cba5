"""Generates README.md and its pictures from the results."""
