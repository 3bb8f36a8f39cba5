"""Reads the rows of one list: detects its compression, its kind and its encoding, and reads it accordingly.

The first bytes decide, then the suffix of the name. Text that begins with a bracket is JSON, and other text is CSV.
"""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harvester.errors import UsageError
from harvester.model import BadLine
from harvester.sources.lists.compression import Content, DamagedFile, open_content
from harvester.sources.lists.csv_rows import read_csv_rows
from harvester.sources.lists.json_rows import read_json_rows
from harvester.sources.lists.kinds import Kind, find_binary_kind, find_kind
from harvester.sources.lists.lines import PeekedText
from harvester.sources.lists.list_options import ListOptions
from harvester.sources.lists.rows import ListFormat, Row
from harvester.sources.lists.typed_rows import read_avro_rows, read_parquet_rows
from harvester.sources.lists.workbook import read_workbook_rows
from harvester.sources.temporary_folder import create_temporary_folder

_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF_32_MARKS = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")


def read_rows(
    name: str, file: BinaryIO, path: Path | None, options: ListOptions, found: ListFormat
) -> Iterator[Row | BadLine | None]:
    """Yield the rows of a list. A None means that reading continues. ``path`` is its file on disk, if it has one.

    If the rest of a list is damaged, it is one bad line. Raises ``UsageError`` for a list that cannot be read.
    """
    content = open_content(file)
    kind = find_binary_kind(content.head)
    if kind is None and find_kind(name) in (Kind.PARQUET, Kind.AVRO, Kind.EXCEL):
        kind = find_kind(name)
    if options.sheet is not None and kind is not Kind.EXCEL:
        raise UsageError(f"{name}: it is not an Excel workbook, so it has no sheet {options.sheet!r}; remove --sheet")
    if kind is None:
        yield from _read_text_rows(name, content, options, found)
        return
    found.details += [kind, *([content.compression] if content.compression else [])]
    if kind is Kind.AVRO:
        yield from read_avro_rows(name, content.stream, options, found)
        return
    with _open_on_disk(name, content, path) as local_path:
        read = read_workbook_rows if kind is Kind.EXCEL else read_parquet_rows
        yield from read(name, local_path, options, found)


def _read_text_rows(
    name: str, content: Content, options: ListOptions, found: ListFormat
) -> Iterator[Row | BadLine | None]:
    encoding = _detect_encoding(name, content.head)
    # Bytes that are not UTF-8 become surrogates, which are invalid in ids.
    errors = "replace" if encoding == "utf-16" else "surrogateescape"
    last_line = 0
    with io.TextIOWrapper(content.stream, encoding=encoding, errors=errors, newline="") as file:
        text = PeekedText(file)
        try:
            kind = Kind.JSON if find_kind(name) is Kind.JSON or _begins_with_bracket(text) else Kind.CSV
            found.details += [kind, *([content.compression] if content.compression else [])]
            found.details += ["UTF-16"] if encoding == "utf-16" else []
            read = read_json_rows if kind is Kind.JSON else read_csv_rows
            for row in read(name, text, options, found):
                if row is not None:
                    last_line = row.line + row.lines - 1
                yield row
        except DamagedFile as error:
            position = f"after line {last_line}" if last_line else "at all"
            yield BadLine(name, last_line, "", f"the file cannot be read {position}: {error}", "")


def _detect_encoding(name: str, head: bytes) -> str:
    """Return the encoding of a text. Raises ``UsageError`` unless it is UTF-8, or UTF-16 with a byte order mark."""
    if head.startswith(_UTF_32_MARKS):
        raise UsageError(f"{name}: its encoding is UTF-32; save it as UTF-8")
    if head.startswith(_UTF_16_MARKS):
        return "utf-16"
    if b"\0" in head[:2]:
        raise UsageError(f"{name}: it is neither UTF-8 nor UTF-16 with a byte order mark; save it as UTF-8")
    return "utf-8-sig"


def _begins_with_bracket(text: PeekedText) -> bool:
    return "".join(text.peek_lines()).lstrip().startswith(("{", "["))


@contextmanager
def _open_on_disk(name: str, content: Content, path: Path | None) -> Iterator[Path]:
    """Yield the path of the content. It is copied to a temporary folder if it is compressed or has no file."""
    if path is not None and content.compression is None and path.is_file():
        yield path
        return
    with create_temporary_folder() as folder:
        copy = folder / "list"
        try:
            with copy.open("wb") as target:
                shutil.copyfileobj(content.stream, target)
        except DamagedFile as error:
            raise UsageError(f"{name}: {error}") from None
        yield copy
