"""Describes what became of a send: one wording for the command line and the status page. Pure."""

import shlex
from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import Any

from harvester.errors import format_cause
from harvester.formatting import ago, iso_time, quantity, safe_text
from harvester.ledger import MAX_AHEAD, NextReading, PastReading, SendHistory, SendSearch
from harvester.model import Pair


def list_facts(send: SendHistory, search: SendSearch, served: Collection[str] | None = None) -> list[tuple[str, str]]:
    """Return what is known about a pair as names with their texts; the first is its state.

    ``served`` are the configured workspaces, if they are known.
    """
    facts = [("state", _state(send, search, served))]
    facts.append(("sent", "at an unknown time" if send.sent_at is None else _moment(send.sent_at, search.at)))
    facts.append(("enqueued", _moment(send.first_seen_at, search.at)))
    facts.append(("deadline", "none" if send.deadline is None else _moment(send.deadline, search.at)))
    if send.round > 1:
        facts.append(("round", f"{send.round}: the send id was sent again"))
    facts += [("reading", _past(each, search.at)) for each in send.readings]
    if send.next is not None:
        facts.append(("next", _next(send.next, search.at)))
    if send.state in ("rejected", "expired"):
        facts.append(("command", f"to request it again: {build_requeue_command(send.pair)}"))
    return facts


def explain_unknown(search: SendSearch) -> str:
    """Return what to do if no send was found."""
    if search.example is None:
        return (
            "check the id; harvester enqueue adds a send, harvester audit finds all that are missing. "
            "The ledger of a service deletes settled sends after keep_days; harvester latest exports their rows"
        )
    command = shlex.join(["harvester", "show", search.example.campaign_id, search.example.send_id])
    return f"it is the id of a campaign: add the id of one of its sends, such as: {safe_text(command)}"


def build_requeue_command(pair: Pair) -> str:
    """Return the command that requests a rejected or expired pair again, quoted for a shell."""
    return shlex.join(["harvester", "requeue", "--pair", pair.campaign_id, pair.send_id, "--workspace", pair.workspace])


def as_dict(send: SendHistory, search: SendSearch, served: Collection[str] | None = None) -> dict[str, Any]:
    """Return what is known about a pair as JSON; times are in UTC."""
    cause = find_wait_cause(send, search, served)
    return {
        "workspace": send.pair.workspace,
        "campaign_id": send.pair.campaign_id,
        "send_id": send.pair.send_id,
        "state": send.state,
        "explanation": _state(send, search, served),
        "wait_cause": cause,
        "sent_at": _iso(send.sent_at),
        "first_seen_at": _iso(send.first_seen_at),
        "deadline": _iso(send.deadline),
        "round": send.round,
        "readings": [
            asdict(each) | {"ended_at": _iso(each.ended_at), "stored_at": _iso(each.stored_at)}
            for each in send.readings
        ],
        "next": None if send.next is None else asdict(send.next) | {"due_at": _iso(send.next.due_at)},
    }


def find_wait_cause(send: SendHistory, search: SendSearch, served: Collection[str] | None = None) -> str | None:
    """Return why a pending pair waits, one of a closed set; None for a pair that is not pending."""
    if send.next is None:
        return None
    if send.next.leased:
        return "leased"
    if not (send.has_plan or not search.served if served is None else send.pair.workspace in served):
        return "unconfigured"
    if send.halt_reason is not None:
        return "halted"
    if send.next.due_at > search.at:
        return "deferred" if send.next.failures else "not_due"
    return "queued" if search.in_use else "no_process"


def _state(send: SendHistory, search: SendSearch, served: Collection[str] | None) -> str:
    last = send.readings[-1] if send.readings else None
    match send.state:
        case "captured" if last is not None:
            return f"captured: {last.verdict}"
        case "rejected" if last is not None:
            return f"rejected: {format_cause(last.reason or '')}: {safe_text(last.detail)}"
        case "expired":
            return "expired: it was not read before Braze deleted its analytics"
        case "pending" if send.next is not None:
            return f"pending: {_wait(send, send.next, search, served)}"
    return send.state


def _wait(send: SendHistory, following: NextReading, search: SendSearch, served: Collection[str] | None) -> str:
    """Return what a pending pair waits for."""
    name = f'workspace "{send.pair.workspace}"'
    bound = "at least " if following.ahead >= MAX_AHEAD else ""
    ahead = bound + quantity(following.ahead, "more urgent reading")
    sentences = {
        "leased": "a process is requesting it",
        "unconfigured": f"{name} is not served; add it to the configuration of harvester serve",
        "halted": f"{name} is halted: {safe_text(send.halt_reason or '')}",
        "deferred": f"{_failures(following)}; it is tried again {_relative(following.due_at, search.at)}",
        "not_due": f"its reading {following.name} is due {_relative(following.due_at, search.at)}",
        "no_process": "it is due, but no process uses the ledger; start harvester serve or harvester run",
        "queued": f"it is due; {ahead} of its workspace come first",
    }
    return sentences[find_wait_cause(send, search, served) or "leased"]


def _next(following: NextReading, now: float) -> str:
    failed = f"; {_failures(following)}" if following.failures else ""
    return f"{following.name}, due {_moment(following.due_at, now)}{failed}"


def _failures(following: NextReading) -> str:
    return f"{quantity(following.failures, 'attempt')} failed"


def _past(each: PastReading, now: float) -> str:
    return f"{each.name} {'; '.join(_past_parts(each, now))}"


def _past_parts(each: PastReading, now: float) -> Iterator[str]:
    verdict = f": {each.verdict}" if each.verdict else ""
    yield f"{each.outcome} {_moment(each.ended_at, now)}{verdict}"
    if each.reason:
        yield f"{format_cause(each.reason)}: {safe_text(each.detail)}"
    if each.part:
        place = f" in {each.place}" if each.place else ""
        yield f"part {each.part}{place}{'' if each.stored_at is not None else ', not stored yet'}"


def _moment(at: float, now: float) -> str:
    return f"{iso_time(at)}, {_relative(at, now)}"


def _relative(at: float, now: float) -> str:
    """Return a time relative to now; a terminal may not show the spaces that a page does not break."""
    return ago(at, now).replace("\N{NO-BREAK SPACE}", " ")


def _iso(at: float | None) -> str | None:
    return None if at is None else iso_time(at)
