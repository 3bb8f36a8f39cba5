"""What a broker must be able to do for a trigger, and what all of them share.

A broker holds one connection. It never decides what a message means, and never connects again by itself: whatever
fails leaves it as a ``BrokerError``, and the trigger closes it and opens it anew.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote, unquote_plus

from harvester.causes import cause_of
from harvester.errors import BrokerError
from harvester.observability.redaction import scrub

BATCH_MESSAGES = 32
"""Messages taken, settled and acknowledged together, so that they share a transaction of the ledger."""

PREFETCH_BYTES = 8 << 20
"""The most bytes received from a broker and not settled yet; a single message may be larger."""

_SHORT_SECRET = 8

WAIT_SECONDS = 5.0
"""How long ``receive`` waits for a first message."""

RETENTION_DAYS = 14
"""A queue should keep messages for as long as Braze keeps what they are about."""

CLOSED = RuntimeError
"""What uvloop raises at a write to a connection that was cut a moment before; the clients let it through."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it was delivered: for which time, and what its broker needs to settle it.

    ``flaw`` says why it cannot be read, where the broker sees that already; a body that was left there is empty here.
    """

    body: bytes
    times: int
    handle: Any
    flaw: str = ""


class Broker(Protocol):
    """One queue of one broker. Every verb may raise ``BrokerError``, after which only ``close`` is of use."""

    @property
    def lease_seconds(self) -> float | None:
        """For how long a delivery is ours unless ``keep`` is called; None: for as long as the connection."""
        ...

    async def open(self) -> list[str]:
        """Connect, look, and give warnings about the queue; nothing is delivered yet."""
        ...

    async def receive(self) -> Sequence[Delivery]:
        """Give what there is, at most a batch, or nothing after a wait. May be cancelled: what is lost comes again."""
        ...

    async def empty(self) -> bool:
        """Tell whether nothing is left: nothing to deliver, and as far as the broker tells nothing in flight."""
        ...

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Lengthen the lease."""
        ...

    async def bury(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Put a body into the dead-letter place, with its reason (printable ASCII); it is there on return."""
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Remove messages from the queue: the batch as it was received, whole."""
        ...

    async def close(self) -> None:
        """Let go; what was not acknowledged comes again, to us or to another. Raises nothing."""
        ...


def trouble(what: str, error: BaseException, *, url: str = "") -> BrokerError:
    """Say what failed and how, in a line that holds no part of the URL's credentials.

    The text of a ``ValueError`` is never shown: it quotes what it could not read, which may be a piece of the URL.
    """
    if isinstance(error, (TypeError, ValueError)) and not isinstance(error, OSError):
        return BrokerError(f"{what}: {type(error).__name__}; check its URL and its settings")
    said = scrub(without_secrets(re.sub(r"\s+", " ", str(error)).strip(), url))
    text = f"{what}: {type(error).__name__}{': ' + said[:300] if said else ''}"
    return BrokerError(text, cause=cause_of(error) or "failed")


def without_secrets(text: str, url: str) -> str:
    """Return a text without the secrets of a URL; an empty text if it contains a short one, which gaps would reveal.

    A user name is not a secret, unless there is no password: then it may be a token.
    """
    given = {url} | {userinfo.partition(":")[2] or userinfo for userinfo in re.findall(r"//([^/@]+)@", url)}
    given |= set(re.findall(r"[?&](?:password|token|secret)=([^&#]+)", url))
    secrets = {each for secret in given for each in (secret, unquote(secret), unquote_plus(secret)) if each}
    for secret in sorted(secrets, key=len, reverse=True):
        if secret in text and len(secret) < _SHORT_SECRET:
            return ""
        text = text.replace(secret, "***")
    return text


def kept_too_short(what: str, days: float) -> str:
    """Warn of a queue that forgets."""
    return f"{what} keeps messages for {days:.3g} days; let it keep them for {RETENTION_DAYS}, as Braze keeps its data"


def no_dead_letters(place: str, advice: str) -> str:
    """Warn of a queue without a dead-letter place, and say what happens then."""
    return f"there is no {place} for messages that cannot be understood: the first of them stops this trigger; {advice}"
