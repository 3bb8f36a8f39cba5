"""The triggers of SQLite that count pairs and outcomes as they change."""

_ADD_PAIR = "INSERT INTO pair_count VALUES (KEY, CHANGE) ON CONFLICT DO UPDATE SET pairs = pairs + CHANGE;"
_ADD_ACCEPTED = (
    "INSERT INTO pair_count (workspace, state, pairs) VALUES (ROW.workspace, 'accepted', CHANGE)"
    " ON CONFLICT DO UPDATE SET pairs = pairs + CHANGE;"
)
_ADD_OUTCOME = (
    "INSERT INTO outcome_count VALUES (ROW.outcome, CHANGE) ON CONFLICT DO UPDATE SET readings = readings + CHANGE;"
)


def _plus(statement: str) -> str:
    return statement.replace("ROW", "new").replace("CHANGE", "1")


def _minus(statement: str) -> str:
    return statement.replace("ROW", "old").replace("CHANGE", "-1")


def count_statements(key: str) -> tuple[str, ...]:
    """Return the triggers, which change the counts of a pair's old and new ``key``."""
    pair, both = _ADD_PAIR.replace("KEY", key), _ADD_PAIR.replace("KEY", key) + _ADD_ACCEPTED
    return (
        f"CREATE TRIGGER pair_added AFTER INSERT ON pair BEGIN {_plus(both)} END",
        f"CREATE TRIGGER pair_deleted AFTER DELETE ON pair BEGIN {_minus(both)} END",
        (
            "CREATE TRIGGER pair_changed"
            " AFTER UPDATE OF state, outcome, verdict, reason, captures, deferrals, expires_at ON pair"
            f" WHEN ({_minus(key)}) IS NOT ({_plus(key)}) BEGIN {_minus(pair)} {_plus(pair)} END"
        ),
        f"CREATE TRIGGER outcome_added AFTER INSERT ON outcome BEGIN {_plus(_ADD_OUTCOME)} END",
        f"CREATE TRIGGER outcome_deleted AFTER DELETE ON outcome BEGIN {_minus(_ADD_OUTCOME)} END",
    )


SUMMARIZE_COUNTS = ("DELETE FROM pair_count WHERE pairs = 0",)
