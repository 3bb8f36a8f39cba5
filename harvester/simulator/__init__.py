"""A stand-in for the Braze API with its documented behaviour, for the demo, for tests and for trial runs.

Docstrings say how certain each fact is. *Documented*: it is in Braze's documentation. *Recorded*: it was seen in
published traffic of the real API. *Inferred*: it follows from these, but was never seen. Everything else is invented.
"""

from harvester.simulator.api import Simulator
from harvester.simulator.config import SimulatorConfig
from harvester.simulator.population import generate_population

__all__ = ["Simulator", "SimulatorConfig", "generate_population"]
