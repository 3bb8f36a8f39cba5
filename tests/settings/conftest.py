"""Fixtures of the settings: an environment without the developer's variables."""

import os

import pytest


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    """Hide the variables of the developer's shell."""
    for name in os.environ:
        if name.upper().startswith(("HARVESTER_", "BRAZE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def set_env(monkeypatch):
    """Return a function that sets environment variables, named without their common prefix."""

    def set_all(prefix: str = "HARVESTER_", /, **values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(prefix + name, value)

    return set_all
