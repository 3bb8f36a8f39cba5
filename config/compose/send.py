"""Send one message for each 50 lines of /data/pairs.csv, then an invalid message."""

import asyncio
import csv
import json
from pathlib import Path

import aio_pika

URL = Path("/run/secrets/rabbitmq_url").read_text().strip()
PAIRS = list(csv.DictReader(Path("/data/pairs.csv").read_text().splitlines()))


async def send(bodies: list[dict]) -> None:
    """Send messages, and wait until the broker has confirmed each."""
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel(publisher_confirms=True)
        for body in bodies:
            message = aio_pika.Message(json.dumps(body).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key="sends")


lists = [{"version": 1, "pairs": PAIRS[start : start + 50]} for start in range(0, len(PAIRS), 50)]
asyncio.run(send([*lists, {"version": 1, "campaign": "misspelt"}]))
print(f"sent {len(PAIRS)} sends in {len(lists)} messages, and one invalid message")
