"""Requests through a real proxy: with a password, behind TLS, and inspecting TLS with a company's authority."""

import asyncio
import json
import shutil

import pytest
from yarl import URL

from harvester.braze.connections import Connections
from harvester.braze.transport import BrazeTransport
from harvester.clock import SystemClock
from harvester.errors import ExchangeError, SinkError
from harvester.model import Pair
from harvester.settings.proxy import parse_proxy
from harvester.simulator import Simulator, SimulatorConfig
from harvester.storage.object_store import ObjectStore
from tests.support.faulty_server import answer_with, build_response, serve_script
from tests.support.secret_canary import KEY
from tests.support.web_proxy import BRAZE_HOST, STORE_HOST, run_web_proxy, serve_tls

pytestmark = pytest.mark.xdist_group("moto")  # the same process runs moto for others
OK = answer_with(build_response(b"{}"), then="keep")
PAIR = Pair("w", "c", "s")


@pytest.fixture(scope="module")
def proxy():
    """Run one proxy for all these tests."""
    with run_web_proxy() as running:
        yield running


async def send(url, proxy, *, trusting, times=1):
    """Send requests to Braze through a proxy; return the statuses, or the error."""
    connections = Connections(4, ca_file=trusting)
    transport = BrazeTransport(url, KEY, connections=connections, clock=SystemClock(), proxy=parse_proxy(proxy))
    try:
        return [(await transport.send_series(PAIR, length_days=1, ending_at=0)).status for _ in range(times)]
    except ExchangeError as error:
        return error
    finally:
        await transport.close()
        await connections.close()


async def test_workspaces_with_different_proxies_share_one_pool_of_connections(proxy):
    """Only a proxy can find the server. Each workspace keeps a tunnel through its own proxy, and reuses it."""
    async with serve_script(OK, tls=proxy.create_tls()) as server, serve_script(OK) as here:
        url = server.url.replace("127.0.0.1", BRAZE_HOST)
        connections = Connections(4, ca_file=proxy.internet_ca)
        transports = [
            BrazeTransport(to, KEY, connections=connections, clock=SystemClock(), proxy=parse_proxy(address))
            for to, address in (
                (url, proxy.open),
                (url, proxy.with_login()),
                (url, proxy.encrypted),
                (here.url, proxy.open),
            )
        ]
        for each in transports * 3:
            assert (await each.send_series(PAIR, length_days=1, ending_at=0)).status == 200, each
        for each in transports:
            await each.close()
        await connections.close()
    assert (server.connections, here.connections) == (3, 1)
    assert [KEY.encode() in each for each in server.requests] == [True] * 9


async def test_a_proxy_that_inspects_tls_is_trusted_by_ca_file(proxy):
    """A company's authority signs the certificate that it shows."""
    async with serve_script(OK, tls=proxy.create_tls()) as server:
        url = server.url.replace("127.0.0.1", BRAZE_HOST)
        assert await send(url, proxy.inspecting, trusting=proxy.company_ca, times=2) == [200, 200]
        assert server.connections == 1


async def test_a_failure_of_the_proxy_is_not_blamed_on_braze(proxy):
    """The cause and the sentence name the proxy, and never its password."""
    async with serve_script(OK, tls=proxy.create_tls()) as server:
        url = server.url.replace("127.0.0.1", BRAZE_HOST)
        wrong = proxy.with_login("canary-proxy-passwerd")
        for address, to, cause, text in (
            (proxy.password, url, "proxy_authentication", f"status 407 from {proxy.password}; check the user"),
            (wrong, url, "proxy_authentication", f"status 407 from {proxy.password}; check the user"),
            (proxy.open, f"https://{BRAZE_HOST}:1", "proxy_refused", f"status 403 from {proxy.open}"),
            ("http://127.0.0.1:9", url, "proxy_unreachable", "http://127.0.0.1:9: connection refused"),
            ("http://nowhere.invalid:9", url, "proxy_unreachable", "http://nowhere.invalid:9: name not found"),
            (proxy.open.replace("http", "https"), url, "proxy_unreachable", "use http:// for the proxy"),
            (proxy.inspecting, url, "certificate", "a proxy that inspects TLS signed it, set ca_file"),
        ):
            error = await send(to, address, trusting=proxy.internet_ca)
            assert (error.cause, text in str(error)) == (cause, True), str(error)
            assert "canary-proxy" not in str(error)
        assert server.requests == []


async def test_a_bucket_is_reached_through_the_same_proxy(proxy, stores, monkeypatch):
    """The errors of a store say what is wrong with the proxy, and what to set."""
    bucket = stores("moto")
    async with serve_tls(proxy, bucket.port) as port:
        for name, value in bucket.env.items():
            monkeypatch.setenv(name, value.replace(f"http://127.0.0.1:{bucket.port}", f"https://{STORE_HOST}:{port}"))

        def open_store(address: str, trusting) -> ObjectStore:
            monkeypatch.setenv("HARVESTER_PROXY", address)
            monkeypatch.setenv("HARVESTER_CA_FILE", str(trusting))
            return ObjectStore(f"{bucket.url}/through-a-proxy")

        for address, trusting in ((proxy.with_login(), proxy.internet_ca), (proxy.inspecting, proxy.company_ca)):
            store = open_store(address, trusting)
            await store.create(trusting.name, b"rows")
            assert await store.read(trusting.name) == b"rows"
        failing = [
            (open_store(proxy.password, proxy.internet_ca), "proxy_authentication", "correct them in proxy"),
            (open_store("http://127.0.0.1:9", proxy.internet_ca), "proxy_unreachable", "check its address"),
            (open_store(proxy.inspecting, proxy.internet_ca), "certificate", "set ca_file"),
        ]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://{STORE_HOST}:1")
        failing.append((open_store(proxy.open, proxy.internet_ca), "proxy_refused", "allows this host"))
        # Together, since each is retried for a second.
        errors = await asyncio.gather(*(store.read("none") for store, _, _ in failing), return_exceptions=True)
        for error, (_, cause, advice) in zip(errors, failing, strict=True):
            assert isinstance(error, SinkError)
            assert (error.cause, advice in str(error)) == (cause, True), str(error)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bucket.port}")
        assert await open_store("http://127.0.0.1:9", proxy.internet_ca).read("internet.pem") == b"rows"


async def test_a_bucket_of_google_is_reached_through_the_proxy(proxy, stores, monkeypatch, tmp_path):
    """The proxy and the certificates apply to every kind of store; only the proxy can find this one."""
    bucket, account = stores("gcs"), tmp_path / "account.json"
    shutil.copyfile(bucket.env["GOOGLE_SERVICE_ACCOUNT"], account)
    async with serve_tls(proxy, bucket.port) as port:
        here, behind = f"http://127.0.0.1:{bucket.port}", f"https://{STORE_HOST}:{port}"
        account.write_text(account.read_text().replace(here, behind))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account))
        monkeypatch.setenv("HARVESTER_PROXY", proxy.with_login())
        monkeypatch.setenv("HARVESTER_CA_FILE", str(proxy.internet_ca))
        store = ObjectStore(f"{bucket.url}/through-a-proxy")
        await store.create("part", b"rows")
        assert await store.read("part") == b"rows"


async def test_a_capture_reaches_braze_and_the_bucket_through_a_proxy_with_a_password(
    proxy, stores, harvester, tmp_path
):
    """A whole process: the password comes from a file, and appears in no output and no file."""
    bucket = stores("moto")
    async with (
        Simulator(SimulatorConfig(pairs=20, api_key=KEY)) as simulator,
        serve_tls(proxy, URL(simulator.url).port) as braze_port,
        serve_tls(proxy, bucket.port) as store_port,
    ):
        pairs = [(each.pair.campaign_id, each.pair.send_id) for each in simulator.population]
        (tmp_path / "p.csv").write_text("campaign_id,send_id\n" + "\n".join(map(",".join, pairs)))
        (tmp_path / "proxy.key").write_text(f"{proxy.with_login()}\n")
        (tmp_path / "harvester.toml").write_text(
            f'proxy_file = "proxy.key"\nca_file = "{proxy.internet_ca}"\nout = "{bucket.url}/captured"\n'
            f'[workspaces.eu]\nendpoint = "https://{BRAZE_HOST}:{braze_port}"\n'
        )
        harvester.env |= bucket.env | {"HTTPS_PROXY": "http://127.0.0.1:9", "HARVESTER_CONFIG": "harvester.toml"}
        harvester.env["AWS_ENDPOINT_URL"] = f"https://{STORE_HOST}:{store_port}"
        code, out, err = await harvester.run("doctor")
        assert code == 0, out + err
        assert f"buckets are reached through {proxy.password}\n" in out
        assert f" through {proxy.password} responds\n" in out
        code, out, err = await harvester.run("run", "p.csv")
        assert code == 0, out + err
        code, out, err = await harvester.run("latest", f"{bucket.url}/captured")
        assert (code, len({json.loads(line)["send_id"] for line in out.splitlines()})) == (0, 20), err
