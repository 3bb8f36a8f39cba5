"""A Prefect flow: captures a list of sends, and loads the new parts into DuckDB.

The process needs the command harvester, the package duckdb, and BRAZE_API_KEY and BRAZE_ENDPOINT in its environment.
"""

import json
import os
import subprocess
from pathlib import Path

import duckdb
from prefect import flow, get_run_logger, task

FOLDER = Path(os.environ.get("BRAZE_FOLDER", "/data/braze"))  # sends.csv, the parts, the ledger and the table


class PermanentError(Exception):
    """Another attempt would not help."""


def may_help(_task: object, _run: object, state: object) -> bool:
    """Return whether another attempt may succeed."""
    return not isinstance(state.result(raise_on_failure=False), PermanentError)


@task(retries=3, retry_delay_seconds=int(os.environ.get("RETRY_SECONDS", "300")), retry_condition_fn=may_help)
def capture() -> int:
    """Capture the list. The next attempt continues where this one stopped."""
    code = subprocess.run(["harvester", "run", "sends.csv"], cwd=FOLDER).returncode
    if code in (2, 4):  # the list or the settings are invalid, or Braze refused the key
        raise PermanentError(f"harvester ended with {code}; correct the cause")
    if code not in (0, 3):  # storage, an interruption or a bug
        raise RuntimeError(f"harvester ended with {code}")
    if code == 3:
        get_run_logger().warning("Some pairs are rejected, expired or pending, or lines are unreadable.")
    return code


@task
def list_new_parts() -> list[dict]:
    """Return the parts that were stored since the last load."""
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


@flow
def braze_send_analytics() -> int:
    """Capture, list, load. Returns the number of new parts."""
    capture()
    return load(list_new_parts())


if __name__ == "__main__":  # to run it each hour: braze_send_analytics.serve(cron="0 * * * *")
    braze_send_analytics()
