"""Kills the whole system at random and checks its output from outside."""
