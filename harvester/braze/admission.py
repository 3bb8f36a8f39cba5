"""Waits for a slot of the process with a request that the workspace's pacer permits."""

from harvester.braze.pacer import Pacer
from harvester.braze.slots import Slots


async def wait_for_slot(pacer: Pacer, slots: Slots, deadline: float) -> int:
    """Wait for a slot after ``pacer.acquire``, which is repeated if a hold begins meanwhile; returns the slot.

    The request with the nearest ``deadline`` gets the next slot. Raises ``Held``.
    """
    while True:
        try:
            with pacer.waiting_for_slot():
                slot = await slots.wait(deadline)
        except BaseException:
            pacer.cancel()
            raise
        if pacer.hold_cause is None:
            return slot
        slots.release(slot)
        pacer.cancel()
        again = slots.take(await pacer.acquire())
        if again is not None:
            return again
