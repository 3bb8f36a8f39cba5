"""The channels, variations and counters of a campaign's sends, under Braze's own names.

Counters are documented for ``ios_push`` on the endpoint itself and for the others on ``/campaigns/data_series``; those
of ``email`` were recorded on a real send. So was its control group, which has ``enrolled`` and conversions but no
``sent``. Documented too: ``unique_recipients`` is the campaign's, in every variation; ``conversions`` count on the day
they happen, ``*_by_send_time`` on the day of the send. Which channels go together, and how well they do, is made up.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from harvester.simulator.random_draw import draw

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
"""By channel: what is counted when the message leaves, and what its recipients do later, as shares of ``sent``."""

_MIXES = (
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
_SPLITS = ((1.0,), (1.0,), (1.0,), (0.5, 0.3, 0.2))
_EVENTS = tuple(
    (name, f"{name}_by_send_time", share)
    for name, share in (("conversions", 0.02), ("conversions1", 0.01), ("conversions2", 0.005), ("conversions3", 0.003))
)
"""The conversion events, each with its counters and the share of recipients that convert."""

_EVENT_COUNTS = (1, 1, 2, 4)
_CONTROL_SHARE = 0.1
_DOLLARS_EACH = 19.9


@dataclass(frozen=True, slots=True)
class DayOfSend:
    """A day of a send to ``size`` recipients. ``went_out`` marks the day of the send itself.

    ``before`` and ``after`` are the shares of all reactions that had arrived when the day began and when it ended;
    ``so_far`` is the share that has arrived by now.
    """

    size: int
    went_out: bool
    before: float
    after: float
    so_far: float

    def arrived(self, expected: float) -> int:
        """Count this day's part of ``expected``. The days add up to the whole."""
        return int(expected * self.after) - int(expected * self.before)


@dataclass(frozen=True, slots=True)
class Report:
    """What the sends of a campaign have in common: channels, the split of recipients, conversion events."""

    channels: tuple[str, ...]
    split: tuple[float, ...]
    control: bool
    events: int

    def day(self, seen: DayOfSend) -> Counters:
        """Return ``messages`` and the totals of a day."""
        messages: dict[str, list[Counters]] = {}
        for channel in self.channels:
            messages[channel] = [
                self._variation(seen, channel, f"Variant {number}", seen.size * share)
                for number, share in enumerate(self.split, start=1)
            ]
            if channel == "email" and self.control:
                enrolled = seen.size * _CONTROL_SHARE
                group = {"variation_name": "Control Group", "enrolled": int(enrolled) if seen.went_out else 0}
                messages[channel].append(group | self._conversions(seen, enrolled))
        rows = [row for variations in messages.values() for row in variations]
        totals = {
            name: sum([row[name] for row in rows])
            for event, by_send_time, _ in _EVENTS[: self.events]
            for name in (event, by_send_time)
        }
        recipients, revenue = rows[0]["unique_recipients"], sum([row["revenue"] for row in rows])
        return {"messages": messages, **totals, "unique_recipients": recipients, "revenue": round(revenue, 2)}

    def _variation(self, seen: DayOfSend, channel: str, name: str, part: float) -> Counters:
        at_once, later = _COUNTERS[channel]
        return {
            "variation_name": name,
            **{counter: int(part * share) if seen.went_out else 0 for counter, share in at_once.items()},
            **{counter: seen.arrived(part * share) for counter, share in later.items()},
            **self._conversions(seen, part),
        }

    def _conversions(self, seen: DayOfSend, part: float) -> Counters:
        """Count conversions. Late ones change the row of the day of the send."""
        counted: Counters = {"unique_recipients": seen.size if seen.went_out else 0}
        for event, by_send_time, share in _EVENTS[: self.events]:
            counted[event] = seen.arrived(part * share)
            counted[by_send_time] = int(part * share * seen.so_far) if seen.went_out else 0
        counted["revenue"] = round(counted["conversions"] * _DOLLARS_EACH, 2)
        return counted


@lru_cache(maxsize=2048)
def get_send_report(seed: int, campaign_id: str) -> Report:
    """Return a campaign's report, which follows from the seed and the id."""
    drawn = draw(seed, "report", campaign_id)
    return Report(
        channels=_MIXES[drawn % len(_MIXES)],
        split=_SPLITS[drawn // 100 % len(_SPLITS)],
        control=drawn // 1000 % 2 == 0,
        events=_EVENT_COUNTS[drawn // 10_000 % len(_EVENT_COUNTS)],
    )
