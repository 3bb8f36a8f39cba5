"""The web server over real HTTP, as probes, scrapers and browsers use it."""

import asyncio
import json
import re
import socket
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as families

from harvester.condition import Component, Condition
from harvester.errors import LedgerError, UsageError
from harvester.monitor.snapshot import Snapshot
from harvester.web import WebServer
from tests.support import snapshots
from tests.support.browser import chromium
from tests.support.processes import require_program

CONFIG = Path(__file__).parent.parent.parent / "config"
PATHS = ("/", "/livez", "/readyz", "/metrics", "/api/status.json")


class SnapshotSource:
    """Takes snapshots and counts them; also the clock, which tests set."""

    def __init__(self) -> None:
        """Begin healthy."""
        self.seen: Snapshot | Exception = snapshots.healthy()
        self.count = 0
        self.now = 0.0
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self) -> Snapshot:
        """Take a snapshot."""
        self.count += 1
        await self.answers.wait()
        if isinstance(self.seen, Exception):
            raise self.seen
        return self.seen

    def monotonic(self) -> float:
        """Return the set time."""
        return self.now

    def wall(self) -> float:
        """Return the set time since ``NOW``."""
        return snapshots.NOW + self.now

    def show(self, seen: Snapshot | Exception) -> None:
        """Return ``seen`` from now on, and let a minute pass."""
        self.seen = seen
        self.now += 60


@pytest.fixture
async def source():
    """A healthy service."""
    return SnapshotSource()


@pytest.fixture
async def server(source):
    """Its web server on a free port."""
    async with WebServer(take_snapshot=source, clock=source, port=0) as listening:
        yield listening


@pytest.fixture
async def http():
    """A client."""
    async with aiohttp.ClientSession() as session:
        yield session


async def get(http, server, path, **options):
    """One request: status and text."""
    async with http.get(server.url + path, **options) as answer:
        return answer.status, await answer.text()


async def test_a_wrong_clock_is_on_the_page_in_the_probe_and_in_the_metrics(http, server, source):
    """The service uses Braze's time and is ready; page, probe and metrics show the difference."""
    detail = "this machine's clock is 3 days behind Braze's; harvester uses Braze's time, but set the clock"
    wrong = Condition(Component.CLOCK, "behind", snapshots.NOW - 60, detail=detail, blocks=False)
    source.show(replace(snapshots.healthy(), conditions=(wrong,), clock_difference_seconds=-259_200.0))
    assert await get(http, server, "/readyz") == (200, f"ready\nThe clock is wrong: {detail}\n")
    assert "3 days behind Braze" in (await get(http, server, "/"))[1]
    assert "harvester_clock_difference_seconds -259200.0" in (await get(http, server, "/metrics"))[1]


async def test_readyz_is_200_or_lists_the_reasons(http, server, source):
    """Each reason takes one line, whatever text it contains."""
    assert await get(http, server, "/readyz") == (200, "ready\n")
    source.show(snapshots.unhealthy())
    status, text = await get(http, server, "/readyz")
    assert status == 503
    assert [line.partition(":")[0] for line in text.splitlines()] == [
        "Parts cannot be stored",
        'Workspace "us" is halted',
        'Every request of workspace "eu" fails',
    ]


async def test_readyz_lists_at_most_20_conditions(http, server, source):
    """A thousand unusable key files take 20 lines, and one that counts the others."""
    keys = tuple(Condition(Component.KEY, "file", 0, f"w{number}", blocks=False) for number in range(1111))
    source.show(replace(snapshots.healthy(), conditions=keys))
    status, text = await get(http, server, "/readyz")
    lines = text.splitlines()
    assert (status, len(lines), lines[0], lines[-1]) == (200, 22, "ready", "and 1,091 more")


async def test_a_failing_ledger_is_reported_and_the_process_stays_alive(http, server, source):
    """The process is alive and not ready, the page shows the error, and there are no metrics."""
    await get(http, server, "/")
    source.show(LedgerError("the ledger cannot be used:\ndisk I/O error"))
    assert await get(http, server, "/livez") == (200, "ok\n")
    assert await get(http, server, "/readyz") == (503, "the ledger cannot be used:\\ndisk I/O error\n")
    assert (await get(http, server, "/metrics"))[0] == 503
    status, page = await get(http, server, "/")
    assert status == 200
    assert "disk I/O error" in page
    source.show(snapshots.healthy())
    assert (await get(http, server, "/readyz"))[0] == 200


async def test_many_requests_share_one_snapshot(http, server, source):
    """The ledger is read at most every two seconds."""
    await asyncio.gather(*(get(http, server, path) for path in PATHS * 10))
    assert source.count == 1
    source.now += 1.9
    await get(http, server, "/metrics")
    assert source.count == 1
    source.now += 0.2
    await get(http, server, "/metrics")
    assert source.count == 2


async def test_requests_change_nothing_and_responses_reveal_no_software(http, server):
    """Other methods and paths are refused, and security headers are always present."""
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        async with http.request(method, server.url + "/") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")
    for path in ("/favicon.ico", "/metrics/", "/<script>", "/../etc/passwd", "/readyz?x=1"):
        status, text = await get(http, server, path)
        assert (status, text) == (404, "not found\n") or path.startswith("/readyz")
    for path in (*PATHS, "/nothing"):
        async with http.head(server.url + path) as answer:
            assert await answer.read() == b""
            assert "Server" not in answer.headers
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "unsafe" not in answer.headers["Content-Security-Policy"]


async def test_a_hanging_ledger_is_reported(http, server, source, monkeypatch):
    """Probes get a response while the ledger gives none."""
    monkeypatch.setattr("harvester.monitor.health.TIMEOUT_SECONDS", 0.01)
    source.answers.clear()
    status, text = await get(http, server, "/readyz")
    assert (status, text) == (503, "the ledger has not responded for 0 seconds\n")
    assert await get(http, server, "/livez") == (200, "ok\n")


async def test_malformed_requests_are_not_logged(http, server, capfd, caplog):
    """A malformed request, such as that of a port scan, is not logged."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    writer.write(b"GET / HTTP/1.1\r\n\x1b[31mno header\r\n\r\n")
    assert b" 400 " in await reader.read()
    writer.close()
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")
    assert await get(http, server, "/livez") == (200, "ok\n")


async def test_a_port_in_use_is_an_error_with_a_next_step(source):
    """The error about a port in use names the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}: .*; choose another"):
            await WebServer(take_snapshot=source, clock=source, port=port).__aenter__()


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
async def test_metrics_show_the_figures_of_the_page(http, server, source, accept):
    """The metrics have the figures of the page, and no label contains an id."""
    source.show(replace(snapshots.unhealthy(), unconfigured_at_risk={'"old"\\\n': 3}))
    status, text = await get(http, server, "/metrics", headers={"Accept": accept})
    assert status == 200
    parse = openmetrics_families if accept else families
    found = {(s.name, *sorted(s.labels.values())): s.value for f in parse(text) for s in f.samples}
    expected = {
        ("harvester_ready",): 0,
        ("harvester_captures_total", "activity", "d3"): 7,
        ("harvester_capture_lateness_seconds_bucket", "300.0"): 2,
        ("harvester_capture_lateness_seconds_count",): 3,
        ("harvester_workspace_requests_total", "eu"): sum(snapshots.unhealthy().workspaces[0].requests.values()),
        ("harvester_quota_spent_requests", "eu", "others"): snapshots.unhealthy().workspaces[0].window.others,
        ("harvester_quota_reset_timestamp_seconds", "eu"): snapshots.HOUR + 3600,
        ("harvester_hold", "eu", "rate_limited"): 1,
        ("harvester_workspace_halted", "us"): 1,
        ("harvester_readings", "eu", "waiting"): 81_234,
        ("harvester_at_risk_pairs", "eu"): 1_342,
        ("harvester_at_risk_pairs", '"old"\\\n'): 3,
        ("harvester_nearest_deadline_timestamp_seconds", "eu"): snapshots.NOW + 1_500,
        ("harvester_pairs", "pending"): 86_458,
        ("harvester_books_balanced",): 0,
        ("harvester_batches", "sealed"): 212,
        ("harvester_store_unavailable",): 1,
        ("harvester_condition", "connection_refused", "endpoint", "eu"): 1,
        ("harvester_condition", "key", "status_401", "us"): 1,
        ("harvester_condition", "", "status_503", "store"): 1,
        ("harvester_last_capture_timestamp_seconds", "eu"): snapshots.NOW - 180,
        ("harvester_last_capture_timestamp_seconds", "us"): 0,
        ("harvester_trigger_connected", "rabbitmq", "sends"): 0,
        ("harvester_messages_total", "dead_lettered", "sends"): 2,
        ("harvester_responses_total", "status_429"): 6,
        ("harvester_request_wait_seconds_total",): 2 * 1234.5,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert "<script" not in text
    few = families((await get(http, server, "/metrics?by_workspace=false"))[1])
    assert [each for family in few for each in family.samples if "workspace" in each.labels] == []
    assert ("harvester_quota_limit_requests", "us") not in found  # unknown until the first response


async def exported(http, server, source) -> set[str]:
    """The names of all metrics; a histogram counts once."""
    source.show(snapshots.unhealthy())
    found = list(families((await get(http, server, "/metrics"))[1]))
    histograms = {family.name for family in found if family.type == "histogram"}
    return histograms | {each.name for family in found if family.name not in histograms for each in family.samples}


@pytest.mark.parametrize("name", ["alerts.yml", "grafana-dashboard.json", "../docs/operations.md"])
async def test_files_for_operations_name_only_metrics_that_exist(http, server, source, name):
    """An alert on a metric that does not exist never fires."""
    named = set(re.findall(r"\bharvester_[a-z_]+?(?=(?:_bucket)?\b)", (CONFIG / name).read_text()))
    assert named
    assert named <= await exported(http, server, source)


async def test_every_metric_and_every_alert_is_explained(http, server, source):
    """docs/operations.md has a row for each metric and each alert."""
    text = (CONFIG.parent / "docs" / "operations.md").read_text()
    assert [
        name for name in sorted(list_alerts() | await exported(http, server, source)) if f"`{name}`" not in text
    ] == []


def list_alerts():
    """List the names of the alerts."""
    groups = yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"]
    return {rule["alert"] for group in groups for rule in group["rules"]}


async def run_promtool(*arguments):
    """Run promtool. An error is a failed assertion with its output."""
    promtool = require_program("promtool")
    process = await asyncio.create_subprocess_exec(
        promtool, *arguments, cwd=CONFIG.parent, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


@pytest.mark.long
async def test_the_alerts_fire_when_they_should():
    """Promtool accepts the rules, and their unit tests, in which each alert fires, pass."""
    tests = yaml.safe_load((CONFIG.parent / "tests" / "alerts_test.yml").read_text())["tests"]
    fired = {rule["alertname"] for test in tests for rule in test["alert_rule_test"] if rule["exp_alerts"]}
    assert fired == list_alerts()
    await run_promtool("check", "rules", str(CONFIG / "alerts.yml"))
    await run_promtool("test", "rules", "tests/alerts_test.yml")


async def test_an_alert_fires_once_for_all_replicas(tmp_path):
    """If two replicas export each series of the tests, there are as many alerts, and they keep the namespace.

    Only a wrong clock is an alert for each replica, because it belongs to a machine.
    """
    tests = yaml.safe_load((CONFIG.parent / "tests" / "alerts_test.yml").read_text())
    tests["rule_files"] = [str(CONFIG / "alerts.yml")]
    tests["tests"] = [each for each in tests["tests"] if "replica" not in each["name"]]
    for test in tests["tests"]:
        test["input_series"] = [add_labels(each, name) for each in test["input_series"] for name in "ab"]
        for rule in test["alert_rule_test"]:
            names = [{"instance": name, "pod": name} for name in "ab"] if "Clock" in rule["alertname"] else [{}]
            rule["exp_alerts"] = [
                each | {"exp_labels": each["exp_labels"] | name | {"namespace": "data"}}
                for each in rule["exp_alerts"]
                for name in names
            ]
    (tmp_path / "test.yml").write_text(json.dumps(tests))
    await run_promtool("test", "rules", str(tmp_path / "test.yml"))


def test_the_dashboard_counts_the_figures_of_a_ledger_once():
    """Each panel combines the replicas, and adds only what belongs to each of them."""
    panels = json.loads((CONFIG / "grafana-dashboard.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert [query for query in queries if not re.search(r"\b(sum|min|max)\b", query)] == []
    added = re.findall(r"sum(?: by \([^)]*\))? ?\((\w+)", " ".join(queries))
    assert set(added) == {"max", "rate", "harvester_requests_in_flight"}


def add_labels(series, name):
    """Return a series of a test as a replica exports it on Kubernetes."""
    metric, _, labels = series["series"].partition("{")
    labels = labels or "}"
    return series | {"series": f'{metric}{{namespace="data", instance="{name}", pod="{name}", {labels}'}


CHANGED = """new Promise(done => {
  const all = {subtree: true, childList: true, characterData: true, attributes: true};
  new MutationObserver(done).observe(document.body, all);
  document.dispatchEvent(new Event("visibilitychange"));
}).then(() => true)"""
"""Make the page refresh, as it does when its tab becomes visible, and wait until it has changed."""


async def test_the_page_in_a_real_browser(server, source, tmp_path):
    """The page fits every width, loads nothing else, logs nothing to the console, and updates in place."""
    async with chromium(tmp_path / "profile") as tab:
        for width, dark, seen in (
            (390, False, snapshots.unhealthy()),
            (1280, True, snapshots.healthy()),
        ):
            source.show(seen)
            await tab.visit(server.url + "/", width=width, dark=dark)
            assert await tab.run("document.documentElement.scrollWidth - innerWidth") <= 0
            assert await tab.run("getComputedStyle(document.body).fontVariantNumeric") == "tabular-nums"
            assert len(await tab.take_screenshot()) > 10_000

        await tab.run("window.kept = document.querySelector('.books h2'); kept.scrollIntoView(); true")
        place = await tab.run("kept.getBoundingClientRect().top")
        source.show(snapshots.unhealthy())
        assert await tab.run(CHANGED)
        assert await tab.run("document.querySelector('h1').textContent") == "Not healthy"
        assert await tab.run("document.title") == "Not healthy · harvester"
        assert await tab.run("kept.isConnected"), "what has not changed must stay, and with it what is selected"
        moved = await tab.run("kept.getBoundingClientRect().top") - place
        assert abs(moved) < 1, "what is being read must not move"
        assert tab.console == []
        assert {url.split("/", 3)[2] for url in tab.requested if not url.startswith("data:")} == {server.url[7:]}

        await server.__aexit__(None, None, None)
        assert await tab.run(CHANGED)
        assert "No response since" in await tab.run("document.getElementById('stale').textContent")


async def test_the_page_without_script(server, source, tmp_path):
    """Without JavaScript the page shows the same, and the browser reloads it every ten seconds."""
    async with chromium(tmp_path / "profile") as tab:
        await tab.visit(server.url + "/", script=False)
        assert await tab.run("document.querySelector('meta[http-equiv=refresh]').content") == "10"
        assert tab.console == []
