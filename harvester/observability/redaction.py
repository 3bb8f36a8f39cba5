"""Masks secrets in texts from outside, in any encoding.

A secret is registered when it is read. From then on ``scrub`` masks it in every text: plain, with JSON, HTML, URL or
Python escapes, as hex or base64, in any case, and fragments of at least half its length. Texts are scrubbed when they
are received, before they are truncated. The log, the page and the command line scrub them again.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from urllib.parse import unquote

MASK = "[secret]"
SHORT = 8
"""A shorter secret may be part of an ordinary word, so it is masked only as a separate word, in texts from outside."""

_LEAST_CHARACTERS = 3
_LAYERS = 3
_MOST_RUN = 16
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_ESCAPES = re.compile(
    r"%(?:25)*(?P<url>[0-9A-Fa-f]{2})|\\+u\{?0*(?P<json>[0-9A-Fa-f]{2,4})\}?|\\+x(?P<python>[0-9A-Fa-f]{2})"
    r"|&#0*(?P<decimal>\d{1,6});?|&#[xX]0*(?P<html>[0-9A-Fa-f]{1,5});?|&(?P<name>amp|lt|gt|quot|apos);"
    r"|\\+(?P<octal>[0-3][0-7]{2})|\\+(?P<escaped>[\"'/\\])"
)
_NAMES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_USERINFO = re.compile(r"(?<=://)[^\s/@\"']*:[^\s/@\"']*(?=@)")
_IN_QUERY = re.compile(r"(?i)[?&](?:password|passwd|pass|token|secret|sig|key)=([^&#\s]+)")

_forms: dict[str, list[str]] = {}
_blocks: set[str] = set()
"""Every masked run contains at least one of these. Most texts contain none, which is quick to check."""
_short: dict[str, re.Pattern[str]] = {}


def register_secret(secret: str) -> None:
    """Mask a secret from now on. One of fewer than three characters is not: it would make texts unreadable."""
    if len(secret) < _LEAST_CHARACTERS or secret in _forms or secret in _short:
        return
    if len(secret) < SHORT:
        _short[secret] = re.compile(rf"(?<![A-Za-z0-9]){re.escape(secret.translate(_LOWER))}(?![A-Za-z0-9])")
    else:
        _forms[secret] = list(_list_forms(secret))
        _blocks.update(form[at : at + step] for form in _forms[secret] for at, step in _list_blocks(form))


def register_url_secrets(url: str) -> None:
    """Mask the password or token of a broker's URL, or of several with commas between them, escaped or not."""
    for each in {url, *url.split(",")}:
        userinfo, at, _ = each.partition("://")[2].rpartition("@")
        found = [userinfo.partition(":")[2] or userinfo] if at else []
        for secret in found + _IN_QUERY.findall(each):
            register_secret(secret)
            register_secret(unquote(secret))


def scrub(text: str, *, least: int = _LEAST_CHARACTERS) -> str:
    """Return a text with every registered secret of at least ``least`` characters masked."""
    text = _USERINFO.sub("***", text)
    masked: list[tuple[int, int]] = []
    plain, origin = text, None
    for _ in range(_LAYERS):
        lowered = plain.translate(_LOWER) if not plain.isascii() else plain.lower()
        for start, end in _find_runs(lowered, least):
            masked.append((start, end) if origin is None else (origin[start], origin[end]))
        decoded = _decode_layer(plain, origin)
        if decoded is None:
            break
        plain, origin = decoded
    return _replace_runs(text, masked) if masked else text


def scrub_foreign(text: str, *, length: int = 200) -> str:
    """Prepare foreign text for a log or a page: mask secrets, truncate, escape control characters."""
    return scrub(text)[:length].encode("unicode_escape").decode()


def _list_forms(secret: str) -> Iterator[str]:
    """Yield the forms of a secret to look for, in lower case: itself, hex, and base64 at each offset."""
    data = secret.encode("utf-8", "surrogatepass")
    yield secret.translate(_LOWER)
    yield binascii.hexlify(data).decode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data)
        cut_off = 4 if (shift + len(data)) % 3 else 0  # these also encode the following characters
        inner = encoded[(0, 2, 3)[shift] : len(encoded) - cut_off].decode().lower()
        if len(inner) >= SHORT:
            yield inner
            yield from {inner.translate({ord("+"): "-", ord("/"): "_"})} - {inner}


def _find_runs(lowered: str, least: int) -> Iterator[tuple[int, int]]:
    """Yield where a text contains a secret, or at least half of one."""
    for secret, alone in _short.items():
        if len(secret) >= least:
            yield from (found.span() for found in alone.finditer(lowered))
    if any(map(lowered.__contains__, _blocks)):
        for forms in _forms.values():
            for form in forms:
                yield from _find_runs_of_form(form, lowered)


def _get_least_run(form: str) -> int:
    """Return the least length of a masked run of a form."""
    return min(max(SHORT, len(form) // 2), _MOST_RUN, len(form))


def _list_blocks(form: str) -> Iterator[tuple[int, int]]:
    """Yield the start and length of the blocks of a form: each run of a window's length contains one of them."""
    step = _get_least_run(form) // 2
    for offset in range(0, len(form) - step + 1, step):
        yield offset, step


def _find_runs_of_form(form: str, lowered: str) -> Iterator[tuple[int, int]]:
    """Yield the runs of a form that are long enough."""
    window = _get_least_run(form)
    for offset, step in _list_blocks(form):
        block = form[offset : offset + step]
        at = lowered.find(block)
        while at >= 0:
            start, end = _extend_run(form, offset, lowered, at, step)
            if end - start >= window:
                yield start, end
            at = lowered.find(block, max(at + 1, end if end - start >= window else 0))


def _extend_run(form: str, offset: int, lowered: str, at: int, size: int) -> tuple[int, int]:
    """Extend a found block as far as the text and the form agree."""
    start, end = at, at + size
    while start > 0 and offset > 0 and lowered[start - 1] == form[offset - 1]:
        start, offset = start - 1, offset - 1
    beyond = offset + end - start
    while end < len(lowered) and beyond < len(form) and lowered[end] == form[beyond]:
        end, beyond = end + 1, beyond + 1
    return start, end


def _decode_layer(text: str, origin: list[int] | None) -> tuple[str, list[int]] | None:
    """Undo one layer of escapes; returns the text and the origin of each character, and of the end."""
    if "%" not in text and "\\" not in text and "&" not in text:
        return None
    pieces: list[str] = []
    begins: list[int] = []
    before = 0
    for found in _ESCAPES.finditer(text):
        pieces += [text[before : found.start()], _decode_character(found)]
        begins += [*range(before, found.start()), found.start()]
        before = found.end()
    if not pieces:
        return None
    pieces.append(text[before:])
    begins += range(before, len(text) + 1)
    return "".join(pieces), begins if origin is None else [origin[each] for each in begins]


def _decode_character(found: re.Match[str]) -> str:
    kind = found.lastgroup or ""
    digits = found[kind]
    if kind == "name":
        return _NAMES[digits]
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
