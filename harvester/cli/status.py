"""The commands status and parts: what a ledger contains."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from harvester.books import Books
from harvester.cli import books, ledger_access, output
from harvester.errors import ExitCode, UsageError
from harvester.place import LedgerLocation, classify_place

if TYPE_CHECKING:
    from harvester.ledger import ClockDifference, LedgerStatus, PartsPage, PrunedParts, Replicas

REJECTIONS = 5
"""How many of the latest rejected pairs ``status`` lists."""

NAMED_WORKSPACES = 5
"""``status`` names the workspaces of a replica up to this number."""

PARTS_PER_PAGE = 1000


@click.command()
@ledger_access.ledger_command
@click.option("--json", is_flag=True, help="Print JSON.")
def status(location: LedgerLocation, *, json: bool) -> None:
    """Print how many pairs are captured, expired or pending.

    Accepted pairs = captured + rejected + expired + pending. With several workspaces, also prints these totals for
    each.

    \b
    Example:
      harvester status -o ./harvest
    """
    _, difference = ledger_access.get_time(location)
    found = ledger_access.with_ledger(location, lambda ledger: ledger.reports.get_status(rejections=REJECTIONS))
    if json:
        _print_json(found, difference)
    else:
        output.print_lines(_status_lines(found, output.clock_line(difference, location)))
    if not all(each.balanced for each in found.workspaces.values()):
        sys.exit(ExitCode.BUG)


def _print_json(found: "LedgerStatus", difference: "ClockDifference | None") -> None:
    output.print_json(
        {
            "books": books.books_as_dict(Books.sum(found.workspaces.values())),
            "workspaces": books.books_by_workspace(found.workspaces),
            "readings": found.readings,
            "batches": found.batches,
            "halted": found.halted,
            "waiting_by_place": dict(found.waiting),
            "at_risk": sum(found.at_risk.values()),
            "at_risk_by_workspace": dict(found.at_risk),
            "replicas": _list_assigned(found.replicas),
            "unserved": list(found.replicas.unserved),
            "clock_difference_seconds": None if difference is None else difference.current_seconds,
        }
    )


def _status_lines(found: "LedgerStatus", clock_line: str) -> list[str]:
    empty = f"; {found.batches_without_part} without rows" if found.batches_without_part else ""
    at_risk = output.plural(sum(found.at_risk.values()), "pair")
    every = Books.sum(found.workspaces.values())
    meaning = "; a pair is pending until its last reading is done" if every.pending else ""
    return [
        *books.book_lines(
            every,
            found.workspaces,
            at_risk=found.at_risk,
            width=output.get_width(sys.stdout),
        ),
        f"readings   {_list_counts(found.readings)}{meaning}",
        f"batches    {_list_counts(found.batches)}{empty}",
        *output.limit_lines("waiting", _waiting_lines(found.waiting)),
        f"at risk    {at_risk} may expire unread",
        *output.limit_lines("halted", [f'halted     workspace "{name}": {why}' for name, why in found.halted.items()]),
        *output.limit_lines("assigned", _replica_lines(found.replicas)),
        clock_line,
        *books.refused_lines(found.workspaces),
        # Ids are quoted: they may contain control characters.
        *(
            f"rejected   {each.pair.campaign_id!r} {each.pair.send_id!r}: {each.reason}: {each.detail}"
            for each in found.rejections
        ),
    ]


def _replica_lines(replicas: "Replicas") -> list[str]:
    """Return how many workspaces are assigned to each replica, and which are unserved."""
    lines = [
        f"assigned   {name}: {_name_workspaces(workspaces)}" for name, workspaces in _list_assigned(replicas).items()
    ]
    if replicas.unserved:
        names = output.quote(replicas.unserved)
        lines.append(f"unserved   {names}: readings have been due for two minutes, but no replica requests them")
    return lines


def _name_workspaces(workspaces: Sequence[str]) -> str:
    names = f" ({output.quote(workspaces)})" if 0 < len(workspaces) <= NAMED_WORKSPACES else ""
    return output.plural(len(workspaces), "workspace") + names


def _list_assigned(replicas: "Replicas") -> Mapping[str, Sequence[str]]:
    from harvester.engine.assignment import list_assigned

    return list_assigned(tuple(replicas.workspaces), tuple(replicas.owners))


def _waiting_lines(counts: Mapping[str, int]) -> list[str]:
    return [f"waiting    {output.plural(n, 'batch', 'batches')} for {place}" for place, n in counts.items()]


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


@click.command()
@ledger_access.ledger_command
@click.option("--since", type=int, help="Only parts stored after the part with this order.  [default: all parts]")
@click.option("--place", help="Only parts in this folder or bucket.  [default: all places]")
def parts(location: LedgerLocation, since: int | None, place: str | None) -> None:
    """List parts in the order in which they were stored, for loaders.

    Prints a line of NDJSON per part. Save the "order" of the last part that you loaded, and pass it to --since the
    next time. The ledger of a service lists a part for keep_days + 15 days after it was stored.

    \b
    Examples:
      harvester parts --since 17
      harvester parts --config harvester.toml --place s3://client-a/braze --since 17
    """
    dataset_id = None if place is None else _find_dataset(location, place)
    after = 0 if since is None else since
    page = _list_page(location, after, dataset_id)
    if after > page.newest_order:
        raise UsageError(
            f"--since {after}: the newest part of this ledger has order {page.newest_order}: the ledger was rebuilt, "
            f"restored or replaced. Load all parts again, then continue with --since {page.newest_order}"
        )
    if page.pruned is not None and since is None:
        click.echo(_describe_pruned(page.pruned), err=True)
        after = page.pruned.order
    while True:
        if page.pruned is not None and page.pruned.order > after:
            raise UsageError(f"--since {after}: {_describe_pruned(page.pruned)}")
        if not page.parts:
            break
        for part in page.parts:
            output.print_json(asdict(part) | {"stored_at": output.format_time(part.stored_at)}, indent=False)
        after = page.parts[-1].order
        page = _list_page(location, after, dataset_id)


def _describe_pruned(pruned: "PrunedParts") -> str:
    """Return which parts the ledger no longer lists, and how to load them."""
    return (
        f"the ledger no longer lists the parts up to order {pruned.order}, stored until "
        f"{output.format_time(pruned.stored_at)} (see keep_days). They are still in {', '.join(pruned.places)}: "
        f"load all parts there, then continue with --since {pruned.order}"
    )


def _find_dataset(location: LedgerLocation, place: str) -> str:
    """Return the id of the dataset at a place. Raises ``UsageError`` if the ledger knows none there."""
    from harvester.storage import open_sink

    classify_place(place, "--place", buckets=True)
    name = open_sink(place).place
    dataset_id = ledger_access.with_ledger(location, lambda ledger: ledger.reports.find_dataset(name))
    if dataset_id is None:
        raise UsageError(f"--place: the ledger {location} has never used {name}; name the place (out) of a workspace")
    return dataset_id


def _list_page(location: LedgerLocation, after: int, dataset_id: str | None) -> "PartsPage":
    return ledger_access.with_ledger(
        location, lambda ledger: ledger.reports.list_parts(after=after, limit=PARTS_PER_PAGE, dataset_id=dataset_id)
    )
