"""What a chip would count, and an estimate of the energy from published cost per operation.

An estimate of arithmetic only: memory, routing and leakage are left out.
"""

from __future__ import annotations

import numpy as np

# 32-bit floating point in 45 nm CMOS at 0.9 V: an addition 0.9 pJ, a multiplication 3.7 pJ.
# M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014.
ACCUMULATE_PJ = 0.9
MULTIPLY_ACCUMULATE_PJ = 0.9 + 3.7


def energy_pj(
    synaptic_operations: np.ndarray, neuron_updates: np.ndarray, analog_input: bool = False
) -> np.ndarray:
    """Arithmetic energy per clip in picojoules, `[N]` float64.

    A synaptic operation adds one weight (an accumulate); with real-valued input the first layer's
    also multiply. A neuron update multiplies by the leak and adds the current.

    Args:
        synaptic_operations: `[N, layers]`.
        neuron_updates: `[N, layers]`.
        analog_input: the first layer's input is real-valued.
    """
    cost = np.full(synaptic_operations.shape[1], ACCUMULATE_PJ)
    if analog_input:
        cost[0] = MULTIPLY_ACCUMULATE_PJ
    return synaptic_operations @ cost + neuron_updates.sum(axis=1) * MULTIPLY_ACCUMULATE_PJ
