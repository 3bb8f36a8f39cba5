"""Where parts go: one protocol, one file per kind of place, and the writer of a part's bytes.

Import ``bucket`` only for a bucket: its library is slow to load.
"""

from harvester.storage.folder import FolderSink
from harvester.storage.opening import open_sink, share_clients
from harvester.storage.part import Compression, PartWriter, check_sealed
from harvester.storage.sink import Sink
from harvester.storage.stdout import StdoutSink

__all__ = [
    "Compression",
    "FolderSink",
    "PartWriter",
    "Sink",
    "StdoutSink",
    "check_sealed",
    "open_sink",
    "share_clients",
]
