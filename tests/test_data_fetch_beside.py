"""A download beside another process, and after one that was killed."""

from __future__ import annotations

import threading

import pytest
from data_helpers import random_store

from snn_delays.data import fetch as fetch_module
from snn_delays.data.download import Archive, DownloadReporter
from snn_delays.data.fetch import fetch
from snn_delays.data.hdf5 import write_events
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
