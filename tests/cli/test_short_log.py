"""The log for a person at a terminal: one short line for each cause, then a count."""

import pytest
import structlog

from harvester.cli.short_log import ShortLog


def render(log: ShortLog, name: str, **fields: object) -> str:
    """Render a warning; an empty text if it was counted instead."""
    try:
        return log.render({"event": name, "level": "warning", "timestamp": "2026", **fields})
    except structlog.DropEvent:
        return ""


@pytest.fixture
def log() -> ShortLog:
    """Return a log for a terminal of 60 columns without color."""
    return ShortLog(lambda: 60, color=False)


def test_a_warning_is_one_line_of_words(log):
    """It names the workspace, unless there is only the default one, and says why. It shows no ids and no body."""
    unusable = {"cause": "unparsable", "campaign_id": "c", "send_id": "s", "body": "<html>"}
    expected = "warning: response unusable: unparsable; it is requested again"
    assert ShortLog(lambda: 80, color=False).render({"event": "response_unusable", "level": "warning", **unusable}) == (
        expected
    )
    line = render(log, "endpoint_unavailable", workspace="eu", cause="status_502", reason="https://x responds with 502")
    assert line == 'warning: workspace "eu": endpoint unavailable: status 502'
    line = render(log, "workspace_halted", workspace="us", cause="status_401", reason="status 401")
    assert line == 'warning: workspace "us" halted: status 401'
    assert render(log, "store_unavailable", workspace="default", cause="disk_full") == (
        "warning: store unavailable: disk full"
    )


def test_what_to_do_is_never_cut(log):
    """A hint without a reason is wrapped at words; after a reason, it is left out if it does not fit."""
    hint = "requests in flight finish first, within seconds; a second signal ends the process at once"
    assert render(log, "stop_requested", hint=hint).split("\n") == [
        "warning: stop requested: requests in flight finish first,",
        "  within seconds; a second signal ends the process at once",
    ]
    assert render(log, "file_failed", error="no", hint="try again") == "warning: file failed: no; try again"
    assert render(log, "list_failed", error="no", hint=hint) == "warning: list failed: no"


def test_warnings_of_the_same_cause_are_counted(log):
    """500 halted workspaces make one line, and one with the count of the others."""
    lines = [
        render(log, "workspace_halted", workspace=f"w{n}", cause="status_401", reason="no key") for n in range(500)
    ]
    assert render(log, "key_unusable", workspace="w0", cause="status_401", reason="no key") == ""
    assert [line for line in lines if line] == ['warning: workspace "w0" halted: no key']
    assert (log.list_repeated(), log.repeated) == (["499 more like this: workspace halted: no key"], 499)


def test_a_line_has_no_control_characters_except_its_color():
    """Texts from outside cannot change the terminal."""
    line = ShortLog(lambda: 60, color=True).render({"event": "x_y", "level": "error", "reason": "a\x1b[2Jb"})
    assert line == "\x1b[31merror\x1b[0m: x y: a\\u001b[2Jb"
