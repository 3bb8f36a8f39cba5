"""Where pairs come from."""

from harvester.sources.files import Input, RejectsFile

__all__ = ["Input", "RejectsFile"]
