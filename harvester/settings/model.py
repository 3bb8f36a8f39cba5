"""All settings, their defaults, and what must hold between them. By itself nothing here reads a file or a variable."""

from typing import Literal, TypeVar

from pydantic import Field, PrivateAttr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from harvester.errors import UsageError
from harvester.settings.places import LocalPath, PartsPlace
from harvester.settings.triggers import Trigger
from harvester.settings.workspace import Name, Workspace, as_variable

T = TypeVar("T")

ONE_WORKSPACE_TWICE = (
    "the same endpoint and API key: to Braze these are one workspace, so a send that is listed under both is captured "
    "twice, out of one budget; keep one name"
)


class Settings(BaseSettings):
    """All settings, each at its default. By itself it reads nothing; ``load`` does."""

    model_config = SettingsConfigDict(
        env_prefix="HARVESTER_", env_nested_delimiter="__", env_ignore_empty=True,
        extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False,
    )  # fmt: skip

    workspaces: dict[Name, Workspace]
    triggers: dict[Name, Trigger] = {}
    out: PartsPlace = "./harvest"
    state: LocalPath | None = None
    concurrency: int = Field(default=64, ge=1, le=1024)
    compression: Literal["zstd", "gzip"] = "zstd"
    raw: bool = False
    patience_seconds: float = Field(default=240.0, ge=0, le=30 * 86_400)
    max_sealed_bytes: int = Field(default=1 << 30, ge=1 << 20)
    keep_days: float = Field(default=90.0, ge=30)
    web_host: str = "127.0.0.1"
    web_port: int = Field(default=8080, ge=0, le=65_535)
    _keys: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("workspaces")
    @classmethod
    def _at_least_one(cls, value: dict[str, Workspace]) -> dict[str, Workspace]:
        if not value:
            raise ValueError("no workspace is configured")
        return value

    @field_validator("workspaces", "triggers")
    @classmethod
    def _told_apart(cls, value: dict[str, T]) -> dict[str, T]:
        if len({as_variable(name) for name in value}) < len(value):
            raise ValueError("two names differ only in case or marks, so the environment cannot tell them apart")
        return value

    def keys(self) -> dict[str, str]:
        """Give the API key of each workspace. Raises ``UsageError`` with every problem at once."""
        problems = []
        for name in self.workspaces:
            try:
                self.key_of(name)
            except UsageError as problem:
                problems.append(f"  workspaces.{name}: {problem}")
        if problems:
            raise UsageError("not every workspace has a usable API key:\n" + "\n".join(problems))
        return dict(self._keys)

    def key_of(self, name: str) -> str:
        """Give the API key of a workspace. Raises ``UsageError``.

        Files are read once: one that is a pipe, as a shell's ``<(...)`` is, holds nothing the second time.
        """
        if name not in self._keys:
            self._keys[name] = self.workspaces[name].key()
        return self._keys[name]

    def doubles(self) -> list[list[str]]:
        """Name together the workspaces that have endpoint and key in common: a key is of one workspace of Braze's.

        Only keys that were given out already are compared.
        """
        named: dict[tuple[str, str], list[str]] = {}
        for name, key in self._keys.items():
            named.setdefault((self.workspaces[name].endpoint, key), []).append(name)
        return [names for names in named.values() if len(names) > 1]

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Take what is given and nothing else."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)
