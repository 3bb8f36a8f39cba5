"""Repeatable random numbers: each is computed from its purpose, not from the state of a generator."""

import hashlib


def random_draw(*parts: object) -> int:
    """Return a number below 2**64 that depends only on ``parts``, not on earlier calls or on the process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest())
