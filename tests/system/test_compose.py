"""``config/compose.yaml`` without containers: its services as processes, with its files, commands and variables."""

import asyncio
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.brokers import RabbitMQ
from tests.support.secret_canary import RecordedProcess
from tests.support.servers import answers, free_port, running

CONFIG = Path(__file__).parent.parent.parent / "config"
COMPOSE = yaml.safe_load((CONFIG / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


class Rehearsal:
    """The compose file's world below one folder: what it mounts is copied there, and hosts become ports."""

    def __init__(self, folder: Path) -> None:
        """Copy all files, with the names that mean something inside a container put right."""
        self.folder = folder
        self.broker, self.store, self.stand_in, self.face = (free_port() for _ in range(4))
        for path in (CONFIG / "compose").iterdir():
            (folder / path.name).write_text(self.here(path.read_text()))

    def here(self, text: str) -> str:
        """Put names right."""
        for there, here in {
            "/run/secrets": str(self.folder),
            "/etc/rabbitmq/definitions.json": str(self.folder / "definitions.json"),
            "/etc/harvester.toml": str(self.folder / "harvester.toml"),
            "/data/pairs.csv": str(self.folder / "pairs.csv"),
            "store:9000": f"127.0.0.1:{self.store}",
            "127.0.0.1:8765": f"127.0.0.1:{self.stand_in}",
            "@queue": f"@127.0.0.1:{self.broker}",
        }.items():
            text = text.replace(there, here)
        return text

    def start(self, service: str, *more: str, **options) -> subprocess.Popen:
        """Begin a service that runs our image: its entry point, command and variables, and nothing else."""
        said = SERVICES[service]
        command = said.get("command", [])
        command = shlex.split(command) if isinstance(command, str) else command
        if "entrypoint" in said:
            command = [sys.executable, str(self.folder / Path(said["entrypoint"][1]).name)]
        else:
            command = [sys.executable, "-m", "harvester", *map(self.here, command), *more]
        variables = {name: self.here(value) for name, value in said.get("environment", {}).items()}
        env = {"PATH": "/usr/bin:/bin", "HARVESTER_WEB_PORT": str(self.face)} | variables
        return RecordedProcess(
            command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
        )

    async def run(self, service: str, *more: str) -> str:
        """Run a service that ends, and give what it said."""
        process = self.start(service, *more)
        said = (await asyncio.to_thread(process.communicate))[0].decode()
        assert process.returncode == 0, said
        return said


def test_every_file_that_is_named_is_there_and_none_more():
    """A file that is renamed takes its place in the compose file along."""
    mounted = [volume.partition(":")[0] for each in SERVICES.values() for volume in each.get("volumes", [])]
    named = {name for name in mounted if name.startswith("./")} | {
        "./" + each["file"] for each in COMPOSE["secrets"].values()
    }
    assert named == {"./compose/" + path.name for path in (CONFIG / "compose").iterdir()}
    assert all(set(each.get("secrets", [])) <= set(COMPOSE["secrets"]) for each in SERVICES.values())


@pytest.mark.xdist_group("rabbitmq")
async def test_the_whole_thing_takes_every_send_from_the_queue_to_the_bucket(tmp_path):
    """Queues as defined, a bucket, messages sent: every send is captured, and the bad message set aside."""
    world = Rehearsal(tmp_path)
    with running(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(world.store)):
        broker = RabbitMQ(tmp_path / "queue", RABBITMQ_CONFIG_FILE=str(tmp_path / "rabbitmq"),
                          RABBITMQ_NODE_PORT=str(world.broker))  # fmt: skip
        stand_in = world.start("stand-in", "--port", str(world.stand_in), "--pairs", "40", "--fault-rate", "0")
        try:
            answers(world.store)
            for _ in range(2):  # whoever starts it again finds the bucket as it was
                await world.run("bucket")
            broker.server.port, broker.url = world.broker, (tmp_path / "rabbitmq_url").read_text().strip()
            await broker.server.listens()
            while not (tmp_path / "pairs.csv").exists():
                await asyncio.sleep(0.1)
            assert "sent 40 sends in 1 messages" in await world.run("sender")
            said = await world.run("harvester", "--until-idle")
            [(letter, reason)] = await broker.dead("sends")
            left = await broker.left("sends")
        finally:
            stand_in.terminate()
            await asyncio.to_thread(stand_in.communicate)
            broker.close()
    assert left == 0
    assert (b"misspelt" in letter, "campaign" in reason) == (True, True)
    assert '"event":"batch_sealed"' in said
    assert "trigger_unsafe" not in said
