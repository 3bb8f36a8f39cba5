"""The simplest possible harvester: 64 aiohttp tasks, orjson, one NDJSON file, and no safety.

It has no ledger, no pacing, no retries and no compression. ``speed.py`` compares the other clients with it. It sends
the same requests and writes the same rows as harvester. Run ``python bare_loop.py URL PAIRS.csv OUT.ndjson [RATE]``;
``RATE`` is the maximum number of requests per second.
"""

import asyncio
import csv
import sys
from datetime import UTC, datetime

import aiohttp
import orjson

TASKS = 64


def encode_rows(campaign_id: str, send_id: str, captured_at: str, series: dict) -> bytes:
    """Return the rows of one response: one per variation and one per day."""
    pair = {"workspace": "default", "campaign_id": campaign_id, "send_id": send_id}
    capture = {"reading": "once", "captured_at": captured_at, "verdict": "activity", "batch_id": "none"}
    lines = []
    for day in series["data"]:
        date = day.pop("time")
        for channel, variations in day.pop("messages").items():
            for variation in variations:
                name = variation.pop("variation_name", None)
                variation_key = {"date": date, "level": "variation", "channel": channel, "variation_name": name}
                lines.append(orjson.dumps(pair | variation_key | capture | variation))
        lines.append(orjson.dumps(pair | {"date": date, "level": "day"} | capture | day))
    lines.append(b"")
    return b"\n".join(lines)


async def main(url: str, pairs_csv: str, out: str, rate: str = "inf") -> None:
    """Request every pair of the file and write its rows."""
    with open(pairs_csv, newline="") as file:
        pairs = iter([(row["campaign_id"], row["send_id"]) for row in csv.DictReader(file)])
    next_at, gap = asyncio.get_running_loop().time(), 1 / float(rate)
    with open(out, "wb") as sink:
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer key"}) as session:

            async def work() -> None:
                nonlocal next_at
                for campaign_id, send_id in pairs:
                    if gap:
                        next_at += gap
                        await asyncio.sleep(next_at - asyncio.get_running_loop().time())
                    params = {"campaign_id": campaign_id, "send_id": send_id, "length": "15"}
                    async with session.get(url, params=params) as response:
                        series = orjson.loads(await response.read())
                    sink.write(encode_rows(campaign_id, send_id, datetime.now(UTC).isoformat(), series))

            await asyncio.gather(*(work() for _ in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
