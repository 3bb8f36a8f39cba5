"""Redis Streams, through a consumer group. The only door to redis-py.

Redis has no dead letters, so they go to a stream of our own, and an entry that was acknowledged is deleted unless
other groups read the stream too. What a consumer that died had taken is claimed by whoever finds it.

Redis hands out entries of any size, so no answer is read beyond ``PREFETCH_BYTES``: the connection is given up there,
and the entries, which are ours by then, are fetched one by one. What is too large alone is never fetched; the server
copies it to the dead letters, or where it may not, only its id goes there and the entry stays where it is.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from redis._parsers.resp2 import _AsyncRESP2Parser
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from harvester.sources.brokers.broker import BATCH_MESSAGES, CLOSED, PREFETCH_BYTES, WAIT_SECONDS, Delivery, trouble
from harvester.sources.message import MAX_MESSAGE_BYTES

_TIMEOUT_SECONDS = 10.0
_BODY = b"body"
_ELEMENT_BYTES = 64
_COPY = """
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if found then
  local fields = found[2]
  fields[#fields + 1] = 'reason'
  fields[#fields + 1] = ARGV[2]
  redis.call('XADD', KEYS[2], '*', unpack(fields))
end
"""
"""The script by which the server copies an entry that is too large to be fetched."""


class _TooLarge(RedisError):  # noqa: N818 - it never leaves this file
    """An answer is larger than what is read of one."""


class _BoundedParser(_AsyncRESP2Parser):
    """Reads answers up to a size. After a larger one, its connection cannot be used any more."""

    _left = PREFETCH_BYTES

    async def read_response(self, disable_decoding: bool = False) -> Any:  # noqa: FBT001, FBT002 - as it is called
        self._left = PREFETCH_BYTES
        return await super().read_response(disable_decoding)

    async def _read(self, length: int) -> bytes:
        self._left -= length + _ELEMENT_BYTES
        if self._left < 0:
            raise _TooLarge(f"an answer has more than {PREFETCH_BYTES} bytes")
        return await super()._read(length)


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
        self._count = 1
        self._waiting: list[bytes] = []
        self._kept: set[bytes] = set()
        self._asked = ""

    async def open(self) -> list[str]:
        """Connect, make the group where it is missing, from the stream's beginning, and look at the server."""
        self._asked = self._url()
        self._waiting = []
        with self._translated():
            self._redis = Redis.from_url(
                self._asked, socket_connect_timeout=_TIMEOUT_SECONDS,
                socket_timeout=_TIMEOUT_SECONDS + self._wait_seconds, retry=Retry(NoBackoff(), 0),
                protocol=2, parser_class=_BoundedParser,
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
            entries, self._waiting = self._waiting, []
            entries = entries or await self._redis.xautoclaim(
                self._stream, self._group, self._name, lease, count=BATCH_MESSAGES, justid=True
            )
            if not entries:
                try:
                    return await self._read_new()
                except _TooLarge:  # what was read is ours by now
                    self._count = 1
                    entries = list(await self._times("-", "+"))
            return await self._fetch(entries)

    async def _read_new(self) -> Sequence[Delivery]:
        """Read new entries, at first one, then more as long as they are small."""
        read = await self._redis.xreadgroup(
            self._group, self._name, {self._stream: ">"}, count=self._count, block=int(self._wait_seconds * 1000)
        )
        self._count = min(BATCH_MESSAGES, 2 * self._count)
        return [_delivery(entry, fields, 1) for _, entries in read or () for entry, fields in entries]

    async def _fetch(self, entries: Sequence[bytes]) -> Sequence[Delivery]:
        """Fetch entries that are ours one by one, which counts as a delivery, until they weigh what a batch may."""
        times = await self._times(entries[0], entries[-1]) if entries else {}
        found: list[Delivery] = []
        held_bytes = 0
        for at, entry in enumerate(entries):
            if held_bytes > MAX_MESSAGE_BYTES:
                self._waiting = list(entries[at:])
                break
            try:
                claimed = await self._redis.xclaim(self._stream, self._group, self._name, 0, [entry])
            except _TooLarge:
                flaw = (
                    f"has more than {PREFETCH_BYTES} bytes; at most {MAX_MESSAGE_BYTES} are read; "
                    "put longer lists into a file"
                )
                found.append(Delivery(b"", 1, (entry, None), flaw))
                continue
            for each, fields in claimed:
                found.append(_delivery(each, fields, times.get(entry, 0) + 1))
                held_bytes += sum(map(len, fields.values()))
        return found

    async def _times(self, first: bytes | str, last: bytes | str) -> Mapping[bytes, int]:
        pending = await self._redis.xpending_range(
            self._stream, self._group, first, last, 10 * BATCH_MESSAGES, consumername=self._name
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
        entry, fields = delivery.handle
        with self._translated():
            if fields is None and await self._copied(entry, reason):
                return
            fields = {b"entry": entry} if fields is None else fields
            await self._redis.xadd(self._dead_letter, fields | {_BODY: body, b"reason": reason.encode()})

    async def _copied(self, entry: bytes, reason: str) -> bool:
        """Have the server copy an entry that is too large to fetch, once; returns whether it did."""
        if entry in self._kept:
            return False
        self._kept.add(entry)
        with contextlib.suppress(ResponseError):
            await self._redis.eval(_COPY, 2, self._stream, self._dead_letter, entry, reason)
            self._kept.discard(entry)
        return entry not in self._kept

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge, and delete what nobody else reads, in one transaction."""
        entries = _entries(deliveries)
        with self._translated():
            async with self._redis.pipeline(transaction=True) as both:
                both.xack(self._stream, self._group, *entries)
                gone = [entry for entry in entries if entry not in self._kept]
                if self._alone and gone:
                    both.xdel(self._stream, *gone)
                await both.execute()
        self._kept -= set(entries)

    async def close(self) -> None:
        """Let go of the connection, and of our name in the group unless entries wait below it."""
        client, self._redis = self._redis, None
        if client is None:
            return
        with contextlib.suppress(Exception):  # the connection is closed in any case
            ours = [
                each
                for each in await client.xinfo_consumers(self._stream, self._group)
                if each["name"] == self._name.encode()
            ]
            if ours and not ours[0]["pending"]:
                await client.xgroup_delconsumer(self._stream, self._group, self._name)
        with contextlib.suppress(Exception):  # likewise
            await client.aclose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, RedisError, OSError, TypeError, ValueError, CLOSED) as error:
            raise trouble(f"Redis, stream {self._stream}", error, url=self._asked) from None


def _delivery(entry: bytes, fields: Mapping[bytes, bytes], times: int) -> Delivery:
    flaw = "" if _BODY in fields else "the entry has no field named body, in which the JSON should be"
    return Delivery(fields.get(_BODY, b""), times, (entry, dict(fields)), flaw)


def _entries(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [each.handle[0] for each in deliveries]
