"""An engine whose workspaces change while it works."""

import asyncio

from harvester.clock import BrazeClock
from harvester.engine.workspaces import IDLE_SECONDS, Workspaces
from harvester.settings import Settings, Workspace
from harvester.simulator.virtual_time import VirtualClock, run_virtual
from tests.support.many_workspaces import ENDPOINT, Braze, Scene, sends, serve


def configure(*names: str, **more: object) -> Settings:
    """Return settings of these workspaces, with the keys that ``serve`` gives them."""
    workspaces = {
        name: Workspace(endpoint=ENDPOINT, api_key="k" * 20 + name, ages_days=(0.01,), **more) for name in names
    }
    return Settings(workspaces=workspaces)


async def wait_until_pending(scene: Scene, count: int) -> None:
    """Wait for up to ten minutes until at most this number of pairs is pending."""
    async with asyncio.timeout(600):
        await scene.wait_until_pending(count)


def test_what_is_in_flight_for_a_removed_workspace_is_sealed_and_nothing_more_is_requested(tmp_path):
    """Requests in flight of a removed workspace are sealed, no further ones are sent, and other workspaces continue."""

    async def story() -> None:
        async with serve(tmp_path, ["gone", "kept"], behaviours={"gone": lambda _: 2.0}) as scene:
            await scene.enqueue(sends("gone", 500), sends("kept", 50))
            while sum(name == "gone" for name, _, _ in scene.braze.requests) < 5:
                await asyncio.sleep(0.1)
            await scene.engine.apply(configure("kept"))
            requested = sum(name == "gone" for name, _, _ in scene.braze.requests)
            await wait_until_pending(scene, 500 - requested)
            await asyncio.sleep(60)
            assert sum(name == "gone" for name, _, _ in scene.braze.requests) == requested
            books = await scene.ledger.reports.get_books_by_workspace()
            captured = {name: sum(each.captured.values()) for name, each in books.items()}
            assert captured == {"gone": requested, "kept": 50}
            assert 5 <= requested < 500
            assert (await scene.ledger.reports.get_outlooks())["gone"].readings.get("leased", 0) == 0
        assert scene.braze.opened == 0

    run_virtual(story())


def test_a_workspace_that_is_added_again_or_changes_its_limits_is_captured_to_the_end(tmp_path):
    """Each change ends the requests of the old access first, so no reading is requested twice."""

    async def story() -> None:
        async with serve(tmp_path, ["eu", "us"], behaviours={"eu": lambda _: 1.0}) as scene:
            await scene.enqueue(sends("eu", 300))
            await asyncio.sleep(5)
            for settings in (configure("us"), configure("eu", "us"), configure("eu", "us", max_rate=20.0)):
                await scene.engine.apply(settings)
                await asyncio.sleep(0.5)
            await wait_until_pending(scene, 0)
            requested = [send for name, send, _ in scene.braze.requests if name == "eu"]
            assert len(requested) == len(set(requested)) == 300
            late = sorted(at for _, _, at in scene.braze.requests)[-60:]
            assert late[-1] - late[0] >= 2.5  # 20 requests per second at the most

    run_virtual(story())


def test_the_limits_of_an_idle_workspace_change_too():
    """A workspace whose access was dropped after an idle hour has the new limits when it works again."""

    async def story() -> None:
        workspaces = Workspaces(configure("eu"), BrazeClock(VirtualClock()), lambda *_: Braze())
        workspaces.load_keys()
        workspaces.get("eu")
        await asyncio.sleep(2 * IDLE_SECONDS)
        await workspaces.drop_idle(())
        assert workspaces.find("eu") is None
        workspaces.apply(configure("eu", max_rate=3.0))
        workspaces.get("eu")
        assert workspaces.get_pace_state("eu").pace <= 3.0

    run_virtual(story())


def test_concurrency_can_be_raised(tmp_path):
    """The next requests use the higher concurrency."""

    async def story() -> None:
        async with serve(tmp_path, ["eu"], behaviours={"eu": lambda _: 2.0}, concurrency=2) as scene:
            await scene.enqueue(sends("eu", 200))
            await asyncio.sleep(20)
            assert scene.braze.most_in_flight == 2
            await scene.engine.apply(configure("eu").model_copy(update={"concurrency": 30}))
            await wait_until_pending(scene, 0)
            assert 20 <= scene.braze.most_in_flight <= 30

    run_virtual(story())


def test_a_new_endpoint_or_proxy_is_used_from_the_next_request_and_the_old_one_is_closed():
    """The next request goes to the new endpoint, or through the new proxy, and the counters continue."""

    async def story() -> None:
        clock, opened = VirtualClock(), []

        def connect(workspace: Workspace, *_: object) -> Braze:
            opened.append((workspace.endpoint, Braze(opened=1)))
            return opened[-1][1]

        workspaces = Workspaces(configure("eu"), BrazeClock(clock), connect)
        workspaces.load_keys()
        before = workspaces.get("eu").client.counters
        new = Workspace(endpoint="https://rest.iad-01.braze.com", api_key="k" * 20)
        for proxy in ("none", "http://proxy.example:3128"):
            workspaces.apply(Settings(workspaces={"eu": new}, proxy=proxy))
            assert workspaces.get("eu").client.counters is before
            await workspaces.drop_idle(())
        expected = [(ENDPOINT, 0), (new.endpoint, 0), (new.endpoint, 1)]
        assert [(endpoint, braze.opened) for endpoint, braze in opened] == expected

    run_virtual(story())
