"""``config/compose.yaml`` without containers: its services run as processes with its files and variables."""

import asyncio
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import RecordedWarmProcess
from tests.support.brokers.rabbitmq import RabbitMQ
from tests.support.processes import free_port, run_server, wait_until_responding
from tests.support.secret_canary import RecordedProcess

CONFIG = Path(__file__).parent.parent.parent / "config"
COMPOSE = yaml.safe_load((CONFIG / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


class ComposeProcesses:
    """The services of the compose file in one folder, on free ports of this machine."""

    def __init__(self, folder: Path) -> None:
        """Copy the mounted files, and replace the paths and hosts of the containers."""
        self.folder = folder
        self.broker, self.store, self.stand_in, self.web_port = (free_port() for _ in range(4))
        for path in (CONFIG / "compose").iterdir():
            (folder / path.name).write_text(self.localize(path.read_text()))

    def localize(self, text: str) -> str:
        """Replace the paths and hosts of the containers by those of this machine."""
        for container_name, local_name in {
            "/run/secrets": str(self.folder),
            "/etc/rabbitmq/definitions.json": str(self.folder / "definitions.json"),
            "/etc/harvester.toml": str(self.folder / "harvester.toml"),
            "/data/pairs.csv": str(self.folder / "pairs.csv"),
            "store:9000": f"127.0.0.1:{self.store}",
            "127.0.0.1:8765": f"127.0.0.1:{self.stand_in}",
            "@queue": f"@127.0.0.1:{self.broker}",
        }.items():
            text = text.replace(container_name, local_name)
        return text

    def start(self, service: str, *more: str) -> subprocess.Popen | RecordedWarmProcess:
        """Start a service that uses our image, with its own entry point, command and variables only."""
        service_config = SERVICES[service]
        command = service_config.get("command", [])
        command = shlex.split(command) if isinstance(command, str) else command
        variables = {name: self.localize(value) for name, value in service_config.get("environment", {}).items()}
        env = {"PATH": "/usr/bin:/bin", "HARVESTER_WEB_PORT": str(self.web_port)} | variables
        if "entrypoint" not in service_config:
            return RecordedWarmProcess(self.folder, env, *map(self.localize, command), *more)
        command = [sys.executable, str(self.folder / Path(service_config["entrypoint"][1]).name)]
        return RecordedProcess(command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    async def run(self, service: str, *more: str) -> str:
        """Run a service to its end and return its output."""
        process = self.start(service, *more)
        output = b"".join(await asyncio.to_thread(process.communicate)).decode()
        assert process.returncode == 0, output
        return output


def test_the_compose_file_names_exactly_the_files_of_its_folder():
    """Each file of the folder is mounted as a volume or a secret, and services use only declared secrets."""
    mounted = [volume.partition(":")[0] for each in SERVICES.values() for volume in each.get("volumes", [])]
    named = {name for name in mounted if name.startswith("./")} | {
        "./" + each["file"] for each in COMPOSE["secrets"].values()
    }
    assert named == {"./compose/" + path.name for path in (CONFIG / "compose").iterdir()}
    assert all(set(each.get("secrets", [])) <= set(COMPOSE["secrets"]) for each in SERVICES.values())


@pytest.mark.long
async def test_compose_captures_every_send_from_the_queue_into_the_bucket(tmp_path):
    """Every send of the queue is captured into the bucket, and the one invalid message becomes a dead letter."""
    compose = ComposeProcesses(tmp_path)
    # Not on a thread: the emulators of a process share their buckets, and another test may use the same place.
    with run_server(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(compose.store)):
        broker = RabbitMQ(tmp_path / "queue", RABBITMQ_CONFIG_FILE=str(tmp_path / "rabbitmq"),
                          RABBITMQ_NODE_PORT=str(compose.broker))  # fmt: skip
        stand_in = compose.start("stand-in", "--port", str(compose.stand_in), "--pairs", "40", "--fault-rate", "0")
        try:
            wait_until_responding(compose.store)
            for _ in range(2):  # a second start keeps the existing bucket
                await compose.run("bucket")
            broker.server.port, broker.url = compose.broker, (tmp_path / "rabbitmq_url").read_text().strip()
            await broker.server.wait_until_ready()
            while not (tmp_path / "pairs.csv").exists():
                await asyncio.sleep(0.1)
            assert "sent 40 sends in 1 messages" in await compose.run("sender")
            output = await compose.run("harvester", "--until-idle")
            [(letter, reason)] = await broker.list_dead_letters("sends")
            left = await broker.count_messages("sends")
        finally:
            stand_in.terminate()
            await asyncio.to_thread(stand_in.communicate)
            broker.close()
    assert left == 0
    assert (b"misspelt" in letter, "campaign" in reason) == (True, True)
    assert '"event":"batch_sealed"' in output
    assert "trigger_unsafe" not in output
