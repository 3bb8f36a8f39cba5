"""Checks, before it matters, that a harvest can work; each finding says what to mend. Spends one call a workspace."""

from dataclasses import dataclass
from pathlib import Path

from harvester.braze.transport import Answer, BrazeTransport
from harvester.clock import Clock
from harvester.errors import ExchangeError, HarvesterError, Meaning, PartConflict, SinkError, meaning_of
from harvester.ledger import Ledger
from harvester.model import DATASET, Pair, Part
from harvester.settings import Settings, Workspace
from harvester.sinks import Sink

LARGE_SKEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, and what was seen or is to be done."""

    subject: str
    well: bool
    text: str


async def examine(settings: Settings, *, ledger: Path, sink: Sink, clock: Clock) -> list[Finding]:
    """Examine every workspace, the ledger and the sink. Never raises for what it finds."""
    findings = []
    for name, workspace in settings.workspaces.items():
        findings += await _workspace(name, workspace, settings, clock)
    try:
        async with await Ledger.open(ledger, clock=clock) as opened:
            findings.append(Finding(f"ledger {ledger}", well=True, text="opens, and can be written"))
            await sink.attach(opened.ledger_id)
            findings.append(Finding("sink", well=True, text=await _probed(sink)))
    except HarvesterError as error:
        findings.append(Finding("ledger and sink", well=False, text=str(error)))
    return findings


async def _probed(sink: Sink) -> str:
    """Create one small object twice, with different bytes: a place that allows that would lose parts."""
    name = f"{DATASET}/_probe"
    parts = [Part(DATASET, name, "", len(data), 0, data) for data in (b"harvester\n", b"overwritten\n")]
    await sink.create(parts[0])
    try:
        await sink.create(parts[1])
    except PartConflict:
        return "writable, and never overwrites"
    raise SinkError("the sink overwrites what is there, so parts could be lost; choose another place")


async def _workspace(name: str, workspace: Workspace, settings: Settings, clock: Clock) -> list[Finding]:
    subject = f"workspace {name} at {workspace.endpoint}"
    try:
        transport = BrazeTransport(
            endpoint=workspace.endpoint, api_key=workspace.key(), connections=1, clock=clock,
            timeout_seconds=settings.request_timeout_seconds,
        )  # fmt: skip
    except HarvesterError as error:
        return [Finding(subject, well=False, text=str(error))]
    try:
        nobody = Pair(name, "harvester-doctor", "harvester-doctor")
        answer = await transport.send_series(nobody, length_days=1, ending_at=clock.wall())
        said = transport.scrub(answer.body[:200].decode("utf-8", "replace")).encode("unicode_escape").decode()
    except ExchangeError as error:
        advice = "check the endpoint, the network and the time of this machine"
        return [Finding(subject, well=False, text=f"no answer ({error}); {advice}")]
    finally:
        await transport.close()
    return [_key(subject, answer, said), _budget(subject, answer), _skew(subject, answer, clock)]


def _key(subject: str, answer: Answer, said: str) -> Finding:
    match meaning_of(answer.status):
        case Meaning.HALTED:
            advice = (
                "check the key: does it belong to this endpoint, may it read sends.data_series and from this address?"
            )
            return Finding(f"{subject}: key", well=False, text=f"status {answer.status}: {said}; {advice}")
        case Meaning.ANSWER | Meaning.REJECTED if answer.status != 404:
            return Finding(
                f"{subject}: key", well=True, text=f"accepted (status {answer.status} for a campaign that is none)"
            )
        case _:
            return Finding(f"{subject}: key", well=False, text=f"cannot tell: status {answer.status}: {said}")


def _budget(subject: str, answer: Answer) -> Finding:
    budget = answer.budget
    if budget.limit is None or budget.remaining is None:
        return Finding(
            f"{subject}: budget", well=False, text="no rate limit in the answer; the pace will be --max-rate"
        )
    return Finding(
        f"{subject}: budget", well=True, text=f"{budget.remaining} of {budget.limit} calls left in this window"
    )


def _skew(subject: str, answer: Answer, clock: Clock) -> Finding:
    if answer.budget.server_time is None:
        return Finding(f"{subject}: clock", well=False, text="the answer has no Date; resets cannot be told")
    skew = clock.wall() - answer.budget.server_time
    text = f"differs from Braze's by about {skew:.0f} s"
    if abs(skew) > LARGE_SKEW_SECONDS:
        text += "; pacing does not mind, but captured_at and deadlines follow this machine: set its clock"
    return Finding(f"{subject}: clock", well=abs(skew) <= LARGE_SKEW_SECONDS, text=text)
