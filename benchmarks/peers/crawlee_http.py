# /// script
# dependencies = ["crawlee==1.11.0"]
# ///
"""Crawlee: an HttpCrawler with a limit of tasks per minute, which stores responses in its dataset."""

import asyncio
import csv
import json
import os
import sys
from datetime import timedelta
from urllib.parse import urlencode

from crawlee import ConcurrencySettings, Request
from crawlee.configuration import Configuration
from crawlee.crawlers import HttpCrawler, HttpCrawlingContext
from crawlee.storage_clients import MemoryStorageClient


async def main(url: str, pairs_csv: str, out: str, max_requests: int, seconds: float) -> None:
    rate_limit = {"max_tasks_per_minute": max_requests / seconds * 60} if max_requests else {}
    crawler = HttpCrawler(
        concurrency_settings=ConcurrencySettings(desired_concurrency=16, max_concurrency=64, **rate_limit),
        storage_client=MemoryStorageClient(),
        configuration=Configuration(purge_on_start=True, log_level="WARNING"),
        request_handler_timeout=timedelta(seconds=30),
    )

    @crawler.router.default_handler
    async def series(context: HttpCrawlingContext) -> None:
        response = json.loads(await context.http_response.read())
        await context.push_data(context.request.user_data["pair"] | response)

    headers = {"Authorization": f"Bearer {os.environ['BRAZE_API_KEY']}"}
    requests = []
    with open(pairs_csv, newline="") as file:
        for row in csv.DictReader(file):
            pair = {name: row[name] for name in ("campaign_id", "send_id")}
            request_url = f"{url}/sends/data_series?{urlencode(pair | {'length': 15})}"
            requests.append(Request.from_url(request_url, headers=headers, user_data={"pair": pair}))
    await crawler.run(requests)
    os.makedirs(out)
    await crawler.export_data(os.path.join(out, "responses.json"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])))
