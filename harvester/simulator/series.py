"""What the stand-in answers for a send: made from a seed, the pair and the time, and from nothing else.

Days are zero-filled, several channels report, a control group has no ``sent``, and conversions keep coming for
days and change the rows of days past, as the documentation says they do.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from harvester.model import DAY_SECONDS, RETENTION_SECONDS, Enqueued, Pair

_CHANNELS: dict[str, dict[str, float]] = {
    "email": {
        "sent": 1.0, "opens": 0.4, "machine_open": 0.1, "unique_opens": 0.3, "clicks": 0.08, "unique_clicks": 0.05,
        "unsubscribes": 0.002, "bounces": 0.01, "delivered": 0.98, "reported_spam": 0.0005,
    },
    "ios_push": {"sent": 1.0, "direct_opens": 0.05, "total_opens": 0.09, "bounces": 0.02, "body_clicks": 0.03},
    "android_push": {"sent": 1.0, "direct_opens": 0.04, "total_opens": 0.07, "bounces": 0.03, "body_clicks": 0.02},
    "sms": {
        "sent": 1.0, "sent_to_carrier": 0.99, "delivered": 0.96, "rejected": 0.01, "clicks": 0.06, "opt_out": 0.003,
    },
    "webhook": {"sent": 1.0, "errors": 0.01},
}  # fmt: skip
_NAMES = tuple(_CHANNELS)


def _number(*parts: object) -> int:
    """Draw a number from what identifies it."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest())


def population(*, seed: int, pairs: int, now: float, workspace: str = "default") -> Iterator[Enqueued]:
    """Give the sends that exist: ids of several shapes, sent over the last 13 days."""
    for index in range(pairs):
        campaign = str(UUID(int=_number(seed, "campaign", index // 25) << 64 | 0x4000_8000_0000_0000_0000))
        shapes = (f"send-{index:07d}", str(UUID(int=_number(seed, "send", index) << 40)),
                  f"{_number(seed, index) % 10**12:012d}",
                  f"spring/sale & more #{index}")  # fmt: skip
        send = shapes[0] if index % 10 < 6 else shapes[1 + index % 3]
        age = (_number(seed, "age", index) % 10_000) / 10_000 * 13 * DAY_SECONDS
        yield Enqueued(Pair(workspace, campaign, send), float(int(now - age)))


def answer(*, seed: int, campaign_id: str, send_id: str, sent_at: float | None, now: float, length_days: int,
           ending_at: float) -> dict[str, Any]:  # fmt: skip
    """Give the JSON of a 200. An expired or unknown send has days of zeros: what Braze says then is undocumented."""
    last = datetime.fromtimestamp(ending_at, UTC).date()
    alive = sent_at is not None and now - sent_at <= RETENTION_SECONDS
    draw = _number(seed, campaign_id, send_id)
    if alive and draw % 50 == 0:
        return {"data": [], "message": "success"}
    size = 0 if not alive or draw % 20 == 1 else 200 + draw % 20_000
    channels = [_NAMES[draw // 7 % len(_NAMES)]] + (["email"] if draw % 3 == 0 and draw // 7 % len(_NAMES) else [])
    days = []
    for back in range(min(length_days, 15) - 1, -1, -1):
        date = last - timedelta(days=back)
        since = (date - datetime.fromtimestamp(sent_at, UTC).date()).days if sent_at is not None else -1
        age_days = max(0.0, (now - sent_at) / DAY_SECONDS) if sent_at is not None else 0.0
        here = size if since >= 0 else 0
        days.append(_day(date.isoformat(), channels, here, since, age_days))
    return {"message": "success", "data": days}


def _day(date: str, channels: list[str], size: int, since: int, age_days: float) -> dict[str, Any]:
    """Make one day: what was sent on day 0, and a response that fades; late conversions grow with the send's age."""
    fade = 0.5 ** max(since, 0) if size else 0.0
    late = min(1.0, 0.6 + 0.1 * max(0.0, age_days - max(since, 0)))
    conversions = int(size * 0.02 * fade * late)
    by_send_time = int(size * 0.04 * min(1.0, 0.3 + 0.1 * age_days)) if since == 0 else 0
    shared = {
        "unique_recipients": size if since == 0 else 0,
        "conversions": conversions,
        "conversions_by_send_time": by_send_time,
    }
    messages: dict[str, list[dict[str, Any]]] = {}
    for channel in channels:
        counters = {
            name: int(size * share)
            if since == 0 and name.startswith(("sent", "delivered"))
            else int(size * share * fade)
            if not name.startswith(("sent", "delivered"))
            else 0
            for name, share in _CHANNELS[channel].items()
        }
        variant = {"variation_name": "Variant 1", **counters, "revenue": round(conversions * 19.9, 2), **shared}
        control = {
            "variation_name": "Control Group",
            "enrolled": size // 10 if since == 0 else 0,
            "revenue": 0.0,
            **shared,
        }
        messages[channel] = [variant, control] if channel == "email" else [variant]
    return {"time": date, "messages": messages, "revenue": round(conversions * 19.9 * len(channels), 2), **shared}
