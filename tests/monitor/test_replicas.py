"""Several replicas on one ledger: page, probe and metrics show who serves what."""

from contextlib import AsyncExitStack

from harvester.engine.assignment import find_owner
from harvester.ledger import Ledger
from tests.support.ledger_file import execute, query
from tests.support.observed_service import Seen, Wire, served


def test_a_replica_without_workspaces_is_ready_and_shows_who_serves_them(tmp_path):
    """With more replicas than workspaces, one without a workspace is ready; the page lists all of them."""

    async def story(seen: Seen) -> None:
        await seen.at(20)
        assert (seen.metrics["harvester_replicas",], seen.metrics["harvester_assigned_workspaces",]) == (1, 1)
        assert "Workspaces of each replica" not in seen.page
        own = seen.ledger.batches.owner
        async with AsyncExitStack() as stack:
            owners = [own]
            while find_owner("us", owners) == own:
                other = await stack.enter_async_context(await Ledger.open(tmp_path / "ledger.db", clock=seen.clock))
                await other.batches.join_replicas()
                owners.append(other.batches.owner)
            snapshot = await seen.at(60)
            assert snapshot.unready_reasons() == []
            assert snapshot.replicas.assigned == {name: int(name == owners[-1]) for name in sorted(owners)}
            assert seen.metrics["harvester_ready",] == 1
            assert seen.metrics["harvester_replicas",] == len(owners)
            assert seen.metrics["harvester_assigned_workspaces",] == 0
            assert f"<dt>{owners[-1]}</dt><dd>1</dd>" in seen.page
            assert f"<dt>{own} (this one)</dt><dd>0</dd>" in seen.page
            await seen.enqueue(1, "us")
            assert (await seen.at(61)).workspaces[0].replica == owners[-1]
            assert f"is served by {owners[-1]}" in seen.page
            assert "sends up to" not in seen.page
            assert ("harvester_pace_requests_per_second", "us") not in seen.metrics
            execute(seen.ledger.location, "UPDATE pace SET calls_per_second = 12")  # as the other replica measures it
            await seen.at(78)
            assert query(seen.ledger.location, "SELECT calls_per_second FROM pace") == [(12,)]
        await seen.at(300)
        assert query(seen.ledger.location, "SELECT calls_per_second FROM pace") == [(1000,)]

    served(tmp_path, {"us": Wire()}, story)
