"""Lists of pairs for tests."""

import io
from datetime import UTC, datetime

import duckdb

from harvester.model import BadLine, SentPair
from harvester.sources import Input

NOW = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
DAY = 86_400
HEADER = "campaign_id,send_id,sent_at\n"


def read_list(text, *, name=None, now=NOW, workspaces=("w",), options=None):
    """Read a list. Return ``{(campaign, send): sent_at}``, the bad lines and the input."""
    stdin = io.BytesIO(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
    source = Input([str(name or "-")], workspaces=workspaces, stdin=stdin, now=now, options=options)
    found = list(source.read())
    pairs = {each.pair[1:]: each.sent_at for each in found if isinstance(each, SentPair)}
    return pairs, [each for each in found if isinstance(each, BadLine)], source


def write_parquet(path, select):
    """Write the result of a SELECT to a Parquet file, and return the path."""
    duckdb.execute(f"COPY ({select}) TO '{path}'")
    return path
