"""``harvester latest`` over a large dataset, compared with DuckDB alone.

The dataset has 10 million rows in parts of 100,000. Each row is captured twice, and half of the later captures contain
only zeros. The view is written as Parquet. DuckDB alone runs twice: with its default memory limit, and with harvester's
limits (512 MB, the same number of threads). DuckDB alone does not check that parts are complete, and it infers the
columns from the first rows instead of finding all counters. harvester stages the rows by column in temporary files,
because the view does not fit into its memory limit. A window function that writes to disk takes twice as long.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.runtime import run_process
from harvester.datasets.latest_view import KEY
from harvester.model import DATASET

ROWS_PER_PART = 100_000
ROWS, QUICK_ROWS = 10_000_000, 500_000

ROW = """
SELECT 'default' AS workspace, 'campaign-' || (key // 500) AS campaign_id, 'send-' || (key // 25) AS send_id,
    (DATE '2026-11-01' + (key % 14)::INTEGER)::VARCHAR AS date, 'variation' AS level, 'email' AS channel,
    'Variant ' || (key % 25) AS variation_name, NULL AS variation_api_id, 'once' AS reading, 'activity' AS verdict,
    '2026-11-' || (15 + later) || 'T12:00:00Z' AS captured_at, 'batch-' || (row // {part}) AS batch_id,
    counted * (key % 9973) AS sent, counted * (key % 997) AS unique_opens, counted * (key % 991) AS clicks,
    counted * (key % 97) AS bounces, counted * (key % 89) AS conversions, counted * (key % 83) * 0.5 AS revenue
FROM (SELECT row, row % {keys} AS key, row // {keys} AS later, (row < {keys} OR row % 2 = 0)::INTEGER AS counted
    FROM range({first}, {first} + {part}) AS made(row))
"""


def write_harvest(folder: Path, rows: int) -> None:
    """Write a dataset as harvester does: parts of compressed NDJSON."""
    day = folder / DATASET / "captured_date=2026-11-15"
    day.mkdir(parents=True)
    with duckdb.connect() as connection:
        for first in range(0, rows, ROWS_PER_PART):
            query = ROW.format(part=ROWS_PER_PART, keys=rows // 2, first=first)
            part = day / f"{first:012d}.ndjson.zst"
            connection.execute(f"COPY ({query}) TO '{part}' (FORMAT json, COMPRESSION zstd)")


def write_view_with_duckdb(folder: str, out: str, *limits: str) -> None:
    """Write the view with one query of DuckDB, which uses fixed columns."""
    keys = ", ".join(name for name in KEY if name != "variation_api_id")
    newest = f"PARTITION BY {keys} ORDER BY (sent + unique_opens + clicks + bounces + conversions + revenue <> 0) DESC"
    parts = f"read_json('{folder}/{DATASET}/*/*.ndjson.zst')"
    query = f"SELECT * FROM {parts} QUALIFY row_number() OVER ({newest}, captured_at DESC, batch_id DESC) = 1"
    with duckdb.connect() as connection:
        for limit in limits:
            connection.execute(f"SET {limit}")
        connection.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION zstd)")


def measure(*, quick: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a row for each way to create the view."""
    rows = QUICK_ROWS if quick else ROWS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_harvest(folder / "harvest", rows)
        harvest, out = str(folder / "harvest"), str(folder / "view.parquet")
        limits = [
            "memory_limit = '512MB'",
            f"temp_directory = '{folder}'",
            "preserve_insertion_order = false",
            "threads = 2",
        ]
        ours = [sys.executable, "-m", "harvester", "latest", harvest, "--format", "parquet", "-o", out]
        for way, command in {
            "harvester latest": ours,
            "DuckDB, default memory limit": [sys.executable, __file__, harvest, out],
            "DuckDB, harvester's limits": [sys.executable, __file__, harvest, out, *limits],
        }.items():
            (usage,) = run_process.run(command)
            yield (
                "latest_view",
                {
                    "way": way,
                    "rows": rows,
                    "seconds": usage.seconds,
                    "rows per second": rows / usage.seconds,
                    "CPU seconds": usage.cpu_seconds,
                    "peak MiB": usage.peak_mib,
                    "rows in the view": 0 if usage.status else _count_rows(out),
                    "exit": usage.status,
                },
            )


def _count_rows(path: str) -> int:
    with duckdb.connect() as connection:
        return int(connection.execute("SELECT count(*) FROM read_parquet(?)", [path]).fetchall()[0][0])


if __name__ == "__main__":
    write_view_with_duckdb(*sys.argv[1:])
