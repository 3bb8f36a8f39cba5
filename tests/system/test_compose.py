"""``config/compose.yaml`` without containers: its services run as processes with its files and variables."""

import asyncio
import csv
import json
import os
import runpy
import shlex
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tests.conftest import RecordedWarmProcess
from tests.support.processes import free_port

CONFIG = Path(__file__).parent.parent.parent / "config"
COMPOSE = yaml.safe_load((CONFIG / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


class ComposeProcesses:
    """The services of the compose file in one folder, on free ports of this machine."""

    def __init__(self, folder: Path, *, broker: int, store: int, bucket: str, database: str = "") -> None:
        """Copy the mounted files, and replace the paths, hosts and ports of the containers; the bucket is a new one."""
        self.folder, self.broker, self.store, self.bucket, self.database = folder, broker, store, bucket, database
        self.stand_in, self.web_ports = free_port(), {"8080": str(free_port()), "8081": str(free_port())}
        for path in (CONFIG / "compose").iterdir():
            (folder / path.name).write_text(self.localize(path.read_text()))

    def localize(self, text: str) -> str:
        """Replace the paths and hosts of the containers by those of this machine."""
        for container_name, local_name in {
            "/run/secrets": str(self.folder),
            "/etc/harvester.toml": str(self.folder / "harvester.toml"),
            "/data/pairs.csv": str(self.folder / "pairs.csv"),
            "store:9000": f"127.0.0.1:{self.store}",
            "127.0.0.1:8765": f"127.0.0.1:{self.stand_in}",
            "@queue": f"@127.0.0.1:{self.broker}",
            "s3://lake/": f"s3://{self.bucket}/",
            'Bucket="lake"': f'Bucket="{self.bucket}"',
            "postgresql://harvester:rehearsal@database/harvester": self.database,
        }.items():
            text = text.replace(container_name, local_name)
        return text

    def list_variables(self, service: str) -> dict[str, str]:
        """Return the environment variables of a service."""
        return {name: self.localize(value) for name, value in SERVICES[service].get("environment", {}).items()}

    def start(self, service: str, *more: str) -> RecordedWarmProcess:
        """Start ``harvester`` as a service does, with its command and variables only."""
        command = SERVICES[service]["command"]
        command = shlex.split(command) if isinstance(command, str) else command
        env = {"PATH": "/usr/bin:/bin", "HARVESTER_WEB_PORT": "8080"} | self.list_variables(service)
        env["HARVESTER_WEB_PORT"] = self.web_ports[env["HARVESTER_WEB_PORT"]]
        return RecordedWarmProcess(self.folder, env, *map(self.localize, command), *more)

    async def run(self, service: str, *more: str) -> str:
        """Run ``harvester`` as a service does, to its end, and return its output."""
        process = self.start(service, *more)
        output = b"".join(await asyncio.to_thread(process.communicate)).decode()
        assert process.returncode == 0, output
        return output

    async def run_script(self, service: str, monkeypatch) -> None:
        """Run the script of a service in this process, with the variables of the service."""
        script = self.folder / Path(SERVICES[service]["entrypoint"][1]).name
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            for name, value in self.list_variables(service).items():
                patch.setenv(name, value)
            await asyncio.to_thread(runpy.run_path, str(script))


def test_the_compose_file_names_exactly_the_files_of_its_folder():
    """Each file of the folder is mounted as a volume or a secret, and services use only declared secrets."""
    mounted = [volume.partition(":")[0] for each in SERVICES.values() for volume in each.get("volumes", [])]
    named = {name for name in mounted if name.startswith("./")} | {
        "./" + each["file"] for each in COMPOSE["secrets"].values()
    }
    assert named == {"./compose/" + path.name for path in (CONFIG / "compose").iterdir()}
    assert all(set(each.get("secrets", [])) <= set(COMPOSE["secrets"]) for each in SERVICES.values())


@asynccontextmanager
async def send_to_queue(compose, broker, monkeypatch):
    """Start the stand-in API, and send its sends to the queue; check afterwards that all messages are handled."""
    await broker.wait_until_ready()
    earlier = len(await broker.list_dead_letters("sends"))
    stand_in = compose.start("stand-in", "--port", str(compose.stand_in), "--pairs", "40", "--fault-rate", "0")
    try:
        for _ in range(2):  # a second start keeps the existing bucket
            monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
            await compose.run_script("bucket", monkeypatch)
        while not (compose.folder / "pairs.csv").exists():
            await asyncio.sleep(0.1)
        await compose.run_script("sender", monkeypatch)
        yield
    finally:
        stand_in.terminate()
        await asyncio.to_thread(stand_in.communicate)
    [(letter, reason)] = (await broker.list_dead_letters("sends"))[earlier:]
    assert await broker.count_messages("sends") == 0
    assert (b"misspelt" in letter, "campaign" in reason) == (True, True)


@pytest.mark.long
@pytest.mark.xdist_group("rabbitmq")
async def test_compose_captures_every_send_from_the_queue_into_the_bucket(
    tmp_path, broker_servers, stores, monkeypatch, capsys
):
    """Every send of the queue is captured into the bucket, and the one invalid message becomes a dead letter."""
    broker = broker_servers("rabbitmq")
    compose = ComposeProcesses(tmp_path, broker=broker.server.port, store=stores("moto").port, bucket="compose-lake")
    async with send_to_queue(compose, broker, monkeypatch):
        assert "sent 40 sends in 1 messages" in capsys.readouterr().out
        output = await compose.run("harvester", "--until-idle")
    assert '"event":"batch_sealed"' in output
    assert "trigger_unsafe" not in output


@pytest.mark.long
@pytest.mark.xdist_group("rabbitmq")
async def test_the_replicas_of_compose_capture_every_send_once(
    tmp_path, broker_servers, stores, database_url, monkeypatch
):
    """Two replicas share the queue and the ledger in PostgreSQL, and no send is captured by both."""
    broker = broker_servers("rabbitmq")
    compose = ComposeProcesses(
        tmp_path, broker=broker.server.port, store=stores("moto").port, bucket="fleet-lake", database=database_url.url
    )
    assert [name for name, each in SERVICES.items() if "fleet" in each.get("profiles", [])] == [
        "replica-1", "replica-2", "database",
    ]  # fmt: skip
    async with send_to_queue(compose, broker, monkeypatch):
        outputs = await asyncio.gather(*(compose.run(f"replica-{each}", "--until-idle") for each in (1, 2)))
    events = [json.loads(line) for output in outputs for line in output.splitlines() if line.startswith("{")]
    sent_before = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    due = [
        each
        for each in csv.DictReader((tmp_path / "pairs.csv").read_text().splitlines())
        if each["sent_at"] < sent_before
    ]
    assert sum(each["captures"] for each in events if each["event"] == "batch_sealed") == len(due) > 30
