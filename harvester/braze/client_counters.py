"""What was requested for a workspace since the start of the process."""

from collections import Counter
from dataclasses import dataclass, field

from harvester.histogram import Histogram

DURATION_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(slots=True)
class ClientCounters:
    """``requests`` by cause, ``responses`` by status or error, and the time of the last capture, 0 before it.

    ``durations`` has the seconds from each request to the end of its response; workspaces can share it.
    """

    durations: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS))
    requests: Counter[str] = field(default_factory=Counter)
    responses: Counter[str] = field(default_factory=Counter)
    last_captured_at: float = 0.0
