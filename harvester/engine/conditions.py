"""The conditions of an engine: its ledger, the endpoints and keys of its workspaces, and their places."""

from collections.abc import Iterator

from harvester.clock import BrazeClock
from harvester.condition import OUTAGE_SECONDS, Component, Condition, describe_failed_request
from harvester.engine.patience import Patience
from harvester.engine.places import Places
from harvester.engine.uploader import Uploader
from harvester.engine.workspaces import WorkspaceAccess
from harvester.ledger import Ledger


def find_ledger_condition(ledger: Ledger) -> Condition | None:
    """Return the condition of the ledger's server; None while it can be used."""
    if (outage := ledger.outage) is None:
        return None
    outage_seconds = ledger.clock.monotonic() - outage.since
    return Condition(Component.LEDGER, "unavailable", ledger.clock.wall() - outage_seconds, detail=outage.reason)


def find_workspace_condition(
    name: str, access: WorkspaceAccess, patience: Patience, clock: BrazeClock
) -> Condition | None:
    """Return the condition of a workspace's key or endpoint; None while both work."""
    halt, failing = access.client.endpoint.halt, access.client.endpoint.failing
    now = clock.monotonic()
    if halt is not None:
        return Condition(Component.KEY, halt.cause, clock.wall() - (now - halt.since), name, halt.reason)
    if failing is not None and (problem := _describe_endpoint(access, patience, now)):
        return Condition(Component.ENDPOINT, failing.cause, clock.wall() - (now - failing.since), name, problem)
    return None


def _describe_endpoint(access: WorkspaceAccess, patience: Patience, now: float) -> str:
    """Return how the last request failed, once requests have failed for long enough; otherwise an empty text.

    A run that never had a response reports its first failure at once, since a person may be waiting.
    """
    failing = access.client.endpoint.failing
    assert failing is not None
    seconds = 0.0 if access.unreachable is not None else patience.seconds_left(access.pacer)
    at_once = seconds is not None and not access.pacer.state().answered
    if not at_once and now - failing.since < OUTAGE_SECONDS:
        return ""
    retry_note = f"; trying again for up to {seconds:.0f} s" if seconds and at_once else ""
    return describe_failed_request(access.client.endpoint.url, failing) + retry_note


def find_store_conditions(places: Places, uploader: Uploader, clock: BrazeClock) -> Iterator[Condition]:
    """Yield the condition of each unavailable place; if there are several places, with its name and workspaces."""
    for place in places.list_used():
        if place.outage is None:
            continue
        outage_seconds, problem = clock.monotonic() - place.outage.since, place.outage.problem
        only, names = place is places.only, tuple(places.list_workspaces(place))
        yield Condition(
            Component.STORE,
            problem.cause,
            clock.wall() - outage_seconds,
            "" if only else place.sink.place,
            str(problem),
            blocks=bool(names) and (uploader.is_full(place) or outage_seconds >= OUTAGE_SECONDS),
            workspaces=() if only else names,
        )
