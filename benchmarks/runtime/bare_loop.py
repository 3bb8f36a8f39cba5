"""The simplest possible harvester: 64 aiohttp tasks, orjson, one NDJSON file, and no safety.

It has no ledger, no pacing, no retry and no compression: what a careful engineer writes in ten minutes, and the
yardstick of ``speed.py``. Its requests and rows equal harvester's. Run ``python bare_loop.py URL PAIRS.csv
OUT.ndjson``.
"""

import asyncio
import csv
import sys
from datetime import UTC, datetime

import aiohttp
import orjson

TASKS = 64


def rows(campaign_id: str, send_id: str, captured_at: str, answer: dict) -> bytes:
    """Give the rows of one answer: one per variation and one per day."""
    fixed = {"workspace": "default", "campaign_id": campaign_id, "send_id": send_id}
    rest = {"reading": "once", "captured_at": captured_at, "verdict": "activity", "batch_id": "none"}
    lines = []
    for day in answer["data"]:
        date = day.pop("time")
        for channel, variations in day.pop("messages").items():
            for variation in variations:
                name = variation.pop("variation_name", None)
                place = {"date": date, "level": "variation", "channel": channel, "variation_name": name}
                lines.append(orjson.dumps(fixed | place | rest | variation))
        lines.append(orjson.dumps(fixed | {"date": date, "level": "day"} | rest | day))
    lines.append(b"")
    return b"\n".join(lines)


async def main(url: str, pairs_csv: str, out: str) -> None:
    """Ask for every pair of the file and write its rows."""
    with open(pairs_csv, newline="") as file:
        pairs = iter([(row["campaign_id"], row["send_id"]) for row in csv.DictReader(file)])
    with open(out, "wb") as sink:
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer key"}) as session:

            async def work() -> None:
                for campaign_id, send_id in pairs:
                    params = {"campaign_id": campaign_id, "send_id": send_id, "length": "15"}
                    async with session.get(url, params=params) as response:
                        answer = orjson.loads(await response.read())
                    sink.write(rows(campaign_id, send_id, datetime.now(UTC).isoformat(), answer))

            await asyncio.gather(*(work() for _ in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
