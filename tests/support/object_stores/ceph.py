"""Ceph's gateway, with one monitor and one storage daemon in memory."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.object_stores.bucket import ACCESS_KEY, BUCKET, SECRET_KEY, Bucket, aws, s3
from tests.support.processes import ServerEnded, free_port, require_program, run_server, wait_until_responding

_CONFIG = """
[global]
fsid = {cluster_id}
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
[mon]
# How long the monitor collects changes before it applies them. The first start makes a dozen, one after another.
paxos_propose_interval = 0.01
paxos_min_wait = 0.01
[osd]
# These updates can reach the monitor before it has the cluster's id. The daemon would end with "wrong fsid".
osd_class_update_on_start = false
osd_crush_update_on_start = false
[client.rgw]
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_thread_pool_size = 32
"""
_USER = ("--setuser", "root", "--setgroup", "root")


@contextmanager
def radosgw(folder: Path) -> Iterator[Bucket]:
    """Ceph's gateway, restarted if one of its daemons ends: another suite may have taken its port."""
    for attempt in range(3):
        with ExitStack() as stack:
            try:
                bucket = stack.enter_context(_start_ceph(folder / str(attempt)))
            except ServerEnded:
                continue
            yield bucket
            return
    pytest.fail("radosgw did not start three times", pytrace=False)


@contextmanager
def _start_ceph(folder: Path) -> Iterator[Bucket]:
    """Start the three daemons; yield the gateway's bucket."""
    cluster = _Cluster(folder, str(uuid.uuid4()), free_port(), free_port())
    monitor, storage, gateway = require_program("ceph-mon"), require_program("ceph-osd"), require_program("radosgw")
    cluster.write_config()
    cluster.create_monitor(monitor)
    with run_server(monitor, *cluster.config, "-i", "a", "-f", *_USER):
        cluster.create_storage(storage)
        with (
            run_server(storage, *cluster.config, "-i", "0", "-f", *_USER) as storing,
            run_server(gateway, *cluster.config, "-n", "client.rgw", "-f") as serving,
        ):
            wait_until_responding(cluster.port, storing, serving, seconds=120)
            cluster.create_buckets()
            yield Bucket("s3", f"s3://{BUCKET}", cluster.port, aws(cluster.port), cluster.create_limited_user)


@dataclass
class _Cluster:
    """The files and the ports of a cluster, and the steps that create its parts."""

    folder: Path
    cluster_id: str
    monitor_port: int
    port: int

    @property
    def config(self) -> tuple[str, str]:
        """The options of every program of Ceph."""
        return "-c", str(self.folder / "ceph.conf")

    def write_config(self) -> None:
        """Write the configuration, and create the folders that it names."""
        for name in ("mon", "osd", "rgw"):
            (self.folder / name).mkdir(parents=True)
        text = _CONFIG.format(
            cluster_id=self.cluster_id, mon_port=self.monitor_port, port=self.port, folder=self.folder
        )
        (self.folder / "ceph.conf").write_text(text)

    def create_monitor(self, program: str) -> None:
        """Create the monitor's map and data."""
        monitors, address = f"{self.folder}/monmap", f"[v1:127.0.0.1:{self.monitor_port}]"
        _run_tool("monmaptool", "--create", "--fsid", self.cluster_id, "--addv", "a", address, monitors)
        _run_tool(program, *self.config, "-i", "a", "--mkfs", "--monmap", monitors, *_USER)

    def create_storage(self, program: str) -> None:
        """Register the storage daemon with the monitor, and create its data."""
        disk = str(uuid.uuid4())
        _run_tool("ceph", *self.config, "osd", "new", disk)
        _run_tool("ceph", *self.config, "osd", "crush", "add", "osd.0", "1.0", "root=default")
        _run_tool(program, *self.config, "-i", "0", "--mkfs", "--osd-uuid", disk, *_USER)

    def create_buckets(self) -> None:
        """Create the owner and the bucket, and another bucket with an object: Ceph creates its pools for the first."""
        keys = (f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}", "--caps=user-policy=*")
        self._create_user("lake", *keys)
        client = s3(self.port)
        client.create_bucket(Bucket=BUCKET)
        client.create_bucket(Bucket="first")
        client.put_object(Bucket="first", Key="object")

    def create_limited_user(self, policy: str) -> dict[str, str]:
        """Create a user with only the rights of a policy; return its variables."""
        name = f"user-{uuid.uuid4()}"
        self._create_user(name, f"--access-key={name}", "--secret-key=limited")
        s3(self.port, "iam").put_user_policy(UserName=name, PolicyName="harvester", PolicyDocument=policy)
        return aws(self.port) | {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": "limited"}

    def _create_user(self, name: str, *options: str) -> None:
        named = (f"--uid={name}", f"--display-name={name}")
        _run_tool("radosgw-admin", *self.config, "user", "create", *named, *options)


def _run_tool(*command: str) -> None:
    """Run one of Ceph's programs; a starting monitor may refuse it at first."""
    for _ in range(3):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        if done.returncode == 0:
            return
    raise AssertionError(f"{' '.join(command)}: {done.stderr}")
