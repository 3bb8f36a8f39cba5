"""Redis Streams, through a consumer group. The only door to redis-py.

Redis has no dead letters, so they go to a stream of our own, and an entry that was acknowledged is deleted unless
other groups read the stream too. What a consumer that died had taken is claimed by whoever finds it.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from harvester.sources.brokers.broker import BATCH_MESSAGES, CLOSED, WAIT_SECONDS, Delivery, trouble

_TIMEOUT_SECONDS = 10.0
_BODY = b"body"


class Queue:
    """One stream and group, both made where missing; ``dead_letter`` is a stream, by default with ``.dead`` behind."""

    def __init__(
        self, *, url: Callable[[], str], stream: str, group: str, dead_letter: str | None,
        wait_seconds: float = WAIT_SECONDS, lease_seconds: float = 60.0,
    ) -> None:  # fmt: skip
        """Take where the stream is; ``url`` is asked at every connection."""
        self.lease_seconds = lease_seconds
        self._url = url
        self._stream = stream
        self._group = group
        self._dead_letter = dead_letter or f"{stream}.dead"
        self._wait_seconds = wait_seconds
        self._name = f"harvester-{secrets.token_hex(8)}"
        self._redis: Any = None
        self._alone = True
        self._asked = ""

    async def open(self) -> list[str]:
        """Connect, make the group where it is missing, from the stream's beginning, and look at the server."""
        self._asked = self._url()
        with self._translated():
            self._redis = Redis.from_url(
                self._asked, socket_connect_timeout=_TIMEOUT_SECONDS,
                socket_timeout=_TIMEOUT_SECONDS + self._wait_seconds, retry=Retry(NoBackoff(), 0),
            )  # fmt: skip
            try:
                await self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            self._alone = len(await self._redis.xinfo_groups(self._stream)) == 1
            return await self._warnings()

    async def _warnings(self) -> list[str]:
        warnings = []
        if not self._alone:
            warnings.append(f"other groups read Redis stream {self._stream}: its entries are kept, so trim it yourself")
        if await self._redis.ttl(self._stream) >= 0:
            warnings.append(f"Redis stream {self._stream} expires: PERSIST it")
        try:
            server = await self._redis.info()
        except ResponseError:
            return [*warnings, "Redis does not allow INFO, so whether it forgets anything is unknown"]
        if not server.get("aof_enabled"):
            warnings.append("Redis forgets messages when it is killed: set appendonly yes")
        if str(server.get("maxmemory_policy", "noeviction")).startswith("allkeys"):
            warnings.append("Redis drops streams when its memory is full: set maxmemory-policy noeviction")
        return warnings

    async def receive(self) -> Sequence[Delivery]:
        """Claim what others took and left, else read what is new."""
        with self._translated():
            lease = int(self.lease_seconds * 1000)
            _, claimed, _ = await self._redis.xautoclaim(
                self._stream, self._group, self._name, lease, count=BATCH_MESSAGES
            )
            if claimed:
                times = await self._times([entry for entry, _ in claimed])
                return [_delivery(entry, fields, times.get(entry, 1)) for entry, fields in claimed]
            read = await self._redis.xreadgroup(
                self._group, self._name, {self._stream: ">"}, count=BATCH_MESSAGES, block=int(self._wait_seconds * 1000)
            )
        return [_delivery(entry, fields, 1) for _, entries in read or () for entry, fields in entries]

    async def _times(self, entries: Sequence[bytes]) -> Mapping[bytes, int]:
        pending = await self._redis.xpending_range(
            self._stream, self._group, entries[0], entries[-1], 10 * BATCH_MESSAGES, consumername=self._name
        )
        return {each["message_id"]: each["times_delivered"] for each in pending}

    async def empty(self) -> bool:
        """Ask what was delivered and not acknowledged; that nothing is new is known from the wait."""
        with self._translated():
            pending = await self._redis.xpending(self._stream, self._group)
        return not pending["pending"]

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Claim anew, which starts their idle time again and counts no delivery."""
        with self._translated():
            await self._redis.xclaim(self._stream, self._group, self._name, 0, _entries(deliveries), justid=True)

    async def bury(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Add to the dead-letter stream, with what other fields the entry had."""
        with self._translated():
            await self._redis.xadd(self._dead_letter, delivery.handle[1] | {_BODY: body, b"reason": reason.encode()})

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge, and delete what nobody else reads, in one transaction."""
        entries = _entries(deliveries)
        with self._translated():
            async with self._redis.pipeline(transaction=True) as both:
                both.xack(self._stream, self._group, *entries)
                if self._alone:
                    both.xdel(self._stream, *entries)
                await both.execute()

    async def close(self) -> None:
        """Let go of the connection, and of our name in the group unless entries wait below it."""
        client, self._redis = self._redis, None
        if client is None:
            return
        with contextlib.suppress(RedisError, OSError, asyncio.TimeoutError, CLOSED):
            ours = [
                each
                for each in await client.xinfo_consumers(self._stream, self._group)
                if each["name"] == self._name.encode()
            ]
            if ours and not ours[0]["pending"]:
                await client.xgroup_delconsumer(self._stream, self._group, self._name)
        with contextlib.suppress(RedisError, OSError, asyncio.TimeoutError, CLOSED):
            await client.aclose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, RedisError, OSError, ValueError, CLOSED) as error:
            raise trouble(f"Redis, stream {self._stream}", error, url=self._asked) from None


def _delivery(entry: bytes, fields: Mapping[bytes, bytes], times: int) -> Delivery:
    flaw = "" if _BODY in fields else "the entry has no field named body, in which the JSON should be"
    return Delivery(fields.get(_BODY, b""), times, (entry, dict(fields)), flaw)


def _entries(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [each.handle[0] for each in deliveries]
