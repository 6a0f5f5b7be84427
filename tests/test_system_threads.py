"""Ranges of clips cover all clips once, in order, whatever the number of threads."""

from __future__ import annotations

import os
import sys
import time
from multiprocessing import Pipe, get_context

import pytest
import torch

from snn_delays.system.threads import core_count, in_ranges, runs_compiled


@pytest.fixture
def threads():
    """Sets torch's number of threads; put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def covered(names, first, last):
    return names[first:last]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("clips", [0, 1, 2, 7, 16])
def test_every_clip_is_visited_once(threads, count, clips):
    threads(count)
    parts = in_ranges(covered, clips, list(range(clips)))
    assert [clip for part in parts for clip in part] == list(range(clips))
    assert len(parts) == max(1, min(count, clips))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_clips_the_loop_runs_once_on_none():
    assert in_ranges(lambda first, last: (first, last), 0) == [(0, 0)]


def test_a_failing_loop_is_heard(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        in_ranges(lambda first, last: 1 // first, 4)


def test_no_loop_goes_on_when_another_failed(threads):
    threads(2)
    ended = []

    def kernel(first, last):
        if first == 0:
            raise KeyError
        time.sleep(0.1)
        ended.append(last)

    with pytest.raises(KeyError):
        in_ranges(kernel, 4)
    assert ended == [4]


def visit(clips, answer):
    torch.set_num_threads(2)
    answer.send(sum(map(len, in_ranges(covered, clips, range(clips)))))


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_a_forked_process_has_threads_of_its_own(threads):
    threads(2)
    in_ranges(covered, 4, range(4))
    ours, theirs = Pipe()
    process = get_context("fork").Process(target=visit, args=(5, theirs))
    process.start()
    try:
        assert ours.poll(30), "the forked process waits for threads that it has not"
        assert ours.recv() == 5
    finally:
        process.kill()
        process.join()


def test_compiled_loops_take_floats_on_the_cpu():
    assert runs_compiled(torch.zeros(1))
    assert runs_compiled(torch.zeros(1).double())
    assert not runs_compiled(torch.zeros(1).bfloat16())
    assert not runs_compiled(torch.zeros(1, device="meta"))


def test_only_cores_that_this_process_may_use_are_counted(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert core_count() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # stands for macOS and Windows
    assert core_count() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert core_count() == 1
