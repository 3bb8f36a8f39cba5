"""Confirms Braze's time and corrects what a wrong clock did: one for each process, for all of its workspaces.

The outcome of a request that was made with a wrong time is discarded, and the request repeated. Changes that a wrong
clock made to the ledger are undone. If the next step depends on the time alone, one request is made for its ``Date``.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from harvester.braze.client import Client
from harvester.clock import LARGE_DIFFERENCE_SECONDS, format_difference
from harvester.condition import Component, Condition
from harvester.ledger import Ledger
from harvester.model import Outcome, Pair, Released

TURN_SECONDS = 5.0
"""How long a request, while the time is not confirmed, delays the others at most."""

MAX_TIME_REQUESTS = 3
TIME_REQUESTS_PAUSE_SECONDS = 600.0
"""The pause after ``MAX_TIME_REQUESTS`` requests for the time whose responses did not confirm it."""

_NO_SEND = ("time-check", "time-check")
"""Ids that do not exist: Braze refuses them, and a refusal has a ``Date`` too."""

log = structlog.get_logger()


class TimeCheck:
    """Shared by all lanes of a process. It must never record an outcome or lease a reading."""

    def __init__(self, ledger: Ledger) -> None:
        """Use the clock of the ledger."""
        self._ledger = ledger
        self._clock = ledger.clock
        self._answered = False
        self._turn_taken = False
        self._turn_ended = asyncio.Event()
        self._corrected: dict[str, int] = {}
        self._witnesses: dict[str, int] = {}
        """The number of moves of the clock at the last response of each workspace that agreed with it."""
        self._wrong_since: float | None = None
        self._requests_left = MAX_TIME_REQUESTS
        self._requested_at = 0.0

    @property
    def unconfirmed_at(self) -> float | None:
        """Return the current time if no response has confirmed it; otherwise None."""
        return None if self._clock.confirmed else self._clock.wall()

    def has_moved(self, offset: float) -> bool:
        """Return whether the clock has moved since it had this offset, so that requests made with it are void."""
        return abs(self._clock.offset - offset) > LARGE_DIFFERENCE_SECONDS

    async def send(self, workspace: str, offset: float, request: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Request a reading that was claimed with this ``offset``; returns ``Released`` if the clock has moved since.

        Until a response has confirmed the time, one request is made at a time: a wrong clock makes all of them void. A
        request that hangs delays the others only for ``TURN_SECONDS``.
        """
        if self._answered or not await self._take_turn():
            return await self._send(workspace, offset, request)
        try:
            return await self._send(workspace, offset, request)
        finally:
            self._turn_taken = False
            self._turn_ended.set()

    async def _take_turn(self) -> bool:
        """Wait for the turn, and take it; False if it is not needed any more, or not free in time.

        A lock would release the waiting requests one at a time, each of them one step of the event loop later.
        """
        try:
            async with asyncio.timeout(TURN_SECONDS):
                while self._turn_taken and not self._answered:
                    await self._turn_ended.wait()
        except TimeoutError:
            return False
        if self._answered:
            return False
        self._turn_taken = True
        self._turn_ended.clear()
        return True

    async def _send(self, workspace: str, offset: float, request: Callable[[], Awaitable[Outcome]]) -> Outcome:
        if self.has_moved(offset):
            return Released()
        outcome = await request()
        void = self.has_moved(offset) or self._clock.in_doubt
        self._answered = self._clock.confirmed or not void
        if not void:
            self._record_witness(workspace)
        return Released() if void else outcome

    async def may_expire(self, workspace: str, find_client: Callable[[], Client | None]) -> bool:
        """Return whether pairs of a workspace may expire: the time is right for it too.

        If the time contradicts the machine's clock, its own endpoint must agree with it, and is asked if necessary. The
        wrong ``Date`` of another workspace's endpoint must never end its pairs. ``find_client`` returns None for a
        workspace that was removed, even meanwhile: then no endpoint can be asked.
        """
        clock, difference = self._clock, self._clock.difference
        if difference is None:
            return False
        if abs(difference) <= LARGE_DIFFERENCE_SECONDS or self._witnesses.get(workspace) == clock.moves:
            return True
        if not await self._ledger.upkeep.has_overdue_pairs(workspace):
            return False
        moves, pair = clock.moves, Pair(workspace, *_NO_SEND)
        for _ in range(2):  # the second response decides, if the first one contradicts the known time
            if (client := find_client()) is None:
                return False
            if await client.request_time(pair, ending_at=clock.wall()):
                self._record_witness(workspace)
            if clock.moves != moves:
                return False
        return self._witnesses.get(workspace) == moves

    def _record_witness(self, workspace: str) -> None:
        """Record that a response of a workspace agrees with the time."""
        if self._clock.confirmed and not self._clock.in_doubt:
            self._witnesses[workspace] = self._clock.moves

    def needs_correction(self, workspace: str) -> bool:
        """Return whether ``correct`` has something to do for a workspace."""
        return self._clock.confirmed and self._corrected.get(workspace) != self._clock.moves

    async def correct(self, workspaces: Iterable[str]) -> None:
        """Undo what a wrong clock did to the ledger, once the time is confirmed or moved; store the difference."""
        clock = self._clock
        uncorrected = [each for each in workspaces if self.needs_correction(each)]
        if not uncorrected:
            return
        self._corrected |= dict.fromkeys(uncorrected, clock.moves)
        for name, count in (await self._ledger.upkeep.correct_times(uncorrected)).items():
            log.warning(
                "pairs_reopened", workspace=name, pairs=count, reason="they had expired because of a wrong clock"
            )
        await self._ledger.save_clock_difference()

    async def correct_arrivals(self, workspaces: Sequence[str]) -> None:
        """Undo what the wrong clocks of other processes did to pairs that they enqueued without a send time.

        Such a process may end before it knows the time, so nobody else would. Call it from time to time.
        """
        if self._clock.confirmed:
            await self._ledger.upkeep.correct_first_seen(workspaces)

    def condition(self) -> Condition | None:
        """Return the condition of this machine's clock; None while it is right or unknown."""
        seconds = self._clock.difference
        if seconds is None or abs(seconds) <= LARGE_DIFFERENCE_SECONDS:
            self._wrong_since = None
            return None
        if self._wrong_since is None:
            self._wrong_since = self._clock.wall()
        detail = f"this machine's clock is {format_difference(seconds)}; harvester uses Braze's time, but set the clock"
        cause = "ahead" if seconds > 0 else "behind"
        return Condition(Component.CLOCK, cause, self._wrong_since, detail=detail, blocks=False)

    @property
    def may_request_time(self) -> bool:
        """Whether the time is unknown, or the machine's clock has jumped, and no request for it was made lately."""
        if self._clock.confirmed and not self._clock.jumped:
            return False
        if self._clock.monotonic() - self._requested_at >= TIME_REQUESTS_PAUSE_SECONDS:
            self._requests_left = MAX_TIME_REQUESTS
        return self._requests_left > 0

    async def request_time_if_needed(
        self, workspaces: Sequence[str], find_client: Callable[[str], Client | None]
    ) -> bool:
        """Make one request for the time if the next step depends on it; returns whether one was made.

        It is needed for pairs that only a confirmed time can end, and once the machine's clock has jumped.
        ``find_client`` returns None for a workspace that was removed meanwhile.
        """
        pair = await self._ledger.upkeep.find_time_probe(workspaces) if self.may_request_time else None
        if pair is None or (client := find_client(pair.workspace)) is None:
            return False
        if await client.request_time(pair, ending_at=self._clock.wall()):
            self._requests_left -= 1
            self._requested_at = self._clock.monotonic()
            self._record_witness(pair.workspace)
        return True

    async def confirm(self, workspace: str, client: Client) -> None:
        """Make one request for the time, unless it is known. It names no send, so none is requested twice.

        One that hangs ends after ``TURN_SECONDS``.
        """
        pair = Pair(workspace, *_NO_SEND)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_SECONDS):
                if not self._clock.confirmed:
                    await client.request_time(pair, ending_at=self._clock.wall())
                if not self._clock.confirmed and self._clock.moves:  # the clocks disagree: ask once more
                    await client.request_time(pair, ending_at=self._clock.wall())
