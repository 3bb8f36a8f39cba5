"""Runs the examples of docs/orchestration.md with the real orchestrators and with dbt."""
