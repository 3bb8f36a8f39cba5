"""Counts pairs and outcomes as they change, so that no report has to read every pair.

Triggers of the database keep the counts, in the transaction that changes a pair: no statement can forget them, and a
transaction that is rolled back changes none. ``find_wrong_counts`` compares them with a full count.
"""

from typing import Any

from sqlalchemy import DDL, delete, select, text

from harvester.ledger.database import Transaction
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
    " ROW.captures > 0,"
    " CASE ROW.state WHEN 'settled' THEN 0 ELSE CAST((ROW.expires_at - GRACE) / DAY AS INTEGER) END"
).replace("GRACE", str(GRACE_SECONDS)).replace("DAY", str(DAY_SECONDS))  # fmt: skip
"""The values by which a pair is counted, in the order of the columns of ``pair_count``."""

_ADD_PAIR = "INSERT INTO pair_count VALUES (KEY, CHANGE) ON CONFLICT DO UPDATE SET pairs = pairs + CHANGE;".replace(
    "KEY", _KEY
)
_ADD_ACCEPTED = (
    "INSERT INTO pair_count (workspace, state, pairs) VALUES (ROW.workspace, 'accepted', CHANGE)"
    " ON CONFLICT DO UPDATE SET pairs = pairs + CHANGE;"
)
_ADD_OUTCOME = (
    "INSERT INTO outcome_count VALUES (ROW.outcome, CHANGE) ON CONFLICT DO UPDATE SET readings = readings + CHANGE;"
)


def _plus(*statements: str) -> str:
    return "".join(statements).replace("ROW", "new").replace("CHANGE", "1")


def _minus(*statements: str) -> str:
    return "".join(statements).replace("ROW", "old").replace("CHANGE", "-1")


_TRIGGERS = (
    f"CREATE TRIGGER pair_added AFTER INSERT ON pair BEGIN {_plus(_ADD_PAIR, _ADD_ACCEPTED)} END",
    f"CREATE TRIGGER pair_deleted AFTER DELETE ON pair BEGIN {_minus(_ADD_PAIR, _ADD_ACCEPTED)} END",
    (
        "CREATE TRIGGER pair_changed"
        " AFTER UPDATE OF state, outcome, verdict, reason, captures, deferrals, expires_at ON pair"
        f" WHEN ({_minus(_KEY)}) IS NOT ({_plus(_KEY)}) BEGIN {_minus(_ADD_PAIR)} {_plus(_ADD_PAIR)} END"
    ),
    f"CREATE TRIGGER outcome_added AFTER INSERT ON outcome BEGIN {_plus(_ADD_OUTCOME)} END",
    f"CREATE TRIGGER outcome_deleted AFTER DELETE ON outcome BEGIN {_minus(_ADD_OUTCOME)} END",
)

_COUNT_PAIRS = (
    "SELECT KEY, count(*) FROM pair GROUP BY 1, 2, 3, 4, 5, 6, 7"
    " UNION ALL SELECT workspace, 'accepted', '', '', '', 0, 0, count(*) FROM pair GROUP BY 1"
).replace("KEY", _KEY.replace("ROW.", ""))
_COUNT_OUTCOMES = "SELECT outcome, count(*) FROM outcome GROUP BY 1"


def start_counting(tx: Transaction) -> None:
    """Count what a ledger contains, and keep the counts from now on."""
    tx.execute(text("INSERT INTO pair_count " + _COUNT_PAIRS))
    tx.execute(text("INSERT INTO outcome_count " + _COUNT_OUTCOMES))
    for each in _TRIGGERS:
        tx.execute(DDL(each))  # type: ignore[no-untyped-call] # SQLAlchemy gives it no types


def find_wrong_counts(tx: Transaction) -> list[str]:
    """Compare the counts with a full count, which reads every pair; returns a description of each difference."""
    wrong = []
    for table, counting in ((pair_counts, _COUNT_PAIRS), (outcome_counts, _COUNT_OUTCOMES)):
        kept: dict[tuple[Any, ...], int] = {tuple(row[:-1]): row[-1] for row in tx.execute(select(table)) if row[-1]}
        real: dict[tuple[Any, ...], int] = {tuple(row[:-1]): row[-1] for row in tx.execute(text(counting))}
        for key in sorted(kept.keys() | real.keys()):
            if kept.get(key, 0) != real.get(key, 0):
                name = " ".join(str(each) for each in key if each != "")
                wrong.append(f"{name}: {kept.get(key, 0)} counted, {real.get(key, 0)} found")
    return wrong


def delete_empty_counts(tx: Transaction) -> None:
    """Delete counts that are zero: every day that has passed leaves some."""
    tx.execute(delete(pair_counts).where(pair_counts.c.pairs == 0))
