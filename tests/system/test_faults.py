"""``docs/faults.md`` names only existing tests, and a short run with random faults passes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.postgresql import find_programs
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


def torture(*options: str) -> str:
    """Run the benchmark with random faults, which must find nothing; return what it prints."""
    script = [sys.executable, "-m", "benchmarks.torture", "--seed", "2", "--store", "moto", *options]
    done = subprocess.run(script, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none is missing, none was written twice" in done.stdout
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_short_torture_run_loses_and_duplicates_nothing(command):
    """Kills, suspensions, full disks, revoked keys, store failures and clock jumps lose and repeat no row."""
    require_program("unshare")
    if command == "serve":
        require_program("redis-server")
    torture("--kills", "4", *(["--serve", "redis"] if command == "serve" else []))


@pytest.mark.long
def test_replicas_lose_and_duplicate_nothing_while_all_they_need_is_killed():
    """Four services, PostgreSQL and RabbitMQ are killed and suspended while 2,000 pairs of 20 workspaces arrive.

    Each reading is captured once and in time, no reserve is used, the books balance, and an audit misses no pair.
    """
    require_program("rabbitmq-server")
    find_programs()
    options = ("--serve", "rabbitmq", "--workspaces", "20", "--pairs", "2000", "--kills", "15")
    assert re.search(r"2000 pairs: .*\b[1-9]\d* database: kill", torture("--replicas", "4", *options), re.DOTALL)
