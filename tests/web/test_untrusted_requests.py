"""Strangers at the page: connections that say nothing, and names that are not ours."""

import asyncio
import resource

import aiohttp
import pytest

from harvester.errors import LedgerError
from harvester.web import WebServer, server
from harvester.web.connections import MAX_CONNECTIONS, Connections, connection_limit
from harvester.web.hosts import allowed_hosts, is_allowed
from tests.support import browser_text
from tests.web.test_server import Looks


async def probe(url: str, path: str = "/livez", **options) -> int:
    """Ask as an orchestrator does, over a connection of its own."""
    async with aiohttp.ClientSession() as session, session.get(url + path, **options) as answer:
        return answer.status


async def strangers(port: int, sent: bytes, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open connections, and send each the same."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    for _, writer in opened:
        writer.write(sent)
    return opened


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_hundreds_of_idle_connections_take_few_files_and_keep_no_probe_out(sent):
    """At most 64 are held, the longest idle go first, and each probe is answered while they come."""
    looks = Looks()
    async with WebServer(take_snapshot=looks, clock=looks, port=0) as page:
        port = int(page.url.rpartition(":")[2])
        opened = []
        for _ in range(5):
            opened += await strangers(port, sent, 50)
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


async def test_a_head_that_does_not_end_is_cut_off(monkeypatch):
    """A connection that sends no request is closed within seconds."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)
    looks = Looks()
    async with WebServer(take_snapshot=looks, clock=looks, port=0) as page:
        opened = await strangers(int(page.url.rpartition(":")[2]), b"GET / HTTP/1.1\r\nX: ", 3)
        assert [await asyncio.wait_for(_rest(reader), 5) for reader, _ in opened] == [b""] * 3
        assert len(page._connections) == 0
        for _, writer in opened:
            writer.close()


class Transport:
    """A connection that remembers whether it was cut off."""

    def __init__(self) -> None:
        """Be open."""
        self.aborted = False

    def abort(self) -> None:
        """Cut off."""
        self.aborted = True


def test_who_waits_for_an_answer_goes_last():
    """Of two that are open, the one that asked for something stays, whichever came first."""
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
    """The page never takes more than an eighth of what the process may open."""
    for allowed, limit in ((40, 5), (256, 32), (1_000_000, MAX_CONNECTIONS), (resource.RLIM_INFINITY, MAX_CONNECTIONS)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: (allowed, allowed))
        assert connection_limit() == limit


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:99999"])
def test_on_loopback_our_own_names_are_answered(host):
    """With any port, for it may be forwarded."""
    for bound in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert is_allowed([host], allowed_hosts(bound))


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8080", "localhost@evil.example",
     "", "localhost:80:80", "[::1]evil.example", "0.0.0.0", "10.0.0.1", "localhost, evil.example"],
)  # fmt: skip
def test_on_loopback_no_other_name_is_answered_and_elsewhere_any(host):
    """A page that a stranger's name leads to could be read by the stranger; a pod's names cannot be known."""
    for bound in ("127.0.0.1", "localhost", "::1"):
        assert not is_allowed([host], allowed_hosts(bound))
        assert not is_allowed(["localhost", host], allowed_hosts(bound))
        assert is_allowed([], allowed_hosts(bound))
    for bound in ("0.0.0.0", "::", "10.1.2.3", "harvester.example"):
        assert is_allowed([host], allowed_hosts(bound))


async def test_a_stranger_cannot_read_the_page_by_a_name_of_his():
    """Of none of its paths; and no name of his comes back in the refusal."""
    looks = Looks()
    async with WebServer(take_snapshot=looks, clock=looks, port=0) as page:
        for path in ("/", "/readyz", "/livez", "/metrics", "/none"):
            assert await probe(page.url, path, headers={"Host": "evil.example"}) == 421
            assert await probe(page.url, path, headers={"Host": "localhost:1"}) in (200, 404)
    async with WebServer(take_snapshot=looks, clock=looks, host="0.0.0.0", port=0) as page:
        local = page.url.replace("0.0.0.0", "127.0.0.1")
        assert await probe(local, "/readyz", headers={"Host": "harvester.pod"}) == 200


async def test_half_a_character_of_a_stranger_breaks_no_page():
    """An id, or an error of a broker or store, may contain bytes that are not UTF-8."""
    looks = Looks()
    looks.seen = browser_text.unhealthy()
    async with WebServer(take_snapshot=looks, clock=looks, port=0) as page:
        await probe(page.url, "/")
        looks.show(LedgerError("\udcff"))
        assert await probe(page.url, "/") == 200
