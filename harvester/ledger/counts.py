"""Counts pairs and outcomes as they change, so that no report has to read every pair.

Triggers of the database keep the counts, in the transaction that changes a pair: no statement can forget them, and a
transaction that is rolled back changes none. ``find_wrong_counts`` compares them with a full count.
"""

from collections import Counter
from typing import Any

from sqlalchemy import DDL, select, text

from harvester.ledger.database import Transaction
from harvester.ledger.dialect import Dialect
from harvester.ledger.schema import outcome_counts, pair_counts
from harvester.model import DAY_SECONDS, GRACE_SECONDS

ACCEPTED = "accepted"
"""A pseudo-state that counts every pair again, so that the totals can be checked against it."""

OPEN = pair_counts.c.state.not_in(("settled", ACCEPTED))
"""Whether a count is of open pairs."""

DEFERRED_STATE = "deferred"
"""The state under which readings are counted that wait because they were deferred."""

_KEY = (
    "ROW.workspace,"
    " CASE WHEN ROW.state = 'waiting' AND ROW.deferrals > 0 THEN 'deferred' ELSE ROW.state END,"
    " CASE ROW.state WHEN 'settled' THEN coalesce(ROW.outcome, '') ELSE '' END,"
    " CASE ROW.state WHEN 'settled' THEN coalesce(ROW.verdict, '') ELSE '' END,"
    " CASE ROW.state WHEN 'settled' THEN coalesce(ROW.reason, '') ELSE '' END,"
    " CAST(ROW.captures > 0 AS INTEGER),"
    " CASE ROW.state WHEN 'settled' THEN 0 ELSE CAST(WHOLE((ROW.expires_at - GRACE) / DAY) AS INTEGER) END"
).replace("GRACE", str(GRACE_SECONDS)).replace("DAY", str(DAY_SECONDS))  # fmt: skip
"""The values by which a pair is counted, in the order of the columns of ``pair_count``."""

_COUNT_PAIRS = (
    "SELECT KEY, count(*) FROM pair GROUP BY 1, 2, 3, 4, 5, 6, 7"
    " UNION ALL SELECT workspace, 'accepted', '', '', '', 0, 0, count(*) FROM pair GROUP BY 1"
)
_COUNT_OUTCOMES = "SELECT outcome, count(*) FROM outcome GROUP BY 1"


def start_counting(tx: Transaction) -> None:
    """Count what a ledger contains, and keep the counts from now on."""
    lift_timeout(tx)
    tx.execute(text("INSERT INTO pair_count " + _count_pairs(tx.dialect)))
    tx.execute(text("INSERT INTO outcome_count " + _COUNT_OUTCOMES))
    for each in tx.dialect.count_statements(_get_key(tx.dialect)):
        tx.execute(DDL(each))  # type: ignore[no-untyped-call] # SQLAlchemy gives it no types


def lift_timeout(tx: Transaction) -> None:
    """Let this transaction take as long as it needs: it reads every row of a table."""
    tx.dialect.lift_timeout(tx.connection)


def _get_key(dialect: Dialect) -> str:
    return _KEY.replace("WHOLE", dialect.whole)


def _count_pairs(dialect: Dialect) -> str:
    return _COUNT_PAIRS.replace("KEY", _get_key(dialect).replace("ROW.", ""))


def find_wrong_counts(tx: Transaction) -> list[str]:
    """Compare the counts with a full count, which reads every pair; returns a description of each difference."""
    lift_timeout(tx)
    wrong = []
    for table, counting in ((pair_counts, _count_pairs(tx.dialect)), (outcome_counts, _COUNT_OUTCOMES)):
        kept: Counter[tuple[Any, ...]] = Counter()
        for row in tx.execute(select(table)):
            kept[tuple(row[:-1])] += row[-1]
        real: dict[tuple[Any, ...], int] = {tuple(row[:-1]): row[-1] for row in tx.execute(text(counting))}
        for key in sorted(kept.keys() | real.keys()):
            if kept[key] != real.get(key, 0):
                name = " ".join(str(each) for each in key if each != "")
                wrong.append(f"{name}: {kept[key]} counted, {real.get(key, 0)} found")
    return wrong


def summarize_counts(tx: Transaction) -> None:
    """Summarize counts that were added one by one, and delete those that are zero: each day that passes leaves some."""
    for statement in tx.dialect.summarize_counts:
        tx.execute(text(statement))
