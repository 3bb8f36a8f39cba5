"""Dagster assets: a capture of a list of sends, and the table of new parts in DuckDB.

The process needs the command harvester, the package duckdb, and BRAZE_API_KEY and BRAZE_ENDPOINT in its environment.
"""

import json
import os
import subprocess
from pathlib import Path

import dagster as dg
import duckdb

FOLDER = Path(os.environ.get("BRAZE_FOLDER", "/data/braze"))  # sends.csv, the parts, the ledger and the table
RETRY = dg.RetryPolicy(max_retries=3, delay=int(os.environ.get("RETRY_SECONDS", "300")))


@dg.asset(retry_policy=RETRY)
def braze_parts(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """The parts in the place. The next attempt continues where this one stopped."""
    code = subprocess.run(["harvester", "run", "sends.csv"], cwd=FOLDER).returncode
    if code in (2, 4):  # the list or the settings are invalid, or Braze refused the key: another attempt would not help
        raise dg.Failure(f"harvester ended with {code}; correct the cause", allow_retries=False)
    if code not in (0, 3):  # storage, an interruption or a bug
        raise dg.Failure(f"harvester ended with {code}")
    if code == 3:
        context.log.warning("Some pairs are rejected, expired or pending, or lines are unreadable.")
    return dg.MaterializeResult(metadata={"exit_code": code})


@dg.asset(deps=[braze_parts])
def braze_send_analytics() -> dg.MaterializeResult:
    """The table of the latest rows. A part that is loaded twice changes nothing."""
    bookmark = FOLDER / "bookmark"
    since = bookmark.read_text() if bookmark.exists() else "0"
    listed = subprocess.run(["harvester", "parts", "--since", since], cwd=FOLDER, capture_output=True, check=True)
    parts = [json.loads(line) for line in listed.stdout.splitlines()]
    with duckdb.connect(FOLDER / "lake.duckdb") as lake:
        lake.execute((FOLDER / "table.sql").read_text().replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
        for part in parts:
            lake.execute(f"COPY send_analytics FROM '{FOLDER}/harvest/{part['name']}' (FORMAT json)")
        lake.execute((FOLDER / "merge.sql").read_text() + "DELETE FROM send_analytics")
    if parts:
        bookmark.write_text(str(parts[-1]["order"]))
    return dg.MaterializeResult(metadata={"new_parts": len(parts)})


hourly = dg.ScheduleDefinition(name="hourly", target="*", cron_schedule="0 * * * *")
defs = dg.Definitions(assets=[braze_parts, braze_send_analytics], schedules=[hourly])
