"""The search for leaked secrets finds them."""

import gzip
import sqlite3
import subprocess
import sys

import zstandard

from tests.support import secret_canary
from tests.support.secret_canary import KEY, find_leaks


def test_a_leaked_key_is_found_in_logs_ledgers_parts_and_process_output(tmp_path):
    """The search finds keys in compressed parts, and half of a key; it ignores the key's own file."""
    row = f'{{"send_id": "{KEY}"}}\n'.encode()
    (tmp_path / "part.ndjson.zst").write_bytes(zstandard.compress(row))
    (tmp_path / "part.ndjson.gz").write_bytes(gzip.compress(row))
    (tmp_path / "log").write_bytes(row)
    (tmp_path / "eu.key").write_text(KEY)
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("CREATE TABLE outcome (detail)")
        connection.execute("INSERT INTO outcome VALUES (?)", [f"refused: {KEY}"])
    connection.close()
    secret_canary.RecordedProcess([sys.executable, "-c", f"print('{KEY[:16]}')"], stdout=subprocess.PIPE).communicate()
    assert len(find_leaks(tmp_path, ["nothing", f"a captured log says {KEY}"])) == 6
    for path in tmp_path.iterdir():
        path.unlink()
    assert find_leaks(tmp_path, ["nothing"]) == []
