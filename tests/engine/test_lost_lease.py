"""A process whose lease is over: it drops what it holds, begins a new epoch, and nothing is lost or stored twice."""

import asyncio
from collections import Counter

import structlog

from harvester.ledger import LEASE_SECONDS, Ledger
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.support.many_workspaces import Scene, sends, serve


class LateClock(VirtualClock):
    """The clock of another process, by which every lease is over."""

    def wall(self) -> float:
        """Return a time after all leases."""
        return super().wall() + 10 * LEASE_SECONDS


async def recover_as_another_process(scene: Scene) -> None:
    """Take over the readings of the scene's process."""
    async with await Ledger.open(scene.ledger.location, clock=LateClock()) as other:
        await other.batches.recover()


def count_captures(scene: Scene) -> Counter[str]:
    """Count the captures of each send in the parts."""
    return Counter(
        row["send_id"] for _, rows in scene.sink.parts for row in rows if row["level"] == "capture"
    )  # fmt: skip


def test_readings_that_another_process_recovered_are_captured_once(tmp_path):
    """Unsealed outcomes are dropped and their readings requested again; sealed batches stay."""

    async def story() -> None:
        with structlog.testing.capture_logs() as logs:
            async with serve(tmp_path, ["eu"], behaviours={"eu": lambda _: 3.0}, concurrency=8) as scene:
                await scene.enqueue(sends("eu", 200))
                await asyncio.sleep(25)  # some batches are sealed, one is open, requests are in flight
                assert count_captures(scene)
                await recover_as_another_process(scene)
                await scene.wait_until_pending(0)
                await asyncio.sleep(1)
                assert count_captures(scene) == Counter(f"s{number}" for number in range(200))
                assert len(scene.braze.requests) > 200
            events = Counter(each["event"] for each in logs)
            assert (events["batch_lost"], events["leases_lost"]) == (1, 1)

    run_virtual(story())


def test_a_process_that_was_suspended_renews_before_it_continues(tmp_path):
    """A process that was suspended for longer than its lease sends no request for readings that others recovered."""

    async def story() -> None:
        async with serve(tmp_path, ["eu"], behaviours={"eu": lambda _: 3.0}, concurrency=8) as scene:
            await scene.enqueue(sends("eu", 100))
            await asyncio.sleep(12)
            requested = len(scene.braze.requests)
            asyncio.get_running_loop()._jumping.now += 3 * LEASE_SECONDS  # type: ignore[attr-defined]
            await recover_as_another_process(scene)
            await scene.wait_until_pending(0)
            await asyncio.sleep(1)
            assert count_captures(scene) == Counter(f"s{number}" for number in range(100))
            assert len(scene.braze.requests) <= 100 + requested + 8

    run_virtual(story())


def test_a_request_that_waited_for_its_turn_while_the_process_was_suspended_does_not_leave(tmp_path):
    """Another process may have captured its reading meanwhile, so nothing is requested before the lease is renewed."""

    async def story() -> None:
        async with serve(tmp_path, ["eu"], max_rate=0.5) as scene:
            await scene.enqueue(sends("eu", 5))
            while len(scene.braze.requests) < 2:
                await asyncio.sleep(0.1)
            await recover_as_another_process(scene)
            requested = len(scene.braze.requests)
            asyncio.get_running_loop()._jumping.now += 3 * LEASE_SECONDS  # type: ignore[attr-defined]
            await scene.wait_until_pending(0)
            requests = Counter(send for _, send, _ in scene.braze.requests[requested:])
            assert requests == Counter(f"s{number}" for number in range(5))

    run_virtual(story())


def test_housekeeping_does_not_delay_the_renewal_of_the_lease(tmp_path):
    """A process whose housekeeping takes minutes keeps its readings."""

    async def story() -> None:
        slow = {"after_housekeeping": lambda: asyncio.sleep(1e9), "behaviours": {"eu": lambda _: 25.0}}
        async with serve(tmp_path, ["eu"], concurrency=8, **slow) as scene:
            await scene.enqueue(sends("eu", 100))
            async with await Ledger.open(scene.ledger.location, clock=VirtualClock()) as other:
                for _ in range(20):
                    await asyncio.sleep(LEASE_SECONDS / 3)
                    await other.batches.recover()
            assert len(scene.braze.requests) == len({send for _, send, _ in scene.braze.requests}) == 100

    run_virtual(story())


def test_a_stop_seals_what_was_answered_and_releases_the_rest(tmp_path):
    """After a stop nothing is leased, so the next process starts without waiting for a lease."""

    async def story() -> None:
        async with serve(tmp_path, ["eu", "us"], behaviours={"eu": lambda _: 1.0}, concurrency=4) as scene:
            await scene.enqueue(sends("eu", 50), sends("us", 50))
            await asyncio.sleep(4)
            answered = len(scene.braze.requests) - scene.braze.in_flight
            scene.engine.stop()
            await scene.task
            readings = [(await scene.ledger.reports.get_outlooks([name]))[name].readings for name in ("eu", "us")]
            assert not any("leased" in each for each in readings)
            assert count_captures(scene).total() >= answered
            assert max(count_captures(scene).values()) == 2  # both workspaces have sends of the same names

    run_virtual(story())
