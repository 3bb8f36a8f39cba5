"""Reads the rows of a list whose cells have types: Parquet and Avro."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harvester.model import BadLine
from harvester.sources.avro.binary import UnreadableAvro
from harvester.sources.avro.reader import AvroFile
from harvester.sources.columns import find_columns
from harvester.sources.lists.list_options import ListOptions
from harvester.sources.lists.rows import ListFormat, Row


def read_parquet_rows(name: str, path: Path, options: ListOptions, found: ListFormat) -> Iterator[Row]:
    """Yield the rows of a Parquet file. Raises ``UsageError`` for a file without the required columns."""
    from harvester.datasets import ParquetFile  # noqa: PLC0415 - a dozen modules, and few lists are in Parquet

    with ParquetFile(path) as file:
        columns = find_columns(name, file.columns, options.columns)
        found.set_columns({each.field: each.name for each in columns}, file.columns)
        names = found.columns
        rows = file.read_rows([file.columns[each.position] for each in columns])
        for number, cells in enumerate(rows, 1):
            fields = {column.field: cell for column, cell in zip(columns, cells, strict=True)}
            yield Row(number, 1, fields, names, fields.items())


def read_avro_rows(name: str, stream: BinaryIO, options: ListOptions, found: ListFormat) -> Iterator[Row | BadLine]:
    """Yield the records of an Avro file. The rest of a damaged file is one bad line.

    Raises ``UsageError`` for a file without the required columns.
    """
    number = 0
    try:
        file = AvroFile(stream)
        columns = find_columns(name, file.field_names, options.columns)
        found.set_columns({each.field: each.name for each in columns}, file.field_names)
        for number, record in enumerate(file.read_records([each.name for each in columns]), 1):
            fields = {each.field: record.get(each.name) for each in columns}
            yield Row(number, 1, fields, found.columns, fields.items())
    except UnreadableAvro as error:
        position = f"after record {number}" if number else "at all"
        yield BadLine(name, number, "", f"the file cannot be read {position}: {error}", "")
