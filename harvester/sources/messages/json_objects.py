"""Parses JSON. It refuses objects with a repeated member, because a parser would silently use the last one. Pure."""

import contextlib
import json
from collections import Counter

import orjson

from harvester.sources.fields import InvalidField

_MAX_QUOTED_NAME_CHARACTERS = 64


def load_json(text: bytes) -> object:
    """Parse a JSON message. Raises ``InvalidField`` if it is not JSON, or if an object has a repeated member."""
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidField("", f"the message is not JSON: {error}") from None
    if _may_repeat_members(text, value):
        _check_members_unique(text)
    return value


def _may_repeat_members(text: bytes, value: object) -> bool:
    """Return whether a text may repeat a member. If it does, it has more quotes than the JSON of its parsed value.

    With this check, most texts need not be parsed twice.
    """
    with contextlib.suppress(orjson.JSONEncodeError):  # orjson cannot write all nesting that it parses
        return b"\\u" in text or orjson.dumps(value).count(b'"') != text.count(b'"')
    return True


def _check_members_unique(text: bytes) -> None:
    def check(members: list[tuple[str, object]]) -> dict[str, object]:
        unique = dict(members)
        if len(unique) < len(members):
            name = Counter(name for name, _ in members).most_common(1)[0][0]
            raise InvalidField(name[:_MAX_QUOTED_NAME_CHARACTERS], "is named twice in one object; remove one of them")
        return unique

    try:
        json.loads(text, object_pairs_hook=check, parse_int=str, parse_float=str)
    except RecursionError:
        raise InvalidField("", "the message is nested too deeply") from None
