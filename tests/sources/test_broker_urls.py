"""Tests of the URLs of brokers: which are valid, and that no error contains a secret."""

import re
import ssl

import pytest

from harvester.errors import UsageError
from harvester.settings import load
from harvester.settings.triggers import NATS, RabbitMQ, Redis
from harvester.sources.brokers.problems import create_broker_error

SECRETS = (
    "pa/ss-canary",
    "pa#ss-canary",
    "pa?ss-canary",
    "pa@ss-canary",
    "12/ss-canary",
    "pa:ss canary",
    "pa[ss-canary",
)


@pytest.mark.parametrize(
    ("kind", "scheme", "settings"),
    [
        ("rabbitmq", "amqp", 'queue = "q"'),
        ("redis", "redis", 'stream = "s"'),
        ("redis", "unix", 'stream = "s"'),
        ("nats", "nats", 'stream = "s"\nconsumer = "c"'),
    ],
)
def test_an_unescaped_password_is_refused_without_quoting_it(kind, scheme, settings, tmp_path):
    """A client library would read a part of the password as a host or a port, and quote it in its error."""
    for secret in SECRETS:
        path = tmp_path / "harvester.toml"
        path.write_text(
            '[workspaces.eu]\nendpoint = "https://rest.fra-01.braze.eu"\napi_key = "k"\n'
            f'[triggers.t]\nkind = "{kind}"\nurl = "{scheme}://me:{secret}@broker.example/x"\n{settings}\n'
        )
        with pytest.raises(UsageError) as refused:
            load(path, {}, {}).triggers["t"].options()
        text = str(refused.value)
        assert "%2F" in text
        assert not [part for part in re.split(r"\W", secret) if part in re.split(r"\W", text)]


def test_valid_broker_urls_are_accepted():
    """They may contain escaped passwords, ports, options, IPv6 addresses, tokens, several servers, and sockets."""
    for kind, urls in {
        RabbitMQ: ["amqp://me:p%2Fw%40%23@h:5672/v%2Fh?heartbeat=10", "amqps://h", "amqp://me:p@[::1]:5672/"],
        NATS: ["nats://token@h", "nats://me:pw@a:4222,nats://me:pw@b:4222,c:4222", "tls://a,tls://b"],
        Redis: ["redis://:pw@h:6379/0", "rediss://h", "unix:///run/redis@1.sock?db=1", "unix://me:pw@/run/r.sock"],
    }.items():
        for url in urls:
            more = {"queue": "q", "stream": "s", "consumer": "c"}
            options = {name: value for name, value in more.items() if name in kind.model_fields}
            assert kind(kind=kind.__name__.lower(), url=url, **options).load_url() == url


@pytest.mark.parametrize(
    ("error", "url", "message"),
    [
        (ValueError("invalid literal for int(): 'pass-canary'"), "redis://h", "Redis: ValueError; check its URL"),
        (TypeError("unexpected keyword 'pass-canary'"), "redis://h", "Redis: TypeError; check its URL"),
        (OSError("no route to a"), "redis://:a@h", "Redis: OSError"),
        (OSError("no route to aa"), "redis://me:secret%2Fpw@h", "Redis: OSError: no route to aa"),
        (OSError("at secret/pw or secret%2Fpw"), "redis://me:secret%2Fpw@h", "Redis: OSError: at *** or ***"),
        (OSError("at longsecret"), "redis://h?password=longsecret", "Redis: OSError: at ***"),
        (ssl.SSLCertVerificationError(1, "expired"), "rediss://h", "Redis: SSLCertVerificationError: expired"),
    ],
)
def test_a_broker_error_contains_no_secret_and_stays_readable(error, url, message):
    """Masking a short password inside words would reveal it, so the text of the error is then left out."""
    assert str(create_broker_error("Redis", error, url=url)).startswith(message)
    assert "canary" not in str(create_broker_error("Redis", error, url=url))
