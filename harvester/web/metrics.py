"""Formats a snapshot as Prometheus metrics. Every metric is a figure of the snapshot, which the status page shows too.

The only module that imports the client library, which is too slow for the metrics of thousands of workspaces
(``workspace_metrics``). Ids are never labels.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from harvester.condition import Component, Scope
from harvester.histogram import HistogramState
from harvester.monitor.snapshot import ReplicasState, Snapshot
from harvester.web.workspace_metrics import encode_workspace_metrics

Samples = Iterable[tuple[tuple[str, ...], float]]
"""The values of a metric, each with the values of its labels."""

OPENMETRICS_END = b"# EOF\n"


def encode_metrics(snapshot: Snapshot, accept: str, *, by_workspace: bool = True) -> tuple[bytes, str]:
    """Return a snapshot in the exposition format that ``accept`` names, and the content type of that format.

    Without ``by_workspace``, the metrics with the label ``workspace`` are left out.
    """
    registry = CollectorRegistry()
    registry.register(_SnapshotCollector(snapshot))
    ProcessCollector(registry=registry)
    encoder, content_type = choose_encoder(accept)
    text = encoder(registry)
    if by_workspace:
        end = OPENMETRICS_END if text.endswith(OPENMETRICS_END) else b""
        text = text.removesuffix(end) + encode_workspace_metrics(snapshot, openmetrics=bool(end)) + end
    return text, content_type


class _SnapshotCollector(Collector):
    """One snapshot in the form that the client library needs."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield from _collect_process(self._snapshot)
        yield from _collect_replicas(self._snapshot.replicas)
        yield from _collect_captures(self._snapshot)
        yield from _collect_requests(self._snapshot)
        yield from _collect_books(self._snapshot)
        yield from _collect_triggers(self._snapshot)
        yield from _collect_store(self._snapshot)


def _collect_process(snapshot: Snapshot) -> Iterator[Metric]:
    yield _make_gauge("build_info", "Always 1; the label is the version.", ("version",), [((snapshot.version,), 1)])
    yield _make_gauge("ready", "Whether /readyz responds with 200.", (), [((), not snapshot.unready_reasons())])
    yield _make_gauge(
        "condition",
        "1 for a component that does not work, with its cause; 0 for one that works.",
        ("component", "subject", "cause"),
        _map_conditions(snapshot).items(),
    )
    yield _make_gauge(
        "start_time_seconds", "When the process started, since the epoch.", (), [((), snapshot.started_at)]
    )
    ahead = snapshot.clock_difference_seconds
    help_text = "Seconds by which this machine's clock is ahead of Braze's."
    yield _make_gauge("clock_difference_seconds", help_text, (), [] if ahead is None else [((), ahead)])


def _collect_replicas(replicas: ReplicasState) -> Iterator[Metric]:
    help_text = "Replicas that share the ledger, this one included."
    yield _make_gauge("replicas", help_text, (), [((), len(replicas.assigned))])
    help_text = "Workspaces that are assigned to this replica."
    yield _make_gauge("assigned_workspaces", help_text, (), [((), replicas.assigned.get(replicas.own, 0))])
    help_text = "Workspaces whose readings have been due for two minutes, but no replica requests them."
    yield _make_gauge("unserved_workspaces", help_text, (), [((), len(replicas.unserved))])


def _collect_captures(snapshot: Snapshot) -> Iterator[Metric]:
    help_text = "Captures, by verdict and name of the reading."
    yield _make_counter("captures", help_text, ("verdict", "reading"), snapshot.captures.items())
    yield _make_histogram(
        "capture_lateness_seconds", "Seconds from when a reading was due until its capture.", snapshot.lateness
    )
    help_text = "Seconds from a request to the end of its response."
    yield _make_histogram("request_duration_seconds", help_text, snapshot.durations)


def _collect_requests(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield the requests and responses of all workspaces."""
    every = snapshot.workspaces
    requests = sum((Counter(each.requests) for each in every), Counter[str]())
    responses = sum((Counter(each.responses) for each in every), Counter[str]())
    yield _make_counter("requests", "Requests sent, by cause.", ("cause",), _label_by_name(requests))
    help_text = "Responses, by HTTP status or by the cause of failure."
    yield _make_counter("responses", help_text, ("result",), _label_by_name(responses))
    waited = sum(each.waited_seconds for each in every)
    yield _make_counter("request_wait_seconds", "Time that requests waited for the pace.", (), [((), waited)])


def _map_conditions(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    """Return the cause of each component and subject; it is empty for those that work.

    Workspaces that work are left out, since there may be thousands.
    """
    subjects = {
        Scope.PROCESS: [""],
        Scope.WORKSPACE: [],
        Scope.TRIGGER: [each.name for each in snapshot.triggers],
    }
    failing: dict[tuple[str, ...], float] = {
        (each.component, each.subject, each.cause): 1.0 for each in snapshot.conditions
    }
    subjects_failing = {(component, subject) for component, subject, _ in failing}
    working = ((component, subject) for component in Component for subject in subjects[component.scope])
    return {(*each, ""): 0.0 for each in working if each not in subjects_failing} | failing


def _collect_books(snapshot: Snapshot) -> Iterator[Metric]:
    if (books := snapshot.books) is None:
        return
    outcomes = {
        "captured": sum(books.captured.values()),
        "rejected": sum(books.rejected.values()),
        "expired": books.expired,
        "pending": books.pending,
    }
    verdicts = [((verdict.value,), count) for verdict, count in books.captured.items()]
    yield _make_gauge("accepted_pairs", "Pairs in the ledger.", (), [((), books.accepted)])
    yield _make_gauge(
        "pairs", "Pairs by outcome; their sum is the accepted pairs.", ("outcome",), _label_by_name(outcomes)
    )
    yield _make_gauge("captured_pairs", "Captured pairs, by verdict.", ("verdict",), verdicts)
    yield _make_gauge("rejected_pairs", "Rejected pairs, by reason.", ("reason",), _label_by_name(books.rejected))
    help_text = "Whether accepted = captured + rejected + expired + pending."
    yield _make_gauge("books_balanced", help_text, (), [((), books.balanced)])


def _collect_triggers(snapshot: Snapshot) -> Iterator[Metric]:
    every = snapshot.triggers
    connected = [((each.name, each.kind), each.connected) for each in every]
    yield _make_gauge("trigger_connected", "Whether the trigger's queue is connected.", ("trigger", "kind"), connected)
    messages = [((each.name, outcome), count) for each in every for outcome, count in each.messages.items()]
    yield _make_counter("messages", "Messages, by outcome.", ("trigger", "outcome"), messages)


def _collect_store(snapshot: Snapshot) -> Iterator[Metric]:
    store = snapshot.store
    yield _make_gauge(
        "batches", "Batches that are not stored yet, by state.", ("state",), _label_by_name(store.batches)
    )
    yield _make_gauge(
        "sealed_bytes", "Sealed parts that wait in the ledger to be stored.", (), [((), store.sealed_bytes)]
    )
    yield _make_gauge("store_unavailable", "Places in which parts cannot be stored.", (), [((), store.unavailable)])
    yield _make_counter("parts", "Parts sealed.", (), [((), store.parts)])
    yield _make_counter("rows", "Rows in sealed parts.", (), [((), store.rows)])
    yield _make_counter("part_bytes", "Bytes of sealed parts.", (), [((), store.part_bytes)])


def _label_by_name(counts: Mapping[str, int]) -> Samples:
    return [((name,), count) for name, count in counts.items()]


def _make_gauge(name: str, help_text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    return _add_samples(GaugeMetricFamily(f"harvester_{name}", help_text, labels=labels), samples)


def _make_counter(name: str, help_text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """``name`` is without ``_total``, which the client library appends."""
    return _add_samples(CounterMetricFamily(f"harvester_{name}", help_text, labels=labels), samples)


def _make_histogram(name: str, help_text: str, state: HistogramState) -> Metric:
    buckets = [(str(bound), count) for bound, count in state.buckets]
    family = HistogramMetricFamily(f"harvester_{name}", help_text)
    family.add_metric([], [*buckets, ("+Inf", state.count)], state.sum)
    return family


def _add_samples(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Metric:
    for label_values, value in samples:
        family.add_metric(label_values, float(value))
    return family
