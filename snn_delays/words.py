"""The words that recipes, layers and commands share, each list in one place.

network.json has words of its own, as changing them changes the format's version.
"""

from __future__ import annotations

from typing import Literal

Delays = Literal["learned", "fixed", "none"]
Granularity = Literal["synaptic", "axonal", "dendritic"]
Readout = Literal["softmax_sum", "max", "mean", "last"]
Split = Literal["train", "valid", "test"]
Features = Literal["mel140", "published"]
ScaleOf = Literal["output", "layer"]
