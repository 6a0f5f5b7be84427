"""A gzipped spike file is unpacked for a while; damaged ones and missing ones are refused."""

import errno
import gzip
from pathlib import Path

import pytest

from snn_delays.data.gzipped import unpacked, unpacked_for_now
from snn_delays.errors import DataError


def test_gz_is_unpacked_and_the_copy_removed(tmp_path):
    (tmp_path / "a.h5.gz").write_bytes(gzip.compress(b"content"))
    with unpacked(tmp_path / "a.h5.gz", tmp_path / "scratch") as plain:
        assert plain.read_bytes() == b"content"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_gz_cut_short_or_damaged(tmp_path):
    whole = gzip.compress(bytes(range(256)) * 50)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (whole[:-1], whole[:20], whole[:5], b"no gz", bytes(flipped)):
        (tmp_path / "a.h5.gz").write_bytes(content)
        with (
            pytest.raises(DataError, match=r"a\.h5\.gz is damaged or cut short"),
            unpacked(tmp_path / "a.h5.gz", tmp_path / "scratch"),
        ):
            pass
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="not there"), unpacked(tmp_path / "a.h5", tmp_path):
        pass


def test_a_file_in_a_folder_that_may_not_be_looked_into(tmp_path, monkeypatch):
    """Not the folder for temporary files is to blame."""

    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", forbidden)
    with (
        pytest.raises(DataError, match=r"a\.h5 cannot be read \(Permission denied\)"),
        unpacked_for_now(tmp_path / "a.h5"),
    ):
        pass
