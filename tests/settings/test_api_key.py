"""API keys: how they are read from files, and which are refused."""

import os
import re
from pathlib import Path

import pytest

from harvester.errors import UsageError
from harvester.settings import SettingsSource
from harvester.settings.secret_files import name_source
from tests.support.secret_canary import KEY
from tests.support.settings import BRAZE, load_settings, load_workspace


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", f"{KEY}\r\n", f"  {KEY}\t\n\n"])
def test_whitespace_around_the_key_in_its_file_is_ignored(tmp_path, text):
    """A key file works with the line ends and spaces that editors and secret stores add."""
    path = tmp_path / "key"
    path.write_bytes(text.encode())
    assert load_workspace(api_key_file=path).load_key() == KEY


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "api_key_file, .*key.* is empty"),
        (b" \n", "is empty"),
        (f"{KEY}\r{KEY}".encode(), "malformed"),
        (f"{KEY} {KEY}".encode(), "malformed"),
        (f"{KEY}\r\nInjected: header".encode(), "malformed"),
        (f"{KEY}\x00".encode(), "malformed"),
        (f"{KEY}".encode("utf-8-sig"), "begins with a byte order mark"),
        (f"'{KEY}'\n".encode(), "is in quotes"),
        (f'"{KEY}"'.encode(), "is in quotes"),
        (f"\N{LEFT DOUBLE QUOTATION MARK}{KEY}\N{RIGHT DOUBLE QUOTATION MARK}".encode(), "is in quotes"),
        (f"Bearer {KEY}".encode(), "begins with Bearer"),
        (f"Authorization: bearer {KEY}".encode(), "begins with Bearer"),
        (f"BRAZE_API_KEY={KEY}".encode(), "begins with the name of a variable"),
        (b"short", "malformed"),
        (KEY.encode() * 20, "malformed"),
        (f"{KEY}\N{LATIN SMALL LETTER E WITH ACUTE}".encode("latin-1"), "not contain text"),
    ],
)
def test_a_malformed_key_is_refused_without_showing_it(tmp_path, content, message):
    """A key that would break a header, or the content of a wrong file, is never sent or shown."""
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        load_workspace(api_key_file=path).load_key()
    assert KEY not in str(error.value)


def test_a_key_from_a_pipe_is_read_once(tmp_path):
    """A key from ``--api-key-file <(...)`` can be loaded several times, and no text form of the settings shows it."""
    reads, writes = os.pipe()
    os.write(writes, KEY.encode())
    os.close(writes)
    settings = load_settings(None, endpoint=BRAZE, api_key_file=Path(f"/dev/fd/{reads}"))
    assert settings.load_keys() == settings.load_keys() == {"default": KEY}
    assert KEY not in repr(settings) + str(settings.model_dump())
    os.close(reads)


def test_a_key_from_a_pipe_stays_the_same_at_every_reload():
    """A service that reloads its key files can use a pipe: it neither blocks nor seems empty."""
    reads, writes = os.pipe()
    os.write(writes, KEY.encode())
    os.close(writes)
    workspace = load_workspace(api_key_file=Path(f"/dev/fd/{reads}"))
    assert workspace.load_key() == workspace.load_key() == KEY
    os.close(reads)


def test_a_configuration_from_a_pipe_stays_the_same_at_every_reload():
    """A service that was started with ``--config <(...)`` keeps its settings, and a check of its files never blocks."""
    reads, writes = os.pipe()
    os.write(writes, f'[workspaces.eu]\nendpoint = "{BRAZE}"\napi_key = "{KEY}"\n'.encode())
    os.close(writes)
    source = SettingsSource(Path(f"/dev/fd/{reads}"), {}, {})
    settings = source.load()
    assert settings.workspaces.keys() == source.load().workspaces.keys() == {"eu"}
    assert source.digest(settings) == source.digest(settings)
    os.close(reads)


def test_a_missing_or_unreadable_key_file_is_reported(tmp_path):
    """The error contains the reason from the system."""
    (tmp_path / "locked.key").write_text(KEY)
    (tmp_path / "locked.key").chmod(0)
    reasons = {"missing": "No such file", ".": "Is a directory"}
    if os.geteuid() != 0:  # root can read every file
        reasons["locked.key"] = "Permission denied"
    for name, reason in reasons.items():
        with pytest.raises(UsageError, match=f"api_key_file.*{reason}"):
            load_workspace(api_key_file=Path(name)).load_key()


def test_all_missing_keys_are_reported_at_once(set_env, tmp_path):
    """One error names every workspace without a key."""
    path = tmp_path / "keyless.toml"
    path.write_text("".join(f'[workspaces.{name}]\nendpoint = "{BRAZE}"\n' for name in ("a", "b", "c")))
    set_env("HARVESTER_WORKSPACES__", B__API_KEY=KEY)
    with pytest.raises(UsageError) as refused:
        load_settings(path).load_keys()
    assert re.findall(r"workspaces\.(\w+):", str(refused.value)) == ["a", "c"]


def test_an_error_names_the_path_of_a_secret_file_but_not_a_key_in_its_place(tmp_path, monkeypatch):
    """A user sees which file is wrong; a key that was entered as the name of the file stays hidden."""
    monkeypatch.chdir(tmp_path)
    Path("braze.key").touch()
    for path in ("secrets/braze", "braze.key"):
        assert name_source("api_key_file", Path(path)) == f"api_key_file, {path}"
    for secret in ("0a1b2c3d-0000-4000-8000-000000000000", "http:/user:word@proxy", "user@host/path"):
        assert name_source("api_key_file", Path(secret)) == "api_key_file"
