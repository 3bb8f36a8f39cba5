"""The loader of docs/loading.md, and the code for each reader that can be installed beside the tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from benchmarks.loading.dataset import write_work_folder
from benchmarks.loading.page import PAGE
from harvester.datasets import write_latest
from harvester.simulator import Simulator, SimulatorConfig
from tests.commands.test_capture import write_pairs
from tests.support.secret_canary import KEY

TOP = Path(__file__).parent.parent.parent
LOADER = PAGE.read_text().split("```python\n")[1].split("```")[0]


def count_sent(folder: Path) -> list[tuple[object, ...]]:
    """Return the sums of the latest view that harvester exports."""
    write_latest(folder / "harvest", folder / "latest.parquet", "parquet", temp_directory=folder)
    with duckdb.connect() as connection:
        return connection.sql(f"SELECT count(*), sum(sent), sum(conversions) FROM '{folder}/latest.parquet'").fetchall()


@pytest.mark.long
async def test_the_loader_of_the_page_loads_new_parts_once(harvester, tmp_path, monkeypatch):
    """After each capture it loads only the new parts, and repeats nothing when it is killed before its bookmark."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    async with Simulator(SimulatorConfig(pairs=6, limit=1_000_000, api_key=KEY)) as simulator:
        harvester.env["BRAZE_ENDPOINT"] = simulator.url
        write_pairs(tmp_path / "all.csv", simulator)
        lines = (tmp_path / "all.csv").read_text().splitlines(keepends=True)
        for statement in ("table", "merge"):
            code, printed, _ = await harvester.run("schema", "--for", "duckdb", "--statement", statement)
            assert code == 0
            (tmp_path / f"{statement}.sql").write_text(printed)
        bookmarks = []
        for count in (3, 6):
            (tmp_path / "sends.csv").write_text("".join(lines[: count + 1]))
            assert (await harvester.run("run", "sends.csv"))[0] == 0
            if bookmarks:
                (tmp_path / "bookmark").write_text("0")
            exec(LOADER, {})
            bookmarks.append((tmp_path / "bookmark").read_text())
            with duckdb.connect("lake.duckdb") as lake:
                loaded = lake.sql("SELECT count(*), sum(sent), sum(conversions) FROM send_analytics_latest").fetchall()
                assert lake.sql("FROM send_analytics").fetchall() == []
            assert loaded == count_sent(tmp_path)
    assert bookmarks[0] < bookmarks[1]
    code, _, problem = await harvester.run("latest", "harvest", "--format", "duckdb", "-o", "lake.duckdb")
    assert (code, "to lake.duckdb" in problem) == (0, True)
    changed = ("latest", "harvest", "--format", "parquet", "-o", "latest", "--partition-by", "date", "--since")
    assert (await harvester.run(*changed, "2026-11-20"))[0] == 0
    assert list((tmp_path / "latest").glob("date=*/latest.parquet"))
    assert (await harvester.run(*changed, "20.11.2026"))[0] == 2
    assert (await harvester.run("latest", "harvest", "-o", "harvest/send_analytics/x"))[0] == 2
    code, printed, _ = await harvester.run("schema", "harvest", "--for", "jsonschema")
    assert (code, json.loads(printed)["properties"]["sent"]) == (0, {"type": ["integer", "null"]})
    code, _, problem = await harvester.run("schema", "--for", "polars", "--statement", "merge")
    assert (code, "needs a database" in problem) == (2, True)


@pytest.mark.long
@pytest.mark.parametrize("reader", ["clickhouse", "polars", "pyarrow"])
def test_the_code_of_a_reader_gives_the_latest_view(reader, tmp_path):
    """The code of docs/loading.md gives the rows of harvester latest, or all rows if it reads only."""
    readers = TOP / ".readers"
    missing = f"{readers.name} is missing: pip install --target {readers.name} chdb polars pyarrow"
    if not readers.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    write_work_folder(tmp_path)
    check = [sys.executable, TOP / "benchmarks" / "loading" / f"check_{reader}.py"]
    environment = {**os.environ, "PYTHONPATH": str(readers)}
    done = subprocess.run(check, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"equal": true' in done.stdout
