"""Admits a request: its workspace's pacer permits it, the process has a slot for it, and its reading is leased."""

from collections.abc import Callable

from harvester.braze.pacer import Pacer
from harvester.braze.slots import Slots
from harvester.errors import HarvesterError


class NotPermittedError(HarvesterError):
    """A request may not be sent any more; its reading is released."""


async def admit(pacer: Pacer, slots: Slots, *, deadline: float, permit: Callable[[], bool]) -> int:
    """Wait until a request may be sent; returns its slot. Send the request without any further wait.

    ``permit`` is called last, since the wait may take seconds. Raises ``Held``, and ``NotPermittedError`` if ``permit``
    returns False.
    """
    slot = slots.take(await pacer.acquire())
    if slot is None:
        slot = await _wait_for_slot(pacer, slots, deadline)
    if not permit():
        slots.release(slot)
        pacer.cancel()
        raise NotPermittedError("the request was not permitted any more")
    return slot


async def _wait_for_slot(pacer: Pacer, slots: Slots, deadline: float) -> int:
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
