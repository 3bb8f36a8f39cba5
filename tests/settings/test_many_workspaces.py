"""Many workspaces in a few lines: what they share, and a folder with the key of each."""

from pathlib import Path

import pytest

from harvester.errors import UsageError
from harvester.settings import Settings, load
from tests.support.secret_canary import KEY

BRAZE = "https://rest.fra-01.braze.eu"
DEFAULTS = f'[workspace_defaults]\nendpoint = "{BRAZE}"\nreserve = 0.3\n'


def write_keys(**keys: str) -> None:
    """Write key files into the folder ``keys``, by the name of the workspace."""
    Path("keys").mkdir(exist_ok=True)
    for name, key in keys.items():
        Path("keys", name).write_text(key)


def load_text(text: str) -> Settings:
    """Load a configuration file with this text."""
    Path("h.toml").write_text(text)
    return load(Path("h.toml"), {}, {})


def load_error(text: str) -> str:
    """Return the error of loading the settings and keys of an invalid configuration."""
    with pytest.raises(UsageError) as refused:
        load_text(text).load_keys()
    return str(refused.value)


def test_a_key_file_alone_makes_a_workspace_with_the_defaults():
    """Thousands of workspaces need a folder of keys and three lines."""
    write_keys(eu=KEY, us=f"{KEY}-us\n")
    settings = load_text('api_key_dir = "keys"\n' + DEFAULTS)
    assert settings.load_keys() == {"eu": KEY, "us": f"{KEY}-us"}
    assert {(each.endpoint, each.reserve) for each in settings.workspaces.values()} == {(BRAZE, 0.3)}


def test_a_table_overrides_the_defaults_and_its_own_key_overrides_the_folder():
    """The table of a workspace contains only what differs from the defaults."""
    write_keys(eu=KEY, us=KEY)
    own = '[workspaces.us]\nreserve = 0.5\n[workspaces.eu]\napi_key = "another-key"\n'
    settings = load_text('api_key_dir = "keys"\n' + DEFAULTS + own)
    assert settings.load_keys() == {"eu": "another-key", "us": KEY}
    assert (settings.workspaces["eu"].reserve, settings.workspaces["us"].reserve) == (0.3, 0.5)


def test_a_variable_sets_the_folder_the_defaults_and_one_workspace(monkeypatch):
    """A container needs no file; the names of key files decide the spelling."""
    write_keys(**{"eu-1": KEY})
    monkeypatch.setenv("HARVESTER_API_KEY_DIR", "keys")
    monkeypatch.setenv("HARVESTER_WORKSPACE_DEFAULTS__ENDPOINT", BRAZE)
    monkeypatch.setenv("HARVESTER_WORKSPACES__EU_1__RESERVE", "0.4")
    settings = load(None, {}, {})
    assert {name: each.reserve for name, each in settings.workspaces.items()} == {"eu-1": 0.4}
    assert settings.load_keys() == {"eu-1": KEY}


def test_a_mounted_secret_of_kubernetes_is_read_through_its_links():
    """``..data`` and the folder it links to are not workspaces; the links beside them are."""
    Path("keys/..2026_11_27").mkdir(parents=True)
    Path("keys/..2026_11_27/eu").write_text(KEY)
    Path("keys/..data").symlink_to("..2026_11_27")
    Path("keys/eu").symlink_to("..data/eu")
    Path("keys/lost+found").mkdir()
    assert load_text('api_key_dir = "keys"\n' + DEFAULTS).load_keys() == {"eu": KEY}


def test_all_unusable_key_files_are_reported_at_once_without_their_content():
    """An empty file, two keys in a file, and a link to nothing are named together."""
    write_keys(eu=KEY, empty="", two="first-key second-key")
    Path("keys/gone").symlink_to("missing")
    error = load_error('api_key_dir = "keys"\n' + DEFAULTS)
    assert [line.split(":")[0].strip() for line in error.splitlines()[1:]] == [
        "workspaces.empty",
        "workspaces.gone",
        "workspaces.two",
    ]
    assert "second-key" not in error


def test_a_problem_of_the_defaults_is_reported_once():
    """A wrong default is reported in one line, not once for each of a thousand workspaces."""
    write_keys(eu=KEY, us=KEY)
    wrong = '[workspace_defaults]\nendpoint = "http://braze.example"\nreserv = 0.1\nages_days = [3, 1]\n'
    lines = load_error('api_key_dir = "keys"\n' + wrong + "[workspaces.us]\nreserve = 2\n").splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == [
        "workspace_defaults.reserv",
        "workspaces.us.reserve",
        "workspace_defaults.endpoint",
        "workspace_defaults.ages_days",
    ]


@pytest.mark.parametrize(
    ("folder", "message"),
    [("missing", "api_key_dir: cannot be listed: No such file"), ("keys", "no workspace is configured")],
)
def test_a_missing_or_empty_folder_is_refused(folder, message):
    """A missing or empty folder of keys is an error, so the service does not start without workspaces."""
    Path("keys").mkdir()
    assert message in load_error(f'api_key_dir = "{folder}"\n' + DEFAULTS)


def test_the_name_of_a_key_file_must_be_the_name_of_a_workspace():
    """A file that is not named after a workspace, such as an editor's copy, is reported."""
    write_keys(**{"eu": KEY, "eu~": KEY})
    assert "workspaces.eu~" in load_error('api_key_dir = "keys"\n' + DEFAULTS)
    write_keys(**{"a\nb": KEY})
    assert "\n  workspaces.a\\nb.api_key_file: its name" in load_error('api_key_dir = "keys"\n' + DEFAULTS)


def test_a_workspace_has_a_place_of_its_own_or_the_common_one(set_env):
    """The table or a variable names it."""
    set_env(WORKSPACES__US__OUT="s3://client-us/braze")
    tables = f'[workspaces.eu]\nout = "eu/braze"\nendpoint = "{BRAZE}"\n' + "[workspaces.us]\n[workspaces.au]\n"
    settings = load_text('out = "common"\n' + DEFAULTS + tables)
    assert settings.list_places() == {"eu/braze": ["eu"], "s3://client-us/braze": ["us"], "common": ["au"]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[workspaces.eu]\nout = "-"\n', "workspaces.eu.out: - (standard input or output) cannot be used here"),
        ('[workspaces.eu]\nout = "s3://lake?x"\n', "workspaces.eu.out: the name of the bucket must not contain"),
        ('[workspaces.eu]\n[workspace_defaults]\nout = "x"\n', "workspace_defaults.out: set the out of the whole"),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_by_the_name_of_its_setting(text, problem):
    """The error does not show the value, which may contain a secret."""
    assert problem in load_error(text)


@pytest.mark.parametrize(
    ("out", "eu", "us", "problem"),
    [
        (
            "lake",
            "eu",
            "eu/../eu/send_analytics/us",
            'workspaces.us.out: is inside send_analytics/ of the place of workspace "eu"',
        ),
        ("lake", "lake/raw_answers", "us", "workspaces.eu.out: is inside raw_answers/ of the common place"),
        ("eu/.harvester/x", "./eu/", "us", 'out: is inside .harvester/ of the place of workspace "eu"'),
        ("s3://a/b/send_analytics", "s3://a/b/", "us", 'out: is inside send_analytics/ of the place of workspace "eu"'),
    ],
)
def test_a_place_in_a_folder_that_only_harvester_writes_to_is_refused(out, eu, us, problem):
    """Readers of the outer place would load the rows of both; the error names both places."""
    workspaces = f'[workspaces.eu]\nout = "{eu}"\n[workspaces.us]\nout = "{us}"\n'
    assert f"\n  {problem}; choose a place outside of it" in load_error(f'out = "{out}"\n' + DEFAULTS + workspaces)


def test_a_place_beside_the_folders_of_another_place_can_be_used():
    """A place may contain other places, as a bucket does."""
    tables = '[workspaces.eu]\nout = "lake/eu"\n[workspaces.us]\nout = "lake/eu/us/send_analytics"\n[workspaces.au]\n'
    assert list(load_text('out = "lake"\n' + DEFAULTS + tables).list_places()) == [
        "lake/eu", "lake/eu/us/send_analytics", "lake",
    ]  # fmt: skip
