"""``harvester serve`` as the program under test: pairs come in messages, and the broker is killed too."""

import asyncio
import contextlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.torture.chaos import LIST_PAIRS, Torture
from benchmarks.torture.check_output import CheckFailed, Pair, check_secrets
from benchmarks.torture.storage_targets import BucketPlace, FolderPlace
from tests.support.brokers import BrokerServer, create_queue_name

AGES_SECONDS = (1.5, 4.0, 8.0)
SETTLE_SECONDS = 180.0


class ServiceTarget(Torture):
    """Runs one service after the other on the same queue. Readings are due at ages of seconds."""

    jumps = (0.0, 0.0, 0.0, 3.0, -3.0, -3600.0, 3 * 86_400.0, -3 * 86_400.0, 20 * 86_400.0)
    last_reading = "final"
    patience_seconds = 1.0

    def __init__(
        self, disk: Path, place: FolderPlace | BucketPlace, broker_server: BrokerServer, *, seed: int, kills: int
    ) -> None:
        """Send messages to a queue on ``broker_server``."""
        super().__init__(disk, place, seed=seed, kills=kills)
        self.broker_server, self.queue = broker_server, create_queue_name()
        self.sent_at: dict[Pair, float | None] = {}
        (disk / "broker.key").write_text(broker_server.url)

    async def set_up(self) -> None:
        """Create the queue, and the configuration of the service."""
        await self.broker_server.server.wait_until_ready()
        await self.broker_server.create_queue(self.queue)
        self.write_configuration()

    def write_configuration(self) -> None:
        """Write the configuration of the service, which a running service reloads."""
        options = self.broker_server.options(self.queue)
        names = {name: value for name, value in options.items() if isinstance(value, str)}
        lines = [
            f'out = "{self.place.out}"',
            "web_port = 0",
            *self.workspace_tables([seconds / 86_400 for seconds in AGES_SECONDS]),
            "[triggers.sends]",
            f'kind = "{self.broker_server.kind}"',
            'url_file = "broker.key"',
            *(f'{name} = "{value}"' for name, value in names.items()),
        ]
        written = self.disk / "harvester.toml.new"
        with contextlib.suppress(OSError):  # the disk may be full
            written.write_text("\n".join(lines))
            written.replace(self.disk / "harvester.toml")

    def workspace_tables(self, ages: list[float]) -> list[str]:
        """Return the lines that configure the workspaces; ``ages`` are those of their readings, in days."""
        endpoint = f"http://127.0.0.1:{self.port}"
        return ["[workspaces.eu]", f'endpoint = "{endpoint}"', 'api_key_file = "valid.key"', f"ages_days = {ages}"]

    def arguments(self) -> list[str]:
        """Return the command of the service; at times with ``--until-idle``."""
        idle = ["--until-idle"] if self.rng.random() < 0.15 else []
        return ["serve", "--config", "harvester.toml", "--concurrency", str(self.rng.choice([2, 8, 64])), *idle]

    async def enqueue_pairs(self) -> None:
        """Send messages of some new pairs."""
        pairs = self.new_pairs(self.rng.randrange(1, LIST_PAIRS))
        await self.broker_server.send(self.queue, *self.create_messages(pairs))

    def choose_time(self) -> float | None:
        """Return the time of a new send: mostly now; for some it is unknown."""
        return time.time() if self.rng.random() < 0.8 else None

    def create_messages(self, pairs: list[Pair]) -> list[bytes]:
        """Return messages of new pairs; some pairs, also older ones, and some messages are repeated."""
        self.sent_at |= {pair: self.choose_time() for pair in pairs}
        self.enqueued_pairs |= set(pairs)
        pairs += self.rng.choices(sorted(self.sent_at), k=len(pairs) // 2)
        self.rng.shuffle(pairs)
        bodies = []
        while pairs:
            size = self.rng.randrange(1, 12)
            bodies.append(self._message(pairs[:size]))
            pairs = pairs[size:]
        bodies += self.rng.choices(bodies, k=len(bodies) // 3)
        self.counts["messages"] += len(bodies)
        return bodies

    def _message(self, pairs: list[Pair]) -> bytes:
        named = [self.describe_pair(pair) for pair in pairs]
        return json.dumps({"version": 1} | (named[0] if len(named) == 1 else {"pairs": named})).encode()

    def describe_pair(self, pair: Pair) -> dict[str, str]:
        """Return a pair as a message contains it."""
        at = self.sent_at[pair]
        sent = {} if at is None else {"sent_at": datetime.fromtimestamp(at, UTC).isoformat()}
        return {"campaign_id": pair[0], "send_id": pair[1]} | sent

    def is_expected(self, reason: str) -> bool:
        """Return whether the test allows a dead letter with this reason. By default, it allows none."""
        return not reason

    async def inject_target_fault(self) -> None:
        """Kill the broker, and restart it."""
        self.counts["brokers killed"] += 1
        self.broker_server.interrupt()
        await asyncio.sleep(self.rng.uniform(0, 1.0))
        await self.broker_server.restore()

    async def settle_all(self) -> None:
        """Serve until the queue is empty and nothing is pending; a SIGTERM must then end it with 0."""
        process = self.start("serve", "--config", "harvester.toml", right_clock=True)
        until = time.monotonic() + SETTLE_SECONDS
        while (left := await self.broker_server.count_messages(self.queue)) or self.read_books()["pending"]:
            if time.monotonic() > until or not process.is_alive():
                raise CheckFailed(
                    f"pairs are not settled: {left} messages left, books {self.read_books()}, "
                    f"exit code {process.exitcode}"
                )
            await asyncio.sleep(0.5)
        process.terminate()
        await self.wait_for_end(process, timeout_seconds=30.0)
        if process.exitcode != 0:
            raise CheckFailed(f"an idle service ended with {process.exitcode}")
        dead = await self.broker_server.list_dead_letters(self.queue)
        if unexpected := [letter for letter in dead if not self.is_expected(letter[1])]:
            raise CheckFailed(f"dead letters: {unexpected[:3]}")
        for folder in (self.disk, self.output):
            check_secrets([self.broker_server.url], folder)
