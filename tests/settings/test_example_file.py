"""config/harvester.toml: it contains every setting with its default."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from harvester.settings import Settings, Workspace
from harvester.settings.triggers import NATS, SQS, RabbitMQ, Redis
from tests.support.settings import load_settings

EXAMPLE = Path(__file__).parent.parent.parent / "config" / "harvester.toml"


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Return the default of each field that has one."""
    return {name: field.default for name, field in model.model_fields.items() if not field.is_required()}


def test_the_example_file_contains_the_defaults():
    """A user who copies config/harvester.toml gets the defaults, except for the endpoint and the key file."""
    settings = load_settings(EXAMPLE)
    assert {name: getattr(settings, name) for name in defaults(Settings)} == defaults(Settings)
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
    """A user finds every setting in the example, with the name of its environment variable."""
    text = EXAMPLE.read_text()
    for name in model.model_fields.keys() - {"workspaces", "workspace_defaults", "triggers"}:
        assert re.search(rf"^(# )?{name} = ", text, re.MULTILINE), name
        assert re.search(rf"^# .*\b{prefix}{name.upper()}\b", text, re.MULTILINE), name
