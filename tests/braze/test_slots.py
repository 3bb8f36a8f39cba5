"""The slots of a process: nearest deadline first, and slow requests give theirs to others."""

import asyncio

import pytest

from harvester.braze.gate import Held
from harvester.braze.slots import SLOW_SECONDS, Slots
from harvester.simulator.virtual_time import VirtualClock, run_virtual


def test_the_request_with_the_nearest_deadline_gets_the_next_slot():
    """The nearest deadline gets the next slot; between equal deadlines, the request that waited longer."""

    async def story() -> list[str]:
        clock, served = VirtualClock(), []
        slots = Slots(1, clock)
        held = slots.take(clock.monotonic())
        assert slots.take(clock.monotonic()) is None

        async def request(name: str, deadline: float) -> None:
            slot = await slots.wait(deadline)
            served.append(name)
            await asyncio.sleep(1)
            slots.release(slot)

        async with asyncio.TaskGroup() as group:
            for name, deadline in (("far", 30.0), ("near", 10.0), ("middle", 20.0), ("near too", 10.0)):
                group.create_task(request(name, deadline))
            await asyncio.sleep(1)
            slots.release(held)
        return served

    assert run_virtual(story()) == ["near", "near too", "middle", "far"]


def test_a_slow_request_gives_its_slot_to_others_once():
    """After five seconds another request may be sent, although nothing ended. Its end frees no second slot."""

    async def story() -> None:
        clock = VirtualClock()
        slots = Slots(1, clock)
        slow = slots.take(clock.monotonic())
        began = clock.monotonic()
        second = await slots.wait(1.0)
        assert clock.monotonic() - began == pytest.approx(SLOW_SECONDS, abs=0.01)
        slots.release(slow)
        assert slots.take(clock.monotonic()) is None
        slots.release(second)
        assert slots.take(clock.monotonic()) is not None

    run_virtual(story())


def test_a_request_that_is_cancelled_while_it_waits_takes_no_slot():
    """A cancelled request keeps no slot, whether it waits for one or has just got one."""

    async def story() -> None:
        clock = VirtualClock()
        slots = Slots(1, clock)
        held = slots.take(clock.monotonic())
        first, second = (asyncio.create_task(slots.wait(deadline)) for deadline in (1.0, 2.0))
        await asyncio.sleep(0)
        second.cancel()
        slots.release(held)
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert slots.take(clock.monotonic()) is not None

    run_virtual(story())


def test_a_stop_ends_all_waits():
    """A stop ends all waits for a slot, although requests that hang keep the slots."""

    async def story() -> None:
        clock = VirtualClock()
        slots = Slots(1, clock)
        slots.take(clock.monotonic())
        waiting = asyncio.create_task(slots.wait(1.0))
        await asyncio.sleep(0)
        slots.stop()
        with pytest.raises(Held):
            await waiting
        with pytest.raises(Held):
            await slots.wait(1.0)

    run_virtual(story())
