"""Where a tortured harvester's parts are, what a reader finds there, and the faults of that place."""

import random
from pathlib import Path

from benchmarks.torture.check_output import Parts
from tests.support.object_stores import BUCKET, Bucket, s3
from tests.support.tcp_proxy import TcpProxy


class Folder:
    """Parts on the small disk."""

    def __init__(self, disk: Path) -> None:
        """Lie in the folder that is the default."""
        self.out, self.env = "harvest", {}
        self._top = disk / "harvest"

    def parts(self) -> Parts:
        """Read what any reader finds."""
        found = self._top.glob("send_analytics/*/*.zst")
        return {str(path.relative_to(self._top)): path.read_bytes() for path in found}

    def trouble(self, _draw: random.Random) -> str:
        """Cause none: the fault of a disk is that it is full."""
        return ""

    def heal(self) -> None:
        """Be well."""


class Lake:
    """Parts in a bucket behind a proxy that cuts."""

    def __init__(self, bucket: Bucket, proxy: TcpProxy) -> None:
        """Reach the bucket through ``proxy``, and past it for the verdict."""
        self.out, self.env = f"{bucket.url}/harvest", bucket.env_through(proxy.port)
        self._s3, self._cutter = s3(bucket.port), proxy
        self._tags: dict[str, str] = {}
        self._read: Parts = {}

    def parts(self) -> Parts:
        """Read what a reader finds; unchanged objects are read only once."""
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

    def trouble(self, draw: random.Random) -> str:
        """Be away, or cut some connections, or be well; what is drawn holds for one process."""
        away, sometimes = draw.random() < 0.15, draw.random() < 0.5
        chance = random.Random(draw.random())

        def fate(_method: str, _target: str) -> str | None:
            if away or (sometimes and chance.random() < 0.2):
                return "before" if away else chance.choice(["before", "within", "after"])
            return None

        self._cutter.fate = fate
        return "store away" if away else "store cuts" if sometimes else ""

    def heal(self) -> None:
        """Be well."""
        self._cutter.fate = lambda _method, _target: None
