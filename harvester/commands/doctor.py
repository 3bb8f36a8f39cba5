"""Checks, before it matters, that a harvest can work; each finding says what to mend. Spends one call a workspace.

It never makes what it examines: a ledger and a folder that are not there yet are tried out beside, on the same disk.
Of a bucket, which nobody needs to be allowed to delete from, the one small object stays that was created to prove it.
"""

import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from harvester.braze.dated import DatedTransport
from harvester.braze.transport import BrazeTransport, Response
from harvester.clock import LARGE_DIFFERENCE_SECONDS, BrazeClock, Clock, format_difference
from harvester.commands.missing_parts import compare_parts
from harvester.errors import (
    ExchangeError,
    HarvesterError,
    LedgerError,
    Meaning,
    PartConflict,
    SinkError,
    StorageError,
    classify_status,
)
from harvester.ledger import Ledger
from harvester.model import DATASET, Pair, Part
from harvester.observability.redaction import scrub_foreign
from harvester.settings import DUPLICATE_WORKSPACE_HINT, Settings, Workspace
from harvester.settings.environment import PROXY_HINT, check_certificates, list_proxy_variables
from harvester.storage import FolderSink, Sink

_OTHER_FILES = 150
"""Open files beside calls to Braze: ledger, parts, brokers, buckets, and at most 64 connections to the page."""

_PROBE = ".harvester/probe"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, and what was seen or is to be done."""

    subject: str
    well: bool
    text: str


async def examine(settings: Settings, *, ledger: Path, sink: Sink, clock: Clock) -> list[Finding]:
    """Examine every workspace, the ledger and the sink. Never raises for what it finds."""
    findings = surroundings(settings)
    for name, workspace in settings.workspaces.items():
        findings += await _workspace(name, workspace, settings, clock)
    for names in settings.find_duplicates():
        findings.append(Finding(f"workspaces {' and '.join(names)}", well=False, text=DUPLICATE_WORKSPACE_HINT))
    try:
        ledger_id, known, seen = await _ledger(ledger, sink.place, clock)
        findings.append(Finding(f"ledger {ledger}", well=True, text=seen))
        findings.append(Finding("sink", well=True, text=await _sink(sink, ledger_id, known)))
        if _is_there(ledger):
            findings += await _parts(ledger, sink, clock)
    except HarvesterError as error:
        findings.append(Finding("ledger and sink", well=False, text=str(error)))
    return findings


def surroundings(settings: Settings) -> list[Finding]:
    """Examine the environment and the limits of the system: proxies, certificates, open files."""
    findings = []
    if variables := list_proxy_variables():
        findings.append(Finding("proxy", well=True, text=f"{', '.join(variables)} set: {PROXY_HINT}"))
    try:
        check_certificates()
    except HarvesterError as error:
        findings.append(Finding("certificates", well=False, text=str(error)))
    allowed, needed = resource.getrlimit(resource.RLIMIT_NOFILE)[0], _OTHER_FILES
    needed += len(settings.workspaces) * settings.concurrency
    if resource.RLIM_INFINITY != allowed < needed:
        text = f"{allowed} are allowed, but up to {needed} may be needed; allow more (ulimit -n, LimitNOFILE) or lower "
        findings.append(Finding("open files", well=False, text=f"{text}concurrency"))
    return findings


async def _ledger(path: Path, place: str, clock: Clock) -> tuple[str, str | None, str]:
    """Open the ledger, or a draft beside it; returns its id, the dataset that it knows at a place, and the finding."""
    if _is_there(path):
        async with await Ledger.open(path, clock=clock) as ledger:
            return ledger.ledger_id, await ledger.reports.find_dataset(place), "opens, and can be written"
    with _beside(path.parent) as folder:
        async with await Ledger.open(folder / path.name, clock=clock) as draft:
            return draft.ledger_id, None, "is not there yet, and can be made"


async def _parts(path: Path, sink: Sink, clock: Clock) -> list[Finding]:
    """Compare the parts that the ledger has as stored in this place with what lies there."""
    async with await Ledger.open(path, clock=clock) as ledger:
        dataset_id = await ledger.reports.find_dataset(sink.place)
        if dataset_id is None and await sink.find_owner():  # a place that was moved keeps its dataset
            dataset_id = await sink.attach(ledger.ledger_id)
        if dataset_id is None:
            return []
        found = await compare_parts(ledger, sink, dataset_id)
    return [Finding("parts", well=not found.missing, text=str(found))] if found.compared else []


async def _sink(sink: Sink, ledger_id: str, known: str | None) -> str:
    """Look whose the dataset is, and whether the place lets a part be written over."""
    marked = await sink.find_owner() is not None
    if marked:
        await sink.attach(ledger_id, known=known)
    if not isinstance(sink, FolderSink):
        await _must_not_overwrite(sink)
        return f"writable, and never overwrites; {_PROBE} stays in it, a few bytes"
    if marked:
        await _must_not_overwrite(sink)
        (sink.folder / _PROBE).unlink()
    else:
        with _beside(sink.folder) as folder:
            draft = FolderSink(folder)
            await draft.attach(ledger_id)
            await _must_not_overwrite(draft)
    return "writable, and never overwrites"


async def _must_not_overwrite(sink: Sink) -> None:
    """Create one small object twice, with different bytes: a place that allows that would lose parts."""
    first, second = (
        Part(DATASET, _PROBE, sha256(data).hexdigest(), len(data), 0, data)
        for data in (b"harvester\n", b"overwritten\n")
    )
    await sink.create(first)
    try:
        await sink.create(second)
    except PartConflict:
        return
    raise SinkError("the sink overwrites what is there, so parts could be lost; choose another place")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise LedgerError(f"cannot look for the ledger {path}: {error.strerror}; let this user in") from None


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """Give a folder to try things out in, where ``place`` is or would be made; it goes again, and no error names it."""
    try:
        there = next(each for each in (place, *place.parents) if each.is_symlink() or each.exists())
        trial = tempfile.TemporaryDirectory(prefix=".harvester-doctor-", dir=there)
    except OSError as error:
        raise StorageError(f"cannot write to {place}: {error.strerror}; let this user write there") from None
    with trial as folder:
        try:
            yield Path(folder)
        except HarvesterError as error:
            raise type(error)(str(error).replace(folder, str(place))) from None


async def _workspace(name: str, workspace: Workspace, settings: Settings, clock: Clock) -> list[Finding]:
    subject, braze = f'workspace "{name}" at {workspace.endpoint}', BrazeClock(clock)
    try:
        transport = BrazeTransport(
            endpoint=workspace.endpoint, api_key=settings.load_key(name), connections=1, clock=clock,
        )  # fmt: skip
    except HarvesterError as error:
        return [Finding(subject, well=False, text=str(error))]
    try:
        nobody = Pair(name, "harvester-doctor", "harvester-doctor")
        dated = DatedTransport(transport, braze)
        answer = await dated.send_series(nobody, length_days=1, ending_at=clock.wall())
        said = scrub_foreign(answer.body[:16_384].decode("utf-8", "replace"))
    except ExchangeError as error:
        advice = "check the endpoint, the network and the time of this machine"
        return [Finding(subject, well=False, text=f"no answer ({error}); {advice}")]
    finally:
        await transport.close()
    findings = [_key(subject, answer, said)]
    if classify_status(answer.status) is not Meaning.HALTED:  # a refused key has no budget
        findings.append(_budget(subject, answer))
    return [*findings, _difference(subject, answer, clock, braze)]


def _key(subject: str, answer: Response, said: str) -> Finding:
    match classify_status(answer.status):
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


def _budget(subject: str, answer: Response) -> Finding:
    budget = answer.budget
    if budget.limit is None or budget.remaining is None:
        return Finding(
            f"{subject}: budget", well=False, text="no rate limit in the answer; the pace will be --max-rate"
        )
    return Finding(
        f"{subject}: budget", well=True, text=f"{budget.remaining} of {budget.limit} calls left in this window"
    )


def _difference(subject: str, answer: Response, machine: Clock, braze: BrazeClock) -> Finding:
    """Compare the machine's clock with Braze's."""
    if answer.budget.server_time is None:
        return Finding(
            f"{subject}: clock", well=False, text="the answer has no Date header, so clock and resets are unknown"
        )
    seconds = machine.wall() - braze.wall()
    if abs(seconds) <= LARGE_DIFFERENCE_SECONDS:
        return Finding(f"{subject}: clock", well=True, text="within a minute of Braze's")
    text = f"{format_difference(seconds)}; harvester uses Braze's time, but set this machine's clock"
    return Finding(f"{subject}: clock", well=False, text=text)
