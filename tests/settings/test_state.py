"""The ledger's location: where the setting comes from, and that its password is never shown."""

from pathlib import Path

import pytest

from harvester.errors import UsageError
from harvester.observability.redaction import MASK, scrub
from harvester.settings import SettingsSource, changes, load
from tests.support.secret_canary import DATABASE_PASSWORD
from tests.support.settings import BRAZE, load_error, load_settings

URL = f"postgresql://someone:{DATABASE_PASSWORD}@db.example/harvester?application_name=a@b"
NAME = "postgresql://someone@db.example/harvester"


@pytest.fixture
def config(monkeypatch, tmp_path):
    """Return a configuration file whose ``state_file`` contains the URL of a database."""
    monkeypatch.chdir(tmp_path)
    Path("ledger.key").write_text(f"{URL}\n")
    Path("h.toml").write_text(
        f'state_file = "ledger.key"\n[workspaces.eu]\nendpoint = "{BRAZE}"\napi_key = "12345678"\n'
    )
    return Path("h.toml")


def test_the_ledger_is_a_file_or_a_database(monkeypatch):
    """A path, or a URL, which is read without its password in every text."""
    assert load_settings(endpoint=BRAZE).load_state() is None
    monkeypatch.setenv("HARVESTER_STATE", "led.db")
    assert load_settings(endpoint=BRAZE).load_state() == Path("led.db")
    monkeypatch.setenv("HARVESTER_STATE", URL)
    settings = load_settings(endpoint=BRAZE)
    assert (settings.load_state().url, str(settings.load_state())) == (URL, NAME)
    assert DATABASE_PASSWORD not in repr(settings)
    text = "run harvester doctor: someone@db.example/harvester, application a@b, is refused: "
    assert scrub(text + DATABASE_PASSWORD) == text + MASK


@pytest.mark.parametrize("query", ["password", "sslpassword"])
def test_only_the_password_of_a_database_is_masked(monkeypatch, query):
    """The documented URL has a user without a password, whose name must stay readable in every text."""
    for url in (
        "postgresql://harvester@db/harvester",
        f"postgresql://harvester@db/d?{query}=canary%2Dof%2Dthe%2Dquery",
    ):
        monkeypatch.setenv("HARVESTER_STATE", url)
        load_settings(endpoint=BRAZE)
    assert scrub("run harvester doctor; canary-of-the-query") == f"run harvester doctor; {MASK}"


def test_a_nearer_source_replaces_the_file_of_the_url(monkeypatch, config):
    """An option or a variable replaces the other setting of the configuration file."""
    assert str(load_settings(config).load_state()) == NAME
    assert load(config, {"state": Path("led.db")}, {}).load_state() == Path("led.db")
    monkeypatch.setenv("HARVESTER_STATE", "led.db")
    assert load_settings(config).load_state() == Path("led.db")
    assert str(load(config, {"state_file": Path("ledger.key")}, {}).load_state()) == NAME
    monkeypatch.setenv("HARVESTER_STATE_FILE", "ledger.key")
    assert "set either state or state_file" in load_error(config)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("/data/ledger.db", "must contain the URL of a database; name a ledger's file in state"),
        (f"postgresql://u:{DATABASE_PASSWORD}/@h/d", "this is not the URL of a PostgreSQL database"),
        (f"host=h password={DATABASE_PASSWORD}", "connection strings are not supported"),
        ("", "is empty"),
    ],
)
def test_an_unusable_file_is_refused_without_showing_its_content(config, text, problem):
    """The error names the file."""
    Path("ledger.key").write_text(text)
    with pytest.raises(UsageError, match=r"state_file, ledger\.key") as refused:
        load_settings(config).load_state()
    assert problem in str(refused.value)
    assert DATABASE_PASSWORD[:8] not in str(refused.value)


@pytest.mark.parametrize("value", ['"postgresql://u@h/d d"', '"mysql://h/d"', "5", '["led.db"]'])
def test_a_setting_that_names_no_ledger_is_refused(tmp_path, value):
    """The error names the setting."""
    (tmp_path / "h.toml").write_text(f'state = {value}\n[workspaces.eu]\nendpoint = "{BRAZE}"\n')
    assert "\n  state: " in load_error(tmp_path / "h.toml")


def test_a_new_ledger_needs_a_restart(config):
    """A reload says so, and keeps the old location, also if only the content of the file has changed."""
    source = SettingsSource(config, {}, {})
    old = source.load()
    old.load_keys()
    old.load_state()
    digest = source.digest(old)
    Path("ledger.key").write_text(f"{URL}2")
    assert source.digest(old) != digest
    new = source.load()
    new.load_keys()
    found = changes(old, new)
    assert found.ignored == ("state_file",)
    kept = new.keep(old, fields=found.ignored, workspaces=())
    assert kept.load_state() == old.load_state()
    assert changes(old, kept).ignored == ()
