"""Masks secrets in texts from outside, in any encoding.

A secret is registered when it is read. Afterwards ``scrub`` masks it in every text: plain, with JSON, HTML, URL or
Python escapes, as hex or base64, in any case. It also masks fragments of at least half of the secret. Texts are
scrubbed when they are received, before they are truncated. The log, the page and the command line scrub them again.

A *form* is one of the spellings to look for. A *run* is the longest match of a part of a form at a position of a text.
"""

import base64
import binascii
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from urllib.parse import unquote

MASK = "[secret]"
SHORT_SECRET_CHARACTERS = 8
"""A shorter secret may be a part of an ordinary word. It is masked only as a separate word, and not in log lines."""

_MIN_SECRET_CHARACTERS = 3
_MAX_ESCAPE_LAYERS = 3
_MAX_RUN_CHARACTERS = 16
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_ESCAPES = re.compile(
    r"%(?:25)*(?P<url>[0-9A-Fa-f]{2})|\\+u\{?0*(?P<json>[0-9A-Fa-f]{2,4})\}?|\\+x(?P<python>[0-9A-Fa-f]{2})"
    r"|&#0*(?P<decimal>\d{1,6});?|&#[xX]0*(?P<html>[0-9A-Fa-f]{1,5});?|&(?P<name>amp|lt|gt|quot|apos);"
    r"|\\+(?P<octal>[0-3][0-7]{2})|\\+(?P<escaped>[\"'/\\])"
)
_HTML_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_USERINFO = re.compile(r"(?<=://)[^\s/@\"']*:[^\s/@\"']*(?=@)")
_DATABASE = re.compile(r"(?i)\s*postgres(ql)?://")
_QUERY_SECRET = re.compile(r"(?i)[?&](?:password|sslpassword|passwd|pass|token|secret|sig|key)=([^&#\s]+)")

_FEW_BLOCKS = 400
_CACHED_TEXTS = 2048
_MAX_CACHED_CHARACTERS = 600

_registered: set[str] = set()
_blocks: defaultdict[int, dict[str, list[tuple[str, int]]]] = defaultdict(dict)
"""Parts of all forms by their length, each with the forms that contain it and its offset there.

Every run contains one of them. With many secrets, the parts of a text are looked up among these, so that the time does
not depend on the number of secrets.
"""
_short_pattern: list[re.Pattern[str]] = []
"""One pattern for all short secrets, built at its first use after a new one was registered."""


def register_secret(secret: str) -> None:
    """Mask a secret from now on. A secret of one or two characters is not masked: texts would become unreadable."""
    if len(secret) < _MIN_SECRET_CHARACTERS or secret in _registered:
        return
    _registered.add(secret)
    if len(secret) < SHORT_SECRET_CHARACTERS:
        _short_pattern.clear()
    else:
        for form in _list_forms(secret):
            for offset, size in _list_blocks(form):
                _blocks[size].setdefault(form[offset : offset + size], []).append((form, offset))
    _scrub_cached.cache_clear()


def register_url_secrets(url: str) -> None:
    """Mask the passwords and tokens of the URL of a broker or a database, escaped or not.

    Several URLs of brokers can be separated by commas. A user without a password is the token of a broker, but the name
    of a user of a database.
    """
    of_database = _DATABASE.match(url) is not None
    for each in {url.partition("?")[0]} if of_database else {url, *url.split(",")}:
        userinfo, at, _ = each.partition("://")[2].rpartition("@")
        password = userinfo.partition(":")[2]
        found = [password or ("" if of_database else userinfo)] if at else []
        for secret in found + _QUERY_SECRET.findall(url if of_database else each):
            register_secret(secret)
            register_secret(unquote(secret))


def scrub(text: str, *, min_characters: int = _MIN_SECRET_CHARACTERS) -> str:
    """Return a text in which every registered secret of at least ``min_characters`` is masked."""
    return (_scrub_cached if len(text) <= _MAX_CACHED_CHARACTERS else _scrub)(text, min_characters)


def _scrub(text: str, min_characters: int) -> str:
    text = _USERINFO.sub("***", text)
    masked: list[tuple[int, int]] = []
    plain, origin = text, None
    for _ in range(_MAX_ESCAPE_LAYERS):
        lowered = plain.translate(_LOWER) if not plain.isascii() else plain.lower()
        for start, end in _find_runs(lowered, min_characters):
            masked.append((start, end) if origin is None else (origin[start], origin[end]))
        decoded = _decode_layer(plain, origin)
        if decoded is None:
            break
        plain, origin = decoded
    return _replace_runs(text, masked) if masked else text


_scrub_cached = lru_cache(_CACHED_TEXTS)(_scrub)
"""The same sentences are scrubbed again and again: for each snapshot, each page and each log line."""


def scrub_foreign(text: str, *, length: int = 200) -> str:
    """Prepare foreign text for a log or a page: mask secrets, truncate, escape control characters."""
    return scrub(text)[:length].encode("unicode_escape").decode()


def _list_forms(secret: str) -> Iterator[str]:
    """Yield the forms of a secret in lower case: the secret itself, hex, and base64 at each offset."""
    data = secret.encode("utf-8", "surrogatepass")
    yield secret.translate(_LOWER)
    yield binascii.hexlify(data).decode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data)
        cut_off = 4 if (shift + len(data)) % 3 else 0  # the last characters depend on the text after the secret
        inner = encoded[(0, 2, 3)[shift] : len(encoded) - cut_off].decode().lower()
        if len(inner) >= SHORT_SECRET_CHARACTERS:
            yield inner
            yield from {inner.translate({ord("+"): "-", ord("/"): "_"})} - {inner}


def _find_runs(lowered: str, min_characters: int) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each run of a secret in a text."""
    if min_characters < SHORT_SECRET_CHARACTERS:
        yield from (found.span(1) for found in _get_short_pattern().finditer(lowered))
    for size, blocks in _blocks.items():
        for block in _find_blocks(blocks, size, lowered):
            for form, offset in blocks[block]:
                yield from _find_runs_around(block, form, offset, lowered)


def _find_blocks(blocks: Mapping[str, object], size: int, lowered: str) -> Iterable[str]:
    """Return the blocks of one length that a text contains, by the cheaper of two searches."""
    if len(blocks) <= _FEW_BLOCKS:
        return filter(lowered.__contains__, blocks)
    return blocks.keys() & {lowered[at : at + size] for at in range(len(lowered) - size + 1)}


def _get_short_pattern() -> re.Pattern[str]:
    if not _short_pattern:
        short = (each.translate(_LOWER) for each in _registered if len(each) < SHORT_SECRET_CHARACTERS)
        words = "|".join(re.escape(each) for each in sorted(short, key=len, reverse=True)) or r"\b\B"
        _short_pattern.append(re.compile(rf"(?<![A-Za-z0-9])(?=({words})(?![A-Za-z0-9]))"))
    return _short_pattern[0]


def _get_min_run(form: str) -> int:
    """Return the minimum length of a run of a form that is masked."""
    return min(max(SHORT_SECRET_CHARACTERS, len(form) // 2), _MAX_RUN_CHARACTERS, len(form))


def _list_blocks(form: str) -> Iterator[tuple[int, int]]:
    """Yield the start and length of the blocks of a form. Each run of the minimum length contains one of them."""
    step = _get_min_run(form) // 2
    for offset in range(0, len(form) - step + 1, step):
        yield offset, step


def _find_runs_around(block: str, form: str, offset: int, lowered: str) -> Iterator[tuple[int, int]]:
    """Yield the runs of a form around a block of it that are long enough to mask."""
    min_run = _get_min_run(form)
    at = lowered.find(block)
    while at >= 0:
        start, end = _extend_run(form, offset, lowered, at, len(block))
        if end - start >= min_run:
            yield start, end
        at = lowered.find(block, max(at + 1, end if end - start >= min_run else 0))


def _extend_run(form: str, offset: int, lowered: str, at: int, size: int) -> tuple[int, int]:
    """Extend a found block in both directions as far as the text is equal to the form."""
    start, end = at, at + size
    while start > 0 and offset > 0 and lowered[start - 1] == form[offset - 1]:
        start, offset = start - 1, offset - 1
    beyond = offset + end - start
    while end < len(lowered) and beyond < len(form) and lowered[end] == form[beyond]:
        end, beyond = end + 1, beyond + 1
    return start, end


def _decode_layer(text: str, origin: list[int] | None) -> tuple[str, list[int]] | None:
    """Undo one layer of escapes. Returns the text, and the original position of each character and of the end.

    Returns None if the text contains no escapes. ``origin`` contains the positions that an earlier layer returned.
    """
    if "%" not in text and "\\" not in text and "&" not in text:
        return None
    pieces: list[str] = []
    positions: list[int] = []
    before = 0
    for found in _ESCAPES.finditer(text):
        pieces += [text[before : found.start()], _decode_character(found)]
        positions += [*range(before, found.start()), found.start()]
        before = found.end()
    if not pieces:
        return None
    pieces.append(text[before:])
    positions += range(before, len(text) + 1)
    return "".join(pieces), positions if origin is None else [origin[each] for each in positions]


def _decode_character(found: re.Match[str]) -> str:
    kind = found.lastgroup or ""
    digits = found[kind]
    if kind == "name":
        return _HTML_ENTITIES[digits]
    if kind == "escaped":
        return digits
    number = int(digits, {"decimal": 10, "octal": 8}.get(kind, 16))
    return chr(number) if number < 0x110000 else "?"


def _replace_runs(text: str, masked: list[tuple[int, int]]) -> str:
    kept, before = [], 0
    for start, end in sorted(masked):
        if start >= before:
            kept += [text[before:start], MASK]
        before = max(before, end)
    return "".join([*kept, text[before:]])
