"""Atomic writes: whole files or none."""

import json

import pytest

from snn_delays import atomic


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
