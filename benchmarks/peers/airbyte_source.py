# /// script
# dependencies = ["airbyte-cdk==7.39.1"]
# ///
"""Airbyte CDK: a source with one stream, one slice for each pair, and an API budget that reads the headers.

The budget is a fixed window with the documented limit, updated from the headers for remaining requests and the reset.
A moving window would ignore these headers. The messages of the source are written to a file, in place of the Airbyte
platform.
"""

import csv
import json
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import requests
from airbyte_cdk.entrypoint import AirbyteEntrypoint
from airbyte_cdk.models import ConnectorSpecification
from airbyte_cdk.sources import AbstractSource
from airbyte_cdk.sources.streams.call_rate import (
    FixedWindowCallRatePolicy,
    HttpAPIBudget,
    HttpRequestMatcher,
    UnlimitedCallRatePolicy,
)
from airbyte_cdk.sources.streams.http import HttpStream
from airbyte_cdk.sources.streams.http.requests_native_auth import TokenAuthenticator


class Series(HttpStream):
    primary_key = ["campaign_id", "send_id"]
    http_method = "GET"

    def __init__(self, url: str, pairs_csv: str, **options: Any) -> None:
        self._url = url
        self._pairs_csv = pairs_csv
        super().__init__(**options)

    @property
    def url_base(self) -> str:
        return self._url

    def path(self, **_: Any) -> str:
        return "/sends/data_series"

    def get_json_schema(self) -> Mapping[str, Any]:
        return {"type": "object", "additionalProperties": True}

    def stream_slices(self, **_: Any) -> Iterable[Mapping[str, Any]]:
        with open(self._pairs_csv, newline="") as file:
            for row in csv.DictReader(file):
                yield {name: row[name] for name in ("campaign_id", "send_id")}

    def request_params(self, stream_slice: Mapping[str, Any] | None = None, **_: Any) -> Mapping[str, Any]:
        return dict(stream_slice or {}) | {"length": 15}

    def get_cursor(self) -> None:
        """Disable resuming: the state would list all pairs so far, and would be written again after each pair."""
        return

    def next_page_token(self, response: requests.Response) -> None:
        return None

    def parse_response(
        self, response: requests.Response, *, stream_slice: Mapping[str, Any] | None = None, **_: Any
    ) -> Iterable[Mapping[str, Any]]:
        yield dict(stream_slice or {}) | response.json()


class Source(AbstractSource):
    def __init__(self, stream: Series) -> None:
        self._stream = stream

    def check_connection(self, logger: Any, config: Mapping[str, Any]) -> tuple[bool, None]:
        return True, None

    def streams(self, config: Mapping[str, Any]) -> list[Series]:
        return [self._stream]

    def spec(self, logger: Any) -> ConnectorSpecification:
        return ConnectorSpecification(connectionSpecification={"type": "object"})


def main(url: str, pairs_csv: str, out: str, max_requests: int, seconds: float) -> None:
    matchers = [HttpRequestMatcher(method="GET", url=url)]
    period = timedelta(seconds=seconds)
    window = FixedWindowCallRatePolicy(datetime.now() + period, period, max_requests, matchers)
    budget = HttpAPIBudget(
        policies=[window if max_requests else UnlimitedCallRatePolicy(matchers)],
        ratelimit_reset_header="X-RateLimit-Reset",
        ratelimit_remaining_header="X-RateLimit-Remaining",
    )
    token = TokenAuthenticator(os.environ["BRAZE_API_KEY"])
    stream = Series(url, pairs_csv, authenticator=token, api_budget=budget)
    os.makedirs(out)
    config, catalog = os.path.join(out, "config.json"), os.path.join(out, "catalog.json")
    configured_stream = {"stream": {"name": "series", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}}
    with open(config, "w") as file:
        json.dump({}, file)
    with open(catalog, "w") as file:
        json.dump(
            {"streams": [configured_stream | {"sync_mode": "full_refresh", "destination_sync_mode": "append"}]}, file
        )
    entrypoint = AirbyteEntrypoint(Source(stream))
    arguments = entrypoint.parse_args(["read", "--config", config, "--catalog", catalog])
    with open(os.path.join(out, "messages.ndjson"), "w") as file:
        file.writelines(f"{message}\n" for message in entrypoint.run(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5]))
