"""Object stores for tests: real servers on this machine, and a stub where there is none.

A server that is not installed is skipped, but fails in CI.
"""

from tests.support.object_stores.azure import AZURITE_KEY, azurite
from tests.support.object_stores.bucket import ACCESS_KEY, BUCKET, SECRET_KEY, Bucket, aws, s3
from tests.support.object_stores.ceph import radosgw
from tests.support.object_stores.gcs import gcs
from tests.support.object_stores.moto import moto, moto_server

STORES = {"moto": moto, "radosgw": radosgw, "azurite": azurite, "gcs": gcs}

__all__ = [
    "ACCESS_KEY",
    "AZURITE_KEY",
    "BUCKET",
    "SECRET_KEY",
    "STORES",
    "Bucket",
    "aws",
    "moto",
    "moto_server",
    "s3",
]
