"""The locked dependencies match the declared ones, have hashes, and are installed everywhere."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

TOP = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
DECLARED = {
    "image": PROJECT["project"]["dependencies"]
    + [each for name in ("aws", "nats", "otel", "postgresql", "rabbitmq", "redis", "sqs") for each in EXTRAS[name]],
    "test": PROJECT["project"]["dependencies"] + EXTRAS["test"] + PROJECT["build-system"]["requires"],
    "build": PROJECT["build-system"]["requires"],
}


@pytest.mark.parametrize(("lock", "declared"), DECLARED.items())
def test_declared_dependencies_are_locked_with_hashes(lock, declared):
    """Every declared dependency is in the locks with a hash; ``scripts/dependencies renew`` updates them."""
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


def list_pins(lock):
    """Return the names and versions in a lock without extras and hashes."""
    lines = (TOP / "locks" / lock).read_text().splitlines()
    found = (re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[.*?\])?(==[^\\]+?)( \\)?", line) for line in lines)
    return {(match[1], match[2]) for match in found if match}


def test_constraints_pin_the_tested_versions():
    """The README's commands install with these constraints, with any extras."""
    assert list_pins("constraints.txt") == list_pins("test.txt")
    in_image, tested = (
        {(name, pin.split(" ;")[0]) for name, pin in list_pins(f"{lock}.txt")} for lock in ("image", "test")
    )
    assert in_image <= tested  # the test lock may need a version on more platforms
    lines = [line for line in (TOP / "locks" / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(list_pins("constraints.txt"))
    assert not [line for line in lines if "[" in line or "--hash" in line], "pip takes neither as a constraint"


def test_every_documented_install_uses_the_clone_and_its_constraints():
    """No documented command installs ``harvester`` from PyPI, where the name belongs to another project."""
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True).stdout.split("\n")
    own = {"tests/system/test_supply_chain.py", "CHANGELOG.md"}
    texts = {name: (TOP / name).read_text(errors="replace") for name in listed if name and name not in own}
    texts = {name: text for name, text in texts.items() if not name.startswith("locks/")}
    assert not [name for name, text in texts.items() if re.search(r"harvester\[|pip install[^\n]* harvester\b", text)]
    clones = [line for text in texts.values() for line in text.splitlines() if re.search("pip install.* -e ", line)]
    assert len(clones) > 8
    assert not [line for line in clones if "-c locks/constraints.txt" not in line]
    assert PROJECT["project"]["name"] == "braze-harvester"
    assert (TOP / ".ci" / "run").read_text().count(readme_test_command()) == 1


def readme_test_command():
    """Return the README's command that runs the tests."""
    return re.search(r"# run the tests\n(.*)\n", (TOP / "README.md").read_text())[1]


@pytest.mark.xdist_group("here")
def test_tests_that_share_a_server_run_in_one_process(request, worker_id):
    """pytest-xdist distributes tests by group; otherwise each process would start all servers."""
    assert worker_id == "master" or request.node.nodeid.endswith("@here")
