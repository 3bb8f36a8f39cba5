"""Table definitions, the latest view and MERGE, for each reader."""

import json

import duckdb
import jsonschema
import pytest

from benchmarks.loading.dataset import write_readings
from harvester.braze.columns import DOCUMENTED_COUNTERS
from harvester.commands.schema import list_columns
from harvester.datasets import FORMATS, Statement, build_statement, write_latest
from harvester.datasets.dialects import DIALECTS


@pytest.fixture
def dataset(tmp_path):
    """Parts of three readings, and the columns of the dataset."""
    parts = write_readings(tmp_path / "harvest")
    return parts, list_columns(tmp_path / "harvest", tmp_path)


def find_latest(connection, name: str) -> list[str]:
    """Return the rows of a table without the nulls, in order."""
    rows = connection.execute(f"SELECT to_json({name}) FROM {name}").fetchall()
    return sorted(format_row(json.loads(row)) for (row,) in rows)


def format_row(row: dict) -> str:
    """Return a row without its nulls as text."""
    return json.dumps({name: value for name, value in row.items() if value is not None}, sort_keys=True)


def test_merging_parts_in_any_order_gives_the_latest_view(dataset, tmp_path):
    """The parts one by one, in both orders and each twice, give the rows of harvester latest; so does the view."""
    parts, columns = dataset
    write_latest(tmp_path / "harvest", tmp_path / "latest.ndjson", "ndjson", temp_directory=tmp_path)
    expected = sorted(format_row(json.loads(line)) for line in (tmp_path / "latest.ndjson").read_text().splitlines())
    merge = build_statement(Statement.MERGE, "duckdb", columns, "send_analytics")
    for order in (parts, parts[::-1]):
        with duckdb.connect() as connection:
            connection.execute(build_statement(Statement.TABLE, "duckdb", columns, "send_analytics"))
            for part in (*order, *order):
                connection.execute(f"COPY send_analytics FROM '{part}' (FORMAT json)")
                connection.execute(merge)
                connection.execute("DELETE FROM send_analytics")
            assert find_latest(connection, "send_analytics_latest") == expected
    with duckdb.connect() as connection:
        connection.execute(build_statement(Statement.TABLE, "duckdb", columns, "send_analytics"))
        connection.execute(f"COPY send_analytics FROM '{tmp_path}/harvest/send_analytics/*/*' (FORMAT json)")
        connection.execute(build_statement(Statement.LATEST, "duckdb", columns, "send_analytics"))
        assert find_latest(connection, "send_analytics_latest") == expected


def test_every_row_is_valid_by_the_json_schema(dataset):
    """The JSON Schema accepts the rows of a dataset, and refuses a text in a counter."""
    parts, columns = dataset
    schema = json.loads(build_statement(Statement.TABLE, "jsonschema", columns, ""))
    validator = jsonschema.Draft202012Validator(schema)
    rows = duckdb.execute("SELECT json::VARCHAR FROM read_ndjson_objects(?)", [[str(part) for part in parts]])
    found = [json.loads(row) for (row,) in rows.fetchall()]
    assert found
    for row in found:
        validator.validate(row)
    assert not validator.is_valid(found[0] | {"sent": "5"})
    assert not validator.is_valid(found[0] | {"sent": 5.5})


def test_new_counters_of_a_place_are_columns(dataset):
    """Each reader gets the documented counters, and those that only this dataset has, with the types of their names."""
    _, columns = dataset
    types = {each.name: each.type.name for each in columns}
    assert (types["sent"], types["revenue"], types["brand_new"], types["send_id"]) == (
        "INTEGER", "DECIMAL", "INTEGER", "TEXT",
    )  # fmt: skip
    for kind in FORMATS:
        text = build_statement(Statement.TABLE, kind, columns, "t").lower()
        for name in (*DOCUMENTED_COUNTERS, "brand_new", "unrecognized", "date"):
            assert name in text, (kind, name)


@pytest.mark.parametrize("kind", DIALECTS)
def test_a_new_counter_can_be_a_reserved_word(kind, tmp_path):
    """A counter named like a keyword is quoted in every statement, so no statement becomes invalid."""
    write_readings(tmp_path / "harvest", order=3)
    columns = list_columns(tmp_path / "harvest", tmp_path)
    for statement in Statement:
        text = build_statement(statement, kind, columns, "t").lower()
        found = [text[at - 1] for at in range(len(text)) if text.startswith("order", at) and text[at + 5] != " "]
        assert found
        assert set(found) <= {'"', "`"}
