# /// script
# dependencies = ["aiohttp==3.14.5", "aiolimiter==1.3.0", "tenacity==9.2.1"]
# ///
"""aiohttp with aiolimiter and tenacity, a common combination: a leaky bucket, and five attempts with backoff."""

import asyncio
import contextlib
import csv
import json
import os
import sys

import aiohttp
from aiolimiter import AsyncLimiter
from tenacity import RetryError, retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

TASKS = 64


class RetryableError(Exception):
    """The server responded with a 429 or a 5xx."""


async def main(url: str, pairs_csv: str, out: str, max_requests: int, seconds: float) -> None:
    limiter = AsyncLimiter(max_requests, seconds) if max_requests else contextlib.nullcontext()

    @retry(
        retry=retry_if_exception_type((RetryableError, aiohttp.ClientError, TimeoutError)),
        wait=wait_random_exponential(multiplier=1, max=30),
        stop=stop_after_attempt(5),
    )
    async def request_series(session: aiohttp.ClientSession, pair: dict) -> dict:
        async with limiter, session.get("/sends/data_series", params=pair | {"length": "15"}) as response:
            if response.status == 429 or response.status >= 500:
                raise RetryableError(response.status)
            response.raise_for_status()
            return await response.json()

    with open(pairs_csv, newline="") as file:
        pairs = iter([{name: row[name] for name in ("campaign_id", "send_id")} for row in csv.DictReader(file)])
    headers = {"Authorization": f"Bearer {os.environ['BRAZE_API_KEY']}"}
    os.makedirs(out)
    with open(os.path.join(out, "responses.ndjson"), "w") as sink:
        async with aiohttp.ClientSession(url, headers=headers) as session:

            async def work() -> None:
                for pair in pairs:
                    try:
                        series = await request_series(session, pair)
                    except RetryError as error:
                        print(pair, error, file=sys.stderr)
                        continue
                    sink.write(json.dumps(pair | series) + "\n")

            await asyncio.gather(*(work() for _ in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])))
