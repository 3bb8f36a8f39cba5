"""Runs of harvester into a bucket, and what they wrote."""

import asyncio
import csv
import hashlib
import sqlite3
import uuid
from collections import Counter
from pathlib import Path

import orjson
import zstandard

from harvester.model import DATASET, Part
from harvester.simulator import Simulator
from harvester.storage.object_store import ObjectStore
from tests.conftest import Command
from tests.support.object_stores import Bucket
from tests.support.warm_process import MOST_READINGS


def make_part(data: bytes, name: str = "batch") -> Part:
    """Make a part of these bytes."""
    return Part(DATASET, f"{DATASET}/{name}", hashlib.sha256(data).hexdigest(), len(data), 1, data)


def connect_to(monkeypatch, bucket: Bucket, port: int) -> str:
    """Set this process's variables to reach a bucket through a port; return the URL of a new prefix."""
    for name, value in bucket.env_through(port).items():
        monkeypatch.setenv(name, value)
    return f"{bucket.url}/{uuid.uuid4()}"


class BucketRun:
    """Runs of harvester into one place in a bucket, in batches of 50 readings, and what they left there.

    It reads the bucket, the API's log and the ledger.
    """

    def __init__(self, folder: Path, bucket: Bucket, port: int, simulator: Simulator, log: Path) -> None:
        """Choose a new place in the bucket, which the runs reach through ``port``."""
        folder.mkdir()
        self.bucket, self.simulator, self.log, self.folder = bucket, simulator, log, folder
        self.url = f"{bucket.url}/{uuid.uuid4()}"
        self.command = Command(folder)
        self.command.env |= bucket.env_through(port) | {"HARVESTER_PATIENCE_SECONDS": "0", MOST_READINGS: "50"}
        self.arguments = ("run", "p.csv", "--endpoint", simulator.url, "-o", self.url, "--state", "ledger.db")
        with (folder / "p.csv").open("w", newline="") as file:
            rows = [(each.pair.campaign_id, each.pair.send_id) for each in simulator.population]
            csv.writer(file).writerows([("campaign_id", "send_id"), *rows])

    def count_requests(self) -> Counter:
        """Count the requests for each pair so far, of all runs with this log."""
        lines = [orjson.loads(line) for line in self.log.read_bytes().splitlines()] if self.log.exists() else []
        return Counter((line["campaign_id"], line["send_id"]) for line in lines)

    def list_settled(self) -> set[tuple[str, str]]:
        """Return the pairs that are settled in the ledger."""
        with sqlite3.connect(self.folder / "ledger.db") as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'pair'").fetchone():
                return set()
            return set(connection.execute("SELECT campaign_id, send_id FROM pair WHERE state = 'settled'"))

    async def read_parts(self, monkeypatch) -> dict[str, bytes]:
        """Return all parts in the bucket by name, read without the proxy."""
        with monkeypatch.context() as patch:
            for name, value in self.bucket.env.items():
                patch.setenv(name, value)
            store = ObjectStore(self.url)
            names = await asyncio.to_thread(lambda: list(store.list_names(DATASET)))
            return {name: await store.read(name) for name in names}


def read_rows(objects: dict[str, bytes]) -> list[dict]:
    """Return the rows of all parts."""
    parts = [zstandard.ZstdDecompressor().decompressobj().decompress(data) for data in objects.values()]
    return [orjson.loads(line) for data in parts for line in data.splitlines()]


def count_captures(objects: dict[str, bytes]) -> Counter:
    """Count the captures of each pair, by the rows in the bucket."""
    return Counter((row["campaign_id"], row["send_id"]) for row in read_rows(objects) if row["level"] == "capture")
