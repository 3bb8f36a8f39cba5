"""Amazon SQS for tests, simulated by moto."""

import contextlib
from pathlib import Path
from typing import Any

import boto3

from tests.support.brokers.broker_server import DAY_SECONDS, LEASE_SECONDS, BrokerServer
from tests.support.object_stores import ACCESS_KEY, SECRET_KEY, moto_server


class SQS(BrokerServer):
    """Moto's SQS. It stores nothing on disk, so it is not killed; only the connection is interrupted."""

    kind = "sqs"

    def __init__(self, folder: Path) -> None:
        """Start it."""
        del folder
        self.interrupted = False
        self._stack = contextlib.ExitStack()
        port = self.port = self._stack.enter_context(moto_server())
        self.url = f"http://127.0.0.1:{port}"
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        self._sqs = boto3.client("sqs", endpoint_url=self.url, region_name="us-east-1", **keys)

    def options(self, name: str) -> dict[str, Any]:
        """See ``BrokerServer``."""
        return {"queue_url": self._get_queue_url(name), "dead_letter": None, "lease_seconds": LEASE_SECONDS}

    def _get_queue_url(self, name: str) -> str:
        return f"{self.url}/123456789012/{name}"

    async def create_queue(self, name: str, *, dead_letters: bool = True) -> None:
        """See ``BrokerServer``."""
        self._sqs.create_queue(QueueName=name, Attributes={"MessageRetentionPeriod": str(14 * DAY_SECONDS)})
        if dead_letters:
            await self.create_dead_letter_queue(name)

    async def create_dead_letter_queue(self, name: str) -> None:
        """Create the queue and name it in the redrive policy."""
        self._sqs.create_queue(QueueName=f"{name}-dead")
        policy = f'{{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:{name}-dead", "maxReceiveCount": "20"}}'
        self._sqs.set_queue_attributes(QueueUrl=self._get_queue_url(name), Attributes={"RedrivePolicy": policy})

    async def shorten_retention(self, name: str) -> None:
        """See ``BrokerServer``."""
        days = {"MessageRetentionPeriod": str(4 * DAY_SECONDS)}
        self._sqs.set_queue_attributes(QueueUrl=self._get_queue_url(name), Attributes=days)

    async def send(self, name: str, *bodies: bytes) -> None:
        """See ``BrokerServer``."""
        for first in range(0, len(bodies), 10):
            entries = [
                {"Id": str(at), "MessageBody": each.decode()} for at, each in enumerate(bodies[first : first + 10])
            ]
            self._sqs.send_message_batch(QueueUrl=self._get_queue_url(name), Entries=entries)

    async def list_dead_letters(self, name: str) -> list[tuple[bytes, str]]:
        """See ``BrokerServer``."""
        found = []
        arguments = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]}
        while messages := self._sqs.receive_message(QueueUrl=self._get_queue_url(f"{name}-dead"), **arguments).get(
            "Messages"
        ):
            found += [(each["Body"].encode(), each["MessageAttributes"]["reason"]["StringValue"]) for each in messages]
        return found

    async def count_messages(self, name: str) -> int:
        """See ``BrokerServer``."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        response = self._sqs.get_queue_attributes(QueueUrl=self._get_queue_url(name), AttributeNames=names)
        return sum(map(int, response["Attributes"].values()))

    async def wait_until_ready(self) -> None:
        """Return immediately: it accepts connections from the start."""

    def choose_fate(self, _method: str, _target: str) -> str | None:
        """Return what happens to a request, see ``TcpProxy``."""
        return "before" if self.interrupted else None

    def interrupt(self) -> None:
        """Interrupt the connection."""
        self.interrupted = True

    async def restore(self) -> None:
        """Restore the connection."""
        self.interrupted = False

    def close(self) -> None:
        """Stop it."""
        self._stack.close()
