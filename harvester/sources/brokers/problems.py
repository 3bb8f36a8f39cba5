"""Creates the errors and warnings of all brokers, with the same wording and without secrets."""

import re
from urllib.parse import unquote, unquote_plus

from harvester.causes import find_cause
from harvester.errors import BrokerError
from harvester.observability.redaction import scrub

RETENTION_DAYS = 14
"""How long a queue should keep messages. Braze keeps the analytics of a send for the same time."""

_SHORT_SECRET_CHARACTERS = 8


def create_broker_error(queue: str, error: BaseException, *, url: str = "") -> BrokerError:
    """Translate an error of a client library into a ``BrokerError`` without the credentials in ``url``.

    The text of a ``ValueError`` or ``TypeError`` is left out: it may quote a part of the URL.
    """
    if isinstance(error, (TypeError, ValueError)) and not isinstance(error, OSError):
        return BrokerError(f"{queue}: {type(error).__name__}; check its URL and its settings")
    one_line = re.sub(r"\s+", " ", str(error)).strip()
    detail = scrub(remove_secrets(one_line, url))
    text = f"{queue}: {type(error).__name__}{': ' + detail[:300] if detail else ''}"
    return BrokerError(text, cause=find_cause(error) or "failed")


def remove_secrets(text: str, url: str) -> str:
    """Mask the secrets of a URL in a text. Returns an empty text if it contains a short secret.

    Masking a short secret inside words would reveal it. A user name without a password may be a token, so it is a
    secret.
    """
    for secret in sorted(_find_secrets(url), key=len, reverse=True):
        if secret in text and len(secret) < _SHORT_SECRET_CHARACTERS:
            return ""
        text = text.replace(secret, "***")
    return text


def _find_secrets(url: str) -> set[str]:
    """Return the URL itself, its passwords and its tokens, each escaped and unescaped."""
    userinfos = re.findall(r"//([^/@]+)@", url)
    escaped = {url, *(userinfo.partition(":")[2] or userinfo for userinfo in userinfos)}
    escaped |= set(re.findall(r"[?&](?:password|token|secret)=([^&#]+)", url))
    return {spelling for each in escaped for spelling in (each, unquote(each), unquote_plus(each)) if spelling}


def format_retention_warning(queue: str, days: float) -> str:
    """Return the warning that a queue drops messages too early."""
    return (
        f"{queue} keeps messages for {days:.3g} days; set its retention to {RETENTION_DAYS} days, because Braze keeps "
        "analytics that long"
    )


def format_dead_letter_warning(missing: str, advice: str) -> str:
    """Return the warning that there is no dead-letter queue. ``missing`` names it."""
    return f"there is no {missing} for invalid messages, so the first one will stop this trigger; {advice}"
