"""Compiles an Avro schema into a decoder that builds the wanted fields of a record and skips all others."""

import struct
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from harvester.sources.avro.binary import UnreadableAvro, advance, read_long, select_branch
from harvester.sources.avro.schema import UUID_BYTES, AvroTypes

Decode = Callable[[bytes, int], tuple[Any, int]]
"""Decodes the value at a position. Returns the value and the position after it."""

Skip = Callable[[bytes, int], int]
"""Returns the position after the value at a position."""

_UNITS_PER_SECOND = {
    f"{prefix}timestamp-{unit}": units
    for prefix in ("", "local-")
    for unit, units in {"millis": 1_000, "micros": 1_000_000, "nanos": 1_000_000_000}.items()
}
_DAY_SECONDS = 86_400


def compile_record_decoder(schema: Any, wanted: Sequence[str]) -> Decode:
    """Return a function that decodes the wanted fields of one record.

    Raises ``UnreadableAvro`` if the schema is damaged, recursive or not a record, or if a wanted field is neither text,
    a number nor a UUID. The function raises ``ValueError``, ``IndexError`` or ``struct.error`` if the data is damaged.
    """
    try:
        steps = _compile_steps(schema, wanted)
    except UnreadableAvro:
        raise
    except Exception as error:  # noqa: BLE001 - a schema can be damaged in any way, or nested too deeply
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


def _compile_steps(schema: Any, wanted: Sequence[str]) -> list[tuple[str | None, Decode | Skip]]:
    """Return a step for each field: its name and its decoder, or None and its skip function."""
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise UnreadableAvro("its schema is not a record")
    types = AvroTypes()
    if types.compile(schema).size == 0:
        raise UnreadableAvro("its records have no content")
    steps: list[tuple[str | None, Decode | Skip]] = []
    for field in schema["fields"]:
        name, field_schema = field["name"], field["type"]
        if name in wanted:
            steps.append((name, _compile_value_decoder(name, field_schema, types)))
        else:
            steps.append((None, types.compile(field_schema).skip))
    return steps


def _compile_value_decoder(name: str, schema: Any, types: AvroTypes) -> Decode:
    """Return a function that decodes text, a number or a UUID. Raises ``UnreadableAvro`` for any other type."""
    if isinstance(schema, list):
        return _compile_union_decoder([_compile_value_decoder(name, each, types) for each in schema])
    if types.is_uuid(schema):
        return _decode_uuid
    if isinstance(schema, dict):
        units = _UNITS_PER_SECOND.get(schema.get("logicalType", ""))
        if units and schema.get("type") == "long":
            return _compile_timestamp_decoder(units)
        if schema.get("logicalType") == "date" and schema.get("type") == "int":
            return _compile_timestamp_decoder(1 / _DAY_SECONDS)
        return _compile_value_decoder(name, schema["type"], types)
    if schema == "float":
        raise UnreadableAvro(f"its field {name} is of type float, which rounds numbers of more than 7 digits")
    if schema not in _DECODERS:
        raise UnreadableAvro(f"its field {name} is neither text, a number nor a UUID")
    return _DECODERS[schema]


def _compile_union_decoder(branches: list[Decode]) -> Decode:
    def decode(data: bytes, at: int) -> tuple[Any, int]:
        branch, at = select_branch(branches, data, at)
        return branch(data, at)

    return decode


def _compile_timestamp_decoder(units_per_second: float) -> Decode:
    """Return a function that decodes a timestamp in seconds."""

    def decode(data: bytes, at: int) -> tuple[float, int]:
        value, at = read_long(data, at)
        return value / units_per_second, at

    return decode


def _decode_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_long(data, at)
    end = advance(data, at, size)
    return data[at:end], end


def _decode_text(data: bytes, at: int) -> tuple[str, int]:
    value, at = _decode_bytes(data, at)
    return value.decode(), at


def _decode_uuid(data: bytes, at: int) -> tuple[str, int]:
    end = advance(data, at, UUID_BYTES)
    return str(UUID(bytes=data[at:end])), end


_DECODERS: dict[Any, Decode] = {
    "null": lambda _, at: (None, at),
    "boolean": lambda data, at: (bool(data[at]), at + 1),
    "int": read_long,
    "long": read_long,
    "double": lambda data, at: (struct.unpack_from("<d", data, at)[0], at + 8),
    "bytes": _decode_bytes,
    "string": _decode_text,
}
