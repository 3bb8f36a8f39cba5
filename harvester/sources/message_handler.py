"""What becomes of messages: good pairs go into the ledger, what is bad to the dead letters, each with its reason.

Whatever it does may be done again, and is when a message comes again. It acknowledges nothing: that is for the trigger,
once all of this returned. An error that one message raises makes only that message a dead letter, after a few tries.
Other messages wait only while the ledger, a store or the dead-letter place is unavailable.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence

import structlog

from harvester.clock import BrazeClock
from harvester.errors import HarvesterError
from harvester.sources.brokers import Delivery
from harvester.sources.bugs import bug_of
from harvester.sources.fields import Unusable
from harvester.sources.importing import MAX_TRIES, Enqueue, Importer, Stopped
from harvester.sources.message import MAX_MESSAGE_BYTES, Message, Reader, reason
from harvester.sources.temporary import temporary_problem

MAX_DELIVERIES = 15
"""A message that came this often without being settled is buried: fewer than the 20 after which RabbitMQ drops it."""

_INLINE_BYTES = 64 * 1024
"""Messages with more bytes together are parsed on another thread."""

_REASON_CHARACTERS = 500

log = structlog.get_logger()

Bury = Callable[[Delivery, bytes, str], Awaitable[None]]


class _Hopeless(Exception):  # noqa: N818 - it never leaves this file
    """A message that was tried often enough; its text is the reason."""


class Settling:
    """Settles the messages of one trigger; counts pairs by what the ledger said, and times that named no zone."""

    def __init__(
        self, trigger: str, *, reader: Reader, enqueue: Enqueue, bury: Bury, stopping: asyncio.Event,
        clock: BrazeClock, wait_first_seconds: float = 1.0,
    ) -> None:  # fmt: skip
        """Read by ``reader``, enqueue by ``enqueue``, bury by ``bury``; stop imports once ``stopping`` is set.

        The waits between the tries of one message double.
        """
        self._log = log.bind(trigger=trigger)
        self._reader = reader
        self._bury = bury
        self._clock = clock
        self._importer = Importer(
            trigger, workspaces=reader.workspaces, enqueue=enqueue, stopping=stopping, clock=clock,
            wait_first_seconds=wait_first_seconds,
        )  # fmt: skip

    @property
    def pairs_new(self) -> int:
        """Pairs that the ledger did not know."""
        return self._importer.pairs_new

    @property
    def pairs_known(self) -> int:
        """Pairs that the ledger knew."""
        return self._importer.pairs_known

    @property
    def naive_times(self) -> int:
        """Times that named no zone."""
        return self._importer.naive_times

    def warnings(self) -> list[str]:
        """Return warnings about anything that will prevent files of messages from being read."""
        problem = temporary_problem() if self._reader.prefixes else None
        return [] if problem is None else [f"{problem}; messages that name files go to the dead letters"]

    async def settle(self, deliveries: Sequence[Delivery]) -> Counter[str]:
        """Settle all that messages ask for, a few at a time where they are large; gives the outcomes' counts.

        Raises ``StorageError`` and ``BrokerError`` where something is away for now, ``Stopped``.
        """
        outcomes: Counter[str] = Counter()
        for group in _groups(deliveries):
            outcomes += await self._settle_group(group)
        return outcomes

    async def _settle_group(self, deliveries: Sequence[Delivery]) -> Counter[str]:
        """Settle messages, the pairs of all of them first and together."""
        if sum(len(each.body) for each in deliveries) > _INLINE_BYTES:
            read = await asyncio.to_thread(lambda: [self._read(each) for each in deliveries])
        else:
            read = [self._read(each) for each in deliveries]
        added = await self._add_together([each for each in read if isinstance(each, Message)])
        outcomes: Counter[str] = Counter()
        for delivery, message in zip(deliveries, read, strict=True):
            if isinstance(message, Message):
                outcomes[await self._finish(delivery, message, added=added)] += 1
            else:
                await self._buried(delivery, delivery.body, message)
                outcomes["dead_lettered"] += 1
        return outcomes

    def _read(self, delivery: Delivery) -> Message | str:
        """Understand a message, or say why not."""
        if delivery.times > MAX_DELIVERIES:
            return f"was delivered {delivery.times} times and never settled"
        if delivery.flaw:
            return delivery.flaw
        latest = self._clock.latest_send()
        try:
            return self._reader.read(delivery.body, latest=latest)
        except Unusable as error:
            return reason(error)
        except Exception as error:  # noqa: BLE001 - whatever a body raises is that message's end, not the process's
            return self._report_bug(error)

    async def _add_together(self, messages: Sequence[Message]) -> bool:
        """Enqueue the pairs of all messages; returns False after an unexpected error, so that each is tried alone."""
        try:
            for once in (False, True):
                pairs = [pair for each in messages if each.once == once for pair in each.pairs]
                await self._importer.add_pairs(pairs, once=once)
        except (HarvesterError, Stopped):
            raise
        except Exception as error:  # noqa: BLE001 - one of them is the cause, and the others shall not suffer
            self._report_bug(error)
            return False
        return True

    async def _finish(self, delivery: Delivery, message: Message, *, added: bool) -> str:
        """Import the files of a message, and bury what was bad in it; gives the outcome."""
        self._importer.count_naive(message.naive_times)
        before = self.pairs_new + self.pairs_known
        try:
            failed = await self._work(message, added=added)
        except _Hopeless as why:
            await self._buried(delivery, delivery.body, str(why))
            return "dead_lettered"
        for what in message.skipped:
            self._log.info("object_skipped", reason=what)
        if failed or message.bad:
            good = bool(message.pairs) or len(failed) < len(message.files)
            await self._bury_rest(delivery, message, failed, good=good)
            return "partly" if good or self.pairs_new + self.pairs_known > before else "dead_lettered"
        if not message.pairs and not message.files:
            self._log.info("message_ignored", reason="it names no file to read")
            return "ignored"
        return "enqueued"

    async def _work(self, message: Message, *, added: bool) -> dict[str, str]:
        """Do what a message asks for; gives what was wrong with its files. Raises ``_Hopeless`` after many tries."""
        for tried in range(MAX_TRIES):
            try:
                if not added:
                    await self._importer.add_pairs(message.pairs, once=message.once)
                problems = {each: await self._importer.import_file(each, once=message.once) for each in message.files}
                return {file: problem for file, problem in problems.items() if problem}
            except (HarvesterError, Stopped):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a message raises is that message's end
                why = self._report_bug(error)
            await self._importer.pause(tried)
        raise _Hopeless(why)

    async def _bury_rest(self, delivery: Delivery, message: Message, failed: dict[str, str], *, good: bool) -> None:
        """Bury what was bad of a message, as a message of its own where something was good and it can be written."""
        rest, why = delivery.body, "; ".join([*(each for _, each in message.bad if each), *failed.values()])
        if good:
            with contextlib.suppress(TypeError):
                rest, why = message.leftover(failed)
        await self._buried(delivery, rest, why)

    def _report_bug(self, error: Exception) -> str:
        """Log an error that nobody expects, without its text, which may hold anything; gives it as a reason."""
        kind, at = bug_of(error)
        self._log.error(
            "bug_found", error=kind, location=at, hint="please report this line; only this message is affected"
        )
        return f"an unexpected error, {kind} at {at}; please report it"

    async def _buried(self, delivery: Delivery, body: bytes, why: str) -> None:
        told = why.encode("ascii", "backslashreplace").decode()
        told = "".join(mark if mark.isprintable() else " " for mark in told)[:_REASON_CHARACTERS]
        await self._bury(delivery, body, told)
        self._log.warning("message_dead_lettered", reason=told)


def _groups(deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    """Split messages into groups of bounded size, since a parsed message takes many times its size."""
    group: list[Delivery] = []
    for each in deliveries:
        if group and sum(len(other.body) for other in group) + len(each.body) > MAX_MESSAGE_BYTES:
            yield group
            group = []
        group.append(each)
    if group:
        yield group
