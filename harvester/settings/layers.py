"""Where settings come from: the command line overrides the environment, which overrides the file.

``variables`` reads the variables named ``HARVESTER_``; this module reads those named ``BRAZE_``.
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

from harvester.errors import UsageError
from harvester.settings.environment import hide_environment_secrets
from harvester.settings.model import Settings
from harvester.settings.network import NetworkSettings
from harvester.settings.removed import REMOVED, REMOVED_FROM_WORKSPACE
from harvester.settings.secret_files import read_start
from harvester.settings.triggers import KINDS
from harvester.settings.variables import read_variables
from harvester.settings.workspace import LOOPBACK, ORIGIN, Workspace, variable_name
from harvester.text import printable

USUAL_NAME = "harvester.toml"
"""The name of a configuration file in the documentation. It is read only if it is given."""

MAX_CONFIG_BYTES = 1 << 20
"""The size limit of a configuration file."""

_SECRET_SOURCES = (
    ("api_key", "api_key_file"), ("url", "url_file"), ("proxy", "proxy_file"), ("state", "state_file")
)  # fmt: skip
_NO_ENDPOINT = (
    "is missing: set BRAZE_ENDPOINT or use --endpoint, such as https://rest.fra-01.braze.eu; with several workspaces, "
    "set endpoint in the table of each, or in [workspace_defaults]"
)


def load(config: Path | None, options: dict[str, Any], workspace_options: dict[str, Any]) -> Settings:
    """Load settings from the command line, the environment and the file ``config``, in this order of precedence.

    ``options`` and ``workspace_options`` hold the options of the command line; None means that an option was not used.
    The options of a workspace, ``BRAZE_ENDPOINT`` and ``BRAZE_API_KEY`` apply to the only workspace: that of the file
    or of ``HARVESTER_WORKSPACES__NAME__...``, otherwise one named ``default``. Raises ``UsageError`` with all problems.
    """
    hide_environment_secrets()
    file, variables = _read_file(config), read_variables()
    folder = variables.get("api_key_dir") or file.get("api_key_dir")
    key_files, problem = list_key_files(folder)
    file = _merge({"workspaces": key_files}, {"workspaces": _get_tables(file, "workspaces")} | file)
    environment = _spell_names(variables, file)
    names = {**_get_tables(file, "workspaces"), **_get_tables(environment, "workspaces")}
    if not names and folder is None:
        names = {"default": {}}
    workspace = _without_none(workspace_options)
    if len(names) > 1 and workspace:
        listed = ", ".join("--" + name.replace("_", "-") for name in workspace)
        raise UsageError(f"{listed}: there are {len(names)} workspaces; set this for each workspace in the file")
    braze = _without_none({name: os.environ.get(f"BRAZE_{name.upper()}") or None for name in ("endpoint", "api_key")})
    only = names if len(names) == 1 else ()
    layers = [
        file,
        {"workspaces": dict.fromkeys(only, braze)},
        environment,
        {"workspaces": dict.fromkeys(only, workspace)},
        _without_none(options),
    ]
    values = _apply_defaults(reduce(_merge, layers))
    problems = [] if problem is None else [problem]
    try:
        settings = Settings(**values)
    except ValidationError as error:
        found = _drop_repeated(error.errors(include_input=False, include_url=False))
        found.sort(key=lambda each: each["type"] != "extra_forbidden")  # a missing setting may only be misspelt
        problems += map(_format_error, found)
    if problems:
        raise UsageError(_format_errors(problems, config))
    settings.check_places()
    return settings


def _apply_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Merge the defaults of workspaces with the table of each."""
    defaults, tables = values.get("workspace_defaults", {}), values["workspaces"]
    if not isinstance(defaults, dict):
        return values
    return values | {"workspaces": {name: _merge(defaults, table) for name, table in tables.items()}}


def _drop_repeated(problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """Drop the problems of workspaces that the same setting of the defaults has."""
    known = {(each["loc"][1:], each["msg"]) for each in problems if "workspace_defaults" in each["loc"]}
    return [each for each in problems if "workspaces" not in each["loc"] or (each["loc"][2:], each["msg"]) not in known]


def _format_errors(problems: list[str], config: Path | None) -> str:
    where = f" in {config} and the environment" if config else ""
    unused = config is None and Path(USUAL_NAME).is_file()
    hint = [f"  the file {USUAL_NAME} in this folder is not used; name it with --config {USUAL_NAME}"] if unused else []
    return "\n".join([f"invalid settings{where}:", *problems, *hint])


def _format_error(problem: ErrorDetails) -> str:
    message = problem["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    if isinstance(problem.get("input"), int | float | str) and problem["type"].startswith(("less", "greater")):
        message = f"is {problem['input']}, but {message}"
    if problem["type"] == "extra_forbidden":
        message = _explain_unknown(*problem["loc"])
    if problem["type"] == "missing":
        message = _NO_ENDPOINT if problem["loc"][-1] == "endpoint" else "is missing"
    if problem["type"].startswith("union_tag"):
        message = f"kind must be one of {', '.join(KINDS)}"
    place = [".".join(map(str, problem["loc"]))] if problem["loc"] else []  # a rule between settings has no place
    return "  " + printable(": ".join([*place, message]))


def _explain_unknown(*place: int | str) -> str:
    """Return what to do about a name that is not a setting: removed, misspelt, or unknown."""
    known: Iterable[str] = Settings.model_fields
    removed = REMOVED
    match place:
        case ("workspaces", _, name) | ("workspace_defaults", name):
            known, removed = Workspace.model_fields, REMOVED_FROM_WORKSPACE
        case ("triggers", _, kind, name):
            known = KINDS[str(kind)].model_fields
        case (*_, name):
            pass
    if str(name) in removed:
        return f"this setting was removed: {removed[str(name)]}"
    near = difflib.get_close_matches(str(name), known, n=1)
    return (
        f"unknown setting; did you mean {near[0]}?" if near else f"unknown setting; the settings are {', '.join(known)}"
    )


def _read_file(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        data = read_start(config, MAX_CONFIG_BYTES)
        if len(data) > MAX_CONFIG_BYTES:
            raise UsageError(f"{config} has more than {MAX_CONFIG_BYTES} bytes; name a configuration file")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"cannot read the configuration {config}: {error.strerror}; name a readable file") from None
    except RecursionError:
        raise UsageError(f"cannot read the configuration {config}: it is nested too deeply") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise UsageError(f"cannot read the configuration {config}: {error}") from None


def list_key_files(folder: object) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Return a table for each file in ``folder``, by its name, and why the folder cannot be listed.

    Names that begin with a dot are no workspaces: Kubernetes mounts a secret with entries such as ``..data``.
    """
    if not folder or not isinstance(folder, str | Path):
        return {}, None
    try:
        files = sorted(each for each in Path(folder).iterdir() if not each.name.startswith(".") and not each.is_dir())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a valid name"
        return {}, f"  api_key_dir: cannot be listed: {reason}; name a readable folder of key files"
    return {each.name: {"api_key_file": str(each)} for each in files}, None


def _spell_names(variables: dict[str, Any], file: dict[str, Any]) -> dict[str, Any]:
    """Return the variables with the names of workspaces and triggers as ``file`` spells them."""
    spelled = dict(variables)
    for kind in ("workspaces", "triggers"):
        names = {variable_name(name): name for name in _get_tables(file, kind)}
        tables = _get_tables(variables, kind)
        spelled[kind] = {names.get(variable_name(name), name): table for name, table in tables.items()}
    return spelled


def _get_tables(layer: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    tables = layer.get(kind, {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UsageError(f"{kind} must contain a table for each {kind[:-1]}, such as [{kind}.eu]")
    return tables


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge two layers: tables are merged, other values replaced; one source of a secret replaces the other."""
    merged = dict(below)
    for sources in _SECRET_SOURCES:
        if any(name in above for name in sources):
            merged = {name: value for name, value in merged.items() if name not in sources}
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def environment_has_workspaces() -> bool:
    """Return whether variables configure workspaces, so that no file is needed."""
    prefixes = ("HARVESTER_WORKSPACES", "HARVESTER_API_KEY_DIR")
    return any(name.upper().startswith(prefixes) and value for name, value in os.environ.items())


_network_in_use: list[NetworkSettings] = []


def use_network(settings: NetworkSettings) -> None:
    """Use a proxy and certificates for all buckets of this process from now on."""
    _network_in_use[:] = [settings]


def get_network() -> NetworkSettings:
    """Return the proxy and the certificates for buckets: those in use, else those in the environment."""
    if _network_in_use:
        return _network_in_use[0]
    hide_environment_secrets()
    names = NetworkSettings.model_fields
    variables = {name: value for name, value in read_variables().items() if name in names}
    try:
        return NetworkSettings(**variables)
    except ValidationError as error:
        problems = map(_format_error, error.errors(include_input=False, include_url=False))
        raise UsageError("\n".join(["invalid settings in the environment:", *problems])) from None


def get_trace_endpoint() -> str | None:
    """Return where traces are sent, from OpenTelemetry's own variable; None for nowhere."""
    return os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None


def get_store_variables() -> tuple[str | None, bool]:
    """Return AWS's profile, and whether plain http is allowed, from the clouds' own variables.

    Plain http is allowed to this machine, and elsewhere if one of ``AWS_ALLOW_HTTP``, ``AZURE_ALLOW_HTTP`` and
    ``GOOGLE_ALLOW_HTTP`` is true.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    origin = ORIGIN.match(endpoint)
    allowed = (os.environ.get(f"{cloud}_ALLOW_HTTP", "").lower() for cloud in ("AWS", "AZURE", "GOOGLE"))
    return os.environ.get("AWS_PROFILE") or None, bool(origin and origin[2] in LOOPBACK) or "true" in allowed
