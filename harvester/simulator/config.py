"""What to simulate: plain values, each with a default, checked before anything listens."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from harvester.errors import UsageError
from harvester.simulator.faults import BY_RATE, exists
from harvester.simulator.series import UnknownPairs


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """What to simulate; shares and rates are 0 to 1, ``window_seconds`` are those of the stand-in's clock.

    ``day`` is the one before which the sends were sent, by default the one on which the stand-in starts. Of a share
    of calls, ``fault_rate``, each meets one of ``faults``. Others spend ``neighbour_share`` of every window in the way
    of ``neighbour``. ``forbidden_key`` is a good key without the permission.
    """

    seed: int = 1
    pairs: int = 5000
    day: date | None = None
    unknown_pairs: UnknownPairs = "zero"
    limit: int = 250_000
    window_seconds: float = 3600.0
    api_key: str = "demo-key"
    forbidden_key: str = "forbidden-key"
    port: int = 0
    latency_seconds: float = 0.0
    fault_rate: float = 0.0
    faults: tuple[str, ...] = BY_RATE
    neighbour: str = "steady"
    neighbour_share: float = 0.0
    log: Path | None = None

    def __post_init__(self) -> None:
        """Raise ``UsageError`` for a fault that does not exist."""
        for name in self.faults:
            if not exists(name):
                raise UsageError(f"there is no fault {name!r}; harvester simulate --list-faults names them all")
