"""Settings: what is told where, who wins, and that a wrong one is named without its value."""

import re
import tomllib
from pathlib import Path

import pytest

from harvester.errors import UsageError
from harvester.settings import Settings, Workspace, load

EXAMPLE = Path(__file__).parent.parent / "config" / "harvester.toml"
CANARY = "canary-secret-4711"
HOST = "https://rest.fra-01.braze.eu"


def configured(folder: Path, text: str) -> Path:
    """A configuration file."""
    path = folder / "harvester.toml"
    path.write_text(text)
    return path


def test_the_example_holds_every_key_at_its_default():
    """Whoever copies the example changes nothing, and finds in it all there is to set."""
    loaded = load(EXAMPLE, {}, {})
    assert loaded == Settings(workspaces={"eu": Workspace(endpoint=HOST)})
    written = set(re.findall(r"^(?:# )?(\w+) = ", EXAMPLE.read_text(), re.MULTILINE))
    assert written == (set(Settings.model_fields) | set(Workspace.model_fields)) - {"workspaces"}


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    """Each of the three can change a key without repeating the rest."""
    path = configured(tmp_path, f'concurrency = 2\nlength = 3\n[workspaces.eu]\nendpoint = "{HOST}"\nreserve = 0.5')
    monkeypatch.setenv("HARVESTER_CONCURRENCY", "4")
    monkeypatch.setenv("HARVESTER_LENGTH", "5")
    monkeypatch.setenv("HARVESTER_WORKSPACES__EU__API_KEY", CANARY)
    loaded = load(path, {"length": 7, "concurrency": None}, {})
    assert (loaded.concurrency, loaded.length) == (4, 7)
    assert loaded.workspaces["eu"].reserve == 0.5
    assert loaded.workspaces["eu"].key() == CANARY
    assert CANARY not in repr(loaded) + str(loaded)


def test_all_problems_are_told_at_once_and_no_value_with_them(tmp_path):
    """One look at the message is enough to mend the file; a secret in the wrong place is not repeated."""
    path = configured(
        tmp_path,
        f'length = 1000\nnonsense = "{CANARY}"\n'
        f'[workspaces.eu]\nendpoint = "ftp://{CANARY}@x"\nreserve = "{CANARY}"\napi_key = ["{CANARY}"]',
    )
    with pytest.raises(UsageError) as caught:
        load(path, {}, {})
    told = str(caught.value)
    for name in ("length", "nonsense", "workspaces.eu.reserve", "workspaces.eu.api_key"):
        assert name in told
    assert CANARY not in told


@pytest.mark.parametrize(
    "text", ["", "   ", "\n", "short", "has a blank in", "line-one\rline-two", "k\u00e9y-with-accent", "x" * 201]
)
def test_a_key_that_cannot_be_one_is_refused_and_not_shown(tmp_path, text):
    """Blank or malformed keys end before the first call, with a sentence that does not hold them."""
    file = tmp_path / "key"
    file.write_text(text, newline="")
    with pytest.raises(UsageError) as caught:
        Workspace(endpoint=HOST, api_key_file=file).key()
    assert not text.strip() or text.strip() not in str(caught.value)


def test_a_key_file_may_end_in_a_newline_and_must_be_readable(tmp_path):
    """Editors and secret mounts add a newline; a missing file is named."""
    file = tmp_path / "key"
    file.write_text(f"{CANARY}\r\n", newline="")
    assert Workspace(endpoint=HOST, api_key_file=file).key() == CANARY
    with pytest.raises(UsageError, match="nowhere"):
        Workspace(endpoint=HOST, api_key_file=tmp_path / "nowhere").key()


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://rest.fra-01.braze.eu", "https://user@rest.fra-01.braze.eu", "https://rest.fra-01.braze.eu/sends",
        "https://rest.fra-01.braze.eu?a=b", "https://169.254.169.254", "https://rest.fra-01.braze.eu.evil.example",
        "https://rest.fra-01.braze.eu.", "rest.fra-01.braze.eu", "", "file:///etc/passwd", "https://",
    ],
)  # fmt: skip
def test_the_key_travels_to_known_braze_hosts_over_https_only(endpoint):
    """An endpoint that could carry the key elsewhere is refused."""
    with pytest.raises(UsageError, match="endpoint"):
        load(None, {}, {"endpoint": endpoint})


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:8765", "http://localhost", "http://[::1]:1", HOST + "/"])
def test_loopback_may_be_plain_http(endpoint):
    """A stand-in on this machine needs no certificate."""
    assert load(None, {}, {"endpoint": endpoint}).workspaces["default"].endpoint == endpoint


def test_another_host_needs_to_be_meant():
    """A proxy or a new instance works, once it is said."""
    given = {"endpoint": "https://braze.proxy.example", "allow_unknown_host": True}
    assert load(None, {}, given).workspaces["default"].allow_unknown_host


@pytest.mark.parametrize("text", ["[workspaces]", "length = 3", "[[", "workspaces = 3"])
def test_a_file_without_a_workspace_or_without_sense_is_refused(tmp_path, text):
    """Exit 2 and the name of the file or the setting, never a traceback."""
    with pytest.raises(UsageError, match=r"workspace|harvester\.toml"):
        load(configured(tmp_path, text), {}, {})


def test_the_example_is_toml():
    """Comments and values survive a strict parser."""
    assert tomllib.loads(EXAMPLE.read_text())["workspaces"]
