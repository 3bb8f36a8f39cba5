"""Triggers: their settings, and the arguments that their brokers get."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from harvester.cli import main
from harvester.errors import UsageError
from harvester.settings.triggers import Redis
from tests.support.secret_canary import KEY
from tests.support.settings import BRAZE, load_error, load_settings

TRIGGERS = f"""
[workspaces.eu]
endpoint = "{BRAZE}"
[triggers.a]
kind = "rabbitmq"
url = "amqp://harvester:{KEY}@mq/vhost"
queue = "sends"
prefixes = ["s3://lists/a", "gs://b"]
[triggers.b-2]
kind = "sqs"
queue_url = "https://sqs.eu-central-1.amazonaws.com/1/sends"
[triggers.c]
kind = "nats"
url_file = "url"
stream = "s"
consumer = "h"
[triggers.d]
kind = "redis"
url = "rediss://:{KEY}@cache"
stream = "s"
"""


@pytest.fixture
def triggers(tmp_path):
    """Return the path of a file with one trigger of each kind."""
    (tmp_path / "url").write_text("nats://token@n\n")
    path = tmp_path / "triggers.toml"
    path.write_text(TRIGGERS)
    return path


def test_each_kind_of_trigger_returns_the_arguments_of_its_broker(triggers):
    """A broker gets its settings, and its URL as a function: each connection reads the newest password."""
    settings = load_settings(triggers)
    options = {name: trigger.options() for name, trigger in settings.triggers.items()}
    urls = {name: arguments.pop("url")() for name, arguments in options.items() if "url" in arguments}
    assert urls == {"a": f"amqp://harvester:{KEY}@mq/vhost", "c": "nats://token@n", "d": f"rediss://:{KEY}@cache"}
    assert options == {
        "a": {"queue": "sends", "dead_letter": None},
        "b-2": {"queue_url": "https://sqs.eu-central-1.amazonaws.com/1/sends", "dead_letter": None},
        "c": {"stream": "s", "consumer": "h", "dead_letter": None},
        "d": {"stream": "s", "group": "harvester", "dead_letter": None},
    }
    assert KEY not in repr(settings)


def test_variables_apply_to_triggers_too(set_env, triggers):
    """A variable replaces a trigger's setting, and variables alone can define a trigger."""
    set_env(
        "HARVESTER_TRIGGERS__", A__PREFIXES='["s3://x", "s3://y/z"]', B_2__DEAD_LETTER="https://sqs/1/dead", C__URL="nats://n",
        NEW__KIND="redis", NEW__URL="redis://r", NEW__STREAM="t",
    )  # fmt: skip
    found = load_settings(triggers).triggers
    assert found["a"].prefixes == ("s3://x", "s3://y/z")
    assert found["b-2"].dead_letter == "https://sqs/1/dead"
    assert found["c"].options()["url"]() == "nats://n"
    assert found["new"].options()["stream"] == "t"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (f'kind = "{KEY}"', "kind must be one of rabbitmq, sqs, nats, redis"),
        (f'url = "{KEY}"', "kind must be one of"),
        ('kind = "rabbitmq"\nurl = "amqp://x"', "queue: is missing"),
        ('kind = "rabbitmq"\nqueue = "q"', "set either url or url_file"),
        (f'kind = "redis"\nstream = "s"\nurl = "{KEY}"\nurl_file = "{KEY}"', "set either url or url_file"),
        (f'kind = "sqs"\nqueue_url = "{KEY}"', "queue_url"),
        (f'kind = "sqs"\nqueue_url = "https://x/1/q"\nqueue = "{KEY}"', "queue: unknown setting"),
        (f'kind = "sqs"\nqueue_url = "https://x/1/q"\nprefixes = ["{KEY}"]', "must be a place in a bucket"),
        ('kind = "sqs"\nqueue_url = "https://x/1/q"\nprefixes = ["s3:///"]', "it names no bucket"),
    ],
)
def test_an_invalid_trigger_is_reported_without_its_values(tmp_path, table, message):
    """Kinds, settings and prefixes are checked before anything connects."""
    path = tmp_path / "trigger.toml"
    path.write_text(f'[workspaces.eu]\nendpoint = "{BRAZE}"\n[triggers.x]\n{table}\n')
    output = load_error(path)
    assert message in output
    assert KEY not in output


@pytest.mark.parametrize(("text", "message"), [("http://hidden-words", "begin with redis"), (None, "No such file")])
def test_an_invalid_url_of_a_broker_is_reported_at_the_start(tmp_path, text, message):
    """A broker's URL with a wrong scheme, or in a missing file, is refused without showing it."""
    if text is not None:
        (tmp_path / "url").write_text(text)
    trigger = Redis(kind="redis", stream="s", url_file=Path("url"))
    with pytest.raises(UsageError, match=message) as error:
        trigger.options()
    assert "hidden-words" not in str(error.value)


def test_a_missing_url_file_is_reported_with_its_trigger(tmp_path):
    """With several triggers, the error says which file is missing."""
    path = tmp_path / "h.toml"
    table = 'kind = "redis"\nstream = "s"\nurl_file = "/missing/sends-url"'
    path.write_text(f'[workspaces.eu]\nendpoint = "{BRAZE}"\napi_key = "{KEY}"\n[triggers.sends]\n{table}\n')
    result = CliRunner().invoke(main, ["serve", "--config", str(path), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "triggers.sends: cannot read the file of a broker's URL (url_file, /missing/sends-url): No such file" in (
        result.output
    )


def test_a_url_in_place_of_a_file_name_is_not_shown():
    """If a user sets url_file to a URL, the error does not show its password."""
    with pytest.raises(UsageError, match="url_file") as refused:
        Redis(kind="redis", stream="s", url_file=Path("user:hidden-words@broker")).options()
    assert "hidden-words" not in str(refused.value)
