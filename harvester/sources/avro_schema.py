"""Compiles the types of an Avro schema into functions that skip their values.

Schema and data are untrusted, so every step is checked against the end of the block and costs no more than the bytes it
reads. An array of values without bytes is skipped in one step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from harvester.sources.avro_binary import UnreadableAvro, advance, read_long, select_branch, skip_bytes, skip_long

_FIXED_SIZES = {"null": 0, "boolean": 1, "float": 4, "double": 8}


class AvroType(NamedTuple):
    """A compiled type: how to skip a value, and the size of every value in bytes if it is always the same."""

    skip: Callable[[bytes, int], int]
    size: int | None = None


class AvroTypes:
    """Compiles types, and keeps those that have names."""

    def __init__(self) -> None:
        """Compile nothing yet."""
        self._named: dict[str, AvroType] = {}

    def compile(self, schema: Any, enclosing: tuple[str, ...] = ()) -> AvroType:
        """Compile a type inside the records ``enclosing``. Raises ``UnreadableAvro`` or, for damage, anything."""
        if isinstance(schema, str):
            return _PRIMITIVES.get(schema) or self._find_named(_local_name(schema), enclosing)
        if isinstance(schema, list):
            return _union([self.compile(each, enclosing) for each in schema])
        kind = schema["type"]
        if kind == "array":
            return _array(self.compile(schema["items"], enclosing))
        if kind == "map":
            return _array(_sequence([AvroType(skip_bytes), self.compile(schema["values"], enclosing)]))
        if kind in ("record", "error", "enum", "fixed"):
            return self._compile_named(schema, enclosing)
        return self.compile(kind, enclosing)

    def _find_named(self, name: str, enclosing: tuple[str, ...]) -> AvroType:
        if name in enclosing:
            raise UnreadableAvro("its schema is recursive")
        return self._named[name]

    def _compile_named(self, schema: dict[str, Any], enclosing: tuple[str, ...]) -> AvroType:
        name = _local_name(schema["name"])
        if schema["type"] == "enum":
            compiled = AvroType(skip_long)
        elif schema["type"] == "fixed":
            compiled = _fixed(int(schema["size"]))
        else:
            compiled = _sequence([self.compile(each["type"], (*enclosing, name)) for each in schema["fields"]])
        self._named[name] = compiled
        return compiled


def _local_name(name: str) -> str:
    return name.rpartition(".")[2]


def _fixed(size: int) -> AvroType:
    if size < 0:
        raise ValueError("a negative size")
    return AvroType(lambda data, at: advance(data, at, size), size)


_PRIMITIVES = {name: _fixed(size) for name, size in _FIXED_SIZES.items()} | {
    "int": AvroType(skip_long),
    "long": AvroType(skip_long),
    "bytes": AvroType(skip_bytes),
    "string": AvroType(skip_bytes),
}


def _sequence(parts: list[AvroType]) -> AvroType:
    """Combine types whose values follow one another."""
    if all(each.size is not None for each in parts):
        return _fixed(sum(each.size or 0 for each in parts))
    skips = [each.skip for each in parts if each.size != 0]

    def skip(data: bytes, at: int) -> int:
        for each in skips:
            at = each(data, at)
        return at

    return AvroType(skip)


def _union(branches: list[AvroType]) -> AvroType:
    def skip(data: bytes, at: int) -> int:
        branch, at = select_branch(branches, data, at)
        return branch.skip(data, at)

    return AvroType(skip)


def _array(items: AvroType) -> AvroType:
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
