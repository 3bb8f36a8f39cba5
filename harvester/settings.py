"""Settings from a TOML file, the environment and secret files, checked as a whole before anything starts.

The only door to pydantic. Every problem is told at once, by name, and never with a value: a key may stand
where another setting was meant.
"""

import os
import re
import tomllib
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from harvester.errors import UsageError

BRAZE_HOSTS = frozenset(
    [f"rest.iad-0{number}.braze.com" for number in range(1, 9)]
    + ["rest.us-10.braze.com", "rest.fra-01.braze.eu", "rest.fra-02.braze.eu", "rest.au-01.braze.com"]
    + ["rest.id-01.braze.com", "rest.jp-01.braze.com", "rest.kr-01.braze.com"]
)
"""The 15 REST hosts of Braze's own list of instances (documentation of the data centers)."""

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_ORIGIN = re.compile(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?/?", re.ASCII | re.IGNORECASE)
_KEY = re.compile(r"[\x21-\x7e]{8,200}")
_KEY_SOURCES = ("api_key", "api_key_file")
_NO_ENDPOINT = "is missing: set BRAZE_ENDPOINT, or give --endpoint https://rest.fra-01.braze.eu (yours)"


class Workspace(BaseModel):
    """One Braze workspace: where it is, how to be let in, and how polite to be there."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    allow_unknown_host: bool = False
    endpoint: str
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    reserve: float = Field(default=0.2, ge=0, lt=1)
    urgent_reserve: float | None = Field(default=None, ge=0, lt=1)
    max_rate: float = Field(default=1000.0, gt=0)

    @field_validator("endpoint")
    @classmethod
    def _host_is_known(cls, value: str, others: ValidationInfo) -> str:
        """Give the endpoint as it was understood, so that what is called is what was checked."""
        origin = _ORIGIN.fullmatch(value)
        if origin is None:
            raise ValueError("must be an origin such as https://rest.fra-01.braze.eu, with nothing before or behind it")
        scheme, host, port = origin[1].lower(), origin[2].lower(), origin[3] or ""
        if host not in _LOOPBACK:
            if scheme != "https":
                raise ValueError("must begin with https:// (plain http is for loopback only)")
            if host not in BRAZE_HOSTS and not others.data.get("allow_unknown_host"):
                raise ValueError(
                    f"names none of the {len(BRAZE_HOSTS)} known Braze REST hosts; "
                    "mend it, or say --allow-unknown-host (allow_unknown_host = true)"
                )
        return f"{scheme}://{host}{port}"

    @field_validator("api_key_file")
    @classmethod
    def _one_key(cls, value: Path | None, others: ValidationInfo) -> Path | None:
        if value is not None and others.data.get("api_key") is not None:
            raise ValueError("give api_key or api_key_file, not both")
        return value

    def key(self) -> str:
        """Give the API key from its file or setting. Raises ``UsageError``, which never holds the key.

        Nor does it hold the file's name: more than one user has put the key itself there.
        """
        if self.api_key_file is not None:
            try:
                text = self.api_key_file.read_text(encoding="utf-8")
            except OSError as error:
                raise UsageError(f"cannot read the file of the API key (api_key_file): {error.strerror}") from None
            except ValueError:
                raise UsageError("the file of the API key (api_key_file) holds no text") from None
        else:
            text = self.api_key.get_secret_value() if self.api_key else ""
        text = text.strip()
        if not text:
            raise UsageError(
                "there is no API key: set BRAZE_API_KEY or give --api-key-file; "
                "of several workspaces, each has its own api_key_file, or HARVESTER_WORKSPACES__NAME__API_KEY"
            )
        if not _KEY.fullmatch(text):
            raise UsageError(
                "the API key is malformed: 8 to 200 printable ASCII characters without blanks are expected"
            )
        return text


WorkspaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Settings(BaseSettings):
    """All settings, each at its default. By itself it reads nothing; ``load`` does."""

    model_config = SettingsConfigDict(
        env_prefix="HARVESTER_", env_nested_delimiter="__", env_ignore_empty=True,
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False,
    )  # fmt: skip

    workspaces: dict[WorkspaceName, Workspace]
    length: int = Field(default=15, ge=1, le=100)
    concurrency: int = Field(default=64, ge=1, le=1024)
    compression: Literal["zstd", "gzip", "none"] = "zstd"
    raw: bool = False
    max_deferrals: int = Field(default=4, ge=0)
    max_sealed_bytes: int = Field(default=1 << 30, ge=1 << 20)
    store_patience_seconds: float = Field(default=60.0, ge=0)
    request_timeout_seconds: float = Field(default=30.0, gt=0, le=600)

    @field_validator("workspaces")
    @classmethod
    def _told_apart(cls, value: dict[str, Workspace]) -> dict[str, Workspace]:
        if not value:
            raise ValueError("no workspace is configured")
        if len({_as_variable(name) for name in value}) < len(value):
            raise ValueError("two names differ only in case or marks, so the environment cannot tell them apart")
        return value

    def keys(self) -> dict[str, str]:
        """Give the API key of each workspace. Raises ``UsageError`` with every problem at once."""
        found, problems = {}, []
        for name, workspace in self.workspaces.items():
            try:
                found[name] = workspace.key()
            except UsageError as problem:
                problems.append(f"  workspaces.{name}: {problem}")
        if problems:
            raise UsageError("not every workspace has a usable API key:\n" + "\n".join(problems))
        return found

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Take what is given and nothing else."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def load(config: Path | None, given: dict[str, Any], workspace: dict[str, Any]) -> Settings:
    """Read settings: the command line wins over the environment, and that over the file.

    ``given`` and ``workspace`` hold what the command line named; None means not named. ``workspace``, like
    ``BRAZE_ENDPOINT`` and ``BRAZE_API_KEY``, speaks of the only workspace: that of the file, or of
    ``HARVESTER_WORKSPACES__NAME__...``, or else one named ``default``. Raises ``UsageError`` with every problem
    at once.
    """
    file = _from_file(config)
    environment = _from_environment(_workspaces(file))
    names = {**_workspaces(file), **_workspaces(environment)} or {"default": {}}
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
        problems = [_told(each) for each in error.errors(include_input=False, include_url=False)]
        raise UsageError("the settings are not usable:\n" + "\n".join(problems)) from None


def _told(problem: ErrorDetails) -> str:
    message = _NO_ENDPOINT if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
    return f"  {'.'.join(map(str, problem['loc']))}: {message}"


def _from_file(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the configuration {config}: {error}") from None


def _from_environment(names: Iterable[str]) -> dict[str, Any]:
    """Read ``HARVESTER_...``, where ``__`` leads into a table.

    Variables that name no setting are let pass: an orchestrator sets some for a service of this name.
    """
    try:
        values = EnvSettingsSource(Settings)()
    except SettingsError:
        raise UsageError("HARVESTER_WORKSPACES is no JSON object") from None
    spelled = {_as_variable(name): name for name in names}
    found = {spelled.get(_as_variable(name), name): table for name, table in _workspaces(values).items()}
    return values | {"workspaces": found}


def _as_variable(name: str) -> str:
    """Spell a workspace's name as in the name of a variable, which holds neither case nor marks."""
    return re.sub(r"[.-]", "_", name).upper()


def _workspaces(layer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    tables = layer.get("workspaces", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UsageError("workspaces must hold a table for each workspace, such as [workspaces.eu]")
    return tables


def _named(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one layer over another: tables merge, all else is replaced; one source of the key replaces the other."""
    merged = dict(below)
    if any(name in above for name in _KEY_SOURCES):
        merged = {name: value for name, value in merged.items() if name not in _KEY_SOURCES}
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def of_stores() -> tuple[str | None, bool]:
    """Give what the clouds' own variables say of AWS's profile, and whether plain http may be spoken.

    It may to this machine, and elsewhere where one of ``AWS_ALLOW_HTTP``, ``AZURE_ALLOW_HTTP`` and
    ``GOOGLE_ALLOW_HTTP`` is true.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    origin = _ORIGIN.match(endpoint)
    told = (os.environ.get(f"{cloud}_ALLOW_HTTP", "").lower() for cloud in ("AWS", "AZURE", "GOOGLE"))
    return os.environ.get("AWS_PROFILE") or None, bool(origin and origin[2] in _LOOPBACK) or "true" in told
