"""Reads numbers and lengths in Avro's binary encoding, never beyond the end of a block.

Every function takes a block and a position, and returns the position after the value. If the data is damaged, it raises
``ValueError`` or ``IndexError``.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MORE_BYTES = 0x80
_MAX_SHIFT = 70


class UnreadableAvro(Exception):  # noqa: N818 - a state of the file, not of the program
    """A file, or the rest of it, cannot be read; the text says why."""


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and the position after it. The encoding is zigzag, with seven bits in each byte, lowest first."""
    byte = data[at]
    if byte < _MORE_BYTES:
        return (byte >> 1) ^ -(byte & 1), at + 1
    value, shift = byte & 0x7F, 7
    while byte >= _MORE_BYTES:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > _MAX_SHIFT:
            raise ValueError("a number is too long")
    return (value >> 1) ^ -(value & 1), at + 1


def skip_long(data: bytes, at: int) -> int:
    """Return the position after a number."""
    while data[at] >= _MORE_BYTES:
        at += 1
    return at + 1


def skip_bytes(data: bytes, at: int) -> int:
    """Return the position after a length and the bytes that it counts."""
    size, at = read_long(data, at)
    return advance(data, at, size)


def advance(data: bytes, at: int, size: int) -> int:
    """Return the position ``size`` bytes ahead. Raises ``ValueError`` if that is before ``at`` or beyond the block."""
    if not 0 <= size <= len(data) - at:
        raise ValueError("a length exceeds the block")
    return at + size


def select_branch(branches: Sequence[T], data: bytes, at: int) -> tuple[T, int]:
    """Return the branch of a union that the data selects, and the position after the number of the branch."""
    index, at = read_long(data, at)
    if not 0 <= index < len(branches):
        raise ValueError("a union has no branch of this number")
    return branches[index], at
