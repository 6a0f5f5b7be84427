"""snn-delays: spiking networks with a learnable, integer delay on every synapse.

Importing this package is light: torch is loaded when a name that needs it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_delays.config import Recipe as Recipe
    from snn_delays.config import load_recipe as load_recipe
    from snn_delays.engine import Network as Network
    from snn_delays.errors import SnnDelaysError as SnnDelaysError
    from snn_delays.evaluation import evaluate as evaluate
    from snn_delays.networks import DelaySNN as DelaySNN
    from snn_delays.nn import DelayLinear as DelayLinear
    from snn_delays.nn import clamp_delays as clamp_delays
    from snn_delays.nn import delay_statistics as delay_statistics
    from snn_delays.nn import round_delays as round_delays
    from snn_delays.nn import set_sigma as set_sigma
    from snn_delays.runs import RunFolder as RunFolder
    from snn_delays.training.assembly import load_trained as load_trained
    from snn_delays.training.loop import train as train

__version__ = "0.1.0"

_HOMES = {
    "DelayLinear": "nn",
    "DelaySNN": "networks",
    "Network": "engine",
    "Recipe": "config",
    "RunFolder": "runs",
    "SnnDelaysError": "errors",
    "clamp_delays": "nn",
    "delay_statistics": "nn",
    "evaluate": "evaluation",
    "load_recipe": "config",
    "load_trained": "training.assembly",
    "round_delays": "nn",
    "set_sigma": "nn",
    "train": "training.loop",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"snn_delays.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'snn_delays' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
