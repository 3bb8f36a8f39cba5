"""What all checks share: the code of docs/loading.md, and the comparison with the latest view.

Only the standard library: the checks run in environments of their own, without harvester.
"""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent.parent / "docs" / "loading.md"
ALL_PARTS = "harvest/send_analytics/*/*.ndjson.zst"


def get_block(section: str, number: int = 0) -> str:
    """Return a block of code of a section of the page."""
    text = PAGE.read_text().split(f"\n### {section}\n", 1)[1].split("\n#", 1)[0]
    blocks: list[str] = re.findall(r"^```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return blocks[number]


def get_statement(kind: str, statement: str) -> str:
    """Return what ``harvester schema`` printed for a reader."""
    return Path(f"{kind}-{statement}.sql").read_text()


def list_parts() -> list[str]:
    """Return the parts in the order in which a loader gets them in this check: each twice, the newest first at last."""
    parts = sorted(map(str, Path("harvest/send_analytics").glob("*/*")))
    return [*parts, *reversed(parts)]


def compare_rows(reader: str, version: str, rows: Iterable[dict[str, Any]], expected: str = "latest.ndjson") -> None:
    """Print the result of a check; ends the process with 1 if the rows are not those of ``harvester latest``."""
    found = sorted(map(_format_row, rows))
    wanted = sorted(_format_row(json.loads(line)) for line in Path(expected).read_text().splitlines())
    equal = found == wanted
    print(json.dumps({"reader": reader, "version": version, "rows": len(found), "equal": equal}))
    if not equal:
        print(*sorted(set(wanted) ^ set(found))[:4], sep="\n", file=sys.stderr)
        sys.exit(1)


def _format_row(row: dict[str, Any]) -> str:
    """Return a row as text, without nulls; 0 and 0.0 are the same decimal."""
    values = {name: value for name, value in row.items() if value is not None}
    return json.dumps({n: float(v) if "revenue" in n else v for n, v in values.items()}, sort_keys=True)
