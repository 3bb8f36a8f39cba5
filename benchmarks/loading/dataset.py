"""Parts of a dataset whose sends were read three times."""

import gzip
import json
from pathlib import Path

import zstandard

from harvester.braze.series import build_capture
from harvester.commands.schema import list_columns
from harvester.datasets import FORMATS, Statement, build_statement, write_latest
from harvester.model import Pair, Reading

SENDS = ("007", "10:30", "2026-11-20", "6F2C1B9E-3A51-4E0B-9D5B-0C5F3B1E9A77")
"""Ids that readers take for numbers, times, dates and UUIDs."""

_NOON = 1_795_608_000.0


def write_readings(folder: Path, first_at: float = _NOON, **new_counters: int) -> list[Path]:
    """Write three parts, one for each daily reading of all sends, and return their paths.

    The second reading changes the numbers of the first day, and the third one, after Braze has deleted the analytics,
    contains only zeros for the first send.
    """
    parts = []
    for number, name in enumerate(("d1", "d2", "d13")):
        batch_id = f"batch-{number}"
        captured_at = first_at + 86_400 * number
        rows = b"".join(_build_rows(send, number, name, batch_id, captured_at, new_counters) for send in SENDS)
        path = folder / "send_analytics" / f"captured_date=2026-11-2{number}" / f"{batch_id}.ndjson.zst"
        path.parent.mkdir(parents=True)
        path.write_bytes(zstandard.compress(rows))
        parts.append(path)
    return parts


def _build_rows(
    send_id: str, number: int, name: str, batch_id: str, captured_at: float, new_counters: dict[str, int]
) -> bytes:
    reading = Reading(1, Pair("eu", "c-1", send_id), name, captured_at, captured_at + 1e6, captured_at - 86_400)
    deleted = number == 2 and send_id == SENDS[0]
    email = {"variation_name": "A", "sent": 500, "opens": 20 + number, "revenue": 2.5 * number, "brand_new": 3}
    odd = {"variation_name": "B", "sent": "many" if number == 1 else 7, **new_counters}
    numbers = [
        {"time": "2026-11-19", "messages": {"email": [email, odd]}, "conversions": number, "revenue": 0},
        {"time": "2026-11-20", "messages": {"sms": [{"variation_name": "A", "sent": 0}]}, "unique_recipients": 9},
    ]
    zeros = [{"time": "2026-11-19", "messages": {"email": [{"variation_name": "A", "sent": 0, "revenue": 0.0}]}}]
    body = json.dumps({"message": "success", "data": zeros if deleted else numbers}).encode()
    return build_capture(body, reading, batch_id=batch_id, captured_at=captured_at, new_counters=set()).rows


def write_work_folder(folder: Path) -> None:
    """Write what the checks need: parts in both compressions, all statements, and the expected rows."""
    parts = write_readings(folder / "harvest")
    columns = list_columns(folder / "harvest", folder)
    all_rows = [zstandard.ZstdDecompressor().decompressobj().decompress(part.read_bytes()) for part in parts]
    for part, rows in zip(parts, all_rows, strict=True):
        compressed = folder / "gzip" / part.relative_to(folder / "harvest").with_suffix(".gz")
        compressed.parent.mkdir(parents=True)
        compressed.write_bytes(gzip.compress(rows))
    (folder / "rows.ndjson").write_bytes(b"".join(all_rows))
    write_latest(folder / "harvest", folder / "latest.ndjson", "ndjson", temp_directory=folder)
    for kind in FORMATS[:-2]:
        for statement in Statement:
            text = build_statement(statement, kind, columns, "send_analytics")
            (folder / f"{kind}-{statement}.sql").write_text(text)
    for kind, name in (("polars", "columns.py"), ("jsonschema", "row.schema.json")):
        (folder / name).write_text(build_statement(Statement.TABLE, kind, columns, "send_analytics"))
