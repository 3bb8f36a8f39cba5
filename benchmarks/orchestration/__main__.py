"""Runs the examples in config/orchestration with the real orchestrators and dbt, each in an environment of its own.

``python -m benchmarks.orchestration`` runs all of them against the stand-in API, and writes the table at the end of
docs/orchestration.md; it takes about ten minutes. ``python -m benchmarks.orchestration dagster dbt`` runs only these.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from benchmarks.loading.dataset import write_readings
from tests.support.processes import free_port

TOP = Path(__file__).parent.parent.parent
PAGE = TOP / "docs" / "orchestration.md"
EXAMPLES = TOP / "config" / "orchestration"
HEADING = "## Test results\n"
PACKAGES = {
    "airflow": ["apache-airflow", "duckdb"],
    "dagster": ["dagster", "duckdb"],
    "prefect": ["prefect", "duckdb"],
    "dbt": ["dbt-core<1.12", "dbt-duckdb"],  # later versions of dbt-core download a file from GitHub
}
WRAPPER = """#!/bin/sh
echo "$1" >>"$BRAZE_FOLDER/calls"
[ -e "$BRAZE_FOLDER/storage_fails" ] && [ "$1" = run ] && exit 5
exec {python} -m harvester "$@"
"""
"""The command harvester, which counts its calls, and ends with 5 while the file storage_fails exists."""


class Work:
    """A folder with sends, a running stand-in API, and an environment in which an example runs."""

    def __init__(self, folder: Path, tool: str, environments: Path) -> None:
        """Prepare the folder and the environment of a tool."""
        self.folder, self.tool, self.bin = folder, tool, environments / tool / "bin"
        if not (self.bin / "python").exists():
            venv.create(self.bin.parent, with_pip=True)
            subprocess.run([self.bin / "python", "-m", "pip", "install", "--quiet", *PACKAGES[tool]], check=True)
        (folder / "bin").mkdir()
        (folder / "bin" / "harvester").write_text(WRAPPER.format(python=sys.executable))
        (folder / "bin" / "harvester").chmod(0o755)
        self.env = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "HOME": str(folder), "BRAZE_FOLDER": str(folder), "RETRY_SECONDS": "0", "BRAZE_API_KEY": "demo-key",
            "PYTHONPATH": str(TOP), "AIRFLOW_HOME": f"{folder}/airflow", "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "DAGSTER_HOME": f"{folder}/dagster", "PREFECT_HOME": f"{folder}/prefect", "DO_NOT_TRACK": "1",
            "BRAZE_DATABASE": f"{folder}/lake.duckdb", "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        }  # fmt: skip
        self.env["PATH"] = f"{folder}/bin:{self.bin}:{self.env['PATH']}"
        for statement in ("table", "merge"):
            printed = self.harvester("schema", "--for", "duckdb", "--statement", statement)
            (folder / f"{statement}.sql").write_text(printed)

    def harvester(self, *arguments: str) -> str:
        """Run harvester itself, and return what it prints."""
        command = [sys.executable, "-m", "harvester", *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, check=True, text=True).stdout

    def run(self, *command: str) -> tuple[int, str]:
        """Run a command of the tool; return its exit code and output."""
        done = subprocess.run(
            [self.bin / command[0], *command[1:]], cwd=self.folder, env=self.env, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    def count_runs(self) -> int:
        """Return how often the tool has run a capture since the last call."""
        calls = self.folder / "calls"
        count = calls.read_text().split().count("run") if calls.exists() else 0
        calls.unlink(missing_ok=True)
        return count

    @contextmanager
    def stand_in(self) -> Iterator[list[str]]:
        """Run the stand-in API, and yield the lines of its list of sends."""
        port, pairs = free_port(), self.folder / "pairs.csv"
        command = ["simulate", "--port", str(port), "--pairs", "30", "--write-pairs", str(pairs)]
        self.env["BRAZE_ENDPOINT"] = f"http://127.0.0.1:{port}"
        process = subprocess.Popen(
            [sys.executable, "-m", "harvester", *command], cwd=self.folder, env=self.env,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not pairs.exists() or len(pairs.read_text().splitlines()) < 31:
                time.sleep(0.1)
            yield pairs.read_text().splitlines(keepends=True)
        finally:
            process.terminate()
            process.wait()

    def check_table(self, table: str) -> int:
        """Compare a table with the latest view, and return its number of rows."""
        self.harvester("latest", "harvest", "--format", "duckdb", "-o", "expected.duckdb")
        with duckdb.connect(self.folder / "lake.duckdb") as lake:
            lake.execute(f"ATTACH '{self.folder}/expected.duckdb' AS expected")
            columns = "workspace, campaign_id, send_id, date, level, channel, variation_name, sent, batch_id"
            for one, other in ((table, "expected.latest"), ("expected.latest", table)):
                missing = lake.sql(f"SELECT {columns} FROM {one} EXCEPT ALL SELECT {columns} FROM {other}").fetchall()
                assert not missing, missing[:3]
            return int(lake.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def run_orchestrator(work: Work, *command: str) -> str:
    """Run a capture, a capture with an unreadable line, a refused key and a storage that fails."""
    with work.stand_in() as lines:
        results = []
        for sends in (lines[:11], [*lines[:21], ",,,\n"]):
            (work.folder / "sends.csv").write_text("".join(sends))
            code, text = work.run(*command)
            assert code == 0, text[-3000:]
            results.append(work.check_table("send_analytics_latest"))
        assert work.count_runs() == 2
        (work.folder / "sends.csv").write_text("".join(lines))
        code, text = work.run(*command)
        work.env["BRAZE_API_KEY"] = "wrong-key"
        assert code == 0, text[-3000:]
        work.count_runs()
        (work.folder / "sends.csv").write_text("campaign_id,send_id\n6f2c,never-captured\n")
        assert work.run(*command)[0] != 0, "a refused key was no failure"
        refused = work.count_runs()
        work.env["BRAZE_API_KEY"] = "demo-key"
        (work.folder / "storage_fails").touch()
        assert work.run(*command)[0] != 0, "a failing storage was no failure"
        storage = work.count_runs()
    assert refused == 1, f"a refused key was tried {refused} times"
    assert storage == 4, f"a failing storage was tried {storage} times"
    return (
        f"loaded {results[0]}, then {results[1]} rows, equal to `latest`; exit code 3 continues, 4 fails at once, "
        "5 is tried 4 times"
    )


def run_airflow(work: Work) -> str:
    """Run the DAG with ``airflow dags test``."""
    dags = work.folder / "dags"
    dags.mkdir()
    shutil.copy(EXAMPLES / "airflow_dag.py", dags)
    work.env["AIRFLOW__CORE__DAGS_FOLDER"] = str(dags)
    for command in (("db", "migrate"), ("dags", "reserialize")):
        code, text = work.run("airflow", *command)
        assert code == 0, text[-3000:]
    return run_orchestrator(work, "airflow", "dags", "test", "braze_send_analytics")


def run_dagster(work: Work) -> str:
    """Materialize the assets."""
    (work.folder / "dagster").mkdir()
    return run_orchestrator(
        work, "dagster", "asset", "materialize", "--select", "*", "-f", str(EXAMPLES / "dagster_assets.py")
    )


def run_prefect(work: Work) -> str:
    """Run the flow in a process."""
    return run_orchestrator(work, "python", str(EXAMPLES / "prefect_flow.py"))


def run_dbt(work: Work) -> str:
    """Load three readings, one by one; build and test the models after each, and check the freshness."""
    project = ("--project-dir", str(work.folder / "dbt"), "--profiles-dir", str(work.folder / "dbt"))
    shutil.copytree(EXAMPLES / "dbt", work.folder / "dbt")
    parts = write_readings(work.folder / "all", first_at=time.time() - 2 * 86_400 - 3_600)
    results = []
    for number, part in enumerate(parts):
        stored = work.folder / "harvest" / part.relative_to(work.folder / "all")
        stored.parent.mkdir(parents=True)
        shutil.copy(part, stored)
        with duckdb.connect(work.folder / "lake.duckdb") as lake:
            if number == 0:
                lake.execute((work.folder / "table.sql").read_text())
            lake.execute(f"COPY send_analytics FROM '{part}' (FORMAT json)")
        code, text = work.run("dbt", "build", *project)
        assert code == 0, text[-3000:]
        results.append(work.check_table("latest_send_analytics"))
    code, text = work.run("dbt", "source", "freshness", *project)
    assert code == 0, text[-3000:]
    rows = ", ".join(map(str, results))
    return f"built and tested after each of three readings ({rows} rows, equal to `latest`); the source is fresh"


def main() -> int:
    """Run the examples; returns 1 if one of them failed."""
    runners = {"airflow": run_airflow, "dagster": run_dagster, "prefect": run_prefect, "dbt": run_dbt}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=f"one of {', '.join(runners)}")
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir()) / "harvester-orchestrators")
    arguments = parser.parse_args()
    lines, failed = [], False
    for tool in arguments.tools or runners:
        with tempfile.TemporaryDirectory() as folder:
            work = Work(Path(folder), tool, arguments.environments)
            packages = [name.partition("<")[0] for name in PACKAGES[tool] if name != "duckdb"]
            code = f"from importlib.metadata import version; print(*map(version, {packages}))"
            versions = work.run("python", "-c", code)[1].split()
            named = ", ".join(f"{name} {number}" for name, number in zip(packages, versions, strict=True))
            try:
                lines.append(f"| {named} | {runners[tool](work)} |")
                print(lines[-1], flush=True)
            except AssertionError as error:
                failed = True
                print(f"{named}: {error}", flush=True)
    if not failed and not arguments.tools:
        before = PAGE.read_text().partition(HEADING)[0]
        run = f"`python -m benchmarks.orchestration`, against the stand-in API. Last run: {datetime.now(UTC):%Y-%m-%d}."
        PAGE.write_text(f"{before}{HEADING}\n{run}\n\n| with | result |\n| --- | --- |\n" + "\n".join(lines) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
