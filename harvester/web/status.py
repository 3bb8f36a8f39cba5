"""Encodes the health of the service as JSON: what the status page shows, for programs. It contains no secret.

Times are in UTC. Texts from outside are shortened, and secrets in them masked, as on the page.
"""

import json
from typing import Any

from harvester.condition import MAX_CONDITIONS, Condition
from harvester.formatting import iso_time, safe_text
from harvester.ledger import Rejection
from harvester.monitor.health import Health
from harvester.monitor.snapshot import (
    PlaceState,
    ReplicasState,
    Snapshot,
    StoreState,
    TriggerState,
    Window,
    WorkspaceState,
)
from harvester.web.document import take_whole

MAX_STATUS_BYTES = 95_000
MAX_PLACES = 20
MAX_REPLICAS = 100


def encode_status(health: Health) -> str:
    """Return the health as a JSON object of at most 100 KB; ``docs/operations.md`` describes its fields."""
    alerts, reasons = health.alerts(), health.unready_reasons()
    status: dict[str, Any] = {
        "healthy": not alerts,
        "ready": not reasons,
        "alerts": alerts[:MAX_CONDITIONS],
        "unready_reasons": reasons[:MAX_CONDITIONS],
        "problem": None if health.problem is None else safe_text(health.problem),
    }
    if health.snapshot is None:
        return _encode(status)
    status |= _process(health.snapshot)
    ranked = health.snapshot.rank_workspaces()
    encoded = (_encode(_workspace(each, health.snapshot.taken_at)) for each in ranked)  # only those that fit
    room = MAX_STATUS_BYTES - len(_encode(status).encode("utf-8", "replace"))
    taken = take_whole(encoded, most_bytes=room)
    status["omitted_workspaces"] = len(ranked) - len(taken)
    return f'{_encode(status)[:-1]},"workspaces":[{",".join(taken)}]}}'


def _encode(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _process(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "version": snapshot.version,
        "taken_at": iso_time(snapshot.taken_at),
        "started_at": iso_time(snapshot.started_at),
        "clock_difference_seconds": snapshot.clock_difference_seconds,
        "books": None if snapshot.books is None else snapshot.books.as_dict(_time),
        "conditions": [_condition(each) for each in snapshot.conditions[:MAX_CONDITIONS]],
        "triggers": [_trigger(each) for each in snapshot.triggers],
        "store": _store(snapshot.store),
        "replicas": _replicas(snapshot.replicas),
        "rejections": [_rejection(each) for each in snapshot.rejections],
    }


def _condition(each: Condition) -> dict[str, Any]:
    return {
        "component": each.component.value,
        "subject": safe_text(each.subject),
        "cause": safe_text(each.cause),
        "since": iso_time(each.since),
        "detail": safe_text(each.detail),
        "blocks": each.blocks,
    }


def _trigger(each: TriggerState) -> dict[str, Any]:
    return {
        "name": each.name,
        "kind": each.kind,
        "connected": each.connected,
        "last_error": None if each.last_error is None else safe_text(each.last_error),
        "messages": dict(each.messages),
    }


def _replicas(replicas: ReplicasState) -> dict[str, Any]:
    return {
        "own": replicas.own,
        "assigned_workspaces": dict(replicas.rank_assigned()[:MAX_REPLICAS]),
        "unserved_workspaces": replicas.unserved[:MAX_CONDITIONS],
    }


def _store(store: StoreState) -> dict[str, Any]:
    return {
        "place": safe_text(store.place),
        "problem": None if store.problem is None else safe_text(store.problem),
        "batches": dict(store.batches),
        "unavailable_places": store.unavailable,
        "places": [_place(each) for each in store.places[:MAX_PLACES]],
        "sealed_bytes": store.sealed_bytes,
        "parts": store.parts,
        "rows": store.rows,
        "part_bytes": store.part_bytes,
    }


def _place(each: PlaceState) -> dict[str, Any]:
    return {
        "place": safe_text(each.place),
        "workspaces": each.workspaces,
        "problem": None if each.problem is None else safe_text(each.problem),
        "waiting_batches": each.waiting_batches,
        "waiting_bytes": each.waiting_bytes,
    }


def _rejection(each: Rejection) -> dict[str, Any]:
    return {
        "workspace": each.pair.workspace,
        "campaign_id": safe_text(each.pair.campaign_id),
        "send_id": safe_text(each.pair.send_id),
        "reason": each.reason,
        "detail": safe_text(each.detail),
        "rejected_at": iso_time(each.ended_at),
    }


def _workspace(each: WorkspaceState, now: float) -> dict[str, Any]:
    return {
        "name": each.name,
        "replica": each.replica,
        "pace_requests_per_second": round(each.pace, 3) if each.replica is None else None,
        "requests_in_flight": each.in_flight,
        "hold_cause": each.hold_cause,
        "hold_until": _time(each.hold_until) if each.hold_cause else None,
        "halt_reason": None if each.halt_reason is None else safe_text(each.halt_reason),
        "halted_since": _time(each.halted_since),
        "waited_seconds": round(each.waited_seconds, 3),
        "readings": dict(each.readings),
        "at_risk_pairs": each.at_risk,
        "expired_pairs": each.expired,
        "nearest_deadline": _time(each.nearest_deadline),
        "last_captured_at": _time(each.last_captured_at or None),
        "quota": _quota(each.window) if each.window.is_current(now) else None,
        "deadlines": [
            {"day": iso_time(day.at)[:10], "pairs": day.pairs, "at_risk": day.at_risk} for day in each.deadlines
        ],
        "requests": dict(each.requests),
        "responses": dict(each.responses),
    }


def _quota(window: Window) -> dict[str, Any]:
    return {
        "limit_requests": window.limit,
        "remaining_requests": window.remaining,
        "reserve_requests": window.reserve,
        "self_requests": window.ours,
        "others_requests": window.others,
        "began_at": iso_time(window.began_at),
        "resets_at": iso_time(window.resets_at),
    }


def _time(at: float | None) -> str | None:
    return None if at is None else iso_time(at)
