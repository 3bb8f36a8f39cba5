"""Settings from a TOML file, the environment and secret files, checked as a whole before anything starts.

The only door to pydantic. Every problem is told at once, by name, and never with a value that may be secret.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)  # fmt: skip

from harvester.errors import UsageError

BRAZE_HOSTS = frozenset(
    [f"rest.iad-0{number}.braze.com" for number in range(1, 9)]
    + ["rest.us-10.braze.com", "rest.fra-01.braze.eu", "rest.fra-02.braze.eu", "rest.au-01.braze.com"]
    + ["rest.id-01.braze.com", "rest.jp-01.braze.com", "rest.kr-01.braze.com"]
)
"""The 15 REST hosts of Braze's own list of instances (documentation of the data centers)."""

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_KEY = re.compile(r"[\x21-\x7e]{8,200}")


class Workspace(BaseModel):
    """One Braze workspace: where it is, how to be let in, and how polite to be there."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    endpoint: str
    allow_unknown_host: bool = False
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    reserve: float = Field(default=0.2, ge=0, lt=1)
    urgent_reserve: float | None = Field(default=None, ge=0, lt=1)
    max_rate: float = Field(default=1000.0, gt=0)

    @model_validator(mode="after")
    def _host_is_known(self) -> "Workspace":
        parts = urlsplit(self.endpoint)
        host = parts.hostname or ""
        if parts.username or parts.password or parts.query or parts.fragment or parts.path not in ("", "/"):
            raise ValueError("endpoint must be an origin such as https://rest.fra-01.braze.eu, with nothing behind it")
        if host in _LOOPBACK and parts.scheme in ("http", "https"):
            return self
        if parts.scheme != "https":
            raise ValueError("endpoint must begin with https:// (plain http is for loopback only)")
        if host not in BRAZE_HOSTS and not self.allow_unknown_host:
            raise ValueError(
                f"endpoint {host!r} is none of the {len(BRAZE_HOSTS)} known Braze REST hosts; "
                "mend it, or say --allow-unknown-host (allow_unknown_host = true)"
            )
        return self

    def key(self) -> str:
        """Give the API key from its file or setting. Raises ``UsageError``, which never holds the key."""
        if self.api_key_file is not None:
            try:
                text = self.api_key_file.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"cannot read the API key from {self.api_key_file}: {type(error).__name__}") from None
        else:
            text = self.api_key.get_secret_value() if self.api_key else ""
        text = text.strip()
        if not text:
            raise UsageError("there is no API key: set BRAZE_API_KEY or give --api-key-file")
        if not _KEY.fullmatch(text):
            raise UsageError(
                "the API key is malformed: 8 to 200 printable ASCII characters without blanks are expected"
            )
        return text


class Settings(BaseSettings):
    """All settings, each at its default."""

    model_config = SettingsConfigDict(
        env_prefix="HARVESTER_", env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    workspaces: dict[str, Workspace]
    length: int = Field(default=15, ge=1, le=100)
    concurrency: int = Field(default=64, ge=1, le=1024)
    compression: Literal["zstd", "gzip", "none"] = "zstd"
    max_deferrals: int = Field(default=4, ge=0)
    request_timeout_seconds: float = Field(default=30.0, gt=0, le=600)

    @field_validator("workspaces")
    @classmethod
    def _some_workspace(cls, value: dict[str, Workspace]) -> dict[str, Workspace]:
        if not value:
            raise ValueError("no workspace is configured")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: object,
        **named: object,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Take what is given and nothing else: ``load`` merges file, environment and command line."""
        del settings_cls, others, named
        return (init_settings,)


def load(config: Path | None, given: dict[str, Any], workspace: dict[str, Any]) -> Settings:
    """Read settings: the command line wins over the environment, and that over the file.

    ``given`` and ``workspace`` hold what the command line named; None means not named. Without a file there is one
    workspace, ``default``, from the command line, ``BRAZE_ENDPOINT`` and ``BRAZE_API_KEY``.
    Raises ``UsageError`` with every problem at once.
    """
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = tomllib.loads(config.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"cannot read the configuration {config}: {error}") from None
    else:
        named = {name: value for name, value in workspace.items() if value is not None}
        if "api_key_file" not in named and (key := os.environ.get("BRAZE_API_KEY")):
            named["api_key"] = SecretStr(key)
        if "endpoint" not in named:
            if not (endpoint := os.environ.get("BRAZE_ENDPOINT")):
                raise UsageError(
                    "no endpoint: set BRAZE_ENDPOINT or give --endpoint https://rest.fra-01.braze.eu (yours)"
                )
            named["endpoint"] = endpoint
        values = {"workspaces": {"default": named}}
    try:
        values = _merged(values, EnvSettingsSource(Settings)())
        return Settings(**(values | {name: value for name, value in given.items() if value is not None}))
    except SettingsError as error:
        raise UsageError(f"the environment is not usable: {error}") from None
    except ValidationError as error:
        problems = [
            f"  {'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors(include_input=False, include_url=False)
        ]
        raise UsageError("the settings are not usable:\n" + "\n".join(problems)) from None


def _merged(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Lay one tree of settings over another."""
    both = (name for name in low.keys() & high.keys() if isinstance(low[name], dict) and isinstance(high[name], dict))
    return low | high | {name: _merged(low[name], high[name]) for name in both}
