"""What is installed is what is locked, by hash, and works together."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

TOP = Path(__file__).parent.parent
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
DECLARED = {
    "image": PROJECT["project"]["dependencies"]
    + [each for name in ("aws", "nats", "otel", "rabbitmq", "redis", "sqs") for each in EXTRAS[name]],
    "test": PROJECT["project"]["dependencies"] + EXTRAS["test"] + PROJECT["build-system"]["requires"],
    "build": PROJECT["build-system"]["requires"],
}


@pytest.mark.parametrize(("lock", "declared"), DECLARED.items())
def test_what_is_declared_is_locked_by_hash(lock, declared):
    """A dependency that is added or bounded anew needs ``scripts/dependencies renew``; nothing comes without a hash."""
    text = (TOP / "locks" / f"{lock}.txt").read_text()
    entries = re.findall(
        r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z0-9,-]+\])?==(\S+)(.*?)(?=^[a-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL
    )
    pinned = {name: version for name, version, _ in entries}
    assert all("--hash=sha256:" in rest for _, _, rest in entries)
    for each in map(Requirement, declared):
        name = re.sub(r"[-_.]+", "-", each.name).lower()
        assert name in pinned, f"{each} is not in locks/{lock}.txt: scripts/dependencies renew"
        assert each.specifier.contains(pinned[name]), f"{each} is locked at {pinned[name]}: scripts/dependencies renew"


@pytest.mark.xdist_group("here")
def test_tests_that_share_a_server_run_in_one_process(request, worker_id):
    """Whoever hands out tests sees their groups by their names; not seen, each process would start all servers."""
    assert worker_id == "master" or request.node.nodeid.endswith("@here")
