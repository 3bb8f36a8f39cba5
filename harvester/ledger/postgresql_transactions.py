"""How a transaction begins in PostgreSQL, and how to find out whether it was committed."""

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from harvester.errors import LedgerError

_TIMEOUTS = (
    "set_config('statement_timeout', '30s', true), set_config('lock_timeout', '10s', true),"
    " set_config('idle_in_transaction_session_timeout', '60s', true)"
)
_TIME = "CAST(extract(epoch FROM clock_timestamp()) AS float8)"
_OLDEST_SCHEMA, _LEDGER_ID = "(SELECT oldest_schema FROM about)", "(SELECT ledger_id FROM about)"
_TIMELINE = "left(pg_walfile_name(pg_current_wal_lsn()), 8)"
"""Changes when a standby is promoted. It may use ids again that its former primary gave to transactions."""
_ID = f"CAST(pg_current_xact_id() AS text) || '@' || {_TIMELINE} || '@' || {_TIME}"
BEGIN = {
    (writes, watches): text(
        f"SELECT {_TIME}, {_ID if writes else 'NULL'}, {_OLDEST_SCHEMA if watches else 0},"
        f" {_LEDGER_ID if watches else 'NULL'}, {_TIMEOUTS}"
    )
    for writes in (False, True)
    for watches in (False, True)
}
"""By whether it writes, and whether it reads the oldest schema and the ledger's id."""

_STATUS, _CURRENT = "pg_xact_status(CAST(:id AS xid8))", f"CASE WHEN NOT pg_is_in_recovery() THEN {_TIMELINE} END"
_RESET_AT = "(SELECT CAST(extract(epoch FROM stats_reset) AS float8) FROM pg_stat_bgwriter)"
"""When the server last started without the statistics of its former run: it resets them after a crash only."""
_GET_STATUS = text(f"SELECT {_STATUS}, {_CURRENT}, {_RESET_AT} > CAST(:began_at AS float8)")

_FUTURE_ID = "22023"
"""The id of a transaction that the server has not begun: the id was lost when the server, or its primary, crashed."""

_NEXT_STEP = "start the process again: it continues with what the ledger contains"


def was_committed(connection: Connection, transaction_id: str) -> bool | None:
    """Return whether a transaction was committed; None while the server does not know. Raises ``LedgerError``.

    A server that crashed gives ids again that were not in its log, and so does a promoted standby that never received
    them. If it calls such an id committed, it may mean a later transaction than ours.
    """
    number, began_on, began_at = transaction_id.split("@")
    try:
        status, timeline, crashed = connection.execute(_GET_STATUS, {"id": number, "began_at": began_at}).one()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _FUTURE_ID:
            return False
        raise
    if timeline is None or status == "in progress":
        return None
    if status == "aborted":
        return False
    if status is None:
        raise LedgerError(f"the ledger's server has forgotten whether a transaction was committed; {_NEXT_STEP}")
    if timeline != began_on:
        raise LedgerError(
            "a standby has become the ledger's server, and cannot tell whether the last transaction was committed; "
            f"{_NEXT_STEP}"
        )
    if crashed:
        raise LedgerError(
            f"the ledger's server has crashed, and cannot tell whether the last transaction was committed; {_NEXT_STEP}"
        )
    return True
