"""A running service uses a changed configuration and changed key files without a restart."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from harvester.condition import Component
from harvester.service import service
from harvester.signals import stop_on_signals
from harvester.sources.brokers import Delivery
from tests.support.observed_service import AT, Seen, Wire, arrivals, served
from tests.support.secret_canary import KEY
from tests.support.whole_paths import Queue

CONFIG = f"""
api_key_dir = "keys"
web_port = 0
[workspace_defaults]
endpoint = "{AT}"
ages_days = [0.0001]
"""


@pytest.fixture
def config(monkeypatch, tmp_path):
    """Return a configuration file of the workspaces whose keys are in ``keys``: only ``us``."""
    monkeypatch.chdir(tmp_path)
    Path("keys").mkdir()
    write_key("us")
    Path("h.toml").write_text(CONFIG)
    return Path("h.toml")


def write_key(name: str, text: str | None = None) -> None:
    """Write the key file of a workspace."""
    Path("keys", name).write_text(f"{KEY}-{name}" if text is None else text)


def remove_key(name: str) -> None:
    """Remove the key file of a workspace."""
    Path("keys", name).unlink()


def swap_link(link: str, folder: str) -> None:
    """Let a link point to another folder, in one step."""
    Path("..new").symlink_to(folder)
    Path("..new").rename(link)


async def wait_for_captures(seen: Seen, count: int) -> None:
    """Wait for up to ten minutes until this number of pairs is captured."""
    async with asyncio.timeout(600):
        while sum((await seen.ledger.reports.get_books()).captured.values()) < count:
            await asyncio.sleep(1)


def test_a_workspace_whose_key_file_is_added_is_served_and_its_messages_are_accepted(tmp_path, config, monkeypatch):
    """A message that names the workspace becomes a dead letter before the reload, and is captured after it."""
    queue = Queue([], together=1)
    monkeypatch.setattr(service, "create_broker", lambda *_, **__: queue)
    config.write_text(CONFIG + '[triggers.sends]\nkind = "redis"\nurl = "redis://localhost"\nstream = "s"\n')

    def send(number: int) -> None:
        message = {"version": 1, "workspace": "eu", "campaign_id": "c", "send_id": f"s{number}"}
        queue.waiting.append(Delivery(orjson.dumps(message), 1, number))

    async def story(seen: Seen) -> None:
        send(1)
        await seen.at(10)
        write_key("eu")
        await seen.at(20)
        send(2)
        await wait_for_captures(seen, 1)
        assert [handle for handle, _, _ in queue.dead] == [1]
        snapshot = await seen.at(60)
        assert [each.name for each in snapshot.workspaces] == ["eu", "us"]
        (reloaded,) = seen.events("config_reloaded")
        assert (reloaded["added"], reloaded["removed"], reloaded["changed"]) == (1, 0, 0)

    served(tmp_path, {"us": Wire(), "eu": Wire()}, story, config=config)


def test_the_pairs_of_a_removed_workspace_stay_in_the_ledger_and_are_a_condition(tmp_path, config):
    """They are a condition at once, and are captured once the workspace is configured again."""
    write_key("eu")

    async def story(seen: Seen) -> None:
        await seen.ledger.intake.enqueue(arrivals(10, "eu", sent_at=seen.clock.wall()))
        remove_key("eu")
        (condition,) = (await seen.at(8)).conditions
        assert (condition.component, condition.subject) == (Component.WORKSPACE, "eu")
        assert [each.name for each in seen.snapshot.workspaces] == ["us"]
        await seen.at(100)
        assert (await seen.ledger.reports.get_books()).pending == 10
        write_key("eu")
        await wait_for_captures(seen, 10)
        assert (await seen.at(200)).conditions == ()

    served(tmp_path, {"us": Wire(), "eu": Wire()}, story, config=config)


def test_the_pairs_of_a_removed_workspace_expire_as_any_other(tmp_path, config):
    """Pairs of a removed workspace expire, and the log names the workspace."""
    wire = Wire()
    wire.remaining = 200_000

    async def story(seen: Seen) -> None:
        await seen.enqueue(1, "us")  # a response confirms the time
        await seen.ledger.intake.enqueue(arrivals(10, "gone", sent_at=seen.clock.wall() - 15.5 * 86_400))
        await seen.at(700)
        assert (await seen.ledger.reports.get_books_by_workspace())["gone"].expired == 10
        assert [(each["workspace"], each["pairs"]) for each in seen.events("pairs_expired")] == [("gone", 10)]
        assert (await seen.at(1400)).conditions == ()

    served(tmp_path, {"us": wire}, story, config=config)


def test_an_unusable_configuration_changes_nothing_and_is_shown_until_it_is_corrected(tmp_path, config):
    """One line lists all problems; page and metrics show them; the workspace is captured meanwhile."""

    async def story(seen: Seen) -> None:
        config.write_text("reserv = 1\n" + CONFIG + "[workspaces.us]\nmax_rate = -1\n")
        (condition,) = (await seen.at(20)).conditions
        assert (condition.component, condition.blocks) == (Component.CONFIG, False)
        (refused,) = seen.events("config_refused")
        assert all(name in refused["reason"] for name in ("reserv:", "workspaces.us.max_rate:"))
        assert "The configuration cannot be used, so the previous one stays in use" in seen.page
        assert seen.metrics["harvester_condition", "", "config", "invalid"] == 1
        await seen.enqueue(10, "us")
        await wait_for_captures(seen, 10)
        config.write_text(CONFIG)
        assert (await seen.at(100)).conditions == ()
        assert [len(seen.events(f"config_{state}")) for state in ("unusable", "usable", "reloaded")] == [1, 1, 0]

    served(tmp_path, {"us": Wire()}, story, config=config)


def test_an_unusable_key_file_is_a_condition_of_its_workspace_and_the_others_are_reloaded(tmp_path, config):
    """A half-written file halts nothing, and a workspace that is added with one is not served yet."""

    async def story(seen: Seen) -> None:
        write_key("us", "")
        write_key("apac", "two keys")
        write_key("eu")
        await seen.at(20)
        assert seen.snapshot.unready_reasons() == []
        assert {each.subject for each in seen.snapshot.conditions} == {"us", "apac"}
        assert {each.name for each in seen.snapshot.workspaces} == {"us", "eu"}
        assert 'The key file of workspace "us" cannot be used' in seen.page
        assert seen.metrics["harvester_condition", "file", "key", "us"] == 1
        await seen.enqueue(10, "us", "eu")
        await wait_for_captures(seen, 20)
        write_key("us")
        write_key("apac")
        assert (await seen.at(100)).conditions == ()
        assert sorted(each["workspace"] for each in seen.events("key_usable")) == ["apac", "us"]
        assert [each["added"] for each in seen.events("config_reloaded")] == [1, 1]

    served(tmp_path, {name: Wire() for name in ("us", "eu", "apac")}, story, config=config)


def test_a_setting_that_needs_a_restart_is_ignored_with_a_warning(tmp_path, config):
    """A warning names the setting, and all other changes of the file apply."""

    async def story(seen: Seen) -> None:
        write_key("eu")
        config.write_text("keep_days = 30\n" + CONFIG + "[workspaces.us]\nmax_rate = 5\n")
        await seen.at(60)
        assert [each["settings"] for each in seen.events("config_change_ignored")] == [["keep_days"]]
        assert [each["changed"] for each in seen.events("config_reloaded")] == [1]
        assert seen.metrics["harvester_pace_requests_per_second", "us"] <= 5

    served(tmp_path, {"us": Wire(), "eu": Wire()}, story, config=config)


def test_a_requested_reload_happens_at_once(tmp_path, config):
    """A requested reload is logged even if nothing has changed."""

    async def story(seen: Seen) -> None:
        for written in (False, True):
            if written:
                write_key("eu")
            seen.service.reload()
            await seen.at(seen.clock.monotonic() + 1)
        assert [each["added"] for each in seen.events("config_reloaded")] == [0, 1]

    served(tmp_path, {"us": Wire(), "eu": Wire()}, story, config=config)


async def test_sighup_reloads_and_does_not_stop():
    """Two SIGHUPs reload the configuration and do not end the process."""
    calls: asyncio.Queue[str] = asyncio.Queue()
    with stop_on_signals(lambda: calls.put_nowait("stop"), lambda: calls.put_nowait("reload")):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            assert await calls.get() == "reload"
    assert calls.empty()


def test_a_mounted_configuration_is_reloaded_when_its_link_changes(tmp_path, config):
    """Kubernetes swaps the link to a folder; the file that the command names stays the same link."""
    for version in ("..1", "..2"):
        Path(version).mkdir()
        Path(version, "h.toml").write_text(CONFIG)
    Path("..2/h.toml").write_text(CONFIG + "[workspaces.us]\nreserve = 0.5\n")
    config.unlink()
    Path("..data").symlink_to("..1")
    config.symlink_to("..data/h.toml")

    async def story(seen: Seen) -> None:
        await seen.at(10)
        swap_link("..data", "..2")
        await seen.at(20)
        assert [each["changed"] for each in seen.events("config_reloaded")] == [1]

    served(tmp_path, {"us": Wire()}, story, config=config)


def test_a_key_file_that_becomes_anything_else_stops_no_reload_and_has_its_present_reason(tmp_path, config):
    """If a key file becomes a pipe, a folder or a link to itself, the keys of other workspaces are still replaced."""
    key = Path("key")

    def replace_key(make: Callable[[], object]) -> None:
        key.rmdir() if key.is_dir() else key.unlink(missing_ok=True)
        make()

    async def reason_at(seen: Seen, seconds: int) -> str:
        (condition,) = (await seen.at(seconds)).conditions
        assert (condition.component, condition.subject) == (Component.KEY, "us")
        return condition.detail

    async def story(seen: Seen) -> None:
        config.write_text(CONFIG + '[workspaces.us]\napi_key_file = "key"\n')
        replace_key(key.mkdir)
        assert "Is a directory" in await reason_at(seen, 10)
        replace_key(lambda: key.write_text("a" * 100_000))
        assert "more than 65536 bytes" in await reason_at(seen, 20)
        replace_key(lambda: key.symlink_to(key))
        assert "symbolic links" in await reason_at(seen, 30)
        replace_key(lambda: os.mkfifo(key))
        write_key("eu")
        assert "it is a pipe" in await reason_at(seen, 40)
        assert {each.name for each in seen.snapshot.workspaces} == {"us", "eu"}

    served(tmp_path, {"us": Wire(), "eu": Wire()}, story, config=config)


def test_the_place_of_a_workspace_changes_without_a_restart(tmp_path, config):
    """Nothing of the workspace is captured while its new place belongs to another ledger; others go on."""
    write_key("eu")
    Path("foreign/.harvester").mkdir(parents=True)
    Path("foreign/.harvester/send_analytics.json").write_text('{"dataset": "d", "ledger": "another"}')

    def count_parts(folder: str) -> int:
        return len(list(Path(folder).glob("send_analytics/*/*.ndjson")))

    async def story(seen: Seen) -> None:
        await seen.enqueue(10, "us")
        await wait_for_captures(seen, 10)
        config.write_text(CONFIG + '[workspaces.us]\nout = "foreign"\n')
        (condition,) = (await seen.at(100)).conditions
        assert (condition.component, condition.workspaces) == (Component.STORE, ("us",))
        assert "was captured with another ledger" in condition.detail
        await seen.service.enqueue(arrivals(20, "us", "eu"), once=True)
        await seen.at(200)
        assert sum((await seen.ledger.reports.get_books()).captured.values()) == 30
        config.write_text(CONFIG + '[workspaces.us]\nout = "mine"\n')
        await wait_for_captures(seen, 40)
        assert (await seen.at(400)).conditions == ()
        assert (count_parts("out"), count_parts("mine"), count_parts("foreign")) == (2, 1, 0)

    served(tmp_path, {"us": Wire(), "eu": Wire()}, story, config=config)
