"""``harvester serve`` under torture: pairs by message, readings at ages of seconds, and a broker that is killed too."""

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.torture.chaos import LIST_PAIRS, Torture
from benchmarks.torture.check_output import Pair, Wrong, secret_found
from benchmarks.torture.storage_targets import Folder, Lake
from tests.support.brokers import BrokerServer, queue_name

AGES_SECONDS = (1.5, 4.0, 8.0)
REST_SECONDS = 180.0


class OfService(Torture):
    """A service with one queue."""

    jumps = (0.0, 0.0, 0.0, 3.0, -3.0, -3600.0, 3 * 86_400.0, -3 * 86_400.0, 20 * 86_400.0)
    last_reading = "final"
    patience_seconds = 1.0

    def __init__(self, disk: Path, place: Folder | Lake, broker_server: BrokerServer, *, seed: int, kills: int) -> None:
        """Send messages to a queue on ``broker_server``."""
        super().__init__(disk, place, seed=seed, kills=kills)
        self.broker_server, self.queue = broker_server, queue_name()
        self._known: dict[Pair, float | None] = {}
        (disk / "broker.key").write_text(broker_server.url)

    async def set_up(self) -> None:
        """Make the queue, and settings that lead to it."""
        await self.broker_server.server.wait_until_ready()
        await self.broker_server.create_queue(self.queue)
        names = {
            name: value for name, value in self.broker_server.options(self.queue).items() if isinstance(value, str)
        }
        ages = [seconds / 86_400 for seconds in AGES_SECONDS]
        (self.disk / "harvester.toml").write_text(
            "\n".join(
                [
                    f'out = "{self.place.out}"',
                    "web_port = 0",
                    "[workspaces.eu]",
                    f'endpoint = "http://127.0.0.1:{self.port}"',
                    'api_key_file = "valid.key"',
                    f"ages_days = {ages}",
                    "[triggers.sends]",
                    f'kind = "{self.broker_server.kind}"',
                    'url_file = "broker.key"',
                    *(f'{name} = "{value}"' for name, value in names.items()),
                ]
            )
        )

    def arguments(self) -> list[str]:
        """Serve; now and then only until nothing is due."""
        idle = ["--until-idle"] if self.draw.random() < 0.15 else []
        return ["serve", "--config", "harvester.toml", "--concurrency", str(self.draw.choice([2, 8, 64])), *idle]

    async def hand_in(self) -> None:
        """Send messages of some pairs each, some with their times; and some pairs, and some messages, again."""
        pairs = self.new_pairs(self.draw.randrange(1, LIST_PAIRS))
        self._known |= {pair: time.time() if self.draw.random() < 0.8 else None for pair in pairs}
        self.enqueued_pairs |= set(pairs)
        pairs += self.draw.choices(sorted(self._known), k=len(pairs) // 2)
        self.draw.shuffle(pairs)
        bodies = []
        while pairs:
            size = self.draw.randrange(1, 12)
            bodies.append(self._message(pairs[:size]))
            pairs = pairs[size:]
        bodies += self.draw.choices(bodies, k=len(bodies) // 3)
        self.done["messages"] += len(bodies)
        await self.broker_server.send(self.queue, *bodies)

    def _message(self, pairs: list[Pair]) -> bytes:
        named: list[dict[str, str]] = []
        for campaign_id, send_id in pairs:
            at = self._known[campaign_id, send_id]
            sent = {} if at is None else {"sent_at": datetime.fromtimestamp(at, UTC).isoformat()}
            named.append({"campaign_id": campaign_id, "send_id": send_id} | sent)
        return json.dumps({"version": 1} | (named[0] if len(named) == 1 else {"pairs": named})).encode()

    async def meddle_more(self) -> None:
        """Kill the broker, and start it again."""
        self.done["brokers killed"] += 1
        self.broker_server.interrupt()
        await asyncio.sleep(self.draw.uniform(0, 1.0))
        await self.broker_server.restore()

    async def at_rest(self) -> None:
        """Serve until the queue is empty and nothing is pending; then a SIGTERM ends it with 0."""
        process = self.start("serve", "--config", "harvester.toml", right=True)
        until = time.monotonic() + REST_SECONDS
        while (left := await self.broker_server.count_messages(self.queue)) or self.books()["pending"]:
            if time.monotonic() > until or not process.is_alive():
                raise Wrong(f"not at rest: {left} messages left, books {self.books()}, exit code {process.exitcode}")
            await asyncio.sleep(0.5)
        process.terminate()
        await self.ended(process, within=30.0)
        if process.exitcode != 0:
            raise Wrong(f"a service at rest ended with {process.exitcode}")
        if dead := await self.broker_server.list_dead_letters(self.queue):
            raise Wrong(f"dead letters: {dead[:3]}")
        for folder in (self.disk, self.output):
            secret_found([self.broker_server.url], folder)
