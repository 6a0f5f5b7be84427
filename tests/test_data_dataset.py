"""`SpikeDataset`: samples, batches and the DataLoader give the same numbers."""

from __future__ import annotations

import copy
from pickle import dumps, loads

import numpy as np
import pytest
import torch
from data_helpers import CLASSES, random_store, store_of
from torch.utils.data import DataLoader, Subset

from snn_delays.data.dataset import SpikeDataset, collate
from snn_delays.data.frames import FrameDataset
from snn_delays.data.gsc import Frames
from snn_delays.errors import DataError, SnnDelaysError

OPTIONS = {"dt_ms": 10.0, "steps": 15, "channel_bin": 3}


@pytest.fixture
def dataset():
    return SpikeDataset(random_store(), [5, 1, 7, 0], **OPTIONS, name="small train")


def test_sizes_and_attributes(dataset):
    store = random_store()
    assert len(dataset) == 4
    assert (dataset.channels, dataset.steps, dataset.classes) == (4, 15, CLASSES)
    assert dataset.name == "small train"
    assert dataset.labels.tolist() == store.labels[[5, 1, 7, 0]].tolist()
    assert dataset.speakers.tolist() == store.speakers[[5, 1, 7, 0]].tolist()


def test_samples_and_batches_agree(dataset):
    x, labels = dataset.batch(torch.tensor([3, 0, 3]))
    assert x.shape == (15, 3, 4)
    for n, index in enumerate((3, 0, 3)):
        sample = dataset[index]
        assert torch.equal(sample.x, x[:, n])
        assert sample.label == labels[n]
        assert sample.speaker == dataset.speakers[index]
    assert torch.equal(dataset[-1].x, dataset[3].x)
    for outside in (4, -5):
        with pytest.raises(IndexError, match="small train"):
            dataset[outside]


def test_a_pickled_data_set_holds_its_own_events_once(dataset):
    def same(other, clips):
        for ours, theirs in zip(dataset.batch(clips), other.batch(clips), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(other.events(clips).times_us, dataset.events(clips).times_us)

    many = SpikeDataset(random_store(4000), [5, 1, 7, 0], **OPTIONS)
    assert len(dumps(many)) < 10_000 < len(dumps(many._store))
    every = torch.tensor([2, 0, 1, 3])
    assert loads(dumps(many)).dropped_share == many.dropped_share
    for other in (loads(dumps(dataset)), copy.deepcopy(dataset), copy.copy(dataset)):
        same(other, every)
        same(loads(dumps(other)), every)
    assert copy.copy(dataset)._store is dataset._store


def test_the_default_device_does_not_matter(dataset):
    """As after `torch.set_default_device("cuda")`, with the data still on the CPU."""
    every = torch.tensor([2, 0, 1, 3])
    counts = dataset.batch(every)[0]
    with torch.device("meta"):
        assert torch.equal(dataset.batch(every)[0], counts)
        assert torch.equal(dataset.count(dataset.events(every), 4), counts)
        assert torch.equal(torch.cat(list(dataset.in_order(3))), every.sort()[0])
        samples = [dataset[index] for index in (2, 0, 1, 3)]
        x, labels, *_ = collate(samples)
    assert torch.equal(x, counts)
    assert torch.equal(labels, dataset.labels[every])


def test_spawned_workers_read_the_same(dataset):
    loader = DataLoader(
        dataset,
        batch_size=2,
        collate_fn=collate,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    found = torch.cat([x for x, *_ in loader], dim=1)
    assert torch.equal(found, dataset.batch(torch.arange(4))[0])


def test_another_device_gets_these_clips_only(dataset):
    store, every = random_store(), torch.arange(4)
    own = int(np.diff(store.offsets)[[5, 1, 7, 0]].sum())
    moved = dataset.to("meta")
    assert moved._times_us.device.type == moved.labels.device.type == "meta"
    assert len(moved._times_us) == len(moved._units) == own < len(store.times_us)
    assert len(dataset._times_us) == len(store.times_us)
    expected = dataset.batch(every), dataset.events(every), dataset.dropped_share
    dataset._keep_own()  # what was moved gives the same
    for found, old in zip((dataset.batch(every), dataset.events(every)), expected[:2], strict=True):
        assert all(map(torch.equal, found, old))
    again = SpikeDataset(dataset._store, dataset._clips.numpy(), **OPTIONS)
    assert again.dropped_share == expected[2]
    whole = SpikeDataset(store, np.arange(len(store)), **OPTIONS)
    whole._keep_own()
    assert whole._store is store


def test_another_device_gets_these_frames_only():
    frames = Frames(
        np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float16),
        *(np.arange(6), np.zeros(6, np.int64), np.zeros(6, np.int64)),
        *(np.ones(3, np.float32), np.full(3, 2, np.float32), np.zeros(32, np.uint8)),
    )
    data = FrameDataset(
        frames, [4, 1], classes=tuple("abcdef"), features="mel140", steps=4, name="gsc test"
    )
    expected = data.batch(torch.tensor([1, 0]))
    assert data.to("meta")._frames.shape == (2, 5, 3)
    data._keep_own()
    assert all(map(torch.equal, data.batch(torch.tensor([1, 0])), expected))


def test_length_counts_to_the_last_kept_spike():
    clips = [[(0, 0)], [], [(0, 1), (20_000, 2)], [(149_999, 0), (150_000, 0)], [(150_000, 1)]]
    dataset = SpikeDataset(store_of(clips), range(5), **OPTIONS)
    assert [dataset[i].length for i in range(5)] == [1, 0, 3, 15, 0]
    assert dataset.dropped_share == pytest.approx(2 / 6)


def test_samplers_of_torch_may_hand_over_tensors(dataset):
    loader = DataLoader(dataset, batch_size=2, sampler=torch.tensor([3, 1]), collate_fn=collate)
    ((x, labels, _, _),) = loader
    expected, of = dataset.batch(torch.tensor([3, 1]))
    assert torch.equal(x, expected)
    assert torch.equal(labels, of)
    subset = Subset(dataset, torch.tensor([2]))
    assert torch.equal(subset[0].x, dataset[2].x)
    assert dataset[torch.tensor(-1)].label == dataset[3].label


def test_data_loader(dataset):
    x, labels, lengths, speakers = next(iter(DataLoader(dataset, 4, collate_fn=collate)))
    expected, expected_labels = dataset.batch(torch.arange(4))
    assert torch.equal(x, expected)
    assert torch.equal(labels, expected_labels)
    assert lengths.tolist() == [dataset[i].length for i in range(4)]
    assert torch.equal(speakers, dataset.speakers)
    assert collate([dataset[0]])[0].shape == (15, 1, 4)


def test_to_moves_a_copy(dataset):
    moved = dataset.to("meta")
    assert moved.labels.device.type == "meta"
    assert dataset.labels.device.type == "cpu"
    assert torch.equal(
        dataset.to("cpu").batch(torch.arange(4))[0], dataset.batch(torch.arange(4))[0]
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("dt_ms", 0), ("dt_ms", 0.0015), ("dt_ms", "10"), ("dt_ms", float("nan"))),
        *(("steps", 0), ("steps", 100.0), ("steps", "4")),
        *(("channel_bin", 0), ("channel_bin", 11), ("channel_bin", 2.5)),
    ],
)
def test_impossible_values(field, value):
    with pytest.raises(DataError, match=f"`{field}`"):
        SpikeDataset(random_store(), [0], **OPTIONS | {field: value})


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([1, 2], r"`indices` must be a tensor \[N\]; got list\. Make it one"),
        (np.array([1, 2]), "got ndarray"),
        (torch.tensor(3), r"`indices` must be int64 \[N\]; got torch.int64 \[\]"),
        (torch.tensor([[1]]), r"got torch.int64 \[1, 1\]"),
        (torch.tensor([True, False]), "got torch.bool"),
        (torch.tensor([0.0]), "got torch.float32"),
        (torch.tensor([-1]), "`indices` must be in 0 .. 3, as .* has 4 samples; got -1"),
        (torch.tensor([0, 4]), "got 4"),
    ],
    ids=str,
)
def test_what_are_no_indices(dataset, indices, message):
    for call in (dataset.batch, dataset.events):
        with pytest.raises(SnnDelaysError, match=message):
            call(indices)


@pytest.mark.parametrize("index", [slice(0, 3), [1, 2], 1.0, None])
def test_one_sample_has_one_number(dataset, index):
    with pytest.raises(DataError, match=r"`index` must be a whole number.*batch\(\)"):
        dataset[index]


@pytest.mark.parametrize("clips", [[True, False], [0.0, 1.0], [[0, 1]], np.array([True])])
def test_a_mask_and_fractions_are_no_clips(clips):
    with pytest.raises(DataError, match=r"`clips` must be whole numbers \[N\].*numpy\.flatnonzero"):
        SpikeDataset(random_store(), clips, **OPTIONS)
    assert len(SpikeDataset(random_store(), np.array([2, 0], np.uint8), **OPTIONS)) == 2
    assert len(SpikeDataset(random_store(), [], **OPTIONS)) == 0


def test_more_steps_than_35_minutes_are_refused():
    SpikeDataset(random_store(), [0], **OPTIONS | {"steps": 214_700})
    with pytest.raises(DataError, match="`steps` must be at most 214700, which last 35 minutes"):
        SpikeDataset(random_store(), [0], **OPTIONS | {"steps": 214_701})
