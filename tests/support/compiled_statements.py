"""Statements of the ledger that are compiled once for each process, instead of once for each ledger.

SQLAlchemy keeps compiled statements by engine. A test opens a ledger of its own, and compiling what it executes costs
more than executing it.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

import structlog
from sqlalchemy import Connection, DDLElement, Dialect, MetaData, Table, create_mock_engine
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Engine
from sqlalchemy.util import LRUCache

_COMPILED = LRUCache(2000)
_begin_engine = Engine.__init__
_create_all = MetaData.create_all


def share() -> None:
    """Let all engines use one cache and one schema."""
    Engine.__init__ = _begin_engine_with_shared_cache
    MetaData.create_all = _create_all_from_text
    share_dialect(SQLiteDialect_pysqlite)


def share_dialect(kind: type[Dialect]) -> None:
    """Make all dialects of a kind equal: the keys of the cache hold them. All use one version of the database."""
    kind.__hash__ = lambda dialect: hash(type(dialect))
    kind.__eq__ = lambda dialect, other: type(dialect) is type(other)


def _begin_engine_with_shared_cache(engine: Engine, *arguments, **options) -> None:
    _begin_engine(engine, *arguments, **options)
    engine._compiled_cache = _COMPILED


def _create_all_from_text(
    metadata: MetaData, connection: Connection, tables: Sequence[Table] | None = None, *, checkfirst: bool = True
) -> None:
    """Create the tables of a new ledger with statements that were compiled before; others as SQLAlchemy does."""
    if tables is not None or checkfirst:
        _create_all(metadata, connection, tables, checkfirst)
        return
    for statement in _compile_schema(metadata, connection.engine.url.drivername):
        connection.exec_driver_sql(statement)


@cache
def _compile_schema(metadata: MetaData, driver: str) -> list[str]:
    found: list[DDLElement] = []
    engine = create_mock_engine(f"{driver}://", lambda statement, *_: found.append(statement))
    _create_all(metadata, engine, checkfirst=False)
    return [str(each.compile(dialect=engine.dialect)) for each in found]


def compile_all() -> None:
    """Capture three pairs in virtual time, so that processes forked from this one find the statements compiled."""
    from harvester.simulator.virtual_time import run_virtual  # noqa: PLC0415 - it takes a while

    with tempfile.TemporaryDirectory() as folder:
        run_virtual(_captured(Path(folder)))


async def _captured(folder: Path) -> None:
    from harvester.braze.quota import QuotaReport  # noqa: PLC0415 - likewise
    from harvester.braze.transport import Response  # noqa: PLC0415 - likewise
    from harvester.commands.capture import Run  # noqa: PLC0415 - likewise
    from harvester.ledger import Ledger  # noqa: PLC0415 - likewise
    from harvester.settings import Settings, Workspace  # noqa: PLC0415 - likewise
    from harvester.simulator.virtual_time import VirtualClock  # noqa: PLC0415 - likewise
    from harvester.sources import Input, RejectsFile  # noqa: PLC0415 - likewise
    from harvester.storage import Compression, FolderSink  # noqa: PLC0415 - likewise

    clock = VirtualClock()

    class Braze:
        async def send_series(self, _pair: object, *, length_days: int, ending_at: float) -> Response:
            await asyncio.sleep(0.05)
            report = QuotaReport(250_000, 249_000, clock.starts_at + 3600, int(clock.wall()))
            return Response(200, b'{"message":"success","data":[]}', report, 0.05)

        def scrub(self, text: str) -> str:
            return text

        async def close(self) -> None:
            pass

    settings = Settings(
        workspaces={"default": Workspace(endpoint="https://rest.fra-01.braze.eu", api_key="a-key-of-nobody")}
    )
    async with await Ledger.open(folder / "ledger.db", clock=clock) as ledger:
        run = Run(
            settings, ledger=ledger, sink=FolderSink(folder / "out"), compression=Compression.NONE,
            connect=lambda *_: Braze(),
        )  # fmt: skip
        stdin = BytesIO(b"campaign_id,send_id\nc,1\nc,2\nc,3\n")
        pairs = Input(["-"], workspaces=["default"], stdin=stdin, now=clock.wall())
        with structlog.testing.capture_logs():
            await run.capture(pairs, RejectsFile(folder / "rejects.ndjson"))
