"""A stand-in for the Braze API with its documented behaviour: for the demo, for tests, for rehearsals.

Docstrings grade each fact. *Documented* is in Braze's documentation. *Recorded* was seen in published traffic with the
real API. *Inferred* follows from these, but was never seen. The rest is made up.
"""

from harvester.simulator.api import Simulator
from harvester.simulator.config import SimulatorConfig
from harvester.simulator.population import population

__all__ = ["Simulator", "SimulatorConfig", "population"]
