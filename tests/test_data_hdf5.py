"""The SHD layout: what is read back, and that bad files are refused in one sentence."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
from data_helpers import CHANNELS, CLASSES, assert_same_events, random_store, store_of, write_raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snn_delays.data import hdf5
from snn_delays.data.hdf5 import clips_out_of_order, read_events, write_events
from snn_delays.errors import DataError

TIMES = [[0.0, 0.25], [], [0.5]]
UNITS = [[0, 9], [], [3]]
LABELS = [0, 1, 2]
VLEN16 = h5py.vlen_dtype(np.float16)


def read(path, **options):
    return read_events(path, **{"channels": CHANNELS, "classes": CLASSES} | options)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    clips=st.lists(
        st.lists(st.tuples(st.integers(0, 15_999_999), st.integers(0, CHANNELS - 1)), max_size=5),
        min_size=1,
        max_size=5,
    )
)
def test_written_events_come_back_to_the_microsecond(tmp_path, clips):
    store = store_of([sorted(clip, key=lambda event: event[0]) for clip in clips])
    write_events(tmp_path / "a.h5", store)
    assert_same_events(read(tmp_path / "a.h5"), store)


def test_blocks_join_seamlessly(tmp_path, monkeypatch):
    store = random_store(24)
    write_events(tmp_path / "a.h5", store)
    monkeypatch.setattr(hdf5, "_BLOCK", 5)
    assert_same_events(read(tmp_path / "a.h5"), store)


@settings(max_examples=200, deadline=None)
@given(seconds=st.floats(0, 4, width=16))
def test_float16_seconds_become_the_nearest_microsecond(tmp_path_factory, seconds):
    path = write_raw(tmp_path_factory.mktemp("f") / "a.h5", [[seconds]], [[1]], [0])
    assert read(path).times_us[0] == round(float(np.float16(seconds)) * 10**6)


def test_unsorted_clips_are_sorted_stably_and_others_left_alone(tmp_path):
    times = [[0.5, 0.25, 0.5, 0.125], [0.125], [0.25, 0.25]]
    store = read(write_raw(tmp_path / "a.h5", times, [[1, 2, 3, 4], [5], [7, 6]], LABELS))
    assert store.times_us.tolist() == [125000, 250000, 500000, 500000, 125000, 250000, 250000]
    assert store.units.tolist() == [4, 2, 1, 3, 5, 7, 6]


def test_extra_fields_are_optional(tmp_path):
    path = write_raw(tmp_path / "a.h5", TIMES, UNITS, LABELS, extra__speaker=None, extra__keys=None)
    store = read(path, classes=None)
    assert store.speakers.tolist() == [-1, -1, -1]
    assert store.classes == ("0", "1", "2")


def test_a_file_without_a_single_event(tmp_path):
    store = read(write_raw(tmp_path / "a.h5", [[], []], [[], []], [0, 1]))
    assert len(store) == 2
    assert store.offsets.tolist() == [0, 0, 0]


BAD = {
    "negative": ({"times": [[0.0, -0.25], [], [0.5]]}, "`spikes/times` of clip 0"),
    "nan": ({"times": [[0.0, 0.25], [], [np.nan]]}, "`spikes/times` of clip 2"),
    "infinite": ({"times": [[0.0, 0.25], [], [np.inf]]}, "`spikes/times` of clip 2"),
    "unit": ({"units": [[0, 9], [], [10]]}, "`spikes/units` of clip 2 in a.h5 .* 0 .. 9; got 10"),
    "unequal": ({"units": [[0], [], [3]]}, "`spikes/units` of clip 0 .* as its `spikes/times`, 2"),
    "label": (
        {"labels": [0, 3, 2]},
        r"`labels` of clip 1 in a.h5 must be in 0 .. 2 \(labels count from 0\); got 3",
    ),
    "few labels": ({"labels": [0, 1]}, "`spikes/times` of a.h5 must be as long as `labels`, 2"),
    "few speakers": ({"extra__speaker": np.zeros(2, int)}, "`extra/speaker` of a.h5"),
    "no clips": ({"times": [], "units": [], "labels": []}, "a.h5 holds no clips"),
    "no times": ({"spikes__times": None}, "`spikes/times` of a.h5 .* got nothing"),
    "flat times": ({"spikes__times": np.zeros(3)}, "`spikes/times` of a.h5 .* variable-length"),
    "float units": ({"spikes__units": (TIMES, VLEN16)}, "`spikes/units` of a.h5 .* integers"),
    "float labels": ({"labels": None, "extra__x": 0}, "`labels` of a.h5 .* got nothing"),
    "square labels": ({"labels": np.zeros((3, 1), int)}, "`labels` of a.h5 .* shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_named(tmp_path, name):
    changes, message = BAD[name]
    columns = {"times": TIMES, "units": UNITS, "labels": LABELS} | changes
    if isinstance(columns["labels"], list):
        path = write_raw(tmp_path / "a.h5", **columns)
    else:  # a labels column of another shape, or none
        path = write_raw(tmp_path / "a.h5", **columns | {"labels": LABELS})
        with h5py.File(path, "a") as file:
            del file["labels"]
            if columns["labels"] is not None:
                file["labels"] = columns["labels"]
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_label_alone_cannot_ask_for_millions_of_classes(tmp_path):
    path = write_raw(tmp_path / "a.h5", TIMES, UNITS, LABELS, extra__keys=None)
    with h5py.File(path, "a") as file:
        del file["labels"]
        file["labels"] = np.array([0, 1, 20_000_000])
    with pytest.raises(DataError, match=r"`labels` of a\.h5 must be below 65536; got 20000000"):
        read_events(path, channels=CHANNELS)


def test_bad_values_are_named_by_their_clip_in_every_block(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "_BLOCK", 2)
    for clip in range(5):
        units = [[1]] * 5
        units[clip] = [CHANNELS]
        path = write_raw(tmp_path / "a.h5", [[0.1]] * 5, units, [0, 1, 2, 0, 1])
        with pytest.raises(DataError, match=rf"`spikes/units` of clip {clip} in a\.h5"):
            read(path)


def test_other_kinds_of_file(tmp_path):
    path = tmp_path / "a.h5"
    for content in (b"", b"not HDF5"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.h5 cannot be read as HDF5"):
            read(path)
    with h5py.File(path, "w") as file:
        file["spikes"] = 1
    with pytest.raises(DataError, match=r"a\.h5"):
        read(path)


def test_a_file_cut_short_anywhere(tmp_path):
    write_events(tmp_path / "whole.h5", random_store())
    whole = (tmp_path / "whole.h5").read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 60)):
        (tmp_path / "cut.h5").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut\.h5"):
            read(tmp_path / "cut.h5")


def test_impossible_channels(tmp_path):
    with pytest.raises(DataError, match="`channels`"):
        read(tmp_path / "a.h5", channels=40000)


def test_writing_refuses_times_float32_cannot_hold(tmp_path):
    with pytest.raises(DataError, match="`times_us` of clip 1"):
        write_events(tmp_path / "a.h5", store_of([[], [(16_000_000, 0)]]))
    assert list(tmp_path.iterdir()) == []


def test_a_clip_out_of_order_has_its_own_number_in_every_block(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "_BLOCK", 2)
    times = [[0.125, 0.25], [0.5, 0.25], [0.125, 0.25], [0.125, 0.25], [0.5, 0.25]]
    path = write_raw(tmp_path / "a.h5", times, [[1, 2]] * 5, [0, 1, 2, 0, 1])
    assert clips_out_of_order(path) == [1, 4]


def test_a_label_of_more_than_16_bits_does_not_become_another(tmp_path):
    largest = 1 << 16
    store = store_of([[(1, 0)], [(2, 0)]], labels=[0, 0])
    names = tuple(map(str, range(largest + 1)))
    store = replace(store, labels=np.array([0, largest]), classes=names)
    with pytest.raises(DataError, match=r"`labels` of clip 1 .* below 65536; got 65536"):
        write_events(tmp_path / "a.h5", store)
    assert list(tmp_path.iterdir()) == []


def test_many_spikes_of_one_moment_keep_their_order(tmp_path):
    units = [int(unit) for unit in np.random.default_rng(0).integers(0, CHANNELS, 200)]
    times = [0.5, 0.25] * 100
    store = read(write_raw(tmp_path / "a.h5", [times], [units], [0]))
    assert store.units.tolist() == units[1::2] + units[::2]


@pytest.mark.parametrize("number", [">f2", ">f4", ">f8"])
@pytest.mark.parametrize("unit", [">u2", ">i4", ">u8", "u1"])
def test_numbers_of_the_other_order_of_bytes(tmp_path, number, unit):
    times, units = [[0.5, 0.25], [], [0.125]], [[1, 2], [], [3]]
    columns = {
        "spikes__times": (times, h5py.vlen_dtype(np.dtype(number))),
        "spikes__units": (units, h5py.vlen_dtype(np.dtype(unit))),
    }
    path = write_raw(tmp_path / "a.h5", [], [], LABELS, **columns)
    with h5py.File(path, "a") as file:
        del file["labels"]
        file["labels"] = np.array(LABELS, ">i4")
    store = read(path)
    assert store.times_us.tolist() == [250_000, 500_000, 125_000]
    assert store.units.tolist() == [2, 1, 3]
    assert clips_out_of_order(path) == [0]


@pytest.mark.parametrize("field", ["spikes/times", "labels", "extra/keys"])
def test_data_in_another_file_are_refused_as_their_change_would_go_unseen(tmp_path, field):
    whole = write_raw(tmp_path / "whole.h5", TIMES, UNITS, LABELS)
    path = write_raw(tmp_path / "a.h5", TIMES, UNITS, LABELS)
    with h5py.File(path, "a") as file:
        del file[field]
        file[field] = h5py.ExternalLink(whole.name, field)
    with pytest.raises(DataError, match=f"`{field}` of a.h5 lies in another file"):
        read(path)
    with h5py.File(path, "a") as file, h5py.File(whole) as other:
        del file[field]
        layout = h5py.VirtualLayout(other[field].shape, other[field].dtype)
        layout[:] = h5py.VirtualSource(other[field])
        file.create_virtual_dataset(field, layout)
    with pytest.raises(DataError, match=f"`{field}` of a.h5 lies in another file"):
        read(path)


def test_a_file_whose_labels_mean_the_classes_in_another_order_is_refused(tmp_path):
    def named(*names):
        keys = np.array([name.encode() for name in names])
        return write_raw(tmp_path / "x.h5", TIMES, UNITS, LABELS, extra__keys=keys)

    message = r"Label 0 of x\.h5 must be 'a'; got 'b' \(`extra/keys`\)\. .* as ssc\."
    with pytest.raises(DataError, match=message):
        read(named("b", "a", "c"))
    assert read(named("A", "B", "C")).classes == CLASSES
    assert read(named("0", "1", "2")).classes == CLASSES
    assert read(named("a", "b", "cé")).classes == CLASSES  # another spelling
    keys = np.array([b"a", b"b", "cé".encode("latin-1")])  # in an encoding that no one knows
    path = write_raw(tmp_path / "y.h5", TIMES, UNITS, LABELS, extra__keys=keys)
    assert read(path).classes == CLASSES


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("one", "must be a one-dimensional data set of names"),
        (np.array([[b"a"], [b"b"], [b"c"]]), "must be a one-dimensional data set of names"),
        (np.array([b"a", b"b\x1b[31m", b"c"]), r"printable characters; got 'b\\x1b\[31m'"),
    ],
)
def test_keys_that_are_no_names(tmp_path, keys, expected):
    path = write_raw(tmp_path / "a.h5", TIMES, UNITS, LABELS, extra__keys=keys)
    with pytest.raises(DataError, match=expected):
        read(path, classes=None)
