"""The command status."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from harvester.cli.status import status
from harvester.clock import SystemClock
from harvester.errors import ExitCode
from harvester.ledger import Ledger
from harvester.model import Pair, SentPair


def test_books_that_do_not_balance_are_marked_and_end_with_exit_code_1(tmp_path, capsys):
    """A script notices them, even if the counts of two workspaces make up for each other."""
    path = tmp_path / "ledger.db"

    async def fill() -> None:
        async with await Ledger.open(path, clock=SystemClock()) as ledger:
            await ledger.intake.enqueue([SentPair(Pair(workspace, "c", "s")) for workspace in ("eu", "us")])

    asyncio.run(fill())
    status.main(["--state", str(path)], standalone_mode=False)
    with closing(sqlite3.connect(path)) as connection, connection:
        change = "UPDATE pair_count SET pairs = pairs + ? WHERE workspace = ? AND state = 'accepted'"
        connection.executemany(change, [(1, "eu"), (-1, "us")])
    with pytest.raises(SystemExit) as ended:
        status.main(["--state", str(path)], standalone_mode=False)
    assert ended.value.code == ExitCode.BUG
    assert "NOT BALANCED: report this bug" in capsys.readouterr().out
