"""A download beside another process, and after one that was killed."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile

import pytest
from data_helpers import random_store

from snn_delays.data import fetch as fetch_module
from snn_delays.data.download import Archive, DownloadReporter
from snn_delays.data.fetch import fetch, unpack
from snn_delays.data.hdf5 import write_events
from snn_delays.data.presence import GSC_CLIPS
from snn_delays.data.sources import SOURCES
from snn_delays.system.atomic import locked

pytest.importorskip("fcntl", reason="folders cannot be locked here")


class Listener(DownloadReporter):
    """Keeps what it is told, and tells when the first comes."""

    def __init__(self):
        self.messages, self.spoke = [], threading.Event()

    def message(self, text):
        self.messages.append(text)
        self.spoke.set()


def test_a_second_fetch_waits_for_the_first(tmp_path, monkeypatch):
    """Both would write the same part, and each throw away the other's."""
    archive = Archive("http://127.0.0.1:9/shd_train.h5.zip", "md5:abc", 1)
    monkeypatch.setattr(fetch_module, "archives", lambda name: [archive])
    monkeypatch.setattr(fetch_module, "_WAIT_S", 0.01)
    target, listener, found = tmp_path / "shd_train.h5", Listener(), []
    second = threading.Thread(
        target=lambda: found.extend(
            fetch("shd", tmp_path, reporter=listener, attempts=1, wait_s=0.0)
        )
    )
    with locked(tmp_path, "fetching into"):
        second.start()
        assert listener.spoke.wait(10)
        write_events(target, random_store())
    second.join(10)
    assert found == [target]
    waiting, there = listener.messages
    assert waiting == f"Another process is fetching into {tmp_path}; waiting for it"
    assert there == f"{target} is there already"


def test_a_folder_that_is_there_in_part_is_not_taken_for_the_whole(tmp_path, monkeypatch):
    archive = Archive("http://127.0.0.1:9/speech_commands_v0.02.tar.gz", "md5:abc", 1)
    monkeypatch.setattr(fetch_module, "archives", lambda name: [archive])
    folder, listener = tmp_path / SOURCES["gsc"].folder, Listener()
    (folder / "yes").mkdir(parents=True)
    (folder / "yes" / "a_nohash_0.wav").touch()
    assert fetch("gsc", tmp_path, reporter=listener) == [folder]
    assert f"already (in part, 1 of {GSC_CLIPS} recordings); delete it" in listener.messages[-1]


def test_what_a_killed_unpacking_left_is_removed(tmp_path):
    others = {tmp_path / ".shd_test-abcdefgh.tmp.h5", tmp_path / "b" / ".other-abcdefgh"}
    for other in others:
        other.mkdir(parents=True)
    (tmp_path / ".a-abcdefgh.tmp.h5").write_bytes(b"half")
    with zipfile.ZipFile(tmp_path / "a.h5.zip", "w") as archive:
        archive.writestr("a.h5", b"whole")
    (tmp_path / "b" / ".c.02-abcdefgh" / "yes").mkdir(parents=True)
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("list.txt"), io.BytesIO(b""))
    files = {tmp_path / name for name in ("a.h5.zip", "c.tar.gz", "a.h5", "a.h5.sha256", "b")}
    folder = {tmp_path / "b" / "c.02", tmp_path / "b" / "c.02" / "list.txt"}
    unpack(tmp_path / "a.h5.zip", tmp_path / "a.h5")
    unpack(tmp_path / "c.tar.gz", tmp_path / "b" / "c.02")
    assert set(tmp_path.rglob("*")) == others | files | folder
