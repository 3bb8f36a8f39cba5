"""Which owners divide the workspaces among themselves, and which workspaces nobody serves."""

from harvester.ledger import LEASE_SECONDS, UNSERVED_SECONDS, Ledger, Replicas
from harvester.model import DAY_SECONDS, Pair, SentPair
from harvester.schedule import ReadingPlan
from tests.support.clocks import SettableClock
from tests.support.ledger_file import pass_time

NOW = 1_767_225_600.0


async def test_only_living_owners_that_serve_are_listed(location):
    """A run is not listed, nor a service that has stopped, nor one that has died, once its lease has ended."""
    clock = SettableClock(NOW)
    async with (
        await Ledger.open(location, clock=clock) as one,
        await Ledger.open(location, clock=clock) as other,
        await Ledger.open(location, clock=clock) as run,
    ):
        await run.batches.recover()
        for each in (one, other):
            await each.batches.join_replicas()
        expected = sorted([one.batches.owner, other.batches.owner])
        assert await run.batches.list_replicas() == await one.batches.list_replicas() == expected
        pass_time(location, clock, LEASE_SECONDS - 1)
        assert await one.batches.renew()
        pass_time(location, clock, 2)
        assert await one.batches.list_replicas() == [one.batches.owner]
        await one.batches.leave_replicas()
        assert await one.batches.list_replicas() == []
        assert await one.batches.renew()  # what it still holds stays its own


async def test_an_owner_that_registers_again_still_serves(location):
    """A service that loses its lease serves the same workspaces afterwards, because its id stays."""
    async with await Ledger.open(location, clock=SettableClock(NOW)) as ledger:
        await ledger.batches.join_replicas()
        await ledger.batches.register()
        assert await ledger.batches.list_replicas() == [ledger.batches.owner]


async def test_a_workspace_counts_as_served_for_a_time(location):
    """A longer or shorter time replaces the previous one; a workspace that was never served does not count.

    A workspace is named twice if it is assigned to the process that takes it over at this moment.
    """
    clock = SettableClock(NOW)
    async with await Ledger.open(location, clock=clock) as ledger:
        await ledger.upkeep.mark_served(["a", "a"], seconds=10.0)
        await ledger.upkeep.mark_served(["b"], seconds=1000.0)
        assert await ledger.upkeep.list_unserved(["a", "b", "c"]) == ["c"]
        pass_time(location, clock, 60)
        assert await ledger.upkeep.list_unserved(["a", "b"]) == ["a"]
        await ledger.upkeep.mark_served(["a"], seconds=100.0)
        await ledger.upkeep.mark_served(["b"], seconds=30.0)
        pass_time(location, clock, 60)
        assert await ledger.upkeep.list_unserved(["b", "a"]) == ["b"]


async def test_a_workspace_is_unserved_once_something_was_due_for_two_minutes(location):
    """It is not if its readings fell due just now, if it counts as served, or if only one service uses the ledger."""
    clock = SettableClock(NOW)
    async with await Ledger.open(location, clock=clock) as one, await Ledger.open(location, clock=clock) as other:
        names = ["busy", "late", "later", "new"]
        await one.intake.set_plans(dict.fromkeys(names, ReadingPlan((1.0,))))
        await one.intake.enqueue([SentPair(Pair(name, "c", "s"), NOW - 2 * DAY_SECONDS) for name in ("busy", "late")])
        await one.intake.enqueue([SentPair(Pair("later", "c", "s"), NOW)])
        await one.batches.join_replicas()
        pass_time(location, clock, UNSERVED_SECONDS / 3)
        assert await one.batches.renew()
        assert (await one.reports.get_replicas()) == Replicas([one.batches.owner], names, [])
        await other.batches.join_replicas()
        await one.upkeep.mark_served(["busy"], seconds=UNSERVED_SECONDS)
        assert (await one.reports.get_replicas()).unserved == []
        for _ in range(2):
            pass_time(location, clock, UNSERVED_SECONDS / 3 + 1)
            assert await one.batches.renew()
            assert await other.batches.renew()
        await one.intake.enqueue([SentPair(Pair("new", "c", "s"), NOW - 2 * DAY_SECONDS)])
        found = await one.reports.get_replicas()
        assert (set(found.owners), found.unserved) == ({one.batches.owner, other.batches.owner}, ["late"])
