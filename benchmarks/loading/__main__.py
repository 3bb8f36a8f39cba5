"""Runs the code of docs/loading.md against the real databases and libraries, each in an environment of its own.

``python -m benchmarks.loading`` runs all checks and writes the table at the end of the page; it takes a few minutes and
2 GB of disk. ``python -m benchmarks.loading polars spark`` runs only these. The environments stay in the folder
``--environments``. Spark needs Java, and PostgreSQL Debian's package ``postgresql`` and ``zstd``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.loading.dataset import write_work_folder
from benchmarks.loading.page import PAGE

HERE = Path(__file__).parent
PACKAGES = {
    "duckdb": ["duckdb"],
    "clickhouse": ["chdb"],
    "polars": ["polars"],
    "pandas": ["pandas", "zstandard"],
    "pyarrow": ["pyarrow"],
    "postgresql": [],
    "spark": ["pyspark==3.5.*"],
    "dialects": ["sqlglot"],
}
HEADING = "## Test results\n"
INTRODUCTION = """`python -m benchmarks.loading` loads each part of a small dataset twice, in both orders, with the code
above. It then compares the rows with those of `harvester latest`, or with all rows if the reader has no MERGE.
Last run: {:%Y-%m-%d}.
"""


def run_check(name: str, environments: Path, work: Path) -> tuple[list[dict[str, Any]], bool]:
    """Run one check in its environment; return its results, and whether it succeeded."""
    environment = environments / name
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
        if PACKAGES[name]:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[name]], check=True)
    check = [python, HERE / f"check_{name}.py"]
    done = subprocess.run(check, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    lines = [line[line.index('{"reader"') :] for line in done.stdout.splitlines() if '{"reader"' in line]
    return [json.loads(line) for line in lines], not done.returncode


def format_results(results: list[dict[str, Any]]) -> str:
    """Return the table of the page."""
    lines = [
        HEADING,
        INTRODUCTION.format(datetime.now(UTC)),
        "| what | version | result |\n| --- | --- | --- |",
    ]
    for each in results:
        if "statements" in each:
            outcome = f"{each['statements']} statements parsed"
        elif each["equal"] is None:
            outcome = "reads zstd"
        else:
            outcome = "equal" if each["equal"] else "**cannot be read**"
        lines.append(f"| {each['reader']} | {each['version']} | {outcome} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the checks; returns 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"one of {', '.join(PACKAGES)}")
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir()) / "harvester-readers")
    arguments = parser.parse_args()
    chosen = arguments.readers or list(PACKAGES)
    results, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        write_work_folder(Path(folder))
        for name in chosen:
            found, succeeded = run_check(name, arguments.environments, Path(folder))
            print(*map(json.dumps, found), sep="\n", flush=True)
            results += found
            failed += [] if succeeded else [name]
    if not arguments.readers and not failed:
        text = PAGE.read_text()
        before, _, after = text.partition(HEADING)
        rest = after.partition("\nThe statements for")[2]
        PAGE.write_text(before + format_results(results) + "\nThe statements for" + rest)
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
