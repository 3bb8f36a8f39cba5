"""Parses a message: one pair, a list of pairs, or files of pairs. Pure.

Version 1 has three forms. The events of object stores are accepted too (``store_events``)::

    {"version": 1, "campaign_id": "...", "send_id": "...", "sent_at": "...", "workspace": "..."}
    {"version": 1, "pairs": [{"campaign_id": "...", "send_id": "...", "sent_at": "...", "workspace": "..."}, ...]}
    {"version": 1, "file": "s3://bucket/folder/name.csv"}

``sent_at`` and ``workspace`` are optional. ``"once": true`` requests one immediate reading. Unknown members are
refused, because a later version may define them. Their case and separators do not matter, and the list may be the whole
message. ``message_body`` removes encodings. A reason quotes only the name or the value of a field.

If only some pairs or records of a message are valid, these are accepted.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from harvester.model import DAY_SECONDS, SentPair, is_in_object_store
from harvester.sources.columns import API_ID, normalize_name
from harvester.sources.fields import PAIR_FIELDS, InvalidField, format_problem, parse_pair
from harvester.sources.lists.kinds import COMPRESSION_SUFFIXES, LIST_SUFFIXES, is_list_name
from harvester.sources.messages.message_body import decode_body
from harvester.sources.messages.store_events import NoFileToRead, list_records, load_message, parse_created_object
from harvester.sources.send_times import merge_sends
from harvester.sources.times import parse_time

_MEMBERS = frozenset({"version", "once", "pairs", "file", *PAIR_FIELDS})
_MEMBERS_BY_NAME = {normalize_name(name): name for name in _MEMBERS} | {normalize_name(API_ID): "campaign_id"}
_MAX_QUOTED_URL_CHARACTERS = 200
_MAX_QUOTED_NAME_CHARACTERS = 64

_MAX_REASONS = 10
"""How many invalid parts of a message get a reason. A message may have half a million invalid parts."""


@dataclass(frozen=True, slots=True)
class Message:
    """The content of a message: pairs, or files of pairs, or nothing.

    ``bad`` contains the invalid parts as they were received; the first ones have a reason. ``skipped`` contains the
    reasons why events name no file to read. ``records`` are the parts that name the ``files``, in the same order.
    """

    pairs: tuple[SentPair, ...] = ()
    files: tuple[str, ...] = ()
    once: bool = False
    bad: tuple[tuple[object, str], ...] = ()
    naive_times: int = 0
    skipped: tuple[str, ...] = field(default=(), compare=False)
    records: tuple[object, ...] = field(default=(), compare=False)

    def encode_invalid_parts(self, file_problems: Mapping[str, str] | None = None) -> tuple[bytes, str]:
        """Encode the invalid parts as a message that can be corrected and sent again. Return it and the reason.

        ``file_problems`` maps URLs of files to their problems. Raises ``TypeError`` if the parts are nested too deeply,
        because orjson cannot write all nesting that it parses.
        """
        problems = file_problems or {}
        parts = [record for record, _ in self.bad]
        parts += [record for url, record in zip(self.files, self.records, strict=True) if url in problems]
        body = {"Records": parts} if self.records else {"version": 1, "pairs": parts}
        reasons = [*(reason for _, reason in self.bad[:_MAX_REASONS]), *list(problems.values())[:_MAX_REASONS]]
        return orjson.dumps(body | ({"once": True} if self.once else {})), "; ".join(reasons)


@dataclass(frozen=True, slots=True)
class MessageParser:
    """Parses messages. It accepts only these workspaces, which may change, and only files below these prefixes."""

    workspaces: Collection[str]
    prefixes: Sequence[str]

    def parse(self, body: bytes, *, latest: float) -> Message:
        """Parse a message. Raises ``InvalidField``, also if a time is after ``latest``."""
        message = load_message(decode_body(body))
        records = list_records(message)
        return self._parse_version_1(message, latest) if records is None else self._parse_events(records)

    def _parse_events(self, records: list[object]) -> Message:
        """Return the files that events report, each once. Raises ``InvalidField`` if no event is valid."""
        files: dict[str, object] = {}
        bad: list[tuple[object, str]] = []
        skipped: list[str] = []
        for number, record in enumerate(records, 1):
            try:
                files.setdefault(self._parse_event(record), record)
            except NoFileToRead as error:
                skipped.append(str(error))
            except InvalidField as error:
                if len(records) == 1:
                    raise
                bad.append((record, f"record {number}: {format_reason(error)}" if len(bad) < _MAX_REASONS else ""))
        if not files and not skipped:
            raise InvalidField("", "; ".join(reason for _, reason in bad[:_MAX_REASONS]))
        return Message(
            files=tuple(files), records=tuple(files.values()), bad=tuple(bad), skipped=tuple(skipped[:_MAX_REASONS])
        )

    def _parse_event(self, record: object) -> str:
        """Return the URL of the file that an event reports. Raises ``NoFileToRead`` or ``InvalidField``."""
        url = parse_created_object(record)
        try:
            return self._check_file(url)
        except InvalidField as error:
            raise InvalidField(error.field, f"{error.problem}: {url[:_MAX_QUOTED_URL_CHARACTERS]}") from None

    def _parse_version_1(self, message: dict[str, Any], latest: float) -> Message:
        message = _rename_members(message)
        _check_members(message)
        once = message.get("once", False)
        content = message.keys() - {"version", "once"}
        if content == {"file"}:
            return Message(files=(self._check_file(message["file"]),), records=(message,), once=once)
        if content == {"pairs"}:
            return self._parse_pairs(message["pairs"], once=once, latest=latest)
        if content & {"file", "pairs"}:
            raise InvalidField("", "the message contains more than one of: the fields of a pair, pairs, file")
        pair, naive = self._parse_one_pair({name: message[name] for name in content}, latest)
        return Message(pairs=(pair,), once=once, naive_times=naive)

    def _parse_pairs(self, records: object, *, once: bool, latest: float) -> Message:
        if not isinstance(records, list) or not records:
            raise InvalidField("pairs", "must be a list of at least one pair")
        bad: list[tuple[object, str]] = []
        pairs, naive_times = [], 0
        for number, record in enumerate(records, 1):
            try:
                pair, naive = self._parse_one_pair(record, latest)
            except InvalidField as error:
                bad.append((record, f"pair {number}: {format_reason(error)}" if len(bad) < _MAX_REASONS else ""))
            else:
                pairs.append(pair)
                naive_times += naive
        pairs = merge_sends(pairs, now=latest - DAY_SECONDS)
        return Message(tuple(pairs), once=once, bad=tuple(bad), naive_times=naive_times)

    def _parse_one_pair(self, record: object, latest: float) -> tuple[SentPair, bool]:
        """Return a pair, and whether its time has no zone."""
        if not isinstance(record, dict):
            raise InvalidField("", "it is not an object")
        record = _rename_members(record)
        if unknown := record.keys() - set(PAIR_FIELDS):
            raise InvalidField(min(unknown)[:_MAX_QUOTED_NAME_CHARACTERS], "is unknown in version 1")
        pair = parse_pair(record, self.workspaces)
        sent_at, naive = parse_time(record, "sent_at", latest=latest)
        return SentPair(pair, sent_at), naive

    def _check_file(self, url: object) -> str:
        """Return a URL if it is the unambiguous name of a list below one of the prefixes. Raises ``InvalidField``."""
        if not isinstance(url, str) or not is_in_object_store(url):
            raise InvalidField("file", "must be the URL of a file in a bucket, such as s3://bucket/folder/name.csv")
        # Stores and libraries may interpret these URLs in different ways.
        segments = url.partition("://")[2].split("/")
        if not url.isprintable() or any(mark in url for mark in "%?#\\") or not {"", ".", ".."}.isdisjoint(segments):
            raise InvalidField(
                "file", "must not contain % ? # \\, control characters, or an empty, . or .. path segment"
            )
        if not any(url.startswith(prefix.rstrip("/") + "/") for prefix in self.prefixes):
            raise InvalidField("file", "is not below any of the prefixes of this trigger")
        if not is_list_name(url):
            suffixes = ", ".join((*LIST_SUFFIXES, *COMPRESSION_SUFFIXES))
            raise InvalidField("file", f"must end in one of {suffixes}")
        return url


def _rename_members(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message with the names of version 1, such as ``send_id`` for ``sendId``. Raises ``InvalidField``."""
    if message.keys() <= _MEMBERS:
        return message
    renamed: dict[str, Any] = {}
    for name, value in message.items():
        known = _MEMBERS_BY_NAME.get(normalize_name(name), name)
        if known in renamed:
            raise InvalidField(known[:_MAX_QUOTED_NAME_CHARACTERS], "is named twice in one object; remove one of them")
        renamed[known] = value
    return renamed


def _check_members(message: dict[str, Any]) -> None:
    """Check the version, the names of the members, and ``once``. Raises ``InvalidField``."""
    version = message.get("version")
    if type(version) is not int or version != 1:
        raise InvalidField("version", "is missing" if version is None else "must be 1, the only supported version")
    if unknown := message.keys() - _MEMBERS:
        raise InvalidField(min(unknown)[:_MAX_QUOTED_NAME_CHARACTERS], "is unknown in version 1")
    if not isinstance(message.get("once", False), bool):
        raise InvalidField("once", "must be true or false")


def format_reason(error: InvalidField) -> str:
    """Return the field and its problem as a sentence."""
    return format_problem(error.field, error.problem)
