"""Chance that can be repeated: a number drawn from what it is for, instead of from a generator that has a state."""

import hashlib


def draw(*parts: object) -> int:
    """Give a number below 2**64; the same parts give the same number, in any order of asking and in any process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest())
