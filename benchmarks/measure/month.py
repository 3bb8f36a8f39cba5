"""Thirty days of a busy workspace in seconds: the whole service in virtual time, with outages, and a picture.

``python -m benchmarks.measure.month [--sends-per-day N] [--picture month.svg]`` adds new sends all day long and runs
the real service and ledger against the decisions of the stand-in. During the month, Braze is unavailable, the process
is down, and live sending uses nearly all of the quota, each for some time. The result is checked against the stand-in's
responses: each send has its final capture between day 13 and day 14, and none is lost.
"""

import argparse
import asyncio
import bisect
import html
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import orjson
from pydantic import SecretStr

from harvester.books import Books
from harvester.braze import gate, pacer
from harvester.braze.quota import QuotaReport
from harvester.braze.transport import Response
from harvester.clock import Clock
from harvester.engine import dispatcher, periodic_work
from harvester.errors import ExchangeError
from harvester.ledger import Ledger, database
from harvester.model import DAY_SECONDS, Pair, Part, SentPair
from harvester.observability.logs import set_up_logs
from harvester.service import service
from harvester.service.service import Service
from harvester.settings import Settings, Workspace
from harvester.simulator.config import SimulatorConfig
from harvester.simulator.decision import PATH, DecisionMaker
from harvester.simulator.neighbour import Steady
from harvester.simulator.quota import SharedQuota
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from harvester.storage import Compression

BRAZE_UNAVAILABLE = (6.2, 6.9)
PROCESS_DOWN = (15.1, 15.8)
QUOTA_TAKEN = (22.0, 22.75)
OUTAGES = {
    "Braze unavailable": BRAZE_UNAVAILABLE,
    "process down": PROCESS_DOWN,
    "live sending uses the quota": QUOTA_TAKEN,
}
KEY = "month-key"
HOURS_OF_SENDING = (8, 12, 17)
HALF_HOUR_SECONDS = 1800.0

_PERIODS_SECONDS = {
    gate: {"OVERLOAD_MAX_SECONDS": 2400.0},
    pacer: {"BURST_SECONDS": 2.0, "SLICE_SECONDS": 1.0},  # a request costs many seconds here, so longer slices suffice
    dispatcher: {"POLL_SECONDS": 10_800.0},
    periodic_work: {"HOUSEKEEPING_SECONDS": 43_200.0},
    database: {"LEASE_SECONDS": 43_200.0},
    service: {"SAMPLE_SECONDS": 10_800.0, "REPORT_SECONDS": 10_800.0},
}  # fmt: skip


@dataclass(slots=True)
class Month:
    """The result: the times of responses and failures per send, and per day the captures and waiting readings."""

    sends: list[SentPair]
    starts_at: float
    answered: dict[str, list[float]] = field(default_factory=dict)
    unanswered: dict[str, list[float]] = field(default_factory=dict)
    captures: dict[int, Counter[str]] = field(default_factory=dict)
    waiting_samples: list[tuple[float, int]] = field(default_factory=list)
    books: Books | None = None

    def list_sends_without_final(self, until: float) -> list[str]:
        """Return the sends that Braze deleted before ``until`` and that have no capture on their last day."""
        missed = []
        for each in self.sends:
            assert each.sent_at is not None
            ages = [(at - each.sent_at) / DAY_SECONDS for at in self.answered.get(each.pair.send_id, ())]
            if each.sent_at + 14 * DAY_SECONDS <= until and not any(13 <= age <= 14 for age in ages):
                missed.append(each.pair.send_id)
        return missed


class _Braze:
    """A transport that uses the decisions of the stand-in without a socket, in virtual time."""

    def __init__(self, month: Month, limit: int, clock: Clock) -> None:
        config = SimulatorConfig(api_key=KEY)
        usual, taken = (SharedQuota(limit, 3600.0, Steady(share)) for share in (0.1, 0.79))
        self._usual, self._taken = (DecisionMaker(config, quota, month.sends) for quota in (usual, taken))
        self._month = month
        self._clock = clock

    async def send_series(self, pair: Pair, *, length_days: int, ending_at: float) -> Response:
        await asyncio.sleep(0.2)
        now = self._clock.wall()
        if _within(BRAZE_UNAVAILABLE, now - self._month.starts_at):
            self._month.unanswered.setdefault(pair.send_id, []).append(now)
            raise ExchangeError("connection_refused", "connection refused")
        query: Mapping[str, str] = {
            "campaign_id": pair.campaign_id, "send_id": pair.send_id, "length": str(length_days),
            "ending_at": datetime.fromtimestamp(ending_at, UTC).isoformat(),
        }  # fmt: skip
        decision_maker = self._taken if _within(QUOTA_TAKEN, now - self._month.starts_at) else self._usual
        decision = decision_maker.decide("GET", PATH, query, authorization=f"Bearer {KEY}", now=now)
        grant = decision.grant
        assert grant is not None
        if decision.status == 200:
            self._month.answered.setdefault(pair.send_id, []).append(now)
        report = QuotaReport(grant.limit, grant.remaining, grant.reset_at, float(int(now)))
        return Response(decision.status, decision.body, report, 0.2)

    def use_key(self, api_key: str) -> None:
        """Keep the only key."""

    def scrub(self, text: str) -> str:
        return text

    async def close(self) -> None:
        pass


class _CountingSink:
    """A sink that counts the captures of each day, and stores nothing."""

    def __init__(self, month: Month) -> None:
        self._month = month

    place = "nowhere"

    async def attach(self, ledger_id: str, *, known: str | None = None) -> str:  # noqa: ARG002 - it has no dataset mark
        return ledger_id

    async def find_ledger_id(self) -> None:
        return None

    async def create(self, part: Part) -> None:
        for row in map(orjson.loads, part.data.splitlines()):
            if row["level"] == "capture":
                day = datetime.fromisoformat(row["captured_at"]).timestamp() - self._month.starts_at
                self._month.captures.setdefault(int(day // DAY_SECONDS), Counter())[row["reading"]] += 1


def _within(days: tuple[float, float], seconds: float) -> bool:
    return days[0] <= seconds / DAY_SECONDS < days[1]


def month(
    *, sends_per_day: int, days: int, ledger: Path,
    on_sample: Callable[[float], None] = lambda _day: None, count_waiting: bool = False,
) -> Month:  # fmt: skip
    """Run the service for ``days``, with a sample every half hour. The file ``ledger`` must not exist yet.

    ``count_waiting`` counts the waiting readings every half hour, for the picture.
    """
    clock = VirtualClock()
    sends = [
        SentPair(Pair("eu", f"campaign-{number % 7}", f"send-{day:02d}-{number:06d}"), at)
        for day in range(days)
        for number, at in enumerate(_list_send_times(clock.starts_at + day * DAY_SECONDS, sends_per_day))
    ]
    result = Month(sends, clock.starts_at)
    result.sends.sort(key=lambda each: each.sent_at or 0.0)
    with _lengthen_periods():
        run_virtual(
            _serve(
                result,
                days,
                on_sample,
                limit=300 * sends_per_day,
                path=ledger,
                clock=clock,
                count_waiting=count_waiting,
            )
        )
    return result


@contextmanager
def _lengthen_periods() -> Iterator[None]:
    """No other process enqueues or dies here, so the service can check for that less often."""
    with ExitStack() as stack:
        for module, values in _PERIODS_SECONDS.items():
            stack.enter_context(patch.multiple(module, **values))
        yield


def _list_send_times(day: float, sends: int) -> list[float]:
    """Return the times of a day's sends: half an hour each in the morning, at noon and in the evening."""
    return [
        day + HOURS_OF_SENDING[number * len(HOURS_OF_SENDING) // sends] * 3600 + number % 60 * 30
        for number in range(sends)
    ]


async def _serve(
    result: Month, days: int, on_sample: Callable[[float], None],
    *, limit: int, path: Path, clock: VirtualClock, count_waiting: bool,
) -> None:  # fmt: skip
    workspace = Workspace(endpoint="https://rest.fra-01.braze.eu", api_key=SecretStr(KEY))
    settings = Settings(workspaces={"eu": workspace}, concurrency=8, web_port=0, keep_days=30)
    braze = _Braze(result, limit, clock)
    enqueued = 0
    for began, ended in ((0.0, PROCESS_DOWN[0]), (PROCESS_DOWN[1], float(days))):
        await asyncio.sleep(began * DAY_SECONDS - clock.monotonic())
        async with await Ledger.open(path, clock=clock, jitter=random.Random(1)) as ledger:
            running_service = Service(
                settings, ledger=ledger, sink=_CountingSink(result), compression=Compression.NONE,
                connect=lambda *_: braze,
            )  # fmt: skip
            task = asyncio.create_task(running_service.serve())
            while clock.monotonic() < ended * DAY_SECONDS:
                await asyncio.sleep(HALF_HOUR_SECONDS)
                sent = bisect.bisect(result.sends, clock.wall(), key=lambda each: each.sent_at or 0.0)
                if sent > enqueued:
                    await running_service.enqueue(result.sends[enqueued:sent], once=False)
                enqueued = sent
                if count_waiting:
                    result.waiting_samples.append((clock.monotonic(), await _count_due(ledger)))
                on_sample(clock.monotonic() / DAY_SECONDS)
            running_service.stop()
            await task
            result.books = await ledger.reports.get_books()


async def _count_due(ledger: Ledger) -> int:
    """Count the readings that wait for their request."""
    readings = (await ledger.reports.get_outlooks(["eu"]))["eu"].readings
    return readings.get("due", 0) + readings.get("leased", 0)


def draw_picture(result: Month, days: int) -> str:
    """Draw captures by day and reading, the readings that waited, and the outages, as SVG."""
    names = ["d1", "d2", "d3", "d5", "d8", "d11", "final"]
    colours = ["#9ecae1", "#6baed6", "#4292c6", "#3182bd", "#2171b5", "#08519c", "#e6550d"]
    wide, high, left, base = 900, 420, 50, 300
    step = (wide - left - 20) / days
    most = max((sum(counts.values()) for counts in result.captures.values()), default=1)
    waiting = max((count for _, count in result.waiting_samples), default=1) or 1
    shapes = [
        f'<rect x="{left + began * step:.1f}" y="20" width="{(ended - began) * step:.1f}" height="{base + 80}" '
        f'class="out"/><text x="{left + began * step:.1f}" y="14">{html.escape(what)}</text>'
        for what, (began, ended) in OUTAGES.items()
    ]
    for day, counts in sorted(result.captures.items()):
        y = float(base)
        for name, colour in zip(names, colours, strict=True):
            height = counts[name] / most * (base - 30)
            y -= height
            shapes.append(
                f'<rect x="{left + day * step + 1:.1f}" y="{y:.1f}" width="{step - 2:.1f}" height="{height:.1f}" '
                f'fill="{colour}"><title>day {day}: {counts[name]} {name}</title></rect>'
            )
    line = " ".join(
        f"{left + at / DAY_SECONDS * step:.1f},{base + 80 - count / waiting * 65:.1f}"
        for at, count in result.waiting_samples
    )
    legend = "".join(
        f'<rect x="{left + 90 * index}" y="{high - 18}" width="12" height="12" fill="{colour}"/>'
        f'<text x="{left + 90 * index + 17}" y="{high - 8}">{name}</text>'
        for index, (name, colour) in enumerate(zip(names, colours, strict=True))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img">'
        "<title>Captures per day and reading, and readings that wait for their request</title>"
        "<style>svg{background:#fff}text{font:12px sans-serif;fill:#333}.out{fill:#fee0d2}</style>"
        + "".join(shapes)
        + f'<polyline points="{line}" fill="none" stroke="#333"/>'
        + f'<text x="4" y="34">{most}</text><text x="4" y="{base}">captures</text>'
        + f'<text x="4" y="{base + 24}">{waiting}</text><text x="4" y="{base + 80}">waiting</text>{legend}</svg>\n'
    )


def main() -> None:
    """Run a month, print the result, and draw it if ``--picture`` is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sends-per-day", type=int, default=100)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    set_up_logs(json=False, level="error")
    with tempfile.TemporaryDirectory() as folder:
        result = month(
            sends_per_day=args.sends_per_day, days=args.days, ledger=Path(folder) / "ledger.db", count_waiting=True,
        )  # fmt: skip
    until = result.starts_at + args.days * DAY_SECONDS
    closed = sum((each.sent_at or 0) + 14 * DAY_SECONDS <= until for each in result.sends)
    captures: Counter[str] = sum(result.captures.values(), Counter())
    print(f"sends      {len(result.sends)}; Braze has deleted the analytics of {closed}")
    print("captures   " + ", ".join(f"{count} {name}" for name, count in captures.most_common()))
    print(f"waiting    at most {max(count for _, count in result.waiting_samples)} readings")
    print(f"lost       {len(result.list_sends_without_final(until))} sends have no capture from their last day")
    print(f"books      {result.books}")
    if args.picture:
        args.picture.write_text(draw_picture(result, args.days))


if __name__ == "__main__":
    main()
