"""Loads JSON and refuses objects that name a member twice: a parser would silently keep the last one. Pure."""

import contextlib
import json
from collections import Counter

import orjson

from harvester.sources.fields import InvalidField

_MAX_QUOTED_NAME_CHARACTERS = 64


def load_json(text: bytes) -> object:
    """Parse a JSON message. Raises ``InvalidField`` for other text, and for a member that is named twice."""
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidField("", f"the message is not JSON: {error}") from None
    if _may_repeat_members(text, value):
        _check_members_unique(text)
    return value


def _may_repeat_members(text: bytes, value: object) -> bool:
    """Return whether a text may name a member twice: it then has more quotes than its value has when written again.

    This avoids parsing most texts a second time.
    """
    with contextlib.suppress(orjson.JSONEncodeError):  # orjson parses deeper JSON than it writes
        return b"\\u" in text or orjson.dumps(value).count(b'"') != text.count(b'"')
    return True


def _check_members_unique(text: bytes) -> None:
    def check(members: list[tuple[str, object]]) -> dict[str, object]:
        unique = dict(members)
        if len(unique) < len(members):
            repeated = Counter(name for name, _ in members).most_common(1)[0][0]
            raise InvalidField(
                repeated[:_MAX_QUOTED_NAME_CHARACTERS], "is named twice in one object; leave one of them out"
            )
        return unique

    try:
        json.loads(text, object_pairs_hook=check, parse_int=str, parse_float=str)
    except RecursionError:
        raise InvalidField("", "the message is nested too deeply") from None
