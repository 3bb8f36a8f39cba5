"""The latest view reads each part once, a few at a time, and finds every member of every row."""

import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
import zstandard

from harvester.datasets import write_latest
from harvester.datasets.part_files import FolderParts
from harvester.datasets.sql import THREADS
from harvester.errors import SinkError

ROW = {
    "workspace": "default",
    "campaign_id": "c",
    "send_id": "s",
    "date": "2026-11-20",
    "level": "variation",
    "channel": "email",
    "variation_name": "A",
    "variation_api_id": None,
    "reading": "once",
    "captured_at": "2026-11-21T00:00:00.000Z",
    "verdict": "activity",
    "batch_id": "b",
}


class CountedParts(FolderParts):
    """Parts that exist only while they are open, like those of a bucket. Counts how often and how many are open."""

    def __init__(self, folder: Path, copies: Path) -> None:
        """Serve the parts of ``folder`` as copies in ``copies``."""
        super().__init__(folder)
        self._copies, self._lock, self._open = copies, threading.Lock(), 0
        self.opened: list[str] = []
        self.most_open = 0

    @contextmanager
    def open(self, name):
        """Return a copy of a part, which is deleted at the end of the context."""
        with self._lock:
            self.opened.append(name)
            self._open += 1
            self.most_open = max(self.most_open, self._open)
        copy = self._copies / Path(name).name
        shutil.copy(name, copy)
        yield copy
        copy.unlink()
        with self._lock:
            self._open -= 1


@pytest.fixture
def harvest(tmp_path):
    """Write parts as harvester does: ``harvest(rows, rows, ...)`` creates one part for each list."""

    def write(*parts):
        folder = tmp_path / "harvest" / "send_analytics" / "captured_date=2026-11-21"
        folder.mkdir(parents=True)
        for number, rows in enumerate(parts):
            lines = b"".join(orjson.dumps(ROW | row) + b"\n" for row in rows)
            (folder / f"{number:03d}.ndjson.zst").write_bytes(zstandard.compress(lines))
        return tmp_path / "harvest"

    return write


def read(parts, tmp_path):
    """Return the rows of the latest view by date."""
    write_latest(parts, tmp_path / "view.ndjson", "ndjson", temp_directory=tmp_path)
    return {row["date"]: row for row in map(orjson.loads, (tmp_path / "view.ndjson").read_bytes().splitlines())}


def test_each_part_is_opened_once_and_few_at_a_time(harvest, tmp_path):
    """A part is never read again, and all parts of a bucket are never on disk together."""
    folder = harvest(*([{"date": str(number), "sent": number}] for number in range(80)))
    copies = tmp_path / "copies"
    copies.mkdir()
    parts = CountedParts(folder, copies)
    rows = read(parts, tmp_path)
    assert {row["sent"] for row in rows.values()} == set(range(80))
    assert sorted(parts.opened) == sorted(parts.names)
    assert parts.most_open <= 2 * THREADS
    assert list(copies.iterdir()) == []


LAST = {"date": "last", "sent": 1}
"""The last row of a part: the only one that is parsed for its names."""


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"new": 7}, 7),
        ({"new": 7, "variation_name": 'a "quoted\\" name'}, 7),
        ({"new": "many"}, "many"),
        ({"new": "5"}, "5"),
        ({"new": 'a "text"'}, 'a "text"'),
        ({"new": 2.5}, 2.5),
        ({"new": -(2**63)}, -(2**63)),
        ({"new": 2**64 - 1}, float(2**64)),
        ({"new": True}, "true"),
        ({"new": {"a": [1, "b"]}}, '{"a":[1,"b"]}'),
        ({"new": None}, None),
    ],
)
def test_a_counter_that_only_one_row_has_gets_a_column(harvest, tmp_path, row, expected):
    """Its value has the type that it has in the part, whatever it is, even if no other row has the counter."""
    rows = read(harvest([LAST | {"date": "0"}, LAST], [row, LAST | {"revenue": 1.0}, LAST]), tmp_path)
    assert (rows["2026-11-20"]["new"], rows["2026-11-20"]["sent"]) == (expected, None)
    assert (rows["last"]["new"], rows["last"]["sent"]) == (None, 1)


def replace_in_part(folder, old, new):
    """Replace bytes in the only part."""
    part = next(folder.glob("*/*/*"))
    lines = zstandard.decompress(part.read_bytes())
    assert old in lines
    part.write_bytes(zstandard.compress(lines.replace(old, new)))


@pytest.mark.parametrize(
    "fixed", [b"", b'"variation_api_id":5,', b'"variation_api_id":{},', b'"variation_api_id":[":"],']
)
def test_a_fixed_member_of_another_type_hides_no_counter(harvest, tmp_path, fixed):
    """A counter that only one row has is found, even if a fixed member of this row is absent or not a text."""
    folder = harvest([{"new": 1, "variation_api_id": "odd"}, LAST])
    replace_in_part(folder, b'"variation_api_id":"odd",', fixed)
    assert read(folder, tmp_path)["2026-11-20"]["new"] == 1


@pytest.mark.parametrize("name", ['"\\ud800":1', '"a":' + "[" * 5000], ids=["surrogate", "nesting"])
def test_a_row_that_is_not_valid_json_is_an_error(harvest, tmp_path, name):
    """A name with a lone surrogate, or unclosed nesting, is reported like any other damage of a part."""
    folder = harvest([LAST | {"odd": 1}])
    replace_in_part(folder, b'"odd":1', name.encode())
    with pytest.raises(SinkError, match="cannot read the parts"):
        read(folder, tmp_path)
