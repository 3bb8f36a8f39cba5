"""Object stores for tests: real servers, started on this machine. What is missing is skipped, but fails in CI."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import logging
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

import boto3
import pytest
from aiohttp import web
from botocore.config import Config

ACCESS_KEY, SECRET_KEY = "lake-access-key", "lake-secret-key"
BUCKET = "lake"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key that Azurite's documentation gives for its only account."""


@dataclass
class Bucket:
    """One store: its URL, the variables that lead there, and its address for a proxy."""

    kind: str
    url: str
    port: int
    env: dict[str, str] = field(repr=False)
    limited: Callable[[str], dict[str, str]] = field(repr=False, default=lambda _rights: {})
    """Gives the variables of one with these rights alone: a policy of IAM, or the letters of a SAS."""

    def through(self, port: int) -> dict[str, str]:
        """The same variables, leading to another port of this machine."""
        return {name: value.replace(f":{self.port}", f":{port}") for name, value in self.env.items()}

    def objects(self) -> dict[str, bytes]:
        """Everything in the bucket, read by another library than ours."""
        client = s3(self.port)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        names = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {name: client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}


def s3(port: int, service: str = "s3"):
    """Return a client of Amazon's own library."""
    return boto3.client(
        service, endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip


def require_program(program: str) -> str:
    """Find a server's program. If it is missing, CI fails and a developer's shell skips."""
    found = shutil.which(program)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{program} is not installed, and CI must not skip", pytrace=False)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def httpfs() -> Path:
    """Return the folder of DuckDB with its extension httpfs, which needs its own version."""
    folder = Path(__file__).parent.parent.parent / ".httpfs"
    missing = f"{folder.name} is missing: pip install --target .httpfs duckdb-extension-httpfs"
    if not folder.is_dir() and os.environ.get("CI"):
        pytest.fail(f"{missing}, and CI must not skip", pytrace=False)
    if not folder.is_dir():
        pytest.skip(missing)
    return folder


def free_port() -> int:
    """Return a port that is free and outside the range of outgoing connections, so that it stays free.

    A killed server finds it again, and a client that tries it meanwhile is not connected to itself.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class ServerEnded(Exception):  # noqa: N818 - it says what happened
    """A server ended before it answered."""


def answers(port: int, *servers: subprocess.Popen, seconds: float = 60.0) -> None:
    """Wait until a server answers at all. Raises ``ServerEnded`` when one of those it needs has ended."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            if any(server.poll() is not None for server in servers):
                raise ServerEnded from None
            if time.monotonic() > end:
                raise
            threading.Event().wait(0.1)
        else:
            return


def aws(port: int) -> dict[str, str]:
    """Return the variables of Amazon's tools."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }  # fmt: skip


@contextmanager
def running(*command: str, **options) -> Iterator[subprocess.Popen]:
    """Run a server as a child process, killed at the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def moto_server(port: int = 0) -> Iterator[int]:
    """Moto's server of S3 and SQS, on threads of this process; gives its port.

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


@contextmanager
def radosgw(folder: Path) -> Iterator[Bucket]:
    """Ceph's gateway, restarted if one of its daemons ends: another suite may have taken a port meanwhile."""
    for attempt in range(3):
        with ExitStack() as stack:
            try:
                bucket = stack.enter_context(_ceph(folder / str(attempt)))
            except ServerEnded:
                continue
            yield bucket
            return
    pytest.fail("radosgw did not start three times", pytrace=False)


@contextmanager
def _ceph(folder: Path) -> Iterator[Bucket]:
    """One monitor, one storage daemon in memory, one gateway."""
    mon, osd, gateway = require_program("ceph-mon"), require_program("ceph-osd"), require_program("radosgw")
    mon_port, port, cluster, disk = free_port(), free_port(), str(uuid.uuid4()), str(uuid.uuid4())
    conf, user = str(folder / "ceph.conf"), ("--setuser", "root", "--setgroup", "root")
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    Path(conf).write_text(f"""
[global]
fsid = {cluster}
mon_host = v1:127.0.0.1:{mon_port}
public_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
run_dir = {folder}
log_file = {folder}/$name.log
admin_socket = {folder}/$name.asok
mon_data = {folder}/mon
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824
[osd]
# What it would tell the monitor itself, at times before it knows which cluster this is: "wrong fsid", and it ends.
osd_class_update_on_start = false
osd_crush_update_on_start = false
[client.rgw]
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_thread_pool_size = 32
""")

    def tool(*command: str) -> None:
        """Run one of Ceph's programs; a starting monitor may refuse it at first."""
        for _ in range(3):
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
            if done.returncode == 0:
                return
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")

    address = f"[v1:127.0.0.1:{mon_port}]"
    tool("monmaptool", "--create", "--fsid", cluster, "--addv", "a", address, f"{folder}/monmap")
    tool(mon, "-c", conf, "-i", "a", "--mkfs", "--monmap", f"{folder}/monmap", *user)
    with running(mon, "-c", conf, "-i", "a", "-f", *user):
        tool("ceph", "-c", conf, "osd", "new", disk)
        tool("ceph", "-c", conf, "osd", "crush", "add", "osd.0", "1.0", "root=default")
        tool(osd, "-c", conf, "-i", "0", "--mkfs", "--osd-uuid", disk, *user)
        with (
            running(osd, "-c", conf, "-i", "0", "-f", *user) as disks,
            running(gateway, "-c", conf, "-n", "client.rgw", "-f") as door,
        ):
            answers(port, disks, door, seconds=120)
            admin = ("radosgw-admin", "-c", conf)
            owner = (f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}", "--caps=user-policy=*")
            tool(*admin, "user", "create", "--uid=lake", "--display-name=lake", *owner)
            s3(port).create_bucket(Bucket=BUCKET)
            s3(port).create_bucket(Bucket="first")
            s3(port).put_object(Bucket="first", Key="object")  # for the first of all objects Ceph makes its pools

            def limited(policy: str) -> dict[str, str]:
                name = f"user-{uuid.uuid4()}"
                tool(*admin, "user", "create", f"--uid={name}", "--display-name=x", f"--access-key={name}",
                     "--secret-key=limited")  # fmt: skip
                iam = s3(port, "iam")
                iam.put_user_policy(UserName=name, PolicyName="harvester", PolicyDocument=policy)
                return aws(port) | {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": "limited"}

            yield Bucket("s3", f"s3://{BUCKET}", port, aws(port), limited)


@contextmanager
def azurite(folder: Path) -> Iterator[Bucket]:
    """Microsoft's emulator of Azure's blobs."""
    port = free_port()
    options = ("--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence")
    folder.mkdir(parents=True)
    with running(
        require_program("azurite-blob"), "--blobHost", "127.0.0.1", "--blobPort", str(port), *options, cwd=folder
    ):
        answers(port)
        account = "devstoreaccount1"
        env = {
            "AZURE_STORAGE_ACCOUNT_NAME": account, "AZURE_STORAGE_ACCOUNT_KEY": AZURITE_KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{account}", "AZURE_ALLOW_HTTP": "true",
        }  # fmt: skip
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


@contextmanager
def gcs(folder: Path) -> Iterator[Bucket]:
    """A stub of the precondition of GCS: no server of its XML interface is available."""
    objects: dict[str, bytes] = {}

    async def put(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        data = await request.read()
        if request.headers.get("x-goog-if-generation-match") == "0" and name in objects:
            return web.Response(status=412, text="<Error><Code>PreconditionFailed</Code></Error>")
        objects[name] = data
        return web.Response(headers={"ETag": '"1"', "x-goog-generation": "1"})

    async def get(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in objects:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        return web.Response(
            body=objects[name], headers={"ETag": '"1"', "Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"}
        )

    async def listed(request: web.Request) -> web.Response:
        names = sorted(name for name in objects if name.startswith(request.query.get("prefix", "")))
        entries = "".join(
            f"<Contents><Key>{name}</Key><Size>{len(objects[name])}</Size><ETag>&quot;1&quot;</ETag>"
            "<LastModified>2026-11-24T00:00:00.000Z</LastModified></Contents>" for name in names
        )  # fmt: skip
        return web.Response(text=f"<ListBucketResult>{entries}</ListBucketResult>", content_type="application/xml")

    app = web.Application()
    app.router.add_put(f"/{BUCKET}/{{name:.+}}", put)
    app.router.add_get(f"/{BUCKET}/{{name:.+}}", get)
    app.router.add_get(f"/{BUCKET}", listed)
    app.router.add_get(f"/{BUCKET}/", listed)
    folder.mkdir(parents=True)
    with serve_app(app) as port:
        account = folder / "account.json"
        account.write_text(json.dumps({
            "gcs_base_url": f"http://127.0.0.1:{port}", "disable_oauth": True,
            "client_email": "", "private_key": "", "private_key_id": "",
        }))  # fmt: skip
        env = {"GOOGLE_SERVICE_ACCOUNT": str(account), "GOOGLE_ALLOW_HTTP": "true"}
        yield Bucket("gcs", f"gs://{BUCKET}", port, env)


@contextmanager
def serve_app(app: web.Application) -> Iterator[int]:
    """Serve an application on a loop and thread of its own; yield its port."""
    loop, ports = asyncio.new_event_loop(), []
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        ready.set()
        await done.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


STORES = {"moto": moto, "radosgw": radosgw, "azurite": azurite, "gcs": gcs}
