"""Checks the output of a test from outside: which pairs were enqueued, which got responses, and which rows exist.

It never reads the ledger and imports nothing from harvester. It uses only the parts, the log of the stand-in, and the
output of ``harvester status``.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import zstandard

Pair = tuple[str, str]
Reading = tuple[str, str, str]
"""A pair, and the name of one of its readings."""

Parts = dict[str, bytes]


class CheckFailed(Exception):  # noqa: N818 - it is a result, not an error of the program
    """harvester broke a guarantee. The message contains the guarantee and the evidence."""


class OutputChecker:
    """Compares the parts with the stand-in's log repeatedly, and keeps what it has read."""

    def __init__(self, logs: Sequence[Path], parts: Callable[[], Parts], last_reading: str) -> None:
        """Read the stand-in's ``logs`` as they grow; ``parts`` gives all parts that a reader finds, by name.

        A pair must not be requested after its last reading is stored.
        """
        self._last_reading = last_reading
        self._read_to = dict.fromkeys(logs, 0)
        self._read_parts = parts
        self._digests: dict[str, str] = {}
        self._stored: set[Pair] = set()
        self.captures: Counter[Reading] = Counter()
        """How many captures of each reading the parts contain."""
        self.captured_at: dict[Reading, float] = {}
        """When each reading was captured, by its row."""
        self._verdicts: dict[Pair, set[str]] = {}
        self._part_of: dict[Reading, set[str]] = {}
        self.responses = 0

    def read_responses(self) -> list[Pair]:
        """Return the pairs of the responses since the last call; an incomplete last line is left for the next one."""
        lines = [json.loads(line) for log in self._read_to for line in self._read_lines(log)]
        self.responses += len(lines)
        for line in lines:
            if line["verdict"]:
                self._verdicts.setdefault((line["campaign_id"], line["send_id"]), set()).add(line["verdict"])
        return [(line["campaign_id"], line["send_id"]) for line in lines]

    def _read_lines(self, log: Path) -> list[bytes]:
        with log.open("rb") as file:
            file.seek(self._read_to[log])
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to[log] += len(whole)
        return whole.splitlines()

    def check(self) -> None:
        """Check everything since the last check. Raises ``CheckFailed``."""
        requested_again = self._stored & set(self.read_responses())
        if requested_again:
            raise CheckFailed(f"requested again after the last reading was stored: {sorted(requested_again)[:3]}")
        parts = self._read_parts()
        self.read_responses()  # these may have been sent before the parts were stored
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
        changed = [name for name, digest in self._digests.items() if digests.get(name) != digest]
        if changed:
            raise CheckFailed(f"a part was changed or deleted: {changed[:3]}")
        for name in digests.keys() - self._digests.keys():
            self._add_part(name, parts[name])
        self._digests = digests

    def _add_part(self, name: str, data: bytes) -> None:
        for row in parse_rows(name, data):
            pair, reading = (row["campaign_id"], row["send_id"]), row["reading"]
            self._part_of.setdefault((*pair, reading), set()).add(name)
            if row["level"] != "capture":
                continue
            self.captures[*pair, reading] += 1
            self.captured_at[*pair, reading] = datetime.fromisoformat(row["captured_at"]).timestamp()
            if reading == self._last_reading:
                self._stored.add(pair)
            if row["verdict"] not in self._verdicts.get(pair, ()):
                raise CheckFailed(f"{pair} is captured as {row['verdict']}, but no response had this verdict")

    def check_complete(self, enqueued_pairs: set[Pair]) -> None:
        """Check that each pair has its last reading, each reading is complete in one part, and nothing else exists."""
        missing, unknown = enqueued_pairs - self._stored, {reading[:2] for reading in self.captures} - enqueued_pairs
        repeated = [reading for reading, count in self.captures.items() if count > 1]
        if missing or repeated or unknown:
            problems = (
                f"{problem} {sorted(pairs)[:3]} ({len(pairs)})"
                for problem, pairs in (("missing", missing), ("captured twice", repeated), ("never enqueued", unknown))
            )
            raise CheckFailed(", ".join(problems))
        split = [reading for reading, names in self._part_of.items() if len(names) > 1]
        if split:
            raise CheckFailed(f"rows of one reading in two parts: {split[:3]}")

    @property
    def captured(self) -> Counter[str]:
        """The number of captures in the parts, by reading."""
        return Counter(reading for _, _, reading in self.captures)


def parse_rows(name: str, data: bytes) -> list[dict]:
    """Return the rows of a part. Raises ``CheckFailed`` if the part is incomplete."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
            text = reader.read()
        if not text.endswith(b"\n"):
            raise CheckFailed(f"the last line of {name} is incomplete")
        return [json.loads(line) for line in text.split(b"\n")[:-1]]
    except (zstandard.ZstdError, ValueError) as error:
        raise CheckFailed(f"cannot read {name}: {error}") from None


def check_books(status: bytes) -> dict:
    """Check that the books of ``harvester status --json`` are balanced, and return them. Raises ``CheckFailed``."""
    books = json.loads(status)["books"]
    ended = sum(books["captured"].values()) + sum(books["rejected"].values()) + books["expired"]
    if books["accepted"] != ended + books["pending"]:
        raise CheckFailed(f"the books are not balanced: {books}")
    return books


def check_secrets(keys: list[str], folder: Path) -> None:
    """Check that no file below a folder contains a key that was ever valid. Raises ``CheckFailed``."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.endswith(".key"):
            data = path.read_bytes()
            if any(key.encode() in data for key in keys):
                raise CheckFailed(f"{path} contains a key")
