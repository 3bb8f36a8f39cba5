"""Settings: their order of precedence, invalid values, and errors without secrets."""

import os
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from harvester.cli import main
from harvester.errors import UsageError
from harvester.settings import BRAZE_HOSTS, Settings, Workspace, load
from harvester.settings.triggers import NATS, SQS, RabbitMQ, Redis
from tests.support.secret_canary import KEY

EXAMPLE = Path(__file__).parent.parent.parent / "config" / "harvester.toml"
BRAZE = "https://rest.fra-01.braze.eu"
TWO = f"""
concurrency = 3
[workspaces.eu]
endpoint = "{BRAZE}"
api_key_file = "eu.key"
reserve = 0.3
[workspaces.US-2]
endpoint = "https://rest.iad-02.braze.com"
api_key = "{KEY}-us"
"""


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    """Hide the variables of the developer's shell."""
    for name in os.environ:
        if name.upper().startswith(("HARVESTER_", "BRAZE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def set_env(monkeypatch):
    """Set variables, by prefix and the rest of their names."""

    def set_all(prefix: str = "HARVESTER_", /, **values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(prefix + name, value)

    return set_all


@pytest.fixture
def two_workspaces(tmp_path):
    """Return the path of a file with two workspaces."""
    path = tmp_path / "two.toml"
    path.write_text(TWO)
    return path


def load_settings(config: Path | None = None, /, **workspace: Any) -> Settings:
    """Load settings with options of a workspace."""
    return load(config, {}, workspace)


def load_error(config: Path | None = None, /, **workspace: Any) -> str:
    """Return the error of loading invalid settings."""
    with pytest.raises(UsageError) as refused:
        load_settings(config, **workspace)
    return str(refused.value)


def load_workspace(**workspace: Any) -> Workspace:
    """Load the only workspace, without a file."""
    return load_settings(None, **{"endpoint": BRAZE} | workspace).workspaces["default"]


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Return the default of each field that has one."""
    return {name: field.default for name, field in model.model_fields.items() if not field.is_required()}


# The example file


def test_the_example_file_contains_the_defaults():
    """config/harvester.toml changes nothing but the example's endpoint and key file."""
    settings = load_settings(EXAMPLE)
    assert settings.model_dump(exclude={"workspaces"}) == defaults(Settings)
    assert list(settings.workspaces) == ["eu"]
    example = settings.workspaces["eu"]
    assert example.model_dump(exclude={"endpoint", "api_key_file"}) == {
        name: value for name, value in defaults(Workspace).items() if name != "api_key_file"
    }


@pytest.mark.parametrize(
    ("model", "prefix"),
    [(Settings, "HARVESTER_"), (Workspace, "HARVESTER_WORKSPACES__EU__")]
    + [(kind, "HARVESTER_TRIGGERS__SENDS__") for kind in (RabbitMQ, SQS, NATS, Redis)],
)
def test_the_example_file_contains_every_setting_and_names_its_variable(model, prefix):
    """A new setting is added to the example too, with a comment and the name of its variable."""
    text = EXAMPLE.read_text()
    for name in model.model_fields.keys() - {"workspaces", "triggers"}:
        assert re.search(rf"^(# )?{name} = ", text, re.MULTILINE), name
        assert re.search(rf"^# .*\b{prefix}{name.upper()}\b", text, re.MULTILINE), name


# Precedence


def test_variables_override_the_file_and_options_override_both(set_env, two_workspaces):
    """A setting that none of them contains has its default."""
    set_env(KEEP_DAYS="40")
    assert (load_settings(two_workspaces).concurrency, load_settings(two_workspaces).keep_days) == (3, 40)
    set_env(CONCURRENCY="4")
    assert load_settings(two_workspaces).concurrency == 4
    settings = load(two_workspaces, {"concurrency": 5, "keep_days": None}, {})
    assert (settings.concurrency, settings.keep_days, settings.patience_seconds) == (5, 40, 240)


def test_a_variable_changes_one_setting_of_one_workspace(set_env, two_workspaces):
    """The other settings come from the file; case does not matter, and - is written _."""
    set_env("HARVESTER_WORKSPACES__", EU__RESERVE="0.5", US_2__MAX_RATE="9", us_2__allow_unknown_host="true")
    settings = load_settings(two_workspaces)
    eu, us = settings.workspaces["eu"], settings.workspaces["US-2"]
    assert list(settings.workspaces) == ["eu", "US-2"]
    assert (eu.endpoint, eu.reserve, eu.max_rate) == (BRAZE, 0.5, 1000)
    assert (us.reserve, us.max_rate, us.allow_unknown_host) == (0.2, 9, True)


def test_keys_of_several_workspaces_come_from_file_and_environment(set_env, two_workspaces, tmp_path):
    """A key from a source with higher precedence replaces the other, whether it is a file or a value."""
    (tmp_path / "eu.key").write_text(f"{KEY}-eu\n")
    (tmp_path / "us.key").write_text(f"{KEY}-file\n")
    assert load_settings(two_workspaces).load_keys() == {"eu": f"{KEY}-eu", "US-2": f"{KEY}-us"}
    set_env("HARVESTER_WORKSPACES__", EU__API_KEY="12345678", US_2__API_KEY_FILE="us.key")
    assert load_settings(two_workspaces).load_keys() == {"eu": "12345678", "US-2": f"{KEY}-file"}


def test_workspaces_may_come_from_the_environment_alone(set_env):
    """A container needs no file: variables, or one variable in JSON, configure a workspace."""
    set_env("HARVESTER_WORKSPACES__", EU__ENDPOINT=BRAZE, EU__API_KEY=KEY)
    assert load_settings().load_keys() == {"eu": KEY}
    set_env(WORKSPACES=f'{{"Asia": {{"endpoint": "{BRAZE}", "api_key": "{KEY}-asia"}}}}')
    assert load_settings().load_keys() == {"eu": KEY, "Asia": f"{KEY}-asia"}


def test_options_and_short_variables_apply_to_the_only_workspace(set_env, tmp_path):
    """Options, BRAZE_ENDPOINT and BRAZE_API_KEY apply to the file's workspace if it is the only one."""
    path = tmp_path / "one.toml"
    path.write_text(f'[workspaces.eu]\nendpoint = "{BRAZE}"\napi_key_file = "missing"\n')
    set_env("BRAZE_", API_KEY=KEY)
    settings = load_settings(path, reserve=0.7)
    assert settings.load_keys() == {"eu": KEY}
    assert (settings.workspaces["eu"].endpoint, settings.workspaces["eu"].reserve) == (BRAZE, 0.7)
    set_env("HARVESTER_WORKSPACES__", EU__API_KEY=f"{KEY}-named")
    assert load_settings(path).load_keys() == {"eu": f"{KEY}-named"}
    (tmp_path / "key").write_text(f"{KEY}-option")
    assert load_settings(path, api_key_file=Path("key")).load_keys() == {"eu": f"{KEY}-option"}


def test_options_of_a_workspace_are_refused_with_two_workspaces(set_env, two_workspaces):
    """The short variables apply to neither."""
    assert "--max-rate" in load_error(two_workspaces, max_rate=3.0)
    set_env("BRAZE_", API_KEY="of-whom-0123", ENDPOINT="https://rest.jp-01.braze.com")
    settings = load_settings(two_workspaces)
    assert settings.workspaces["eu"].endpoint == BRAZE
    assert settings.workspaces["US-2"].load_key() == f"{KEY}-us"


def test_empty_and_unknown_variables_are_ignored(set_env, two_workspaces):
    """Compose files and orchestrators set them."""
    set_env(
        CONCURRENCY="", LENGTH="", WORKSPACES__EU__RESERVE="", PORT_8080_TCP_ADDR="10.0.0.1", SERVICE_HOST="10.0.0.1"
    )
    set_env("BRAZE_", API_KEY="", ENDPOINT="")
    assert (load_settings(two_workspaces).concurrency, load_settings(two_workspaces).workspaces["eu"].reserve) == (
        3,
        0.3,
    )
    assert "BRAZE_ENDPOINT" in load_error()


def test_workspaces_may_have_the_same_endpoint(tmp_path):
    """Two teams may have a workspace each on one instance."""
    path = tmp_path / "same.toml"
    path.write_text(f'[workspaces.a]\nendpoint = "{BRAZE}"\n[workspaces.b]\nendpoint = "{BRAZE}"\n')
    assert {each.endpoint for each in load_settings(path).workspaces.values()} == {BRAZE}


# Errors


async def test_all_problems_are_reported_at_once_by_name_without_values(harvester, tmp_path):
    """The key stands in place of every other setting; one error names all of them and shows no value."""
    kept = ("workspaces", "triggers", "out", "state", "web_host")
    names = [name for name in Settings.model_fields if name not in kept]
    per_workspace = [name for name in Workspace.model_fields if not name.startswith("api_key")]
    lines = [f'{name} = "{KEY}"' for name in [*names, "unheard_of"]]
    lines += ["[workspaces.eu]", *(f'{name} = "{KEY}"' for name in per_workspace)]
    lines += ["[workspaces.us]", "api_key = 471147114711", f'resreve = "{KEY}"']
    (tmp_path / "broken.toml").write_text("\n".join(lines))
    harvester.env["HARVESTER_WORKSPACES__APAC__RESERVE"] = KEY
    code, out, err = await harvester.run("run", "pairs.csv", "--config", "broken.toml")
    assert (code, out) == (2, "")
    reported = {line.split(":")[0].strip() for line in err.splitlines()[1:]}
    assert reported == {*names, "unheard_of"} | {f"workspaces.eu.{name}" for name in per_workspace} | {
        "workspaces.us.api_key", "workspaces.us.resreve", "workspaces.us.endpoint",
        "workspaces.apac.reserve", "workspaces.apac.endpoint",
    }  # fmt: skip
    assert KEY not in err
    assert "4711" not in err


def test_an_unknown_name_is_reported_with_file_table_and_a_suggestion(tmp_path):
    """A setting, a setting in a table, and a table; without a similar name, all names are listed."""
    path = tmp_path / "misspelt.toml"
    path.write_text(f'concurency = 3\nzzz = 1\n[workspace.us]\n[workspaces.eu]\nendpoint = "{BRAZE}"\nresreve = 0.3\n')
    message = load_error(path)
    assert "misspelt.toml" in message
    for name, suggestion in (
        ("concurency", "concurrency"),
        ("workspace", "workspaces"),
        ("workspaces.eu.resreve", "reserve"),
    ):
        assert f"  {name}: unknown setting; did you mean {suggestion}?" in message
    assert "  zzz: unknown setting; known are workspaces, triggers, out," in message


def test_a_removed_setting_is_refused_with_what_to_do_instead(set_env, tmp_path):
    """In the file, in the table of a workspace, and in a variable."""
    path = tmp_path / "old.toml"
    path.write_text(f'max_deferrals = 4\n[workspaces.eu]\nendpoint = "{BRAZE}"\nretention_days = 14\n')
    set_env(length="7", WORKSPACES__EU__URGENT_RESERVE="0.1")
    reserve = "no request uses the reserve. Set reserve, or delete it"
    assert load_error(path).splitlines()[1:] == [
        "  workspaces.eu.retention_days: this setting was removed: Braze keeps analytics for 14 days. Delete it",
        f"  workspaces.eu.urgent_reserve: this setting was removed: {reserve}",
        "  max_deferrals: this setting was removed: set patience_seconds, or delete it",
        "  length: this setting was removed: each request covers 15 days. Delete it",
    ]


@pytest.mark.parametrize(
    "text",
    [
        f"api_key = {KEY}",
        f'[workspaces]\napi_key = "{KEY}"',
        f'workspaces = "{KEY}"',
        f'workspaces = ["{KEY}"]',
        f'[workspaces.eu]\nendpoint = "{BRAZE}"\napi_key = "{KEY}',
        f'[workspaces.eu]\nendpoint = "{BRAZE}"\napi_key = "{KEY}"\napi_key_file = "{KEY}"',
        f'[workspaces.eu]\nendpoint = "{BRAZE}"\napi_key_file = "{KEY}"',
        f'[workspaces.eu]\nendpoint = "{BRAZE}"\napi_key = "{KEY} {KEY}"',
        f'[workspaces.eu]\nendpoint = "https://{KEY}.example"',
        f'[workspaces.eu]\nendpoint = "https://{KEY}@rest.fra-01.braze.eu"',
        f'[workspaces.eu]\nendpoint = "https://rest.fra-01.braze.eu:{KEY}"',
    ],
)
def test_no_error_shows_the_key(tmp_path, text):
    """However a file is broken, the error contains no value of it."""
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        load_settings(path).load_keys()
    assert KEY not in "".join(traceback.format_exception(refused.value))


def test_a_broken_variable_is_refused_without_its_value(set_env):
    """Invalid JSON, and a table in place of a number."""
    set_env(WORKSPACES=f"{{{KEY}")
    assert KEY not in load_error()
    set_env(WORKSPACES=f'{{"eu": {{"endpoint": "{BRAZE}"}}}}', WORKSPACES__EU__RESERVE__DEEPER=KEY)
    message = load_error()
    assert "workspaces.eu.reserve" in message
    assert KEY not in message


@pytest.mark.parametrize("name", ["reserve", "max_rate"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.1"])
def test_numbers_that_are_not_finite_or_negative_are_refused(set_env, name, value):
    """No pace can be computed from them."""
    set_env("HARVESTER_WORKSPACES__", EU__ENDPOINT=BRAZE, **{f"EU__{name.upper()}": value})
    assert f"workspaces.eu.{name}" in load_error()


def test_ages_whose_readings_would_have_the_same_name_are_refused():
    """The second of two readings with one name would follow itself for ever."""
    assert "differ in their first six digits" in load_error(endpoint=BRAZE, ages_days=[1.0000001, 1.0000002, 13])


def test_a_last_age_after_the_planning_deadline_is_refused():
    """Braze may have deleted the analytics by then."""
    assert load_workspace(ages_days=[1, 13.75]).ages_days == (1, 13.75)
    assert "must be at most 13.75" in load_error(endpoint=BRAZE, ages_days=[1, 13.8])


def test_names_of_workspaces_are_plain_and_distinct(tmp_path):
    """A name appears in logs, rows and names of variables."""
    path = tmp_path / "names.toml"
    for names in (["a b"], [""], ["a" * 65], ["eu\\n"], ["eu-1", "EU.1"]):
        path.write_text("".join(f'[workspaces."{name}"]\nendpoint = "{BRAZE}"\n' for name in names))
        assert "workspaces" in load_error(path), names


def test_an_unreadable_file_is_named(tmp_path):
    """Missing, a folder, or not text."""
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    for name in ("missing.toml", ".", "bytes.toml"):
        assert f"cannot read the configuration {name}" in load_error(Path(name))


# The key


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", f"{KEY}\r\n", f"  {KEY}\t\n\n"])
def test_whitespace_around_the_key_in_its_file_is_ignored(tmp_path, text):
    """Editors and secret stores add it."""
    path = tmp_path / "key"
    path.write_bytes(text.encode())
    assert load_workspace(api_key_file=path).load_key() == KEY


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no API key"),
        (b" \n", "no API key"),
        (f"{KEY}\r{KEY}".encode(), "malformed"),
        (f"{KEY} {KEY}".encode(), "malformed"),
        (f"{KEY}\r\nInjected: header".encode(), "malformed"),
        (f"{KEY}\x00".encode(), "malformed"),
        (f"\N{ZERO WIDTH NO-BREAK SPACE}{KEY}".encode(), "malformed"),
        (b"short", "malformed"),
        (KEY.encode() * 20, "malformed"),
        (f"{KEY}\N{LATIN SMALL LETTER E WITH ACUTE}".encode("latin-1"), "not contain text"),
    ],
)
def test_a_malformed_key_is_refused_without_showing_it(tmp_path, content, message):
    """A value that would break a header, or the content of a wrong file, is never sent."""
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        load_workspace(api_key_file=path).load_key()
    assert KEY not in str(error.value)


def test_a_key_from_a_pipe_is_read_once(tmp_path):
    """``--api-key-file <(...)`` of a shell works however often the key is loaded, and is shown nowhere."""
    reads, writes = os.pipe()
    os.write(writes, KEY.encode())
    os.close(writes)
    settings = load_settings(None, endpoint=BRAZE, api_key_file=Path(f"/dev/fd/{reads}"))
    assert settings.load_keys() == settings.load_keys() == {"default": KEY}
    assert KEY not in repr(settings) + str(settings.model_dump())
    os.close(reads)


def test_a_missing_or_unreadable_key_file_is_reported(tmp_path):
    """The error contains the reason from the system."""
    (tmp_path / "locked.key").write_text(KEY)
    (tmp_path / "locked.key").chmod(0)
    reasons = {"missing": "No such file", ".": "Is a directory"}
    if os.geteuid() != 0:  # root reads all
        reasons["locked.key"] = "Permission denied"
    for name, reason in reasons.items():
        with pytest.raises(UsageError, match=f"api_key_file.*{reason}"):
            load_workspace(api_key_file=Path(name)).load_key()


def test_all_missing_keys_are_reported_at_once(set_env, tmp_path):
    """One start is enough to find every workspace without a key."""
    path = tmp_path / "keyless.toml"
    path.write_text("".join(f'[workspaces.{name}]\nendpoint = "{BRAZE}"\n' for name in ("a", "b", "c")))
    set_env("HARVESTER_WORKSPACES__", B__API_KEY=KEY)
    with pytest.raises(UsageError) as refused:
        load_settings(path).load_keys()
    assert re.findall(r"workspaces\.(\w+):", str(refused.value)) == ["a", "c"]


# The endpoint


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [(f"https://{host}", f"https://{host}") for host in sorted(BRAZE_HOSTS)]
    + [
        ("https://REST.fra-01.Braze.EU/", BRAZE),
        (f"{BRAZE}:443", f"{BRAZE}:443"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://localhost", "http://localhost"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_known_hosts_and_loopback_are_accepted(endpoint, expected):
    """Requests go exactly to what was checked."""
    assert load_workspace(endpoint=endpoint).endpoint == expected


UNKNOWN = [
    "https://evil.example",
    "https://rest.fra-01.braze.eu.",
    "https://rest.fra-01.braze.eu.evil.example",
    "https://203.0.113.7",
    "https://[2001:db8::7]",
    "https://127.0.0.1.evil.example",
]


@pytest.mark.parametrize("endpoint", UNKNOWN)
def test_an_unknown_host_needs_the_flag(endpoint):
    """The key is sent to the host, so a typing error must not be accepted."""
    assert "--allow-unknown-host" in load_error(endpoint=endpoint)
    assert load_workspace(endpoint=endpoint, allow_unknown_host=True).endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://rest.fra-01.braze.eu",
        "http://evil.example",
        "http://10.0.0.1",
        "http://127.0.0.2",
        "http://localhost.",
        "http://127.0.0.1@evil.example",
        "https://user@rest.fra-01.braze.eu",
        "https://user:pass@rest.fra-01.braze.eu",
        "https://rest.fra-01.braze.eu/sends",
        "https://rest.fra-01.braze.eu//",
        "https://rest.fra-01.braze.eu?x=1",
        "https://rest.fra-01.braze.eu#x",
        "https://rest.fra-01.braze.eu\\@evil.example",
        "https://rest.fra-01.braze.eu:port",
        "https://rest.fra-01.braze.eu\n",
        "https://rest.fra\t-01.braze.eu",
        "https://rest.fra-01.braze.eu ",
        "https://re\N{LATIN SMALL LETTER LONG S}t.fra-01.braze.eu",
        "https://[::1",
        "https://",
        "rest.fra-01.braze.eu",
        "ftp://127.0.0.1",
        "",
    ],
)
def test_an_endpoint_that_is_not_an_origin_or_not_encrypted_is_refused_even_with_the_flag(endpoint):
    """The flag allows another host, and nothing else."""
    assert "workspaces.default.endpoint" in load_error(endpoint=endpoint, allow_unknown_host=True)


# Triggers

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
    """A URL is a function, so that the next connection uses a password that changed in its file."""
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
    """A URL from the environment replaces the file's, and a whole trigger may come from there."""
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
    """Also if it comes from a file; the error does not show it."""
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
    """A user may set url_file to a URL without a scheme, which contains a password."""
    with pytest.raises(UsageError, match="url_file") as refused:
        Redis(kind="redis", stream="s", url_file=Path("user:hidden-words@broker")).options()
    assert "hidden-words" not in str(refused.value)


def test_a_key_from_a_pipe_stays_the_same_at_every_reload():
    """A service reads its files every few seconds: a pipe must neither block it nor seem empty."""
    reads, writes = os.pipe()
    os.write(writes, KEY.encode())
    os.close(writes)
    workspace = load_workspace(api_key_file=Path(f"/dev/fd/{reads}"))
    assert workspace.load_key() == workspace.load_key() == KEY
    os.close(reads)


def test_endless_files_are_refused(tmp_path):
    """A device, or the wrong file, must not fill the memory."""
    with pytest.raises(UsageError, match="more than 65536 bytes"):
        load_workspace(api_key_file=Path("/dev/zero")).load_key()
    with pytest.raises(UsageError, match="more than 1048576 bytes"):
        load(Path("/dev/zero"), {}, {})


@pytest.mark.parametrize("text", ["x = " + "[" * 5000 + "]" * 5000, "patience_seconds = " + "9" * 30])
def test_a_configuration_that_is_nested_too_deeply_or_has_a_huge_number_is_refused(tmp_path, text):
    """The error is one sentence."""
    path = tmp_path / "deep.toml"
    path.write_text(f'{text}\n[workspaces.eu]\nendpoint = "{BRAZE}"\n')
    with pytest.raises(UsageError, match=r"nested too deeply|patience_seconds"):
        load(path, {}, {})


def test_a_variable_that_is_nested_too_deeply_is_refused(set_env):
    """The error is one sentence."""
    set_env(WORKSPACES="[" * 100_000)
    with pytest.raises(UsageError, match="HARVESTER_WORKSPACES"):
        load(None, {}, {})
