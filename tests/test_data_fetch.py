"""Downloads against a local server that truncates, corrupts, stalls and refuses; safe unpacking."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from data_helpers import random_store
from rich.console import Console

from snn_delays.cli.console import TerminalDownload
from snn_delays.data import fetch as fetch_module
from snn_delays.data.download import Archive, DownloadReporter, download
from snn_delays.data.fetch import archives, fetch, unpack
from snn_delays.data.hdf5 import write_events
from snn_delays.data.presence import presence
from snn_delays.data.sources import SOURCES, sidecar
from snn_delays.errors import DataError, DownloadError

CONTENT = bytes(range(256)) * 4000  # about 1 MB
QUICK = {"timeout_s": 0.3, "wait_s": 0.0, "attempts": 3}


class Server(ThreadingHTTPServer):
    """Serves `content`; `faults` are taken one per request, then it behaves."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.faults, self.requests = CONTENT, [], []
        self.ranges, self.release = True, threading.Event()

    def archive(self, content=CONTENT):
        url = f"http://127.0.0.1:{self.server_port}/files/a.zip"
        return Archive(url, f"md5:{hashlib.md5(content).hexdigest()}", 1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        fault = server.faults.pop(0) if server.faults else None
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        if isinstance(fault, int):
            self.send_error(fault)
            return
        body, start = server.content, 0
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
        if fault == "corrupt":
            body = body[:500] + b"?" + body[501:]
        self.send_response(206 if wanted and server.ranges else 200)
        shown = start + 1 if fault == "wrong range" else start
        self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        half = body[start : start + (len(body) - start) // 2]
        if fault == "truncate":
            self.wfile.write(half)
            self.close_connection = True
        elif fault == "nothing":
            self.close_connection = True
        elif fault == "stall":
            self.wfile.write(half)
            self.wfile.flush()
            server.release.wait(10)
            self.close_connection = True
        else:
            self.wfile.write(body[start:])


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Listener(DownloadReporter):
    """Keeps what it is told."""

    def __init__(self):
        self.messages, self.starts, self.received = [], [], 0

    def message(self, text):
        self.messages.append(text)

    def start(self, filename, total, done):
        self.starts.append((filename, total, done))

    def advance(self, received):
        self.received += received


def test_a_download_arrives_whole_and_is_not_repeated(server, tmp_path):
    listener = Listener()
    path = download(server.archive(), tmp_path / "new", reporter=listener, **QUICK)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["a.zip"]
    assert listener.starts == [("a.zip", len(CONTENT), 0)]
    assert listener.received == len(CONTENT)
    download(server.archive(), tmp_path / "new", **QUICK)
    assert server.requests == [None]


@pytest.mark.parametrize("fault", ["truncate", "stall"])
def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path, fault):
    server.faults = [fault, fault]
    listener = Listener()
    path = download(server.archive(), tmp_path, reporter=listener, **QUICK)
    assert path.read_bytes() == CONTENT
    half, three_quarters = len(CONTENT) // 2, 3 * len(CONTENT) // 4
    assert server.requests == [None, f"bytes={half}-", f"bytes={three_quarters}-"]
    assert listener.received == len(CONTENT)
    reason = {"truncate": "ended after", "stall": "no bytes arrive"}[fault]
    assert all(reason in text for text in listener.messages)


def test_a_later_session_resumes(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    assert download(server.archive(), tmp_path, **QUICK).read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-"]


def test_without_range_support_it_starts_again(server, tmp_path):
    server.ranges, server.faults = False, ["truncate", "truncate"]
    assert download(server.archive(), tmp_path, **QUICK).read_bytes() == CONTENT


def test_a_server_that_always_breaks_at_the_same_place_is_given_up(server, tmp_path):
    server.ranges, server.faults = False, ["truncate"] * 99
    with pytest.raises(DataError, match=r"a\.zip could not be fetched \(the connection ended"):
        download(server.archive(), tmp_path, **QUICK)
    assert len(server.requests) == 3


def test_a_wrong_resumption_is_refused(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    server.faults = ["wrong range"]
    assert download(server.archive(), tmp_path, **QUICK).read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-", None]


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", b"x" * len(CONTENT)])
def test_a_part_that_is_already_long_enough(server, tmp_path, part):
    (tmp_path / "a.zip.part").write_bytes(part)
    assert download(server.archive(), tmp_path, **QUICK).read_bytes() == CONTENT


def test_corruption_is_fetched_again_once(server, tmp_path):
    server.faults = ["corrupt"]
    listener = Listener()
    path = download(server.archive(), tmp_path, reporter=listener, **QUICK)
    assert path.read_bytes() == CONTENT
    assert any("wrong checksum" in text for text in listener.messages)
    path.unlink()
    server.faults = ["corrupt"] * 2
    with pytest.raises(DataError, match=r"checksum is wrong, twice.*By hand: download http"):
        download(server.archive(), tmp_path, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_archive_on_disk_is_replaced(server, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"damaged")
    assert download(server.archive(), tmp_path, **QUICK).read_bytes() == CONTENT


def test_passing_errors_are_tried_again_and_refusals_are_not(server, tmp_path):
    server.faults = [503, "nothing", 500]
    with pytest.raises(
        DataError, match=r"\(the server answers 500\).*about 1 MB, md5 [0-9a-f]{32}"
    ):
        download(server.archive(), tmp_path, **QUICK)
    server.faults = [503, "nothing"]
    download(server.archive(), tmp_path, **QUICK)
    (tmp_path / "a.zip").unlink()
    server.requests.clear()
    for refusal in (404, 416):  # the latter although no part of it was asked for
        server.faults = [refusal]
        with pytest.raises(DataError, match=rf"\(the server answers {refusal}\)"):
            download(server.archive(), tmp_path, **QUICK)
    assert len(server.requests) == 2


def test_no_server_at_all(tmp_path):
    archive = Archive("http://127.0.0.1:9/shd_train.h5.zip", "md5:abc", 130)
    with pytest.raises(DownloadError, match="could not be fetched") as caught:
        download(archive, tmp_path, **QUICK)
    assert caught.value.exit_code == 1
    assert "http://127.0.0.1:9/shd_train.h5.zip (about 130 MB, md5 abc)" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file cannot hold data \(File exists\)") as refused:
        download(server.archive(), tmp_path / "file", **QUICK)
    assert refused.value.exit_code == 2


def test_a_disk_that_refuses_is_a_fault_of_the_machine(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match=r"could not be fetched \(No space left") as fault:
        download(server.archive(), tmp_path, **QUICK)
    assert fault.value.exit_code == 1


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return buffer.getvalue()


def test_a_zip_gives_its_file_and_a_checksum_beside_it(tmp_path):
    packed = tmp_path / "a.h5.zip"
    packed.write_bytes(zipped({"deep/a.h5": CONTENT, "../evil": b"x", "README": b"y"}))
    unpack(packed, tmp_path / "out" / "a.h5")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.h5", "a.h5.sha256"}
    expected = f"{hashlib.sha256(CONTENT).hexdigest()}  a.h5\n"
    assert sidecar(tmp_path / "out" / "a.h5").read_text() == expected
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize(
    "content", [b"", b"no zip", zipped({"b.h5": b""}), "cut", "flipped", "locked"]
)
def test_bad_zips_leave_nothing(tmp_path, content):
    whole = zipped({"a.h5": CONTENT})
    if content == "cut":
        content = whole[: len(whole) // 2]
    if content == "flipped":
        content = whole[:200] + bytes([whole[200] ^ 255]) + whole[201:]
    if content == "locked":  # the bit for encryption, in both headers
        at = whole.index(b"PK\x01\x02") + 8
        content = whole[:6] + b"\1" + whole[7:at] + b"\1" + whole[at + 1 :]
    packed = tmp_path / "a.h5.zip"
    packed.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.h5\.zip"):
        unpack(packed, tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == [packed]


def test_a_tar_gives_its_folder(tmp_path):
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(tarred({"./yes/1.wav": b"1", "list.txt": b"2"}))
    unpack(packed, tmp_path / "deep" / "a")
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"a.tar.gz", "deep/a/yes/1.wav", "deep/a/list.txt"}


@pytest.mark.parametrize(
    "members",
    [
        {"ok": b"1", "../evil": b"2"},
        {"/evil": b"2"},
        {"a/../../evil": b"2"},
        {"link": (tarfile.SYMTYPE, "/etc")},
        {"hard": (tarfile.LNKTYPE, "../evil")},
        {"pipe": (tarfile.FIFOTYPE, "")},
        "cut",
    ],
)
def test_tars_that_lead_outside_or_are_damaged(tmp_path, members):
    packed = tmp_path / "in" / "a.tar.gz"
    packed.parent.mkdir()
    packed.write_bytes(tarred({"a": CONTENT})[:900] if members == "cut" else tarred(members))
    with pytest.raises(DataError, match=r"a\.tar\.gz"):
        unpack(packed, tmp_path / "in" / "a")
    assert list(tmp_path.iterdir()) == [packed.parent]
    assert list(packed.parent.iterdir()) == [packed]


def test_fetching_a_data_set_end_to_end(server, tmp_path, monkeypatch):
    write_events(tmp_path / "shd_train.h5", random_store())
    spikes = (tmp_path / "shd_train.h5").read_bytes()
    server.content = zipped({"shd_train.h5": spikes})
    archive = server.archive(server.content)
    archive = Archive(archive.url.replace("a.zip", "shd_train.h5.zip"), archive.checksum, 1)
    monkeypatch.setattr(fetch_module, "archives", lambda name: [archive])
    data, listener = tmp_path / "data", Listener()
    assert fetch("shd", data, reporter=listener, **QUICK) == [data / "shd_train.h5"]
    assert {p.name for p in data.iterdir()} == {"shd_train.h5", "shd_train.h5.sha256"}
    assert (data / "shd_train.h5").read_bytes() == spikes
    fetch("shd", data, reporter=listener, **QUICK)
    assert len(server.requests) == 1
    assert "is there already" in listener.messages[-1]

    assert presence(SOURCES["shd"], data) == {"train": "intact", "test": "missing"}
    (data / "shd_train.h5").write_bytes(spikes[:-1])
    assert presence(SOURCES["shd"], data)["train"].startswith("DAMAGED")
    fetch("shd", data, reporter=listener, **QUICK)
    assert (data / "shd_train.h5").read_bytes() == spikes  # fetched again
    sidecar(data / "shd_train.h5").unlink()
    assert presence(SOURCES["shd"], data)["train"].startswith("present, no checksum")
    (data / "shd_train.h5").write_bytes(spikes[: len(spikes) // 2])
    assert presence(SOURCES["shd"], data)["train"].startswith("DAMAGED")


def test_presence_of_recordings(tmp_path):
    gsc = SOURCES["gsc"]
    assert presence(gsc, None) == {"all": "missing (no folder data here, and no --data-dir)"}
    assert presence(gsc, tmp_path) == {"all": "missing"}
    for name in ("yes/a_nohash_0.wav", "_background_noise_/b_nohash_0.wav", "yes/readme"):
        path = tmp_path / gsc.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert presence(gsc, tmp_path) == {"all": "in part, 1 of 105829 recordings"}
    assert presence(SOURCES["synthetic"], None) == {"all": "built in"}


def test_addresses_and_checksums_of_shd_and_ssc():
    pytest.importorskip("tonic", reason="the extra `fetch` is not installed")
    shd, ssc = archives("shd"), archives("ssc")
    assert shd[0] == Archive(
        "https://zenkelab.org/datasets/shd_train.h5.zip",
        "md5:f3252aeb598ac776c1b526422d90eecb",
        130,
    )
    assert [a.filename for a in ssc] == ["ssc_train.h5.zip", "ssc_valid.h5.zip", "ssc_test.h5.zip"]
    for name, found in (("shd", shd), ("ssc", ssc)):
        assert [a.url for a in found] == [SOURCES[name].address + f for f in SOURCES[name].archives]


def test_address_and_checksum_of_gsc():
    pytest.importorskip("torchaudio", reason="the extra `gsc` is not installed")
    (archive,) = archives("gsc")
    assert archive.url == SOURCES["gsc"].address + "speech_commands_v0.02.tar.gz"
    assert archive.checksum.startswith("sha256:af14739ee7dc3114")


def test_what_cannot_be_fetched(monkeypatch):
    with pytest.raises(DataError, match="synthetic needs no download: it is made on first use"):
        archives("synthetic")

    def absent(source):
        raise ImportError("No module named 'tonic'")

    monkeypatch.setattr(fetch_module, "_from_tonic", absent)
    with pytest.raises(DataError, match=r'pip install "snn-delays\[fetch\]"') as caught:
        archives("shd")
    for word in ("https://zenkelab.org/datasets/shd_train.h5.zip (about 130 MB)", "shd_test.h5"):
        assert word in str(caught.value)


def test_progress_in_lines_where_there_is_no_terminal():
    output = Console(file=io.StringIO(), width=200)
    with TerminalDownload(output) as bars:
        bars.start("a.zip", 1_000_000, 0)
        for _ in range(20):
            bars.advance(50_000)
    lines = output.file.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("a.zip: 1 of 1 MB, ")
    assert lines[-1].endswith("0 s left")


def test_a_transfer_that_gets_further_each_time_is_not_given_up(server, tmp_path):
    server.faults = ["truncate"] * 6
    assert download(server.archive(), tmp_path, **QUICK).read_bytes() == CONTENT
