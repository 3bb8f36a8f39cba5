"""What differs between two settings."""

import pytest

from harvester.errors import UsageError
from harvester.settings import Settings, Workspace, changes
from tests.support.secret_canary import KEY
from tests.support.settings import BRAZE


def settings(**workspaces: dict) -> Settings:
    """Return settings of workspaces whose keys are loaded."""
    tables = {name: Workspace(**{"endpoint": BRAZE, "api_key": KEY} | table) for name, table in workspaces.items()}
    made = Settings(workspaces=tables)
    made.load_keys()
    return made


def test_workspaces_are_added_removed_or_changed():
    """An unchanged workspace is not added, removed or changed."""
    found = changes(settings(a={}, b={}, c={}), settings(b={}, c={"reserve": 0.5}, d={}))
    assert (found.added, found.removed, found.changed, found.ignored) == (("d",), ("a",), ("c",), ())


def test_a_new_key_in_the_same_file_changes_a_workspace(tmp_path):
    """A workspace counts as changed if only the content of its key file has changed."""
    file = tmp_path / "key"
    file.write_text(KEY)
    old = settings(eu={"api_key": None, "api_key_file": file})
    file.write_text(f"{KEY}-2")
    assert changes(old, settings(eu={"api_key": None, "api_key_file": file})).changed == ("eu",)


def test_settings_that_need_a_restart_are_named_and_can_be_kept():
    """Settings that need a restart are named, and ``concurrency`` is not one of them."""
    old = settings(eu={})
    new = old.model_copy(update={"out": "elsewhere", "concurrency": 3, "web_port": 1})
    found = changes(old, new)
    assert found.ignored == ("out", "web_port")
    kept = new.keep(old, fields=found.ignored, workspaces=())
    assert (kept.out, kept.web_port, kept.concurrency) == (old.out, old.web_port, 3)


def test_a_new_place_is_checked_against_the_places_that_are_kept():
    """The common place changes only with a restart, so a reload must not use a place inside the present one."""
    old = settings(eu={})
    new = settings(eu={"out": "harvest/send_analytics/eu"}).model_copy(update={"out": "elsewhere"})
    with pytest.raises(UsageError, match=r"workspaces\.eu\.out: is inside send_analytics/ of the common place"):
        new.keep(old, fields=("out",), workspaces=())
