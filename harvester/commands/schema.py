"""The columns of the parts: those of every dataset, and the new counters of one."""

from pathlib import Path

from harvester.braze.columns import DOCUMENTED_COUNTERS, FIXED_COLUMNS, UNRECOGNIZED, is_column, is_decimal
from harvester.datasets import Column, ColumnType, find_column_types


def list_columns(folder: Path | None, temp_directory: Path) -> list[Column]:
    """Return the columns in the order of the rows, with the new counters of the parts in a folder.

    A counter has the type of its name. If parts of an older version contain values of a wider type, it has that type.
    Raises ``UsageError`` if the folder contains no part, and ``SinkError`` if a part is damaged.
    """
    types = {name: ColumnType.DECIMAL if is_decimal(name) else ColumnType.INTEGER for name in DOCUMENTED_COUNTERS}
    seen = {} if folder is None else find_column_types(folder, temp_directory=temp_directory)
    for name, found in seen.items():
        if is_column(name):
            expected = ColumnType.DECIMAL if is_decimal(name) else ColumnType.INTEGER
            types[name] = max(expected, found, key=lambda each: each.value)
    texts = (*FIXED_COLUMNS, "ending_at", "since")
    return [
        *(Column(name, ColumnType.TEXT) for name in texts),
        *(Column(name, types[name]) for name in sorted(types)),
        Column(UNRECOGNIZED, ColumnType.TEXT),
    ]
