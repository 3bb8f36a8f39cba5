"""Create the bucket when the store responds, unless it exists."""

import contextlib

import boto3
from botocore.config import Config

store = boto3.client("s3", config=Config(retries={"total_max_attempts": 20, "mode": "standard"}))
with contextlib.suppress(store.exceptions.BucketAlreadyOwnedByYou):
    store.create_bucket(Bucket="lake")
