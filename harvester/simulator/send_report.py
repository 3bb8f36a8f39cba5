"""Computes the channels, variations and counters of a campaign's sends, under Braze's names.

- Documented: the counters of ``ios_push`` on this endpoint, and those of other channels on ``/campaigns/data_series``.
- Documented: ``unique_recipients`` is that of the campaign, in every variation. ``conversions`` count on the day when
  they happen, ``*_by_send_time`` on the day of the send.
- Recorded: the counters of ``email``, and a control group, which has ``enrolled`` and conversions but no ``sent``.
- Invented: the combinations of channels, and all numbers.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from harvester.simulator.random_draw import random_draw

Counters = dict[str, Any]

_PUSH = ({"sent": 1.0, "bounces": 0.03}, {"direct_opens": 0.04, "total_opens": 0.07, "body_clicks": 0.02})
_COUNTERS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "email": (
        {"sent": 1.0, "delivered": 0.98, "bounces": 0.02},
        {
            "opens": 0.4,
            "machine_open": 0.1,
            "unique_opens": 0.3,
            "machine_amp_open": 0.01,
            "clicks": 0.08,
            "unique_clicks": 0.05,
            "unsubscribes": 0.002,
            "reported_spam": 0.0005,
        },
    ),
    "ios_push": (
        {"sent": 1.0, "delivered": 0.95, "undelivered": 0.03, "delivery_failed": 0.02, "bounces": 0.02},
        {"direct_opens": 0.05, "total_opens": 0.09, "body_clicks": 0.03},
    ),
    "android_push": _PUSH,
    "web_push": _PUSH,
    "sms": (
        {"sent": 1.0, "sent_to_carrier": 0.99, "delivered": 0.96, "rejected": 0.01, "delivery_failed": 0.02},
        {"clicks": 0.06, "opt_out": 0.003, "help": 0.001},
    ),
    "whats_app": ({"sent": 1.0, "delivered": 0.97, "failed": 0.03}, {"read": 0.6}),
    "content_cards": (
        {"sent": 1.0},
        {
            "total_impressions": 0.9,
            "unique_impressions": 0.6,
            "total_clicks": 0.1,
            "unique_clicks": 0.07,
            "total_dismissals": 0.05,
            "unique_dismissals": 0.04,
        },
    ),
    "webhook": ({"sent": 1.0, "errors": 0.01}, {}),
}
"""By channel: the counters of the day of the send, and those of later reactions, as shares of ``sent``."""

_CHANNEL_COMBINATIONS = (
    ("email",),
    ("email",),
    ("email", "ios_push"),
    ("ios_push", "android_push"),
    ("android_push",),
    ("web_push",),
    ("sms",),
    ("webhook",),
    ("content_cards",),
    ("whats_app",),
    ("email", "sms"),
)
_VARIATION_SHARES = ((1.0,), (1.0,), (1.0,), (0.5, 0.3, 0.2))
_CONVERSION_EVENTS = tuple(
    (name, f"{name}_by_send_time", share)
    for name, share in (("conversions", 0.02), ("conversions1", 0.01), ("conversions2", 0.005), ("conversions3", 0.003))
)
"""The conversion events: the names of their two counters, and the share of recipients that convert."""

_CONVERSION_EVENT_COUNTS = (1, 1, 2, 4)
_CONTROL_GROUP_SHARE = 0.1
_DOLLARS_PER_CONVERSION = 19.9


@dataclass(frozen=True, slots=True)
class DayOfSend:
    """A day of a send to ``recipients``. ``is_send_day`` marks the day of the send itself.

    The shares (0 to 1) are those of all reactions that have happened by the start of the day, by its end and by now.
    """

    recipients: int
    is_send_day: bool
    share_at_start: float
    share_at_end: float
    share_now: float

    def count_reactions(self, expected: float) -> int:
        """Return how many of ``expected`` reactions happen on this day. The counts of all days add up exactly."""
        return int(expected * self.share_at_end) - int(expected * self.share_at_start)


@dataclass(frozen=True, slots=True)
class SendReport:
    """What the sends of a campaign have in common: channels, shares of variations, and conversion events."""

    channels: tuple[str, ...]
    variation_shares: tuple[float, ...]
    has_control_group: bool
    conversion_events: int

    def compute_day(self, day: DayOfSend) -> Counters:
        """Return ``messages`` and the totals of a day."""
        messages: dict[str, list[Counters]] = {}
        for channel in self.channels:
            messages[channel] = [
                self._count_variation(day, channel, f"Variant {number}", day.recipients * share)
                for number, share in enumerate(self.variation_shares, start=1)
            ]
            if channel == "email" and self.has_control_group:
                enrolled = day.recipients * _CONTROL_GROUP_SHARE
                group = {"variation_name": "Control Group", "enrolled": int(enrolled) if day.is_send_day else 0}
                messages[channel].append(group | self._count_conversions(day, enrolled))
        rows = [row for variations in messages.values() for row in variations]
        totals = {
            name: sum([row[name] for row in rows])
            for event, by_send_time, _ in _CONVERSION_EVENTS[: self.conversion_events]
            for name in (event, by_send_time)
        }
        recipients, revenue = rows[0]["unique_recipients"], sum([row["revenue"] for row in rows])
        return {"messages": messages, **totals, "unique_recipients": recipients, "revenue": round(revenue, 2)}

    def _count_variation(self, day: DayOfSend, channel: str, name: str, recipients: float) -> Counters:
        send_day_counters, reaction_counters = _COUNTERS[channel]
        return {
            "variation_name": name,
            **{key: int(recipients * share) if day.is_send_day else 0 for key, share in send_day_counters.items()},
            **{key: day.count_reactions(recipients * share) for key, share in reaction_counters.items()},
            **self._count_conversions(day, recipients),
        }

    def _count_conversions(self, day: DayOfSend, recipients: float) -> Counters:
        """Count conversions. Late conversions change the row of the day of the send."""
        counters: Counters = {"unique_recipients": day.recipients if day.is_send_day else 0}
        for event, by_send_time, share in _CONVERSION_EVENTS[: self.conversion_events]:
            counters[event] = day.count_reactions(recipients * share)
            counters[by_send_time] = int(recipients * share * day.share_now) if day.is_send_day else 0
        counters["revenue"] = round(counters["conversions"] * _DOLLARS_PER_CONVERSION, 2)
        return counters


@lru_cache(maxsize=2048)
def get_send_report(seed: int, campaign_id: str) -> SendReport:
    """Return the report of a campaign, which depends only on the seed and the id."""
    drawn = random_draw(seed, "report", campaign_id)
    return SendReport(
        channels=_CHANNEL_COMBINATIONS[drawn % len(_CHANNEL_COMBINATIONS)],
        variation_shares=_VARIATION_SHARES[drawn // 100 % len(_VARIATION_SHARES)],
        has_control_group=drawn // 1000 % 2 == 0,
        conversion_events=_CONVERSION_EVENT_COUNTS[drawn // 10_000 % len(_CONVERSION_EVENT_COUNTS)],
    )
