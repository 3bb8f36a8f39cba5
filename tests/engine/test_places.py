"""Workspaces with places of their own: each row goes to its place, and no place waits for another."""

import asyncio

import pytest
from structlog.testing import capture_logs

from harvester.errors import SinkError
from harvester.simulator.virtual_time import run_virtual
from harvester.storage import Sink
from tests.engine.test_changed_workspaces import configure
from tests.support.ledger_file import query, recorded_statements
from tests.support.many_workspaces import FORTY_DAYS, RecordingSink, Scene, sends, serve

FULL = SinkError("cannot write to a: No space left on device; free some space", cause="disk_full")


def stored(sink: Sink) -> list[tuple[str, int]]:
    """Return how many sends of each workspace a place contains."""
    assert isinstance(sink, RecordingSink)
    names = [name for name, _ in sink.stored_at()]
    return sorted((name, names.count(name)) for name in set(names))


async def wait_until_stored(scene: Scene) -> None:
    """Wait for up to ten minutes until all is captured and stored."""
    async with asyncio.timeout(600):
        await scene.wait_until_pending(0)
        while scene.engine.uploader.waiting:
            await asyncio.sleep(1)


def test_each_row_goes_to_the_place_of_its_workspace_and_all_are_sealed_together(tmp_path):
    """Two workspaces that name one place share parts, and all of them are sealed at the same moment."""
    names, places = ["a", "b", "c", "d"], {"a": "mine", "b": "mine", "c": "other"}

    async def story() -> None:
        async with serve(tmp_path, names, places=places) as scene:
            with recorded_statements(scene.ledger) as statements:
                await scene.enqueue(*(sends(name, 10) for name in names))
                await wait_until_stored(scene)
            assert sum(sql.startswith("INSERT INTO outcome ") for sql, _ in statements) == 1
            assert stored(scene.sinks["mine"]) == [("a", 10), ("b", 10)]
            assert (stored(scene.sinks["other"]), stored(scene.sink)) == ([("c", 10)], [("d", 10)])
            assert [len(each.parts) for each in (*scene.sinks.values(), scene.sink)] == [1, 1, 1]
            batch_ids = {row["batch_id"] for sink in scene.sinks.values() for _, rows in sink.parts for row in rows}
            ended = query(tmp_path / "ledger.db", "SELECT DISTINCT batch_id FROM outcome")
            assert len(batch_ids) == 2
            assert batch_ids < {batch_id for (batch_id,) in ended}

    run_virtual(story())


def test_a_cut_has_at_most_a_thousand_outcomes_of_all_places(tmp_path):
    """A kill repeats at most these, whatever the number of places."""
    names = ["a", "b", "c", "d"]

    async def story() -> None:
        async with serve(tmp_path, names, places={name: name for name in names}) as scene:
            await scene.enqueue(*(sends(name, 450) for name in names))
            await wait_until_stored(scene)
            assert [stored(scene.sinks[name]) for name in names] == [[(name, 450)] for name in names]
            sizes = query(tmp_path / "ledger.db", "SELECT count(*) FROM outcome GROUP BY ended_at")
            assert max(size for (size,) in sizes) <= 1000

    run_virtual(story())


@pytest.mark.parametrize("hanging", [False, True])
def test_a_place_that_fails_or_hangs_delays_no_rows_of_another(tmp_path, hanging):
    """The other rows are stored within the usual time; those that wait are stored once, when the place works."""

    async def story() -> None:
        async with serve(tmp_path, ["a", "b"], places={"a": "a", "b": "b"}) as scene:
            bad, good = scene.sinks["a"], scene.sinks["b"]
            bad.problem, bad.hanging = None if hanging else FULL, hanging
            for turn in range(3):
                enqueued_at = asyncio.get_running_loop().time()
                await scene.enqueue(sends("a", 20, prefix=f"{turn}-"), sends("b", 20, prefix=f"{turn}-"))
                await scene.wait_until_pending(0)
                await asyncio.sleep(1)
                assert max(good.stored_at().values()) - enqueued_at < 13
            assert (len(good.parts), bad.parts) == (3, [])
            if not hanging:
                (condition,) = scene.engine.conditions()
                assert (condition.subject, condition.workspaces, condition.cause) == ("a", ("a",), "disk_full")
            bad.problem, bad.hanging = None, False
            await wait_until_stored(scene)
            assert scene.engine.conditions() == []
            assert (stored(bad), sum(len(rows) for _, rows in bad.parts)) == ([("a", 60)], 60)

    run_virtual(story())


def test_a_full_share_stops_only_the_workspaces_of_the_place_that_fails(tmp_path):
    """Once the sealed bytes have reached their maximum, the others are captured and stored as before."""

    async def story() -> None:
        async with serve(tmp_path, ["a", "b"], places={"a": "a", "b": "b"}, max_sealed_bytes=1 << 20) as scene:
            scene.sinks["a"].problem, scene.braze.body = FULL, FORTY_DAYS
            await scene.enqueue(sends("a", 1000))
            await asyncio.sleep(300)
            requested = len(scene.braze.requests)
            assert requested < 1000
            await scene.enqueue(sends("b", 100))
            await asyncio.sleep(60)
            assert stored(scene.sinks["b"]) == [("b", 100)]
            assert len(scene.braze.requests) == requested + 100
            scene.sinks["a"].problem = None
            await wait_until_stored(scene)
            assert stored(scene.sinks["a"]) == [("a", 1000)]

    run_virtual(story())


def test_a_place_that_was_never_reached_holds_up_only_its_own_workspaces(tmp_path):
    """None of their readings is requested until the place is attached, because its dataset is not known before."""

    async def story() -> None:
        async with serve(tmp_path, ["a", "b"], places={"a": "a"}, unavailable={"a": FULL}) as scene:
            await scene.enqueue(sends("a", 5), sends("b", 5))
            await asyncio.sleep(100)
            assert {name for name, _, _ in scene.braze.requests} == {"b"}
            assert stored(scene.sink) == [("b", 5)]
            assert [each.workspaces for each in scene.engine.conditions()] == [("a",)]
            scene.sinks["a"].problem = None
            await wait_until_stored(scene)
            assert stored(scene.sinks["a"]) == [("a", 5)]

    run_virtual(story())


def test_the_place_of_a_workspace_changes_while_it_works(tmp_path):
    """What was sealed for the previous place is stored there, also after a restart; the rest goes to the new one."""

    async def story() -> None:
        async with serve(tmp_path, ["eu", "us"], places={"eu": "old"}) as scene:
            old = scene.sinks["old"]
            old.problem = FULL
            await scene.enqueue(sends("eu", 5))
            await scene.wait_until_pending(0)
            new = scene.sinks["new"] = RecordingSink(scene.ledger.clock, "new")
            await scene.engine.apply(configure("eu", "us", out="new"))
            await scene.enqueue(sends("eu", 5, prefix="later"))
            await scene.wait_until_pending(0)
            await asyncio.sleep(100)
            assert (stored(new), stored(old)) == ([("eu", 5)], [])
            assert len(query(tmp_path / "ledger.db", "SELECT 1 FROM batch WHERE state = 'sealed'")) == 1
            await scene.engine.apply(configure("eu", "us"))
            await scene.enqueue(sends("eu", 5, prefix="last"))
            await scene.wait_until_pending(0)
            await asyncio.sleep(100)
            assert (stored(new), stored(scene.sink)) == ([("eu", 5)], [("eu", 5)])
        async with serve(tmp_path, ["eu"], places={"eu": "new", "left": "old"}) as scene:
            await wait_until_stored(scene)
            assert (stored(scene.sinks["old"]), stored(scene.sinks["new"])) == ([("eu", 5)], [])
        assert scene.braze.requests == []

    run_virtual(story())


def test_a_batch_of_an_unknown_place_holds_up_no_workspace_of_a_service(tmp_path):
    """If another dataset has replaced the one of a sealed batch, this is logged once, and all else continues."""
    names, places = ["a", "b"], {"a": "a", "b": "b"}

    async def story() -> None:
        async with serve(tmp_path, names, places=places) as scene:
            scene.sinks["a"].problem = FULL
            await scene.enqueue(sends("a", 5))
            await scene.wait_until_pending(0)
            await scene.ledger.upkeep.save_dataset("a", "another dataset")
        with capture_logs() as logs:
            async with serve(tmp_path, names, places=places) as scene:
                await scene.enqueue(*(sends(name, 3, prefix="later") for name in names))
                await wait_until_stored(scene)
                await asyncio.sleep(600)
                assert [stored(scene.sinks[name]) for name in names] == [[("a", 3)], [("b", 3)]]
        assert [each["event"] for each in logs].count("batch_skipped") == 1

    run_virtual(story())
