"""The SQL of the latest view: which counters become columns, and the newest row of each key.

Text columns stay text, whatever their values look like: an id of digits keeps its leading zeros.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from harvester.datasets.dialects import DIALECTS, ColumnType
from harvester.datasets.members import Members, build_object_table
from harvester.datasets.sql import escape_path, quote_name, quote_text, quote_texts
from harvester.datasets.staging import MAX_COUNTERS, TEXT_COLUMNS, Staged, build_staged_table

KEY = ("workspace", "campaign_id", "send_id", "date", "level", "channel", "variation_name", "variation_api_id")
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
    columns_by_name = _assign_columns([*TEXT_COLUMNS, *counters])
    columns = _list_columns(counters, columns_by_name, escape_formulas=escape_formulas)
    keys = ", ".join(quote_name(name) for name in KEY)
    order = f"({_build_nonzero_test(counters, columns_by_name)}) DESC, captured_at DESC, batch_id DESC"
    newest = f"row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1"
    return View(f"SELECT {columns} FROM {rows} QUALIFY {newest}", len(folded))  # noqa: S608 - quoted


def build_staged_view(connection: Any, staged: Staged, *, escape_formulas: bool) -> View:
    """Choose the newest rows, and build the query that returns them. Creates the temporary table ``newest``.

    The aggregate keeps one number for each key. It takes a quarter of the time of a window function, which sorts all
    columns on disk.
    """
    inferred = {name: kind or ColumnType.TEXT for name, kind in staged.types.items()}
    counters = {name: DIALECTS["duckdb"].types[inferred[name].value] for name in sorted(inferred)}
    columns_by_name = _assign_columns([*TEXT_COLUMNS, *counters])
    rows = build_staged_table(staged)
    names = [quote_name(name) for name in KEY]
    # Two hashes of 64 bits replace the key, because grouping by its texts takes twice the CPU time. The second one is
    # over digests of the texts, so texts with the same first hash have different second hashes.
    key = f"hash({', '.join(names)}), hash({', '.join(f'md5_number({name})' for name in names)})"
    counted = _build_nonzero_test(counters, columns_by_name)
    order = f"concat(CASE WHEN {counted} THEN 1 ELSE 0 END, captured_at, chr(0), batch_id)"
    newest = f"SELECT arg_max(_row, {order}) AS _row FROM {rows} GROUP BY {key}"  # noqa: S608 - quoted
    connection.execute(f"CREATE TEMP TABLE newest AS {newest}")
    columns = _list_columns(counters, columns_by_name, escape_formulas=escape_formulas)
    return View(f"SELECT {columns} FROM {rows} WHERE _row IN (SELECT _row FROM newest)", 0)  # noqa: S608 - quoted


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


def _build_nonzero_test(counters: dict[str, str], columns_by_name: dict[str, str]) -> str:
    """Return the SQL that tests whether any counter of a row is not 0."""
    tests = [f"coalesce(TRY_CAST({quote_name(columns_by_name[name])} AS DOUBLE), 0) <> 0" for name in counters]
    if _UNRECOGNIZED in counters:
        tests.append(f"coalesce(regexp_matches({_UNRECOGNIZED}, '\":\"?-?[0.]*[1-9]'), false)")
    return " OR ".join(tests) or "false"


def _list_columns(counters: dict[str, str], columns_by_name: dict[str, str], *, escape_formulas: bool) -> str:
    """Return the SQL of the columns of the view."""
    types = dict.fromkeys(TEXT_COLUMNS, "VARCHAR") | counters
    return ", ".join(
        _escape_formula(columns_by_name[name])
        if escape_formulas and kind == "VARCHAR"
        else quote_name(columns_by_name[name])
        for name, kind in types.items()
    )


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
