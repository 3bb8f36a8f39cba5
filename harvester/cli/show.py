"""What people and machines see: books, summary, progress."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from harvester.braze.refusals import WRONG_IDS_HINT
from harvester.clock import LARGE_DIFFERENCE_SECONDS, format_difference
from harvester.model import Books
from harvester.text import printable

if TYPE_CHECKING:
    from harvester.commands.capture import Run, Summary
    from harvester.commands.estimate import Plan
    from harvester.ledger import ClockDifference
    from harvester.sources import Input


def as_json(value: dict[str, Any], *, indent: bool = True, to_stderr: bool = False) -> None:
    """Print JSON, to stdout unless that carries rows."""
    import orjson

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0).decode(), err=to_stderr)


def many(count: int, one: str, more: str = "") -> str:
    """Give a count and what is counted, in the plural (``one`` and an s, or ``more``) where it is not one."""
    return f"{count} {one if count == 1 else more or one + 's'}"


def quoted(names: Iterable[str]) -> str:
    """Return the names in quotes, sorted, with commas between them."""
    return ", ".join(f'"{name}"' for name in sorted(names))


def time(seconds: float | None) -> str | None:
    """Give a time as the rows have it, to the millisecond; None for one that is not known."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock_line(known: "ClockDifference | None") -> str:
    """Return the line on this machine's clock for commands that make no call."""
    if known is None:
        return "clock      not compared with Braze's yet; ages and deadlines follow this machine's clock"
    if known.outdated:
        return (
            f"clock      last compared with Braze's at {time(known.measured_at)}, but this machine's clock was set "
            "since; ages and deadlines follow it until the next call to Braze"
        )
    if abs(known.seconds) <= LARGE_DIFFERENCE_SECONDS:
        return f"clock      correct when last compared with Braze's, at {time(known.measured_at)}"
    difference, measured = format_difference(known.seconds), time(known.measured_at)
    return f"clock      {difference} when last compared, at {measured}; Braze's time is used. Set this machine's clock."


def books(balance: Books) -> dict[str, Any]:
    """Give the books for machines."""
    return {
        "accepted": balance.accepted,
        "captured": {verdict.value: count for verdict, count in balance.captured.items()},
        "rejected": dict(balance.rejected),
        "expired": balance.expired,
        "pending": balance.pending,
        "never_read": balance.never_read,
        "waiting_for_next_reading": balance.pending - balance.never_read,
        "next_reading_at": time(balance.next_reading_at),
        "balanced": balance.balanced,
    }


def books_of_each(balances: Mapping[str, Books]) -> dict[str, Any]:
    """Give the books of each workspace for machines."""
    return {name: books(balance) for name, balance in sorted(balances.items())}


def book_lines(balance: Books, balances: Mapping[str, Books]) -> list[str]:
    """Give the books for people, and a line for each workspace where there are several."""
    captured = ", ".join(f"{count} {verdict}" for verdict, count in sorted(balance.captured.items())) or "0"
    rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(balance.rejected.items())) or "0"
    return [
        f"accepted   {many(balance.accepted, 'pair')}" + ("" if balance.balanced else "   THE BOOKS DO NOT BALANCE"),
        f"captured   {captured}",
        f"rejected   {rejected}",
        f"expired    {balance.expired}",
        f"pending    {balance.pending}{_pending(balance)}",
        *(_book_line(name, each) for name, each in sorted(balances.items()) if len(balances) > 1),
    ]


def _pending(balance: Books) -> str:
    """Return the part of the line that separates pairs never read from pairs that wait for their next reading."""
    waiting = balance.pending - balance.never_read
    parts = [f"{balance.never_read} never read"] if balance.never_read else []
    if waiting:
        at = balance.next_reading_at
        when = f", the next at {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC" if at is not None else ""
        parts.append(f"{waiting} read before and waiting for {'its' if waiting == 1 else 'their'} next reading{when}")
    return ": " + ", ".join(parts) if parts else ""


def _book_line(name: str, balance: Books) -> str:
    captured, rejected = sum(balance.captured.values()), sum(balance.rejected.values())
    return (
        f'workspace  "{name}": {many(balance.accepted, "pair")}, {captured} captured, {rejected} rejected, '
        f"{balance.expired} expired, {balance.pending} pending"
    )


def unread_lines(bad: int, of: int, reasons: Sequence[str], *, where: str | None = None) -> list[str]:
    """Return lines on how many lines could not be read, the first reasons, and the file with all of them."""
    if not bad:
        return []
    see = f", see {where}" if where else ""
    return [f"unread     {bad} of {many(of, 'line')}{see}", *(f"           {each}" for each in reasons)]


def note_lines(notes: Sequence[str]) -> list[str]:
    """Return the notes on the lists that were read, one per line; paths and ids in them may contain any character."""
    return [f"note       {printable(each)}" for each in notes]


def plan_lines(ahead: "Plan", *, settled: int, expired: int, limit: int, unread: Sequence[str] = ()) -> list[str]:
    """Tell what a capture takes, or why there is nothing to ask."""
    done = [many(settled, "pair is", "pairs are") + " settled already"] if settled else []
    done += [many(expired, "pair has", "pairs have") + " expired"] if expired else []
    if not ahead.calls:
        return [f"calls      0: {', '.join(done) or 'no pair is listed'}", *unread]
    share = f"{ahead.share_of_hour:.1%}" if ahead.share_of_hour >= 0.001 else "less than 0.1%"
    return [
        f"calls      {ahead.calls}" + (f"; {', '.join(done)}" if done else ""),
        f"pace       {ahead.pace:.1f} a second, if nobody else spends; what is left in this hour is not asked",
        "time       "
        + (f"{ahead.seconds / 60:.1f} minutes" if ahead.seconds >= 60 else f"{ahead.seconds:.1f} seconds"),
        f"budget     {share} of one hour's {many(limit, 'call')}",
        f"missed     {many(ahead.missed, 'pair')} would expire before being asked",
        *unread,
    ]


def summary(done: "Summary", *, json: bool = False, to_stderr: bool = False) -> None:
    """Print the summary: for people to stderr, for machines to stdout."""
    if json:
        as_json(
            {
                "books": books(done.books), "workspaces": books_of_each(done.workspaces),
                "lines": done.lines, "bad_lines": done.bad_lines,
                "bad_line_reasons": done.reasons, "rejects_file": done.rejects_file, "notes": done.notes,
                "skipped": dict(done.skipped), "parts": done.parts,
                "rows": done.rows, "part_bytes": done.part_bytes, "unstored_batches": done.unstored,
                "planned": done.planned,
                "calls": dict(done.calls), "answers": dict(done.answers),
                "throttled": done.throttled, "waited_seconds": round(done.waited_seconds, 3),
                "clock_difference_seconds": done.clock_difference_seconds,
                "halted": done.halted, "unreachable": done.unreachable, "exit_code": int(done.exit_code),
            },
            to_stderr=to_stderr,
        )  # fmt: skip
        return
    lines = book_lines(done.books, done.workspaces)
    written = f"{many(done.rows, 'row')} in {many(done.parts, 'part')}, {done.part_bytes / 1e6:.1f} MB"
    lines.append("wrote      " + (written if done.parts else "nothing, since this run captured no pair"))
    for name, counts in (("calls", done.calls), ("answers", done.answers)):
        listed = ", ".join(f"{count} {cause}" for cause, count in sorted(counts.items())) or "none"
        lines.append(f"{name:<10} {listed}")
    lines.append(f"waited     {done.waited_seconds:.1f} s for budget")
    lines += _clock_lines(done)
    if done.unstored:
        lines.append(
            f"sealed     {many(done.unstored, 'batch waits', 'batches wait')} to be stored: run the same command again"
        )
    lines += unread_lines(done.bad_lines, done.lines, done.reasons, where=done.rejects_file)
    lines += skipped_lines(done.skipped)
    lines += note_lines(done.notes)
    if done.naive_times:
        lines.append(f"note       {many(done.naive_times, 'time')} without a zone taken as UTC")
    lines += [f'halted     workspace "{name}": {because}' for name, because in done.halted.items()]
    lines += [f'unanswered workspace "{name}": {because}' for name, because in done.unreachable.items()]
    lines += refused_lines(done.workspaces)
    if done.halted:
        lines.append(
            "Correct the key, its permission, the endpoint or the campaign ids (harvester doctor checks the first "
            "three), then run the same command again."
        )
    elif done.books.pending > done.planned and done.unreachable:
        lines.append(
            "Some pairs are pending: check the endpoint and the network (harvester doctor shows what fails), then run "
            "the same command again."
        )
    elif done.books.pending > done.planned:
        lines.append("Some pairs are pending: run the same command again to go on.")
    if done.planned:
        waiting = many(done.planned, "pair waits", "pairs wait")
        lines.append(f"{waiting} for a later reading by plan: harvester serve asks when it falls due.")
    click.echo("\n".join(lines), err=True)


def refused_lines(balances: Mapping[str, Books]) -> list[str]:
    """Return a hint for each workspace that has refused pairs and no captured one."""
    return [
        f'note       workspace "{name}": Braze refused every pair that it answered '
        f"({many(sum(each.rejected.values()), 'pair')}); "
        f"{WRONG_IDS_HINT}"
        for name, each in sorted(balances.items())
        if each.rejected and not any(each.captured.values()) and each.pending == each.never_read
    ]


def _clock_lines(done: "Summary") -> list[str]:
    lines = [] if done.clock_problem is None else [f"clock      {done.clock_problem}"]
    if done.in_question:
        seem = many(done.in_question, "pair seems", "pairs seem")
        lines.append(f"unsure     {seem} expired, but no answer has confirmed Braze's time; run the same command again")
    if done.windows_unknown:
        lines.append(
            "unsure     sends without a time that were captured before may be new ones, but no answer has confirmed "
            "the time: run the same command again"
        )
    return lines


def skipped_lines(skipped: Mapping[str, int]) -> list[str]:
    """Tell what a source passed over, by cause."""
    return [f"skipped    {cause}: {count}" for cause, count in sorted(skipped.items())]


@contextlib.asynccontextmanager
async def reading(pairs: "Input") -> AsyncIterator[None]:
    """Show how far a source is read, where a person looks on."""
    if not sys.stderr.isatty():
        yield
        return
    view = asyncio.create_task(_reading(pairs), name="progress")
    try:
        yield
    finally:
        view.cancel()
        await asyncio.wait([view])


async def _reading(pairs: "Input") -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
        while True:
            live.update(Text(f"read so far: {pairs.lines} lines and events"))
            await asyncio.sleep(0.25)


async def progress(job: "Run") -> None:
    """Show a line for each workspace while the run lasts."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
        while True:
            live.update(Text("\n".join(_progress_lines(job))))
            await asyncio.sleep(0.25)


def _progress_lines(job: "Run") -> list[str]:
    lines = [f"reading pairs: {job.enqueued} so far, from {many(job.lines, 'line')}"] if not job.progress() else []
    if job.store_problem is not None:
        lines.append(f"sealed parts wait: {job.store_problem}")
    for name, (harvest, client, pacer) in job.progress().items():
        pace = pacer.state()
        done = harvest.tally.outcomes.total()
        left = max(0, job.pending_at_start.get(name, 0) - done)
        line = (
            f'workspace "{name}": {many(done, "pair")} done, {left} left, {many(pace.requests, "call")}, '
            f"{pace.pace:.0f}/s, "
            f"budget {pace.remaining} of {pace.limit} left (reserve {pace.reserve_requests})"
        )
        if pace.requests > done:
            line += f", {many(pace.requests - done, 'call')} again or in flight"
        if pace.held_because == "stopping":
            line += ", stopping: what is in flight lands first"
        elif pace.held_because:
            line += f", waiting for {client.endpoint.describe_hold(pace.held_because)}: {pace.held_seconds:.0f} s more"
        elif pace.pace > 0:
            line += f", about {left / pace.pace / 60:.1f} min to go"
        lines.append(line)
    return lines
