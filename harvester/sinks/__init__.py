"""Where parts go. One protocol, one file per kind of place, and the writer that makes a part's bytes.

``bucket`` is imported only where a bucket is meant: its library takes its time.
"""

from harvester.sinks.folder import FolderSink
from harvester.sinks.part import Compression, PartWriter
from harvester.sinks.sink import Sink
from harvester.sinks.stdout import StdoutSink

__all__ = ["Compression", "FolderSink", "PartWriter", "Sink", "StdoutSink"]
