"""The permissions and the query in docs/buckets.md work as documented."""

import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError

from harvester.errors import PartConflict, SinkError
from harvester.model import DATASET
from harvester.simulator import Simulator, SimulatorConfig
from harvester.storage.bucket import BucketSink
from harvester.storage.marker import MARKER
from harvester.storage.object_store import ObjectStore
from tests.conftest import KEY
from tests.support.buckets import BucketRun, make_part, read_rows
from tests.support.object_stores import ACCESS_KEY, SECRET_KEY
from tests.support.object_stores.httpfs import find_httpfs

HERE = Path(__file__).parent.parent.parent

QUERY = """
import json, pathlib, sys
import duckdb, duckdb_extension_httpfs
(extension,) = pathlib.Path(duckdb_extension_httpfs.__path__[0]).rglob("httpfs.duckdb_extension")
duckdb.execute(f"LOAD '{extension}'")
print(json.dumps(duckdb.sql(sys.stdin.read()).fetchall()))
"""


def get_block(page: str, language: str, holding: str) -> str:
    """Return the block of a page that a user would paste."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (HERE / page).read_text(), re.DOTALL)
    (block,) = [each for each in blocks if holding in each]
    return block


@pytest.mark.parametrize("name", ["radosgw", "azurite"])
async def test_the_documented_permissions_are_sufficient_and_minimal(stores, monkeypatch, name):
    """With the documented permissions a user can capture repeatedly, but cannot delete, or list elsewhere."""
    bucket = stores(name)
    rights = get_block("docs/buckets.md", "json", "s3:PutObject") if name == "radosgw" else "rcl"
    for variable in bucket.env:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in bucket.env_with_rights(rights).items():
        monkeypatch.setenv(variable, value)
    store = ObjectStore(f"{bucket.url}/braze")
    sink = BucketSink(store)
    assert await sink.attach("ledger") == await sink.attach("ledger")
    for _ in range(2):
        await sink.create(make_part(b"rows"))
    with pytest.raises(PartConflict):
        await sink.create(make_part(b"other rows"))
    assert list(store.list_names()) == [MARKER, f"{DATASET}/batch"]
    with pytest.raises((BaseError, PermissionError)):
        obstore.delete(store._client, f"{store._prefix}{DATASET}/batch")
    assert await store.read(f"{DATASET}/batch") == b"rows"
    if name == "radosgw":
        with pytest.raises(SinkError, match="no permission"):
            await BucketSink(ObjectStore(f"{bucket.url}/brazen")).attach("ledger")


@pytest.mark.xdist_group("radosgw")
async def test_duckdb_reads_the_bucket_with_the_documented_query(stores, tmp_path, monkeypatch):
    """With the user's own bucket and secret, the query returns the captured numbers."""
    folder, bucket = find_httpfs(), stores("radosgw")
    async with Simulator(SimulatorConfig(pairs=5, limit=10_000_000, api_key=KEY)) as simulator:
        run = BucketRun(tmp_path / "run", bucket, bucket.port, simulator, tmp_path / "log")
        code, _, err = await run.command.run(*run.arguments)
        assert code == 0, err
    secret = (
        f"(TYPE s3, KEY_ID '{ACCESS_KEY}', SECRET '{SECRET_KEY}', REGION 'us-east-1', URL_STYLE 'path', "
        f"USE_SSL false, ENDPOINT '127.0.0.1:{bucket.port}')"
    )
    query = get_block("docs/buckets.md", "sql", "s3://lake/braze").replace("s3://lake/braze", run.url)
    query = re.sub(r"CREATE SECRET \(.*?\)", f"CREATE SECRET {secret}", query).replace(
        "INSTALL httpfs; LOAD httpfs;", ""
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", QUERY],
        input=query,
        text=True,
        capture_output=True,
        check=False,
        env={"PYTHONPATH": str(folder), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    sent = Counter()
    for row in read_rows(await run.read_parts(monkeypatch)):
        if row["level"] == "variation":
            sent[row["channel"]] += row.get("sent", 0)
    assert {channel: total for channel, *_, total in json.loads(done.stdout)} == dict(sent)
