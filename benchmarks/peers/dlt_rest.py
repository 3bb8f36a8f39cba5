# /// script
# dependencies = ["dlt==1.31.0"]
# ///
"""dlt: a transformer over the list, its REST client, threads with ``dlt.defer``, and files as the destination.

dlt has no setting for a rate limit. Its client retries a 429 up to five times, with backoff. Responses are stored
without child tables, which is the fastest configuration.
"""

import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth


def main(url: str, pairs_csv: str, out: str) -> None:
    client = RESTClient(base_url=url, auth=BearerTokenAuth(os.environ["BRAZE_API_KEY"]))

    @dlt.resource
    def pairs() -> Iterator[dict]:
        with open(pairs_csv, newline="") as file:
            for row in csv.DictReader(file):
                yield {name: row[name] for name in ("campaign_id", "send_id")}

    @dlt.transformer(data_from=pairs, max_table_nesting=0)
    @dlt.defer
    def series(pair: dict) -> dict:
        response = client.get("/sends/data_series", params=pair | {"length": 15})
        response.raise_for_status()
        return pair | response.json()

    folder = Path(out).absolute()
    pipeline = dlt.pipeline(
        "series",
        destination=dlt.destinations.filesystem(bucket_url=folder.as_uri()),
        dataset_name="braze",
        pipelines_dir=str(folder / "state"),
    )
    pipeline.run(series(), loader_file_format="jsonl")


if __name__ == "__main__":
    main(*sys.argv[1:4])
