"""Checks ids, and detects texts that databases and spreadsheets write instead of an id. Pure.

Braze creates campaign ids. Braze or the customer creates send ids: any text of up to 64 characters. So a text is
invalid only if a program wrote it by mistake. Examples are a placeholder for a missing value, an error, and a number
that lost digits. If a person may have chosen a doubtful text, it is accepted, and a note reports it.
"""

import re

from harvester.model import MAX_ID_CHARACTERS

_PLACEHOLDERS = frozenset(
    ["null", "\\n", "nan", "nat", "<na>", "n/a", "(null)", "[null]", "<null>", "<none>", "undefined", "-", "--"]
)
"""Texts that databases, pandas, Spark and people write for a missing value, in lower case."""

_CASE_SENSITIVE_PLACEHOLDERS = frozenset(["None"])
_SPREADSHEET_TEXT = re.compile(r'="((?:[^"]|"")*)"')

_MACHINE_ERRORS = (
    (
        re.compile(r"#(n/a|ref!|value!|name\?|div/0!|num!|null!|spill!|calc!|error!|field!|blocked!)"),
        "a spreadsheet error; correct the formula and export again",
    ),
    (re.compile(r"#{2,}"), "which a spreadsheet shows if a column is too narrow; widen it and export again"),
    (
        re.compile(r"[+-]?\d[.,]\d+e[+-]?\d{1,3}|[+-]?\de\+\d{1,3}"),
        "a number that a spreadsheet rounded, so the id is lost; export the column as text",
    ),
)
"""Patterns for texts in lower case, with their meaning."""

_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DOUBTS = {
    "a word for a missing value": r"none|nil|na|empty|unknown|missing|tbd|\?+|true|false",
    "a number that became a fraction": r"\d+\.0+",
    "a rounded number": r"\de-?\d{2}|\d{12,}0{4,}",
    "a date that a spreadsheet made": r"\d{1,2}[./]\d{1,2}[./]\d{2,4}"
    rf"|\d{{1,2}}-({_MONTHS})(-\d{{2,4}})?|({_MONTHS})-\d{{2,4}}",
    "a spreadsheet's mark for text": r"'.*",
    "a spreadsheet's formula": r"=.*",
    "a placeholder": r"[0-]+",
}
_DOUBT_PATTERNS = [(doubt, re.compile(pattern)) for doubt, pattern in _DOUBTS.items()]
_ANY_DOUBT_PATTERN = re.compile("|".join(_DOUBTS.values()))


_ORDINARY_ID = re.compile(r"(?=[^A-Za-z]*[A-Za-z])[0-9A-Za-z][0-9A-Za-z_-]{11,63}")
"""Matches nearly all ids and no text that another pattern matches, so that most ids need no other check."""


def is_ordinary_id(text: str) -> bool:
    """Return whether a text certainly is an id. For most ids, this is the only check."""
    return _ORDINARY_ID.fullmatch(text) is not None


def unwrap_spreadsheet_text(text: str) -> str:
    """Return the text inside ``="..."``, which prevents spreadsheets from changing it. Return other text unchanged."""
    match = _SPREADSHEET_TEXT.fullmatch(text)
    return match[1].replace('""', '"') if match else text


def is_placeholder(text: str) -> bool:
    """Return whether a text stands for a missing value, such as ``NULL``."""
    return text.lower() in _PLACEHOLDERS or text in _CASE_SENSITIVE_PLACEHOLDERS


def find_id_problem(text: str) -> str | None:
    """Return why a text is not an id, such as ``is empty``, or None if it may be an id."""
    if not text.strip():
        return "is empty"
    if len(text) > MAX_ID_CHARACTERS:
        return f"is longer than {MAX_ID_CHARACTERS} characters"
    if not (text.isascii() and text.isprintable()):
        return f"contains characters other than printable ASCII: {text!a}"
    lower = text.lower()
    if is_placeholder(text):
        return f"is '{text}', which stands for a missing value; leave these rows out of the export"
    return next((f"is '{text}', {meaning}" for pattern, meaning in _MACHINE_ERRORS if pattern.fullmatch(lower)), None)


def find_id_doubt(text: str) -> str | None:
    """Return what a text looks like if it is probably not an id, or None if it looks like an id."""
    if _ORDINARY_ID.fullmatch(text):
        return None
    lower = text.lower()
    if not _ANY_DOUBT_PATTERN.fullmatch(lower):
        return None
    return next(doubt for doubt, pattern in _DOUBT_PATTERNS if pattern.fullmatch(lower))
