"""The latest view over parts as harvester writes them."""

import csv
import json
import re
from pathlib import Path

import duckdb
import pytest
import zstandard

from harvester.datasets import build_latest_query, list_last_captures, run_latest_query, write_latest
from harvester.datasets.latest_view import MAX_COUNTERS
from harvester.errors import SinkError, UsageError

TOP = Path(__file__).parent.parent.parent
PLACE = {
    "workspace": "default",
    "campaign_id": "c",
    "send_id": "007",
    "date": "2026-11-20",
    "level": "variation",
    "channel": "email",
    "variation_name": "A",
    "variation_api_id": None,
    "reading": "once",
    "verdict": "activity",
}


@pytest.fixture
def harvest(tmp_path):
    """Write parts: ``harvest(rows, rows, ...)`` creates one part for each list."""

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
    """Return the latest view as a list of rows."""

    def view(folder):
        out = tmp_path / "latest.ndjson"
        write_latest(folder, out, "ndjson", temp_directory=tmp_path)
        return [json.loads(line) for line in out.read_text().splitlines()]

    return view


def test_the_newest_capture_wins(harvest, latest):
    """Only the numbers of the last capture appear, in any order of the parts."""
    folder = harvest([{"captured_at": "2026-11-22", "sent": 2}], [{"captured_at": "2026-11-21", "sent": 1}])
    assert [(row["sent"], row["captured_at"]) for row in latest(folder)] == [(2, "2026-11-22")]


def test_late_zeros_hide_no_numbers(harvest, latest):
    """A response of zeros after expiry is newer, but the view keeps the numbers."""
    folder = harvest([{"captured_at": "2026-11-21", "sent": 5}], [{"captured_at": "2026-12-09", "sent": 0}])
    assert [row["sent"] for row in latest(folder)] == [5]


def test_text_stays_text_and_every_counter_has_a_column(harvest, latest):
    """An id keeps its zeros, a date stays text, and a counter of the last part alone has its column."""
    rows = [{"captured_at": "2026-11-21", "date": f"2026-11-{day}"} for day in range(10, 20)]
    folder = harvest(rows, [{"captured_at": "2026-11-21", "date": "2026-11-20", "brand_new": 7, "revenue": 1.5}])
    found = latest(folder)
    assert {row["send_id"] for row in found} == {"007"}
    assert {row["date"] for row in found} == {f"2026-11-{day}" for day in range(10, 21)}
    assert sorted((row["brand_new"], row["revenue"]) for row in found if row["brand_new"]) == [(7, 1.5)]


def test_a_counter_that_is_text_somewhere_breaks_nothing(harvest, latest):
    """Drift in one response leaves the other rows readable."""
    folder = harvest([{"captured_at": "1", "sent": 1}], [{"captured_at": "1", "date": "x", "sent": "many"}])
    assert {str(row["sent"]) for row in latest(folder)} == {"1", "many"}


def test_counters_whose_names_differ_only_in_case_have_columns(harvest, latest):
    """DuckDB ignores case; each counter keeps its numbers in a column of its own."""
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


def test_late_zeros_hide_no_counter_that_is_text(harvest, latest):
    """A counter that Braze now sends as text wins over a later response of zeros."""
    folder = harvest([{"captured_at": "2026-11-21", "sent": "5"}], [{"captured_at": "2026-12-09", "sent": "0"}])
    assert [row["sent"] for row in latest(folder)] == ["5"]


def test_csv_runs_no_formula_and_parquet_has_types(harvest, tmp_path):
    """CSV escapes names that a spreadsheet would run; Parquet keeps numbers as numbers."""
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
    """A part that is truncated, or has bytes behind its end, is refused by name, and no partial view is written."""
    folder = harvest([{"captured_at": "1", "sent": 1}], [{"captured_at": "2", "sent": 2}])
    part = folder / "send_analytics" / "captured_date=2026-11-21" / "b1.ndjson.zst"
    part.write_bytes(damaged(part.read_bytes()))
    with pytest.raises(SinkError, match=r"b1\.ndjson\.zst"):
        write_latest(folder, tmp_path / "out.csv", "csv", temp_directory=tmp_path)
    assert not (tmp_path / "out.csv").exists()


def test_a_missing_output_folder_is_named(harvest, tmp_path):
    """The error names the output folder, not the parts."""
    folder = harvest([{"captured_at": "1", "sent": 1}])
    with pytest.raises(UsageError, match=r"cannot write to the folder .*/nodir: No such file"):
        write_latest(folder, tmp_path / "nodir" / "out.csv", "csv", temp_directory=tmp_path)


def test_a_place_without_parts_is_an_error(tmp_path):
    """The error says that there are no parts."""
    with pytest.raises(UsageError, match="contains no parts"):
        write_latest(tmp_path, None, "csv", temp_directory=tmp_path)


ODD_IDS = ("10:30", "2026-11-20", "6F2C1B9E-3A51-4E0B-9D5B-0C5F3B1E9A77", "007", "1e5", "true", "2026-11-20T08:00:00Z")
"""Ids that DuckDB would take for times, UUIDs and numbers: where all look alike, it changes their type."""


@pytest.mark.parametrize("ids", [ODD_IDS[:1], ODD_IDS[2:3], ODD_IDS])
def test_the_printed_query_equals_the_command(harvest, latest, ids):
    """The query and the command return the same rows for ids that look like other types, zeros and new counters."""
    rows = [{"campaign_id": each, "send_id": each, "variation_name": each, "variation_api_id": each} for each in ids]
    zero = {"sent": 0, "opens": 0, "revenue": 0.0}
    readings = (
        {"captured_at": "2026-11-21", "reading": "d1", "sent": 5, "opens": 1},
        {"captured_at": "2026-11-22", "reading": "d2", "sent": 7, "opens": 2, "revenue": -0.5, "brand_new": 3},
        {"captured_at": "2026-11-23", "reading": "d3", **zero, "unrecognized": '{"Sent":0}'},
    )
    other = {"date": "2026-11-19", **zero}
    counted = {"date": "2026-11-18", "sent": 0, "unrecognized": '{"Sent":5}'}
    day = {"level": "day", "channel": None, "variation_name": None}
    capture = {**day, "level": "capture", "date": None, "ending_at": "2026-11-23T00:00:00.000Z", "since": "10:30"}
    folder = harvest(
        *([{**row, **reading} for row in rows] for reading in readings),
        [{**row, **day, **readings[0]} for row in rows] + [{**row, **capture, "captured_at": "3"} for row in rows],
        [{**row, **other, "captured_at": "4"} for row in rows] + [{**rows[0], **counted, "captured_at": "1"}],
        [{**row, **other, "captured_at": "5"} for row in rows] + [{**rows[0], **counted, **readings[2]}],
    )
    with duckdb.connect() as connection:
        sums = connection.sql(build_latest_query(str(folder))).fetchall()
        found = connection.execute("SELECT to_json(latest) FROM latest").fetchall()
    by_query, by_command = [json.loads(row) for (row,) in found], latest(folder)

    def ordered(rows):
        return sorted(json.dumps(row, sort_keys=True) for row in rows)

    assert ordered(by_query) == ordered(by_command)
    assert list(by_query[0])[:14] == list(by_command[0])[:14]
    assert {row["send_id"] for row in by_query} == set(ids)
    assert sums == [("email", len(ids), 7 * len(ids))]


def test_all_pages_show_the_same_query():
    """The docs contain the query of the one file, with the warning against wrong sums."""
    for page, place in (
        ("docs/loading.md", "harvest"),
        ("docs/buckets.md", "s3://lake/braze"),
    ):
        text = (TOP / page).read_text()
        assert build_latest_query(place) in text, page
        assert "**Each reading is a snapshot; never sum over readings.**" in text, page


EXPORTED = """SELECT channel, count(DISTINCT (workspace, campaign_id, send_id)) AS pairs, sum(sent) AS sent
FROM 'latest.parquet' WHERE level = 'variation' GROUP BY channel ORDER BY sent DESC;
"""
"""The query of the README, which reads what ``harvester latest`` has exported."""


MERGED = "sum(sent) AS total FROM send_analytics_latest FINAL"
"""A query of a table into which a loader merges the parts."""


def test_no_page_shows_a_query_that_counts_readings_twice():
    """All SQL of the pages and of --help is that query, or reads its result."""
    pages = [
        TOP / "README.md",
        TOP / "ARCHITECTURE.md",
        *(TOP / "docs").glob("*.md"),
        *(TOP / "config").rglob("*.toml"),
    ]
    pages += [*(TOP / "harvester" / "cli").glob("*.py"), TOP / "Dockerfile"]
    for page in pages:
        if page.is_file():
            text = page.read_text()
            for place in ("harvest", "s3://lake/braze"):
                text = text.replace(build_latest_query(place), "").replace(EXPORTED, "")
            text = text.replace(MERGED, "")
            assert not re.search(r"(?<!COPY send_analytics )FROM (read_|')|sum\(sent", text), page


def test_a_dataset_of_thousands_of_counters_can_be_read(harvest, latest):
    """Rare counters become text in ``unrecognized``, and common counters keep their columns."""
    new = {f"counter_{number}": number for number in range(MAX_COUNTERS + 100)}
    folder = harvest(
        [{"captured_at": "1", "sent": 1, "opens": 2, **new, "Sent": 5}],
        [{"captured_at": "1", "date": f"{number}", "sent": 3, "opens": 4} for number in range(5)],
        [{"captured_at": "2", "sent": 0, **dict.fromkeys(new, 0)}],
        [{"captured_at": "1", "date": "old", "unrecognized": [7], "late": 1}],
        [{"captured_at": "1", "date": "new", "unrecognized": '{"a":1}'}],
    )
    rows = {row["date"]: row for row in latest(folder)}
    assert (rows["0"]["sent"], rows["0"]["opens"], rows["0"]["unrecognized"]) == (3, 4, None)
    row = rows["2026-11-20"]
    kept = {name: row[name] for name in new if name in row}
    assert (row["sent"], row["opens"], len(row)) == (1, 2, 14 + MAX_COUNTERS + 1)
    assert json.loads(row["unrecognized"]) | kept == new | {"Sent": 5}
    assert rows["new"]["unrecognized"] == '{"a":1}'
    assert json.loads(rows["old"]["unrecognized"]) == {"late": 1, "unrecognized": "[7]"}


def test_a_row_of_megabytes_can_be_read(harvest, latest):
    """A row of 1.5 MB, longer than DuckDB's default limit, is read."""
    folder = harvest([{"captured_at": "1", "sent": 1, "unrecognized": json.dumps({"a": "x" * 1_500_000})}])
    assert [len(row["unrecognized"]) for row in latest(folder)] == [1_500_009]


def test_running_out_of_memory_says_what_to_do(harvest, tmp_path):
    """The error names the option, and does not report a damaged part."""
    folder = harvest([{"captured_at": "1", "date": f"{number}", "sent": 1} for number in range(3000)])
    with pytest.raises(SinkError, match="raise --memory-limit-mb"):
        write_latest(folder, tmp_path / "x", "ndjson", temp_directory=tmp_path, memory_limit_mb=2)


def test_the_query_works_for_a_place_with_a_quote_in_its_name(harvest):
    """A quote in a path does not break the query."""
    folder = harvest([{"captured_at": "1", "sent": 4}])
    odd = folder.rename(folder.with_name("o'harvest"))
    assert "email" in run_latest_query(str(odd))


def test_a_path_is_never_a_pattern(harvest, latest, tmp_path):
    """Folders whose names are patterns to DuckDB are read alone, without their neighbours."""
    for number, name in enumerate(["a*", "[ab]", "it's"]):
        harvest([{"captured_at": "2026-11-21", "sent": 1000}]).rename(tmp_path / f"ab{number}")
        folder = harvest([{"captured_at": "2026-11-21", "sent": number}]).rename(tmp_path / name)
        assert [row["sent"] for row in latest(folder)] == [number]
        assert [each.captures for each in list_last_captures(folder, temp_directory=tmp_path)] == []
        assert f" {number} " in run_latest_query(str(folder))


def test_the_view_is_not_written_through_a_link(harvest, tmp_path):
    """A symbolic link beside the view does not change the file that it points to."""
    folder, victim = harvest([{"captured_at": "2026-11-21", "sent": 1}]), tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".view.ndjson.making").symlink_to(victim)
    write_latest(folder, tmp_path / "view.ndjson", "ndjson", temp_directory=tmp_path)
    assert victim.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir() if "view" in path.name) == [
        ".view.ndjson.making",
        "view.ndjson",
    ]


def read_partitions(folder) -> dict[str, list[dict]]:
    """Return the rows of an export with partitions, by folder."""
    return {
        path.parent.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("*/latest.ndjson"))
    }


def test_an_export_with_partitions_has_one_file_for_each_value(harvest, tmp_path):
    """A value that is no file name is escaped, rows without a value have a folder, and DuckDB reads the column back."""
    folder = harvest([
        {"captured_at": "1", "date": "2026/11", "sent": 1},
        {"captured_at": "1", "date": "2026-11-20", "sent": 2},
        {"captured_at": "1", "date": None, "level": "capture"},
    ])  # fmt: skip
    written = write_latest(folder, tmp_path / "out", "ndjson", partition_by="date", temp_directory=tmp_path)
    found = read_partitions(tmp_path / "out")
    assert list(found) == ["date=2026%2F11", "date=2026-11-20", "date=__HIVE_DEFAULT_PARTITION__"]
    assert written.row_count == 3
    assert "date" not in found["date=2026-11-20"][0]
    rows = duckdb.sql(f"SELECT date, sent FROM read_json('{tmp_path}/out/*/*.ndjson', hive_partitioning = true)")
    assert set(rows.fetchall()) >= {("2026/11", 1), ("2026-11-20", 2)}


def test_since_a_day_only_what_changed_is_written(harvest, latest, tmp_path):
    """A row counts as changed when its numbers are of that day; with partitions, the files have all of their rows."""
    old = [{"captured_at": "2026-11-21T09", "date": f"2026-11-{day}", "sent": 1} for day in (18, 19)]
    other = {"captured_at": "2026-11-21T09", "date": "2026-11-19", "channel": "sms", "sent": 5}
    new = [
        {"captured_at": "2026-11-22T09", "date": "2026-11-19", "sent": 2},
        {"captured_at": "2026-11-22T09", "date": "2026-11-18", "sent": 0},
    ]
    folder = harvest([*old, other], new)
    out = tmp_path / "changed.ndjson"
    write_latest(folder, out, "ndjson", since="2026-11-22", temp_directory=tmp_path)
    assert [json.loads(line)["sent"] for line in out.read_text().splitlines()] == [2]
    write_latest(folder, tmp_path / "p", "ndjson", since="2026-11-22", partition_by="date", temp_directory=tmp_path)
    found = read_partitions(tmp_path / "p")
    assert {name: sorted(row["sent"] for row in rows) for name, rows in found.items()} == {"date=2026-11-19": [2, 5]}


def test_the_view_is_a_table_in_a_database(harvest, tmp_path):
    """A second export replaces the table and no other one; a file that is no database is refused and kept."""
    folder, lake = harvest([{"captured_at": "1", "sent": 3}]), tmp_path / "lake.duckdb"
    with duckdb.connect(lake) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 1 AS a")
    for _ in range(2):
        write_latest(folder, lake, "duckdb", table="braze", temp_directory=tmp_path)
    with duckdb.connect(lake) as connection:
        assert connection.sql("SELECT sent, send_id, a FROM braze, mine").fetchall() == [(3, "007", 1)]
    (tmp_path / "text.duckdb").write_text("no database" * 1000)
    with pytest.raises(UsageError, match=r"cannot write to .*text\.duckdb"):
        write_latest(folder, tmp_path / "text.duckdb", "duckdb", temp_directory=tmp_path)
    assert (tmp_path / "text.duckdb").read_text() == "no database" * 1000
