"""The latest view: the newest numbers of every send, from all parts.

Text columns stay text, whatever their values look like: an id of digits keeps its zeros.
"""

import json
import secrets
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from harvester.datasets.members import Members, build_object_table, find_members
from harvester.datasets.sql import escape_path, limit_memory, quote_name, quote_text, quote_texts
from harvester.errors import SinkError, UsageError
from harvester.model import DATASET, is_part
from harvester.private_files import make_private_file

TEXT_COLUMNS = (
    "workspace", "campaign_id", "send_id", "date", "level", "channel", "variation_name", "variation_api_id",
    "reading", "captured_at", "verdict", "batch_id", "ending_at", "since",
)  # fmt: skip
KEY = ("workspace", "campaign_id", "send_id", "date", "level", "channel", "variation_name", "variation_api_id")
MAX_COUNTERS = 500
"""At most this many counters have a column. DuckDB needs a megabyte for each, for any number of rows."""

_REST = "unrecognized"
"""The column for all other members of a row, as the text of a JSON object."""

_NUMBERS = frozenset({"BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"})
_FORMATS = {"ndjson": "(FORMAT json)", "csv": "(FORMAT csv, HEADER)", "parquet": "(FORMAT parquet, COMPRESSION zstd)"}


class WrittenView(NamedTuple):
    """The number of rows written, and of counters without a column."""

    rows: int
    folded: int


def write_latest(
    folder: Path, out: Path | None, kind: str, *, memory_limit_mb: int = 512, temp_directory: Path
) -> WrittenView:
    """Write the latest view of a folder to a file (atomically) or to standard output.

    For each pair, date, level, channel and variation it keeps the newest row with a counter other than
    0, else the newest row: a late answer of zeros, as after expiry, hides no numbers. Absent counters are null, in
    NDJSON too, since readers infer columns from the first rows. In
    CSV, text that a spreadsheet would run as a formula gets a leading apostrophe. ``kind`` is ndjson, csv or parquet.
    Beyond ``MAX_COUNTERS``, the rarest counters are JSON text in ``unrecognized``.

    Raises ``UsageError`` if there is no part or ``out`` cannot be written, ``SinkError`` for a damaged part.
    """
    import duckdb  # noqa: PLC0415 - it takes longer to import than most commands to run

    parts = sorted(path for path in (folder / DATASET).glob("*/*") if is_part(path.name))
    if not parts:
        raise UsageError(_describe_missing_parts(folder))
    if kind == "parquet" and out is None:
        raise UsageError("Parquet cannot be written to standard output; give -o FILE")
    making = temp_directory / "latest" if out is None else out.with_name(f".{out.name}.{secrets.token_hex(4)}.making")
    try:
        make_private_file(making)  # fails if the folder is not writable or the name is a link
        making.unlink()
    except OSError as error:
        raise UsageError(f"cannot write to the folder {making.parent}: {error.strerror}") from None
    try:
        with duckdb.connect() as connection:
            limit_memory(connection, memory_limit_mb, temp_directory)
            members = find_members(connection, parts)
            counters, folded = _choose_counters(members)
            rows = (
                _build_folded_table(counters, members, parts) if folded else _build_row_table(counters, members, parts)
            )
            query = _build_view_query(counters, rows, escape_formulas=kind == "csv")
            written = connection.execute(f"COPY ({query}) TO {quote_text(str(making))} {_FORMATS[kind]}").fetchone()
    except duckdb.OutOfMemoryException:
        making.unlink(missing_ok=True)
        raise SinkError(
            f"the latest view of {folder} needs more than {memory_limit_mb} MB of memory, or more space for temporary "
            f"files than {temp_directory.parent} has; raise --memory-limit-mb, or set TMPDIR to a larger volume"
        ) from None
    except duckdb.Error as error:
        making.unlink(missing_ok=True)
        raise SinkError(f"cannot read the parts of {folder}: {str(error).splitlines()[0]}") from None
    if out is None:
        with making.open("rb") as view:
            shutil.copyfileobj(view, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        making.replace(out)
    return WrittenView(int(written[0]) if written else 0, len(folded))


def _describe_missing_parts(folder: Path) -> str:
    """Return the error for a folder without parts. If it has ``.harvester/``, parts may have been lost."""
    if (folder / ".harvester").is_dir():
        return (
            f"{folder} holds no parts below {DATASET}/, but harvester has used it ({folder}/.harvester is there); "
            f"harvester doctor -o {folder} says whether stored parts are missing"
        )
    return f"nothing was harvested in {folder} yet; it should hold {DATASET}/captured_date=.../"


def _choose_counters(members: Members) -> tuple[dict[str, str], set[str]]:
    """Return the counters that are columns with their types, and the names of the others.

    Types are integers, decimals, or text for all other values.
    """
    types = {}
    for name, found in members.kinds.items():
        numbers = found - {"JSON", "NULL", '"NULL"'} or found
        types[name] = "BIGINT" if numbers == {"BIGINT"} else "DOUBLE" if numbers <= _NUMBERS else "VARCHAR"
    names = types.keys() - set(TEXT_COLUMNS)
    kept = names
    if len(names) > MAX_COUNTERS:
        common = sorted(names - {_REST}, key=lambda name: (-members.rows[name], name))
        columns_by_name = _assign_columns([*TEXT_COLUMNS, _REST, *common])
        kept = {*[name for name in common if columns_by_name[name] == name][:MAX_COUNTERS], _REST}
        types[_REST] = "VARCHAR"
    ordered = sorted(kept, key=lambda name: (name != name.lower(), name))
    return {name: types[name] for name in ordered}, names - kept


def _build_view_query(counters: dict[str, str], rows: str, *, escape_formulas: bool) -> str:
    """Return the query of the view over a table of rows."""
    typed = dict.fromkeys(TEXT_COLUMNS, "VARCHAR") | counters
    columns_by_name = _assign_columns(typed)
    counts = [f"coalesce(TRY_CAST({quote_name(columns_by_name[name])} AS DOUBLE), 0) <> 0" for name in counters]
    if _REST in counters:
        counts.append(f"coalesce(regexp_matches({_REST}, '\":\"?-?[0.]*[1-9]'), false)")
    columns = ", ".join(
        _escape_formula(columns_by_name[name])
        if escape_formulas and kind == "VARCHAR"
        else quote_name(columns_by_name[name])
        for name, kind in typed.items()
    )
    keys = ", ".join(quote_name(name) for name in KEY)
    order = f"({' OR '.join(counts) or 'false'}) DESC, captured_at DESC, batch_id DESC"
    return f"SELECT {columns} FROM {rows} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1"  # noqa: S608 - all is quoted


def _assign_columns(names: Iterable[str]) -> dict[str, str]:
    """Map each counter to a column name: DuckDB's column names must differ in more than case."""
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
    """Return the table of rows: read directly, or member by member if names cannot be columns."""
    typed = dict.fromkeys(TEXT_COLUMNS, "VARCHAR") | counters
    columns_by_name = _assign_columns(typed)
    if all(name == column for name, column in columns_by_name.items()):
        columns = "{" + ", ".join(f"{quote_text(name)}: {quote_text(kind)}" for name, kind in typed.items()) + "}"
        return f"read_json({quote_texts(map(escape_path, parts))}, columns = {columns}, {members.read_options()})"
    pointers = {name: quote_text("/" + name.replace("~", "~0").replace("/", "~1")) for name in typed}
    listed = ", ".join(
        f"CAST(json ->> {pointers[name]} AS {kind}) AS {quote_name(columns_by_name[name])}"
        for name, kind in typed.items()
    )
    return f"(SELECT {listed} FROM {build_object_table(parts, members.object_bytes)})"  # noqa: S608 - quoted


def _build_folded_table(counters: dict[str, str], members: Members, parts: list[Path]) -> str:
    """Return the table of rows, with members without a column combined in one."""
    typed = dict.fromkeys(TEXT_COLUMNS, "VARCHAR") | counters
    structure = quote_text(json.dumps(typed))
    others = quote_text(json.dumps(dict.fromkeys(typed)))
    return (
        f"(SELECT * EXCLUDE ({_REST}, _others), CASE WHEN _others = '{{}}' THEN {_REST} "  # noqa: S608 - quoted
        f"WHEN {_REST} IS NULL THEN _others::VARCHAR "
        f"ELSE json_merge_patch(_others, json_object('{_REST}', {_REST}))::VARCHAR END AS {_REST} "
        f"FROM (SELECT unnest(json_transform(json, {structure})), json_merge_patch(json, {others}) AS _others "
        f"FROM {build_object_table(parts, members.object_bytes)}))"
    )


def _escape_formula(name: str) -> str:
    column = quote_name(name)
    risky = f"regexp_matches({column}, '^[-=+@\\t\\r]')"
    return f"CASE WHEN {risky} THEN '''' || {column} ELSE {column} END AS {column}"
