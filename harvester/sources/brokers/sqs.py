"""Amazon SQS, by long polling. The only module that imports aiobotocore.

Credentials come from the standard sources of AWS. So does the region, unless the queue's URL contains it. Each receive
sets a visibility timeout, so that of the queue does not matter. Dead letters go to the queue in the redrive policy.
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
from harvester.sources.brokers.broker import WAIT_SECONDS, Delivery
from harvester.sources.brokers.problems import (
    RETENTION_DAYS,
    create_broker_error,
    format_dead_letter_warning,
    format_retention_warning,
)

_SURROGATES = "surrogatepass"
"""JSON may contain lone surrogates, which UTF-8 cannot encode."""

_BATCH_ENTRIES = 10
"""The most messages that one call of SQS receives, deletes or changes."""

_DELETE_ATTEMPTS = 2
_VISIBLE = "ApproximateNumberOfMessages"
_MESSAGE_COUNTS = (_VISIBLE, f"{_VISIBLE}NotVisible", f"{_VISIBLE}Delayed")
_REGION = re.compile(r"https://[^/]*\b([a-z]{2}(?:-[a-z]+)+-[0-9]+)\.[^/]*amazonaws\.com")


class SQSBroker:
    """One queue. ``dead_letter`` is the URL of another queue; by default, the queue in the redrive policy."""

    def __init__(
        self,
        *,
        queue_url: str,
        dead_letter: str | None,
        wait_seconds: float = WAIT_SECONDS,
        lease_seconds: float = 60.0,
    ) -> None:
        """Store the options. ``lease_seconds`` is the visibility timeout of received messages."""
        self.lease_seconds = lease_seconds
        self._queue_url = queue_url
        self._dead_letter_url = dead_letter
        self._wait_seconds = wait_seconds
        self._session = get_session()
        self._stack = AsyncExitStack()
        self._sqs: Any = None

    async def open(self) -> list[str]:
        """Create a client and check the attributes of the queue."""
        region = _REGION.match(self._queue_url)
        config = AioConfig(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 2})
        with self._translate_errors():
            client = self._session.create_client("sqs", region_name=region and region[1], config=config)
            self._sqs = await self._stack.enter_async_context(client)
            attributes = await self._get_attributes("RedrivePolicy", "MessageRetentionPeriod")
            if self._dead_letter_url is None and "RedrivePolicy" in attributes:
                self._dead_letter_url = await self._find_dead_letter_url(attributes["RedrivePolicy"])
            return self._list_warnings(attributes)

    async def _find_dead_letter_url(self, redrive_policy: str) -> str:
        arn = json.loads(redrive_policy)["deadLetterTargetArn"].split(":")
        response = await self._sqs.get_queue_url(QueueName=arn[5], QueueOwnerAWSAccountId=arn[4])
        url: str = response["QueueUrl"]
        return url

    def _list_warnings(self, attributes: Mapping[str, str]) -> list[str]:
        warnings = []
        days = int(attributes["MessageRetentionPeriod"]) / DAY_SECONDS
        if days < RETENTION_DAYS:
            warnings.append(format_retention_warning(f"SQS queue {self._queue_url}", days))
        if self._dead_letter_url is None:
            warnings.append(self._format_dead_letter_warning())
        return warnings

    def _format_dead_letter_warning(self) -> str:
        advice = "give the queue a redrive policy, or set dead_letter to the URL of a queue"
        return format_dead_letter_warning(f"dead-letter queue of SQS queue {self._queue_url}", advice)

    async def receive(self) -> Sequence[Delivery]:
        """Receive as many messages as one call allows. With a wait of a second or more, SQS queries all its servers."""
        with self._translate_errors():
            response = await self._sqs.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=_BATCH_ENTRIES,
                WaitTimeSeconds=math.ceil(self._wait_seconds),
                VisibilityTimeout=math.ceil(self.lease_seconds),
                AttributeNames=["ApproximateReceiveCount"],
            )
        return [
            Delivery(each["Body"].encode("utf-8", _SURROGATES), _get_delivery_count(each), each["ReceiptHandle"])
            for each in response.get("Messages", ())
        ]

    async def is_empty(self) -> bool:
        """Return whether all three message counts of SQS are 0. They may be a minute old."""
        with self._translate_errors():
            attributes = await self._get_attributes(*_MESSAGE_COUNTS)
            return not any(int(attributes[name]) for name in _MESSAGE_COUNTS)

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Restart the visibility timeout. A failure is harmless: another consumer then has the message."""
        timeout = {"VisibilityTimeout": math.ceil(self.lease_seconds)}
        entries = [entry | timeout for entry in _create_batch_entries(deliveries)]
        with self._translate_errors():
            await self._sqs.change_message_visibility_batch(QueueUrl=self._queue_url, Entries=entries)

    async def dead_letter(self, delivery: Delivery, body: bytes, reason: str) -> None:
        """Send to the dead-letter queue. The reason is an attribute; it is left out if SQS refuses it as too long."""
        del delivery
        if self._dead_letter_url is None:
            raise BrokerError(self._format_dead_letter_warning())
        message: dict[str, Any] = {"QueueUrl": self._dead_letter_url, "MessageBody": body.decode("utf-8", _SURROGATES)}
        if self._dead_letter_url.endswith(".fifo"):
            digest = hashlib.sha256(body).hexdigest()
            message |= {"MessageGroupId": "harvester", "MessageDeduplicationId": digest}
        attributes = {"reason": {"DataType": "String", "StringValue": reason}}
        with self._translate_errors():
            try:
                await self._sqs.send_message(**message, MessageAttributes=attributes)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "InvalidParameterValue":
                    raise
                await self._sqs.send_message(**message)

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Delete the messages, and retry failures once. SQS delivers a message again if its deletion fails."""
        entries = _create_batch_entries(deliveries)
        with self._translate_errors():
            for _ in range(_DELETE_ATTEMPTS):
                response = await self._sqs.delete_message_batch(QueueUrl=self._queue_url, Entries=entries)
                failed = {each["Id"] for each in response.get("Failed", ())}
                entries = [entry for entry in entries if entry["Id"] in failed]
                if not entries:
                    return

    async def close(self) -> None:
        """Close the client."""
        stack, self._stack, self._sqs = self._stack, AsyncExitStack(), None
        with suppress(Exception):  # the connection is closed in any case
            await stack.aclose()

    async def _get_attributes(self, *names: str) -> Mapping[str, str]:
        response = await self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=list(names))
        attributes: Mapping[str, str] = response.get("Attributes", {})
        return attributes

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, BotoCoreError, ClientError, OSError, ValueError) as error:
            raise create_broker_error(f"SQS, queue {self._queue_url}", error) from None


def _get_delivery_count(message: Mapping[str, Any]) -> int:
    """Return how many times a message was delivered, or 1 if an SQS-compatible server does not count."""
    return int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))


def _create_batch_entries(deliveries: Sequence[Delivery]) -> list[dict[str, Any]]:
    return [{"Id": str(index), "ReceiptHandle": each.handle} for index, each in enumerate(deliveries)]
