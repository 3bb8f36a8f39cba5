"""The checks of ``doctor`` for one workspace, with one request to Braze."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from harvester.braze.connections import Connections
from harvester.braze.dated import DatedTransport
from harvester.braze.transport import BrazeTransport, Response
from harvester.clock import LARGE_DIFFERENCE_SECONDS, BrazeClock, Clock, format_difference
from harvester.errors import ExchangeError, HarvesterError, Meaning, classify_status
from harvester.model import Pair
from harvester.observability.redaction import scrub_foreign
from harvester.settings import Proxy, Settings
from harvester.settings.environment import check_certificates


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check: whether it is ok, and what was found or what to do. Some concern one workspace."""

    check: str
    ok: bool
    text: str
    workspace: str | None = None


CreateFinding = Callable[..., Finding]
"""Creates a finding about one workspace."""


async def check_workspace(name: str, settings: Settings, clock: Clock) -> list[Finding]:
    """Check the endpoint, the key, the quota and the clock with one request. A problem of one ends no other check."""
    endpoint, braze = settings.workspaces[name].endpoint, BrazeClock(clock)
    found = partial(Finding, workspace=name)
    try:
        check_certificates(settings.ca_file)
        key, proxy = settings.load_key(name), settings.load_proxy(name)
    except HarvesterError as error:
        return [found("settings", ok=False, text=str(error))]
    address = endpoint if proxy is None else f"{endpoint} through {proxy.address}"
    connections = Connections(1, ca_file=settings.ca_file)
    transport = BrazeTransport(endpoint, key, connections=connections, clock=clock, proxy=proxy)
    try:
        nonexistent = Pair(name, "harvester-doctor", "harvester-doctor")
        dated = DatedTransport(transport, braze)
        response = await dated.send_series(nonexistent, length_days=1, ending_at=clock.wall())
        text = scrub_foreign(response.body[:16_384].decode("utf-8", "replace"))
    except ExchangeError as error:
        return [found("endpoint", ok=False, text=f"no response from {address} ({error}); {_advise(error, proxy)}")]
    finally:
        await transport.close()
        await connections.close()
    findings = [found("endpoint", ok=True, text=f"{address} responds"), _check_key(found, response, text)]
    if classify_status(response.status) is not Meaning.HALTED:  # a refused key has no quota
        findings.append(_check_quota(found, response))
    return [*findings, _check_clock(found, response, clock, braze)]


def _advise(error: ExchangeError, proxy: Proxy | None) -> str:
    if error.cause.startswith("proxy_"):
        return "check the proxy"
    through = "" if proxy is None else " the proxy,"
    return f"check the endpoint,{through} the network and this machine's clock"


def _check_key(found: CreateFinding, response: Response, text: str) -> Finding:
    match classify_status(response.status):
        case Meaning.HALTED:
            advice = "check its endpoint, its permission sends.data_series, and its allowed IP addresses"
            return found("key", ok=False, text=f"status {response.status}: {text}; {advice}")
        case Meaning.SUCCESS | Meaning.REJECTED if response.status != 404:
            return found("key", ok=True, text=f"accepted (status {response.status} for a campaign that does not exist)")
        case _:
            advice = "check the endpoint, or try again later"
            return found("key", ok=False, text=f"cannot be checked: status {response.status}: {text}; {advice}")


def _check_quota(found: CreateFinding, response: Response) -> Finding:
    quota = response.quota
    if quota.limit is None or quota.remaining is None:
        return found("quota", ok=False, text="no rate limit in the response; the pace will be --max-rate")
    return found("quota", ok=True, text=f"{quota.remaining} of {quota.limit} requests left in this window")


def _check_clock(found: CreateFinding, response: Response, machine: Clock, braze: BrazeClock) -> Finding:
    """Compare the machine's clock with Braze's."""
    if response.quota.server_time is None:
        return found("clock", ok=False, text="the response has no Date header, so Braze's time is unknown")
    seconds = machine.wall() - braze.wall()
    if abs(seconds) <= LARGE_DIFFERENCE_SECONDS:
        return found("clock", ok=True, text="within a minute of Braze's")
    text = f"{format_difference(seconds)}; harvester uses Braze's time, but set this machine's clock"
    return found("clock", ok=False, text=text)
