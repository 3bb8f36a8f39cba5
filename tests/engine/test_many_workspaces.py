"""Many workspaces in one process: they share parts, and none of them delays another one."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from harvester.braze.gate import HALTED_SECONDS
from harvester.simulator.virtual_time import run_virtual
from tests.support.ledger_file import query, recorded_statements
from tests.support.many_workspaces import LATENCY_SECONDS, Behaviour, create_engine, sends, serve

HANG_SECONDS = 30.0


def test_hundreds_of_small_workspaces_share_parts_and_all_begin_soon(tmp_path):
    """500 workspaces with 4 due readings each make at most 8 parts, and each sends its first request within 2 s."""
    names = [f"w{number}" for number in range(500)]

    async def story() -> None:
        async with serve(tmp_path, names) as scene:
            await scene.enqueue(*(sends(name, 4) for name in names))
            enqueued_at = asyncio.get_running_loop().time()
            await scene.wait_until_pending(0)
        assert len(scene.sink.stored_at()) == 2000
        assert len(scene.sink.parts) <= 8
        first = scene.braze.first_requests()
        assert len(first) == 500
        assert max(first.values()) - enqueued_at < 1.0 + 2.0  # a second in which messages gather
        assert scene.braze.most_in_flight <= 256

    run_virtual(story())


def test_each_workspace_sends_its_first_request_before_others_send_many(tmp_path):
    """A confirmed time lets all waiting requests leave at once: each workspace has one before any has three."""
    names = [f"w{number}" for number in range(60)]

    async def story() -> None:
        async with serve(tmp_path, names, behaviours=dict.fromkeys(names, lambda _: 0.0)) as scene:
            await scene.enqueue(*(sends(name, 4) for name in names))
            await scene.wait_until_pending(0)
        requested = [name for name, _, _ in scene.braze.requests]
        assert len(requested) == 240
        until_all_have_one = max(requested.index(name) for name in names) + 1
        assert max(Counter(requested[:until_all_have_one]).values()) <= 2

    run_virtual(story())


def test_pairs_count_as_responses_land_and_as_saved_once_they_are_sealed(tmp_path):
    """A failed request counts as neither, since its pair is still pending."""

    async def story() -> None:
        behaviours: dict[str, Behaviour] = {"eu": lambda n: 1.0 if n < 10 else 8.0, "us": lambda _: 503}
        async with serve(tmp_path, ["eu", "us"], behaviours=behaviours) as scene:
            await scene.enqueue(sends("eu", 10), sends("us", 10))
            await asyncio.sleep(6)
            assert (scene.engine.counters.count_done("eu"), scene.engine.count_unsealed()) == (0, {"eu": 9})
            await scene.wait_until_pending(10)
            assert (scene.engine.counters.count_done("eu"), scene.engine.count_unsealed()) == (10, {})

    run_virtual(story())


SICK: dict[str, Behaviour] = {
    "halted": lambda _: 401,
    "throttled": lambda _: 429,
    "overloaded": lambda _: 503,
    "slow": lambda _: 4.0,
    "hanging": lambda _: HANG_SECONDS,
}


@pytest.mark.parametrize("kind", SICK)
def test_a_failing_workspace_delays_no_rows_of_others(tmp_path, kind):
    """What the others capture is stored within ten seconds, whatever happens to the failing workspace."""

    async def story() -> None:
        async with serve(tmp_path, ["sick", "well"], behaviours={"sick": SICK[kind]}) as scene:
            await scene.enqueue(sends("sick", 300, age_days=10.0))
            await asyncio.sleep(5)
            for turn in range(6):
                await scene.enqueue(sends("well", 20, prefix=f"{turn}-"))
                await asyncio.sleep(5)
            asked = {send: at for name, send, at in scene.braze.requests if name == "well"}
            await asyncio.sleep(12)
            stored = scene.sink.stored_at()
            delays = [stored["well", send] - at for send, at in asked.items()]
        assert len(delays) == 120
        assert max(delays) < 10 + 2 * LATENCY_SECONDS + 0.5

    run_virtual(story())


def test_a_backfill_in_one_workspace_delays_no_deadline_of_another(tmp_path):
    """A reading that falls due beside 6,000 with nearer deadlines is requested within two seconds."""

    async def story() -> None:
        async with serve(tmp_path, ["backfill", "other"]) as scene:
            await scene.enqueue(sends("backfill", 6000, age_days=12.0))
            await asyncio.sleep(10)
            began = asyncio.get_running_loop().time()
            await scene.enqueue(sends("other", 5, age_days=1.0))
            await asyncio.sleep(4)
            assert (await scene.ledger.reports.get_outlooks(["backfill"]))["backfill"].readings
        asked = [at for name, _, at in scene.braze.requests if name == "other"]
        assert len(asked) == 5
        assert min(asked) - began < 1.0 + 1.0  # a second in which messages gather

    run_virtual(story())


def test_workspaces_that_hang_do_not_keep_the_slots(tmp_path):
    """A request that lasts for five seconds gives its slot to others, which are captured meanwhile."""
    hanging = [f"hanging{number}" for number in range(6)]

    async def story() -> None:
        behaviours = dict.fromkeys(hanging, SICK["hanging"])
        async with serve(tmp_path, [*hanging, "well"], behaviours=behaviours, concurrency=4, max_in_flight=4) as scene:
            await scene.enqueue(*(sends(name, 4, age_days=12.0) for name in hanging))
            await asyncio.sleep(2)
            await scene.enqueue(sends("well", 5, age_days=1.0))
            await asyncio.sleep(20)
            captured = [name for name, _ in scene.sink.stored_at()]
        assert captured.count("well") == 5

    run_virtual(story())


def test_an_idle_workspace_costs_no_task_and_no_connection(tmp_path):
    """500 workspaces without work need a few tasks and no client. With work in one, only that one has a client."""
    names = [f"w{number}" for number in range(500)]

    async def story() -> None:
        before = len(asyncio.all_tasks())
        async with serve(tmp_path, names) as scene:
            await asyncio.sleep(30)
            assert (len(asyncio.all_tasks()) - before < 10, scene.braze.opened) == (True, 0)
            await scene.enqueue(sends("w7", 3))
            await scene.wait_until_pending(0)
            await asyncio.sleep(5)
            assert (len(asyncio.all_tasks()) - before < 10, scene.braze.opened) == (True, 1)

    run_virtual(story())


def test_a_run_makes_access_only_to_workspaces_with_open_pairs(tmp_path):
    """A run of 3 pairs in one of 500 workspaces needs as few statements as with one workspace."""

    async def count_statements(folder: Path, names: list[str]) -> int:
        async with create_engine(folder, names, until_stopped=False) as (engine, ledger, braze, *_):
            await ledger.intake.enqueue(sends("w7", 3), once=True)
            with recorded_statements(ledger) as statements:
                await engine.run()
            assert (len(braze.requests), braze.opened) == (3, 1)
        return len(statements)

    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    one = run_virtual(count_statements(tmp_path / "one", ["w7"]))
    assert run_virtual(count_statements(tmp_path / "many", [f"w{number}" for number in range(500)])) <= one


def test_a_run_waits_for_pairs_of_a_list_that_is_still_read(tmp_path):
    """The pairs of a later page are requested, unless the run has given up their workspace."""

    async def story() -> None:
        behaviours = {"refused": lambda _: 401}
        names = ["eu", "us", "refused"]
        created = create_engine(tmp_path, names, until_stopped=False, behaviours=behaviours)
        async with created as (engine, ledger, braze, *_):
            running = asyncio.create_task(engine.run(more_pairs=True))
            for number, page in enumerate((["eu", "refused"], ["us"], ["eu", "refused"])):
                await asyncio.sleep(60)
                await ledger.intake.enqueue([each for name in page for each in sends(name, 5, prefix=f"{number}-")])
                engine.wake(page)
            await asyncio.sleep(60)
            assert not running.done()
            engine.finish()
            await running
            requests = Counter(name for name, _, _ in braze.requests)
            assert (requests["eu"], requests["us"]) == (10, 5)
            assert requests["refused"] <= 5
            assert await ledger.reports.count_pending() == {"refused": 10}

    run_virtual(story())


def test_access_is_dropped_after_an_idle_hour_and_made_again(tmp_path):
    """The counters of the process continue after a workspace was idle for an hour."""

    async def story() -> None:
        async with serve(tmp_path, ["eu", "us"]) as scene:
            await scene.enqueue(sends("eu", 3))
            await scene.wait_until_pending(0)
            await asyncio.sleep(3500)
            assert scene.braze.opened == 1
            await asyncio.sleep(300)
            assert scene.braze.opened == 0
            await scene.enqueue(sends("eu", 2, prefix="later"))
            await scene.wait_until_pending(0)
            assert scene.engine.workspaces.get_counters("eu").requests == {"first": 5}

    run_virtual(story())


def test_messages_cost_the_same_whatever_the_number_of_workspaces(tmp_path):
    """Three messages of a pair that is not due need at most 30 statements with 200 workspaces."""
    names = [f"w{number}" for number in range(200)]

    async def story() -> None:
        async with serve(tmp_path, names) as scene:
            await asyncio.sleep(21)  # between two polls of all workspaces, and between two renewals
            with recorded_statements(scene.ledger) as statements:
                for _ in range(3):
                    await scene.enqueue(sends("w3", 1, age_days=0.0))
                await asyncio.sleep(4)
            assert 0 < len(statements) <= 30

    run_virtual(story())


def test_a_part_has_at_most_a_thousand_responses(tmp_path):
    """Fast workspaces fill parts of a thousand responses. The last one is closed when nothing is due or in flight."""
    names = ["a", "b", "c", "d"]

    async def story() -> None:
        async with serve(tmp_path, names) as scene:
            await scene.enqueue(*(sends(name, 325) for name in names))
            await scene.wait_until_pending(0)
            await asyncio.sleep(1)
        sizes = [len(rows) for _, rows in scene.sink.parts]
        assert sum(sizes) == 1300
        assert max(sizes) == 1000
        assert len(sizes) <= 5

    run_virtual(story())


def test_memory_is_bounded_whatever_is_due(tmp_path, monkeypatch):
    """Eight workspaces could have 345 readings each in hand, five seconds of their pace; together they have 2,000."""
    names, most_leased = [f"w{number}" for number in range(8)], 2000
    monkeypatch.setattr("harvester.engine.capacity.MAX_LEASED", most_leased)

    async def story() -> None:
        async with serve(tmp_path, names) as scene:
            await scene.ledger.intake.enqueue([each for name in names for each in sends(name, 400)])
            scene.engine.wake()
            most = 0
            for _ in range(20):
                await asyncio.sleep(0.25)
                ((leased,),) = query(scene.ledger.location, "SELECT count(*) FROM pair WHERE state = 'leased'")
                most = max(most, leased)
            assert most_leased / 2 < most <= most_leased

    run_virtual(story())


def test_a_workspace_that_hangs_learns_the_time_from_another(tmp_path):
    """A message of a captured pair needs the time at once: a wrong clock would have the pair read again."""

    async def story() -> None:
        async with serve(tmp_path, ["w0", "w1"], behaviours={"w0": lambda _: 1e9}) as scene:
            await scene.engine.confirm_time("w0")
            assert scene.ledger.clock.confirmed
            assert [name for name, _, _ in scene.braze.requests] == ["w0", "w1"]

    run_virtual(story())


def test_a_reading_whose_request_is_refused_while_its_lane_claims_is_requested_again(tmp_path):
    """A message wakes the lane, and the key is refused before the claim ends. The reading is not leased for ever."""

    async def story() -> None:
        behaviours: dict[str, Behaviour] = {
            "a": lambda n: 401 if n == 2 else 0.2,
            "b": lambda n: 0.2 if n == 1 else 5.0,
        }
        async with serve(tmp_path, ["a", "b"], behaviours=behaviours) as scene:
            await scene.enqueue(sends("a", 1), sends("b", 1))
            await scene.wait_until_pending(0)  # the time is known from now on, so no request waits for it
            await scene.enqueue(sends("a", 1, prefix="t"), sends("b", 1, prefix="t"))
            while len(scene.braze.requests) < 4:
                await asyncio.sleep(0.01)
            await asyncio.sleep(LATENCY_SECONDS / 2)
            scene.engine.wake({"a"})
            await asyncio.sleep(HALTED_SECONDS + HANG_SECONDS)
            assert (await scene.ledger.reports.get_books()).pending == 0

    run_virtual(story())
