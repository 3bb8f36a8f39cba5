"""``docs/faults.md`` names only existing tests, and a short torture run passes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import require_program

TOP = Path(__file__).parent.parent.parent
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)+)`", (TOP / "docs/faults.md").read_text())))


def test_every_test_named_in_the_fault_table_exists():
    """The names are looked up in the test files."""
    assert len(NAMED) > 80
    found = {}
    for name in NAMED:
        file, *inside = name.split("::")
        source = found.setdefault(file, (TOP / file).read_text())
        assert re.search(rf"^\s*(async )?def {inside[-1]}\(", source, re.MULTILINE), name


@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_short_torture_run_loses_and_duplicates_nothing(command):
    """The seed fixes the kills, stops, full disks, revoked keys, failing stores and clock jumps."""
    require_program("unshare")
    script = [sys.executable, "-m", "benchmarks.torture", "--kills", "4", "--seed", "2", "--store", "moto"]
    if command == "serve":
        require_program("redis-server")
        script += ["--serve", "redis"]
    done = subprocess.run(script, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none missing, none twice" in done.stdout
