"""Decodes the body of a message: gzip, base64, a byte order mark, and UTF-16. Pure.

The first bytes decide, because JSON begins with none of them, and not every broker passes on the content encoding that
a sender declares. SQS accepts only text, so its senders encode compressed bodies as base64.
"""

import base64
import binascii
import codecs
import re
import zlib

from harvester.sources.fields import InvalidField

MAX_MESSAGE_BYTES = 1 << 20
"""A longer message is not parsed, also if it is longer after decompression. Longer lists must be in a file."""

_MAX_LAYERS = 3
"""How many encodings are removed: base64 around gzip around UTF-16, for example."""

_GZIP_MAGIC = b"\x1f\x8b"
_OTHER_COMPRESSIONS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"BZh": "bzip2",
    b"x\x01": "zlib",
    b"x\x9c": "zlib",
    b"x\xda": "zlib",
}
"""Compressions that are not read, by their first bytes. Senders declare zlib as the content encoding ``deflate``."""

_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_BASE64_ALPHABET = bytes.maketrans(b"-_", b"+/")
_JSON_BEGINS = (b"{", b"[")


def decode_body(body: bytes) -> bytes:
    """Return the body as JSON in UTF-8. A body that is not encoded is returned unchanged. Raises ``InvalidField``."""
    check_size(body)
    for _ in range(_MAX_LAYERS):
        if body.startswith(_GZIP_MAGIC):
            body = _decompress(body)
        elif body.startswith(_UTF_16_MARKS):
            body = body.decode("utf-16", "replace").encode()
        elif body.startswith(codecs.BOM_UTF8):
            body = body.removeprefix(codecs.BOM_UTF8)
        elif is_encoded(body) and (decoded := _decode_base64(body)) is not None:
            body = decoded
        else:
            break
    if name := next((name for magic, name in _OTHER_COMPRESSIONS.items() if body.startswith(magic)), None):
        raise InvalidField("", f"the message is compressed with {name}, which is not read; compress it with gzip")
    return body


def is_encoded(body: bytes) -> bool:
    """Return whether a body does not begin as JSON does, so that it may be much larger once it is decoded."""
    return not body[:64].lstrip().startswith(_JSON_BEGINS)


def check_size(body: bytes, when: str = "") -> None:
    """Raise ``InvalidField`` if a message is too long."""
    if len(body) > MAX_MESSAGE_BYTES:
        more = "more than " if when else ""
        raise InvalidField(
            "",
            f"the message has {more}{len(body) - bool(when)} bytes{when}; the limit is {MAX_MESSAGE_BYTES}; put longer "
            "lists into a file",
        )


def _decompress(body: bytes) -> bytes:
    stream = zlib.decompressobj(31)
    try:
        data = stream.decompress(body, MAX_MESSAGE_BYTES + 1)
    except zlib.error as error:
        raise InvalidField("", f"the message begins as gzip, but cannot be decompressed: {error}") from None
    check_size(data, " after decompression")
    if not stream.eof:
        raise InvalidField("", "the message begins as gzip, but its end is missing")
    return data


def _decode_base64(body: bytes) -> bytes | None:
    """Return the decoded body, or None if it is not base64 of JSON, gzip or UTF-16."""
    if not _BASE64.fullmatch(body):
        return None
    text = b"".join(body.translate(_BASE64_ALPHABET).split()).rstrip(b"=")
    try:
        decoded = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None
    known = (*_JSON_BEGINS, _GZIP_MAGIC, *_OTHER_COMPRESSIONS, *_UTF_16_MARKS, codecs.BOM_UTF8)
    return decoded if decoded.lstrip().startswith(known) else None
