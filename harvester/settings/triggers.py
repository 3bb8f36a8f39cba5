"""What can be said of a trigger: which broker, how to be let in, and which files its messages may point to."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from harvester.errors import UsageError
from harvester.observability.redaction import hide_url
from harvester.place import refusal
from harvester.settings.places import LocalPath
from harvester.settings.secret_files import secret_in


def _place(value: str) -> str:
    problem = refusal(value, files=False, buckets=True)
    if problem is not None:
        raise ValueError(problem)
    return value


Prefix = Annotated[str, AfterValidator(_place)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


QueueUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^/@?#%\s]+/[^/@?#%\s]+/[^/@?#%\s]+$")]


class _Trigger(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    prefixes: tuple[Prefix, ...] = ()
    dead_letter: Text | None = None

    def options(self) -> dict[str, Any]:
        """Give what the broker of this kind takes. Raises ``UsageError`` where its URL cannot be had."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("kind", "prefixes")}


class _WithUrl(_Trigger):
    """A broker whose URL may hold a password, so that it may come from a file."""

    schemes: ClassVar[Sequence[str]] = ()
    several: ClassVar[bool] = False

    url: SecretStr | None = None
    url_file: LocalPath | None = None

    @model_validator(mode="after")
    def _one_url(self) -> "_WithUrl":
        if (self.url is None) == (self.url_file is None):
            raise ValueError("give either url or url_file")
        return self

    def options(self) -> dict[str, Any]:
        """Give the URL as a function, so that a file that is replaced is read again; it is tried once."""
        self.address()
        given = super().options()
        del given["url_file"]
        return given | {"url": self.address}

    def address(self) -> str:
        """Give the URL. Raises ``UsageError``, which names its file but never holds the URL."""
        if self.url is not None:
            text = self.url.get_secret_value().strip()
        else:
            assert self.url_file is not None
            name = str(self.url_file)
            shown = "url_file" if "@" in name else f"url_file, {name}"  # a URL without a scheme in place of a file
            text = secret_in(self.url_file, f"a broker's URL ({shown})")
        if not text.startswith(tuple(f"{scheme}://" for scheme in self.schemes)):
            raise UsageError(f"the URL of a broker of this kind begins with {' or '.join(self.schemes)}, then ://")
        if not all(_is_usable(each) for each in (text.split(",") if self.several else [text])):
            raise UsageError(_UNUSABLE_URL)
        hide_url(text)
        return text


class RabbitMQ(_WithUrl):
    """A queue of RabbitMQ."""

    schemes = ("amqp", "amqps")

    kind: Literal["rabbitmq"]
    queue: Text


class SQS(_Trigger):
    """A queue of Amazon SQS."""

    kind: Literal["sqs"]
    queue_url: QueueUrl
    dead_letter: QueueUrl | None = None


class NATS(_WithUrl):
    """A durable pull consumer of a JetStream stream."""

    schemes = ("nats", "tls", "ws", "wss")
    several = True

    kind: Literal["nats"]
    stream: Text
    consumer: Text


class Redis(_WithUrl):
    """A Redis stream."""

    schemes = ("redis", "rediss", "unix")

    kind: Literal["redis"]
    stream: Text
    group: Text = "harvester"


KINDS: Mapping[str, type[_Trigger]] = {"rabbitmq": RabbitMQ, "sqs": SQS, "nats": NATS, "redis": Redis}
Trigger = Annotated[RabbitMQ | SQS | NATS | Redis, Field(discriminator="kind")]


_UNUSABLE_URL = (
    "the URL of a broker cannot be used: check host and port, and write each of / ? # @ : , in user and password as "
    "%2F %3F %23 %40 %3A %2C"
)


def _is_usable(url: str) -> bool:
    """Check a URL before any library sees it: their errors quote the half of a password that they take for a port.

    What stands behind the host must hold no ``@``: it would be what is left of a password.
    """
    scheme, mark, _ = url.partition("://")
    url = url if mark else f"nats://{url}"
    authority, *rest = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)
    if scheme == "unix" and not authority:
        return url.isprintable()
    try:
        host, _ = urlsplit(url).hostname, urlsplit(url).port
    except ValueError:
        return False
    plain = url.isprintable() and " " not in url and authority.count("@") < 2 and authority.count(":") < 8
    return plain and "@" not in "".join(rest) and (bool(host) or scheme == "unix")
