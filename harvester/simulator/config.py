"""The settings of the stand-in: plain values with defaults, validated before the stand-in listens."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from harvester.errors import UsageError
from harvester.simulator.faults import DEFAULT_FAULTS, fault_exists
from harvester.simulator.series import UnknownPairs


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """The settings of a stand-in. Shares and rates are 0 to 1; ``window_seconds`` is measured by the stand-in's clock.

    All sends are sent before ``day``; the default is the day on which the stand-in starts. ``fault_rate`` is the share
    of requests that get one of ``faults``. ``neighbour`` uses ``neighbour_share`` of every window. ``forbidden_key`` is
    a valid key without the permission.
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
    faults: tuple[str, ...] = DEFAULT_FAULTS
    neighbour: str = "steady"
    neighbour_share: float = 0.0
    log: Path | None = None

    def __post_init__(self) -> None:
        """Raise ``UsageError`` for a fault that does not exist."""
        for name in self.faults:
            if not fault_exists(name):
                raise UsageError(f"there is no fault {name!r}; harvester simulate --list-faults lists them")
