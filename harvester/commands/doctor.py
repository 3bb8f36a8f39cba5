"""Checks that a capture can work; each finding says what to correct.

No check creates a ledger or a folder: it creates a temporary one on the same disk instead. In a bucket, a small object
remains, because harvester does not need the permission to delete.
"""

import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from harvester.clock import Clock
from harvester.commands.missing_parts import compare_parts
from harvester.commands.workspace_checks import Finding, check_workspace
from harvester.engine.workspaces import count_connections
from harvester.errors import HarvesterError, LedgerError, PartConflict, SinkError, StorageError
from harvester.ledger import Ledger
from harvester.model import DATASET, Part
from harvester.settings import DUPLICATE_WORKSPACE_HINT, Settings
from harvester.settings.environment import PROXY_HINT, check_certificates, list_proxy_variables
from harvester.settings.proxy import FROM_ENVIRONMENT
from harvester.storage import FolderSink, Sink

_OTHER_FILES = 150
"""Open files other than requests: ledger, parts, brokers, buckets, and at most 64 connections to the page."""

_PROBE = ".harvester/probe"
_PROBE_OWNER = "harvester-doctor"

_RESTORE_HINT = "another program has changed it: restore a backup, or use harvester ledger rebuild"


async def run_checks(settings: Settings, *, ledger: Path, sink: Sink, clock: Clock) -> list[Finding]:
    """Check every workspace, the ledger and the sink. Problems are findings, not exceptions, and end no other check."""
    findings = check_process(settings)
    for name in settings.workspaces:
        findings += await check_workspace(name, settings, clock)
    for names in settings.find_duplicates():
        findings.append(Finding("workspaces", ok=False, text=f"{' and '.join(names)}: {DUPLICATE_WORKSPACE_HINT}"))
    return findings + await _check_storage(ledger, sink, clock)


async def _check_storage(path: Path, sink: Sink, clock: Clock) -> list[Finding]:
    """Check the ledger, the place and the parts. Whose dataset the place contains depends on the ledger."""
    findings, ledger_id, known = [], None, None
    try:
        ledger_id, known, seen = await _check_ledger(path, sink.place, clock)
        findings.append(Finding("ledger", ok=True, text=f"{path} {seen}"))
    except HarvesterError as error:
        findings.append(Finding("ledger", ok=False, text=str(error)))
    try:
        findings.append(Finding("place", ok=True, text=await _check_sink(sink, ledger_id, known)))
        if ledger_id is not None and _exists(path):
            findings += await _check_parts(path, sink, clock)
    except HarvesterError as error:
        findings.append(Finding("place", ok=False, text=str(error)))
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


async def _check_sink(sink: Sink, ledger_id: str | None, known: str | None) -> str:
    """Check that a part cannot be overwritten, and the owner of the dataset unless the ledger is unknown."""
    owned = await sink.find_owner() is not None and ledger_id is not None
    if owned and ledger_id is not None:
        await sink.attach(ledger_id, known=known)
    if not isinstance(sink, FolderSink):
        await _check_overwriting(sink)
        return f"can be written, and does not overwrite existing objects; the test object {_PROBE} remains"
    if owned:
        await _check_overwriting(sink)
        (sink.folder / _PROBE).unlink()
    else:
        with _temporary_folder_at(sink.folder) as folder:
            draft = FolderSink(folder)
            await draft.attach(ledger_id or _PROBE_OWNER)
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
