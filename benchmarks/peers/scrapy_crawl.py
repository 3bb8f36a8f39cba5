# /// script
# dependencies = ["scrapy==2.19.0"]
# ///
"""Scrapy: a spider over the list and a feed of NDJSON, with AutoThrottle if there is a rate limit.

AutoThrottle adapts to latency, not to quotas. It has its default settings except for two: the start delay, which would
be five seconds, and the number of requests in flight, if the command contains one. Without a limit, the concurrency is
that of the other clients.
"""

import csv
import os
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import scrapy
from scrapy.crawler import CrawlerProcess


class Series(scrapy.Spider):
    name = "series"

    async def start(self) -> AsyncIterator[scrapy.Request]:
        headers = {"Authorization": f"Bearer {os.environ['BRAZE_API_KEY']}"}
        with open(self.pairs_csv, newline="") as file:
            for row in csv.DictReader(file):
                pair = {name: row[name] for name in ("campaign_id", "send_id")}
                url = f"{self.url}/sends/data_series?{urlencode(pair | {'length': 15})}"
                yield scrapy.Request(url, headers=headers, cb_kwargs={"pair": pair})

    def parse(self, response: scrapy.http.Response, pair: dict) -> dict:
        return pair | response.json()


def main(url: str, pairs_csv: str, out: str, max_requests: int, in_flight: float = 1.0) -> None:
    throttled = {
        "AUTOTHROTTLE_ENABLED": True,
        "AUTOTHROTTLE_START_DELAY": 0.1,
        "AUTOTHROTTLE_TARGET_CONCURRENCY": in_flight,
    }
    unlimited = {"CONCURRENT_REQUESTS": 64, "CONCURRENT_REQUESTS_PER_DOMAIN": 64}
    common = {
        "FEEDS": {f"{out}/responses.ndjson": {"format": "jsonlines"}},
        "LOG_LEVEL": "WARNING",
        "TELNETCONSOLE_ENABLED": False,
    }
    process = CrawlerProcess(common | (throttled if max_requests else unlimited))
    process.crawl(Series, url=url, pairs_csv=pairs_csv)
    process.start()


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), *map(float, sys.argv[6:]))
