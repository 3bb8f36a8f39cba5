"""The summary of a run: text for people on stderr, JSON for machines on stdout."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harvester.cli import books, output
from harvester.errors import Meaning, classify_status

if TYPE_CHECKING:
    from harvester.commands.summary import Summary

_RESPONSES = {
    Meaning.SUCCESS: "usable",
    Meaning.REJECTED: "rejected",
    Meaning.TRANSIENT: "failed",
    Meaning.THROTTLED: "rate limited",
    Meaning.HALTED: "refused",
}
"""What the summary calls a response, by what its status means for its pair."""


def print_summary(done: "Summary", *, json: bool = False, to_stderr: bool = False, verbose: bool = False) -> None:
    """Print the summary as text to stderr, or as JSON to stdout (``to_stderr``: to stderr).

    ``verbose`` lists requests and responses by cause, as the JSON does.
    """
    if json:
        output.print_json(_as_dict(done), to_stderr=to_stderr)
    else:
        lines = [*_result_lines(done, verbose=verbose), *_problem_lines(done), *_next_steps(done)]
        output.print_lines(lines, err=True)


def _as_dict(done: "Summary") -> dict[str, Any]:
    return {
        "books": books.books_as_dict(done.books),
        "workspaces": books.books_by_workspace(done.workspaces),
        "lines": done.lines,
        "lists_read": done.lists_read,
        "bad_lines": done.bad_lines,
        "bad_line_reasons": done.reasons,
        "rejects_file": done.rejects_file,
        "lists": done.formats,
        "notes": done.notes,
        "skipped": dict(done.skipped),
        "parts": done.parts,
        "rows": done.rows,
        "part_bytes": done.part_bytes,
        "places": done.places,
        "unstored_batches": done.unstored,
        "planned_readings": done.planned,
        "requests": dict(done.requests),
        "responses": dict(done.responses),
        "throttled": done.throttled,
        "waited_seconds": round(done.waited_seconds, 3),
        "clock_difference_seconds": done.clock_difference_seconds,
        "halted": done.halted,
        "unreachable": done.unreachable,
        "exit_code": int(done.exit_code),
    }


def _result_lines(done: "Summary", *, verbose: bool) -> list[str]:
    """Return what was captured and written, and what it took."""
    rows, parts = output.plural(done.rows, "row"), output.plural(done.parts, "part")
    written = f"{rows} in {parts}, {done.part_bytes / 1e6:.1f} MB, to {_name_places(done.places)}"
    lines = books.book_lines(done.books, done.workspaces, width=output.get_width(sys.stderr))
    lines.append("wrote      " + (written if done.parts else "nothing, since this run captured no pair"))
    for label, counts, group in (
        ("requests", done.requests, _group_request),
        ("responses", done.responses, _group_response),
    ):
        shown = counts if verbose else _count_groups(counts, group)
        listed = ", ".join(f"{count} {name}" for name, count in (sorted(shown.items()) if verbose else shown.items()))
        lines.append(f"{label:<10} {listed or 'none'}")
    lines.append(f"waited     {done.waited_seconds:.1f} s for quota")
    return lines


def _name_places(places: Sequence[str]) -> str:
    if len(places) > 1:
        return output.plural(len(places), "place")
    return "standard output" if places == ["-"] else "".join(places)


def _count_groups(counts: Mapping[str, int], group: Callable[[str], str]) -> dict[str, int]:
    """Return the counts of each group, the largest first."""
    groups = Counter[str]()
    for name, count in counts.items():
        groups[group(name)] += count
    return dict(groups.most_common())


def _group_request(cause: str) -> str:
    return "first" if cause == "first" else "for the time" if cause == "for_the_time" else "repeated"


def _group_response(result: str) -> str:
    """Return what the result of a request means for its pair. A failed one is repeated."""
    status = result.removeprefix("status_")
    return _RESPONSES[classify_status(int(status))] if status.isdigit() else "failed"


def _problem_lines(done: "Summary") -> list[str]:
    """Return what was not read, stored or captured, and why."""
    lines = _clock_lines(done)
    if done.unstored:
        batches = output.plural(done.unstored, "batch waits", "batches wait")
        lines.append(f"sealed     {batches} to be stored: run the same command again")
    lines += output.describe_formats(done.formats)
    lines += output.unread_lines(done.bad_lines, done.lines, done.reasons, where=done.rejects_file)
    lines += output.skipped_lines(done.skipped)
    lines += output.note_lines(done.notes)
    if done.naive_times:
        lines.append(f"note       {output.plural(done.naive_times, 'time')} without a time zone, read as UTC")
    for label, reasons in (("halted", done.halted), ("failed", done.unreachable)):
        listed = [f'{label:<10} workspace "{name}": {because}' for name, because in reasons.items()]
        lines += output.limit_lines(label, listed)
    return lines + books.refused_lines(done.workspaces)


def _clock_lines(done: "Summary") -> list[str]:
    lines = [] if done.clock_problem is None else [f"clock      {done.clock_problem}"]
    if done.in_question:
        pairs = output.plural(done.in_question, "pair seems", "pairs seem")
        lines.append(f"unsure     {pairs} expired, but no response has confirmed the time: run the same command again")
    if done.retention_unconfirmed:
        lines.append(
            "unsure     captured sends without sent_at may have been sent again, but no response has confirmed the "
            "time: run the same command again"
        )
    return lines


def _next_steps(done: "Summary") -> list[str]:
    """Return what to do about pairs that are still pending."""
    lines = []
    if done.halted:
        lines.append(
            "Correct the key, its permission, the endpoint or the campaign ids (harvester doctor checks the first "
            "three), then run the same command again."
        )
    elif done.unreachable:
        lines.append(
            "Some pairs are pending: check the endpoint and the network (harvester doctor shows what fails), then run "
            "the same command again."
        )
    elif not done.lists_read:
        lines.append("The list was not read to its end: run the same command again to continue.")
    elif done.books.pending > done.planned:
        lines.append("Some pairs are pending: run the same command again to continue.")
    if done.planned:
        pairs = output.plural(done.planned, "pair waits for its", "pairs wait for their")
        lines.append(f"{pairs} next reading: harvester serve requests it when it is due.")
    return lines
