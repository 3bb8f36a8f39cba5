"""Where pairs come from."""

from harvester.sources.files import Input
from harvester.sources.rejects import RejectsFile

__all__ = ["Input", "RejectsFile"]
