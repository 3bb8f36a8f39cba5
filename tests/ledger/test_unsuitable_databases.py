"""PostgreSQL databases that cannot contain a ledger, or not as their server would return it."""

import pytest

from harvester.errors import LedgerError
from harvester.ledger import Ledger
from harvester.model import Pair, SentPair
from harvester.place import DatabaseUrl
from tests.support.clocks import SettableClock
from tests.support.ledger_cycles import NOW
from tests.support.ledger_file import count_rows, execute

CLOCK = SettableClock(NOW)

pytestmark = pytest.mark.long


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_in_another_encoding_is_refused(postgresql, encoding):
    """It could not store every text, and a cluster without a locale has such databases by default."""
    with postgresql.database(f"ENCODING '{encoding}'") as name:
        with pytest.raises(LedgerError, match=f"its encoding is {encoding}, but must be UTF8; create another one"):
            await Ledger.open(postgresql.url(name), clock=CLOCK)
        assert count_rows(postgresql.url(name)) == {}


async def test_text_is_text_whatever_encoding_a_client_is_set_to(database_url):
    """The URL or PGCLIENTENCODING may choose an encoding in which psycopg returns bytes."""
    location = DatabaseUrl(f"{database_url.url}&client_encoding=SQL_ASCII")
    async with await Ledger.open(location, clock=CLOCK) as ledger:
        await ledger.intake.enqueue([SentPair(Pair("w", "c", "s"))], once=True)
        await ledger.upkeep.save_dataset("/données", "d")
        assert [each.pair.send_id for each in await ledger.batches.claim({"w": 1})] == ["s"]
        assert await ledger.reports.list_places() == {"d": "/données"}


@pytest.mark.parametrize(
    "table", ["about (version text)", "about (ledger_id text, schema_version int)", "pair (x int)"]
)
async def test_a_database_of_another_program_is_refused(database_url, table):
    """A table with the name of one of the ledger's does not make it a ledger."""
    execute(database_url, f"CREATE TABLE {table}")
    with pytest.raises(LedgerError, match="contains tables of another program"):
        await Ledger.open(database_url, clock=CLOCK)


async def test_a_process_uses_no_other_ledger_than_it_opened(database_url):
    """The address of the server, as in DNS, may lead to another database that contains a ledger, too."""
    async with await Ledger.open(database_url, clock=CLOCK) as ledger:
        execute(database_url, "UPDATE about SET ledger_id = 'another'")
        for use in (ledger.batches.claim({"w": 1}), ledger.reports.get_books()):
            with pytest.raises(LedgerError, match="is not the one that this process opened"):
                await use


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ALTER SEQUENCE pair_id_seq RESTART", "set pair_id_seq, outcome_id_seq and owner_epoch_seq to the highest id"),
        ("ALTER TABLE pair DROP CONSTRAINT pair_workspace_campaign_id_send_id_key", "it was not restored completely"),
    ],
)
async def test_no_pair_is_skipped_in_a_database_that_was_not_copied_completely(database_url, change, message):
    """A logical replication does not copy sequences, and an interrupted pg_restore creates no constraints."""
    async with await Ledger.open(database_url, clock=CLOCK) as ledger:
        await ledger.intake.enqueue([SentPair(Pair("w", "c", "s"))])
        execute(database_url, change)
        with pytest.raises(LedgerError, match=message):
            await ledger.intake.enqueue([SentPair(Pair("w", "c", "new"))])
    assert count_rows(database_url)["pair"] == 1


async def test_an_error_says_whose_the_tables_must_be(database_url):
    """For example after a restore by another user. The message of the server names only the table."""
    async with await Ledger.open(database_url, clock=CLOCK) as ledger:
        execute(database_url, "REVOKE ALL ON pair FROM CURRENT_USER")
        with pytest.raises(LedgerError, match="for table pair; make the user the owner of all tables of the ledger"):
            await ledger.intake.enqueue([SentPair(Pair("w", "c", "s"))])
