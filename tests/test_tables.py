"""The latest view, over parts as a harvest writes them."""

import csv
import json

import duckdb
import pytest
import zstandard

from harvester.errors import SinkError, UsageError
from harvester.tables import write_latest

PLACE = {"workspace": "default", "campaign_id": "c", "send_id": "007", "date": "2026-11-20", "level": "variation",
         "channel": "email", "variation_name": "A", "variation_api_id": None, "reading": "once",
         "verdict": "activity"}  # fmt: skip


@pytest.fixture
def harvest(tmp_path):
    """Write parts: ``harvest(rows, rows, ...)`` makes one of each list."""

    def write(*parts):
        folder = tmp_path / "harvest" / "send_analytics" / "captured_date=2026-11-21"
        folder.mkdir(parents=True)
        for number, rows in enumerate(parts):
            lines = [json.dumps({**PLACE, "batch_id": f"b{number}", **row}).encode() for row in rows]
            (folder / f"b{number}.ndjson.zst").write_bytes(zstandard.compress(b"\n".join([*lines, b""])))
        return tmp_path / "harvest"

    return write


@pytest.fixture
def latest(tmp_path):
    """The view as a list of rows."""

    def view(folder):
        out = tmp_path / "latest.ndjson"
        write_latest(folder, out, "ndjson", temp_directory=tmp_path)
        return [json.loads(line) for line in out.read_text().splitlines()]

    return view


def test_the_newest_capture_wins(harvest, latest):
    """Numbers that moved are given as they were captured last, once, in whichever part they stand."""
    folder = harvest([{"captured_at": "2026-11-22", "sent": 2}], [{"captured_at": "2026-11-21", "sent": 1}])
    assert [(row["sent"], row["captured_at"]) for row in latest(folder)] == [(2, "2026-11-22")]


def test_a_late_zero_does_not_hide_what_was_counted(harvest, latest):
    """An answer of zeros after expiry looks newer, and is not believed over real numbers."""
    folder = harvest([{"captured_at": "2026-11-21", "sent": 5}], [{"captured_at": "2026-12-09", "sent": 0}])
    assert [row["sent"] for row in latest(folder)] == [5]


def test_text_stays_text_and_counters_of_any_part_are_there(harvest, latest):
    """An id keeps its zeros, a date is not reckoned with, and a counter seen in the last part alone has its column."""
    rows = [{"captured_at": "2026-11-21", "date": f"2026-11-{day}"} for day in range(10, 20)]
    folder = harvest(rows, [{"captured_at": "2026-11-21", "date": "2026-11-20", "brand_new": 7, "revenue": 1.5}])
    found = latest(folder)
    assert {row["send_id"] for row in found} == {"007"}
    assert {row["date"] for row in found} == {f"2026-11-{day}" for day in range(10, 21)}
    assert sorted((row["brand_new"], row["revenue"]) for row in found if row["brand_new"]) == [(7, 1.5)]


def test_a_counter_that_is_text_somewhere_breaks_nothing(harvest, latest):
    """Drift in one answer leaves the rest readable."""
    folder = harvest([{"captured_at": "1", "sent": 1}], [{"captured_at": "1", "date": "x", "sent": "many"}])
    assert {str(row["sent"]) for row in latest(folder)} == {"1", "many"}


def test_counters_whose_names_differ_in_case_alone_are_all_there(harvest, latest):
    """DuckDB takes them for one; each keeps its numbers, in a column of its own, in whichever part it was met."""
    odd = {"/": 1, "~1": 2, "*": 3, '"': 4, "$.x": 5}
    folder = harvest(
        [{"captured_at": "1", "sent": 1, "Sent": 2, "Level": 9, "": 6, **odd}],
        [{"captured_at": "1", "date": "x", "SENT": 2.5}, {"captured_at": "1", "date": "y", "big": 2**64 - 1}],
    )
    rows = {row["date"]: row for row in latest(folder)}
    assert (
        rows["2026-11-20"] | {"sent": 1, "Sent_2": 2, "level": "variation", "Level_1": 9, "unnamed": 6} | odd
        == rows["2026-11-20"]
    )
    assert (rows["x"]["SENT_1"], rows["x"]["sent"]) == (2.5, None)
    assert rows["y"]["big"] == pytest.approx(2**64)


def test_what_was_counted_as_text_is_not_hidden_by_a_late_zero(harvest, latest):
    """A counter that Braze has begun to send as text is still believed over an empty answer that came later."""
    folder = harvest([{"captured_at": "2026-11-21", "sent": "5"}], [{"captured_at": "2026-12-09", "sent": "0"}])
    assert [row["sent"] for row in latest(folder)] == ["5"]


def test_csv_runs_no_formula_and_parquet_has_types(harvest, tmp_path):
    """A name that a spreadsheet would run is made harmless in CSV; Parquet keeps numbers as numbers."""
    folder = harvest([{"captured_at": "1", "sent": -1, "variation_name": "=cmd()"}])
    write_latest(folder, tmp_path / "a.csv", "csv", temp_directory=tmp_path)
    with (tmp_path / "a.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["variation_name"], row["sent"]) == ("'=cmd()", "-1")
    write_latest(folder, tmp_path / "a.parquet", "parquet", temp_directory=tmp_path)
    found = duckdb.execute("SELECT variation_name, sent, typeof(sent) FROM read_parquet(?)", [f"{tmp_path}/a.parquet"])
    assert found.fetchall() == [("=cmd()", -1, "BIGINT")]


@pytest.mark.parametrize("damaged", [lambda data: data[:-9], lambda data: data + data[:-9]])
def test_a_damaged_part_is_named_and_nothing_is_written(harvest, tmp_path, damaged):
    """A part that was cut off, or has something behind it, is refused by name, and no half view is left."""
    folder = harvest([{"captured_at": "1", "sent": 1}], [{"captured_at": "2", "sent": 2}])
    part = folder / "send_analytics" / "captured_date=2026-11-21" / "b1.ndjson.zst"
    part.write_bytes(damaged(part.read_bytes()))
    with pytest.raises(SinkError, match=r"b1\.ndjson\.zst"):
        write_latest(folder, tmp_path / "out.csv", "csv", temp_directory=tmp_path)
    assert not (tmp_path / "out.csv").exists()


def test_a_folder_that_is_not_there_is_named(harvest, tmp_path):
    """What cannot be written is not blamed on what is read."""
    folder = harvest([{"captured_at": "1", "sent": 1}])
    with pytest.raises(UsageError, match=r"cannot write to the folder .*/nodir: No such file"):
        write_latest(folder, tmp_path / "nodir" / "out.csv", "csv", temp_directory=tmp_path)


def test_nothing_harvested_is_told(tmp_path):
    """A folder without parts is a usage error that says what is missing."""
    with pytest.raises(UsageError, match="nothing was harvested"):
        write_latest(tmp_path, None, "csv", temp_directory=tmp_path)
