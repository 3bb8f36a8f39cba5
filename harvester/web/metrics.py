"""A snapshot as Prometheus metrics, and the only door to its client library.

Nothing is counted here: every figure is one that the status page shows too. Ids are never labels.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from harvester.health import Part, Scope
from harvester.monitor.snapshot import HELD, Snapshot

Labelled = Iterable[tuple[tuple[str, ...], float]]


def exposed(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Give the text that a scraper reads, in the format it accepts, and that format's content type."""
    registry = CollectorRegistry()
    registry.register(_Seen(snapshot))
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


class _Seen(Collector):
    """One snapshot, as the library wants it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        seen = self._snapshot
        yield _gauge("info", "Always 1; the version is its label.", ("version",), [((seen.version,), 1)])
        yield _gauge("ready", "Whether /readyz answers 200.", (), [((), not seen.not_ready())])
        yield _gauge("condition", "1 for a part that does not work, with its cause; 0 for one that works.",
                     ("part", "subject", "cause"), _conditions(seen).items())  # fmt: skip
        yield _gauge("start_time_seconds", "When the process started, since the epoch.", (), [((), seen.started_at)])
        ahead = seen.clock_difference_seconds
        yield _gauge("clock_difference_seconds", "Seconds by which this machine's clock is ahead of Braze's.", (),
                     [] if ahead is None else [((), ahead)])  # fmt: skip
        yield from _budget(seen)
        yield from _readings(seen)
        yield from _books(seen)
        yield from _ways(seen)


def _conditions(seen: Snapshot) -> dict[tuple[str, ...], float]:
    """Give every part by its subject: those that do not work with their cause, the others without one."""
    subjects = {
        Scope.PROCESS: [""],
        Scope.WORKSPACE: [each.name for each in seen.workspaces],
        Scope.TRIGGER: [each.name for each in seen.triggers],
    }
    ill: dict[tuple[str, ...], float] = {(each.part, each.subject, each.cause): 1.0 for each in seen.conditions}
    known = {(part, subject) for part, subject, _ in ill}
    well = ((part, subject) for part in Part for subject in subjects[part.scope] if (part, subject) not in known)
    return {(*each, ""): 0.0 for each in well} | ill


def _budget(seen: Snapshot) -> Iterator[Metric]:
    """Pace, budget and holds of each workspace. Nothing is told of a window that no answer has told of."""
    name, every = ("workspace",), seen.workspaces
    known = [each for each in every if each.window.lasts(seen.taken_at)]
    yield _gauge("pace_calls_per_second", "Calls that may leave now.", name, [((w.name,), w.pace) for w in every])
    yield _gauge("calls_in_flight", "Calls on their way.", name, [((w.name,), w.in_flight) for w in every])
    yield _gauge("budget_limit_calls", "Calls that the window allows to everybody.", name,
                 [((w.name,), w.window.limit) for w in known])  # fmt: skip
    yield _gauge("budget_remaining_calls", "Calls that are left to everybody.", name,
                 [((w.name,), w.window.remaining) for w in known])  # fmt: skip
    yield _gauge("budget_reserve_calls", "Calls that we leave to live sending.", name,
                 [((w.name,), w.window.reserve) for w in known])  # fmt: skip
    yield _gauge("budget_spent_calls", "Calls spent of this window, by us and, as inferred, by others.",
                 ("workspace", "by"), [((w.name, by), calls) for w in known for by, calls in
                                       (("us", w.window.ours), ("others", w.window.others))])  # fmt: skip
    yield _gauge("budget_reset_seconds", "Seconds until the window resets.", name,
                 [((w.name,), w.window.resets_at - seen.taken_at) for w in known])  # fmt: skip
    yield _gauge("held", "Whether calls are held, by cause.", ("workspace", "because"),
                 [((w.name, why), w.held_because == why) for w in every for why in HELD])  # fmt: skip
    yield _gauge("halted", "Whether it is halted: wrong key, permission or endpoint, or refused pairs.", name,
                 [((w.name,), w.halted_because is not None) for w in every])  # fmt: skip
    yield _counter("waited_seconds", "Seconds for which calls have waited to be allowed.", name,
                   [((w.name,), w.waited_seconds) for w in every])  # fmt: skip
    yield _counter("calls", "Calls sent, by what made us send them.", ("workspace", "cause"),
                   [((w.name, cause), n) for w in every for cause, n in w.calls.items()])  # fmt: skip
    yield _counter("answers", "Answers, by status or by what was wrong with them.", ("workspace", "status"),
                   [((w.name, status.removeprefix("status_")), n)
                    for w in every for status, n in w.answers.items()])  # fmt: skip


def _readings(seen: Snapshot) -> Iterator[Metric]:
    """Tell what is open, and what runs out of time."""
    name, every = ("workspace",), seen.workspaces
    yield _gauge("readings", "Open readings, by state.", ("workspace", "state"),
                 [((w.name, state), n) for w in every for state, n in w.readings.items()])  # fmt: skip
    yield _gauge("last_capture_timestamp_seconds", "When a reading was last captured, since the epoch; 0 if unknown.",
                 name, [((w.name,), w.last_captured_at) for w in every])  # fmt: skip
    yield _gauge("at_risk_pairs", "Open pairs that may expire unread: late, or unreachable at the last pace.", name,
                 [*(((w.name,), w.at_risk) for w in every),
                  *(((name,), count) for name, count in seen.unserved_at_risk.items())])  # fmt: skip
    yield _gauge("expired_pairs", "Pairs that ended without the reading that was due.", name,
                 [((w.name,), w.expired) for w in every])  # fmt: skip
    yield _gauge("nearest_deadline_seconds", "Seconds until the nearest deadline; negative once it has passed.", name,
                 [((w.name,), w.nearest_deadline - seen.taken_at) for w in every
                  if w.nearest_deadline is not None])  # fmt: skip


def _books(seen: Snapshot) -> Iterator[Metric]:
    """Tell the balance of the ledger."""
    if (books := seen.books) is None:
        return
    outcomes = {
        "captured": sum(books.captured.values()), "rejected": sum(books.rejected.values()),
        "expired": books.expired, "pending": books.pending,
    }  # fmt: skip
    yield _gauge("accepted_pairs", "Pairs in the ledger.", (), [((), books.accepted)])
    yield _gauge("pairs", "Pairs by what became of them; they sum up to those accepted.", ("outcome",),
                 [((outcome,), n) for outcome, n in outcomes.items()])  # fmt: skip
    yield _gauge("captured_pairs", "Captured pairs, by verdict.", ("verdict",),
                 [((verdict.value,), n) for verdict, n in books.captured.items()])  # fmt: skip
    yield _gauge("rejected_pairs", "Rejected pairs, by reason.", ("reason",),
                 [((reason,), n) for reason, n in books.rejected.items()])  # fmt: skip
    yield _gauge("books_balanced", "Whether accepted = captured + rejected + expired + pending.", (),
                 [((), books.balanced)])  # fmt: skip


def _ways(seen: Snapshot) -> Iterator[Metric]:
    """Tell what comes in and what goes out."""
    store, triggers = seen.store, seen.triggers
    yield _gauge("trigger_connected", "Whether the trigger's queue is connected.", ("trigger", "kind"),
                 [((t.name, t.kind), t.connected) for t in triggers])  # fmt: skip
    yield _counter("messages", "Messages, by what became of them.", ("trigger", "outcome"),
                   [((t.name, outcome), n) for t in triggers for outcome, n in t.messages.items()])  # fmt: skip
    yield _gauge("batches", "Batches that are not stored yet, by state.", ("state",),
                 [((state,), n) for state, n in store.batches.items()])  # fmt: skip
    yield _gauge("sealed_bytes", "Bytes of sealed parts that wait in the ledger to be stored.", (),
                 [((), store.sealed_bytes)])  # fmt: skip
    yield _gauge("store_away", "Whether parts cannot be stored now.", (), [((), store.problem is not None)])
    yield _counter("parts", "Parts sealed.", (), [((), store.parts)])
    yield _counter("rows", "Rows in sealed parts.", (), [((), store.rows)])
    yield _counter("part_bytes", "Bytes of sealed parts.", (), [((), store.part_bytes)])


def _gauge(name: str, help_text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    family = GaugeMetricFamily(f"harvester_{name}", help_text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, float(value))
    return family


def _counter(name: str, help_text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    family = CounterMetricFamily(f"harvester_{name}", help_text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, float(value))
    return family
