"""Places: every kind is recognised, and no error repeats a possible secret."""

import os

import pytest
from click.testing import CliRunner

from harvester.cli import main
from harvester.errors import UsageError
from harvester.place import PlaceKind, classify_place, find_place_problem, parse_ledger_location, parse_local_path
from harvester.settings import load
from harvester.storage.object_store import ObjectStore
from tests.support.secret_canary import KEY

BRAZE = "https://rest.fra-01.braze.eu"
SECRET = "SqUeAmIsH-0ssifrage"
ELSEWHERE = [
    f"postgresql://harvester:{SECRET}@db.example/ledger", f"postgres://{SECRET}@db", "postgresql:/db",
    f"postgresql+psycopg://u:{SECRET}@h/d", f"jdbc:postgresql://h/d?password={SECRET}", "mysql://h/d",
    f"host=db password={SECRET} dbname=ledger", "sqlite:///led.db", "file:led.db", "file:///led.db?mode=ro",
    f"https://lake.example/p?sig={SECRET}", f"ftp://u:{SECRET}@h/p", "hdfs://h/p", "S3://lake/p", " s3://lake/p",
    "s3:/lake/p", "s3:lake/p", "gcs://lake/p", "azure://c/p", ":memory:", "~/led.db", "$HOME/led.db", "${HOME}/led.db",
    f"u:{SECRET}@h:/led.db", "h:/export/led.db", "", " ", "led\0.db", "led\n.db", "led\udcff.db",
]  # fmt: skip
IN_A_BUCKET = [
    f"s3://KEY:{SECRET}@lake/p", f"s3://{SECRET}@lake/p", f"s3://KEY:{SECRET}", f"s3://KEY:{SECRET}/with@lake/p",
    f"s3://KEY%3A{SECRET}%40lake/p", f"az://c/p?sig={SECRET}", f"az://c/p%3Fsig={SECRET}", f"gs://lake/p#{SECRET}",
    f"abfs://c:{SECRET}@account.dfs.core.windows.net/p", f"abfss://c@account/p?{SECRET}", "s3://", "s3:///p",
    "s3://lake/../other", "s3://lake/a//b", "s3://lake\\p", "s3://lake:9000/p",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    """Hide the variables of the developer's shell."""
    for name in os.environ:
        if name.upper().startswith(("HARVESTER_", "BRAZE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_each_kind_of_place_is_recognised():
    """Folders and files with ordinary names are accepted, and buckets of all three clouds, and - where it is useful."""
    for name in (
        "led.db",
        "./s3:/led.db",
        "/a b/led?x=1#2%20.db",
        "date=2026-11-26/a:b.csv",
        "2026-11-26T10:00/x",
        "é",
    ):
        assert classify_place(name, "it", buckets=True) is PlaceKind.FILE, name
    for name in ("s3://lake", "s3://lake/p/", "gs://a_b.c/p q", "az://$root/p", "abfss://c@a.dfs.core.windows.net/p"):
        assert classify_place(name, "it", buckets=True) is PlaceKind.BUCKET, name
        with pytest.raises(UsageError, match="--state: a bucket cannot be used here"):
            parse_local_path(name, "--state")
    assert classify_place("-", "it", pipe=True) is PlaceKind.PIPE


@pytest.mark.parametrize("name", [*ELSEWHERE, "-"])
def test_an_unsupported_place_is_refused_without_its_credentials(name):
    """An unsupported kind of place creates no folder or file of that name; the error names what to use."""
    for problem in (
        find_place_problem(name),
        find_place_problem(name, buckets=True),
        find_place_problem(name, files=False, buckets=True),
    ):
        assert problem is not None
        assert SECRET not in problem
        assert "name" in problem


def test_only_a_ledger_can_be_in_a_database():
    """The error names what can be used instead, and for a ledger the form of its URL."""
    with pytest.raises(UsageError, match=r"--out: a database cannot be used here; name a path"):
        parse_local_path("postgresql://db/ledger", "--out")
    with pytest.raises(UsageError, match=r"--state: mysql: .*; name a path .*, or postgresql://user@host/database"):
        parse_ledger_location("mysql://db/ledger", "--state")


@pytest.mark.parametrize("url", IN_A_BUCKET)
def test_a_bucket_url_with_credentials_is_refused_and_not_repeated(url):
    """Credentials are refused in the user, query or fragment, in any encoding, and ambiguous URLs are refused too."""
    with pytest.raises(UsageError) as refused:
        ObjectStore(url)
    assert SECRET not in str(refused.value)


def test_every_setting_for_a_place_is_validated(monkeypatch):
    """A place in the file, in a variable or in an option is checked, and all problems are reported together."""

    def problem(options: dict, workspace: dict) -> str:
        with pytest.raises(UsageError) as refused:
            load(None, options, {"endpoint": BRAZE} | workspace)
        assert SECRET not in str(refused.value)
        return str(refused.value)

    database = f"jdbc:postgresql://u:{SECRET}@db/l"
    queue = {"kind": "redis", "stream": "s"}
    assert "  state: this is not the URL of a PostgreSQL database; write" in problem({"state": database}, {})
    assert "  out: a database cannot be used here" in problem({"out": f"postgresql://u:{SECRET}@db/l"}, {})
    assert "  out: the name of the bucket" in problem({"out": f"s3://K:{SECRET}@lake"}, {})
    assert "api_key_file: https: is not a supported kind" in problem({}, {"api_key_file": f"https://vault/{SECRET}"})
    for trigger, message in (
        (queue | {"url_file": f"https://vault/{SECRET}"}, "url_file: https: is not a supported kind"),
        (queue | {"url": "redis://h", "prefixes": [f"s3://K:{SECRET}@lake/p"]}, "prefixes.0: the name of the bucket"),
        (queue | {"url": "redis://h", "prefixes": ["./lists"]}, "prefixes.0: must be a place in a bucket"),
        ({"kind": "sqs", "queue_url": f"https://K:{SECRET}@sqs.example/1/q"}, "queue_url"),
        ({"kind": "sqs", "queue_url": f"https://sqs.example/1/q?X-Amz-Signature={SECRET}"}, "queue_url"),
        ({"kind": "sqs", "queue_url": "https://h/1/q", "dead_letter": f"https://K:{SECRET}@h/1/d"}, "dead_letter"),
    ):
        assert message in problem({"triggers": {"sends": trigger}}, {})
    monkeypatch.setenv("HARVESTER_STATE", database)
    assert "write postgresql://user@host/database" in problem({}, {})


COMMANDS = (
    ("run", "p.csv", "--state", "{}"), ("run", "p.csv", "-o", "{}"), ("run", "{}"), ("run", "p.csv", "--config", "{}"),
    ("run", "p.csv", "--api-key-file", "{}"), ("plan", "{}"), ("plan", "p.csv", "--state", "{}"),
    ("serve", "--state", "{}"), ("serve", "-o", "{}"), ("doctor", "-o", "{}"), ("doctor", "--state", "{}"),
    ("enqueue", "{}"), ("enqueue", "p.csv", "-o", "{}"), ("enqueue", "p.csv", "--state", "{}"), ("audit", "{}"),
    ("status", "-o", "{}"), ("status", "--state", "{}"), ("status", "--state-file", "{}"), ("remove", "{}"),
    ("ledger", "copy", "{}", "led.db"), ("ledger", "copy", "led.db", "{}"),
    ("ledger", "backup", "{}"), ("ledger", "rebuild", "{}"),
    ("parts", "--state", "{}"), ("latest", "{}"), ("latest", "harvest", "-o", "{}"), ("demo", "-o", "{}"),
    ("simulate", "--write-pairs", "{}"), ("simulate", "--log", "{}"), ("requeue", "--outcome", "expired", "-o", "{}"),
)  # fmt: skip


def test_every_option_and_argument_for_a_place_is_validated_first(monkeypatch, tmp_path):
    """An unsupported place ends the command with exit code 2 and one sentence. No folder or password is left."""
    monkeypatch.setenv("BRAZE_ENDPOINT", BRAZE)
    monkeypatch.setenv("BRAZE_API_KEY", KEY)
    (tmp_path / "p.csv").write_text("campaign_id,send_id\nc,s\n")
    database, bucket = f"jdbc:postgresql://u:{SECRET}@db/ledger.csv", f"s3://K:{SECRET}@lake/p"
    cases = [(each, database, "database") for each in COMMANDS]
    cases += [(each, bucket, "credentials") for each in COMMANDS if each[-2] == "-o" or not each[-2].startswith("-")]
    for command, place, reason in cases:
        done = CliRunner().invoke(main, [each.format(place) for each in command])
        assert (done.exit_code, SECRET in done.output) == (2, False), (command, done.output)
        assert reason in done.output or "a bucket cannot be used here" in done.output, (command, done.output)
        assert [path.name for path in tmp_path.iterdir()] == ["p.csv"], command
