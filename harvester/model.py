"""The nouns: pairs, readings, outcomes, batches and parts.

Everything here is immutable and independent of HTTP, SQL and files. Times are UTC seconds since the epoch (``float``)
unless a name says otherwise. Ids are opaque text, exactly as the customer gave them. Types with one value for each
reading are tuples, which are created three times as quickly as frozen dataclasses.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, Self

DAY_SECONDS = 86_400.0
RETENTION_SECONDS = 14 * DAY_SECONDS
"""How long Braze keeps a send's analytics: 14 days after the send (documentation of the endpoint)."""

SERIES_DAYS = 15
"""How many days a request covers: the 14 that Braze keeps and a day of grace. Days before the send cost nothing."""

GRACE_SECONDS = DAY_SECONDS
"""How long past retention a pair is still requested: the zone and the end of day 14 are not documented."""

MAX_ID_CHARACTERS = 64
"""Braze's own limit for a send id: ASCII, at most 64 characters (documentation of the identifier types)."""

DATASET = "send_analytics"
"""The name of the dataset that holds the rows."""

RAW_DATASET = "raw_answers"
"""The name of the optional dataset of responses as they were received, because they cannot be requested again."""

OWN_FOLDERS = frozenset({DATASET, RAW_DATASET, ".harvester"})
"""The folders of a place that only harvester writes to."""

PART_SUFFIXES = (".ndjson", ".ndjson.zst", ".ndjson.gz")

STORE_SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
"""How the names of places in object stores begin; other places are folders and files."""


def is_in_object_store(place: str) -> bool:
    """Return whether a place is in an object store."""
    scheme, mark, _ = place.partition("://")
    return bool(mark) and scheme in STORE_SCHEMES


def is_part(name: str) -> bool:
    """Return whether a file of this name in a dataset is a part."""
    return name.endswith(PART_SUFFIXES)


class Pair(NamedTuple):
    """A send's identity: one ``(campaign_id, send_id)`` of one workspace."""

    workspace: str
    campaign_id: str
    send_id: str


class SentPair(NamedTuple):
    """A pair from a source, with the time of its send if that is known."""

    pair: Pair
    sent_at: float | None = None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of input without a valid pair: its place, the wrong field and the reason.

    ``lines`` counts the lines that it spans: more than one if a quoted cell contains line ends.
    """

    source: str
    line: int
    field: str
    problem: str
    text: str
    lines: int = 1


def reading_name(age_days: float) -> str:
    """Return the name of the reading at an age, from the age's first six digits."""
    return f"d{age_days:g}"


class Verdict(StrEnum):
    """What a capture contains. Only ``activity`` is certain success."""

    ACTIVITY = "activity"
    ZERO = "zero"
    EMPTY = "empty"


class Reading(NamedTuple):
    """A planned capture of a pair, leased to one ``epoch`` of a process.

    ``ending_at`` is fixed, so that a retry requests the same days; ``deadline`` is when the data expires. ``since`` is
    the time from which the pair's age counts: its send, or when it was first seen if that is unknown. A pair that is
    sent again begins another ``round``. ``due_at`` is when it fell due, or was to be tried again; 0 if a run made it
    due.
    """

    pair_id: int
    pair: Pair
    name: str
    ending_at: float
    deadline: float
    since: float
    round: int = 0
    epoch: int = 0
    due_at: float = 0.0


class Probe(NamedTuple):
    """Which pair to request while refusals put an endpoint in doubt: one of a campaign that is not in ``refused``.

    A campaign that was captured before is best; otherwise the one with the farthest or the nearest deadline.
    """

    refused: tuple[str, ...]
    nearest: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What is sealed together: readings of any workspaces that have an outcome, and the parts with their rows."""

    id: str
    opened_at: float

    @classmethod
    def open(cls, now: float) -> Self:
        """Create a batch. Its id is the time, so that ids sort, and random digits, so that they are unique."""
        return cls(f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(4)}", now)


class Captured(NamedTuple):
    """A successful reading: its verdict and its rows, one NDJSON line each; ``raw`` if raw responses are kept."""

    verdict: Verdict
    captured_at: float
    rows: bytes
    row_count: int
    drift: bool = False
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class LastCapture:
    """A pair's last capture in a dataset's parts, and its number of captures; ``since`` as for a ``Reading``."""

    pair: Pair
    reading: str
    verdict: Verdict
    captured_at: float
    since: float
    captures: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A reading whose pair the API refuses. ``reason`` is a closed set (``status_400``), ``detail`` is free text."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """A reading to retry later: its cause was transient."""

    cause: str


@dataclass(frozen=True, slots=True)
class Released:
    """A reading that was claimed but not requested. It becomes due again, unchanged."""


Outcome = Captured | Rejected | Deferred | Released
"""The outcome of a leased reading. The first two end it; the others make it due again."""


class ReadingOutcome(NamedTuple):
    """A reading with its outcome, as it is sealed (without rows, which are in the part)."""

    reading: Reading
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Part:
    """The immutable object with a batch's rows for one place: its name in the dataset, its bytes and their digest.

    ``destination`` is the id of the dataset at the place that it is sealed for.
    """

    dataset: str
    name: str
    sha256: str
    size_bytes: int
    row_count: int
    data: bytes
    destination: str = ""

    def __repr__(self) -> str:
        """Omit the bytes."""
        return f"Part({self.dataset}/{self.name}, {self.row_count} rows, {self.size_bytes} bytes)"
