"""An exact engine for exported networks: whole clips and streams, numpy and numba only.

`Network.load(path)` gives a network that runs; `Engine(network, dtype)` chooses the arithmetic.
"""

from snn_delays.engine.energy import ACCUMULATE_PJ, MULTIPLY_ACCUMULATE_PJ, energy_pj
from snn_delays.engine.machine import Engine, Network, Result, State, Step
from snn_delays.engine.reference import simulate

__all__ = [
    "ACCUMULATE_PJ",
    "MULTIPLY_ACCUMULATE_PJ",
    "Engine",
    "Network",
    "Result",
    "State",
    "Step",
    "energy_pj",
    "simulate",
]
