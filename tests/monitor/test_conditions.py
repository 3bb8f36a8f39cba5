"""A service that captures nothing shows it on the page, in the probes, in the metrics and in the log."""

from harvester.condition import Component
from harvester.errors import ExchangeError, ExitCode, format_cause
from harvester.ledger import LEASE_SECONDS, Ledger
from harvester.model import Pair, SentPair
from harvester.monitor.snapshot import Snapshot, StoreState
from tests.support.observed_service import AT, Outage, Seen, Wire, arrivals, served

FAILURES: dict[str, Outage] = {
    "connection_refused": ExchangeError("connection_refused", ""),
    "name_not_found": ExchangeError("name_not_found", ""),
    "certificate": ExchangeError("certificate", "self-signed certificate"),
    "timeout": ExchangeError("timeout", ""),
    "status_502": 502,
    "status_429": 429,  # without a word of a quota that would explain it
    "unparsable": b"<html>Please log in</html>",
}


def test_page_probe_metrics_and_log_show_an_unavailable_endpoint_and_its_recovery(tmp_path):
    """Page, probe, metrics and log show the cause within two minutes, and the recovery."""
    for number, (cause, outage) in enumerate(FAILURES.items()):
        wire = Wire(outage)

        async def story(seen: Seen, wire: Wire = wire, cause: str = cause) -> None:
            await seen.enqueue(40, "us")
            (reason,) = (await seen.at(118)).unready_reasons()
            assert reason.startswith('Every request of workspace "us" fails: ')
            assert f"{AT}" in reason
            assert format_cause(cause) in reason
            assert f'<h1>Not healthy</h1><ul class="alerts"><li>{reason} (for ' in seen.page
            assert seen.metrics["harvester_condition", *sorted((cause, "endpoint", "us"))] == 1
            assert seen.metrics["harvester_ready",] == 0
            assert [each["cause"] for each in seen.events("endpoint_unavailable")] == [cause]
            lasts, hold = (730, 320) if cause == "connection_refused" else (120, 140)
            await seen.at(lasts)
            logged = [
                each for each in seen.logs if each["log_level"] != "debug" and each["event"] != "response_unusable"
            ]
            assert len([each for each in logged if each["event"] == "endpoint_unavailable"]) == 1 + lasts // 600
            assert not [each for each in logged if each["event"] == "batch_sealed"]
            wire.outage = None
            assert (await seen.at(lasts + hold)).unready_reasons() == []
            assert len(seen.events("endpoint_recovered")) == 1
            assert "<h1>Healthy</h1>" in seen.page
            assert seen.metrics["harvester_last_capture_timestamp_seconds", "us"] > seen.clock.starts_at + lasts

        served(tmp_path / str(number), {"us": wire}, story)


def test_a_429_is_an_outage_unless_the_quota_explains_it(tmp_path):
    """With quota left, a 429 is a condition. Without quota, it is the rate limit."""
    for number, (remaining, blind) in enumerate(((200_000, True), (0, False))):
        wire = Wire(429)
        wire.remaining = remaining

        async def story(seen: Seen, wire: Wire = wire, blind: bool = blind) -> None:  # noqa: FBT001 - a case of the loop
            await seen.enqueue(40, "us")
            await seen.at(118)
            assert [each.cause for each in seen.snapshot.conditions] == (["status_429"] if blind else [])
            assert [each["cause"] for each in seen.events("endpoint_unavailable")] == (["status_429"] if blind else [])
            assert seen.metrics["harvester_hold", "throttled", "us"] == 1
            wire.outage, wire.remaining = None, None
            assert (await seen.at(3100)).conditions == ()
            assert len(seen.events("endpoint_recovered")) == blind

        served(tmp_path / str(number), {"us": wire}, story)


def test_until_idle_does_not_report_complete_while_readings_are_unfinished(tmp_path):
    """``--until-idle`` does not end with exit code 0 while readings are due but cannot be captured."""

    async def wait(seen: Seen) -> None:
        await seen.at(600)

    async def interrupt(seen: Seen) -> None:
        seen.service.stop()

    dead = ExchangeError("connection_refused", "")
    stories = ((dead, wait, ExitCode.PARTIAL), (dead, interrupt, ExitCode.INTERRUPTED), (None, wait, ExitCode.COMPLETE))
    for number, (outage, story, code) in enumerate(stories):
        served(tmp_path / str(number), {"us": Wire(outage)}, story, once=["us"], ends_with=code)


def test_pairs_of_a_workspace_that_is_not_configured_are_a_condition(tmp_path):
    """Page, metrics and log show the workspace, and its pairs at risk count as in ``harvester status``."""

    async def story(seen: Seen) -> None:
        await seen.ledger.intake.enqueue(arrivals(10, "gone", sent_at=seen.clock.wall() - 13.9 * 86_400))
        (condition,) = (await seen.at(700)).conditions
        assert (condition.component, condition.subject) == (Component.WORKSPACE, "gone")
        assert condition.sentence in seen.page
        assert 'Workspace "gone": 10 pairs at risk of expiring unread' in seen.page
        assert seen.snapshot.unready_reasons() == []
        assert seen.metrics["harvester_condition", "gone", "unconfigured", "workspace"] == 1
        assert seen.metrics["harvester_at_risk_pairs", "gone"] == 10
        assert (await seen.ledger.reports.get_status(rejections=0)).at_risk["gone"] == 10
        assert [each["workspace"] for each in seen.events("workspace_unconfigured")] == ["gone"]
        await seen.ledger.intake.remove([Pair("gone", "c", f"s{number}") for number in range(10)])
        assert (await seen.at(1300)).conditions == ()
        assert len(seen.events("workspace_configured")) == 1

    served(tmp_path, {"us": Wire()}, story)


def test_the_page_shows_a_part_conflict():
    """While the alert for a part conflict fires, the page shows the conflict too."""
    taken = Snapshot(0, 0, store=StoreState(batches={"conflict": 1}))
    assert taken.alerts() == ["1 batch cannot be stored: a part of the same name exists with different bytes"]
    assert taken.unready_reasons() == []


def test_failures_among_successes_are_not_a_condition(tmp_path):
    """Single failures are retried, and the page and the probe do not change."""
    wire = Wire()

    async def story(seen: Seen) -> None:
        await seen.enqueue(50, "us")
        for at in range(10, 200, 60):
            wire.outage = 502
            await seen.at(at)
            wire.outage = None
            await seen.at(at + 5)
            await seen.enqueue(at, "us")
            assert (await seen.at(at + 30)).conditions == ()
        assert seen.events("endpoint_unavailable") == []

    served(tmp_path, {"us": wire}, story)


def test_one_blocked_workspace_among_several_leaves_the_process_ready(tmp_path):
    """Page and metrics show the blocked workspace. ``/readyz`` is 200 until every busy workspace is blocked."""
    us, eu = Wire(ExchangeError("connection_refused", "")), Wire()

    async def story(seen: Seen) -> None:
        await seen.enqueue(100, "us", "eu")
        assert (await seen.at(120)).unready_reasons() == []
        assert 'Every request of workspace "us" fails' in seen.page
        assert seen.metrics["harvester_condition", "connection_refused", "endpoint", "us"] == 1
        assert (seen.metrics["harvester_ready",], seen.snapshot.workspaces[1].due) == (1, 0)
        eu.outage = 401
        await seen.enqueue(200, "eu")
        assert len((await seen.at(240)).unready_reasons()) == 2
        assert seen.metrics["harvester_condition", "eu", "key", "status_401"] == 1
        assert [each["workspace"] for each in seen.events("key_unusable")] == ["eu"]
        us.outage = eu.outage = None
        assert (await seen.at(1000)).conditions == ()
        assert [each["workspace"] for each in seen.events("key_usable")] == ["eu"]

    served(tmp_path, {"us": us, "eu": eu}, story)


def test_page_metrics_and_ledger_count_the_same_pairs_at_risk(tmp_path):
    """``harvester status`` reads only the ledger, and agrees with the page, also for a halted workspace."""
    eu, us = Wire(), Wire(401)

    async def story(seen: Seen) -> None:
        now = seen.clock.wall()
        for name in ("eu", "us"):
            pairs = [SentPair(Pair(name, "c", f"s{number}"), now - 13.9 * 86_400) for number in range(300)]
            await seen.service.enqueue(pairs, once=True)
        await seen.at(30)
        at_risk = {each.name: each.at_risk for each in seen.snapshot.workspaces}
        assert at_risk == (await seen.ledger.reports.get_status(rejections=0)).at_risk | {"eu": 0}
        assert at_risk == {"eu": 0, "us": 300}
        assert seen.metrics["harvester_at_risk_pairs", "us"] == 300
        assert 'Workspace "us": 300 pairs at risk of expiring unread' in seen.page

    served(tmp_path, {"eu": eu, "us": us}, story)


def test_readings_of_a_dead_process_are_recovered_within_a_lease_and_a_quarter(tmp_path):
    """Readings of a dead process are released when their lease ends, at most a quarter of a lease later."""
    wire = Wire()

    async def story(seen: Seen) -> None:
        await seen.enqueue(1, "us")
        async with await Ledger.open(tmp_path / "ledger.db", clock=seen.clock) as dead:
            assert await dead.batches.claim({"us": 10})
            await seen.at(LEASE_SECONDS - 10)
            assert seen.snapshot.workspaces[0].readings == {"leased": 1}
            await seen.at(1.25 * LEASE_SECONDS + 15)
            assert seen.snapshot.workspaces[0].readings == {}

    served(tmp_path, {"us": wire}, story)
