"""Where settings come from, and which place wins: the command line over the environment, and that over the file.

The one place that reads the environment.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, SettingsError

from harvester.errors import UsageError
from harvester.settings.model import Settings
from harvester.settings.removed import REMOVED, WORKSPACE_REMOVED
from harvester.settings.surroundings import hide_environment_secrets
from harvester.settings.triggers import KINDS
from harvester.settings.workspace import LOOPBACK, ORIGIN, Workspace, as_variable

MAX_CONFIG_BYTES = 1 << 20
"""The longest configuration that is read."""

_SOURCES = (("api_key", "api_key_file"), ("url", "url_file"))
_NO_ENDPOINT = "is missing: set BRAZE_ENDPOINT, or give --endpoint https://rest.fra-01.braze.eu (yours)"


def load(config: Path | None, given: dict[str, Any], workspace: dict[str, Any]) -> Settings:
    """Read settings: the command line wins over the environment, and that over the file.

    ``given`` and ``workspace`` hold what the command line named; None means not named. ``workspace``, like
    ``BRAZE_ENDPOINT`` and ``BRAZE_API_KEY``, speaks of the only workspace: that of the file, or of
    ``HARVESTER_WORKSPACES__NAME__...``, or else one named ``default``. Raises ``UsageError`` with every problem
    at once.
    """
    hide_environment_secrets()
    file = _from_file(config)
    environment = _from_environment(file)
    names = {**_tables(file, "workspaces"), **_tables(environment, "workspaces")} or {"default": {}}
    named = _named(workspace)
    if len(names) > 1 and named:
        options = ", ".join("--" + name.replace("_", "-") for name in named)
        raise UsageError(f"{options} cannot tell which of {len(names)} workspaces is meant; put it in the file")
    braze = _named({name: os.environ.get(f"BRAZE_{name.upper()}") or None for name in ("endpoint", "api_key")})
    only = names if len(names) == 1 else ()
    layers = (
        file, {"workspaces": dict.fromkeys(only, braze)}, environment,
        {"workspaces": dict.fromkeys(only, named)}, _named(given),
    )  # fmt: skip
    try:
        return Settings(**reduce(_over, layers))
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        found.sort(key=lambda each: each["type"] != "extra_forbidden")  # what is missing may only be misspelt
        problems = [_told(each) for each in found]
        where = f" of {config} and the environment" if config else ""
        raise UsageError(f"the settings{where} are not usable:\n" + "\n".join(problems)) from None


def _told(problem: ErrorDetails) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = _unknown(*problem["loc"])
    if problem["type"] == "missing":
        message = _NO_ENDPOINT if problem["loc"][-1] == "endpoint" else "is missing"
    if problem["type"].startswith("union_tag"):
        message = f"kind must be one of {', '.join(KINDS)}"
    return f"  {'.'.join(map(str, problem['loc']))}: {message}"


def _unknown(*place: int | str) -> str:
    """Say of a name that no setting has which one may be meant."""
    known: Iterable[str] = Settings.model_fields
    removed = REMOVED
    match place:
        case ("workspaces", _, name):
            known, removed = Workspace.model_fields, WORKSPACE_REMOVED
        case ("triggers", _, kind, name):
            known = KINDS[str(kind)].model_fields
        case (*_, name):
            pass
    if str(name) in removed:
        return f"this setting was removed: {removed[str(name)]}"
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"no setting has this name; did you mean {near[0]}?" if near else f"is none of {', '.join(known)}"


def _from_file(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        with config.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise UsageError(
                f"{config} has more than {MAX_CONFIG_BYTES} bytes, so it is no configuration; check its name"
            )
        return tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"cannot read the configuration {config}: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"cannot read the configuration {config}: it is nested too deeply") from None
    except ValueError as error:  # no UTF-8, or no TOML
        raise UsageError(f"cannot read the configuration {config}: {error}") from None


def _from_environment(file: dict[str, Any]) -> dict[str, Any]:
    """Read ``HARVESTER_...``, where ``__`` leads into a table; names of tables are spelled as the file does.

    Variables that name no setting are let pass: an orchestrator sets some for a service of this name.
    """
    try:
        values = EnvSettingsSource(Settings)()
    except (SettingsError, RecursionError):
        raise UsageError("HARVESTER_WORKSPACES, HARVESTER_TRIGGERS or a trigger's PREFIXES is no JSON") from None
    for kind in ("workspaces", "triggers"):
        spelled = {as_variable(name): name for name in _tables(file, kind)}
        tables = _tables(values, kind)
        values[kind] = {spelled.get(as_variable(name), name): table for name, table in tables.items()}
    set_here = {name.upper() for name, value in os.environ.items() if value}
    return values | {name: "" for name in REMOVED if f"HARVESTER_{name.upper()}" in set_here}


def environment_has_workspaces() -> bool:
    """Return whether variables configure workspaces, so that no file is needed."""
    return any(name.upper().startswith("HARVESTER_WORKSPACES") and value for name, value in os.environ.items())


def _tables(layer: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    tables = layer.get(kind, {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UsageError(f"{kind} must hold a table for each {kind[:-1]}, such as [{kind}.eu]")
    return tables


def _named(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one layer over another: tables merge, all else is replaced; one source of a secret replaces the other."""
    merged = dict(below)
    for sources in _SOURCES:
        if any(name in above for name in sources):
            merged = {name: value for name, value in merged.items() if name not in sources}
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def of_traces() -> str | None:
    """Give where traces go, as OpenTelemetry's own variable says; None for nowhere."""
    return os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None


def of_stores() -> tuple[str | None, bool]:
    """Give what the clouds' own variables say of AWS's profile, and whether plain http may be spoken.

    It may to this machine, and elsewhere where one of ``AWS_ALLOW_HTTP``, ``AZURE_ALLOW_HTTP`` and
    ``GOOGLE_ALLOW_HTTP`` is true.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    origin = ORIGIN.match(endpoint)
    told = (os.environ.get(f"{cloud}_ALLOW_HTTP", "").lower() for cloud in ("AWS", "AZURE", "GOOGLE"))
    return os.environ.get("AWS_PROFILE") or None, bool(origin and origin[2] in LOOPBACK) or "true" in told
