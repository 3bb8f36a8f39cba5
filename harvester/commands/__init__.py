"""The commands that a person runs once. Each returns a report."""
