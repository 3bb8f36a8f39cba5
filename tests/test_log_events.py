"""Every log event follows the naming convention and is described in docs/operations.md."""

import ast
import re
from pathlib import Path

HOUSE = Path(__file__).parent.parent / "harvester"
OPERATIONS = Path(__file__).parent.parent / "docs" / "operations.md"
LEVELS = {"debug", "info", "warning", "error"}


def log_events() -> set[str]:
    """Return the events of all log calls, and those that a variable holding a level is called with."""
    events = set()
    for module in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
                continue
            call = ast.unparse(node.func)
            by_level = call.rpartition(".")[2] in LEVELS and re.search(r"\b_?log\b|get_logger", call)
            if by_level or call.startswith("log_") or "_level(" in call or "choose_log_method(" in call:
                events.add(node.args[0].value)
    return events


def test_every_log_event_is_a_noun_and_a_verb_or_state():
    """All events have the same form, so an operator can search for them."""
    events = log_events()
    assert {"batch_sealed", "reading_deferred", "response_unusable"} <= events
    assert [each for each in sorted(events) if not re.fullmatch(r"[a-z]+(_[a-z]+)+", each)] == []


def test_every_log_event_is_documented():
    """An operator finds each event of the log on the page about operations."""
    text = OPERATIONS.read_text()
    assert [each for each in sorted(log_events()) if f"`{each}`" not in text] == []
