"""Repeatable randomness: a number that follows from its purpose, not from the state of a generator."""

import hashlib


def draw(*parts: object) -> int:
    """Return a number below 2**64. The same parts give the same number, in any order and in any process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest())
