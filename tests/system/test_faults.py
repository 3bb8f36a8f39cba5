"""The table of faults names only tests that exist, and a short torture of the whole system ends well."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import require_program

TOP = Path(__file__).parent.parent.parent
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)+)`", (TOP / "docs/faults.md").read_text())))


def test_every_test_that_the_table_of_faults_names_exists():
    """A test that is renamed or removed takes its line of docs/faults.md along."""
    assert len(NAMED) > 80
    found = {}
    for name in NAMED:
        file, *inside = name.split("::")
        source = found.setdefault(file, (TOP / file).read_text())
        assert re.search(rf"^\s*(async )?def {inside[-1]}\(", source, re.MULTILINE), name


@pytest.mark.parametrize("of", ["run", "serve"])
def test_a_short_torture_ends_well(of):
    """Kills, zombies, full disks, lost keys, cut stores and clock jumps by a seed: nothing missing, nothing twice."""
    require_program("unshare")
    script = [sys.executable, "-m", "benchmarks.torture", "--kills", "4", "--seed", "2", "--store", "moto"]
    if of == "serve":
        require_program("redis-server")
        script += ["--serve", "redis"]
    done = subprocess.run(script, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none missing, none twice" in done.stdout
