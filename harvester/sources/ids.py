"""Checks ids, and finds what databases and spreadsheets write in their place. Pure.

Braze creates campaign ids. A send id is created by Braze too, or is the customer's own text of up to 64 characters. So
a text is refused only if a machine wrote it by mistake: a placeholder for a missing value, an error, a number that lost
digits. A text that a person may have chosen is accepted, and a note names it.
"""

import re

from harvester.model import MAX_ID_CHARACTERS

_MISSING = frozenset(
    ["null", "\\n", "nan", "nat", "<na>", "n/a", "(null)", "[null]", "<null>", "<none>", "undefined", "-", "--"]
)
"""Placeholders of databases, pandas, Spark and people for a missing value, in lower case."""

_MISSING_AS_SPELLED = frozenset(["None"])
_AS_TEXT = re.compile(r'="((?:[^"]|"")*)"')

_MACHINE_MADE = (
    (
        re.compile(r"#(n/a|ref!|value!|name\?|div/0!|num!|null!|spill!|calc!|error!|field!|blocked!)"),
        "is a spreadsheet error; correct the formula and export again",
    ),
    (re.compile(r"#{2,}"), "is what a spreadsheet shows if a column is too narrow; widen it and export again"),
    (
        re.compile(r"[+-]?\d[.,]\d+e[+-]?\d{1,3}|[+-]?\de\+\d{1,3}"),
        "is a number that a spreadsheet rounded, so the id is lost; export the column as text",
    ),
)
"""In lower case."""

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
_DOUBTFUL = [(doubt, re.compile(pattern)) for doubt, pattern in _DOUBTS.items()]
_ANY_DOUBT = re.compile("|".join(_DOUBTS.values()))


_ORDINARY = re.compile(r"(?=[^A-Za-z]*[A-Za-z])[0-9A-Za-z][0-9A-Za-z_-]{11,63}")
"""Matches nearly all ids and nothing above, so that most ids need no further check."""


def ordinary(text: str) -> bool:
    """Return whether a text is certainly an id."""
    return _ORDINARY.fullmatch(text) is not None


def unwrapped(text: str) -> str:
    """Give the text within ``="..."``, which keeps spreadsheets from changing it; other text stays as it is."""
    wrapped = _AS_TEXT.fullmatch(text)
    return wrapped[1].replace('""', '"') if wrapped else text


def problem_of(text: str) -> str | None:
    """Say why a text is no id; None where it may be one."""
    if not text.strip():
        return "empty"
    if len(text) > MAX_ID_CHARACTERS:
        return f"longer than {MAX_ID_CHARACTERS} characters"
    if not (text.isascii() and text.isprintable()):
        return f"{text!a} holds characters other than printable ASCII"
    lower = text.lower()
    if lower in _MISSING or text in _MISSING_AS_SPELLED:
        return f"'{text}' stands for a missing value; leave these rows out of the export"
    return next((f"'{text}' {what}" for pattern, what in _MACHINE_MADE if pattern.fullmatch(lower)), None)


def doubt_about(text: str) -> str | None:
    """Return what a text looks like if it may not be an id; None if it looks like one."""
    if _ORDINARY.fullmatch(text):
        return None
    lower = text.lower()
    if not _ANY_DOUBT.fullmatch(lower):
        return None
    return next(doubt for doubt, pattern in _DOUBTFUL if pattern.fullmatch(lower))
