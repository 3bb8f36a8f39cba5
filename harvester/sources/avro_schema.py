"""Which Avro schemas are read: those whose records can be skipped through in time, and whose wanted fields are small.

A schema is data from outside. A few hundred bytes of it can ask for lists without end of things that take no byte, or
for a record that holds two of the next, thirty times over. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_MAX_NODES = 100_000


class UnreadableAvro(Exception):  # noqa: N818 - a state of the file, not of the program
    """A file that gives no further record: why."""


def check(schema: Any, fields: Sequence[str]) -> None:
    """Raise ``UnreadableAvro`` unless records of a schema can be read for these fields, one at a time."""
    try:
        problem = _problem_of(schema, fields)
    except UnreadableAvro:
        raise
    except Exception as error:  # noqa: BLE001 - a schema can be wrong in any way, too deep among them
        raise UnreadableAvro(f"its schema is damaged ({type(error).__name__})") from None
    if problem:
        raise UnreadableAvro(problem)


def _problem_of(schema: Any, fields: Sequence[str]) -> str:
    if not isinstance(schema, dict) or schema.get("type") != "record":
        return "its schema is not that of a record"
    if _Weighing().weigh(schema, ()).may_be_empty:
        return "its records hold nothing"
    large = [each["name"] for each in schema["fields"] if each["name"] in fields and not _is_small(each["type"])]
    return f"its field {large[0]} is neither text nor a number" if large else ""


def _is_small(schema: Any) -> bool:
    """Whether a value takes about as much memory as bytes in the file."""
    if isinstance(schema, list):
        return all(_is_small(each) for each in schema)
    if isinstance(schema, dict):
        return schema.get("type") in ("enum", "fixed") or _is_small(schema.get("type"))
    return schema in _PRIMITIVES


@dataclass(frozen=True, slots=True)
class _Weight:
    """How many steps a value of a type takes at most, lists and texts apart, and whether it may take no byte."""

    nodes: int
    may_be_empty: bool


@dataclass(slots=True)
class _Weighing:
    """Walks a schema and remembers what its named types weigh."""

    named: dict[str, _Weight] = field(default_factory=dict)

    def weigh(self, schema: Any, around: tuple[str, ...]) -> _Weight:
        """Weigh a type. Raises ``UnreadableAvro`` for one that holds itself, weighs too much, or lists nothing."""
        weight = self._weigh(schema, around)
        if weight.nodes > _MAX_NODES:
            raise UnreadableAvro("its schema asks for too much in one record")
        return weight

    def _weigh(self, schema: Any, around: tuple[str, ...]) -> _Weight:
        if isinstance(schema, str):
            if schema in _PRIMITIVES:
                return _Weight(1, schema == "null")
            return self._reference(_short(schema), around)
        if isinstance(schema, list):
            return _Weight(1 + sum(self.weigh(each, around).nodes for each in schema), may_be_empty=False)
        kind = schema["type"]
        if kind in ("record", "error", "enum", "fixed"):
            return self._define(schema, kind, around)
        if kind in ("array", "map"):
            inside = self.weigh(schema["items" if kind == "array" else "values"], around)
            if kind == "array" and inside.may_be_empty:
                raise UnreadableAvro("its schema lists what takes no byte, so a list of it may never end")
            return _Weight(1 + inside.nodes, may_be_empty=False)
        return self.weigh(kind, around)

    def _define(self, schema: Any, kind: str, around: tuple[str, ...]) -> _Weight:
        name = _short(schema["name"])
        if kind == "enum":
            weight = _Weight(1, may_be_empty=False)
        elif kind == "fixed":
            weight = _Weight(1, schema["size"] < 1)
        else:
            parts = [self.weigh(each["type"], (*around, name)) for each in schema["fields"]]
            weight = _Weight(1 + sum(each.nodes for each in parts), all(each.may_be_empty for each in parts))
        # Namespaces are not told apart: of types whose last names are the same, the worst counts.
        other = self.named.get(name, weight)
        self.named[name] = _Weight(max(weight.nodes, other.nodes), weight.may_be_empty or other.may_be_empty)
        return weight

    def _reference(self, name: str, around: tuple[str, ...]) -> _Weight:
        if name in around:
            raise UnreadableAvro("its schema holds itself")
        return self.named[name]


def _short(name: str) -> str:
    return name.rpartition(".")[2]
