"""Compiles the types of an Avro schema into functions that skip their values.

Schema and data are untrusted. So every step checks the end of the block, and takes time only for the bytes that it
reads. An array of values that have no bytes is skipped in one step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from harvester.sources.avro.binary import UnreadableAvro, advance, read_long, select_branch, skip_bytes, skip_long

_FIXED_SIZES = {"null": 0, "boolean": 1, "float": 4, "double": 8}
UUID_BYTES = 16


class AvroType(NamedTuple):
    """A compiled type: a function that skips a value, and the size in bytes if all values have the same size."""

    skip: Callable[[bytes, int], int]
    size: int | None = None


class AvroTypes:
    """Compiles types, and stores those that have names."""

    def __init__(self) -> None:
        """Start without named types."""
        self._named: dict[str, AvroType] = {}
        self._uuids: set[str] = set()

    def is_uuid(self, schema: Any) -> bool:
        """Return whether a schema defines, or is the name of, a type that stores UUIDs as 16 bytes."""
        if isinstance(schema, dict) and schema.get("type") == "fixed":
            schema = schema["name"]
        return isinstance(schema, str) and _get_local_name(schema) in self._uuids

    def compile(self, schema: Any, enclosing: tuple[str, ...] = ()) -> AvroType:
        """Compile a type inside the records ``enclosing``.

        Raises ``UnreadableAvro``, or any other error if the schema is damaged.
        """
        if isinstance(schema, str):
            return _PRIMITIVES.get(schema) or self._find_named(_get_local_name(schema), enclosing)
        if isinstance(schema, list):
            return _create_union([self.compile(each, enclosing) for each in schema])
        kind = schema["type"]
        if kind == "array":
            return _create_array(self.compile(schema["items"], enclosing))
        if kind == "map":
            return _create_array(_create_sequence([AvroType(skip_bytes), self.compile(schema["values"], enclosing)]))
        if kind in ("record", "error", "enum", "fixed"):
            return self._compile_named(schema, enclosing)
        return self.compile(kind, enclosing)

    def _find_named(self, name: str, enclosing: tuple[str, ...]) -> AvroType:
        if name in enclosing:
            raise UnreadableAvro("its schema is recursive")
        return self._named[name]

    def _compile_named(self, schema: dict[str, Any], enclosing: tuple[str, ...]) -> AvroType:
        name = _get_local_name(schema["name"])
        if schema["type"] == "enum":
            compiled = AvroType(skip_long)
        elif schema["type"] == "fixed":
            compiled = _create_fixed(int(schema["size"]))
            if schema.get("logicalType") == "uuid" and compiled.size == UUID_BYTES:
                self._uuids.add(name)
        else:
            compiled = _create_sequence([self.compile(each["type"], (*enclosing, name)) for each in schema["fields"]])
        self._named[name] = compiled
        return compiled


def _get_local_name(name: str) -> str:
    return name.rpartition(".")[2]


def _create_fixed(size: int) -> AvroType:
    if size < 0:
        raise ValueError("a negative size")
    return AvroType(lambda data, at: advance(data, at, size), size)


_PRIMITIVES = {name: _create_fixed(size) for name, size in _FIXED_SIZES.items()} | {
    "int": AvroType(skip_long),
    "long": AvroType(skip_long),
    "bytes": AvroType(skip_bytes),
    "string": AvroType(skip_bytes),
}


def _create_sequence(parts: list[AvroType]) -> AvroType:
    """Create the type of values that follow one another."""
    if all(each.size is not None for each in parts):
        return _create_fixed(sum(each.size or 0 for each in parts))
    skips = [each.skip for each in parts if each.size != 0]

    def skip(data: bytes, at: int) -> int:
        for each in skips:
            at = each(data, at)
        return at

    return AvroType(skip)


def _create_union(branches: list[AvroType]) -> AvroType:
    def skip(data: bytes, at: int) -> int:
        branch, at = select_branch(branches, data, at)
        return branch.skip(data, at)

    return AvroType(skip)


def _create_array(items: AvroType) -> AvroType:
    def skip(data: bytes, at: int) -> int:
        while True:
            count, at = read_long(data, at)
            if not count:
                return at
            if count < 0:  # the size of the items in bytes follows
                size, at = read_long(data, at)
                at = advance(data, at, size)
            elif items.size is not None:
                at = advance(data, at, count * items.size)
            else:
                for _ in range(count):
                    at = items.skip(data, at)

    return AvroType(skip)
