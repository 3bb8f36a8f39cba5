"""Property tests: a list that a common library writes, in any of its dialects, is read back as it was."""

import csv
import gzip
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvester.sources.columns import ACCEPTED_NAMES, find_field
from harvester.sources.id_checks import find_id_problem, unwrap_spreadsheet_text
from tests.support.lists import NOW, read_list

FIELDS = ("campaign_id", "send_id", "sent_at")


def is_unchanged(text):
    """Return whether an id is read as it is: it has no blanks around it, and no program wrote it by mistake."""
    return text == unwrap_spreadsheet_text(text.strip()) and find_id_problem(text) is None and find_field(text) is None


IDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20).filter(is_unchanged)
TIMES = st.none() | st.integers(1, 10**9).map(
    lambda milliseconds: datetime.fromtimestamp(NOW, UTC) - timedelta(milliseconds=milliseconds)
)
# Python's csv module leaves a carriage return without quotes, which ends a line.
NOTES = st.text(st.sampled_from("a\";,|\t\n #[{'\\é\u2028\U0001f600"), max_size=6)
ROWS = st.lists(st.tuples(IDS, IDS, TIMES, NOTES), min_size=1, max_size=6, unique_by=lambda row: row[:2])
NAMES = st.tuples(*(st.sampled_from(ACCEPTED_NAMES[field]) for field in FIELDS)).flatmap(
    lambda names: st.sampled_from([str.upper, str.title, lambda name: name.replace("_", " ")]).map(
        lambda spell: [*map(spell, names), "Note"]
    )
)


def write_csv(data, rows, names):
    """Write with Python's csv module."""
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=data.draw(st.sampled_from(",;\t|")),
        lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])),
        quoting=data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    writer.writerows([names, *rows])
    return text.getvalue().encode(data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))


def write_pandas_csv(data, rows, names):
    """Write CSV with pandas, which has its own texts for missing values."""
    import pandas as pd  # noqa: PLC0415 - slow, and every process of the tests imports this module

    frame = pd.DataFrame(rows, columns=names)
    missing = data.draw(st.sampled_from(["", "NULL", "NaN", "\\N"]))
    return frame.to_csv(index=data.draw(st.booleans()), sep=data.draw(st.sampled_from(",;\t")), na_rep=missing).encode()


def write_pandas_json(data, rows, names):
    """Write JSON with pandas: objects on lines or in an array."""
    import pandas as pd  # noqa: PLC0415 - slow, and every process of the tests imports this module

    frame = pd.DataFrame(rows, columns=names)
    unit, lines = data.draw(st.sampled_from(["ms", "us", "ns"])), data.draw(st.booleans())
    return frame.to_json(orient="records", lines=lines, date_format="iso", date_unit=unit).encode()


def write_pandas_excel(data, rows, names):
    """Write a workbook with pandas."""
    import pandas as pd  # noqa: PLC0415 - slow, and every process of the tests imports this module

    file = io.BytesIO()
    without_zones = [(*row[:2], row[2] and row[2].replace(tzinfo=None), "") for row in rows]
    options = {"strings_to_formulas": False, "strings_to_urls": False}
    with pd.ExcelWriter(file, engine="xlsxwriter", engine_kwargs={"options": options}) as writer:
        pd.DataFrame(without_zones, columns=names).to_excel(writer, index=False)
    return file.getvalue()


def write_polars(data, rows, names):
    """Write with polars in one of its formats."""
    import polars as pl  # noqa: PLC0415 - slow, and every process of the tests imports this module

    schema = [(names[0], pl.String), (names[1], pl.String), (names[2], pl.Datetime("ms", "UTC")),
              (names[3], pl.String)]  # fmt: skip
    frame, file = pl.DataFrame(rows, schema=schema, orient="row"), io.BytesIO()
    write = data.draw(st.sampled_from([frame.write_csv, frame.write_ndjson, frame.write_json, frame.write_parquet]))
    write(file)
    return file.getvalue()


def write_duckdb(data, rows, names):
    """Write with DuckDB in one of its formats."""
    form = data.draw(st.sampled_from(["CSV", "CSV, DELIMITER ';'", "CSV, NULLSTR '\\N'", "JSON, ARRAY", "PARQUET"]))
    with duckdb.connect() as connection:
        columns = ", ".join(f'"{name}" {"TIMESTAMP" if number == 2 else "TEXT"}' for number, name in enumerate(names))
        connection.execute(f"CREATE TABLE t ({columns})")
        without_zones = [(*row[:2], row[2] and row[2].replace(tzinfo=None), row[3]) for row in rows]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", without_zones)
        path = data.folder / "list"
        connection.execute(f"COPY t TO '{path}' (FORMAT {form})")
        return path.read_bytes()


def write_fastavro(data, rows, names):
    """Write with fastavro, whose names are more limited, with one of its codecs."""
    names = [name.replace(" ", "_") for name in names]
    time = {"type": "long", "logicalType": data.draw(st.sampled_from(["timestamp-millis", "timestamp-micros"]))}
    types = ["string", ["null", "string"], ["null", time], "string"]
    fields = [{"name": name, "type": kind} for name, kind in zip(names, types, strict=True)]
    file = io.BytesIO()
    records = [dict(zip(names, row, strict=True)) for row in rows]
    codec = data.draw(st.sampled_from(["null", "deflate", "bzip2"]))
    fastavro.writer(file, {"type": "record", "name": "sends", "fields": fields}, records, codec=codec)
    return file.getvalue()


class Draw:
    """Draws the options of a writer, and has a folder for it."""

    def __init__(self, data, folder: Path) -> None:
        """Draw from ``data``."""
        self.draw, self.folder = data.draw, folder


@pytest.mark.parametrize(
    ("write", "examples"),
    [(write_csv, 20), (write_pandas_csv, 10), (write_pandas_json, 10), (write_pandas_excel, 2), (write_polars, 12),
     (write_duckdb, 10), (write_fastavro, 8)],
)  # fmt: skip
def test_a_written_list_is_read_back(tmp_path, write, examples):
    """It comes from standard input, so only the content tells its kind."""

    @settings(max_examples=examples)
    @given(rows=ROWS, names=NAMES, data=st.data())
    def read_back(rows, names, data):
        content = write(Draw(data, tmp_path), rows, names)
        if data.draw(st.booleans()):
            content = gzip.compress(content)
        pairs, bad, _ = read_list(content)
        assert bad == []
        expected = {row[:2]: row[2] and row[2].timestamp() for row in rows}
        assert pairs.keys() == expected.keys()
        assert all(pairs[pair] == pytest.approx(time, abs=0.0011) for pair, time in expected.items())

    read_back()


@settings(max_examples=10)
@given(rows=ROWS, separators=st.tuples(st.sampled_from(["", " "]), st.sampled_from([None, 1])))
def test_json_of_the_standard_library_is_read_back(rows, separators):
    """It may be indented."""
    blank, indent = separators
    names = ["campaignId", "sendId", "sentAt", "note"]
    records = [dict(zip(names, [*row[:2], row[2] and row[2].isoformat(), row[3]], strict=True)) for row in rows]
    text = json.dumps(records, indent=indent, separators=("," + blank, ":" + blank))
    pairs, bad, _ = read_list(text)
    assert (list(pairs), bad) == ([row[:2] for row in rows], [])
