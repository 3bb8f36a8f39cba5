"""The command that compares sends with the ledger: audit."""

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harvester.cli import options, show
from harvester.errors import ExitCode

if TYPE_CHECKING:
    from harvester.commands.audit import Audit, Uncovered
    from harvester.ledger import ClockDifference
    from harvester.sources import Input, RejectsFile


@click.command()
@click.argument("sources", type=options.ListedPlace(), nargs=-1, required=True)
@options.ledger_to_make(lambda given: given["adding"])
@options.listed
@click.option("--enqueue", "adding", is_flag=True, help="Enqueue those that can still be read.")
@click.option("--json", is_flag=True, help="The list as NDJSON to stdout, the counts as JSON to stderr.")
def audit(sources: tuple[str, ...], path: Path, workspaces: list[str], **given: Any) -> None:
    """List the sends in SOURCES that the ledger does not cover.

    Covered is what it holds captured or pending; nothing is spent to know it. SOURCES are those of harvester enqueue,
    such as a folder of Braze Currents. Each send is told as unknown to the ledger, expired or rejected, and as
    readable (sent less than 15 days ago) or lost. Ends with 0 when all are covered, those that --enqueue has just
    added among them, and with 3 otherwise: lost sends stay lost, rejected ones are for harvester requeue.

    \b
    Example:
      harvester audit ./currents --enqueue; harvester run   # what it missed is captured now
    """
    from harvester.sources import Input, RejectsFile

    if not given["adding"]:
        options.check_there(path)
    now, difference = options.known_time(path)
    listed = Input(sources, workspaces=workspaces, stdin=sys.stdin.buffer, now=now)
    # A name of its own: the rejects of the last run are that run's.
    rejects = RejectsFile(path.with_name("audit-rejects.ndjson"))
    done = asyncio.run(_audited(path, listed, rejects, now=now, **given))
    _counts(done, listed, rejects, difference, json=given["json"])
    sys.exit(ExitCode.COMPLETE if done.complete and not rejects.count else ExitCode.PARTIAL)


async def _audited(
    path: Path, listed: "Input", rejects: "RejectsFile", *, now: float, adding: bool, json: bool
) -> "Audit":
    """Look, and print each send that is not covered as it is found."""
    from harvester.clock import SystemClock
    from harvester.commands.audit import Audit
    from harvester.ledger import Ledger

    async with await Ledger.open(path, clock=SystemClock()) as ledger, contextlib.AsyncExitStack() as view:
        await view.enter_async_context(show.reading(listed))
        looking = Audit(ledger, now=now, adding=adding)
        async for each in looking.uncovered_in(listed, rejects):
            await view.aclose()  # the list begins where the view stood
            if json:
                show.as_json(_as_dict(each), indent=False)
            else:
                click.echo(_as_line(each))
    return looking


def _as_dict(found: "Uncovered") -> dict[str, Any]:
    pair = found.send.pair
    return {
        "workspace": pair.workspace, "campaign_id": pair.campaign_id, "send_id": pair.send_id,
        "sent_at": show.time(found.send.sent_at), "standing": found.standing, "readable": found.readable,
    }  # fmt: skip


def _as_line(found: "Uncovered") -> str:
    # Ids are quoted, since they may hold anything: a terminal should not obey them.
    pair = found.send.pair
    kept = "readable" if found.readable else "lost"
    sent = show.time(found.send.sent_at) or "?"
    return f"{found.standing:<8} {kept:<8} {sent:<24} {pair.workspace} {pair.campaign_id!r} {pair.send_id!r}"


def _counts(
    done: "Audit", listed: "Input", rejects: "RejectsFile", difference: "ClockDifference | None", *, json: bool
) -> None:
    standings = {
        word: {"readable": done.uncovered[word, True], "lost": done.uncovered[word, False]}
        for word in ("unknown", "expired", "rejected")
    }
    covered = done.sends - done.uncovered.total()
    ahead = None if difference is None else difference.current_seconds
    if json:
        figures = {"sends": done.sends, "covered": covered, "enqueued": done.enqueued, "bad_lines": rejects.count,
                   "clock_difference_seconds": ahead}  # fmt: skip
        about = {"bad_line_reasons": rejects.reasons, "skipped": dict(listed.skipped), "notes": listed.notes}
        show.as_json(figures | standings | about, indent=False, to_stderr=True)
        return
    lines = [f"covered    {covered} of {show.many(done.sends, 'send')}"]
    lines += [f"{word:<10} {each['readable']} readable, {each['lost']} lost" for word, each in standings.items()]
    lines.append(show.clock_line(difference))
    if done.enqueued:
        lines.append(f"enqueued   {done.enqueued}; harvester run captures them")
    lines += show.unread_lines(rejects.count, listed.lines, rejects.reasons, where=str(rejects.path))
    click.echo("\n".join([*lines, *show.skipped_lines(listed.skipped), *show.note_lines(listed.notes)]))
