# ruff: noqa: S608 - no value of a user is part of a statement
"""The triggers of PostgreSQL that count pairs and outcomes as they change.

Each statement adds rows with its differences. If it changed one row for each kind of pair instead, transactions would
wait for each other's counts. ``SUMMARIZE_COUNTS`` summarizes the rows.
"""

_KEY_COLUMNS = "workspace, state, outcome, verdict, reason, captured, day"

_NEW, _OLD = "REFERENCING NEW TABLE AS new_rows", "REFERENCING OLD TABLE AS old_rows"

_SUMMARIZE = (
    "WITH summarized AS (DELETE FROM {table} WHERE ctid IN"
    " (SELECT ctid FROM {table} FOR UPDATE SKIP LOCKED LIMIT 100000) RETURNING *)"
    " INSERT INTO {table} ({columns}, {number}) SELECT {columns}, sum({number}) FROM summarized"
    " GROUP BY {columns} HAVING sum({number}) <> 0"
)
SUMMARIZE_COUNTS = (
    _SUMMARIZE.format(table="pair_count", columns=_KEY_COLUMNS, number="pairs"),
    _SUMMARIZE.format(table="outcome_count", columns="outcome", number="readings"),
)


def count_statements(key: str) -> tuple[str, ...]:
    """Return functions and triggers that add the differences of each statement; ``key`` is that of a pair."""

    def keys(rows: str, change: str) -> str:
        return f"SELECT {key.replace('ROW.', '')}, {change} FROM {rows}"

    def totals(rows: str, change: str) -> str:
        return f"SELECT workspace, 'accepted', '', '', '', 0, 0, {change} FROM {rows}"

    def outcome(rows: str, change: str) -> str:
        return f"SELECT outcome, {change} FROM {rows}"

    return (
        "ALTER TABLE pair_count DROP CONSTRAINT pair_count_pkey",
        "ALTER TABLE outcome_count DROP CONSTRAINT outcome_count_pkey",
        *_count("pair", "INSERT", _NEW, "pair_count", 7, keys("new_rows", "1"), totals("new_rows", "1")),
        *_count("pair", "DELETE", _OLD, "pair_count", 7, keys("old_rows", "-1"), totals("old_rows", "-1")),
        *_count(
            "pair", "UPDATE", f"{_OLD} NEW TABLE AS new_rows", "pair_count", 7,
            keys("old_rows", "-1"), keys("new_rows", "1"),
        ),
        *_count("outcome", "INSERT", _NEW, "outcome_count", 1, outcome("new_rows", "1")),
        *_count("outcome", "DELETE", _OLD, "outcome_count", 1, outcome("old_rows", "-1")),
    )  # fmt: skip


def _count(table: str, event: str, rows: str, counts: str, columns: int, *changes: str) -> tuple[str, str]:
    """Return the function that adds the sums of changes, and the trigger that calls it after each statement."""
    name = f"harvester_{table}_{event.lower()}"
    numbers = ", ".join(str(at + 1) for at in range(columns))
    names = ", ".join(f"k{at}" for at in range(columns))
    changed = " UNION ALL ".join(changes)
    return (
        (
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO {counts}"
            f" SELECT {names}, sum(change) FROM ({changed}) AS changed ({names}, change)"
            f" GROUP BY {numbers} HAVING sum(change) <> 0; RETURN NULL; END $$"
        ),
        f"CREATE TRIGGER {name} AFTER {event} ON {table} {rows} FOR EACH STATEMENT EXECUTE FUNCTION {name}()",
    )
