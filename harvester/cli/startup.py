"""What a command does before its work: settings, logs, traces, checks of the environment, and the event loop."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from harvester.cli import output

if TYPE_CHECKING:
    from harvester.cli.short_log import ShortLog
    from harvester.settings import Settings, SettingsSource

OBJECTS_BEFORE_COLLECTION = 10_000
"""Responses create hundreds of objects that are freed at once. With Python's default of 700, the search for garbage
takes 3 % of a capture, and finds almost none."""

_OPTIONS = ("out", "state", "state_file", "concurrency", "compression", "raw", "patience_seconds", "web_port")
_WORKSPACE_OPTIONS = ("endpoint", "api_key_file", "allow_unknown_host", "reserve", "max_rate")

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long a thread keeps the interpreter's lock while another waits for it. The threads of the ledger wait for it
several times in each transaction: while the event loop was busy, a claim of 20 readings took 105 ms with Python's
default of 5 ms, and 27 ms with this."""

T = TypeVar("T")


def load_settings(options: dict[str, Any]) -> "Settings":
    """Load settings from the command line, the environment and the file; buckets use their proxy."""
    from harvester.settings import use_network

    settings = get_settings_source(options).load()
    use_network(settings)
    return settings


def get_settings_source(options: dict[str, Any]) -> "SettingsSource":
    """Return where the settings of a command come from."""
    with without_collection():
        from harvester.settings import SettingsSource

    return SettingsSource(
        options.get("config"),
        {name: options.get(name) for name in _OPTIONS},
        {name: options.get(name) for name in _WORKSPACE_OPTIONS},
    )


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Import modules without garbage collection, and exclude their objects from later collections.

    That saves a tenth of the start, and of a long capture.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def set_up_logs(options: dict[str, Any], *, service: bool = False, level: str = "info") -> "ShortLog | None":
    """Write logs to stderr: JSON for a service without a terminal, and short warnings for other commands on a terminal.

    Returns what writes the short lines. Options for the log choose its whole text instead. ``level`` is the default.
    """
    from harvester.observability import logs

    json, terminal, chosen = options.get("log_json"), sys.stderr.isatty(), options.get("log_level")
    if service or not terminal or json is not None or chosen is not None:
        quiet = terminal and not service and level == "info"
        json = service and not terminal if json is None else json
        logs.set_up_logs(json=json, level=chosen or ("warning" if quiet else level))
        return None
    from harvester.cli.short_log import ShortLog

    log = ShortLog(lambda: output.get_width(sys.stderr) or output.DEFAULT_WIDTH, color=output.use_color(sys.stderr))
    logs.set_up_logs(json=False, level="warning" if level == "info" else level, render=log.render)
    return log


def check_environment(settings: "Settings") -> None:
    """Warn of a proxy that is ignored. Raises ``UsageError`` for unreadable certificates or an unusable proxy."""
    import structlog

    from harvester.settings.environment import PROXY_HINT, check_certificates, list_proxy_variables

    check_certificates(settings.ca_file)
    settings.load_proxies()
    variables = list_proxy_variables()
    if variables and not settings.has_proxy:
        structlog.get_logger().warning("proxy_ignored", variables=" ".join(variables), hint=PROXY_HINT)


def send_traces() -> contextlib.AbstractContextManager[None]:
    """Send traces to the collector in OpenTelemetry's variable, if it is set."""
    from harvester.observability.traces import send_traces_to
    from harvester.settings import get_trace_endpoint

    return send_traces_to(get_trace_endpoint())


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a command that makes many requests, on uvloop."""
    import uvloop

    gc.set_threshold(OBJECTS_BEFORE_COLLECTION)
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
