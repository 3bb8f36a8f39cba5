"""What was requested for a workspace since the start of the process."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ClientCounters:
    """``requests`` by cause, ``responses`` by status or error, and the time of the last capture, 0 before it."""

    requests: Counter[str] = field(default_factory=Counter)
    responses: Counter[str] = field(default_factory=Counter)
    last_captured_at: float = 0.0
