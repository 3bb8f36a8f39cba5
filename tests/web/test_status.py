"""The status as JSON, and the size of page and JSON with many workspaces."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harvester.condition import Component, Condition
from harvester.ledger import DueCount
from harvester.monitor.activity import Activity
from harvester.monitor.health import Health
from harvester.monitor.snapshot import Snapshot
from harvester.web.page import render_page, render_workspace_page
from harvester.web.pictures import WIDTH, draw_day
from harvester.web.status import encode_status
from tests.support import snapshots
from tests.web.test_page import Elements, text

NOW = snapshots.NOW
DOCS = Path(__file__).parent.parent.parent / "docs" / "operations.md"
COUNTS = ("captured", "rejected", "batches", "messages", "readings", "requests", "responses")
"""The fields that are counts by a name."""


def many_workspaces(harm: str = "x") -> Snapshot:
    """500 workspaces whose endpoint fails; the last one is halted and has pairs at risk."""
    base = snapshots.build_workspace(hold_cause="overloaded", hold_until=NOW + 60)
    every = [replace(base, name=f"w{n:03}") for n in range(499)]
    last = replace(base, name="w499", at_risk=3, hold_cause="halted", halt_reason=harm, halted_since=NOW - 60)
    failing = tuple(Condition(Component.ENDPOINT, "timeout", NOW - 60, each.name, harm) for each in every)
    return replace(snapshots.unhealthy(), workspaces=(*every, last), conditions=failing)


def get_text(page: str) -> str:
    """Return what a person reads on a page."""
    main = page.partition("<main>")[2].partition("</main>")[0]
    return " ".join(Elements(main).text.split())


def decode(snapshot: Snapshot | None, problem: str | None = None) -> dict[str, Any]:
    """Return the status of a snapshot."""
    return json.loads(encode_status(Health(snapshot, problem)))


def test_the_status_has_the_figures_of_the_page():
    """The status as JSON has the same figures as the page."""
    status = decode(snapshots.unhealthy())
    assert (status["healthy"], status["ready"], len(status["alerts"])) == (False, False, 7)
    us = next(each for each in status["workspaces"] if each["name"] == "us")
    assert (us["hold_cause"], us["halt_reason"]) == ("halted", "status 401: Invalid API key")
    assert us["readings"] == {"waiting": 3_120, "due": 88}
    assert (us["quota"], us["last_captured_at"]) == (None, None)
    assert status["store"]["batches"] == {"sealed": 212, "conflict": 1}
    assert status["books"]["balanced"] is False
    assert status["taken_at"] == "2026-11-24T13:41:07Z"


def test_a_ledger_that_cannot_be_read_is_a_problem_of_the_status():
    """If the ledger cannot be read, the status has the problem and the last figures, if there are any."""
    status = decode(snapshots.healthy(), "disk I/O error")
    assert (status["healthy"], status["ready"], status["problem"]) == (False, False, "disk I/O error")
    assert status["books"]["accepted"] == 1_000_000
    assert decode(None, "disk I/O error").keys() == {"healthy", "ready", "alerts", "unready_reasons", "problem"}


@pytest.mark.parametrize("harm", ["x", "'" * 400, "\U0001f600" * 400])
def test_with_500_workspaces_page_and_status_are_small(harm):
    """Page and status take at most 100 KB. They list the workspaces with the worst problems, and count the others."""
    snapshot = many_workspaces(harm)
    page, status = render_page(Health(snapshot), now=NOW), encode_status(Health(snapshot))
    assert (len(page.encode()) < 100_000, len(status.encode()) < 100_000) == (True, True)
    decoded = json.loads(status)
    assert decoded["workspaces"][0]["name"] == "w499"
    assert decoded["omitted_workspaces"] == 500 - len(decoded["workspaces"]) > 0
    shown = text(snapshot)
    assert "more workspaces, less urgent than these. Use the filter to see them." in shown
    assert "more alerts; /metrics has all" in shown
    assert shown.index("w499 waits") < shown.index("w000 waits")
    filtered = get_text(render_page(Health(snapshot), now=NOW, pattern="W00"))
    assert "500 workspaces" in filtered
    assert [name for name in (f"w{at:03}" for at in range(500)) if f"{name} waits" in filtered] == [
        f"w00{at}" for at in range(10)
    ]


def test_the_page_of_a_workspace_shows_its_last_day_and_its_next_readings():
    """``/?workspace=eu`` shows the last day and the next readings of one workspace."""
    day = tuple(Activity(NOW - at * 900, 10 + at, 8, at == 3) for at in range(96, 0, -1))
    snapshot = snapshots.healthy()
    eu, us = snapshot.workspaces
    planned = [DueCount(0.0, 7), DueCount(NOW + 3600, 40_000)]
    health = Health(replace(snapshot, workspaces=(replace(eu, activity=day), us)))
    page = render_workspace_page(health, "eu", planned, now=NOW)
    shown = get_text(page)
    assert "768 captures" in shown
    assert "1 refusal 24 hours ago at most 1 in 15 minutes now" in shown
    assert "now 7 readings" in shown
    assert "in 1 h 40,000 readings" in shown
    assert "1,000.0" not in shown, "the other workspace is not shown"
    assert page.count('class="bar"') >= 96 * 2 + 1


def test_the_present_quarter_of_an_hour_is_drawn_whole():
    """Activity that has just begun is visible, and no bar leaves the picture."""
    present = NOW // 900 * 900
    picture = draw_day([(present, 5), (present - 95 * 900, 3)], present + 1, "request")
    bars = [
        (float(x), float(width))
        for x, width in re.findall(r'<rect class="bar" x="([^"]+)".*? width="([^"]+)"', picture)
    ]
    assert len(bars) == 2
    assert all(0 <= x <= WIDTH - width + 0.1 for x, width in bars)


def test_the_page_of_an_unknown_workspace_says_so():
    """The page says that the workspace is unknown, and escapes its name."""
    health = Health(snapshots.healthy())
    assert "No workspace <b>x" not in render_workspace_page(health, "<b>x", [], now=NOW)
    assert "No workspace &lt;b&gt;x is configured." in render_workspace_page(health, "<b>x", [], now=NOW)


def fields(value: Any) -> set[str]:
    """Return the names of all fields in a JSON value, without those that count by a name."""
    if isinstance(value, list):
        return set().union(*map(fields, value))
    if not isinstance(value, dict):
        return set()
    inner = (fields(each) for name, each in value.items() if name not in COUNTS)
    return set(value).union(*inner)


def test_every_field_is_documented():
    """``docs/operations.md`` says what each field means."""
    section = DOCS.read_text().partition("## Status as JSON")[2].partition("\n## ")[0]
    missing = {name for name in fields(decode(snapshots.unhealthy())) if f"`{name}`" not in section}
    assert not missing
