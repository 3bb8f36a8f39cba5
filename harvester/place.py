"""What kind of place a text names: a file or folder of this machine, a bucket, or a pipe. Pure.

Every setting, option and argument that names a place is checked here, before anything is opened or made: a text of a
kind that is not supported would otherwise become a folder of that name. A refusal repeats nothing of the text but its
scheme, since a URL may hold credentials.
"""

import re
from enum import Enum
from pathlib import Path

from harvester.errors import UsageError
from harvester.model import STORE_SCHEMES, in_store

A_BUCKET = "s3://bucket/folder (or gs://, az://, abfs://, abfss://)"
A_FILE = "a path on a disk of this machine, such as /data/braze"

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
_KINDS = (
    (re.compile(r"^\s*:memory:"), "a database in memory would be gone with the process"),
    (_CONNECTION, "connection strings are not supported yet"),
    (_REMOTE, "a place on another machine is not supported"),
    (_UNEXPANDED, "only a shell replaces ~ and $VARIABLE at the beginning of a path, so write it out"),
)
"""Signs of other kinds in what is no URL, and what is said of each."""


class PlaceKind(Enum):
    """What a text names."""

    FILE = "file"
    BUCKET = "bucket"
    PIPE = "pipe"


def kind_of(text: str, what: str, *, buckets: bool = False, pipe: bool = False) -> PlaceKind:
    """Give the kind of a place; buckets and pipes only where they are of use. ``what`` names the option or argument.

    Raises ``UsageError``, which repeats nothing of the text but its scheme.
    """
    problem = refusal(text, buckets=buckets, pipe=pipe)
    if problem is not None:
        raise UsageError(f"{what}: {problem}")
    if text == "-":
        return PlaceKind.PIPE
    return PlaceKind.BUCKET if in_store(text) else PlaceKind.FILE


def local_path(text: str, what: str) -> Path:
    """Give the path of a file or folder of this machine. Raises ``UsageError`` for a place of another kind."""
    kind_of(text, what)
    return Path(text)


def refusal(text: str, *, files: bool = True, buckets: bool = False, pipe: bool = False) -> str | None:
    """Say in a sentence why a text names no place of these kinds; None if it names one."""
    wanted = " or ".join([A_FILE] * files + [A_BUCKET] * buckets)
    if not text.strip():
        return f"it is empty; name {wanted}"
    if any(ord(each) < 32 or ord(each) == 127 or 0xD800 <= ord(each) < 0xE000 for each in text):
        return "its name holds a control character, or bytes that are not UTF-8; name it plainly"
    if in_store(text):
        return _bucket_refusal(text) if buckets else f"a bucket cannot be used here; name {wanted}"
    if text == "-":
        problem = None if pipe else "- (standard input or output) cannot be used here"
    else:
        problem = _unknown_kind(text) or (None if files else "must be a place in a bucket")
    return f"{problem}; name {wanted}" if problem else None


def _unknown_kind(text: str) -> str | None:
    """Say which kind of place is not supported; None for the path of a file or folder."""
    found = _SCHEME.match(text) or _KNOWN.match(text)
    if found is None:
        return next((problem for sign, problem in _KINDS if sign.search(text)), None)
    scheme = found[1].rstrip(":").rpartition(":")[2].lower()
    if scheme in STORE_SCHEMES:
        return f"a bucket is written {scheme}://, in small letters and without blanks before it"
    if scheme.startswith("postgres"):
        return "PostgreSQL is not supported yet (a later version will bring it)"
    return f"{scheme}: is no kind of place that is supported"


def _bucket_refusal(url: str) -> str | None:
    """Say why the URL of a place in a bucket cannot be used: whatever could be read in two ways is refused."""
    scheme, _, rest = url.rstrip("/").partition("://")
    bucket, _, path = rest.partition("/")
    if not bucket:
        return f"must be a place in a bucket, and names none; write {A_BUCKET}"
    named = _BUCKET.fullmatch(bucket)
    if not named and not (scheme.startswith("abfs") and _CONTAINER_OF_ACCOUNT.fullmatch(bucket)):
        return (
            "credentials, ports and marks do not belong before the bucket's name, nor into it; "
            f"write {A_BUCKET}, and give credentials in the variables of your cloud"
        )
    if any(mark in rest for mark in "?#%\\"):
        return (
            "a place has no query, fragment, signature, % or \\ in its name; "
            f"write {A_BUCKET}, and give credentials in the variables of your cloud"
        )
    if path and not {"", ".", ".."}.isdisjoint(path.split("/")):
        return "its name holds an empty step, . or ..; name it plainly"
    return None
