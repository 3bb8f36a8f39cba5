"""Checks that a capture can work; each finding says what to correct.

No check creates a ledger or a folder: it creates a temporary one on the same disk instead. In a bucket, a small object
remains, because harvester does not need the permission to delete.
"""

import asyncio
import resource
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain
from pathlib import Path

from harvester.braze.connections import count_connections
from harvester.clock import Clock
from harvester.commands.missing_parts import compare_parts
from harvester.commands.place_check import check_place, temporary_folder_at
from harvester.commands.workspace_checks import Finding, check_workspace
from harvester.condition import name_workspaces
from harvester.errors import HarvesterError, LedgerError
from harvester.ledger import Ledger
from harvester.model import is_in_object_store
from harvester.place import LedgerLocation
from harvester.settings import DUPLICATE_WORKSPACE_HINT, Settings
from harvester.settings.environment import PROXY_HINT, check_certificates, list_proxy_variables
from harvester.settings.proxy import FROM_ENVIRONMENT
from harvester.storage import Sink, share_clients

_OTHER_FILES = 150
"""Open files other than requests: ledger, parts, brokers, buckets, and at most 64 connections to the page."""

_CHECKS_AT_ONCE = 16

_RESTORE_HINT = "another program has changed it: restore a backup, or use harvester ledger rebuild"


async def run_checks(settings: Settings, *, ledger: LedgerLocation, clock: Clock) -> list[Finding]:
    """Check every workspace, the ledger and every place.

    Problems are findings, not exceptions, and end no other check. A problem of the process is found once.
    """
    findings = check_process(settings)
    reported = {each.text for each in findings if not each.ok}
    of_workspaces = await _check_all(settings.workspaces, lambda name: check_workspace(name, settings, clock))
    findings += [each for each in of_workspaces if each.text not in reported]
    for names in settings.find_duplicates():
        findings.append(Finding("workspaces", ok=False, text=f"{' and '.join(names)}: {DUPLICATE_WORKSPACE_HINT}"))
    ledger_id = None
    try:
        ledger_id, seen = await _check_ledger(ledger, clock)
        findings.append(Finding("ledger", ok=True, text=f"{ledger} {seen}"))
    except HarvesterError as error:
        findings.append(Finding("ledger", ok=False, text=str(error)))
    open_sink, places = share_clients(), settings.list_places()

    async def check_place(out: str) -> list[Finding]:
        names = places[out]
        prefix = "" if len(names) == len(settings.workspaces) else f"{out} of {name_workspaces(names)}: "
        try:
            return await _check_place(open_sink(out), ledger, ledger_id, clock, prefix=prefix)
        except HarvesterError as error:
            return [] if str(error) in reported else [Finding("place", ok=False, text=f"{prefix}{error}")]

    return findings + await _check_all(places, check_place)


async def _check_all(names: Iterable[str], check: Callable[[str], Awaitable[list[Finding]]]) -> list[Finding]:
    """Return the findings about all names in their order. A few checks run at once, since they wait for responses."""
    slots = asyncio.Semaphore(_CHECKS_AT_ONCE)

    async def check_one(name: str) -> list[Finding]:
        async with slots:
            return await check(name)

    return list(chain.from_iterable(await asyncio.gather(*map(check_one, names))))


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
    """Return how buckets are reached, if there are any, and which variables are ignored.

    Raises ``UsageError`` for an unusable proxy.
    """
    if not settings.has_proxy:
        variables = list_proxy_variables()
        return f"{', '.join(variables)} set: {PROXY_HINT}" if variables else None
    proxy = settings.load_store_proxy()
    if not any(map(is_in_object_store, settings.list_places())):
        return None
    if proxy is None:
        unset = settings.proxy.get_secret_value() == FROM_ENVIRONMENT
        return "buckets are reached directly" + (", since HTTPS_PROXY is not set" if unset else "")
    excluded = f", except for {', '.join(proxy.excluded)}" if proxy.excluded else ""
    return f"buckets are reached through {proxy.address}{excluded}"


async def _check_ledger(location: LedgerLocation, clock: Clock) -> tuple[str, str]:
    """Open the ledger, or one that is not kept; returns its id, and the finding."""
    if await _exists(location, clock):
        async with await Ledger.open(location, clock=clock) as ledger:
            await Ledger.try_to_write(location, clock=clock)
            if wrong := await ledger.reports.find_wrong_counts():
                raise LedgerError(f"the counts of the ledger {location} are wrong ({wrong[0]}); {_RESTORE_HINT}")
            return ledger.ledger_id, "can be read and written"
    missing = "does not exist yet, and can be created"
    if not isinstance(location, Path):
        return await Ledger.try_to_write(location, clock=clock), missing
    with temporary_folder_at(location.parent) as folder:
        async with await Ledger.open(folder / location.name, clock=clock) as draft:
            return draft.ledger_id, missing


async def _check_place(
    sink: Sink, location: LedgerLocation, ledger_id: str | None, clock: Clock, *, prefix: str
) -> list[Finding]:
    """Check a place, and compare the stored parts in the ledger with those in the place.

    Whose dataset it contains depends on the ledger, whose id is None if it cannot be used.
    """
    if ledger_id is None or not await _exists(location, clock):
        return [Finding("place", ok=True, text=prefix + await check_place(sink, ledger_id, None))]
    async with await Ledger.open(location, clock=clock) as ledger:
        dataset_id = await ledger.reports.find_dataset(sink.place)
        findings = [Finding("place", ok=True, text=prefix + await check_place(sink, ledger_id, dataset_id))]
        if dataset_id is None and await sink.find_ledger_id():
            dataset_id = await sink.attach(ledger.ledger_id)  # a place that was moved keeps its dataset
        if dataset_id is not None:
            found = await compare_parts(ledger, sink, dataset_id)
            if found.compared or found.pruned:
                findings.append(Finding("parts", ok=not found.missing, text=f"{prefix}{found}"))
    return findings


async def _exists(location: LedgerLocation, clock: Clock) -> bool:
    try:
        return await Ledger.exists(location, clock=clock)
    except OSError as error:
        raise LedgerError(f"cannot access the ledger {location}: {error.strerror}; give this user access") from None
