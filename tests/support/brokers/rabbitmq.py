"""RabbitMQ for tests."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika

from tests.support.brokers.broker_server import BrokerServer, Server
from tests.support.processes import free_port, require_program

_ERLANG_LIBRARIES = Path("/usr/lib/erlang/lib")
_EXAMPLE = Path(__file__).parent.parent.parent.parent / "config/compose"


def _install_without_plugins(home: Path) -> str:
    """Create an installation of RabbitMQ without plugins, from links, and return its program."""
    installed = Path("/usr/lib/rabbitmq/bin/rabbitmq-server").resolve().parent.parent
    shutil.copytree(installed / "sbin", home / "sbin")  # copied: a script that is a link would find the original home
    (home / "plugins").mkdir()
    for part in (installed / "plugins").iterdir():
        if not part.name.startswith("rabbitmq_") or part.name.startswith("rabbitmq_prelaunch"):
            (home / "plugins" / part.name).symlink_to(part)
    return str(home / "sbin/rabbitmq-server")


def _link_modules(folder: Path, *libraries: Path) -> str:
    """Link all Erlang modules of libraries into one folder, and return the folder.

    Erlang searches each module in the folders of all libraries, one after another. With a single folder that is
    searched first, RabbitMQ starts in half the time.
    """
    folder.mkdir()
    for module in (path for library in libraries for path in library.glob("*/ebin/*.beam")):
        with contextlib.suppress(FileExistsError):
            (folder / module.name).symlink_to(module)
    return str(folder)


class RabbitMQ(BrokerServer):
    """Debian's RabbitMQ with the configuration of config/compose, and its own epmd (Erlang's name server)."""

    kind = "rabbitmq"

    def __init__(self, folder: Path) -> None:
        """Start both."""
        require_program("rabbitmq-server")
        port, epmd_port = free_port(), free_port()
        folder.mkdir(parents=True)
        program = _install_without_plugins(folder / "home")
        modules = _link_modules(folder / "modules", folder / "home/plugins", _ERLANG_LIBRARIES)
        (folder / "plugins").write_text("[].")
        config = (_EXAMPLE / "rabbitmq.conf").read_text().replace("/etc/rabbitmq", str(_EXAMPLE))
        (folder / "rabbitmq.conf").write_text(config)
        env = {
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_NODENAME": f"h{port}@localhost",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "flags"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PLUGINS_DIR": str(folder / "home/plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 1:1 +sbwt none -pa {modules}",
        }
        self._epmd = Server(epmd_port, require_program("epmd"), "-port", str(epmd_port), "-address", "127.0.0.1")
        self.server = Server(port, program, env=env)
        self.url = (_EXAMPLE / "rabbitmq_url").read_text().strip().replace("@queue", f"@127.0.0.1:{port}")

    def options(self, name: str) -> dict[str, Any]:
        """See ``BrokerServer``."""
        return {"url": lambda: self.url, "queue": name, "dead_letter": None}

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
        async with await aio_pika.connect(self.url) as connection, connection.channel() as channel:
            yield channel

    async def create_queue(self, name: str, *, dead_letters: bool = True) -> None:
        """Create a quorum queue with a limit of 20 deliveries, which is the default of RabbitMQ 4."""
        async with self._channel() as channel:
            arguments = {
                "x-queue-type": "quorum",
                "x-delivery-limit": 20,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": f"{name}.dead",
            }
            await channel.declare_queue(name, durable=True, arguments=arguments)
        if dead_letters:
            await self.create_dead_letter_queue(name)

    async def create_dead_letter_queue(self, name: str) -> None:
        """See ``BrokerServer``."""
        async with self._channel() as channel:
            await channel.declare_queue(f"{name}.dead", durable=True, arguments={"x-queue-type": "quorum"})

    async def delete_queue(self, name: str) -> None:
        """See ``BrokerServer``."""
        async with self._channel() as channel:
            await channel.queue_delete(name)

    async def send(self, name: str, *bodies: bytes) -> None:
        """See ``BrokerServer``."""
        async with self._channel() as channel:
            for body in bodies:
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await channel.default_exchange.publish(message, routing_key=name)

    async def send_with_headers(self, name: str, body: bytes, headers: dict[str, Any]) -> None:
        """Send a message with headers."""
        async with self._channel() as channel:
            await channel.default_exchange.publish(aio_pika.Message(body, headers=headers), routing_key=name)

    async def list_dead_letters(self, name: str) -> list[tuple[bytes, str]]:
        """See ``BrokerServer``."""
        found = []
        async with self._channel() as channel:
            queue = await channel.get_queue(f"{name}.dead")
            # A quorum queue that has just recovered may take longer than the default of five seconds to respond.
            while (message := await queue.get(fail=False, timeout=60)) is not None:
                found.append((message.body, message.headers["reason"]))
        return found

    async def count_messages(self, name: str) -> int:
        """Return the number of ready messages. Without a consumer, all messages are ready."""
        async with self._channel() as channel:
            queue = await channel.declare_queue(name, passive=True)
            return queue.declaration_result.message_count

    def close(self) -> None:
        """Stop both."""
        self.server.kill()
        self._epmd.kill()
