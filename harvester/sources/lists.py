"""One list of pairs while it is read: what its rows say, each send once, and what a person should know of it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from harvester.model import BadLine, Enqueued, Pair
from harvester.sources.currents import CANVAS
from harvester.sources.fields import REQUIRED, InFuture, Unusable, check_time, pair_in, shown, time_in
from harvester.sources.ids import doubt_about
from harvester.sources.rows import API_ID, Row
from harvester.sources.send_times import SendTimes, send_time


@dataclass(slots=True)
class _Doubt:
    """Ids that do not look like ids: the first one, and their number."""

    first: str
    count: int = 0


class TimeInQuestion(Exception):  # noqa: N818 - it never leaves the sources
    """Whether a row's time lies in the future can only be said once the time is confirmed. ``pair`` is the row's."""

    def __init__(self, pair: Pair) -> None:
        """Keep the pair."""
        super().__init__(pair)
        self.pair = pair


class ListOfPairs:
    """Takes the rows of one list and gives its pairs. Use it as a context manager."""

    def __init__(self, name: str, *, workspaces: Sequence[str]) -> None:
        """Begin without a row."""
        self.name = name
        self._shown_name = "standard input" if name == "-" else name
        self.naive_times = 0
        self.skipped: Counter[str] = Counter()
        self._workspaces = workspaces
        self._times = SendTimes()
        self._doubts: dict[tuple[str, str], _Doubt] = {}
        self._given = 0
        self._with_several_times = 0
        self._internal_ids = 0

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free memory and disk."""
        self._times.__exit__(kind, error, trace)

    def add(self, row: Row, *, latest: float, confirmed: bool) -> BadLine | None:
        """Take a row; gives it back as a bad line where it names no pair, or a time after ``latest``.

        Raises ``TimeInQuestion`` for such a time unless it is ``confirmed`` what time it is, and ``StorageError``.
        """
        fields, campaign = row.fields, "campaign_id"
        if API_ID in fields:
            if (cause := _cause_to_skip(fields)) is not None:
                self.skipped[cause] += 1
                return None
            self._internal_ids += fields.get(campaign) not in (None, "")
            fields, campaign = fields | {campaign: fields[API_ID]}, API_ID
        try:
            pair = pair_in(fields, self._workspaces)
            sent_at, naive = _sent_at(fields, latest)
        except Unusable as error:
            if isinstance(error, InFuture) and not confirmed:
                raise TimeInQuestion(pair_in(fields, self._workspaces)) from None
            field = campaign if error.field == "campaign_id" else error.field
            return BadLine(self.name, row.line, field, error.problem, row.as_json(), row.lines)
        self.naive_times += naive
        for field, text in zip(REQUIRED, pair[1:], strict=True):
            if (doubt := doubt_about(text)) is not None:
                self._doubts.setdefault((field, doubt), _Doubt(f"{row.line}: {field} {text!r}")).count += 1
        self._times.add(pair, sent_at)
        return None

    def each(self, *, now: float) -> Iterator[Enqueued]:
        """Give each pair once, with the time that counts. Raises ``StorageError``."""
        for pair, first, last in self._times.each():
            self._given += 1
            self._with_several_times += first != last
            yield Enqueued(pair, send_time(first, last, now=now))

    def notes(self, *, rows: int) -> list[str]:
        """Return notes for people on the list, once all its rows are read."""
        notes = []
        if not rows:
            notes.append(f"{self._shown_name} contains no rows")
        elif not self._given and self.skipped:
            notes.append(f"{self._shown_name}: no row has a {' and a '.join(REQUIRED)}")
        if self._internal_ids:
            notes.append(f"{self._shown_name}: {API_ID} is used as the campaign id; campaign_id is Braze's internal id")
        if self._with_several_times:
            notes.append(
                f"{self._shown_name}: {self._with_several_times} of {self._given} sends have several times; "
                "the earliest counts, or the latest once the earliest is over 14 days old"
            )
        for (_, doubt), seen in self._doubts.items():
            more = f" (and {seen.count - 1} more)" if seen.count > 1 else ""
            notes.append(f"{self._shown_name}:{seen.first} looks like {doubt}{more}; it was read as it is")
        return notes


def _cause_to_skip(fields: dict[str, Any]) -> str | None:
    """Return why a row of Braze's share is skipped: a canvas, or no send id. Most of its rows have none."""
    if not fields.get(API_ID) and (fields.get("canvas_id") or fields.get("canvas_api_id")):
        return CANVAS
    return None if fields.get("send_id") else "events without send_id"


def _sent_at(fields: dict[str, Any], latest: float) -> tuple[float | None, bool]:
    time = fields.get("time")
    if API_ID not in fields or "sent_at" in fields or time in (None, ""):
        return time_in(fields, "sent_at", latest=latest)
    try:
        seconds = int(str(time))
    except ValueError:
        raise Unusable("time", f"{shown(time)} is no whole number of Unix seconds, as Braze's share has it") from None
    check_time("time", time, seconds, latest=latest)
    return float(seconds), False
