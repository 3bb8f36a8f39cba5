"""Azurite, Microsoft's emulator of Azure's blobs."""

import base64
import hashlib
import hmac
import http.client
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.utils import formatdate
from pathlib import Path

from tests.support.object_stores.bucket import BUCKET, Bucket
from tests.support.processes import free_port, require_program, run_server, wait_until_responding

AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key that Azurite's documentation gives for its only account."""


@contextmanager
def azurite(folder: Path) -> Iterator[Bucket]:
    """Microsoft's emulator of Azure's blobs."""
    port = free_port()
    options = ("--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence")
    folder.mkdir(parents=True)
    with run_server(
        require_program("azurite-blob"), "--blobHost", "127.0.0.1", "--blobPort", str(port), *options, cwd=folder
    ):
        wait_until_responding(port)
        account = "devstoreaccount1"
        env = {
            "AZURE_STORAGE_ACCOUNT_NAME": account,
            "AZURE_STORAGE_ACCOUNT_KEY": AZURITE_KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{account}",
            "AZURE_ALLOW_HTTP": "true",
        }
        _make_container(port, account)

        def limited(letters: str) -> dict[str, str]:
            without_key = {name: value for name, value in env.items() if name != "AZURE_STORAGE_ACCOUNT_KEY"}
            return without_key | {"AZURE_STORAGE_SAS_TOKEN": _sas(account, letters)}

        yield Bucket("azure", f"az://{BUCKET}", port, env, limited)


def _sas(account: str, letters: str) -> str:
    """Sign a SAS of the container, by Azure's documentation of service SAS."""
    ends = "2999-01-01T00:00:00Z"
    signed = [letters, "", ends, f"/blob/{account}/{BUCKET}", "", "", "", "2021-12-02", "c", *[""] * 7]
    digest = hmac.new(base64.b64decode(AZURITE_KEY), "\n".join(signed).encode(), hashlib.sha256).digest()
    fields = {"sv": "2021-12-02", "sr": "c", "sp": letters, "se": ends, "sig": base64.b64encode(digest).decode()}
    return urllib.parse.urlencode(fields)


def _make_container(port: int, account: str) -> None:
    """Create the container, by Azure's documentation of shared keys."""
    date = formatdate(usegmt=True)
    resource = f"/{account}/{account}/{BUCKET}\nrestype:container"
    signed = "PUT" + 12 * "\n" + f"x-ms-date:{date}\nx-ms-version:2021-12-02\n{resource}"
    digest = hmac.new(base64.b64decode(AZURITE_KEY), signed.encode(), hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    headers = {"x-ms-date": date, "x-ms-version": "2021-12-02", "Authorization": f"SharedKey {account}:{signature}"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        client.request("PUT", f"/{account}/{BUCKET}?restype=container", headers=headers)
        assert client.getresponse().status == 201
