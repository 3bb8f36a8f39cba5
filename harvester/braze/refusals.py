"""Decides from refusals whether the pairs or the endpoint of a workspace are wrong. No I/O and no clock.

With a wrong host or path every pair is refused; with a wrong campaign id only the pairs of that campaign. So after many
refusals in a row, pairs of *other* campaigns decide:

- ``TRUSTED``: pairs are requested when they are due.
- ``DOUBTED``: many refusals came in a row. One pair is requested at a time (a *probe*), each of a campaign that was not
  refused yet. One capture shows that the refused pairs were wrong, and restores ``TRUSTED``.
- ``HALTED``: the probes of several campaigns were refused too, so the endpoint is wrong. Probes continue, seconds
  apart, and one capture restores ``TRUSTED``.

A campaign counts once, however many of its pairs are refused.
"""

from enum import Enum
from itertools import islice

from harvester.model import Probe

REFUSALS_TO_DOUBT = 20
"""Refusals in a row, without a capture, after which the endpoint is in doubt."""

PROBES_TO_HALT = 10
"""Refused probes, each of another campaign, after which the workspace halts."""

CAMPAIGNS_TO_HALT = 3
"""Refused campaigns that suffice to halt if no other campaign has a due pair."""

CAMPAIGNS_KEPT = 500
"""The most refused campaigns that are kept."""


WRONG_IDS_HINT = (
    "usually the campaign ids are wrong (internal ids of Braze's Snowflake tables instead of API identifiers, or ids "
    "of another workspace), or the endpoint is wrong (check it with harvester doctor). Correct them. If the endpoint "
    "was wrong, also run harvester requeue --outcome rejected"
)
"""What to do if Braze refused every pair."""


class Trust(Enum):
    """Whether the endpoint is trusted after the refusals so far."""

    TRUSTED = "trusted"
    DOUBTED = "doubted"
    HALTED = "halted"


class Refusals:
    """The refusals since the last capture. ``count`` is in pairs."""

    def __init__(self) -> None:
        """Begin with trust."""
        self.trust = Trust.TRUSTED
        self.count = 0
        self._last_response = ""
        self._unexplained = 0
        """The refusals since the last capture, except those of ``_wrong_campaigns``."""
        self._refused_campaigns: dict[str, None] = {}
        self._wrong_campaigns: dict[str, None] = {}
        """Campaigns that were refused before trust was restored: their ids are wrong. Their refusals cause no doubt."""
        self._probing = False
        self._nearest = True
        self._refused_probes = 0

    def __str__(self) -> str:
        """Return what was refused since the last capture."""
        return (
            f"{self.count} pairs of {len(self._refused_campaigns)} campaigns were refused in a row without one "
            f"capture, the last with {self._last_response}"
        )

    def doubt(self) -> None:
        """Begin with a probe: the workspace was halted when the last process ended."""
        self.trust = Trust.DOUBTED

    def begin_probe(self) -> Probe:
        """Return the next probe, from alternating ends of the deadlines. Only probes may be in flight from now on.

        Wrong pairs may have all the nearest deadlines, or all the farthest.
        """
        self._probing = True
        self._nearest = not self._nearest
        return Probe(tuple(self._refused_campaigns), self._nearest)

    def add_refusal(self, campaign_id: str, response: str) -> None:
        """Count a refused pair and update the trust; ``response`` describes Braze's response."""
        self.count += 1
        self._last_response = response
        if self.trust is Trust.TRUSTED:
            if campaign_id in self._wrong_campaigns:
                return
            self._unexplained += 1
            if self._unexplained >= REFUSALS_TO_DOUBT:
                self.trust = Trust.DOUBTED
        elif self._probing and campaign_id not in self._refused_campaigns:
            self._refused_probes += 1
            if self._refused_probes >= PROBES_TO_HALT:
                self.trust = Trust.HALTED
        keep_newest(self._refused_campaigns, campaign_id)

    def add_capture(self) -> bool:
        """Restore trust in the endpoint; returns whether it was in doubt."""
        doubted = self.trust is not Trust.TRUSTED
        if self.count or doubted:
            self._restore_trust()
        return doubted

    def record_no_other_campaign(self) -> bool:
        """Update the trust: no campaign is due except refused ones. Returns whether these may be requested again."""
        may_repeat = bool(self._refused_campaigns)
        if self.trust is Trust.DOUBTED and len(self._refused_campaigns) >= CAMPAIGNS_TO_HALT:
            self.trust = Trust.HALTED
        elif self.trust is Trust.DOUBTED and may_repeat:  # too few to conclude that the endpoint is wrong
            self._restore_trust()
        elif self.trust is Trust.HALTED:
            self._refused_campaigns.clear()
        return may_repeat

    def _restore_trust(self) -> None:
        for campaign_id in self._refused_campaigns:
            keep_newest(self._wrong_campaigns, campaign_id)
        self._refused_campaigns.clear()
        self.trust, self._probing, self._nearest = Trust.TRUSTED, False, True
        self.count = self._unexplained = self._refused_probes = 0


def keep_newest(campaigns: dict[str, None], campaign_id: str) -> None:
    """Keep a campaign as the newest, and drop the oldest one above the limit."""
    campaigns.pop(campaign_id, None)
    campaigns[campaign_id] = None
    for oldest in list(islice(campaigns, len(campaigns) - CAMPAIGNS_KEPT)) if len(campaigns) > CAMPAIGNS_KEPT else ():
        del campaigns[oldest]
