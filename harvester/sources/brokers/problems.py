"""The errors and warnings of all brokers, in one wording and without secrets."""

import re
from urllib.parse import unquote, unquote_plus

from harvester.causes import find_cause
from harvester.errors import BrokerError
from harvester.observability.redaction import scrub

RETENTION_DAYS = 14
"""How long a queue should keep messages: Braze keeps the analytics of a send for as long."""

_SHORT_SECRET_CHARACTERS = 8


def broker_error(queue: str, error: BaseException, *, url: str = "") -> BrokerError:
    """Translate an error of a client library into a ``BrokerError`` without the credentials in ``url``.

    The text of a ``ValueError`` is left out: it quotes the value, which may be part of the URL.
    """
    if isinstance(error, (TypeError, ValueError)) and not isinstance(error, OSError):
        return BrokerError(f"{queue}: {type(error).__name__}; check its URL and its settings")
    one_line = re.sub(r"\s+", " ", str(error)).strip()
    detail = scrub(remove_secrets(one_line, url))
    text = f"{queue}: {type(error).__name__}{': ' + detail[:300] if detail else ''}"
    return BrokerError(text, cause=find_cause(error) or "failed")


def remove_secrets(text: str, url: str) -> str:
    """Mask the secrets of a URL in a text. Returns an empty text if a masked short secret could be guessed.

    A user name is a secret only if there is no password: it may then be a token.
    """
    for secret in sorted(_find_secrets(url), key=len, reverse=True):
        if secret in text and len(secret) < _SHORT_SECRET_CHARACTERS:
            return ""
        text = text.replace(secret, "***")
    return text


def _find_secrets(url: str) -> set[str]:
    """Find the URL itself, its passwords and its tokens, each escaped and unescaped."""
    userinfos = re.findall(r"//([^/@]+)@", url)
    escaped = {url, *(userinfo.partition(":")[2] or userinfo for userinfo in userinfos)}
    escaped |= set(re.findall(r"[?&](?:password|token|secret)=([^&#]+)", url))
    return {spelling for each in escaped for spelling in (each, unquote(each), unquote_plus(each)) if spelling}


def retention_warning(queue: str, days: float) -> str:
    """Warn that a queue drops messages too early."""
    return f"{queue} keeps messages for {days:.3g} days; set {RETENTION_DAYS} days, as long as Braze keeps its data"


def dead_letter_warning(missing: str, advice: str) -> str:
    """Warn that the first invalid message will stop the trigger, since the dead-letter queue is missing."""
    return f"there is no {missing} for invalid messages: the first invalid message will stop this trigger; {advice}"
