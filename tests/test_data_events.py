"""EventStore: what it refuses, so that compiled loops can rely on it."""

from dataclasses import replace

import numpy as np
import pytest
from data_helpers import CHANNELS, random_store, store_of

from snn_delays.data.binning import binned_channels
from snn_delays.data.dataset import SpikeDataset
from snn_delays.data.events import join_stores, take_clips
from snn_delays.errors import DataError

INT16, INT32, INT64 = np.int16, np.int32, np.int64


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"units": np.array([0, CHANNELS], INT16)}, "`units` of small.h5 must be in 0 .. 9"),
        ({"units": np.array([0, -1], INT16)}, "got -1 to 0"),
        ({"units": np.array([0, 1], INT32)}, "one axis of int16"),
        ({"units": np.array([0], INT16)}, "2 long"),
        ({"times_us": np.array([1, 0], INT32)}, "sorted in each clip"),
        ({"times_us": np.array([-1, 0], INT32)}, "`times_us` of small.h5 must be in 0 .."),
        ({"times_us": [0, 1]}, "one axis of int32; got list"),
        ({"offsets": np.array([0, 3], INT64)}, "rising from 0 to the 2 events"),
        ({"offsets": np.array([1, 2], INT64)}, "rising from 0"),
        ({"offsets": np.array([0, 1, 2], INT64)}, "2 long; got 3"),
        ({"labels": np.array([3], INT64)}, "`labels` of small.h5 must be in 0 .. 2"),
        ({"speakers": np.array([0, 1], INT64)}, "1 long"),
        ({"channels": 0}, "`channels` of small.h5 must be in 1 .. 32767"),
    ],
)
def test_arrays_that_would_mislead_a_loop_are_refused(changes, sentence):
    store = store_of([[(0, 1), (5, 2)]])
    with pytest.raises(DataError) as error:
        replace(store, **changes)
    assert sentence in str(error.value)


def test_the_clip_that_goes_back_in_time_is_named(monkeypatch):
    monkeypatch.setattr("snn_delays.data.events._CHUNK", 2)  # clips are longer than a chunk
    store = store_of([[(9, 0)], [(0, 0), (5, 0), (5, 0)], [(1, 0), (3, 0)]])
    times = store.times_us.copy()
    times[[4, 5]] = times[[5, 4]]
    with pytest.raises(DataError, match="got not in clip 2"):
        replace(store, times_us=times)


@pytest.mark.parametrize("clip", [-1, 24])
def test_a_clip_that_the_store_does_not_have_is_refused(clip):
    with pytest.raises(DataError, match=r"`clips` must be in 0 .. 23"):
        SpikeDataset(random_store(24), [0, clip], dt_ms=10.0, steps=4, channel_bin=1)


def test_clips_are_taken_and_joined_in_order():
    store = random_store(6)
    parts = take_clips(store, np.array([0, 1])), take_clips(store, np.array([2, 3, 4, 5]))
    joined = join_stores(parts)
    for field in ("times_us", "units", "offsets", "labels", "speakers"):
        assert np.array_equal(getattr(joined, field), getattr(store, field))
    assert binned_channels(joined.channels, 3) == 4


def test_a_step_back_from_one_chunk_to_the_next_is_seen(monkeypatch):
    monkeypatch.setattr("snn_delays.data.events._CHUNK", 2)
    store = store_of([[(0, 0), (5, 0), (7, 0)]])
    with pytest.raises(DataError, match="got not in clip 0"):
        replace(store, times_us=store.times_us[[0, 2, 1]])
