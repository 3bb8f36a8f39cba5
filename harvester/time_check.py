"""Whether Braze's time is known, and what is done about it: one for each process, for all of its workspaces.

A question that was put by a wrong clock is not recorded but put again. What a wrong clock did to the ledger is undone.
Where only the time can say what is to be done next, one call is made for its answer's ``Date``.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from harvester.braze.client import Client
from harvester.clock import LARGE_DIFFERENCE_SECONDS, difference_in_words
from harvester.health import Condition, Part
from harvester.ledger import Ledger, braze_time
from harvester.model import Outcome, Pair, Returned

ASKS = 3
ASK_AGAIN_SECONDS = 600.0
"""So many answers that do not confirm the time are enough; more are asked for after so long."""

log = structlog.get_logger()


class TimeCheck:
    """What all harvests of a process go by. It must never record an outcome, and never lease anything."""

    def __init__(self, ledger: Ledger) -> None:
        """Go by the clock of the ledger."""
        self._ledger = ledger
        self._clock = ledger.clock
        self._answered = False
        self._turn = asyncio.Lock()
        self._corrected: dict[str, int] = {}
        self._wrong_since: float | None = None
        self._asks_left = ASKS
        self._asked_at = 0.0

    @property
    def unconfirmed_at(self) -> float | None:
        """Give the time if no answer has confirmed it; None if one has."""
        return None if self._clock.confirmed else self._clock.wall()

    def moved(self, since: float) -> bool:
        """Whether the clock was set to another time since it had this offset: what was asked by it is void."""
        return abs(self._clock.offset - since) > LARGE_DIFFERENCE_SECONDS

    async def asked(self, since: float, ask: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Ask, if the question is a good one still, and give what came of it if it was one to the end.

        Until an answer has shown the time, one question is asked at a time: by a wrong clock they are all wrong.
        """
        if not self._answered:
            async with self._turn:
                if not self._answered:
                    return await self._ask(since, ask)
        return await self._ask(since, ask)

    async def _ask(self, since: float, ask: Callable[[], Awaitable[Outcome]]) -> Outcome:
        if self.moved(since):
            return Returned()
        outcome = await ask()
        void = self.moved(since) or self._clock.in_doubt
        self._answered = self._clock.confirmed or not void
        return Returned() if void else outcome

    async def correct(self, workspace: str) -> None:
        """Where an answer has shown the time since the last look: undo what a wrong clock did, and keep by how much."""
        clock = self._clock
        if not clock.confirmed or self._corrected.get(workspace) == clock.moves:
            return
        self._corrected[workspace] = clock.moves
        count = await self._ledger.do(braze_time.correct, workspace, now=clock.wall())
        if count:
            log.warning("pairs_reopened", workspace=workspace, pairs=count, hint="they had expired by a wrong clock")
        await self._ledger.keep_clock_difference()

    def condition(self) -> Condition | None:
        """Give what is wrong with this machine's clock; None while it is right, or nobody knows."""
        seconds = self._clock.difference
        if seconds is None or abs(seconds) <= LARGE_DIFFERENCE_SECONDS:
            self._wrong_since = None
            return None
        if self._wrong_since is None:
            self._wrong_since = self._clock.wall()
        detail = (
            f"this machine's clock is {difference_in_words(seconds)}; harvester uses Braze's time, but set the clock"
        )
        cause = "ahead" if seconds > 0 else "behind"
        return Condition(Part.CLOCK, cause, self._wrong_since, detail=detail, blocks=False)

    async def ask_time(self, workspace: str, client: Client) -> bool:
        """Make one call for the time, if it is needed to go on; False if none was made.

        It is needed for pairs that only a confirmed time can end, and once the machine's clock has jumped.
        """
        if (self._clock.confirmed and not self._clock.jumped) or not self._may_ask():
            return False
        pair = await self._pair_to_ask(workspace)
        if pair is None:
            return False
        if await client.ask_time(pair, ending_at=self._clock.wall()):
            self._asks_left -= 1
            self._asked_at = self._clock.monotonic()
        return True

    async def confirm(self, pair: Pair, client: Client) -> None:
        """Make one call for the time, unless it is known."""
        if not self._clock.confirmed:
            await client.ask_time(pair, ending_at=self._clock.wall())
            if not self._clock.confirmed and self._clock.moves:  # the first one contradicts the machine: a second
                await client.ask_time(pair, ending_at=self._clock.wall())

    def _may_ask(self) -> bool:
        if self._clock.monotonic() - self._asked_at >= ASK_AGAIN_SECONDS:
            self._asks_left = ASKS
        return self._asks_left > 0

    async def _pair_to_ask(self, workspace: str) -> Pair | None:
        if self._clock.confirmed:
            return await self._ledger.look(braze_time.nearest_open, workspace)
        return await self._ledger.look(braze_time.in_question, workspace, now=self._clock.wall())
