"""The settings of one Braze workspace: its endpoint, key, limits and ages of readings."""

import re
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from harvester.errors import UsageError
from harvester.model import reading_name
from harvester.observability.redaction import register_secret
from harvester.schedule import LAST_AGE_DAYS
from harvester.settings.network import ProxySetting
from harvester.settings.places import LocalPath, OwnPartsPlace
from harvester.settings.proxy import is_host
from harvester.settings.secret_files import name_source, read_secret

BRAZE_HOSTS = frozenset(
    [f"rest.iad-0{number}.braze.com" for number in range(1, 9)]
    + ["rest.us-10.braze.com", "rest.fra-01.braze.eu", "rest.fra-02.braze.eu", "rest.au-01.braze.com"]
    + ["rest.id-01.braze.com", "rest.jp-01.braze.com", "rest.kr-01.braze.com"]
)
"""The 15 REST hosts in Braze's list of instances (documentation of the data centers)."""

AGES_DAYS = (1.0, 2.0, 3.0, 5.0, 8.0, 11.0, 13.0)
"""The ages in days at which a send is read by default."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
ORIGIN = re.compile(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?/?", re.ASCII | re.IGNORECASE)
_KEY = re.compile(r"[\x21-\x7e]{8,200}")
_AROUND_KEY = (
    (re.compile("^\N{ZERO WIDTH NO-BREAK SPACE}"), "begins with a byte order mark: save its file as UTF-8 without one"),
    (re.compile("^[\"'`\u2018-\u201f]|[\"'`\u2018-\u201f]$"), "is in quotes: remove them"),
    (re.compile(r"^(authorization:\s*)?bearer\b", re.IGNORECASE), "begins with Bearer: remove this word"),
    (re.compile(r"^[A-Za-z_]+="), "begins with the name of a variable: leave only the key"),
)
"""What users copy together with a key, and what to do about it. Braze would respond with 401 without saying why."""


class Workspace(BaseModel):
    """One Braze workspace."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    allow_unknown_host: bool = False
    endpoint: str
    api_key: SecretStr | None = None
    api_key_file: LocalPath | None = None
    proxy: ProxySetting | None = None
    """None for the proxy of all workspaces."""
    proxy_file: LocalPath | None = None
    out: OwnPartsPlace | None = None
    reserve: float = Field(default=0.2, ge=0, lt=1)
    max_rate: float = Field(default=1000.0, gt=0)
    ages_days: tuple[Annotated[float, Field(gt=0)], ...] = AGES_DAYS

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str, info: ValidationInfo) -> str:
        """Return the endpoint as it was parsed, so that requests go to what was checked."""
        origin = ORIGIN.fullmatch(value)
        if origin is None or not is_host(origin[2]):
            raise ValueError("must be a URL without a path, such as https://rest.fra-01.braze.eu")
        scheme, host, port = origin[1].lower(), origin[2].lower(), origin[3] or ""
        if host not in LOOPBACK:
            if scheme != "https":
                raise ValueError("must begin with https:// (plain http is allowed only for loopback addresses)")
            if host not in BRAZE_HOSTS and not info.data.get("allow_unknown_host"):
                raise ValueError(
                    f"is not one of the {len(BRAZE_HOSTS)} known Braze REST hosts; "
                    "correct it, or use --allow-unknown-host (allow_unknown_host = true)"
                )
        return f"{scheme}://{host}{port}"

    @field_validator("api_key_file")
    @classmethod
    def _check_key_source(cls, value: LocalPath | None, info: ValidationInfo) -> LocalPath | None:
        if value is not None and info.data.get("api_key") is not None:
            raise ValueError("set either api_key or api_key_file")
        return value

    @field_validator("proxy_file")
    @classmethod
    def _check_proxy_source(cls, value: LocalPath | None, info: ValidationInfo) -> LocalPath | None:
        if value is not None and info.data.get("proxy") is not None:
            raise ValueError("set either proxy or proxy_file")
        return value

    @field_validator("ages_days")
    @classmethod
    def _check_ages(cls, ages: tuple[float, ...]) -> tuple[float, ...]:
        if not ages or list(ages) != sorted(set(ages)):
            raise ValueError("must contain at least one age, in ascending order")
        if len(set(map(reading_name, ages))) < len(ages):
            raise ValueError("must differ in their first six digits, which name the readings")
        if ages[-1] > LAST_AGE_DAYS:
            raise ValueError(f"must be at most {LAST_AGE_DAYS}, since Braze keeps analytics for 14 days")
        return ages

    def load_key(self) -> str:
        """Return the API key from its file or setting. Raises ``UsageError``, which never contains the key."""
        if self.api_key_file is not None:
            text = read_secret(self.api_key_file, f"the API key ({name_source('api_key_file', self.api_key_file)})")
        else:
            text = self.api_key.get_secret_value().strip() if self.api_key else ""
        if not text:
            raise UsageError(
                "there is no API key: set BRAZE_API_KEY or use --api-key-file; with several workspaces, set "
                "api_key_file or HARVESTER_WORKSPACES__NAME__API_KEY for each, or add a file to api_key_dir"
            )
        problem = next((problem for sign, problem in _AROUND_KEY if sign.search(text)), None)
        if problem is not None:
            raise UsageError(f"the API key {problem}")
        if not _KEY.fullmatch(text):
            raise UsageError(
                "the API key is malformed: it must have 8 to 200 printable ASCII characters without spaces"
            )
        register_secret(text)
        return text


class WorkspaceDefaults(Workspace):
    """The settings of workspaces whose tables do not contain them."""

    endpoint: str = ""

    @field_validator("out")
    @classmethod
    def _refuse_place(cls, value: str | None) -> str | None:
        if value is not None:
            raise ValueError("set the out of the whole file; it is the place of all workspaces without their own")
        return value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def variable_name(name: str) -> str:
    """Return the spelling of a workspace's or trigger's name in the name of a variable: upper case, without marks."""
    return re.sub(r"[.-]", "_", name).upper()
