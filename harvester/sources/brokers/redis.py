"""Redis Streams, through a consumer group. The only module, with ``redis_replies``, that imports redis-py.

Redis has no dead-letter queue, so dead letters go to a second stream. Acknowledged entries are deleted unless other
groups read the stream too. A consumer claims the entries of another one that died.

Redis delivers entries of any size, so a reply above ``PREFETCH_BYTES`` is not read. The connection is then replaced,
and the entries, which this consumer owns already, are fetched one by one. A single entry that is too large is never
fetched. The server copies it to the dead-letter stream. If scripts are not allowed, the dead letter contains only the
id of the entry, and the entry stays in the stream.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from harvester.sources.brokers.broker import (
    BATCH_MESSAGES,
    CONNECTION_CUT_ERROR,
    PREFETCH_BYTES,
    WAIT_SECONDS,
    Delivery,
)
from harvester.sources.brokers.problems import create_broker_error
from harvester.sources.brokers.redis_replies import BoundedParser, ReplyTooLarge
from harvester.sources.messages.message_body import MAX_MESSAGE_BYTES

_TIMEOUT_SECONDS = 10.0
_BODY_FIELD = b"body"
_COPY_ENTRY_SCRIPT = """
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if found then
  local fields = found[2]
  fields[#fields + 1] = 'reason'
  fields[#fields + 1] = ARGV[2]
  redis.call('XADD', KEYS[2], '*', unpack(fields))
end
"""
"""Copies an entry to the dead-letter stream, on the server."""

_TOO_LARGE = (
    f"the message has more than {PREFETCH_BYTES} bytes; the limit is {MAX_MESSAGE_BYTES}; put longer lists into a file"
)


class RedisBroker:
    """One stream and one group, created if missing. ``dead_letter`` is a stream; by default the name plus ``.dead``."""

    def __init__(
        self,
        *,
        url: Callable[[], str],
        stream: str,
        group: str,
        dead_letter: str | None,
        wait_seconds: float = WAIT_SECONDS,
        lease_seconds: float = 60.0,
    ) -> None:
        """Store the options. ``url`` is called for each connection.

        An entry that another consumer has not acknowledged or renewed for ``lease_seconds`` is claimed.
        """
        self.lease_seconds = lease_seconds
        self._get_url = url
        self._stream = stream
        self._group = group
        self._dead_letter_stream = dead_letter or f"{stream}.dead"
        self._wait_seconds = wait_seconds
        self._consumer = f"harvester-{secrets.token_hex(8)}"
        self._redis: Any = None
        self._only_group = True
        self._read_count = 1
        self._claimed_ids: list[bytes] = []
        """Entries that this consumer owns and has not fetched yet."""
        self._undeletable_ids: set[bytes] = set()
        """Entries that must stay in the stream, because the server could not copy them to the dead-letter stream."""
        self._url = ""

    async def open(self) -> list[str]:
        """Connect, create the group at the beginning of the stream if it is missing, and check the server."""
        self._url = self._get_url()
        self._claimed_ids = []
        with self._translate_errors():
            self._redis = Redis.from_url(
                self._url,
                socket_connect_timeout=_TIMEOUT_SECONDS,
                socket_timeout=_TIMEOUT_SECONDS + self._wait_seconds,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                parser_class=BoundedParser,
            )
            try:
                await self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            self._only_group = len(await self._redis.xinfo_groups(self._stream)) == 1
            return await self._list_warnings()

    async def _list_warnings(self) -> list[str]:
        warnings = []
        if not self._only_group:
            warnings.append(f"other groups read Redis stream {self._stream}, so its entries are kept; trim it yourself")
        if await self._redis.ttl(self._stream) >= 0:
            warnings.append(f"Redis stream {self._stream} will expire with its messages; remove its TTL with PERSIST")
        try:
            server = await self._redis.info()
        except ResponseError:
            return [*warnings, "the user may not run INFO, so Redis's persistence was not checked; allow +info"]
        if not server.get("aof_enabled"):
            warnings.append("Redis loses messages if it is killed; set appendonly yes")
        if str(server.get("maxmemory_policy", "noeviction")).startswith("allkeys"):
            warnings.append("Redis evicts streams if its memory is full; set maxmemory-policy noeviction")
        return warnings

    async def receive(self) -> Sequence[Delivery]:
        """Return entries that other consumers did not acknowledge in time; if there are none, read new ones."""
        with self._translate_errors():
            entry_ids, self._claimed_ids = self._claimed_ids, []
            entry_ids = entry_ids or await self._claim_idle()
            if not entry_ids:
                try:
                    return await self._read_new()
                except ReplyTooLarge:  # this consumer owns the entries already
                    self._read_count = 1
                    entry_ids = list(await self._count_deliveries("-", "+"))
            return await self._fetch(entry_ids)

    async def _claim_idle(self) -> list[bytes]:
        idle_ms = int(self.lease_seconds * 1000)
        claimed: list[bytes] = await self._redis.xautoclaim(
            self._stream, self._group, self._consumer, idle_ms, count=BATCH_MESSAGES, justid=True
        )
        return claimed

    async def _read_new(self) -> Sequence[Delivery]:
        """Read new entries: one at first, and twice as many with each read until a reply is too large."""
        block_ms = int(self._wait_seconds * 1000)
        streams = await self._redis.xreadgroup(
            self._group, self._consumer, {self._stream: ">"}, count=self._read_count, block=block_ms
        )
        self._read_count = min(BATCH_MESSAGES, 2 * self._read_count)
        return [_create_delivery(entry_id, fields, 1) for _, entries in streams or () for entry_id, fields in entries]

    async def _fetch(self, entry_ids: Sequence[bytes]) -> Sequence[Delivery]:
        """Fetch owned entries one by one up to ``MAX_MESSAGE_BYTES``. Redis counts each fetch as a delivery."""
        counts = await self._count_deliveries(entry_ids[0], entry_ids[-1]) if entry_ids else {}
        deliveries: list[Delivery] = []
        fetched_bytes = 0
        for index, entry_id in enumerate(entry_ids):
            if fetched_bytes > MAX_MESSAGE_BYTES:
                self._claimed_ids = list(entry_ids[index:])
                break
            try:
                claimed = await self._redis.xclaim(self._stream, self._group, self._consumer, 0, [entry_id])
            except ReplyTooLarge:
                deliveries.append(Delivery(b"", 1, (entry_id, None), _TOO_LARGE))
                continue
            for each, fields in claimed:
                deliveries.append(_create_delivery(each, fields, counts.get(entry_id, 0) + 1))
                fetched_bytes += sum(map(len, fields.values()))
        return deliveries

    async def _count_deliveries(self, first: bytes | str, last: bytes | str) -> Mapping[bytes, int]:
        """Return this consumer's unacknowledged entries between two ids, with their delivery counts."""
        pending = await self._redis.xpending_range(
            self._stream, self._group, first, last, 10 * BATCH_MESSAGES, consumername=self._consumer
        )
        return {each["message_id"]: each["times_delivered"] for each in pending}

    async def is_empty(self) -> bool:
        """Return whether the group has no unacknowledged entry. The trigger calls this after ``receive`` found none."""
        with self._translate_errors():
            pending = await self._redis.xpending(self._stream, self._group)
        return not pending["pending"]

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Claim the entries again. This resets their idle time and does not count as a delivery."""
        with self._translate_errors():
            ids = _get_entry_ids(deliveries)
            await self._redis.xclaim(self._stream, self._group, self._consumer, 0, ids, justid=True)

    async def dead_letter(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Add an entry to the dead-letter stream, with the other fields of the original entry."""
        entry_id, fields = delivery.handle
        with self._translate_errors():
            if fields is None:
                if await self._copy_on_server(entry_id, reason):
                    return
                fields = {b"entry": entry_id}
            await self._redis.xadd(self._dead_letter_stream, fields | {_BODY_FIELD: body, b"reason": reason.encode()})

    async def _copy_on_server(self, entry_id: bytes, reason: str) -> bool:
        """Copy an entry that is too large to fetch. Returns False if the server refuses; one attempt is made."""
        if entry_id in self._undeletable_ids:
            return False
        self._undeletable_ids.add(entry_id)
        with contextlib.suppress(ResponseError):
            await self._redis.eval(_COPY_ENTRY_SCRIPT, 2, self._stream, self._dead_letter_stream, entry_id, reason)
            self._undeletable_ids.discard(entry_id)
        return entry_id not in self._undeletable_ids

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge the entries and, if no other group reads the stream, delete them in the same transaction."""
        entry_ids = _get_entry_ids(deliveries)
        with self._translate_errors():
            async with self._redis.pipeline(transaction=True) as transaction:
                transaction.xack(self._stream, self._group, *entry_ids)
                deletable = [entry_id for entry_id in entry_ids if entry_id not in self._undeletable_ids]
                if self._only_group and deletable:
                    transaction.xdel(self._stream, *deletable)
                await transaction.execute()
        self._undeletable_ids -= set(entry_ids)

    async def close(self) -> None:
        """Close the connection, and remove this consumer from the group unless it owns entries."""
        client, self._redis = self._redis, None
        if client is None:
            return
        with contextlib.suppress(Exception):  # the connection is closed in any case
            name = self._consumer.encode()
            consumers = await client.xinfo_consumers(self._stream, self._group)
            if any(each["name"] == name and not each["pending"] for each in consumers):
                await client.xgroup_delconsumer(self._stream, self._group, self._consumer)
        with contextlib.suppress(Exception):  # the connection is closed in any case
            await client.aclose()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, RedisError, OSError, TypeError, ValueError, CONNECTION_CUT_ERROR) as error:
            raise create_broker_error(f"Redis, stream {self._stream}", error, url=self._url) from None


def _create_delivery(entry_id: bytes, fields: Mapping[bytes, bytes], delivery_count: int) -> Delivery:
    problem = "" if _BODY_FIELD in fields else "the entry has no field named body; put the JSON into this field"
    return Delivery(fields.get(_BODY_FIELD, b""), delivery_count, (entry_id, dict(fields)), problem)


def _get_entry_ids(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [each.handle[0] for each in deliveries]
