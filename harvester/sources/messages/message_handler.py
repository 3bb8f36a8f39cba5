"""Handles messages: enqueues their valid pairs, and dead-letters their invalid parts with the reason.

It never acknowledges a message; the trigger does, after ``handle`` has returned. If a message is delivered again, all
steps run again. If one message causes an unexpected error, only this message becomes a dead letter, after a few
attempts. Other messages wait only while the ledger, a store, the temporary folder or the dead-letter queue is
unavailable.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence

import structlog

from harvester.clock import BrazeClock
from harvester.errors import HarvesterError, StorageError
from harvester.sources.brokers import Delivery
from harvester.sources.fields import InvalidField
from harvester.sources.importer import MAX_ATTEMPTS, EnqueuePairs, Importer, TriggerStopped
from harvester.sources.messages.error_location import locate_error
from harvester.sources.messages.message import Message, MessageParser, format_reason
from harvester.sources.messages.message_body import MAX_MESSAGE_BYTES, is_encoded
from harvester.sources.temporary_folder import check_temporary_folder

MAX_DELIVERIES = 15
"""A message with more deliveries becomes a dead letter. RabbitMQ's own limit, which may drop it, is 20."""

_INLINE_BYTES = 64 * 1024
"""If received messages have more bytes together, another thread parses them."""

_MAX_REASON_CHARACTERS = 500

log = structlog.get_logger()

DeadLetter = Callable[[Delivery, bytes, str], Awaitable[None]]


class _AttemptsExhausted(Exception):  # noqa: N818 - it never leaves this file
    """All attempts to handle a message failed; the text is the reason of the last failure."""


class MessageHandler:
    """Handles the messages of one trigger; counts new pairs, known pairs, and times without a zone."""

    def __init__(
        self,
        trigger: str,
        *,
        parser: MessageParser,
        enqueue: EnqueuePairs,
        dead_letter: DeadLetter,
        stopping: asyncio.Event,
        clock: BrazeClock,
        wait_first_seconds: float = 1.0,
    ) -> None:
        """Stop imports when ``stopping`` is set. Waits between attempts double, from ``wait_first_seconds``."""
        self._log = log.bind(trigger=trigger)
        self._parser = parser
        self._write_dead_letter = dead_letter
        self._clock = clock
        self._importer = Importer(
            trigger,
            workspaces=parser.workspaces,
            enqueue=enqueue,
            stopping=stopping,
            clock=clock,
            wait_first_seconds=wait_first_seconds,
        )

    @property
    def pairs_new(self) -> int:
        """Pairs that were new to the ledger."""
        return self._importer.pairs_new

    @property
    def pairs_known(self) -> int:
        """Pairs that were already in the ledger."""
        return self._importer.pairs_known

    @property
    def naive_times(self) -> int:
        """Times without a zone."""
        return self._importer.naive_times

    def list_warnings(self) -> list[str]:
        """Return warnings about problems that will prevent the import of files."""
        problem = check_temporary_folder() if self._parser.prefixes else None
        return [] if problem is None else [f"{problem}; messages that name files become dead letters"]

    async def handle(self, deliveries: Sequence[Delivery]) -> Counter[str]:
        """Handle messages in groups of bounded size, and return the number of messages with each outcome.

        Raises ``StorageError`` while the ledger, a store or the temporary folder is unavailable, ``BrokerError`` while
        the dead-letter queue is, and ``TriggerStopped``.
        """
        outcomes: Counter[str] = Counter()
        for group in _group_by_size(deliveries):
            outcomes += await self._handle_group(group)
        return outcomes

    async def _handle_group(self, deliveries: Sequence[Delivery]) -> Counter[str]:
        """Enqueue the pairs of all messages together, then finish each message."""
        parsed = await self._parse_all(deliveries)
        enqueued = await self._enqueue_together([each for each in parsed if isinstance(each, Message)])
        outcomes: Counter[str] = Counter()
        for delivery, message in zip(deliveries, parsed, strict=True):
            if isinstance(message, Message):
                outcomes[await self._finish_message(delivery, message, enqueued=enqueued)] += 1
            else:
                await self._dead_letter(delivery, delivery.body, message)
                outcomes["dead_lettered"] += 1
        return outcomes

    async def _parse_all(self, deliveries: Sequence[Delivery]) -> list[Message | str]:
        if sum(map(_estimate_bytes, deliveries)) > _INLINE_BYTES:
            return await asyncio.to_thread(lambda: [self._parse(each) for each in deliveries])
        return [self._parse(each) for each in deliveries]

    def _parse(self, delivery: Delivery) -> Message | str:
        """Parse a message, or return why it becomes a dead letter."""
        if delivery.delivery_count > MAX_DELIVERIES:
            return f"the message was delivered {delivery.delivery_count} times and never acknowledged"
        if delivery.problem:
            return delivery.problem
        latest = self._clock.latest_send()
        try:
            return self._parser.parse(delivery.body, latest=latest)
        except InvalidField as error:
            return format_reason(error)
        except StorageError:
            raise  # the temporary folder is full or missing, which is no fault of the message
        except Exception as error:  # noqa: BLE001 - a body may cause any error; only its message is affected
            return self._report_unexpected(error)

    async def _enqueue_together(self, messages: Sequence[Message]) -> bool:
        """Enqueue the pairs of all messages. Returns False after an unexpected error; then enqueue each alone."""
        try:
            for once in (False, True):
                pairs = [pair for each in messages if each.once == once for pair in each.pairs]
                await self._importer.add_pairs(pairs, once=once)
        except (HarvesterError, TriggerStopped):
            raise
        except Exception as error:  # noqa: BLE001 - one message causes it; the others must still be handled
            self._report_unexpected(error)
            return False
        return True

    async def _finish_message(self, delivery: Delivery, message: Message, *, enqueued: bool) -> str:
        """Import the files of a message and dead-letter its invalid parts. Returns the outcome."""
        self._importer.add_naive_times(message.naive_times)
        pairs_before = self.pairs_new + self.pairs_known
        try:
            file_problems = await self._import_with_retries(message, enqueued=enqueued)
        except _AttemptsExhausted as error:
            await self._dead_letter(delivery, delivery.body, str(error))
            return "dead_lettered"
        for reason in message.skipped:
            self._log.info("object_skipped", reason=reason)
        if file_problems or message.bad:
            partly_valid = bool(message.pairs) or len(file_problems) < len(message.files)
            await self._dead_letter_invalid_parts(delivery, message, file_problems, partly_valid=partly_valid)
            any_enqueued = self.pairs_new + self.pairs_known > pairs_before
            return "partly_enqueued" if partly_valid or any_enqueued else "dead_lettered"
        if not message.pairs and not message.files:
            self._log.info("message_ignored", reason="it names no file to read")
            return "ignored"
        return "enqueued"

    async def _import_with_retries(self, message: Message, *, enqueued: bool) -> dict[str, str]:
        """Import the pairs and files of a message, and return the problems of its files by URL.

        Raises ``_AttemptsExhausted``.
        """
        for attempt in range(MAX_ATTEMPTS):
            try:
                if not enqueued:
                    await self._importer.add_pairs(message.pairs, once=message.once)
                problems = {url: await self._importer.import_file(url, once=message.once) for url in message.files}
                return {url: problem for url, problem in problems.items() if problem}
            except (HarvesterError, TriggerStopped):
                raise
            except Exception as error:  # noqa: BLE001 - a message may cause any error; only this message is affected
                reason = self._report_unexpected(error)
            await self._importer.wait_before_retry(attempt)
        raise _AttemptsExhausted(reason)

    async def _dead_letter_invalid_parts(
        self, delivery: Delivery, message: Message, file_problems: dict[str, str], *, partly_valid: bool
    ) -> None:
        """Dead-letter the invalid parts as a separate message, or the whole message if that is not possible."""
        body = delivery.body
        reason = "; ".join([*(each for _, each in message.bad if each), *file_problems.values()])
        if partly_valid:
            with contextlib.suppress(TypeError):
                body, reason = message.encode_invalid_parts(file_problems)
        await self._dead_letter(delivery, body, reason)

    def _report_unexpected(self, error: Exception) -> str:
        """Log an unexpected error without its text, which may contain secrets, and return it as a reason."""
        kind, location = locate_error(error)
        hint = "please report this line; only this message is affected"
        self._log.error("bug_found", error=kind, location=location, hint=hint)
        return f"an unexpected error, {kind} at {location}; please report it"

    async def _dead_letter(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Write a dead letter with the reason in printable ASCII, and log it."""
        ascii_reason = reason.encode("ascii", "backslashreplace").decode()
        printable = "".join(mark if mark.isprintable() else " " for mark in ascii_reason)[:_MAX_REASON_CHARACTERS]
        await self._write_dead_letter(delivery, body, printable)
        self._log.warning("message_dead_lettered", reason=printable)


def _group_by_size(deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    """Split messages into groups of bounded size, because a parsed message takes many times its size in memory."""
    group: list[Delivery] = []
    group_bytes = 0
    for each in deliveries:
        size = _estimate_bytes(each)
        if group and group_bytes + size > MAX_MESSAGE_BYTES:
            yield group
            group, group_bytes = [], 0
        group.append(each)
        group_bytes += size
    if group:
        yield group


def _estimate_bytes(delivery: Delivery) -> int:
    """Return the size of a body, or the limit if it is encoded."""
    return MAX_MESSAGE_BYTES if is_encoded(delivery.body) else len(delivery.body)
