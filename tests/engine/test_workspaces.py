"""The access of a process to Braze: its connections."""

import asyncio

from harvester.braze.transport import Response
from harvester.clock import BrazeClock, SystemClock
from harvester.engine.workspaces import Workspaces
from harvester.model import SERIES_DAYS, Pair
from harvester.settings import Settings, Workspace
from tests.support.faulty_server import FaultyServer, build_response, read_request, serve_script

CONCURRENCY = 8


async def test_each_request_that_concurrency_allows_has_a_connection_whatever_max_in_flight_is():
    """As many requests as ``concurrency`` allows are in flight at the same time."""
    all_arrived = asyncio.Event()

    async def respond_to_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: FaultyServer) -> None:
        await read_request(reader, server)
        if len(server.requests) == CONCURRENCY:
            all_arrived.set()
        await all_arrived.wait()
        writer.write(build_response(b"{}"))
        await writer.drain()

    async with serve_script(respond_to_all) as server:
        workspace = Workspace(endpoint=server.url, api_key="canary-key-0123456789")
        settings = Settings(workspaces={"eu": workspace}, max_in_flight=1, concurrency=CONCURRENCY)
        workspaces = Workspaces(settings, BrazeClock(SystemClock()))
        workspaces.load_keys()
        transport = workspaces.get("eu").transport
        pairs = [Pair("eu", "c", f"s{number}") for number in range(CONCURRENCY)]
        try:
            responses = await asyncio.gather(
                *(transport.send_series(pair, length_days=SERIES_DAYS, ending_at=1e9) for pair in pairs)
            )
        finally:
            await workspaces.close()
    assert [each.status for each in responses if isinstance(each, Response)] == [200] * CONCURRENCY
