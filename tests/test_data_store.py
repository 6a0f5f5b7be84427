"""The packed store: the same events each time, made again whenever anything is amiss."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
from data_helpers import CHANNELS, CLASSES, assert_same_events, random_store
from safetensors.numpy import load_file

from snn_delays.data import store as store_module
from snn_delays.data.cache import cache_folder
from snn_delays.data.events import SourceFile, join_stores
from snn_delays.data.fetch import fetch
from snn_delays.data.hdf5 import write_events
from snn_delays.data.loading import load
from snn_delays.data.sources import sidecar
from snn_delays.data.store import open_store
from snn_delays.errors import DataError


@pytest.fixture
def source(tmp_path):
    write_events(tmp_path / "small.h5", random_store())
    return tmp_path / "small.h5"


def opened(source, **options):
    defaults = {"channels": CHANNELS, "classes": CLASSES, "cache_dir": source.parent / "cache"}
    return open_store(source, **defaults | options)


def stores(source):
    return sorted((source.parent / "cache").iterdir())


def test_first_and_second_opening_agree(source, monkeypatch):
    first = opened(source)
    monkeypatch.setattr(store_module, "read_events", None)  # the second must not need it
    second = opened(source)
    assert_same_events(first, random_store())
    assert_same_events(second, first)
    assert len(stores(source)) == 1


def test_it_knows_its_file_and_whether_that_was_fetched(source):
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    assert opened(source).files == (SourceFile("small.h5", sha256, fetched=False),)
    sidecar(source).write_text(f"{sha256}  small.h5\n")
    assert opened(source).files == (SourceFile("small.h5", sha256, fetched=True),)
    twice = join_stores([opened(source), opened(source)])
    assert [file.name for file in twice.files] == ["small.h5", "small.h5"]


def test_the_store_is_memory_mapped_and_plain_safetensors(source):
    store = opened(source)
    base = store.times_us
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    np.testing.assert_array_equal(load_file(stores(source)[0])["times_us"], store.times_us)


def test_gz_gives_the_same_events_and_leaves_no_copy(source):
    packed = source.with_name("small.h5.gz")
    packed.write_bytes(gzip.compress(source.read_bytes()))
    assert_same_events(opened(packed), opened(source))
    assert {path.suffix for path in stores(source)} == {".safetensors"}


def test_other_bytes_version_or_parameters_make_another_store(source, monkeypatch):
    opened(source)
    opened(source, channels=CHANNELS + 1)
    opened(source, classes=(*CLASSES, "d"))
    write_events(source, random_store(seed=1))
    assert_same_events(opened(source), random_store(seed=1))
    monkeypatch.setattr(store_module, "_STORE_VERSION", 10**6)
    opened(source)
    assert len(stores(source)) == 5


def test_any_damage_is_detected_and_the_store_made_again(source):
    opened(source)
    [path] = stores(source)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", whole[:4], whole[:-1], whole[: len(whole) // 2], b"\xff" * len(whole)]
    for position in rng.integers(0, len(whole), 60):
        damaged.append(whole[:position] + bytes([whole[position] ^ 64]) + whole[position + 1 :])
    for content in damaged:
        path.write_bytes(content)
        assert_same_events(opened(source), random_store())


def test_a_store_of_another_key_is_not_believed(source):
    opened(source)
    opened(source, channels=CHANNELS + 1)
    one, other = stores(source)
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    assert_same_events(opened(source), random_store())
    assert opened(source, channels=CHANNELS + 1).channels == CHANNELS + 1


def test_bad_source_leaves_nothing_behind(source):
    source.write_bytes(source.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"small\.h5"):
        opened(source)
    assert not (source.parent / "cache").exists()
    with pytest.raises(DataError, match=r"missing\.h5 cannot be read"):
        opened(source.with_name("missing.h5"))


def test_what_was_left_half_written_goes_after_a_day(source):
    """Not before: another process may be writing it."""
    folder = source.parent / "cache"
    folder.mkdir()
    names = {".a-abcdefgh.tmp": 90_000, ".b-abcdefgh.tmp.h5": 80_000, ".own": 90_000}
    for name, age_s in names.items():
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age_s,) * 2)
    opened(source)
    assert [path.name for path in stores(source)][:-1] == [".b-abcdefgh.tmp.h5", ".own"]


def test_unusable_cache_folder(source):
    (source.parent / "cache").write_text("a file is in the way")
    with pytest.raises(DataError, match="cannot be written in the cache folder"):
        opened(source)


def _total(source):
    return int(opened(source).times_us.sum())


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork to be quick")
def test_processes_may_open_at_once(source):
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        totals = list(pool.map(_total, [source] * 4))
    assert set(totals) == {int(random_store().times_us.sum())}
    assert len(stores(source)) == 1


def test_cache_folder_order(monkeypatch, tmp_path):
    monkeypatch.setenv("SNN_DELAYS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert cache_folder(tmp_path / "own") == tmp_path / "own"
    monkeypatch.delenv("SNN_DELAYS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "snn-delays"


def test_the_header_says_what_it_holds(source):
    opened(source)
    raw = stores(source)[0].read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    description = json.loads(header["__metadata__"]["store"])
    assert description["source"] == "small.h5"
    assert description["classes"] == list(CLASSES)


@pytest.mark.parametrize(("old", "new"), [(b"700", b"900"), (b"zero", b"hero")])
def test_a_store_with_a_damaged_description_is_made_again(shd_folder, tmp_path, old, new):
    """A wrong number of channels would bin out of bounds; a wrong class name would mislead."""
    from snn_delays.data import SOURCES, open_store

    source = SOURCES["shd"]
    settings = {"channels": 700, "classes": source.classes, "cache_dir": tmp_path}
    first = open_store(shd_folder / "shd_train.h5", **settings)
    (packed,) = tmp_path.glob("*.safetensors")
    content = packed.read_bytes()
    assert old in content
    packed.write_bytes(content.replace(old, new, 1))
    again = open_store(shd_folder / "shd_train.h5", **settings)
    assert (again.channels, again.classes) == (first.channels, first.classes)
    assert packed.read_bytes() == content


def test_a_store_that_another_process_has_written_meanwhile_is_taken(source, monkeypatch):
    """On Windows a file that is mapped there cannot be replaced here."""
    write = store_module._write_store

    def refused(*arguments):
        write(*arguments)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store_module, "_write_store", refused)
    assert len(opened(source)) > 0


def test_what_is_done_to_the_arrays_leaves_the_file_as_it_is(source):
    store = opened(source)
    before = stores(source)[0].read_bytes()
    store.times_us[:] = 0
    assert stores(source)[0].read_bytes() == before


def test_a_home_folder_that_nobody_knows_is_named(monkeypatch):
    """No such user; or, in a container, a user without one."""
    monkeypatch.setenv("SNN_DELAYS_CACHE", "~nobody-of-that-name/cache")
    with pytest.raises(DataError, match=r"in ~nobody-of-that-name/cache is not known.*SNN_DELAYS"):
        cache_folder()
    for look in (lambda folder: load("shd", "train", data_dir=folder), partial(fetch, "shd")):
        with pytest.raises(DataError, match=r"in ~nobody-of-that-name is not known.*without `~`"):
            look("~nobody-of-that-name")
