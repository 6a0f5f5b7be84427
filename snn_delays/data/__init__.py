"""Data: a name and a split in, a `ClipDataset` of `[T, C]` samples out.

    load("shd", "train", data_dir="data").batch(torch.arange(256))  # [T, 256, 140], [256]

Names are imported when first used, so reading and packing events needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_delays.data.dataset import ClipDataset as ClipDataset
    from snn_delays.data.dataset import Sample as Sample
    from snn_delays.data.dataset import SpikeDataset as SpikeDataset
    from snn_delays.data.dataset import collate as collate
    from snn_delays.data.events import EventStore as EventStore
    from snn_delays.data.frames import FrameDataset as FrameDataset
    from snn_delays.data.inspect import describe as describe
    from snn_delays.data.loading import SPLITS as SPLITS
    from snn_delays.data.loading import load as load
    from snn_delays.data.sources import SOURCES as SOURCES
    from snn_delays.data.sources import Source as Source
    from snn_delays.data.sources import find_file as find_file
    from snn_delays.data.sources import find_source as find_source
    from snn_delays.data.store import open_store as open_store
    from snn_delays.data.synthetic import SyntheticTask as SyntheticTask
    from snn_delays.data.synthetic import make_synthetic as make_synthetic

_HOME = {
    "SOURCES": "sources",
    "SPLITS": "loading",
    "ClipDataset": "dataset",
    "EventStore": "events",
    "FrameDataset": "frames",
    "Sample": "dataset",
    "Source": "sources",
    "SpikeDataset": "dataset",
    "SyntheticTask": "synthetic",
    "collate": "dataset",
    "describe": "inspect",
    "find_file": "sources",
    "find_source": "sources",
    "load": "loading",
    "make_synthetic": "synthetic",
    "open_store": "store",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
