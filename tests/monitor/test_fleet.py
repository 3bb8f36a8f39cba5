"""Several services on one ledger: page, probe and metrics show who serves what."""

from contextlib import AsyncExitStack

from harvester.engine.assignment import find_server
from harvester.ledger import Ledger
from tests.support.observed_service import Seen, Wire, served


def test_a_service_without_workspaces_is_ready_and_shows_who_serves_them(tmp_path):
    """A service that more services than workspaces leave without one is ready; the page lists all of them."""

    async def story(seen: Seen) -> None:
        await seen.at(20)
        assert (seen.metrics["harvester_services",], seen.metrics["harvester_assigned_workspaces",]) == (1, 1)
        assert "Workspaces of each service" not in seen.page
        own = seen.ledger.batches.owner
        async with AsyncExitStack() as stack:
            owners = [own]
            while find_server("us", owners) == own:
                other = await stack.enter_async_context(await Ledger.open(tmp_path / "ledger.db", clock=seen.clock))
                await other.batches.set_serving(serves=True)
                owners.append(other.batches.owner)
            snapshot = await seen.at(60)
            assert snapshot.unready_reasons() == []
            assert snapshot.fleet.assigned == {name: int(name == owners[-1]) for name in sorted(owners)}
            assert seen.metrics["harvester_ready",] == 1
            assert seen.metrics["harvester_services",] == len(owners)
            assert seen.metrics["harvester_assigned_workspaces",] == 0
            assert f"<dt>{owners[-1]}</dt><dd>1</dd>" in seen.page
            assert f"<dt>{own} (this one)</dt><dd>0</dd>" in seen.page

    served(tmp_path, {"us": Wire()}, story)
