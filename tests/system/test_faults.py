"""``docs/faults.md`` names only existing tests, and a short run with random faults passes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import require_program

TOP = Path(__file__).parent.parent.parent
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)+)`", (TOP / "docs/faults.md").read_text())))


def test_every_test_named_in_the_fault_table_exists():
    """A reader of docs/faults.md finds each test that it names."""
    assert len(NAMED) > 80
    found = {}
    for name in NAMED:
        file, *inside = name.split("::")
        source = found.setdefault(file, (TOP / file).read_text())
        assert re.search(rf"^\s*(async )?def {inside[-1]}\(", source, re.MULTILINE), name


@pytest.mark.long
@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_short_torture_run_loses_and_duplicates_nothing(command):
    """Kills, suspensions, full disks, revoked keys, store failures and clock jumps lose and repeat no row."""
    require_program("unshare")
    script = [sys.executable, "-m", "benchmarks.torture", "--kills", "4", "--seed", "2", "--store", "moto"]
    if command == "serve":
        require_program("redis-server")
        script += ["--serve", "redis"]
    done = subprocess.run(script, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none is missing, none was written twice" in done.stdout
