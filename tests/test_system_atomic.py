"""Atomic writes: whole files or none."""

import json
import os

import pytest

from snn_delays.errors import SnnDelaysError
from snn_delays.system import atomic


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    atomic.write_text(path, "old")

    def fail():
        with atomic.replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_json_refuses_what_json_cannot_say(tmp_path):
    path = tmp_path / "file.json"
    with pytest.raises(ValueError, match="Out of range"):
        atomic.write_json(path, {"x": float("nan")})
    assert not path.exists()
    atomic.write_json(path, {"x": [1, None]})
    assert json.loads(path.read_text()) == {"x": [1, None]}


def test_temporary_files_keep_the_suffix(tmp_path):
    with atomic.replacing(tmp_path / "a.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"x")
    assert (tmp_path / "a.png").read_bytes() == b"x"


def test_of_several_files_none_appears_when_one_fails(tmp_path):
    """Whether it fails at the start, between the files, or when one is flushed to disk."""
    one, other = tmp_path / "one.h5", tmp_path / "other.h5"
    one.write_text("old")

    def fail_between():
        with atomic.replacing_all([one, other]) as (first, _):
            first.write_text("new")
            raise RuntimeError

    def fail_at_the_end():
        with atomic.replacing_all([one, other]) as (first, second):
            first.write_text("new")
            second.unlink()

    def never():
        with atomic.replacing_all([one, tmp_path / "one.h5" / "below.h5"]):
            pytest.fail("it cannot be written")

    with pytest.raises(RuntimeError):
        fail_between()
    with pytest.raises(FileNotFoundError) as caught:
        fail_at_the_end()
    assert caught.value.filename == str(other)
    with pytest.raises(OSError, match=r"one\.h5"):
        never()
    other.mkdir()
    with pytest.raises(IsADirectoryError), atomic.replacing_all([one, other]):
        pytest.fail("a folder is in the way")
    other.rmdir()
    assert one.read_text() == "old"
    assert list(tmp_path.iterdir()) == [one]
    with atomic.replacing_all([one, other]) as files:
        for file in files:
            file.write_text(file.suffix)
    assert (one.read_text(), other.read_text()) == (".h5", ".h5")
    assert sorted(tmp_path.iterdir()) == [one, other]


def test_a_file_is_on_disk_before_it_gets_its_name_and_its_folder_after(tmp_path, monkeypatch):
    path, replace, done = tmp_path / "file.txt", os.replace, []
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(os.fstat(handle).st_ino))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("named") or replace(*names))
    atomic.write_text(path, "x")
    assert done == [path.stat().st_ino, "named", tmp_path.stat().st_ino]


def test_a_file_has_the_rights_that_the_umask_leaves_it(tmp_path):
    before = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "file.txt", "x")
    finally:
        after = os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o640
    assert after == 0o027


def test_a_link_stays_a_link_and_its_file_gets_the_content(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file.txt", tmp_path / "link.txt"
    link.symlink_to(target)
    for text in ("first", "second"):
        atomic.write_text(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_devices_and_pipes_are_never_replaced(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link, "/dev/null", "/dev/stdout"):
        with pytest.raises(SnnDelaysError, match="must be a file or a new name; got a device or a"):
            atomic.write_text(path, "x")
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == [link, pipe]
