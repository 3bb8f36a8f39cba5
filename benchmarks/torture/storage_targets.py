"""The places for parts: what a reader finds there, and the faults that they can have.

Workspaces may have places of their own beside ``out``; ``parts`` reads all of them, and names begin with the place.
"""

import random
from pathlib import Path

from benchmarks.torture.check_output import Parts
from tests.support.object_stores import BUCKET, Bucket, s3
from tests.support.tcp_proxy import TcpProxy


class FolderPlace:
    """A folder on the small disk."""

    def __init__(self, disk: Path) -> None:
        """Use the default folder of harvester on this disk."""
        self.out, self.env = "harvest", {}
        self._top = disk

    def parts(self) -> Parts:
        """Return all parts that a reader finds, by name."""
        found = self._top.glob("*/send_analytics/*/*.zst")
        return {str(path.relative_to(self._top)): path.read_bytes() for path in found}

    def set_faults(self, _draw: random.Random) -> str:
        """Do nothing: the only fault of a folder is a full disk, which ``chaos.py`` causes."""
        return ""

    def clear_faults(self) -> None:
        """Be well."""


class BucketPlace:
    """A bucket behind a proxy that drops connections."""

    def __init__(self, bucket: Bucket, proxy: TcpProxy) -> None:
        """Let harvester use the bucket through ``proxy``; ``parts`` reads it directly."""
        self.out, self.env = f"{bucket.url}/harvest", bucket.env_through(proxy.port)
        self._s3, self._proxy = s3(bucket.port), proxy
        self._tags: dict[str, str] = {}
        self._read: Parts = {}

    def parts(self) -> Parts:
        """Return all parts that a reader finds, by name. Unchanged objects are read only once."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        found = {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", [])}
        tags, self._tags = self._tags, found
        self._read = {
            name: self._read[name] if tags.get(name) == tag else self._object(name)
            for name, tag in found.items()
            if name.endswith(".zst")
        }
        return self._read

    def _object(self, name: str) -> bytes:
        return self._s3.get_object(Bucket=BUCKET, Key=name)["Body"].read()

    def set_faults(self, rng: random.Random) -> str:
        """Choose for the next process: the bucket is unavailable, drops some connections, or works."""
        unavailable, sometimes = rng.random() < 0.15, rng.random() < 0.5
        chance = random.Random(rng.random())

        def fate(_method: str, _target: str) -> str | None:
            if unavailable or (sometimes and chance.random() < 0.2):
                return "before" if unavailable else chance.choice(["before", "within", "after"])
            return None

        self._proxy.fate = fate
        return "store unavailable" if unavailable else "store drops connections" if sometimes else ""

    def clear_faults(self) -> None:
        """Be well."""
        self._proxy.fate = lambda _method, _target: None
