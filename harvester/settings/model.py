"""All settings, their defaults, and the rules between them. Creating them reads no file and no variable."""

from collections.abc import Collection
from typing import Literal, Self, TypeVar

from pydantic import Field, PrivateAttr, field_validator, model_validator

from harvester.condition import name_workspaces
from harvester.errors import UsageError
from harvester.place import DatabaseUrl, LedgerLocation
from harvester.schedule import ReadingPlan
from harvester.settings.network import NetworkSettings, load_proxy
from harvester.settings.places import LocalPath, PartsPlace, find_nested
from harvester.settings.proxy import DIRECT, Proxy
from harvester.settings.state import StateSetting, load_state
from harvester.settings.triggers import TriggerSettings
from harvester.settings.workspace import Name, Workspace, WorkspaceDefaults, variable_name

T = TypeVar("T")

DUPLICATE_WORKSPACE_HINT = (
    "the same endpoint and API key: to Braze this is one workspace, so a send that is listed under both is captured "
    "twice, from one quota; keep one name"
)


class Settings(NetworkSettings):
    """All settings. ``load`` reads the sources; the class itself reads none."""

    workspaces: dict[Name, Workspace]
    workspace_defaults: WorkspaceDefaults = WorkspaceDefaults()
    """What ``load`` has merged into ``workspaces``."""
    api_key_dir: LocalPath | None = None
    triggers: dict[Name, TriggerSettings] = Field(default={})
    out: PartsPlace = "./harvest"
    state: StateSetting | None = None
    state_file: LocalPath | None = None
    concurrency: int = Field(default=64, ge=1, le=1024)
    max_in_flight: int = Field(default=256, ge=1, le=4096)
    compression: Literal["zstd", "gzip"] = "zstd"
    raw: bool = False
    patience_seconds: float = Field(default=240.0, ge=0, le=30 * 86_400)
    max_sealed_bytes: int = Field(default=1 << 30, ge=1 << 20)
    keep_days: float = Field(default=90.0, ge=30)
    web_host: str = "127.0.0.1"
    web_port: int = Field(default=8080, ge=0, le=65_535)
    _url: DatabaseUrl | None = PrivateAttr(default=None)
    _keys: dict[str, str] = PrivateAttr(default_factory=dict)
    _proxies: dict[str, Proxy | None] = PrivateAttr(default_factory=dict)

    @field_validator("workspaces")
    @classmethod
    def _check_not_empty(cls, value: dict[str, Workspace]) -> dict[str, Workspace]:
        if not value:
            raise ValueError(
                "no workspace is configured; add a table such as [workspaces.eu], or a key file to api_key_dir"
            )
        return value

    @field_validator("workspaces", "triggers")
    @classmethod
    def _check_distinct_names(cls, value: dict[str, T]) -> dict[str, T]:
        if len({variable_name(name) for name in value}) < len(value):
            raise ValueError(
                "two names differ only in case or punctuation, so they would share their variables; rename one"
            )
        return value

    @model_validator(mode="after")
    def _check_state_source(self) -> Self:
        if self.state is not None and self.state_file is not None:
            raise ValueError("set either state or state_file")
        return self

    def load_state(self) -> LedgerLocation | None:
        """Return where the ledger is, if the settings name it. Raises ``UsageError``; the file is read once."""
        if self.state_file is None:
            location: LedgerLocation | None = self.state
            return location
        if self._url is None:
            self._url = load_state(self.state_file)
        return self._url

    def get_plans(self) -> dict[str, ReadingPlan]:
        """Return the plan of readings of each workspace."""
        return {name: ReadingPlan(each.ages_days) for name, each in self.workspaces.items()}

    def list_places(self) -> dict[str, list[str]]:
        """Return the workspaces of each place, as the settings spell it. ``out`` is missing if no workspace uses it."""
        places: dict[str, list[str]] = {}
        for name, each in self.workspaces.items():
            places.setdefault(each.out or self.out, []).append(name)
        return places

    def check_places(self) -> None:
        """Raise ``UsageError`` with all places that are in a folder of another place that only harvester writes to."""
        places = {
            out: (f"workspaces.{names[0]}.out", f"the place of {name_workspaces(names)}")
            for out, names in self.list_places().items()
        } | {self.out: ("out", "the common place")}
        problems = [
            f"  {places[place][0]}: is inside {folder}/ of {places[other][1]}; choose a place outside of it"
            for place, other, folder in find_nested(places)
        ]
        if problems:
            raise UsageError("\n".join(["these places cannot be used:", *problems]))

    def load_keys(self) -> dict[str, str]:
        """Return the API key of each workspace. Raises ``UsageError`` with all problems at once."""
        problems = [f"  workspaces.{name}: {problem}" for name, problem in self.find_key_problems().items()]
        if problems:
            raise UsageError("\n".join(["the API key cannot be used:", *problems]))
        return dict(self._keys)

    def find_key_problems(self) -> dict[str, str]:
        """Load the API keys; returns for each workspace whose key cannot be used why not."""
        problems = {}
        for name in self.workspaces:
            try:
                self.load_key(name)
            except UsageError as problem:
                problems[name] = str(problem)
        return problems

    def load_key(self, name: str) -> str:
        """Return the API key of a workspace. Raises ``UsageError``.

        Files are read once: a pipe, such as a shell's ``<(...)``, is empty the second time.
        """
        if name not in self._keys:
            self._keys[name] = self.workspaces[name].load_key()
        return self._keys[name]

    @property
    def has_proxy(self) -> bool:
        """Whether a proxy is set, for everything or for a workspace."""
        places: list[NetworkSettings | Workspace] = [self, *self.workspaces.values()]
        values = (each.proxy.get_secret_value() for each in places if each.proxy is not None)
        return any(each.proxy_file is not None for each in places) or any(each != DIRECT for each in values)

    def load_proxies(self) -> None:
        """Load the proxies of buckets and of all workspaces. Raises ``UsageError`` with all problems at once."""
        problems = []
        try:
            self.load_store_proxy()
        except UsageError as problem:
            problems = [f"  {problem}"]
        for name in () if problems else self.workspaces:
            try:
                self.load_proxy(name)
            except UsageError as problem:
                problems.append(f"  workspaces.{name}: {problem}")
        if problems:
            raise UsageError("\n".join(["the proxy cannot be used:", *problems]))

    def load_proxy(self, name: str) -> Proxy | None:
        """Return the proxy of requests to the endpoint of a workspace; None for none. Raises ``UsageError``.

        Files are read once, as those of keys.
        """
        if name not in self._proxies:
            workspace = self.workspaces[name]
            has_own = workspace.proxy is not None or workspace.proxy_file is not None
            source = workspace if has_own else self
            proxy = load_proxy(source.proxy, source.proxy_file)
            self._proxies[name] = proxy if proxy is not None and proxy.serves(workspace.endpoint) else None
        return self._proxies[name]

    def keep(self, old: "Settings", *, fields: Collection[str], workspaces: Collection[str]) -> "Settings":
        """Return a copy in which these fields and workspaces are as in ``old``, or missing as there.

        Keys and proxies belong to their workspaces. ``workspaces`` contains all whose key could not be loaded. Raises
        ``UsageError`` for places that cannot be used together.
        """
        usable = {name: each for name, each in self.workspaces.items() if name not in workspaces}
        kept = {name: old.workspaces[name] for name in workspaces if name in old.workspaces}
        fields_kept = {name: getattr(old, name) for name in fields}
        copy = self.model_copy(update={"workspaces": usable | kept} | fields_kept)
        copy.check_places()
        copy._url = old._url if "state_file" in fields else self._url  # noqa: SLF001 - a copy of this object
        copy._keys = {name: self._keys[name] for name in usable} | {name: old.load_key(name) for name in kept}  # noqa: SLF001 - as above
        copy._proxies = {name: self.load_proxy(name) for name in usable} | {name: old.load_proxy(name) for name in kept}  # noqa: SLF001 - as above
        return copy

    def find_duplicates(self) -> list[list[str]]:
        """Return the names of workspaces that share endpoint and key: a key belongs to one workspace of Braze's.

        Only keys that are loaded are compared.
        """
        names_by_key: dict[tuple[str, str], list[str]] = {}
        for name, key in self._keys.items():
            names_by_key.setdefault((self.workspaces[name].endpoint, key), []).append(name)
        return [names for names in names_by_key.values() if len(names) > 1]
