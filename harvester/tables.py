"""What needs a database for a while: the latest view, Parquet lists of pairs, sends among events. The door to DuckDB.

Columns that hold text stay text, whatever they look like: an id of digits keeps its zeros and Braze's dates are
not reckoned with. Memory is bounded by DuckDB's own limit; what does not fit is put on disk for a while.
"""

import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zstandard

from harvester.errors import SinkError, StorageError, UsageError
from harvester.model import DATASET

TEXT_COLUMNS = (
    "workspace", "campaign_id", "send_id", "date", "level", "channel", "variation_name", "variation_api_id",
    "reading", "captured_at", "verdict", "batch_id", "ending_at", "since",
)  # fmt: skip
KEY = ("workspace", "campaign_id", "send_id", "date", "level", "channel", "variation_name", "variation_api_id")
_CHUNK_BYTES = 256 * 1024
_SEND_TIMES_AT_ONCE = 10_000
_READING = "format = 'newline_delimited', hive_partitioning = false, maximum_object_size = 1048576"
_NUMBERS = frozenset({"BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"})
_FORMATS = {"ndjson": "(FORMAT json)", "csv": "(FORMAT csv, HEADER)", "parquet": "(FORMAT parquet, COMPRESSION zstd)"}
PART_SUFFIXES = (".ndjson", ".ndjson.zst", ".ndjson.gz")


def write_latest(folder: Path, out: Path | None, kind: str, *, memory_limit_mb: int = 512, temp_directory: Path) -> int:
    """Write the latest view of a harvested folder to a file (whole or not at all) or to standard output.

    For each pair, date, level, channel and variation it keeps the newest row that counts anything, else the
    newest: an answer that comes back empty late, as after expiry, does not hide what was seen before. Counters
    that a row does not have are null. In CSV, text that a spreadsheet would run as a formula gets a leading
    apostrophe. ``kind`` is ndjson, csv or parquet. Gives the number of rows.

    Raises ``UsageError`` where nothing was harvested, ``SinkError`` for a damaged part.
    """
    import duckdb  # noqa: PLC0415 - it takes longer to import than most commands to run

    parts = sorted(path for path in (folder / DATASET).glob("*/*") if path.name.endswith(PART_SUFFIXES))
    if not parts:
        raise UsageError(f"nothing was harvested in {folder} yet; it should hold {DATASET}/captured_date=.../")
    if kind == "parquet" and out is None:
        raise UsageError("Parquet cannot be written to standard output; give -o FILE")
    _check(parts)
    making = temp_directory / "latest" if out is None else out.with_name(f".{out.name}.making")
    try:
        with duckdb.connect() as connection:
            _bound(connection, memory_limit_mb, temp_directory)
            counters = _counters(connection, parts)
            query = _latest(counters, parts, guarded=kind == "csv")
            written = connection.execute(f"COPY ({query}) TO {_text(str(making))} {_FORMATS[kind]}").fetchone()
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
        f"FROM read_json({_text(f'{folder}/{DATASET}/*/*.ndjson.zst')}, union_by_name = true) "
        "WHERE level = 'variation' GROUP BY channel ORDER BY sent DESC"
    )
    return query, str(duckdb.sql(query))


def parquet_rows(path: Path, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Give the rows of a Parquet file, with those of the wanted columns that it has, streamed.

    Raises ``UsageError`` when the file is no Parquet.
    """
    import duckdb  # noqa: PLC0415 - as above

    with duckdb.connect() as connection:
        try:
            connection.execute("SET threads = 1")
            schema = connection.execute("SELECT * FROM read_parquet(?) LIMIT 0", [str(path)]).description or []
            names = [column[0] for column in schema if column[0] in wanted]
            listed = ", ".join(_name(name) for name in names) or "1"
            rows = connection.execute(f"SELECT {listed} FROM read_parquet(?)", [str(path)])  # noqa: S608 - quoted
            while page := rows.fetchmany(2048):
                for row in page:
                    yield dict(zip(names, row, strict=False))
        except duckdb.Error as error:
            raise UsageError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None


class SendTimes:
    """The first and the last time of each send among any number of events, in bounded memory.

    Some thousand sends are held here; the others are in DuckDB, which puts on disk what its own limit does not hold.
    Use it as a context manager: what it put on disk is gone afterwards.
    """

    def __init__(self, *, memory_limit_mb: int = 256) -> None:
        """Begin without a send. Raises ``StorageError`` where there is no folder for a while."""
        import duckdb  # noqa: PLC0415 - as above

        self._held: dict[tuple[str, str], tuple[int, int]] = {}
        self._errors = duckdb.Error
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="harvester-")
        except OSError as error:
            raise StorageError(f"no folder to sort sends in: {error.strerror}; let TMPDIR name one") from None
        self._connection = duckdb.connect()
        _bound(self._connection, memory_limit_mb, Path(self._folder.name))
        self._connection.execute("CREATE TABLE held (campaign_id TEXT, send_id TEXT, first BIGINT, last BIGINT)")

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of memory and disk."""
        self._connection.close()
        self._folder.cleanup()

    def add(self, campaign_id: str, send_id: str, seconds: int) -> None:
        """Count an event of a send, by its time. Raises ``StorageError`` where the disk is full."""
        send = (campaign_id, send_id)
        first, last = self._held.get(send, (seconds, seconds))
        self._held[send] = (min(first, seconds), max(last, seconds))
        if len(self._held) >= _SEND_TIMES_AT_ONCE:
            self._put_away()

    def _put_away(self) -> None:
        if not self._held:
            return
        rows = [(*send, *times) for send, times in self._held.items()]
        columns = [list(column) for column in zip(*rows, strict=True)]
        self._held.clear()
        try:
            self._connection.execute("INSERT INTO held SELECT unnest(?), unnest(?), unnest(?), unnest(?)", columns)
        except self._errors as error:
            raise self._full(error) from None

    def each(self) -> Iterator[tuple[str, str, int, int]]:
        """Give ``(campaign_id, send_id, first, last)`` of each send, once, oldest first. Raises ``StorageError``."""
        self._put_away()
        try:
            rows = self._connection.execute(
                "SELECT campaign_id, send_id, min(first), max(last) FROM held GROUP BY ALL ORDER BY 3, 1, 2"
            )
            while page := rows.fetchmany(2048):
                yield from page
        except self._errors as error:
            raise self._full(error) from None

    def _full(self, error: Exception) -> StorageError:
        return StorageError(
            f"cannot sort sends in {self._folder.name}: {str(error).splitlines()[0]}; let TMPDIR name a roomier folder"
        )


def _bound(connection: Any, memory_limit_mb: int, temp_directory: Path) -> None:
    connection.execute(f"SET memory_limit = '{memory_limit_mb}MB'")
    connection.execute(f"SET temp_directory = {_text(str(temp_directory))}")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"SET threads = {min(4, os.cpu_count() or 1)}")


def _counters(connection: Any, parts: list[Path]) -> dict[str, str]:
    """Find the counters of all parts and their types: whole numbers, decimal ones, or whatever else as text.

    Part by part: asked for all at once, DuckDB keeps a buffer for each, and memory would grow with the harvest.
    """
    kinds: dict[str, set[str]] = {}
    for part in parts:
        rows = f"read_json({_text(str(part))}, sample_size = -1, {_READING})"
        for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall():  # noqa: S608 - quoted
            kinds.setdefault(name, set()).add(kind)
    types = {}
    for name, found in kinds.items():
        numbers = found - {"JSON", '"NULL"'} if len(found) > 1 else found
        types[name] = "BIGINT" if numbers == {"BIGINT"} else "DOUBLE" if numbers <= _NUMBERS else "VARCHAR"
    return {name: kind for name, kind in types.items() if name not in TEXT_COLUMNS}


def _latest(counters: dict[str, str], parts: list[Path], *, guarded: bool) -> str:
    """Give the query of the view."""
    typed = dict.fromkeys(TEXT_COLUMNS, "VARCHAR") | counters
    columns = "{" + ", ".join(f"{_text(name)}: {_text(kind)}" for name, kind in typed.items()) + "}"
    numbers = [_name(name) for name, kind in counters.items() if kind != "VARCHAR"]
    counts = " OR ".join(f"coalesce({name}, 0) <> 0" for name in numbers) or "false"
    shown = ", ".join(_guarded(name) if guarded and kind == "VARCHAR" else _name(name) for name, kind in typed.items())
    keys = ", ".join(_name(name) for name in KEY)
    rows = f"read_json({_list(map(str, parts))}, columns = {columns}, {_READING})"
    newest = f"row_number() OVER (PARTITION BY {keys} ORDER BY ({counts}) DESC, captured_at DESC, batch_id DESC)"
    return f"SELECT {shown} FROM {rows} QUALIFY {newest} = 1"  # noqa: S608 - every name and text in it is quoted


def _guarded(name: str) -> str:
    column = _name(name)
    risky = f"regexp_matches({column}, '^[-=+@\\t\\r]')"
    return f"CASE WHEN {risky} THEN '''' || {column} ELSE {column} END AS {column}"


def _check(parts: list[Path]) -> None:
    """Read every compressed part to its end, since DuckDB takes a part that was cut off for a whole one."""
    for part in parts:
        stream: Any = None
        if part.suffix == ".zst":
            stream = zstandard.ZstdDecompressor().decompressobj()
        elif part.suffix == ".gz":
            stream = zlib.decompressobj(31)
        if stream is None:
            continue
        try:
            with part.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    stream.decompress(chunk)
        except (zstandard.ZstdError, zlib.error):
            stream = None
        if stream is None or not stream.eof:
            raise SinkError(f"the part {part} is damaged; restore it, or move it away")


def _text(value: str) -> str:
    """Quote a text for SQL."""
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    """Quote a name for SQL."""
    return '"' + value.replace('"', '""') + '"'


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(_text(value) for value in values) + "]"
