"""No damage to a spike file gives a traceback, a hang, or events that cannot be.

libhdf5 could loop for ever, where no signal reaches it, so byte damage is tried in a process of
its own, with a time limit.
"""

from __future__ import annotations

import math
import multiprocessing
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_helpers import CHANNELS, CLASSES, random_store, store_of, write_raw
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_delays.data.hdf5 import read_events, write_events
from snn_delays.data.heap import check_ragged
from snn_delays.data.store import open_store
from snn_delays.errors import DataError


def read_or_refuse(path):
    """The events, checked to be possible, or None where the file is refused in one sentence."""
    try:
        store = read_events(path, channels=CHANNELS, classes=CLASSES)
    except DataError as error:
        if "\n" in str(error):
            raise AssertionError("a message of several lines") from error
        return None
    clips = len(store.labels)
    assert len(store.offsets) == clips + 1 == len(store.speakers) + 1
    assert store.offsets[0] == 0
    assert store.offsets[-1] == len(store.times_us) == len(store.units)
    assert ((store.units >= 0) & (store.units < CHANNELS)).all()
    assert ((store.labels >= 0) & (store.labels < len(CLASSES))).all()
    assert (store.times_us >= 0).all()
    for clip in range(clips):
        assert (np.diff(store.times_us[store.offsets[clip] : store.offsets[clip + 1]]) >= 0).all()
    return store


def damage_bytes():
    """400 files with up to four bytes changed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        write_events(path, random_store(6))
        whole = path.read_bytes()
        # The pointers of the lists are few bytes, so they are aimed at.
        with h5py.File(path) as file:
            begin = [file[name].id.get_offset() for name in ("spikes/times", "spikes/units")]
        pointers = st.sampled_from(begin).flatmap(lambda b: st.integers(b, b + 6 * 16 - 1))
        place = st.one_of(st.integers(0, len(whole) - 1), pointers)
        changes = st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)

        @given(changes)
        @settings(max_examples=400, deadline=None, database=None)
        def attempt(changes):
            damaged = bytearray(whole)
            for index, value in changes:
                damaged[index] = value
            path.write_bytes(damaged)
            read_or_refuse(path)

        attempt()


def test_damaged_bytes():
    child = multiprocessing.get_context("spawn").Process(target=damage_bytes)
    child.start()
    child.join(120)
    if child.is_alive():
        child.kill()
        child.join()
        pytest.fail("reading a damaged file did not end")
    assert child.exitcode == 0


TIME = st.one_of(
    st.floats(0, 3, width=16), st.sampled_from([math.nan, math.inf, -math.inf, -0.0, -1e-7, -0.5])
)


@st.composite
def columns(draw):
    """Raw columns, most of them sound, some with one wrong field."""
    clips = draw(st.integers(1, 4))
    lengths = [draw(st.integers(0, 4)) for _ in range(clips)]
    odd = draw(st.booleans())
    time = TIME if odd else st.floats(0, 3, width=16)
    unit = st.integers(0, CHANNELS + 2) if odd else st.integers(0, CHANNELS - 1)
    label = st.integers(0, len(CLASSES)) if odd else st.integers(0, len(CLASSES) - 1)
    times = [draw(st.lists(time, min_size=n, max_size=n)) for n in lengths]
    units = [draw(st.lists(unit, min_size=n, max_size=n)) for n in lengths]
    if odd and draw(st.integers(0, 3)) == 0:
        units[draw(st.integers(0, clips - 1))].append(0)
    return times, units, [draw(label) for _ in range(clips)]


def oracle(times, units, labels):
    """What a file of such columns holds, or None where it must be refused."""
    sound = (
        all(len(t) == len(u) for t, u in zip(times, units, strict=True))
        and all(math.isfinite(t) and t >= 0 for clip in times for t in clip)
        and all(u < CHANNELS for clip in units for u in clip)
        and all(label < len(CLASSES) for label in labels)
    )
    if not sound:
        return None
    return store_of(
        [
            sorted(
                ((round(float(np.float16(t)) * 1e6), u) for t, u in zip(*clip, strict=True)),
                key=lambda event: event[0],
            )
            for clip in zip(times, units, strict=True)
        ],
        labels=labels,
    )


@given(columns())
@settings(max_examples=60)
def test_damaged_fields(case):
    with tempfile.TemporaryDirectory() as folder:
        store = read_or_refuse(write_raw(Path(folder) / "a.h5", *case))
    expected = oracle(*case)
    assert (store is None) == (expected is None)
    if store is not None and expected is not None:
        for name in ("times_us", "units", "offsets", "labels"):
            np.testing.assert_array_equal(getattr(store, name), getattr(expected, name))


@pytest.mark.parametrize("chunks", [None, (4,), (100,)])
def test_pointers_of_every_layout_are_followed(tmp_path, chunks):
    """Sound files pass, and a length that no object holds is found, wherever the lists lie."""
    path = tmp_path / "a.h5"
    rows = np.empty(11, object)
    for i in range(11):
        rows[i] = np.arange(i % 5, dtype=np.float32)
    with h5py.File(path, "w") as file:
        maximum = (None,) if chunks else None
        file.create_dataset("x", data=rows, dtype=h5py.vlen_dtype(np.float32), chunks=chunks,
                            maxshape=maximum)  # fmt: skip
    with h5py.File(path) as file:
        check_ragged(file, file["x"], "`x` of a.h5")
        column = file["x"]
        start = column.id.get_chunk_info(0).byte_offset if chunks else column.id.get_offset()
        descriptor = start + 3 * 16  # of clip 3, with three values
    whole = path.read_bytes()
    assert whole[descriptor : descriptor + 4] == (3).to_bytes(4, "little")
    free = whole.index(b"GCOL") + 16
    while whole[free : free + 2] != b"\0\0":  # past the objects, to the free space
        free += 16 + -(-int.from_bytes(whole[free + 8 : free + 16], "little") // 8) * 8
    kind = whole.index(b"\x19\0\0\0\x10")  # the type: lists, of plain kind, 16 bytes each
    for at, value in ((free + 8, 0), (free + 9, 255), (kind + 1, 15)):
        damaged = bytearray(whole)
        damaged[at] = value
        path.write_bytes(damaged)
        with h5py.File(path) as file, pytest.raises(DataError, match=r"`x` of a\.h5"):
            check_ragged(file, file["x"], "`x` of a.h5")
    for offset, value in ((0, 200), (3, 255), (5, 200), (11, 1), (12, 99)):
        damaged = bytearray(whole)
        damaged[descriptor + offset] = value
        path.write_bytes(damaged)
        with (
            h5py.File(path) as file,
            pytest.raises(DataError, match=r"Clip 3 of `x` of a\.h5 points at nothing that holds"),
        ):
            check_ragged(file, file["x"], "`x` of a.h5")


def test_a_fetched_file_that_has_changed_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    write_events(path, random_store())
    options = {"channels": CHANNELS, "classes": CLASSES, "cache_dir": tmp_path / "cache"}
    open_store(path, **options)
    (tmp_path / "a.h5.sha256").write_text("0123  a.h5\n")
    with pytest.raises(DataError, match=r"is not what was fetched: .* a\.h5\.sha256\. Delete both"):
        open_store(path, **options)
