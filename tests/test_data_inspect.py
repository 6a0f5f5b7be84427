"""`describe`: the numbers of a file, counted by hand."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re

import pytest
from data_helpers import store_of, write_raw

from snn_delays.data.hdf5 import write_events
from snn_delays.data.inspect import describe
from snn_delays.data.loading import load
from snn_delays.data.splitting import split_file
from snn_delays.errors import DataError, DataWriteError


def test_a_small_file(tmp_path):
    clips = [[(1000, 2), (250_000, 9)], [], [(500_000, 2)], [(5, 0), (6, 1), (750_000, 0)]]
    write_events(tmp_path / "a.h5", store_of(clips, labels=[0, 1, 0, 0], speakers=[7, 7, 3, -1]))
    (tmp_path / "a.h5.gz").write_bytes(gzip.compress((tmp_path / "a.h5").read_bytes()))
    facts = describe(tmp_path / "a.h5")
    assert facts == {
        "file": "a.h5",
        "clips": 4,
        "events": 6,
        "channels_used": 4,
        "largest_unit": 9,
        "classes": {"a": 3, "b": 1, "c": 0},
        "speakers": {-1: 1, 3: 1, 7: 2},
        "spikes_per_clip": {"min": 0, "mean": 1.5, "max": 3},
        "last_spike_s": {"min": 0.25, "mean": 0.5, "max": 0.75},
        "problems": [
            "1 clips have no spikes, the first is clip 1.",
            "No clips of class c.",
            "Speakers are unknown, so no speakers can be held out for validation.",
        ],
    }
    json.dumps(facts)
    assert describe(tmp_path / "a.h5.gz") == facts | {"file": "a.h5.gz"}


def test_a_file_without_spikes(tmp_path):
    facts = describe(write_raw(tmp_path / "a.h5", [[], [], []], [[], [], []], [0, 1, 2]))
    assert facts["largest_unit"] is None
    assert facts["last_spike_s"] is None
    assert facts["spikes_per_clip"]["max"] == 0


def test_a_bad_file(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"a\.h5"):
        describe(tmp_path / "a.h5")


@pytest.mark.parametrize("fault", ["no folder", "no room"])
def test_no_room_to_unpack(tmp_path, monkeypatch, fault):
    write_raw(tmp_path / "a.h5", [[0.5]], [[1]], [0])
    packed = tmp_path / "a.h5.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.h5").read_bytes()))

    def refuse(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = "TemporaryDirectory" if fault == "no folder" else "mkstemp"
    monkeypatch.setattr(f"tempfile.{place}", refuse)
    for read in (describe, lambda path: split_file(path, tmp_path / "b.h5")):
        with pytest.raises(DataWriteError, match=r"a\.h5\.gz cannot be unpacked .* \(No space"):
            read(packed)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write_raw(tmp_path / "a.h5", [[0.5]], [[1]], [0])

    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match=r"a\.h5 cannot be read \(Permission denied\)\.$"):
        describe(path)


def test_units_beyond_the_channels_of_shd_are_told_and_not_trained_on(tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_DELAYS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "shd_train.h5"
    times, units = [[0.125], [0.125, 0.25], [0.5]], [[699], [3, 700], [900]]
    write_raw(path, times, units, [0, 1, 2], extra__keys=None)
    assert describe(path)["problems"] == [
        "2 spikes have a unit of 700 or more, the first is in clip 1; "
        "training as shd or ssc refuses them."
    ]
    message = r"`spikes/units` of clip 1 in shd_train\.h5 must be in 0 \.\. 699; got 700"
    with pytest.raises(DataError, match=message):
        load("shd", "train", data_dir=tmp_path)


def test_clips_out_of_order_are_told_and_read_sorted(tmp_path):
    times = [[0.125, 0.25], [0.5, 0.25, 0.75], [], [0.25, 0.125]]
    path = write_raw(tmp_path / "a.h5", times, [[1, 2], [3, 4, 5], [], [6, 7]], [0, 1, 2, 0])
    assert describe(path)["problems"][1] == (
        "2 clips are not in the order of time, the first is clip 1; they are sorted when read."
    )
    assert describe(path)["last_spike_s"]["max"] == 0.75


def test_the_command_shows_facts_in_words(call, tmp_path):
    clips = [[(250_000, 9)], [(500_000, 2)], [(750_000, 0)]]
    write_events(tmp_path / "a.h5", store_of(clips, labels=[0, 1, 0], speakers=[7, 7, -1]))
    code, out, _ = call("data", "inspect", tmp_path / "a.h5")
    assert code == 0
    for row in (
        "speakers +│ unknown: 1, 7: 2 ",
        "channels used +│ 3 ",
        "last spike +│ min: 0.25 s,",
    ):
        assert re.search(row, out), row


def test_more_than_a_hundredth_of_late_spikes_is_told(tmp_path):
    for late, told in ((1, False), (2, True)):
        clips = [[(999_999, 0)] * (100 - late) + [(1_000_000, 1)] * late]
        write_events(tmp_path / "a.h5", store_of(clips, labels=[0]))
        problems = " ".join(describe(tmp_path / "a.h5")["problems"])
        assert (f"{late} of 100 spikes come after 1 s" in problems) == told
