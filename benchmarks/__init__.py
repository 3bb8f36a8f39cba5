"""Measures harvester beside the alternatives, and tortures it."""
