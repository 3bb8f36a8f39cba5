"""Reads the rows of a list whose cells have types: Parquet."""

from collections.abc import Iterator
from pathlib import Path

from harvester.datasets import ParquetFile
from harvester.sources.columns import find_columns
from harvester.sources.list_options import ListOptions
from harvester.sources.rows import ListFormat, Row


def read_parquet_rows(name: str, path: Path, options: ListOptions, found: ListFormat) -> Iterator[Row]:
    """Yield the rows of a Parquet file. Raises ``UsageError`` for a file without the required columns."""
    with ParquetFile(path) as file:
        columns = find_columns(name, file.columns, options.columns)
        found.set_columns(columns)
        names = found.columns
        rows = file.read_rows([file.columns[each.position] for each in columns])
        for number, cells in enumerate(rows, 1):
            fields = {column.field: cell for column, cell in zip(columns, cells, strict=True)}
            yield Row(number, 1, fields, names, fields.items())
