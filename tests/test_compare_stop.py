"""Ctrl-C in the middle of a study: a clean end, finished runs kept, and a way to go on."""

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tiny import FLAGS

from snn_delays.cli import compare, main
from snn_delays.compare.study import Outcome


def running(group):
    """The processes of a group that have not ended, ended ones that nobody asked about aside."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, own = (process / "stat").read_text().rpartition(")")[2].split()[:3]
            if own == str(group) and state != "Z":
                found.append(process.name)
    return found


def test_a_study_that_was_killed_as_its_folder_was_made_can_be_started(tmp_path, call, monkeypatch):
    (tmp_path / ".study-abcdefgh.tmp.json").touch()
    monkeypatch.setattr(compare, "_run", lambda *_: Outcome([], []))
    code, _, err = call("compare", *FLAGS, "--out", tmp_path)
    assert (code, err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to interrupt")
def test_ctrl_c_ends_every_process_and_resume_does_the_rest(tmp_path, capsys):
    out = tmp_path / "study"
    words = [*FLAGS[:-4], "--epochs", "1", "--delays", "none,learned", "--seeds", "2"]
    words += ["--out", str(out), "--device", "cpu", "--workers", "2", "-q"]
    command = [sys.executable, "-m", "snn_delays", "compare", *words]
    study = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test session in the background ignores SIGINT, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (out / "results.csv").exists():
        assert study.poll() is None, study.stderr.read()
        time.sleep(0.05)
    os.killpg(study.pid, signal.SIGINT)  # as a terminal does: to the workers too
    printed, complaint = study.communicate()
    assert study.returncode == 130
    assert (
        "Stopped by Ctrl-C; finished runs, and what others have done so far, are kept" in complaint
    )
    assert "Traceback" not in printed + complaint
    patience = time.monotonic() + 30
    while running(study.pid):
        assert time.monotonic() < patience
        time.sleep(0.05)

    assert not list(out.rglob(".*.tmp*"))
    done = {path: path.stat().st_mtime_ns for path in out.glob("*/answers.npz")}
    assert 1 <= len(done) < 4
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--resume", "--out", str(out), "--seeds", "1", "--workers", "1", "-q"])
    assert not stop.value.code
    assert all(path.stat().st_mtime_ns == changed for path, changed in done.items())
    assert len(list(csv.DictReader((out / "results.csv").open()))) == 2
    assert (out / "report.html").is_file()
    assert "Report:" in capsys.readouterr().out
