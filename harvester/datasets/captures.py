"""The last capture of each pair in a dataset's parts, from which a ledger can be rebuilt."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from harvester.datasets.sql import escape_path, limit_memory, quote_text, quote_texts
from harvester.errors import SinkError
from harvester.model import DATASET, LastCapture, Pair, Verdict, is_part

_COLUMNS = ("workspace", "campaign_id", "send_id", "level", "reading", "verdict", "captured_at", "since")


def list_last_captures(*folders: Path, temp_directory: Path) -> Iterator[LastCapture]:
    """Yield each pair's last capture in the parts of all folders. Raises ``SinkError`` for unreadable parts."""
    import duckdb  # noqa: PLC0415 - it takes longer to import than most commands to run

    parts = sorted(path for folder in folders for path in (folder / DATASET).glob("*/*") if is_part(path.name))
    if not parts:
        return
    columns = "{" + ", ".join(f"{quote_text(name)}: 'VARCHAR'" for name in _COLUMNS) + "}"
    files = quote_texts(map(escape_path, parts))
    rows = f"read_json({files}, columns = {columns}, format = 'newline_delimited', hive_partitioning = false)"
    query = (
        "SELECT workspace, campaign_id, send_id, arg_max(reading, captured_at), arg_max(verdict, captured_at), "  # noqa: S608 - quoted
        "max(captured_at), max(coalesce(since, captured_at)), count(*) "
        f"FROM {rows} WHERE level = 'capture' GROUP BY ALL"
    )
    with duckdb.connect() as connection:
        limit_memory(connection, 512, temp_directory)
        try:
            result = connection.execute(query)
            while page := result.fetchmany(2048):
                for *identity, reading, verdict, captured_at, since, captures in page:
                    yield LastCapture(
                        Pair(*identity),
                        reading,
                        Verdict(verdict),
                        _parse_time(captured_at),
                        _parse_time(since),
                        captures,
                    )
        except (duckdb.Error, ValueError) as error:
            named = " and ".join(map(str, folders))
            raise SinkError(f"cannot read the parts of {named}: {str(error).splitlines()[0]}") from None


def _parse_time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
