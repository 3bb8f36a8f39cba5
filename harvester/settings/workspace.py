"""What can be said of one Braze workspace: where it is, how to be let in, and how polite to be there."""

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
    model_validator,
)

from harvester.errors import UsageError
from harvester.model import reading_name
from harvester.observability.redaction import hide
from harvester.schedule import LAST_AGE_DAYS
from harvester.settings.places import LocalPath
from harvester.settings.secret_files import secret_in

BRAZE_HOSTS = frozenset(
    [f"rest.iad-0{number}.braze.com" for number in range(1, 9)]
    + ["rest.us-10.braze.com", "rest.fra-01.braze.eu", "rest.fra-02.braze.eu", "rest.au-01.braze.com"]
    + ["rest.id-01.braze.com", "rest.jp-01.braze.com", "rest.kr-01.braze.com"]
)
"""The 15 REST hosts of Braze's own list of instances (documentation of the data centers)."""

AGES_DAYS = (1.0, 2.0, 3.0, 5.0, 8.0, 11.0, 13.0)
"""The ages in days at which a send is read by default."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
ORIGIN = re.compile(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?/?", re.ASCII | re.IGNORECASE)
_KEY = re.compile(r"[\x21-\x7e]{8,200}")


class Workspace(BaseModel):
    """One Braze workspace: where it is, how to be let in, and how polite to be there."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    allow_unknown_host: bool = False
    endpoint: str
    api_key: SecretStr | None = None
    api_key_file: LocalPath | None = None
    reserve: float = Field(default=0.2, ge=0, lt=1)
    max_rate: float = Field(default=1000.0, gt=0)
    ages_days: tuple[Annotated[float, Field(gt=0)], ...] = AGES_DAYS

    @field_validator("endpoint")
    @classmethod
    def _host_is_known(cls, value: str, others: ValidationInfo) -> str:
        """Give the endpoint as it was understood, so that what is called is what was checked."""
        origin = ORIGIN.fullmatch(value)
        if origin is None:
            raise ValueError("must be an origin such as https://rest.fra-01.braze.eu, with nothing before or behind it")
        scheme, host, port = origin[1].lower(), origin[2].lower(), origin[3] or ""
        if host not in LOOPBACK:
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
    def _one_key(cls, value: LocalPath | None, others: ValidationInfo) -> LocalPath | None:
        if value is not None and others.data.get("api_key") is not None:
            raise ValueError("give api_key or api_key_file, not both")
        return value

    @model_validator(mode="after")
    def _ages_fit(self) -> "Workspace":
        ages = self.ages_days
        if not ages or list(ages) != sorted(set(ages)):
            raise ValueError("ages_days must name at least one age, and rise")
        if len(set(map(reading_name, ages))) < len(ages):
            raise ValueError("ages_days must differ in their first six digits, by which readings are named")
        if ages[-1] > LAST_AGE_DAYS:
            raise ValueError(f"the last of ages_days must be at most {LAST_AGE_DAYS}: Braze keeps a send for 14 days")
        return self

    def key(self) -> str:
        """Give the API key from its file or setting. Raises ``UsageError``, which never holds the key."""
        if self.api_key_file is not None:
            text = secret_in(self.api_key_file, "the API key (api_key_file)")
        else:
            text = self.api_key.get_secret_value().strip() if self.api_key else ""
        if not text:
            raise UsageError(
                "there is no API key: set BRAZE_API_KEY or give --api-key-file; "
                "of several workspaces, each has its own api_key_file, or HARVESTER_WORKSPACES__NAME__API_KEY"
            )
        if not _KEY.fullmatch(text):
            raise UsageError(
                "the API key is malformed: 8 to 200 printable ASCII characters without blanks are expected"
            )
        hide(text)
        return text


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def as_variable(name: str) -> str:
    """Spell the name of a workspace or trigger as in the name of a variable, which holds neither case nor marks."""
    return re.sub(r"[.-]", "_", name).upper()
