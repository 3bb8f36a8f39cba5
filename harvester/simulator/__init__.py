"""A stand-in for the Braze API with its documented behaviour: for the demo, for tests, for rehearsals."""

from harvester.simulator.api import Simulator, SimulatorConfig
from harvester.simulator.series import population

__all__ = ["Simulator", "SimulatorConfig", "population"]
