"""The verdict on a tortured harvest, from outside: what was enqueued, what was answered, and which rows exist.

It never reads the ledger and imports nothing of harvester. It uses only the output of ``harvester status``.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import zstandard

Pair = tuple[str, str]
Reading = tuple[str, str, str]
"""A pair, and the name of one of its readings."""

Parts = dict[str, bytes]


class Wrong(Exception):  # noqa: N818 - it is the verdict
    """A promise was broken: which one, and what shows it."""


class Witness:
    """Looks at the parts and at the stand-in's log again and again, and remembers."""

    def __init__(self, log: Path, parts: Callable[[], Parts], last_reading: str) -> None:
        """Read the stand-in's ``log`` as it grows; ``parts`` gives all parts that a reader finds, by name.

        After its last reading a pair is never asked for again.
        """
        self._last_reading = last_reading
        self._log = log
        self._read_parts = parts
        self._at = 0
        self._digests: dict[str, str] = {}
        self._stored: set[Pair] = set()
        self._captures: Counter[Reading] = Counter()
        self._verdicts: dict[Pair, set[str]] = {}
        self._part_of: dict[Reading, set[str]] = {}
        self.responses = 0

    def answered(self) -> list[Pair]:
        """Give the pairs answered since the last check, whole lines alone."""
        with self._log.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        lines = [json.loads(line) for line in whole.splitlines()]
        self.responses += len(lines)
        for line in lines:
            if line["verdict"]:
                self._verdicts.setdefault((line["campaign_id"], line["send_id"]), set()).add(line["verdict"])
        return [(line["campaign_id"], line["send_id"]) for line in lines]

    def check(self) -> None:
        """Check what happened since the last check. Call it while no harvester runs: what stands is settled."""
        requested_again = self._stored & set(self.answered())
        if requested_again:
            raise Wrong(f"asked again although stored before: {sorted(requested_again)[:3]}")
        parts = self._read_parts()
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
        changed = [name for name, digest in self._digests.items() if digests.get(name) != digest]
        if changed:
            raise Wrong(f"a part changed or vanished: {changed[:3]}")
        for name in digests.keys() - self._digests.keys():
            self._take(name, parts[name])
        self._digests = digests

    def _take(self, name: str, data: bytes) -> None:
        for row in rows_of(name, data):
            pair, reading = (row["campaign_id"], row["send_id"]), row["reading"]
            self._part_of.setdefault((*pair, reading), set()).add(name)
            if row["level"] != "capture":
                continue
            self._captures[*pair, reading] += 1
            if reading == self._last_reading:
                self._stored.add(pair)
            if row["verdict"] not in self._verdicts.get(pair, ()):
                raise Wrong(f"{pair} is captured as {row['verdict']}, which was never answered")

    def all_there(self, enqueued_pairs: set[Pair]) -> None:
        """Judge at the end: of each pair the last reading is there, each reading once and whole, and nothing else."""
        missing, strange = enqueued_pairs - self._stored, {reading[:2] for reading in self._captures} - enqueued_pairs
        twice = [reading for reading, count in self._captures.items() if count > 1]
        if missing or twice or strange:
            problems = (
                f"{what} {sorted(those)[:3]} ({len(those)})"
                for what, those in (("missing", missing), ("twice", twice), ("never enqueued", strange))
            )
            raise Wrong(", ".join(problems))
        torn = [reading for reading, names in self._part_of.items() if len(names) > 1]
        if torn:
            raise Wrong(f"rows in two parts: {torn[:3]}")

    @property
    def captured(self) -> Counter[str]:
        """How many captures stand in parts, by reading."""
        return Counter(reading for _, _, reading in self._captures)


def rows_of(name: str, data: bytes) -> list[dict]:
    """Give a part's rows. Raises ``Wrong`` for a part that is not whole."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
            text = reader.read()
        if not text.endswith(b"\n"):
            raise Wrong(f"{name} ends within a line")
        return [json.loads(line) for line in text.split(b"\n")[:-1]]
    except (zstandard.ZstdError, ValueError) as error:
        raise Wrong(f"{name} is not whole: {error}") from None


def balanced(status: bytes) -> dict:
    """Judge ``harvester status --json``: accepted = captured + rejected + expired + pending. Gives the books."""
    books = json.loads(status)["books"]
    ended = sum(books["captured"].values()) + sum(books["rejected"].values()) + books["expired"]
    if books["accepted"] != ended + books["pending"]:
        raise Wrong(f"the books do not balance: {books}")
    return books


def secret_found(keys: list[str], folder: Path) -> None:
    """Judge all files below a folder: no key that was ever valid stands in any of them."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.endswith(".key"):
            data = path.read_bytes()
            if any(key.encode() in data for key in keys):
                raise Wrong(f"{path} holds a key")
