"""`SpikeDataset`: samples, batches and the DataLoader give the same numbers."""

from __future__ import annotations

import pytest
import torch
from data_helpers import CLASSES, random_store, store_of
from torch.utils.data import DataLoader

from snn_delays.data.dataset import SpikeDataset, collate
from snn_delays.errors import DataError

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


def test_length_counts_to_the_last_kept_spike():
    clips = [[(0, 0)], [], [(0, 1), (20_000, 2)], [(149_999, 0), (150_000, 0)], [(150_000, 1)]]
    dataset = SpikeDataset(store_of(clips), range(5), **OPTIONS)
    assert [dataset[i].length for i in range(5)] == [1, 0, 3, 15, 0]
    assert dataset.dropped_share == pytest.approx(2 / 6)


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
    [("dt_ms", 0), ("dt_ms", 0.0015), ("steps", 0), ("channel_bin", 0), ("channel_bin", 11)],
)
def test_impossible_values(field, value):
    with pytest.raises(DataError, match=f"`{field}`"):
        SpikeDataset(random_store(), [0], **OPTIONS | {field: value})
