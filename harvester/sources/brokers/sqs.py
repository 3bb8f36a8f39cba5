"""Amazon SQS, by long polling. The only door to aiobotocore.

Credentials come from AWS's usual places, and so does the region where the queue's URL does not tell it. A receive asks
for its own visibility timeout, so the queue's does not matter; dead letters go where the redrive policy says.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from harvester.errors import BrokerError
from harvester.model import DAY_SECONDS
from harvester.sources.brokers.broker import (
    RETENTION_DAYS,
    WAIT_SECONDS,
    Delivery,
    kept_too_short,
    no_dead_letters,
    trouble,
)

_ODD = "surrogatepass"
"""JSON may contain lone surrogates, which UTF-8 cannot encode."""

_BATCH_ENTRIES = 10
"""The most that one call of SQS receives, deletes or changes."""

_WAITING = "ApproximateNumberOfMessages"
_COUNTS = (_WAITING, f"{_WAITING}NotVisible", f"{_WAITING}Delayed")
_REGION = re.compile(r"https://[^/]*\b([a-z]{2}(?:-[a-z]+)+-[0-9]+)\.[^/]*amazonaws\.com")
_MEND = "give it a redrive policy, or name a queue's URL as dead_letter"


class Queue:
    """One queue by its URL; ``dead_letter`` is the URL of another, by default that of its redrive policy."""

    def __init__(
        self,
        *,
        queue_url: str,
        dead_letter: str | None,
        wait_seconds: float = WAIT_SECONDS,
        lease_seconds: float = 60.0,
    ) -> None:
        """Take where the queue is, and for how long a message that was received stays invisible to others."""
        self.lease_seconds = lease_seconds
        self._url = queue_url
        self._dead_letter = dead_letter
        self._wait_seconds = wait_seconds
        self._session = get_session()
        self._stack = AsyncExitStack()
        self._sqs: Any = None

    async def open(self) -> list[str]:
        """Make a client and look at the queue's attributes."""
        region = _REGION.match(self._url)
        config = AioConfig(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 2})
        with self._translated():
            client = self._session.create_client("sqs", region_name=region and region[1], config=config)
            self._sqs = await self._stack.enter_async_context(client)
            attributes = await self._attributes("RedrivePolicy", "MessageRetentionPeriod")
            warnings = []
            days = int(attributes["MessageRetentionPeriod"]) / DAY_SECONDS
            if days < RETENTION_DAYS:
                warnings.append(kept_too_short(f"SQS queue {self._url}", days))
            if self._dead_letter is None and "RedrivePolicy" in attributes:
                arn = json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"].split(":")
                found = await self._sqs.get_queue_url(QueueName=arn[5], QueueOwnerAWSAccountId=arn[4])
                self._dead_letter = found["QueueUrl"]
            if self._dead_letter is None:
                warnings.append(no_dead_letters(f"place beside SQS queue {self._url}", _MEND))
            return warnings

    async def receive(self) -> Sequence[Delivery]:
        """Ask for as many as one call gives; a wait of at least a second asks all of SQS's servers."""
        with self._translated():
            answer = await self._sqs.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=_BATCH_ENTRIES, WaitTimeSeconds=math.ceil(self._wait_seconds),
                VisibilityTimeout=math.ceil(self.lease_seconds), AttributeNames=["ApproximateReceiveCount"],
            )  # fmt: skip
        return [
            Delivery(each["Body"].encode("utf-8", _ODD), _times(each), each["ReceiptHandle"])
            for each in answer.get("Messages", ())
        ]

    async def empty(self) -> bool:
        """Ask for all three of SQS's counts; they lag behind by up to a minute."""
        with self._translated():
            attributes = await self._attributes(*_COUNTS)
            return not any(int(attributes[name]) for name in _COUNTS)

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Start the visibility timeout anew. A message that fails to is another's by now, which does no harm."""
        seconds = math.ceil(self.lease_seconds)
        entries = [entry | {"VisibilityTimeout": seconds} for entry in _entries(deliveries)]
        with self._translated():
            await self._sqs.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)

    async def bury(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Send to the dead-letter queue, the reason as an attribute if both together are not too long for it."""
        del delivery
        if self._dead_letter is None:
            raise BrokerError(no_dead_letters(f"place beside SQS queue {self._url}", _MEND))
        message: dict[str, Any] = {"QueueUrl": self._dead_letter, "MessageBody": body.decode("utf-8", _ODD)}
        if self._dead_letter.endswith(".fifo"):
            digest = hashlib.sha256(body).hexdigest()
            message |= {"MessageGroupId": "harvester", "MessageDeduplicationId": digest}
        told = {"reason": {"DataType": "String", "StringValue": reason}}
        with self._translated():
            try:
                await self._sqs.send_message(**message, MessageAttributes=told)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "InvalidParameterValue":
                    raise
                await self._sqs.send_message(**message)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Delete; what SQS could not is tried once more, and then comes again, which does no harm."""
        entries = _entries(deliveries)
        with self._translated():
            for _ in range(2):
                answer = await self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
                failed = {each["Id"] for each in answer.get("Failed", ())}
                entries = [entry for entry in entries if entry["Id"] in failed]
                if not entries:
                    return

    async def close(self) -> None:
        """Let go of the client."""
        stack, self._stack, self._sqs = self._stack, AsyncExitStack(), None
        with suppress(Exception):  # the connection is closed in any case
            await stack.aclose()

    async def _attributes(self, *names: str) -> Mapping[str, str]:
        answer = await self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=list(names))
        attributes: Mapping[str, str] = answer.get("Attributes", {})
        return attributes

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, BotoCoreError, ClientError, OSError, ValueError) as error:
            raise trouble(f"SQS, queue {self._url}", error) from None


def _times(message: Mapping[str, Any]) -> int:
    """Return how many times a message was delivered; 1 if an SQS-compatible server does not count."""
    return int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))


def _entries(deliveries: Sequence[Delivery]) -> list[dict[str, Any]]:
    return [{"Id": str(at), "ReceiptHandle": each.handle} for at, each in enumerate(deliveries)]
