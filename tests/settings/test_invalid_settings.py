"""Invalid settings: every problem is reported with its name, and no error shows a value."""

import os
import socket
import traceback
from pathlib import Path

import pytest

from harvester.errors import UsageError
from harvester.settings import Settings, Workspace, load
from tests.support.secret_canary import KEY
from tests.support.settings import BRAZE, load_error, load_settings, load_workspace


async def test_all_problems_are_reported_at_once_by_name_without_values(harvester, tmp_path):
    """One error names every invalid setting and shows no value, because each value could be a key."""
    kept = ("workspaces", "workspace_defaults", "triggers", "out", "state", "web_host")
    names = [name for name in Settings.model_fields if name not in kept and not name.endswith("_file")]
    per_workspace = [
        name for name in Workspace.model_fields if not name.startswith(("api_key", "out")) and name != "proxy_file"
    ]
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


def test_a_configuration_that_is_not_named_is_mentioned(tmp_path, monkeypatch):
    """Settings that are missing although the usual file is in the folder are in that file, which needs --config."""
    monkeypatch.chdir(tmp_path)
    assert "--config" not in load_error()
    Path("harvester.toml").write_text(f'[workspaces.eu]\nendpoint = "{BRAZE}"\n')
    assert "harvester.toml in this folder is not used; name it with --config harvester.toml" in load_error()


def test_an_unknown_name_is_reported_with_file_table_and_a_suggestion(tmp_path):
    """The error suggests the most similar name, or lists all names if none is similar."""
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
    assert "  zzz: unknown setting; the settings are proxy, proxy_file, ca_file, workspaces," in message


def test_a_removed_setting_is_refused_with_what_to_do_instead(set_env, tmp_path):
    """A user who upgrades reads what to do, whether the setting is in the file, a table or a variable."""
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
    """An error about a broken file contains no value of the file."""
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        load_settings(path).load_keys()
    assert KEY not in "".join(traceback.format_exception(refused.value))


def test_a_broken_variable_is_refused_without_its_value(set_env):
    """The error names the variable or its setting and does not show the value, which could be a key."""
    for name in ("WORKSPACES", "WORKSPACES__EU", "WORKSPACES__EU__AGES_DAYS", "TRIGGERS__SENDS__PREFIXES"):
        set_env(**{name: f"{{{KEY}"})
        message = load_error()
        assert f"HARVESTER_{name} is not valid JSON" in message
        assert KEY not in message
        set_env(**{name: ""})
    set_env(WORKSPACES=f'["{KEY}"]', WORKSPACES__EU__RESERVE="0.1")
    message = load_error()
    assert "HARVESTER_WORKSPACES__EU__RESERVE: workspaces is not a table" in message
    assert KEY not in message
    set_env(WORKSPACES=f'{{"eu": {{"endpoint": "{BRAZE}"}}}}', WORKSPACES__EU__RESERVE__DEEPER=KEY)
    message = load_error()
    assert "workspaces.eu.reserve" in message
    assert KEY not in message


@pytest.mark.parametrize("name", ["reserve", "max_rate"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.1"])
def test_numbers_that_are_not_finite_or_negative_are_refused(set_env, name, value):
    """A rate or a reserve that is negative, infinite or not a number is reported by name."""
    set_env("HARVESTER_WORKSPACES__", EU__ENDPOINT=BRAZE, **{f"EU__{name.upper()}": value})
    assert f"workspaces.eu.{name}" in load_error()


def test_ages_whose_readings_would_have_the_same_name_are_refused():
    """Two readings of a pair always have different names, so ages must differ in their first six digits."""
    assert "differ in their first six digits" in load_error(endpoint=BRAZE, ages_days=[1.0000001, 1.0000002, 13])


def test_a_last_age_after_the_planning_deadline_is_refused():
    """The last age leaves time for retries before Braze deletes the analytics."""
    assert load_workspace(ages_days=[1, 13.75]).ages_days == (1, 13.75)
    assert "must be at most 13.75" in load_error(endpoint=BRAZE, ages_days=[1, 13.8])


def test_names_of_workspaces_are_plain_and_distinct(tmp_path):
    """Names that would be ambiguous or unreadable in logs, rows or variables are refused."""
    path = tmp_path / "names.toml"
    for names in (["a b"], [""], ["a" * 65], ["eu\\n"], ["eu-1", "EU.1"]):
        path.write_text("".join(f'[workspaces."{name}"]\nendpoint = "{BRAZE}"\n' for name in names))
        assert "workspaces" in load_error(path), names


def test_an_unreadable_file_is_named(tmp_path):
    """The error names the file if it is missing, a folder, or not text."""
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    for name in ("missing.toml", ".", "bytes.toml"):
        assert f"cannot read the configuration {name}" in load_error(Path(name))


def test_a_file_that_is_too_large_is_refused(tmp_path):
    """A wrong file in place of a key or a configuration is refused before it fills the memory."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UsageError, match="more than 65536 bytes"):
        load_workspace(api_key_file=path).load_key()
    with pytest.raises(UsageError, match="more than 1048576 bytes"):
        load(path, {}, {})
    path.unlink()  # the search for secrets after the test would read all of it


@pytest.mark.parametrize("kind", ["pipe", "link", "socket", "device"])
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path, kind):
    """A named pipe without a writer in place of a key or a configuration blocks no command."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    path = tmp_path / kind
    with pytest.raises(UsageError, match=r"cannot read .*api_key_file.*: it is a pipe, a device or a socket"):
        load_workspace(api_key_file=path).load_key()
    with pytest.raises(UsageError, match=r"cannot read the configuration .*: it is a pipe, a device or a socket"):
        load(path, {}, {})


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
