"""Decodes records of an Avro schema: builds the wanted fields, and skips all others.

A schema and its data come from outside, so every step is checked against the end of the block and costs no more than
the bytes it takes. A list of things that take no byte is passed over in one step. (Avro 1.11 specification.)
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

Decode = Callable[[bytes, int], tuple[Any, int]]
Skip = Callable[[bytes, int], int]

_FIXED_SIZES = {"null": 0, "boolean": 1, "float": 4, "double": 8}
_IN_SECONDS = {"timestamp-millis": 1_000, "timestamp-micros": 1_000_000}


class UnreadableAvro(Exception):  # noqa: N818 - a state of the file, not of the program
    """No further record can be read from a file. The text says why."""


class _Type(NamedTuple):
    """A type: how to pass over a value of it, and how many bytes each takes where all take as many."""

    skip: Skip
    size: int | None = None


def record_decoder(schema: Any, wanted: Sequence[str]) -> Decode:
    """Return what reads one record of a schema: from where it begins, its wanted fields and where it ends.

    Raises ``UnreadableAvro`` for a schema that is damaged, is not that of a record, holds itself, or whose wanted
    fields are not plain values. Reading raises ``ValueError``, ``IndexError`` or ``struct.error`` for damaged data.
    """
    try:
        if not isinstance(schema, dict) or schema.get("type") != "record":
            _refuse("its schema is not a record")
        types = _Types()
        steps: list[tuple[str | None, Decode | Skip]] = []
        whole = types.define(schema, ())
        if whole.size == 0:
            _refuse("its records have no content")
        for field in schema["fields"]:
            name, kind = field["name"], field["type"]
            steps.append((name, _reader(name, kind)) if name in wanted else (None, types.find(kind, ()).skip))
    except UnreadableAvro:
        raise
    except Exception as error:  # noqa: BLE001 - a schema can be wrong in any way, too deep among them
        raise UnreadableAvro(f"its schema is damaged ({type(error).__name__})") from None

    def decode(data: bytes, at: int) -> tuple[dict[str, Any], int]:
        record: dict[str, Any] = {}
        for name, step in steps:
            if name is None:
                at = step(data, at)  # type: ignore[assignment]
            else:
                record[name], at = step(data, at)  # type: ignore[misc]
        return record, at

    return decode


def _refuse(why: str) -> NoReturn:
    raise UnreadableAvro(why)


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """Read a number as Avro writes it: seven bits a byte, lowest first, the sign in the last bit."""
    byte = data[at]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    value, shift = byte & 0x7F, 7
    while byte >= 0x80:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            raise ValueError("a number that is too long")
    return (value >> 1) ^ -(value & 1), at + 1


def _skip_long(data: bytes, at: int) -> int:
    while data[at] >= 0x80:
        at += 1
    return at + 1


def _skip_bytes(data: bytes, at: int) -> int:
    size, at = read_long(data, at)
    return _within(data, at, size)


def _within(data: bytes, at: int, size: int) -> int:
    """Go ahead by a size that the data names. Raises ``ValueError`` beyond the end."""
    if not 0 <= size <= len(data) - at:
        raise ValueError("a length beyond the end of the block")
    return at + size


class _Types:
    """Compiles types, and remembers those that have names."""

    def __init__(self) -> None:
        self._named: dict[str, _Type] = {}

    def find(self, schema: Any, around: tuple[str, ...]) -> _Type:
        """Compile a type; ``around`` names the records that it stands in. Raises ``UnreadableAvro``, ``KeyError``."""
        if isinstance(schema, str):
            return _PLAIN.get(schema) or self._reference(_short(schema), around)
        if isinstance(schema, list):
            return _union([self.find(each, around) for each in schema])
        kind = schema["type"]
        if kind == "array":
            return _array(self.find(schema["items"], around))
        if kind == "map":
            return _array(_sequence([_Type(_skip_bytes), self.find(schema["values"], around)]))
        if kind in ("record", "error", "enum", "fixed"):
            return self.define(schema, around)
        return self.find(kind, around)

    def _reference(self, name: str, around: tuple[str, ...]) -> _Type:
        if name in around:
            _refuse("its schema is recursive")
        return self._named[name]

    def define(self, schema: dict[str, Any], around: tuple[str, ...]) -> _Type:
        """Compile a type that has a name."""
        name = _short(schema["name"])
        if schema["type"] == "enum":
            made = _Type(_skip_long)
        elif schema["type"] == "fixed":
            made = _fixed(int(schema["size"]))
        else:
            made = _sequence([self.find(each["type"], (*around, name)) for each in schema["fields"]])
        self._named[name] = made
        return made


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _fixed(size: int) -> _Type:
    if size < 0:
        raise ValueError("a negative size")
    return _Type(lambda data, at: _within(data, at, size), size)


def _sequence(parts: list[_Type]) -> _Type:
    """Put types one after another."""
    if all(each.size is not None for each in parts):
        return _fixed(sum(each.size or 0 for each in parts))
    skips = [each.skip for each in parts if each.size != 0]

    def skip(data: bytes, at: int) -> int:
        for each in skips:
            at = each(data, at)
        return at

    return _Type(skip)


_PLAIN = {
    **{name: _fixed(size) for name, size in _FIXED_SIZES.items()},
    "int": _Type(_skip_long), "long": _Type(_skip_long), "bytes": _Type(_skip_bytes), "string": _Type(_skip_bytes),
}  # fmt: skip


def _union(branches: list[_Type]) -> _Type:
    def skip(data: bytes, at: int) -> int:
        index, at = read_long(data, at)
        branch: _Type = _branch(branches, index)
        return branch.skip(data, at)

    return _Type(skip)


def _branch(branches: list[Any], index: int) -> Any:
    if not 0 <= index < len(branches):
        raise ValueError("a branch that its union does not have")
    return branches[index]


def _array(items: _Type) -> _Type:
    def skip(data: bytes, at: int) -> int:
        while True:
            count, at = read_long(data, at)
            if not count:
                return at
            if count < 0:  # then its size in bytes follows
                size, at = read_long(data, at)
                at = _within(data, at, size)
            elif items.size is not None:
                at = _within(data, at, count * items.size)
            else:
                for _ in range(count):
                    at = items.skip(data, at)

    return _Type(skip)


def _reader(name: str, schema: Any) -> Decode:
    """Return what reads a plain value. Raises ``UnreadableAvro`` for another."""
    if isinstance(schema, list):
        branches = [_reader(name, each) for each in schema]

        def read(data: bytes, at: int) -> tuple[Any, int]:
            index, at = read_long(data, at)
            value: tuple[Any, int] = _branch(branches, index)(data, at)
            return value

        return read
    if isinstance(schema, dict):
        per_second = _IN_SECONDS.get(schema.get("logicalType", ""))
        return _in_seconds(per_second) if per_second and schema.get("type") == "long" else _reader(name, schema["type"])
    if schema not in _READERS:
        raise UnreadableAvro(f"its field {name} is neither text nor a number")
    return _READERS[schema]


def _in_seconds(per_second: int) -> Decode:
    def read(data: bytes, at: int) -> tuple[int, int]:
        value, at = read_long(data, at)
        return value // per_second, at

    return read


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_long(data, at)
    end = _within(data, at, size)
    return data[at:end], end


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    value, at = _read_bytes(data, at)
    return value.decode(), at


_READERS: dict[Any, Decode] = {
    "null": lambda _, at: (None, at),
    "boolean": lambda data, at: (bool(data[at]), at + 1),
    "int": read_long,
    "long": read_long,
    "float": lambda data, at: (struct.unpack_from("<f", data, at)[0], at + 4),
    "double": lambda data, at: (struct.unpack_from("<d", data, at)[0], at + 8),
    "bytes": _read_bytes,
    "string": _read_text,
}
