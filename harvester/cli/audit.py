"""The command audit: finds sends that the ledger neither captured nor plans to."""

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import options, progress, show
from harvester.errors import ExitCode

if TYPE_CHECKING:
    from harvester.commands.audit import Audit, Uncovered
    from harvester.ledger import ClockDifference
    from harvester.sources import Input, RejectsFile


@click.command()
@click.argument("sources", type=options.ListedPlace(), nargs=-1, required=True)
@options.ledger_to_make(lambda given: given["adding"])
@options.listed
@click.option("--enqueue", "adding", is_flag=True, help="Enqueue the sends that can still be read.")
@click.option("--json", is_flag=True, help="Print the list as NDJSON to stdout, and the counts as JSON to stderr.")
def audit(sources: tuple[str, ...], path: Path, workspaces: list[str], **given: Any) -> None:
    """List the sends in SOURCES that are neither captured nor pending.

    SOURCES are lists as for harvester enqueue, such as a folder of Braze Currents. The command sends no request. It
    lists each missing send as unknown to the ledger, expired or rejected, and as readable (sent less than 15 days ago)
    or lost. The exit code is 0 if no send is missing or --enqueue added all of them, and 3 otherwise. Use harvester
    requeue for rejected sends.

    \b
    Example:
      harvester audit ./currents --enqueue; harvester run   # captures the missing sends
    """
    from harvester.sources import Input, RejectsFile

    if not given["adding"]:
        options.check_there(path)
    now, difference = options.known_time(path)
    listed = Input(sources, workspaces=workspaces, stdin=sys.stdin.buffer, now=now)
    # Its own file: the rejects of the last run stay.
    rejects = RejectsFile(path.with_name("audit-rejects.ndjson"))
    done = asyncio.run(_audit(path, listed, rejects, now=now, **given))
    _print_counts(done, listed, rejects, difference, json=given["json"])
    sys.exit(ExitCode.COMPLETE if done.complete and not rejects.count else ExitCode.PARTIAL)


async def _audit(
    path: Path, listed: "Input", rejects: "RejectsFile", *, now: float, adding: bool, json: bool
) -> "Audit":
    """Compare the sends, and print each missing one when it is found."""
    from harvester.clock import SystemClock
    from harvester.commands.audit import Audit
    from harvester.ledger import Ledger

    async with await Ledger.open(path, clock=SystemClock()) as ledger, contextlib.AsyncExitStack() as view:
        await view.enter_async_context(progress.reading(listed))
        auditing = Audit(ledger, now=now, adding=adding)
        async for each in auditing.find_uncovered(listed, rejects):
            await view.aclose()  # the list replaces the progress
            if json:
                show.as_json(_as_dict(each), indent=False)
            else:
                click.echo(_as_line(each))
    return auditing


def _as_dict(found: "Uncovered") -> dict[str, Any]:
    pair = found.send.pair
    return {
        "workspace": pair.workspace, "campaign_id": pair.campaign_id, "send_id": pair.send_id,
        "sent_at": show.time(found.send.sent_at), "state": found.state, "readable": found.readable,
    }  # fmt: skip


def _as_line(found: "Uncovered") -> str:
    # Ids are quoted: they may contain control characters.
    pair = found.send.pair
    kept = "readable" if found.readable else "lost"
    sent = show.time(found.send.sent_at) or "?"
    return f"{found.state:<8} {kept:<8} {sent:<24} {pair.workspace} {pair.campaign_id!r} {pair.send_id!r}"


def _print_counts(
    done: "Audit", listed: "Input", rejects: "RejectsFile", difference: "ClockDifference | None", *, json: bool
) -> None:
    counts = {
        word: {"readable": done.uncovered[word, True], "lost": done.uncovered[word, False]}
        for word in ("unknown", "expired", "rejected")
    }
    covered = done.sends - done.uncovered.total()
    ahead = None if difference is None else difference.current_seconds
    if json:
        figures = {"sends": done.sends, "covered": covered, "enqueued": done.enqueued, "bad_lines": rejects.count,
                   "clock_difference_seconds": ahead}  # fmt: skip
        about = {"bad_line_reasons": rejects.reasons, "skipped": dict(listed.skipped), "notes": listed.notes}
        show.as_json(figures | counts | about, indent=False, to_stderr=True)
        return
    lines = [f"covered    {covered} of {show.many(done.sends, 'send')}"]
    lines += [f"{word:<10} {each['readable']} readable, {each['lost']} lost" for word, each in counts.items()]
    lines.append(show.clock_line(difference))
    if done.enqueued:
        lines.append(f"enqueued   {done.enqueued}; harvester run captures them")
    lines += show.unread_lines(rejects.count, listed.lines, rejects.reasons, where=str(rejects.path))
    click.echo("\n".join([*lines, *show.skipped_lines(listed.skipped), *show.note_lines(listed.notes)]))
