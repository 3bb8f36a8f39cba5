"""A stand-in for the Braze API with its documented behaviour: for the demo, for tests, for rehearsals.

Where a docstring in here says *documented*, Braze's documentation says so; *recorded* was seen in traffic with the
real API that somebody published; *inferred* follows from these but was seen by nobody; the rest is made up.
"""

from harvester.simulator.api import Simulator
from harvester.simulator.config import SimulatorConfig
from harvester.simulator.population import population

__all__ = ["Simulator", "SimulatorConfig", "population"]
