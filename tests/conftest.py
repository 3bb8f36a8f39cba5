"""Fixtures: harvester as a process, object stores and brokers."""

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import structlog
import zstandard
from hypothesis import settings

from harvester.observability import redaction
from harvester.settings import layers
from tests.support import compiled_statements, quick_collection, warm_process
from tests.support.brokers import start_broker_server
from tests.support.ledger_file import DATABASES
from tests.support.object_stores import STORES, Bucket
from tests.support.secret_canary import KEY, RecordedProcess, captured_output, find_leaks
from tests.support.warm_process import WarmProcess

settings.register_profile("short", deadline=None)
settings.register_profile("long", deadline=None, max_examples=20_000)
settings.load_profile("short")
compiled_statements.share()
structlog.configure([  # the default renderer is for terminals, and takes a tenth of the time of an engine's test
    structlog.contextvars.merge_contextvars, structlog.processors.add_log_level,
    structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer(),
])  # fmt: skip
quick_collection.allow_cache()


MEMORY_DISK, ROOM_BYTES = Path("/dev/shm"), 2 << 30  # Linux keeps a file system in memory there


def pytest_configure(config):
    """Keep the folders of tests in memory, where every flush is quick, unless the user chose a folder.

    The workers of the whole suite share a server of warm processes.
    """
    chosen = config.option.basetemp or "TMPDIR" in os.environ
    if not chosen and os.access(MEMORY_DISK, os.W_OK) and shutil.disk_usage(MEMORY_DISK).free >= ROOM_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY_DISK)
    if hasattr(config, "workerinput"):
        warm_process.use_shared_server()
    elif config.option.numprocesses and quick_collection.runs_whole_suite(config):
        warm_process.share_server()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session):
    """Collect quickly, and share the work with the other workers."""
    with quick_collection.without_garbage_collection():
        quick_collection.import_share(session.config)
        return (yield)


class RecordedWarmProcess(WarmProcess):
    """A warm process whose output is searched for secrets when the test has ended."""

    def communicate(self, stdin: bytes = b"") -> tuple[bytes, bytes]:
        """Wait for the process to end, and record its output."""
        written = super().communicate(stdin)
        captured_output.extend(written)
        return written


class Command:
    """``harvester`` as a user runs it, with the key in the environment."""

    def __init__(self, folder: Path) -> None:
        """Run in ``folder``."""
        self.folder = folder
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "BRAZE_API_KEY": KEY}

    def command(self, *arguments: str) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", "harvester", *arguments]

    def start(self, *arguments: str, inside: Sequence[str] = (), **options) -> subprocess.Popen:
        """Start a process, as an argument of the command ``inside`` if given."""
        return RecordedProcess(
            [*inside, *self.command(*arguments)], cwd=self.folder, env=self.env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def start_warm(self, *arguments: str, **options) -> WarmProcess:
        """Start a process that has already imported everything, see ``WarmProcess``."""
        return RecordedWarmProcess(self.folder, self.env, *arguments, **options)

    async def run(
        self, *arguments: str, stdin: bytes | None = None, inside: Sequence[str] = ()
    ) -> tuple[int, str, str]:
        """Run to the end in a thread, since the stand-in may run on this loop; warm, unless ``inside`` is given."""
        if inside:
            process = self.start(*arguments, inside=inside, stdin=subprocess.PIPE)
            out, err = await asyncio.to_thread(process.communicate, stdin)
            return process.returncode, out.decode(), err.decode()
        process = await asyncio.to_thread(self.start_warm, *arguments)
        out, err = await asyncio.to_thread(process.communicate, stdin or b"")
        return process.returncode, out.decode(), err.decode()


@pytest.fixture(autouse=True)
def _process_state():
    """Put back what a command sets up for the whole process, since a test may run one in this process."""
    config, logging_handlers = structlog.get_config(), logging.getLogger().handlers
    hook, terminate, network = sys.excepthook, signal.getsignal(signal.SIGTERM), layers._network_in_use[:]
    secrets = set(redaction._registered)
    yield
    if redaction._registered != secrets:  # a random secret of one test may be a word in the texts of another
        for registry in (redaction._registered, redaction._blocks, redaction._short_pattern):
            registry.clear()
        redaction._scrub_cached.cache_clear()
        for secret in secrets:
            redaction.register_secret(secret)
    sys.excepthook, layers._network_in_use[:] = hook, network
    signal.signal(signal.SIGTERM, terminate)
    structlog.configure(**config)
    logging.getLogger().handlers = logging_handlers


@pytest.fixture
def harvester(tmp_path):
    """Return the command, in its own folder."""
    return Command(tmp_path)


def read_rows(folder: Path) -> list[dict]:
    """Return all rows of all parts of a folder."""
    rows = []
    for part in sorted(folder.glob("send_analytics/*/*.ndjson.zst")):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(part.read_bytes())
        rows += [json.loads(line) for line in data.split(b"\n") if line]
    return rows


def pytest_make_parametrize_id(val, argname):
    """Name a long value by its length: ids of megabytes would go from process to process with every report."""
    return f"{argname} of {len(val)}" if isinstance(val, str | bytes) and len(val) > 200 else None


FIRST_GROUPS = ("moto", "postgresql", "rabbitmq", "sqs", "redis", "nats", "month", "azurite", "radosgw")
FIRST_FOLDERS = (
    "tests/system/",
    "tests/service/",
    "tests/conformance/",
    "tests/ledger/",
    "tests/commands/",
    "tests/monitor/",
)


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items):
    """Run the tests of each object store, broker and database in one process: each server starts only once.

    Long groups come first, and then long tests: a process that began a long one last would delay the end.
    """
    for item in items:
        if server := _find_server(item):
            item.add_marker(pytest.mark.xdist_group(server))
    items.sort(key=_get_rank)


def _find_server(item: pytest.Item) -> str | None:
    """Return the server that a test names; moto is the object store of those that name none."""
    chosen = item.callspec.params if hasattr(item, "callspec") else {}
    if "postgresql" in item.fixturenames or not {"postgresql", "pgbouncer"}.isdisjoint(map(str, chosen.values())):
        return "postgresql"
    if "broker_server" in item.fixturenames:
        return chosen["broker_server"]
    named = [value for value in chosen.values() if isinstance(value, str) and value in STORES]
    if not named and "stores" in item.fixturenames and not item.get_closest_marker("xdist_group"):
        return "moto"
    return named[0] if named else None


def _get_rank(item: pytest.Item) -> int:
    marker = item.get_closest_marker("xdist_group")
    if marker and marker.args[0] in FIRST_GROUPS:
        return FIRST_GROUPS.index(marker.args[0])
    folders = (at for at, folder in enumerate(FIRST_FOLDERS) if item.nodeid.startswith(folder))
    return len(FIRST_GROUPS) + next(folders, len(FIRST_FOLDERS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test that leaves a secret anywhere, whatever its result."""
    report = yield
    if call.when == "teardown" and (
        found := find_leaks(item.funcargs.get("tmp_path"), (text for _, text in report.sections))
    ):
        report.outcome, report.longrepr = "failed", "a secret was found in " + ", ".join(found)
    return report


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """Return an object store by name; each is started once, at its first use."""
    with ExitStack() as stack:
        started: dict[str, Bucket] = {}

        def store(name: str) -> Bucket:
            if name not in started:
                started[name] = stack.enter_context(STORES[name](tmp_path_factory.mktemp("store") / name))
            return started[name]

        yield store


@pytest.fixture(scope="session")
def broker_servers(tmp_path_factory):
    """Return a broker by kind; each is started once, at its first use."""
    with ExitStack() as stack:
        started = {}

        def broker_server(kind):
            if kind not in started:
                started[kind] = start_broker_server(kind, tmp_path_factory.mktemp("broker") / kind)
                stack.callback(started[kind].close)
            return started[kind]

        yield broker_server


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server, started at its first use."""
    from tests.support.postgresql import PostgreSQL  # noqa: PLC0415 - most tests need no client of PostgreSQL

    with closing(PostgreSQL()) as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer_port(postgresql):
    """The port of a PgBouncer before the PostgreSQL server, started at its first use."""
    from tests.support.pgbouncer import pgbouncer  # noqa: PLC0415 - most tests need no client of PostgreSQL

    with pgbouncer(postgresql) as port:
        yield port


@pytest.fixture
def database_url(postgresql):
    """The URL of a new, empty PostgreSQL database."""
    with postgresql.database() as name:
        yield postgresql.url(name)


@pytest.fixture(scope="session")
def create_location(request):
    """Return a context manager that yields the location of a new ledger in a kind of database."""

    @contextmanager
    def create(database):
        if database == "sqlite":
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder) / "ledger.db"
            return
        server = request.getfixturevalue("postgresql")
        port = request.getfixturevalue("pgbouncer_port") if database == "pgbouncer" else None
        with server.database() as name:
            yield server.url(name, port=port)

    return create


@pytest.fixture(params=DATABASES)
def location(request, tmp_path):
    """The location of a new ledger, in each kind of database: in a database of a server, or at ``tmp_path``."""
    return request.getfixturevalue("database_url") if request.param == "postgresql" else tmp_path / "ledger.db"
