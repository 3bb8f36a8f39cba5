"""Moto: S3 and SQS on threads of this process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.object_stores.bucket import BUCKET, Bucket, aws, s3


@contextmanager
def moto_server(port: int = 0) -> Iterator[int]:
    """Moto's server of S3 and SQS, on threads of this process; yields its port.

    A process of its own would import all of boto3 again, which takes longer than most tests that use it.
    """
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - it takes a while, and most tests need none

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


@contextmanager
def moto(_folder: Path) -> Iterator[Bucket]:
    """Moto's S3."""
    with moto_server() as port:
        s3(port).create_bucket(Bucket=BUCKET)
        yield Bucket("s3", f"s3://{BUCKET}", port, aws(port))
