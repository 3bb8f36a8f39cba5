"""The latest view: of every place in every send the newest numbers, out of all parts.

Columns that hold text stay text, whatever they look like: an id of digits keeps its zeros and Braze's dates are
not reckoned with.
"""

import re
import shutil
import sys
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import zstandard

from harvester.errors import SinkError, UsageError
from harvester.model import DATASET, is_part
from harvester.tables.sql import THREADS, bound, quoted, text, texts

TEXT_COLUMNS = (
    "workspace", "campaign_id", "send_id", "date", "level", "channel", "variation_name", "variation_api_id",
    "reading", "captured_at", "verdict", "batch_id", "ending_at", "since",
)  # fmt: skip
KEY = ("workspace", "campaign_id", "send_id", "date", "level", "channel", "variation_name", "variation_api_id")
_CHUNK_BYTES = 256 * 1024
_OBJECT_BYTES = 1_048_576
_READING = f"format = 'newline_delimited', hive_partitioning = false, maximum_object_size = {_OBJECT_BYTES}"
_NUMBERS = frozenset({"BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"})
_NUMBERED = re.compile(r"_\d+$")
_FORMATS = {"ndjson": "(FORMAT json)", "csv": "(FORMAT csv, HEADER)", "parquet": "(FORMAT parquet, COMPRESSION zstd)"}


def write_latest(folder: Path, out: Path | None, kind: str, *, memory_limit_mb: int = 512, temp_directory: Path) -> int:
    """Write the latest view of a harvested folder to a file (whole or not at all) or to standard output.

    For each pair, date, level, channel and variation it keeps the newest row that counts anything, else the
    newest: an answer that comes back empty late, as after expiry, does not hide what was seen before. Counters
    that a row does not have are null, in NDJSON too, since readers look at the first rows to learn what there is. In
    CSV, text that a spreadsheet would run as a formula gets a leading apostrophe. ``kind`` is ndjson, csv or parquet.
    Gives the number of rows.

    Raises ``UsageError`` where nothing was harvested or ``out`` cannot be written, ``SinkError`` for a damaged part.
    """
    import duckdb  # noqa: PLC0415 - it takes longer to import than most commands to run

    parts = sorted(path for path in (folder / DATASET).glob("*/*") if is_part(path.name))
    if not parts:
        raise UsageError(f"nothing was harvested in {folder} yet; it should hold {DATASET}/captured_date=.../")
    if kind == "parquet" and out is None:
        raise UsageError("Parquet cannot be written to standard output; give -o FILE")
    making = temp_directory / "latest" if out is None else out.with_name(f".{out.name}.making")
    try:
        making.touch()
        making.unlink()
    except OSError as error:
        raise UsageError(f"cannot write to the folder {making.parent}: {error.strerror}") from None
    try:
        with duckdb.connect() as connection:
            bound(connection, memory_limit_mb, temp_directory)
            query = _latest(_counters(connection, parts), parts, guarded=kind == "csv")
            written = connection.execute(f"COPY ({query}) TO {text(str(making))} {_FORMATS[kind]}").fetchone()
    except duckdb.Error as error:
        raise SinkError(f"cannot read the parts of {folder}: {str(error).splitlines()[0]}") from None
    if out is None:
        with making.open("rb") as view:
            shutil.copyfileobj(view, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        making.replace(out)
    return int(written[0]) if written else 0


def look(folder: Path) -> tuple[str, str]:
    """Give a query over a harvested folder as any user of DuckDB would ask it, and its answer as a table."""
    import duckdb  # noqa: PLC0415 - as above

    query = (
        "SELECT channel, count(DISTINCT (campaign_id, send_id)) AS pairs, sum(sent)::BIGINT AS sent, "  # noqa: S608 - quoted
        "sum(conversions)::BIGINT AS conversions "
        f"FROM read_json({text(f'{folder}/{DATASET}/*/*.ndjson.zst')}, union_by_name = true, sample_size = -1) "
        "WHERE level = 'variation' GROUP BY channel ORDER BY sent DESC"
    )
    return query, str(duckdb.sql(query))


def _counters(connection: Any, parts: list[Path]) -> dict[str, str]:
    """Find the counters of all parts and their types: whole numbers, decimal ones, or whatever else as text.

    Part by part: asked for all at once, DuckDB keeps a buffer for each, and memory would grow with the harvest.
    """
    kinds: dict[str, set[str]] = {}
    with ThreadPoolExecutor(THREADS) as pool:  # a compressed part is read by one thread alone
        for found in pool.map(lambda part: _kinds(connection.cursor(), part), parts):
            for name, kind in found:
                kinds.setdefault(name, set()).add(kind)
    types = {}
    for name, met in kinds.items():
        numbers = met - {"JSON", "NULL", '"NULL"'} or met
        types[name] = "BIGINT" if numbers == {"BIGINT"} else "DOUBLE" if numbers <= _NUMBERS else "VARCHAR"
    ordered = sorted(types.keys() - set(TEXT_COLUMNS), key=lambda name: (name != name.lower(), name))
    return {name: types[name] for name in ordered}


def _kinds(connection: Any, part: Path) -> list[tuple[str, str]]:
    """Give the names of all members in a part, once that is known to be whole, with the types of their values."""
    _check(part)
    rows = f"read_json({text(str(part))}, sample_size = -1, {_READING})"
    found = connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()  # noqa: S608 - quoted
    names = {name for name, *_ in found}
    # DuckDB numbers Sent and sent, which are one to it, and gives up on a counter without a name.
    if "send_id" not in names or any(map(_NUMBERED.search, names)):
        found = connection.execute(_members(part)).fetchall()
    return [(name, kind) for name, kind, *_ in found]


def _members(part: Path) -> str:
    """Give the query of a part's member names, as they are written, with the kinds of their values."""
    members = f"SELECT json, unnest(json_keys(json)) AS name FROM {_objects([part])}"  # noqa: S608 - quoted
    pointer = "'/' || replace(replace(name, '~', '~0'), '/', '~1')"
    values = f"SELECT name, json_type(json, {pointer}) AS kind, json ->> ({pointer}) AS value FROM ({members})"  # noqa: S608 - quoted
    small = "kind = 'UBIGINT' AND TRY_CAST(value AS BIGINT) IS NOT NULL"
    return f"SELECT DISTINCT name, CASE WHEN {small} THEN 'BIGINT' ELSE kind END FROM ({values})"  # noqa: S608 - quoted


def _latest(counters: dict[str, str], parts: list[Path], *, guarded: bool) -> str:
    """Give the query of the view."""
    typed = dict.fromkeys(TEXT_COLUMNS, "VARCHAR") | counters
    shown = _shown(typed)
    counts = " OR ".join(f"coalesce(TRY_CAST({quoted(shown[name])} AS DOUBLE), 0) <> 0" for name in counters) or "false"
    columns = ", ".join(
        _guarded(shown[name]) if guarded and kind == "VARCHAR" else quoted(shown[name]) for name, kind in typed.items()
    )
    keys = ", ".join(quoted(name) for name in KEY)
    newest = f"row_number() OVER (PARTITION BY {keys} ORDER BY ({counts}) DESC, captured_at DESC, batch_id DESC)"
    return f"SELECT {columns} FROM {_rows(typed, shown, parts)} QUALIFY {newest} = 1"  # noqa: S608 - all is quoted


def _shown(names: Iterable[str]) -> dict[str, str]:
    """Give each name the column that shows it, since names of columns must differ in more than case."""
    shown: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        number, column = 0, name or "unnamed"
        while column.lower() in taken:
            number += 1
            column = f"{name}_{number}"
        shown[name] = column
        taken.add(column.lower())
    return shown


def _rows(typed: dict[str, str], shown: dict[str, str], parts: list[Path]) -> str:
    """Give what reads the parts: the quick way, or member by member where columns cannot bear their names."""
    if all(name == column for name, column in shown.items()):
        columns = "{" + ", ".join(f"{text(name)}: {text(kind)}" for name, kind in typed.items()) + "}"
        return f"read_json({texts(map(str, parts))}, columns = {columns}, {_READING})"
    pointers = {name: text("/" + name.replace("~", "~0").replace("/", "~1")) for name in typed}
    members = ", ".join(
        f"CAST(json ->> {pointers[name]} AS {kind}) AS {quoted(shown[name])}" for name, kind in typed.items()
    )
    return f"(SELECT {members} FROM {_objects(parts)})"  # noqa: S608 - quoted


def _objects(parts: list[Path]) -> str:
    return f"read_ndjson_objects({texts(map(str, parts))}, maximum_object_size = {_OBJECT_BYTES})"


def _guarded(name: str) -> str:
    column = quoted(name)
    risky = f"regexp_matches({column}, '^[-=+@\\t\\r]')"
    return f"CASE WHEN {risky} THEN '''' || {column} ELSE {column} END AS {column}"


def _check(part: Path) -> None:
    """Read a compressed part to its end, since DuckDB takes one that was cut off for a whole one."""
    stream: Any = None
    if part.suffix == ".zst":
        stream = zstandard.ZstdDecompressor().decompressobj()
    elif part.suffix == ".gz":
        stream = zlib.decompressobj(31)
    if stream is None:
        return
    try:
        with part.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                stream.decompress(chunk)
    except (zstandard.ZstdError, zlib.error):
        stream = None
    if stream is None or not stream.eof or stream.unused_data:
        raise SinkError(f"the part {part} is damaged; restore it, or move it away")
