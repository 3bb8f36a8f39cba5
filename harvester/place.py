"""Finds the kind of place that a text names: a file or folder of this machine, a bucket, a pipe, or a database. Pure.

Every setting, option and argument that names a place is checked here before anything is opened or created. Otherwise
a text of an unsupported kind would become a folder of that name. An error repeats only the scheme of the text, since a
URL may contain credentials.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from harvester.errors import UsageError
from harvester.model import STORE_SCHEMES, is_in_object_store

BUCKET_FORM = "s3://bucket/folder (or gs://, az://, abfs://, abfss://)"
FILE_FORM = "a path on a disk of this machine, such as /data/braze"

DATABASE_FORM = "postgresql://user@host/database"
ESCAPE_HINT = "write each of % / ? # @ in the password as %25 %2F %3F %23 %40"

_SCHEME = re.compile(r"\s*((?:[A-Za-z][A-Za-z0-9+.-]{0,30}:)+)/")
_KNOWN = re.compile(
    rf"\s*((?:{'|'.join(STORE_SCHEMES)}|file|sqlite|jdbc|postgres|postgresql|mysql|https?|redis|amqps?|nats)):",
    re.IGNORECASE,
)
_CONNECTION = re.compile(r"\b(?:password|dbname|accountkey|sharedaccesssignature)\s*=", re.IGNORECASE)
_REMOTE = re.compile(r"^[^/\s]+@[^/\s]+:")
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._$-]*")
_CONTAINER_OF_ACCOUNT = re.compile(r"[A-Za-z0-9$][A-Za-z0-9$-]*@[A-Za-z0-9.-]+")
_UNEXPANDED = re.compile(r"^(?:~|\$\{?[A-Za-z_])")
_DATABASE = re.compile(r"postgres(?:ql)?://")
_LIKE_DATABASE = re.compile(r"(?:jdbc:)?p(?:os|g|sql)[a-z0-9+]*(?::|//)", re.IGNORECASE)
"""The beginning of texts that are probably meant as the URL of a database, such as ``postgres:/`` or ``psql://``."""
_URL = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^:@/?#\s]*)(?::[^@/?#\s]*)?@)?(?P<hosts>[^@/?#\s]*)"
    r"(?:/(?P<database>[^/?#\s]*))?(?:\?[^#\s]*)?"
)
_SERVICE = re.compile(r"[?&](service=[A-Za-z0-9._-]+)(?:&|$)")
_KINDS = (
    (re.compile(r"^\s*:memory:"), "a database in memory is lost when the process ends"),
    (_CONNECTION, "connection strings are not supported; write the URL of a database"),
    (_REMOTE, "a place on another machine is not supported"),
    (_UNEXPANDED, "only a shell expands ~ and $VARIABLE, so write the full path"),
)
"""Patterns of unsupported places that are not URLs, and the problem to report for each."""


class PlaceKind(Enum):
    """The kind of a place."""

    FILE = "file"
    BUCKET = "bucket"
    PIPE = "pipe"


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """The URL of a PostgreSQL database, in libpq's form; ``url`` may contain a password."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        """Return the URL without password and parameters, except for the name of a service of libpq."""
        found = _URL.fullmatch(self.url)
        if found is None:
            return "a PostgreSQL database"
        user = f"{found['user']}@" if found["user"] else ""
        service = _SERVICE.search(self.url)
        return f"postgresql://{user}{found['hosts']}/{found['database'] or ''}{'?' + service[1] if service else ''}"


LedgerLocation: TypeAlias = Path | DatabaseUrl
"""Where a ledger is: a file of this machine, or a database. ``str`` of it is its name in texts."""


def classify_place(text: str, what: str, *, buckets: bool = False, pipe: bool = False) -> PlaceKind:
    """Return the kind of a place. ``what`` names the option or argument.

    Raises ``UsageError``, which repeats only the scheme of the text.
    """
    problem = find_place_problem(text, buckets=buckets, pipe=pipe)
    if problem is not None:
        raise UsageError(f"{what}: {problem}")
    if text == "-":
        return PlaceKind.PIPE
    return PlaceKind.BUCKET if is_in_object_store(text) else PlaceKind.FILE


def parse_local_path(text: str, what: str) -> Path:
    """Return the path of a file or folder of this machine. Raises ``UsageError`` for a place of another kind."""
    classify_place(text, what)
    return Path(text)


def parse_ledger_location(text: str, what: str) -> LedgerLocation:
    """Return the location of a ledger; ``what`` names the option or setting.

    Raises ``UsageError``, which repeats nothing of a URL, because it may contain a password.
    """
    problem = find_location_problem(text)
    if problem is not None:
        raise UsageError(f"{what}: {problem}")
    return DatabaseUrl(text.strip()) if _DATABASE.match(text.strip()) else Path(text)


def find_location_problem(text: str) -> str | None:
    """Return why a text names no place for a ledger; None if it names one."""
    url = text.strip()  # a variable from a mounted secret may end with a line break
    if not _LIKE_DATABASE.match(url):
        problem = find_place_problem(text)
        return f"{problem}, or {DATABASE_FORM}" if problem else None
    if not _DATABASE.match(url):
        return f"this is not the URL of a PostgreSQL database; write {DATABASE_FORM}"
    if _URL.fullmatch(url) is None or not url.isprintable():
        return f"this is not the URL of a PostgreSQL database; write {DATABASE_FORM}, and {ESCAPE_HINT}"
    return None


def find_place_problem(text: str, *, files: bool = True, buckets: bool = False, pipe: bool = False) -> str | None:
    """Return why a text names none of these kinds of place; None if it names one."""
    wanted = ", or ".join([FILE_FORM] * files + [BUCKET_FORM] * buckets)
    if not text.strip():
        return f"it is empty; name {wanted}"
    if any(ord(each) < 32 or ord(each) == 127 or 0xD800 <= ord(each) < 0xE000 for each in text):
        return "its name contains a control character or bytes that are not UTF-8; rename it"
    if is_in_object_store(text):
        return _find_bucket_problem(text) if buckets else f"a bucket cannot be used here; name {wanted}"
    if text == "-":
        problem = None if pipe else "- (standard input or output) cannot be used here"
    else:
        problem = _find_unsupported_kind(text) or (None if files else "must be a place in a bucket")
    return f"{problem}; name {wanted}" if problem else None


def _find_unsupported_kind(text: str) -> str | None:
    """Return which unsupported kind of place a text names; None for the path of a file or folder."""
    found = _SCHEME.match(text) or _KNOWN.match(text)
    if found is None:
        return next((problem for sign, problem in _KINDS if sign.search(text)), None)
    scheme = found[1].rstrip(":").rpartition(":")[2].lower()
    if scheme in STORE_SCHEMES:
        return f"write {scheme}:// in lower case, without spaces before it"
    if scheme.startswith("postgres"):
        return "a database cannot be used here"
    return f"{scheme}: is not a supported kind of place"


def _find_bucket_problem(url: str) -> str | None:
    """Return why the URL of a place in a bucket cannot be used; ambiguous URLs are refused."""
    scheme, _, rest = url.rstrip("/").partition("://")
    bucket, _, path = rest.partition("/")
    if not bucket:
        return f"it names no bucket; write {BUCKET_FORM}"
    named = _BUCKET.fullmatch(bucket)
    if not named and not (scheme.startswith("abfs") and _CONTAINER_OF_ACCOUNT.fullmatch(bucket)):
        return (
            "the name of the bucket must not contain credentials, a port or special characters; "
            f"write {BUCKET_FORM}, and give credentials in the variables of your cloud"
        )
    if any(mark in rest for mark in "?#%\\"):
        return (
            "it must not contain a query, fragment, signature, % or \\; "
            f"write {BUCKET_FORM}, and give credentials in the variables of your cloud"
        )
    if path and not {"", ".", ".."}.isdisjoint(path.split("/")):
        return "its path contains an empty segment, . or ..; remove it"
    return None
