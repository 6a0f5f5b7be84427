"""network.json, the exported network: read, check, write (format version 1).

`format_version` is raised by every change of meaning; a reader for each older version stays, with
a golden file. A newer version is refused, and so are unknown keys (except inside `metadata`):
a key that is not understood could change what the network does.
"""

from snn_delays.network_format.files import (
    MAX_BYTES,
    dumps,
    json_schema,
    load_network,
    parse,
    save_network,
)
from snn_delays.network_format.models import (
    FORMAT,
    FORMAT_VERSION,
    LI,
    LIF,
    MAX_DELAY,
    MAX_FEATURES,
    MAX_KERNELS,
    MAX_STEPS,
    Input,
    Layer,
    Network,
    Neuron,
    Readout,
)

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "LI",
    "LIF",
    "MAX_BYTES",
    "MAX_DELAY",
    "MAX_FEATURES",
    "MAX_KERNELS",
    "MAX_STEPS",
    "Input",
    "Layer",
    "Network",
    "Neuron",
    "Readout",
    "dumps",
    "json_schema",
    "load_network",
    "parse",
    "save_network",
]
