"""Capture Braze send analytics before they expire."""

__version__ = "0.1.0"
