"""Changes how aiormq reads messages: invalid properties are ignored, and the size of bodies is limited.

The client library has no hook for a message that is still arriving, so importing this module replaces two of its
methods. ``BODY_LIMITS`` sets the limit of each channel.
"""

import logging
from typing import Any, cast
from weakref import WeakKeyDictionary

import aiormq.channel
from aio_pika import DeliveryMode
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

BODY_LIMITS: WeakKeyDictionary[Any, int | None] = WeakKeyDictionary()
"""The largest body of each channel in bytes. Larger bodies are read and dropped. None: no limit."""


class DroppedBody(bytes):
    """An empty placeholder for a body that was dropped while it arrived."""


_unmarshal = ContentHeader.unmarshal
_read_content = aiormq.channel.Channel._read_content  # noqa: SLF001 - see the module's docstring


def _unmarshal_leniently(header: ContentHeader, data: bytes) -> None:
    """Read the size and the properties of a message; drop all properties if one is invalid.

    Otherwise each delivery of the message would close the connection. Examples are a date after the year 9999
    (milliseconds instead of seconds), a name that is not UTF-8, and deeply nested tables.
    """
    try:
        _unmarshal(header, data)
        DeliveryMode(header.properties.delivery_mode or DeliveryMode.NOT_PERSISTENT)
        float(header.properties.expiration or 0)
    except Exception:  # noqa: BLE001 - the message must be handled in any case
        header.properties = Basic.Properties()


async def _read_bounded(channel: aiormq.channel.Channel, frame: Any, header: ContentHeader) -> DeliveredMessage:
    """Read the body of a message, but drop it if it is above the limit of the channel."""
    limit = BODY_LIMITS.get(channel)
    if limit is None or header.body_size <= limit:
        return await _read_content(channel, frame, header)
    remaining = header.body_size
    while remaining > 0:
        remaining -= len(cast("Any", await channel._get_frame()).value)  # noqa: SLF001 - as above
    return DeliveredMessage(delivery=frame, header=header, body=DroppedBody(), channel=channel)


ContentHeader.unmarshal = _unmarshal_leniently  # type: ignore[assignment, method-assign]
aiormq.channel.Channel._read_content = _read_bounded  # type: ignore[assignment, method-assign]  # noqa: SLF001

logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)  # it logs errors that it also raises
