"""Checks that a capture can work; each finding says what to correct. Sends one request per workspace.

No check creates a ledger or a folder: it creates a temporary one on the same disk instead. In a bucket, a small object
remains, because harvester does not need the permission to delete.
"""

import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from harvester.braze.connections import Connections
from harvester.braze.dated import DatedTransport
from harvester.braze.transport import BrazeTransport, Response
from harvester.clock import LARGE_DIFFERENCE_SECONDS, BrazeClock, Clock, format_difference
from harvester.commands.missing_parts import compare_parts
from harvester.engine.workspaces import count_connections
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
from harvester.settings.proxy import FROM_ENVIRONMENT
from harvester.storage import FolderSink, Sink

_OTHER_FILES = 150
"""Open files other than requests: ledger, parts, brokers, buckets, and at most 64 connections to the page."""

_PROBE = ".harvester/probe"

_RESTORE_HINT = "another program has changed it: restore a backup, or use harvester ledger rebuild"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check: its subject, whether it is ok, and what was found or what to do."""

    subject: str
    ok: bool
    text: str


async def run_checks(settings: Settings, *, ledger: Path, sink: Sink, clock: Clock) -> list[Finding]:
    """Check every workspace, the ledger and the sink. Problems are findings, not exceptions."""
    findings = check_process(settings)
    for name, workspace in settings.workspaces.items():
        findings += await _check_workspace(name, workspace, settings, clock)
    for names in settings.find_duplicates():
        findings.append(Finding(f"workspaces {' and '.join(names)}", ok=False, text=DUPLICATE_WORKSPACE_HINT))
    try:
        ledger_id, known, seen = await _check_ledger(ledger, sink.place, clock)
        findings.append(Finding(f"ledger {ledger}", ok=True, text=seen))
        findings.append(Finding("place", ok=True, text=await _check_sink(sink, ledger_id, known)))
        if _exists(ledger):
            findings += await _check_parts(ledger, sink, clock)
    except HarvesterError as error:
        findings.append(Finding("ledger and place", ok=False, text=str(error)))
    return findings


def check_process(settings: Settings) -> list[Finding]:
    """Check the environment and the limits of the process: proxies, certificates, open files."""
    findings = []
    try:
        if text := _describe_proxy(settings):
            findings.append(Finding("proxy", ok=True, text=text))
    except HarvesterError as error:
        findings.append(Finding("proxy", ok=False, text=str(error)))
    try:
        check_certificates(settings.ca_file)
    except HarvesterError as error:
        findings.append(Finding("certificates", ok=False, text=str(error)))
    allowed, needed = resource.getrlimit(resource.RLIMIT_NOFILE)[0], _OTHER_FILES
    needed += min(len(settings.workspaces) * settings.concurrency, count_connections(settings))
    if resource.RLIM_INFINITY != allowed < needed:
        text = f"the limit is {allowed}, but up to {needed} may be needed; raise it (ulimit -n) or lower max_in_flight"
        findings.append(Finding("open files", ok=False, text=text))
    return findings


def _describe_proxy(settings: Settings) -> str | None:
    """Return how buckets are reached, and which variables are ignored. Raises ``UsageError`` for an unusable proxy."""
    if not settings.has_proxy:
        variables = list_proxy_variables()
        return f"{', '.join(variables)} set: {PROXY_HINT}" if variables else None
    proxy = settings.load_store_proxy()
    if proxy is None:
        unset = settings.proxy.get_secret_value() == FROM_ENVIRONMENT
        return "buckets are reached directly" + (", since HTTPS_PROXY is not set" if unset else "")
    excluded = f", except for {', '.join(proxy.excluded)}" if proxy.excluded else ""
    return f"buckets are reached through {proxy.address}{excluded}"


async def _check_ledger(path: Path, place: str, clock: Clock) -> tuple[str, str | None, str]:
    """Open the ledger, or a temporary one; returns its id, the dataset that it has at a place, and the finding."""
    if _exists(path):
        async with await Ledger.open(path, clock=clock) as ledger:
            if wrong := await ledger.reports.find_wrong_counts():
                raise LedgerError(f"the counts of the ledger {path} are wrong ({wrong[0]}); {_RESTORE_HINT}")
            return ledger.ledger_id, await ledger.reports.find_dataset(place), "can be read and written"
    with _temporary_folder_at(path.parent) as folder:
        async with await Ledger.open(folder / path.name, clock=clock) as draft:
            return draft.ledger_id, None, "does not exist yet, and can be created"


async def _check_parts(path: Path, sink: Sink, clock: Clock) -> list[Finding]:
    """Compare the stored parts in the ledger with those in the place."""
    async with await Ledger.open(path, clock=clock) as ledger:
        dataset_id = await ledger.reports.find_dataset(sink.place)
        if dataset_id is None and await sink.find_owner():  # a place that was moved keeps its dataset
            dataset_id = await sink.attach(ledger.ledger_id)
        if dataset_id is None:
            return []
        found = await compare_parts(ledger, sink, dataset_id)
    return [Finding("parts", ok=not found.missing, text=str(found))] if found.compared else []


async def _check_sink(sink: Sink, ledger_id: str, known: str | None) -> str:
    """Check the owner of the dataset, and that a part cannot be overwritten."""
    marked = await sink.find_owner() is not None
    if marked:
        await sink.attach(ledger_id, known=known)
    if not isinstance(sink, FolderSink):
        await _check_overwriting(sink)
        return f"can be written, and does not overwrite existing objects; the test object {_PROBE} remains"
    if marked:
        await _check_overwriting(sink)
        (sink.folder / _PROBE).unlink()
    else:
        with _temporary_folder_at(sink.folder) as folder:
            draft = FolderSink(folder)
            await draft.attach(ledger_id)
            await _check_overwriting(draft)
    return "can be written, and does not overwrite existing files"


async def _check_overwriting(sink: Sink) -> None:
    """Create a small object twice, with different bytes: a place that allows this would lose parts."""
    first, second = (
        Part(DATASET, _PROBE, sha256(data).hexdigest(), len(data), 0, data)
        for data in (b"harvester\n", b"overwritten\n")
    )
    await sink.create(first)
    try:
        await sink.create(second)
    except PartConflict:
        return
    raise SinkError("the place overwrites existing objects, so parts could be lost; choose another place")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise LedgerError(f"cannot access the ledger {path}: {error.strerror}; give this user access") from None


@contextmanager
def _temporary_folder_at(place: Path) -> Iterator[Path]:
    """Create a temporary folder where ``place`` is or would be created; errors name the place instead."""
    try:
        there = next(each for each in (place, *place.parents) if each.is_symlink() or each.exists())
        trial = tempfile.TemporaryDirectory(prefix=".harvester-doctor-", dir=there)
    except OSError as error:
        raise StorageError(f"cannot write to {place}: {error.strerror}; give this user write access") from None
    with trial as folder:
        try:
            yield Path(folder)
        except HarvesterError as error:
            raise type(error)(str(error).replace(folder, str(place))) from None


async def _check_workspace(name: str, workspace: Workspace, settings: Settings, clock: Clock) -> list[Finding]:
    subject, braze = f'workspace "{name}" at {workspace.endpoint}', BrazeClock(clock)
    try:
        check_certificates(settings.ca_file)
        key, proxy = settings.load_key(name), settings.load_proxy(name)
    except HarvesterError as error:
        return [Finding(subject, ok=False, text=str(error))]
    if proxy is not None:
        subject += f" through {proxy.address}"
    connections = Connections(1, ca_file=settings.ca_file)
    transport = BrazeTransport(workspace.endpoint, key, connections=connections, clock=clock, proxy=proxy)
    try:
        nonexistent = Pair(name, "harvester-doctor", "harvester-doctor")
        dated = DatedTransport(transport, braze)
        answer = await dated.send_series(nonexistent, length_days=1, ending_at=clock.wall())
        text = scrub_foreign(answer.body[:16_384].decode("utf-8", "replace"))
    except ExchangeError as error:
        advice = (
            "" if error.cause.startswith("proxy_") else "; check the endpoint, the network and this machine's clock"
        )
        return [Finding(subject, ok=False, text=f"no response ({error}){advice}")]
    finally:
        await transport.close()
        await connections.close()
    findings = [_check_key(subject, answer, text)]
    if classify_status(answer.status) is not Meaning.HALTED:  # a refused key has no quota
        findings.append(_check_quota(subject, answer))
    return [*findings, _check_clock(subject, answer, clock, braze)]


def _check_key(subject: str, answer: Response, text: str) -> Finding:
    match classify_status(answer.status):
        case Meaning.HALTED:
            advice = "check its endpoint, its permission sends.data_series, and its allowed IP addresses"
            return Finding(f"{subject}: key", ok=False, text=f"status {answer.status}: {text}; {advice}")
        case Meaning.SUCCESS | Meaning.REJECTED if answer.status != 404:
            return Finding(
                f"{subject}: key", ok=True, text=f"accepted (status {answer.status} for a campaign that does not exist)"
            )
        case _:
            return Finding(f"{subject}: key", ok=False, text=f"unknown: status {answer.status}: {text}")


def _check_quota(subject: str, answer: Response) -> Finding:
    quota = answer.quota
    if quota.limit is None or quota.remaining is None:
        return Finding(f"{subject}: quota", ok=False, text="no rate limit in the response; the pace will be --max-rate")
    return Finding(
        f"{subject}: quota", ok=True, text=f"{quota.remaining} of {quota.limit} requests left in this window"
    )


def _check_clock(subject: str, answer: Response, machine: Clock, braze: BrazeClock) -> Finding:
    """Compare the machine's clock with Braze's."""
    if answer.quota.server_time is None:
        return Finding(
            f"{subject}: clock", ok=False, text="the response has no Date header, so Braze's time is unknown"
        )
    seconds = machine.wall() - braze.wall()
    if abs(seconds) <= LARGE_DIFFERENCE_SECONDS:
        return Finding(f"{subject}: clock", ok=True, text="within a minute of Braze's")
    text = f"{format_difference(seconds)}; harvester uses Braze's time, but set this machine's clock"
    return Finding(f"{subject}: clock", ok=False, text=text)
