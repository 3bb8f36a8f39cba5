"""Finds the members of a dataset's rows: names, types of values, and the length of the longest row.

Each query reads one part. For several parts DuckDB keeps a buffer each, so memory would grow with the dataset.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harvester.datasets.dialects import ColumnType
from harvester.datasets.layout import OBJECT_BYTES, Layout
from harvester.datasets.sql import THREADS, escape_path, quote_text, quote_texts

MANY_NAMES = 1000
"""DuckDB needs 10 KB of memory for each member name when it infers the columns of a part."""

_NUMBERS = frozenset({"BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"})
_NULLS = frozenset({"JSON", "NULL", '"NULL"'})
"""How DuckDB names the type of a member that is always null."""


@dataclass
class Members:
    """The members of all rows."""

    types: dict[str, set[str]] = field(default_factory=dict)
    """By name, the types of a member's values, as DuckDB names them."""

    rows: Counter[str] = field(default_factory=Counter)
    """By name, how many rows have the member."""

    object_bytes: int = OBJECT_BYTES
    """The length limit for one row that DuckDB reads, in bytes."""

    def infer_type(self, name: str) -> ColumnType | None:
        """Return the type that contains all values of a member, None if all are null."""
        found = self.types[name] - _NULLS
        if found <= {"BIGINT"}:
            return ColumnType.INTEGER if found else None
        return ColumnType.DECIMAL if found <= _NUMBERS else ColumnType.TEXT

    def read_options(self) -> str:
        """Return the options with which DuckDB reads the parts."""
        lines = "format = 'newline_delimited', hive_partitioning = false"
        return f"{lines}, maximum_object_size = {self.object_bytes}"


def find_members(connection: Any, parts: Sequence[Path]) -> Members:
    """Scan all parts. Raises ``SinkError`` for a damaged one, ``duckdb.Error`` for one that is not NDJSON."""
    members = Members()
    with ThreadPoolExecutor(THREADS) as pool:  # DuckDB reads a compressed part with one thread
        for found in pool.map(lambda part: _scan_part(connection.cursor(), part), parts):
            members.object_bytes = max(members.object_bytes, found.object_bytes)
            members.rows.update(found.rows)
            for name, types in found.types.items():
                members.types.setdefault(name, set()).update(types)
    return members


def build_object_table(parts: Sequence[Path], object_bytes: int) -> str:
    """Return the SQL of a table with the parts' rows as JSON."""
    return f"read_ndjson_objects({quote_texts(map(escape_path, parts))}, maximum_object_size = {object_bytes})"


def _scan_part(connection: Any, part: Path) -> Members:
    """Scan one part."""
    layout = Layout()
    layout.add_part(part)
    found = Members(object_bytes=layout.object_bytes)
    rows = build_object_table([part], found.object_bytes)
    names = f"SELECT name, count(*) FROM (SELECT unnest(json_keys(json)) AS name FROM {rows}) GROUP BY name"  # noqa: S608 - quoted
    found.rows = Counter(dict(connection.execute(names).fetchall()))
    # To DuckDB, Sent and sent are equal, and a counter without a name is an error.
    can_infer = len(found.rows) <= MANY_NAMES and len({name.lower() for name in found.rows} - {""}) == len(found.rows)
    if can_infer:
        options = f"sample_size = -1, maximum_depth = 2, {found.read_options()}"
        query = f"DESCRIBE SELECT * FROM read_json({quote_text(escape_path(part))}, {options})"  # noqa: S608 - quoted
    else:
        query = _build_members_query(rows)
    for name, kind, *_ in connection.execute(query).fetchall():
        found.types.setdefault(name, set()).add(kind)
    return found


def _build_members_query(rows: str) -> str:
    """Return the query for the members' names and the types of their values."""
    members = f"SELECT unnest(map_entries(json::MAP(VARCHAR, JSON))) AS member FROM {rows}"  # noqa: S608 - quoted
    kind = "json_type(member.value)"
    small = f"{kind} = 'UBIGINT' AND TRY_CAST(member.value AS BIGINT) IS NOT NULL"
    return f"SELECT DISTINCT member.key, CASE WHEN {small} THEN 'BIGINT' ELSE {kind} END FROM ({members})"  # noqa: S608 - quoted
