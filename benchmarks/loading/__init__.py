"""Runs the code of docs/loading.md in each database and library that can be installed here."""
