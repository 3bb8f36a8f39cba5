"""Conditions, their log events, and the readiness that follows from them."""

import asyncio
import errno
import socket
import ssl

import pytest
import structlog

from harvester.causes import find_cause
from harvester.condition import Component, Condition, ConditionLog, Scope
from harvester.errors import format_cause
from harvester.monitor.readiness import blocking_conditions

NOW = 1_795_527_667.0


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        """Begin."""
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the set time."""
        return self.now

    def wall(self) -> float:
        """Return the set time since ``NOW``."""
        return NOW + self.now


def blind(workspace: str, cause: str = "connection_refused") -> Condition:
    """A workspace whose endpoint does not answer."""
    return Condition(Component.ENDPOINT, cause, NOW, workspace)


def test_the_process_is_ready_while_it_can_do_useful_work():
    """The process is not ready if one of its components, or every busy workspace, is blocked."""
    eu, us = blind("eu"), Condition(Component.KEY, "status_401", NOW, "us")
    broker = Condition(Component.BROKER, "timeout", NOW, "sends")
    assert blocking_conditions([], {"eu": True}) == []
    assert blocking_conditions([eu], {"eu": True}) == [eu]
    assert blocking_conditions([eu], {"eu": False}) == [eu]
    assert blocking_conditions([eu], {"eu": True, "us": True}) == []
    assert blocking_conditions([eu], {"eu": True, "us": False}) == [eu]
    assert blocking_conditions([eu], {"eu": False, "us": True}) == []
    assert blocking_conditions([eu], {"eu": False, "us": False}) == []
    assert blocking_conditions([eu, us], {"eu": True, "us": True}) == [eu, us]
    assert blocking_conditions([broker], {"eu": True}) == []
    for component in Component:
        whole = Condition(component, "timeout", NOW, "eu")
        assert (blocking_conditions([whole], {"eu": True, "us": True}) == [whole]) == (whole.scope is Scope.PROCESS), (
            component
        )
    assert blocking_conditions([Condition(Component.STORE, "status_503", NOW, blocks=False)], {"eu": True}) == []


def test_a_condition_is_logged_when_it_begins_every_ten_minutes_and_when_it_ends():
    """A condition is logged when it begins, every ten minutes, and when it ends, but not when its cause changes."""
    clock = Clock()
    logged = ConditionLog(clock)
    with structlog.testing.capture_logs() as lines:
        for minute in range(26):
            clock.now = 60.0 * minute
            logged.update([blind("us", "connection_refused" if minute % 2 else "status_502")])
        logged.update([])
        logged.update([])
    assert [(each["event"], each["workspace"], each["duration_seconds"]) for each in lines] == [
        ("endpoint_unavailable", "us", 0),
        ("endpoint_unavailable", "us", 600),
        ("endpoint_unavailable", "us", 1200),
        ("endpoint_recovered", "us", 1500),
    ]


def test_of_many_conditions_at_once_the_log_has_the_most_serious():
    """Of a thousand unusable key files, 20 lines are enough; a condition that blocks work is among them."""
    logged = ConditionLog(Clock())
    keys = [Condition(Component.KEY, "file", NOW, f"w{number}", blocks=False) for number in range(1111)]
    store = Condition(Component.STORE, "disk_full", NOW)
    for conditions, first, omitted in (([*keys, store], "store_unavailable", 1092), ([store], "key_usable", 1091)):
        with structlog.testing.capture_logs() as lines:
            logged.update(conditions)
        assert (len(lines), lines[0]["event"]) == (21, first)
        assert (lines[-1]["event"], lines[-1]["conditions"]) == ("conditions_omitted", omitted)


def test_each_part_has_its_own_events_and_sentence():
    """No two components share an event or a sentence, and sentences name the workspace or trigger."""
    clock, seen = Clock(), set()
    for component in Component:
        logged = ConditionLog(clock)
        with structlog.testing.capture_logs() as lines:
            logged.update([Condition(component, "timeout", NOW, "us", "it does not answer")])
            logged.update([])
        condition = Condition(component, "timeout", NOW, "us")
        assert ('"us"' in condition.sentence) == (condition.scope is not Scope.PROCESS)
        assert condition.sentence.endswith(": timeout")
        seen |= {condition.sentence, *(each["event"] for each in lines)}
    assert len(seen) == 3 * len(Component)


def inside(outer: Exception, inner: BaseException) -> Exception:
    """Raise one error because of another, as libraries do."""
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection_refused"),
        (OSError(errno.ECONNREFUSED, "Multiple exceptions: ..."), "connection_refused"),
        (socket.gaierror(socket.EAI_NONAME, "x"), "name_not_found"),
        (ssl.SSLCertVerificationError("x"), "certificate"),
        (ssl.SSLError("x"), "tls"),
        (TimeoutError(), "timeout"),
        (asyncio.IncompleteReadError(b"", 1), "disconnected"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "disconnected"),
        (OSError(errno.EHOSTUNREACH, "x"), "unreachable"),
        (OSError(errno.ENOSPC, "x"), "disk_full"),
        (inside(RuntimeError("cannot connect"), ConnectionRefusedError(errno.ECONNREFUSED, "x")), "connection_refused"),
        (RuntimeError("connection refused"), None),
        (RuntimeError(TimeoutError()), "timeout"),
    ],
)
def test_a_cause_is_read_from_types_and_numbers(error, cause):
    """A cause never depends on the text of a library's error, which may change or contain secrets."""
    assert find_cause(error) == cause


def test_a_cause_has_one_text_for_people():
    """Every cause is shown to people with spaces instead of underscores."""
    assert [format_cause(each) for each in ("connection_refused", "status_502", "timeout")] == [
        "connection refused", "status 502", "timeout",
    ]  # fmt: skip
