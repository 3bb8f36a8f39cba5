"""PostgreSQL from Debian, in a cluster of its own: table, psql, MERGE and view; and Redshift's statements.

Redshift descends from PostgreSQL. Its transaction is run here because no Redshift can be installed.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from page import ALL_PARTS, compare_rows, get_block, get_statement, list_parts

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"))


def run(*command: str, text: str | None = None) -> str:
    """Run a command as a user who may start PostgreSQL, and return its output."""
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
    return subprocess.run([*user, *command], input=text, capture_output=True, check=True, text=True).stdout


def query(text: str) -> str:
    """Run SQL and return its rows."""
    return run("psql", "-qAt", "-v", "ON_ERROR_STOP=1", text=text)


def check_merge(kind: str) -> None:
    """Load each part and merge it, with the statements for one reader."""
    query(get_statement(kind, "table"))
    for part in list_parts():
        subprocess.run(get_block("PostgreSQL").replace(ALL_PARTS, part), shell=True, check=True, capture_output=True)
        query(get_statement(kind, "merge") + "TRUNCATE send_analytics;")
    name = {"postgresql": "PostgreSQL", "redshift": "Redshift's statements in PostgreSQL"}[kind]
    compare_rows(name, version, read_latest())


def read_latest() -> list[dict[str, object]]:
    """Return the rows of the table or view of the latest rows."""
    return [json.loads(line) for line in query("SELECT to_json(l) FROM send_analytics_latest AS l").splitlines()]


with tempfile.TemporaryDirectory() as folder:
    Path(folder).chmod(0o777)
    os.environ |= {"PGHOST": folder, "PGUSER": "postgres", "PGDATABASE": "postgres"}
    run(f"{PROGRAMS}/initdb", "-D", f"{folder}/data", "-U", "postgres", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    run(f"{PROGRAMS}/pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start")
    try:
        version = query("SHOW server_version").split()[0]
        check_merge("postgresql")
        query("DROP TABLE send_analytics_latest;" + get_statement("postgresql", "latest"))
        subprocess.run(get_block("PostgreSQL"), shell=True, check=True, capture_output=True)
        compare_rows("PostgreSQL, view", version, read_latest())
        query("DROP VIEW send_analytics_latest; DROP TABLE send_analytics;")
        check_merge("redshift")
    finally:
        run(f"{PROGRAMS}/pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")
