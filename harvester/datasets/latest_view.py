"""The SQL of the latest view: which counters become columns, and the newest row of each key.

Text columns stay text, whatever their values look like: an id of digits keeps its leading zeros.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from harvester.datasets.dialects import DIALECTS, ColumnType
from harvester.datasets.members import Members, build_object_table
from harvester.datasets.sql import escape_path, quote_name, quote_text, quote_texts

TEXT_COLUMNS = (
    "workspace",
    "campaign_id",
    "send_id",
    "date",
    "level",
    "channel",
    "variation_name",
    "variation_api_id",
    "reading",
    "captured_at",
    "verdict",
    "batch_id",
    "ending_at",
    "since",
)
KEY = ("workspace", "campaign_id", "send_id", "date", "level", "channel", "variation_name", "variation_api_id")
MAX_COUNTERS = 500
"""At most this many counters have a column. DuckDB needs a megabyte for each, for any number of rows."""

_UNRECOGNIZED = "unrecognized"
"""The column for all other members of a row, as the text of a JSON object."""


class View(NamedTuple):
    """The query of the view, and the number of counters that have no column of their own."""

    query: str
    folded_count: int


def build_view(members: Members, parts: list[Path], *, escape_formulas: bool) -> View:
    """Build the query of the view over these parts. ``members`` are the members of their rows."""
    counters, folded = _choose_counters(members)
    build_table = _build_folded_table if folded else _build_row_table
    rows = build_table(counters, members, parts)
    return View(_build_view_query(counters, rows, escape_formulas=escape_formulas), len(folded))


def _choose_counters(members: Members) -> tuple[dict[str, str], set[str]]:
    """Return the counters that are columns with their types, and the names of the others.

    Types are integers, decimals, or text for all other values.
    """
    inferred = {name: members.infer_type(name) or ColumnType.TEXT for name in members.types}
    types = {name: DIALECTS["duckdb"].types[each.value] for name, each in inferred.items()}
    names = types.keys() - set(TEXT_COLUMNS)
    kept = names
    if len(names) > MAX_COUNTERS:
        common = sorted(names - {_UNRECOGNIZED}, key=lambda name: (-members.rows[name], name))
        columns_by_name = _assign_columns([*TEXT_COLUMNS, _UNRECOGNIZED, *common])
        kept = {*[name for name in common if columns_by_name[name] == name][:MAX_COUNTERS], _UNRECOGNIZED}
        types[_UNRECOGNIZED] = "VARCHAR"
    ordered = sorted(kept, key=lambda name: (name != name.lower(), name))
    return {name: types[name] for name in ordered}, names - kept


def _build_view_query(counters: dict[str, str], rows: str, *, escape_formulas: bool) -> str:
    """Return the query of the view over the SQL of a table of rows."""
    types_by_column = dict.fromkeys(TEXT_COLUMNS, "VARCHAR") | counters
    columns_by_name = _assign_columns(types_by_column)
    counts = [f"coalesce(TRY_CAST({quote_name(columns_by_name[name])} AS DOUBLE), 0) <> 0" for name in counters]
    if _UNRECOGNIZED in counters:
        counts.append(f"coalesce(regexp_matches({_UNRECOGNIZED}, '\":\"?-?[0.]*[1-9]'), false)")
    columns = ", ".join(
        _escape_formula(columns_by_name[name])
        if escape_formulas and kind == "VARCHAR"
        else quote_name(columns_by_name[name])
        for name, kind in types_by_column.items()
    )
    keys = ", ".join(quote_name(name) for name in KEY)
    order = f"({' OR '.join(counts) or 'false'}) DESC, captured_at DESC, batch_id DESC"
    return f"SELECT {columns} FROM {rows} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1"  # noqa: S608 - all is quoted


def _assign_columns(names: Iterable[str]) -> dict[str, str]:
    """Map each counter to a column name. DuckDB ignores case in column names, so some get a number."""
    columns_by_name: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        number, column = 0, name or "unnamed"
        while column.lower() in taken:
            number += 1
            column = f"{name}_{number}"
        columns_by_name[name] = column
        taken.add(column.lower())
    return columns_by_name


def _build_row_table(counters: dict[str, str], members: Members, parts: list[Path]) -> str:
    """Return the SQL of the table of rows. If a name cannot be a column name, it reads each member separately."""
    types_by_column = dict.fromkeys(TEXT_COLUMNS, "VARCHAR") | counters
    columns_by_name = _assign_columns(types_by_column)
    if all(name == column for name, column in columns_by_name.items()):
        columns = (
            "{" + ", ".join(f"{quote_text(name)}: {quote_text(kind)}" for name, kind in types_by_column.items()) + "}"
        )
        return f"read_json({quote_texts(map(escape_path, parts))}, columns = {columns}, {members.read_options()})"
    pointers = {name: quote_text("/" + name.replace("~", "~0").replace("/", "~1")) for name in types_by_column}
    listed = ", ".join(
        f"CAST(json ->> {pointers[name]} AS {kind}) AS {quote_name(columns_by_name[name])}"
        for name, kind in types_by_column.items()
    )
    return f"(SELECT {listed} FROM {build_object_table(parts, members.object_bytes)})"  # noqa: S608 - quoted


def _build_folded_table(counters: dict[str, str], members: Members, parts: list[Path]) -> str:
    """Return the SQL of the table of rows, with all members that have no column combined in one."""
    types_by_column = dict.fromkeys(TEXT_COLUMNS, "VARCHAR") | counters
    structure = quote_text(json.dumps(types_by_column))
    others = quote_text(json.dumps(dict.fromkeys(types_by_column)))
    return (
        f"(SELECT * EXCLUDE ({_UNRECOGNIZED}, _others), CASE WHEN _others = '{{}}' THEN {_UNRECOGNIZED} "  # noqa: S608 - quoted
        f"WHEN {_UNRECOGNIZED} IS NULL THEN _others::VARCHAR "
        f"ELSE json_merge_patch(_others, json_object('{_UNRECOGNIZED}', {_UNRECOGNIZED}))::VARCHAR END "
        f"AS {_UNRECOGNIZED} "
        f"FROM (SELECT unnest(json_transform(json, {structure})), json_merge_patch(json, {others}) AS _others "
        f"FROM {build_object_table(parts, members.object_bytes)}))"
    )


def _escape_formula(name: str) -> str:
    column = quote_name(name)
    risky = f"regexp_matches({column}, '^[-=+@\\t\\r]')"
    return f"CASE WHEN {risky} THEN '''' || {column} ELSE {column} END AS {column}"
