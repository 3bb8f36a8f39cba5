"""Where parts go. One protocol, one file per kind of place, and the writer that makes a part's bytes.

``bucket`` is imported only where a bucket is meant: its library takes its time.
"""

from harvester.storage.folder import FolderSink
from harvester.storage.part import Compression, PartWriter
from harvester.storage.sink import Sink
from harvester.storage.stdout import StdoutSink

__all__ = ["Compression", "FolderSink", "PartWriter", "Sink", "StdoutSink"]
