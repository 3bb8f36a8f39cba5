"""Collects the pairs of one list while it is read: each send once, and notes about the list for the user."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from harvester.model import BadLine, Pair, SentPair
from harvester.sources.columns import API_ID, CANVAS_COLUMNS
from harvester.sources.currents import CANVAS_EVENTS, name_missing_field_cause
from harvester.sources.fields import ID_FIELDS, InvalidField, parse_pair
from harvester.sources.id_checks import find_id_doubt, is_placeholder
from harvester.sources.lists.rows import Row
from harvester.sources.send_times import SendTimes, choose_send_time
from harvester.sources.times import TimeInFuture, parse_time

EnqueueNew = Callable[[Sequence[SentPair]], bool]
"""Enqueues those pairs of a page that are new to the ledger, while their list is read; returns whether all were."""


@dataclass(slots=True)
class _Doubt:
    """Ids that look like a mistake of one kind: the location of the first one, and their number."""

    first: str
    count: int = 0


class UnconfirmedTime(Exception):  # noqa: N818 - it never leaves the sources
    """The time of ``pair`` seems to be in the future, but the current time is not confirmed."""

    def __init__(self, pair: Pair) -> None:
        """Store the pair."""
        super().__init__(pair)
        self.pair = pair


class PairList:
    """Collects the rows of one list and returns its pairs. Use it as a context manager.

    ``naive_times`` counts times without a zone, ``skipped`` counts skipped rows by cause.
    """

    def __init__(
        self,
        name: str,
        *,
        workspaces: Collection[str],
        time_format: str | None = None,
        enqueue_new: EnqueueNew | None = None,
    ) -> None:
        """Create an empty list; ``name`` is its place, or ``-`` for standard input."""
        self.naive_times = 0
        self.skipped: Counter[str] = Counter()
        self._display_name = "standard input" if name == "-" else name
        self._workspaces = workspaces
        self._time_format = time_format
        self._enqueue_new = enqueue_new
        self._times = SendTimes(keep_page=enqueue_new is not None)
        self._doubts: dict[tuple[str, str], _Doubt] = {}
        self._rows = 0
        self._sends = 0
        self._sends_with_several_times = 0
        self._internal_ids = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the temporary file of the sends."""
        self._times.__exit__(kind, error, trace)

    def add(self, row: Row, *, file: str, latest: float, confirmed: bool) -> BadLine | None:
        """Add a row of a file. Returns a bad line if it contains no valid pair, or if its time is after ``latest``.

        For a time after ``latest``, it raises ``UnconfirmedTime`` unless the current time is ``confirmed``. Raises
        ``StorageError`` if the disk is full.
        """
        fields, campaign_field = row.fields, "campaign_id"
        if API_ID in fields:
            if (cause := _find_skip_cause(fields)) is not None:
                self.skipped[cause] += 1
                return None
            self._internal_ids += fields.get("campaign_id") not in (None, "")
            fields, campaign_field = fields | {"campaign_id": fields[API_ID]}, API_ID
        try:
            pair = parse_pair(fields, self._workspaces)
            sent_at, naive = parse_time(fields, "sent_at", latest=latest, time_format=self._time_format)
        except InvalidField as error:
            if isinstance(error, TimeInFuture) and not confirmed:
                raise UnconfirmedTime(parse_pair(fields, self._workspaces)) from None
            field = campaign_field if error.field == "campaign_id" else error.field
            return BadLine(file, row.line, row.columns.get(field, field), error.problem, row.to_json(), row.lines)
        self.naive_times += naive
        self._rows += 1
        self._count_doubts(file, row, pair)
        self._times.add(pair, sent_at)
        return None

    def _count_doubts(self, file: str, row: Row, pair: Pair) -> None:
        file = "standard input" if file == "-" else file
        for field, text in zip(ID_FIELDS, pair[1:], strict=True):
            if (doubt := find_id_doubt(text)) is not None:
                self._doubts.setdefault((field, doubt), _Doubt(f"{file}:{row.line}: {field} {text!r}")).count += 1

    def enqueue_page(self) -> None:
        """Enqueue the sends of the last page with ``enqueue_new``, if there is one and they are not enqueued yet."""
        if self._enqueue_new is None:
            return
        page = self._times.take_page()
        if page and self._enqueue_new(page):
            self._times.mark_enqueued()

    def list_pairs(self, *, now: float) -> Iterator[SentPair | None]:
        """Yield each pair once, with the time from which its deadline counts. Raises ``StorageError``.

        None stands for a pair that ``enqueue_page`` has enqueued.
        """
        for pair, first, last, enqueued in self._times.list_sends():
            self._sends += 1
            self._sends_with_several_times += first != last
            yield None if enqueued else SentPair(pair, choose_send_time(first, last, now=now))

    def describe(self, formats: Iterable[str]) -> str:
        """Return what was read: the formats of the files, and the numbers of rows, sends and duplicates."""
        counts = f"rows {self._rows}, sends {self._sends}, duplicates {self._rows - self._sends}"
        return "; ".join([f"{self._display_name}: {' / '.join(formats)}", counts])

    def list_notes(self, *, rows: int) -> list[str]:
        """Return notes about the list. Call it after all rows and pairs are read."""
        notes = []
        if not rows:
            notes.append(f"{self._display_name} contains no rows")
        elif not self._sends and self.skipped:
            notes.append(f"{self._display_name}: no row has a {' and a '.join(ID_FIELDS)}")
        if self._internal_ids:
            notes.append(
                f"{self._display_name}: {API_ID} is used as the campaign id; campaign_id is Braze's internal id"
            )
        if self._sends_with_several_times:
            notes.append(
                f"{self._display_name}: {self._sends_with_several_times} of {self._sends} sends have several times; "
                "the earliest counts, or the latest once the earliest is over 14 days old"
            )
        return notes + [self._format_doubt(kind, doubt) for (_, kind), doubt in self._doubts.items()]

    def _format_doubt(self, kind: str, doubt: _Doubt) -> str:
        more = f" (and {doubt.count - 1} more)" if doubt.count > 1 else ""
        return f"{doubt.first} looks like {kind}{more}; it was read unchanged"


def _find_skip_cause(fields: dict[str, Any]) -> str | None:
    """Return why a row of Braze's Snowflake share is skipped (a canvas, or no send id), or None if it is read."""
    if _is_missing(fields.get(API_ID)) and not all(_is_missing(fields.get(name)) for name in CANVAS_COLUMNS):
        return CANVAS_EVENTS
    return name_missing_field_cause("send_id") if _is_missing(fields.get("send_id")) else None


def _is_missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, str) and is_placeholder(value.strip()))
