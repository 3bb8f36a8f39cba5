"""The web server over real HTTP, as probes, scrapers and browsers use it."""

import asyncio
import re
import socket
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as families

from harvester.errors import LedgerError, UsageError
from harvester.health import Condition, Part
from harvester.monitor.snapshot import Snapshot
from harvester.web import WebServer
from tests.support import browser_text
from tests.support.browser import chromium
from tests.support.servers import needed

CONFIG = Path(__file__).parent.parent.parent / "config"
PATHS = ("/", "/livez", "/readyz", "/metrics")


class Looks:
    """A service to look at, which counts the looks; its clock stands still unless it is set."""

    def __init__(self) -> None:
        """Be healthy."""
        self.seen: Snapshot | Exception = browser_text.healthy()
        self.count = 0
        self.now = 0.0
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self) -> Snapshot:
        """Look."""
        self.count += 1
        await self.answers.wait()
        if isinstance(self.seen, Exception):
            raise self.seen
        return self.seen

    def monotonic(self) -> float:
        """Give what was set."""
        return self.now

    def wall(self) -> float:
        """Give the same on the wall."""
        return browser_text.NOW + self.now

    def show(self, seen: Snapshot | Exception) -> None:
        """Be like that from now on, a good while later."""
        self.seen = seen
        self.now += 60


@pytest.fixture
async def looks():
    """A healthy service."""
    return Looks()


@pytest.fixture
async def face(looks):
    """Its face, on a free port."""
    async with WebServer(take_snapshot=looks, clock=looks, port=0) as listening:
        yield listening


@pytest.fixture
async def http():
    """A client."""
    async with aiohttp.ClientSession() as session:
        yield session


async def get(http, face, path, **options):
    """One request: status and text."""
    async with http.get(face.url + path, **options) as answer:
        return answer.status, await answer.text()


async def test_a_wrong_clock_is_on_the_page_in_the_probe_and_in_the_metrics(http, face, looks):
    """Braze's time is used, so the service works, and is ready; but everybody who looks is told to set the clock."""
    told = "this machine's clock is 3 days behind Braze's; harvester uses Braze's time, but set the clock"
    wrong = Condition(Part.CLOCK, "behind", browser_text.NOW - 60, detail=told, blocks=False)
    looks.show(replace(browser_text.healthy(), conditions=(wrong,), clock_difference_seconds=-259_200.0))
    assert await get(http, face, "/readyz") == (200, f"ready\nThe clock is wrong: {told}\n")
    assert "3 days behind Braze" in (await get(http, face, "/"))[1]
    assert "harvester_clock_difference_seconds -259200.0" in (await get(http, face, "/metrics"))[1]


async def test_ready_while_all_is_well_and_says_why_not_otherwise(http, face, looks):
    """An orchestrator reads the status, a person the reasons, one a line whatever stands in them."""
    assert await get(http, face, "/readyz") == (200, "ready\n")
    looks.show(browser_text.unhealthy())
    status, text = await get(http, face, "/readyz")
    assert status == 503
    assert [line.partition(":")[0] for line in text.splitlines()] == [
        "Parts cannot be stored", 'Workspace "us" is halted', 'Every request of workspace "eu" fails',
    ]  # fmt: skip


async def test_a_ledger_that_fails_is_told_and_does_not_kill_the_process(http, face, looks):
    """A restart would not mend a disk: alive, not ready, no figures for the scraper, and a page that says so."""
    await get(http, face, "/")
    looks.show(LedgerError("the ledger cannot be used:\ndisk I/O error"))
    assert await get(http, face, "/livez") == (200, "ok\n")
    assert await get(http, face, "/readyz") == (503, "the ledger cannot be used:\\ndisk I/O error\n")
    assert (await get(http, face, "/metrics"))[0] == 503
    status, page = await get(http, face, "/")
    assert status == 200
    assert "disk I/O error" in page
    looks.show(browser_text.healthy())
    assert (await get(http, face, "/readyz"))[0] == 200


async def test_a_storm_of_scrapers_costs_one_look(http, face, looks):
    """However many watch, the ledger is asked once every two seconds at the most."""
    await asyncio.gather(*(get(http, face, path) for path in PATHS * 10))
    assert looks.count == 1
    looks.now += 1.9
    await get(http, face, "/metrics")
    assert looks.count == 1
    looks.now += 0.2
    await get(http, face, "/metrics")
    assert looks.count == 2


async def test_nothing_can_be_changed_and_little_be_learnt(http, face):
    """Other methods are refused, other paths unknown, and no answer tells of the software or lets itself be framed."""
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        async with http.request(method, face.url + "/") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")
    for path in ("/favicon.ico", "/metrics/", "/<script>", "/../etc/passwd", "/readyz?x=1"):
        status, text = await get(http, face, path)
        assert (status, text) == (404, "not found\n") or path.startswith("/readyz")
    for path in (*PATHS, "/nothing"):
        async with http.head(face.url + path) as answer:
            assert await answer.read() == b""
            assert "Server" not in answer.headers
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "unsafe" not in answer.headers["Content-Security-Policy"]


async def test_a_ledger_that_hangs_is_told_too(http, face, looks, monkeypatch):
    """Probes get an answer while a disk does not give one."""
    monkeypatch.setattr("harvester.monitor.health.TIMEOUT_SECONDS", 0.01)
    looks.answers.clear()
    status, text = await get(http, face, "/readyz")
    assert (status, text) == (503, "the ledger has not responded for 0 seconds\n")
    assert await get(http, face, "/livez") == (200, "ok\n")


async def test_what_is_no_http_leaves_no_trace(http, face, capfd, caplog):
    """A port scan fills no log."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(face.url.rpartition(":")[2]))
    writer.write(b"GET / HTTP/1.1\r\n\x1b[31mno header\r\n\r\n")
    assert b" 400 " in await reader.read()
    writer.close()
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")
    assert await get(http, face, "/livez") == (200, "ok\n")


async def test_a_port_that_is_taken_is_told_in_a_sentence(looks):
    """The user chooses another one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}: .*; choose another"):
            await WebServer(take_snapshot=looks, clock=looks, port=port).__aenter__()


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_metrics_tell_what_the_page_tells(http, face, looks, accept):
    """Each figure in Prometheus's own format, under its name, and no id among the labels."""
    looks.show(browser_text.unhealthy())
    status, text = await get(http, face, "/metrics", headers={"Accept": accept})
    assert status == 200
    found = {
        (s.name, *sorted(s.labels.values())): s.value for f in families(text.replace("# EOF", "")) for s in f.samples
    }
    expected = {
        ("harvester_ready",): 0,
        ("harvester_budget_spent_requests", "eu", "others"): browser_text.unhealthy().workspaces[0].window.others,
        ("harvester_budget_reset_timestamp_seconds", "eu"): browser_text.HOUR + 3600,
        ("harvester_hold", "eu", "rate_limited"): 1,
        ("harvester_hold", "eu", "halted"): 0,
        ("harvester_workspace_halted", "us"): 1,
        ("harvester_readings", "eu", "waiting"): 81_234,
        ("harvester_at_risk_pairs", "eu"): 1_342,
        ("harvester_nearest_deadline_timestamp_seconds", "eu"): browser_text.NOW + 1_500,
        ("harvester_pairs", "pending"): 86_458,
        ("harvester_books_balanced",): 0,
        ("harvester_batches", "sealed"): 212,
        ("harvester_store_unavailable",): 1,
        ("harvester_condition", "connection_refused", "endpoint", "eu"): 1,
        ("harvester_condition", "key", "status_401", "us"): 1,
        ("harvester_condition", "", "status_503", "store"): 1,
        ("harvester_last_capture_timestamp_seconds", "eu"): browser_text.NOW - 180,
        ("harvester_last_capture_timestamp_seconds", "us"): 0,
        ("harvester_trigger_connected", "rabbitmq", "sends"): 0,
        ("harvester_messages_total", "dead_lettered", "sends"): 2,
        ("harvester_responses_total", "eu", "status_429"): 3,
        ("harvester_request_wait_seconds_total", "eu"): 1234.5,
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected
    assert "script" not in text
    assert ("harvester_budget_limit_requests", "us") not in found  # no answer has told of it yet


async def exported(http, face) -> set[str]:
    """All names that a scraper gets."""
    return {sample.name for family in families((await get(http, face, "/metrics"))[1]) for sample in family.samples}


@pytest.mark.parametrize("name", ["alerts.yml", "grafana-dashboard.json", "../docs/operations.md"])
async def test_files_for_operations_name_only_metrics_that_exist(http, face, name):
    """An alert on a metric that nobody exports never fires."""
    named = set(re.findall(r"\bharvester_[a-z_]+", (CONFIG / name).read_text()))
    assert named
    assert named <= await exported(http, face)


async def test_every_metric_and_every_alert_is_explained(http, face):
    """Who is paged by an alert finds it in the documentation, with what to do."""
    told = (CONFIG.parent / "docs" / "operations.md").read_text()
    alerts = yaml.safe_load((CONFIG / "alerts.yml").read_text())
    names = {rule["alert"] for group in alerts["groups"] for rule in group["rules"]}
    assert [name for name in sorted(names | await exported(http, face)) if f"`{name}`" not in told] == []


async def test_the_alerts_fire_when_they_should():
    """Prometheus's own tool takes the rules, and its unit tests of them pass."""
    promtool = needed("promtool")
    for command in (("check", "rules", str(CONFIG / "alerts.yml")), ("test", "rules", "tests/alerts_test.yml")):
        process = await asyncio.create_subprocess_exec(
            promtool, *command, cwd=CONFIG.parent, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        told, _ = await process.communicate()
        assert process.returncode == 0, told.decode()


CHANGED = """new Promise(done => {
  const all = {subtree: true, childList: true, characterData: true, attributes: true};
  new MutationObserver(done).observe(document.body, all);
  document.dispatchEvent(new Event("visibilitychange"));
}).then(() => true)"""
"""Let the page look again, as it does when its tab comes to the front, and wait until it has changed."""


async def test_the_page_in_a_real_browser(face, looks, tmp_path):
    """It fits every width, asks nobody else, says nothing to the console, and keeps itself up to date in place."""
    async with chromium(tmp_path / "profile") as tab:
        for width, dark, seen in ((390, False, browser_text.unhealthy()), (1280, True, browser_text.healthy())):
            looks.show(seen)
            await tab.visit(face.url + "/", width=width, dark=dark)
            assert await tab.run("document.documentElement.scrollWidth - innerWidth") <= 0
            assert await tab.run("getComputedStyle(document.body).fontVariantNumeric") == "tabular-nums"
            assert len(await tab.picture()) > 10_000

        await tab.run("window.kept = document.querySelector('.books h2'); kept.scrollIntoView(); true")
        place = await tab.run("kept.getBoundingClientRect().top")
        looks.show(browser_text.unhealthy())
        assert await tab.run(CHANGED)
        assert await tab.run("document.querySelector('h1').textContent") == "Not healthy"
        assert await tab.run("document.title") == "Not healthy · harvester"
        assert await tab.run("kept.isConnected"), "what has not changed must stay, and with it what is selected"
        moved = await tab.run("kept.getBoundingClientRect().top") - place
        assert abs(moved) < 1, "what is being read must not move"
        assert tab.said == []
        assert {url.split("/", 3)[2] for url in tab.asked if not url.startswith("data:")} == {face.url[7:]}

        await face.__aexit__(None, None, None)
        assert await tab.run(CHANGED)
        assert "No response since" in await tab.run("document.getElementById('stale').textContent")


async def test_the_page_without_script(face, looks, tmp_path):
    """It shows the same and asks to be loaded again by itself."""
    async with chromium(tmp_path / "profile") as tab:
        await tab.visit(face.url + "/", script=False)
        assert await tab.run("document.querySelector('meta[http-equiv=refresh]').content") == "10"
        assert tab.said == []
