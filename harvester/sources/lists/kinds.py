"""The kinds of lists, by the suffix of a name and by the first bytes of a file. Pure."""

from enum import StrEnum


class Kind(StrEnum):
    """A kind of list, as users call it."""

    CSV = "CSV"
    JSON = "JSON"
    PARQUET = "Parquet"
    AVRO = "Avro"
    EXCEL = "Excel"


KINDS_BY_SUFFIX = {
    ".csv": Kind.CSV,
    ".tsv": Kind.CSV,
    ".txt": Kind.CSV,
    ".ndjson": Kind.JSON,
    ".jsonl": Kind.JSON,
    ".json": Kind.JSON,
    ".parquet": Kind.PARQUET,
    ".avro": Kind.AVRO,
    ".xlsx": Kind.EXCEL,
}
"""The suffixes of lists. Their case does not matter."""

COMPRESSION_SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2"}
"""The suffixes that may follow, and the compressions that they name."""

LIST_SUFFIXES = tuple(KINDS_BY_SUFFIX)

_KINDS_BY_FIRST_BYTES = {
    b"PAR1": Kind.PARQUET,
    b"Obj\x01": Kind.AVRO,
    b"PK\x03\x04": Kind.EXCEL,
    b"\xd0\xcf\x11\xe0": Kind.EXCEL,
}
HEAD_BYTES = 4
"""The number of bytes at the beginning of a file that tell its kind, compression and encoding."""


def find_kind(name: str) -> Kind | None:
    """Return the kind that the suffix of a name tells, without a suffix of a compression, or None."""
    lower = name.lower()
    for suffix in COMPRESSION_SUFFIXES:
        lower = lower.removesuffix(suffix)
    return next((kind for suffix, kind in KINDS_BY_SUFFIX.items() if lower.endswith(suffix)), None)


def is_list_name(name: str) -> bool:
    """Return whether a name has the suffix of a list. The suffix of a compression is sufficient."""
    return find_kind(name) is not None or name.lower().endswith(tuple(COMPRESSION_SUFFIXES))


def find_binary_kind(head: bytes) -> Kind | None:
    """Return the kind of a file that is not text by its first bytes, or None."""
    return next((kind for magic, kind in _KINDS_BY_FIRST_BYTES.items() if head.startswith(magic)), None)
