"""The sources of settings: options override variables, and variables override the file."""

from pathlib import Path

import pytest

from harvester.settings import load
from tests.support.secret_canary import KEY
from tests.support.settings import BRAZE, load_error, load_settings

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


@pytest.fixture
def two_workspaces(tmp_path):
    """Return the path of a file with two workspaces."""
    path = tmp_path / "two.toml"
    path.write_text(TWO)
    return path


def test_variables_override_the_file_and_options_override_both(set_env, two_workspaces):
    """An option wins over a variable, a variable over the file, and the file over the default."""
    set_env(KEEP_DAYS="40")
    assert (load_settings(two_workspaces).concurrency, load_settings(two_workspaces).keep_days) == (3, 40)
    set_env(CONCURRENCY="4")
    assert load_settings(two_workspaces).concurrency == 4
    settings = load(two_workspaces, {"concurrency": 5, "keep_days": None}, {})
    assert (settings.concurrency, settings.keep_days, settings.patience_seconds) == (5, 40, 240)


def test_a_variable_changes_one_setting_of_one_workspace(set_env, two_workspaces):
    """The other settings stay as in the file. A variable's name may be in any case, and contains _ for each -."""
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
    asia = f'{{"endpoint": "{BRAZE}", "api_key": "{KEY}-asia"}}'
    set_env(WORKSPACES=f'{{"Asia": {asia}, "eu": {{"reserve": 0.1, "api_key": "{KEY}-json"}}}}')
    settings = load_settings()
    assert settings.load_keys() == {"eu": KEY, "Asia": f"{KEY}-asia"}  # the variable of one setting wins
    assert settings.workspaces["eu"].reserve == 0.1


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
    """With two workspaces, an option does not say which one it means, and BRAZE_API_KEY applies to neither."""
    assert "--max-rate" in load_error(two_workspaces, max_rate=3.0)
    set_env("BRAZE_", API_KEY="any-key-0123", ENDPOINT="https://rest.jp-01.braze.com")
    settings = load_settings(two_workspaces)
    assert settings.workspaces["eu"].endpoint == BRAZE
    assert settings.workspaces["US-2"].load_key() == f"{KEY}-us"


def test_empty_and_unknown_variables_are_ignored(set_env, two_workspaces):
    """Empty variables and variables of other programs, which Compose and Kubernetes set, change nothing."""
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
    """Two teams can each have a workspace on one instance of Braze."""
    path = tmp_path / "same.toml"
    path.write_text(f'[workspaces.a]\nendpoint = "{BRAZE}"\n[workspaces.b]\nendpoint = "{BRAZE}"\n')
    assert {each.endpoint for each in load_settings(path).workspaces.values()} == {BRAZE}
