"""An Airflow DAG: captures a list of sends each hour, and loads the new parts into DuckDB.

The worker needs the command harvester, the package duckdb, and BRAZE_API_KEY and BRAZE_ENDPOINT in its environment.
"""

import json
import os
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

FOLDER = Path(os.environ.get("BRAZE_FOLDER", "/data/braze"))  # sends.csv, the parts, the ledger and the table


@task(retries=3, retry_delay=timedelta(seconds=int(os.environ.get("RETRY_SECONDS", "300"))))
def capture() -> int:
    """Capture the list. The next attempt continues where this one stopped."""
    code = subprocess.run(["harvester", "run", "sends.csv"], cwd=FOLDER).returncode
    if code in (2, 4):  # the list or the settings are invalid, or Braze refused the key: another attempt would not help
        raise AirflowFailException(f"harvester ended with {code}; correct the cause, then clear this task")
    if code not in (0, 3):  # storage, an interruption or a bug
        raise RuntimeError(f"harvester ended with {code}")
    return code  # 3: some pairs are rejected, expired or pending, or lines are unreadable; the log has them


@task
def list_new_parts(code: int) -> list[dict]:
    """Return the parts that were stored since the last load. They do not depend on the exit code."""
    del code
    bookmark = FOLDER / "bookmark"
    since = bookmark.read_text() if bookmark.exists() else "0"
    listed = subprocess.run(["harvester", "parts", "--since", since], cwd=FOLDER, capture_output=True, check=True)
    return [json.loads(line) for line in listed.stdout.splitlines()]


@task
def load(parts: list[dict]) -> int:
    """Load the parts, then remember the last one. A part that is loaded twice changes nothing."""
    with duckdb.connect(FOLDER / "lake.duckdb") as lake:
        lake.execute((FOLDER / "table.sql").read_text().replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
        for part in parts:
            lake.execute(f"COPY send_analytics FROM '{FOLDER}/harvest/{part['name']}' (FORMAT json)")
        lake.execute((FOLDER / "merge.sql").read_text() + "DELETE FROM send_analytics")
    if parts:
        (FOLDER / "bookmark").write_text(str(parts[-1]["order"]))
    return len(parts)


@dag(schedule="@hourly", start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1)
def braze_send_analytics() -> None:
    """Capture, list, load."""
    load(list_new_parts(capture()))


braze_send_analytics()
