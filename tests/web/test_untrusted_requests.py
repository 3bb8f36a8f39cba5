"""Untrusted clients of the web server: idle connections and foreign hosts."""

import asyncio
import resource

import aiohttp
import pytest

from harvester.errors import LedgerError
from harvester.web import WebServer, server
from harvester.web.connections import MAX_CONNECTIONS, Connections, get_connection_limit
from harvester.web.hosts import is_allowed, list_allowed_hosts
from tests.support import snapshots
from tests.web.test_server import SnapshotSource


async def probe(url: str, path: str = "/livez", **options) -> int:
    """Send a request as an orchestrator does, over a new connection."""
    async with aiohttp.ClientSession() as session, session.get(url + path, **options) as answer:
        return answer.status


async def open_connections(
    port: int, sent: bytes, count: int
) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open connections, and send the same on each."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    for _, writer in opened:
        writer.write(sent)
    return opened


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_hundreds_of_idle_connections_hold_few_files_and_block_no_probe(sent):
    """At most 64 connections are held, the longest idle ones are closed first, and each probe gets a response."""
    source = SnapshotSource()
    async with WebServer(take_snapshot=source, clock=source, port=0) as page:
        port = int(page.url.rpartition(":")[2])
        opened = []
        for _ in range(5):
            opened += await open_connections(port, sent, 50)
            assert await probe(page.url) == 200
            assert len(page._connections) <= MAX_CONNECTIONS
        ended = 0
        for reader, _ in opened[: -2 * MAX_CONNECTIONS]:
            ended += not await asyncio.wait_for(_rest(reader), 5)
        assert ended == len(opened) - 2 * MAX_CONNECTIONS
        for _, writer in opened:
            writer.close()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_an_incomplete_request_is_closed(monkeypatch):
    """A connection that sends no request is closed within seconds."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)
    source = SnapshotSource()
    async with WebServer(take_snapshot=source, clock=source, port=0) as page:
        opened = await open_connections(int(page.url.rpartition(":")[2]), b"GET / HTTP/1.1\r\nX: ", 3)
        assert [await asyncio.wait_for(_rest(reader), 5) for reader, _ in opened] == [b""] * 3
        assert len(page._connections) == 0
        for _, writer in opened:
            writer.close()


class Transport:
    """A transport that records whether it was aborted."""

    def __init__(self) -> None:
        """Begin open."""
        self.aborted = False

    def abort(self) -> None:
        """Abort."""
        self.aborted = True


def test_a_connection_that_waits_for_a_response_is_closed_last():
    """Idle connections are closed before busy ones, whichever came first."""
    connections, (first, second, third, fourth) = Connections(2), [Transport() for _ in range(4)]
    connections.opened(first)
    connections.request_received(first)
    connections.opened(second)
    connections.opened(third)
    assert (first.aborted, second.aborted, len(connections)) == (False, True, 2)
    connections.response_sent(first)
    connections.opened(fourth)
    assert (first.aborted, third.aborted) == (False, True)


def test_few_open_files_mean_few_connections(monkeypatch):
    """The server holds at most an eighth of the files that the process may open."""
    for allowed, limit in ((40, 5), (256, 32), (1_000_000, MAX_CONNECTIONS), (resource.RLIM_INFINITY, MAX_CONNECTIONS)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: (allowed, allowed))
        assert get_connection_limit() == limit


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:99999"])
def test_on_loopback_local_hosts_are_answered(host):
    """Local host names are accepted with any port, because ports may be forwarded."""
    for bound in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert is_allowed([host], list_allowed_hosts(bound))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8080",
        "localhost@evil.example",
        "",
        "localhost:80:80",
        "[::1]evil.example",
        "0.0.0.0",
        "10.0.0.1",
        "localhost, evil.example",
    ],
)
def test_on_loopback_other_hosts_are_refused_and_elsewhere_all_are_answered(host):
    """On loopback, other hosts are refused so that no website can read the page; elsewhere, all hosts are accepted."""
    for bound in ("127.0.0.1", "localhost", "::1"):
        assert not is_allowed([host], list_allowed_hosts(bound))
        assert not is_allowed(["localhost", host], list_allowed_hosts(bound))
        assert is_allowed([], list_allowed_hosts(bound))
    for bound in ("0.0.0.0", "::", "10.1.2.3", "harvester.example"):
        assert is_allowed([host], list_allowed_hosts(bound))


async def test_another_website_cannot_read_the_page_by_its_own_host():
    """No path responds to a request with another website's host."""
    source = SnapshotSource()
    async with WebServer(take_snapshot=source, clock=source, port=0) as page:
        for path in ("/", "/readyz", "/livez", "/metrics", "/none"):
            assert await probe(page.url, path, headers={"Host": "evil.example"}) == 421
            assert await probe(page.url, path, headers={"Host": "localhost:1"}) in (200, 404)
    async with WebServer(take_snapshot=source, clock=source, host="0.0.0.0", port=0) as page:
        local = page.url.replace("0.0.0.0", "127.0.0.1")
        assert await probe(local, "/readyz", headers={"Host": "harvester.pod"}) == 200


async def test_half_a_character_from_outside_breaks_no_page():
    """An id, or an error of a broker or store, may contain bytes that are not UTF-8."""
    source = SnapshotSource()
    source.seen = snapshots.unhealthy()
    async with WebServer(take_snapshot=source, clock=source, port=0) as page:
        await probe(page.url, "/")
        source.show(LedgerError("\udcff"))
        assert await probe(page.url, "/") == 200
