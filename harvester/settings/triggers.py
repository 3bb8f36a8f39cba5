"""The settings of a trigger: its broker, its credentials, and the files that its messages may name."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from harvester.errors import UsageError
from harvester.observability.redaction import register_url_secrets
from harvester.place import find_place_problem
from harvester.settings.places import LocalPath
from harvester.settings.secret_files import name_source, read_secret


def _check_bucket(value: str) -> str:
    problem = find_place_problem(value, files=False, buckets=True)
    if problem is not None:
        raise ValueError(problem)
    return value


Prefix = Annotated[str, AfterValidator(_check_bucket)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


QueueUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^/@?#%\s]+/[^/@?#%\s]+/[^/@?#%\s]+$")]


class _CommonSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    prefixes: tuple[Prefix, ...] = ()
    dead_letter: Text | None = None

    def options(self) -> dict[str, Any]:
        """Return the arguments of the broker of this kind. Raises ``UsageError`` if its URL cannot be loaded."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("kind", "prefixes")}


class _WithUrl(_CommonSettings):
    """A broker whose URL may contain a password, so that it may come from a file."""

    schemes: ClassVar[Sequence[str]] = ()
    multiple: ClassVar[bool] = False

    url: SecretStr | None = None
    url_file: LocalPath | None = None

    @model_validator(mode="after")
    def _check_url_source(self) -> "_WithUrl":
        if (self.url is None) == (self.url_file is None):
            raise ValueError("set either url or url_file")
        return self

    def options(self) -> dict[str, Any]:
        """Return the URL as a function, so that a replaced file is read again; it is called once as a check."""
        self.load_url()
        options = super().options()
        del options["url_file"]
        return options | {"url": self.load_url}

    def load_url(self) -> str:
        """Return the URL. Raises ``UsageError``, which names its file but never contains the URL."""
        if self.url is not None:
            text = self.url.get_secret_value().strip()
        else:
            assert self.url_file is not None
            text = read_secret(self.url_file, f"a broker's URL ({name_source('url_file', self.url_file)})")
        if not text.startswith(tuple(f"{scheme}://" for scheme in self.schemes)):
            raise UsageError(
                f"the URL of this kind of broker must begin with {' or '.join(f'{each}://' for each in self.schemes)}"
            )
        if not all(_is_usable(each) for each in (text.split(",") if self.multiple else [text])):
            raise UsageError(_UNUSABLE_URL)
        register_url_secrets(text)
        return text


class RabbitMQ(_WithUrl):
    """A queue of RabbitMQ."""

    schemes = ("amqp", "amqps")

    kind: Literal["rabbitmq"]
    queue: Text


class SQS(_CommonSettings):
    """A queue of Amazon SQS."""

    kind: Literal["sqs"]
    queue_url: QueueUrl
    dead_letter: QueueUrl | None = None


class NATS(_WithUrl):
    """A durable pull consumer of a JetStream stream."""

    schemes = ("nats", "tls", "ws", "wss")
    multiple = True

    kind: Literal["nats"]
    stream: Text
    consumer: Text


class Redis(_WithUrl):
    """A Redis stream."""

    schemes = ("redis", "rediss", "unix")

    kind: Literal["redis"]
    stream: Text
    group: Text = "harvester"


KINDS: Mapping[str, type[_CommonSettings]] = {"rabbitmq": RabbitMQ, "sqs": SQS, "nats": NATS, "redis": Redis}
TriggerSettings = Annotated[RabbitMQ | SQS | NATS | Redis, Field(discriminator="kind")]


_UNUSABLE_URL = (
    "the URL of the broker is invalid: check host and port, and write each of / ? # @ : , in user and password as "
    "%2F %3F %23 %40 %3A %2C"
)


def _is_usable(url: str) -> bool:
    """Return whether a URL is safe to pass to a library.

    Errors of libraries quote the part of a password that they parse as a port. The part after the host must not contain
    ``@``: it would be the rest of a password.
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
