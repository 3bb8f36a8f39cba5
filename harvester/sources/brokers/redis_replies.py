"""Reads the replies of Redis with a limit on their size. Redis delivers stream entries of any size."""

from typing import Any

from redis._parsers.resp2 import _AsyncRESP2Parser
from redis.exceptions import RedisError

from harvester.sources.brokers.broker import PREFETCH_BYTES

_ELEMENT_BYTES = 64
"""The memory that an element of a reply is assumed to take in addition to its content."""


class ReplyTooLarge(RedisError):  # noqa: N818 - it never leaves the Redis broker
    """A reply is larger than ``PREFETCH_BYTES``. Its connection cannot be used again."""


class BoundedParser(_AsyncRESP2Parser):
    """Reads replies of up to ``PREFETCH_BYTES``. Raises ``ReplyTooLarge`` for a larger one."""

    _bytes_left = PREFETCH_BYTES

    async def read_response(self, disable_decoding: bool = False) -> Any:  # noqa: FBT001, FBT002 - overrides redis-py
        """Read one reply."""
        self._bytes_left = PREFETCH_BYTES
        return await super().read_response(disable_decoding)

    async def _read(self, length: int) -> bytes:
        self._bytes_left -= length + _ELEMENT_BYTES
        if self._bytes_left < 0:
            raise ReplyTooLarge(f"a reply has more than {PREFETCH_BYTES} bytes")
        return await super()._read(length)
