"""A bucket of an object store for tests, and Amazon's client to read it."""

from collections.abc import Callable
from dataclasses import dataclass, field

ACCESS_KEY, SECRET_KEY = "lake-access-key", "lake-secret-key"
BUCKET = "lake"


@dataclass
class Bucket:
    """One bucket: its URL, the environment variables for it, and the port of its server."""

    kind: str
    url: str
    port: int
    env: dict[str, str] = field(repr=False)
    env_with_rights: Callable[[str], dict[str, str]] = field(repr=False, default=lambda _rights: {})
    """Returns the variables of a user with only these rights: a policy of IAM, or the letters of a SAS."""

    def env_through(self, port: int) -> dict[str, str]:
        """Return the variables with another port, such as that of a proxy."""
        return {name: value.replace(f":{self.port}", f":{port}") for name, value in self.env.items()}

    def read_objects(self) -> dict[str, bytes]:
        """Return all objects of the bucket, read with Amazon's library, which harvester does not use."""
        client = s3(self.port)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        names = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {name: client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}


def s3(port: int, service: str = "s3"):
    """Return a client of Amazon's own library."""
    import boto3  # noqa: PLC0415 - it takes a while, and most tests need none
    from botocore.config import Config  # noqa: PLC0415 - likewise

    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}),
    )


def aws(port: int) -> dict[str, str]:
    """Return the variables of Amazon's tools."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
