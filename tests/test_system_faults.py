"""Faults of the machine: one sentence, exit code 1, the last good state kept and gone on from."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys

import killed
import pytest
import torch
from test_training_keeping import WORDS, results, resume
from tiny import FLAGS, tiny_recipe

from snn_delays.data.hdf5 import write_events
from snn_delays.errors import DataError, MachineFault, RecipeError
from snn_delays.networks import DelaySNN
from snn_delays.runs import RunFolder
from snn_delays.system import available_memory
from snn_delays.system.faults import disk_sentence, is_out_of_memory
from snn_delays.training import loop as training
from snn_delays.training import memory
from snn_delays.training.epoch import Trainer


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The results of the run of `WORDS` without a fault."""
    place = tmp_path_factory.mktemp("whole")
    assert killed.finish(killed.start([*WORDS, "--out", place / "run"], place / "log")) == 0
    return results(place / "run")


def no_half_files(run):
    """Nothing under a temporary name, and what is under a final name is whole."""
    assert not list(run.rglob(".*"))
    folder = RunFolder(run)
    if folder.metrics_file.exists():
        assert folder.metrics_file.read_text().endswith("}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "number", "fault", "sentence"),
    [
        ("save_file", 5, "ENOSPC", "No space left on device"),
        ("fsync", 7, "EIO", "Input/output error"),
        ("replace", 4, "EROFS", "Read-only file system"),
        ("write", 1, "EACCES", "Permission denied"),
        ("write", 5, "EDQUOT", "quota exceeded"),
    ],
)
def test_a_failing_disk(tmp_path, expected, call, number, fault, sentence):
    run, log = tmp_path / "run", tmp_path / "log"
    options = {"fault": (call, number, fault), "save_every_s": 0.0}
    code = killed.finish(killed.start([*WORDS, "--out", run], log, **options))
    said = log.read_text()
    assert code == 1, said
    assert sentence in said
    assert "Traceback" not in said
    assert said.count("\n") == 1
    no_half_files(run)
    if (run / "last.ckpt").exists():
        assert f"Go on with: snn-delays train --resume --out {run}" in said
    resume(run, log)
    assert results(run) == expected


@pytest.mark.slow
def test_a_disk_that_is_full(tmp_path, expected):
    """A real one, of 60 kB, that has more room when the run goes on."""
    disk, log = tmp_path / "disk", tmp_path / "log"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        run = disk / "run"
        code = killed.finish(killed.start([*WORDS, "--out", run], log))
        said = log.read_text()
        assert code == 1, said
        assert "No space left on device" in said
        assert "Traceback" not in said
        no_half_files(run)
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        resume(run, log)
        assert results(run) == expected
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written(call, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = call("train", *FLAGS, "--out", tmp_path / "file" / "run", "--quiet")
    assert code == 2
    assert "A file is in the way of a folder: " in err
    assert str(tmp_path / "file") in err
    if os.geteuid() == 0:
        return  # the superuser may write anywhere
    (tmp_path / "closed").mkdir(mode=0o500)
    code, _, err = call("train", *FLAGS, "--out", tmp_path / "closed" / "run", "--quiet")
    assert code == 1
    assert "Permission denied" in err


@pytest.mark.parametrize("writer", ["tensors", "hdf5", "nir", "netx"])
def test_a_full_disk_names_the_file_whoever_writes(tmp_path, writer):
    """safetensors and HDF5 raise errors of their own; a limit on file sizes stands for the disk."""
    path = tmp_path / "file"
    lines = {
        "tensors": "save_tensors(path, {'a': torch.zeros(100_000)}, {})",
        "hdf5": "write_events(path, random_store(3000))",
        "nir": "save_nir(parse(document(sizes=(50, 60, 3))), path)",
        "netx": "save_netx(fitted(sizes=(50, 60, 3)), path)",
    }
    if writer == "nir":
        pytest.importorskip("nir", reason="the extra `nir` is not installed")
    script = f"""if True:
        import pathlib, resource, sys, torch
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        sys.unraisablehook = lambda _: None
        from data_helpers import random_store
        from snn_delays.training.checkpoint import save_tensors
        from sample_networks import document
        from snn_delays.data.hdf5 import write_events
        from snn_delays.errors import DataWriteError
        from snn_delays.network_format import parse
        from test_interchange_netx import fitted
        from snn_delays.interchange.netx import save_netx
        from snn_delays.interchange.nir import save_nir
        path = pathlib.Path({str(path)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        try:
            {lines[writer]}
        except (OSError, DataWriteError) as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "File too large" in done.stdout, done.stderr
    assert str(path) in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_data_that_vanish_while_training(call, tmp_path, shd_folder, monkeypatch):
    """The packed store outlives its source; only the last picture then has no clip to show."""
    folder = shutil.copytree(shd_folder, tmp_path / "data")
    real = Trainer.run

    def vanishing(*arguments):
        for path in folder.glob("*.h5"):
            path.unlink()
        return real(*arguments)

    monkeypatch.setattr(Trainer, "run", vanishing)
    run = tmp_path / "run"
    words = ["--dataset", "shd", "--data-dir", folder, "--out", run]
    code, _, err = call("train", *FLAGS, *words, "--quiet")
    assert code == 1
    assert "is finished, but one picture is missing" in err
    assert (run / "network.json").exists()
    code, _, err = call("train", "--resume", "--data-dir", folder, "--out", run)
    assert code == 1
    assert "is finished, but one picture is missing" in err
    assert "shd_train.h5" in err


def test_a_gpu_without_memory_says_which_batch_would_fit(tmp_path, monkeypatch):
    """Stands for CUDA: the batch that the message names trains, where memory is as short."""
    real = DelaySNN.simulate

    def short(net, x, mask=None, share=None):
        if net.training and x.shape[1] > 200:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(net, x, mask, share)

    monkeypatch.setattr(DelaySNN, "simulate", short)
    recipe = tiny_recipe(batch_size=256)
    monkeypatch.setattr(
        available_memory, "free_bytes", lambda device: 200 * 10 * 4 * 84 * 58 + 10**5 + 2**28
    )
    message = r"^Memory ran out\. Try --set batch_size=128, which should fit\.$"
    with pytest.raises(MachineFault, match=message):
        training.train(recipe, RunFolder(tmp_path / "run"))
    smaller = tiny_recipe(batch_size=128, epochs=1)
    training.train(smaller, RunFolder(tmp_path / "smaller"))


@pytest.mark.slow
def test_a_memory_limit_and_the_batch_that_fits(tmp_path):
    """A real limit; the batch size that the message names then trains under it."""
    room = 512 << 20

    def under_limit(*words):
        script = f"""if True:
            import resource, sys, torch, snn_delays.training.loop, snn_delays.neurons, torch._dynamo
            import snn_delays.plots.run
            torch.set_num_threads(1)
            used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + {room}, used + {room}))
            from snn_delays.cli import main
            main(sys.argv[1:])
        """
        words = [*("--quiet", "--device", "cpu", "--epochs", "1", "--set", "hidden=256"), *words]
        command = [sys.executable, "-c", script, "train", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True)

    done = under_limit("--set", "batch_size=1920", "--out", tmp_path / "large")
    assert done.returncode == 1, done.stderr
    assert "Memory ran out. Try --set batch_size=" in done.stderr
    assert "Traceback" not in done.stderr
    fits = int(done.stderr.split("batch_size=")[1].split(",")[0])
    assert fits >= 64
    done = under_limit("--set", f"batch_size={fits}", "--out", tmp_path / "small")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden": [10**6, 10**6]},
        {"hidden": [10**5], "max_delay": 4096, "steps": 10_000},
        {"hidden": [2**20], "batch_size": 10**6},
        {"steps": 10_000, "hidden": [10**6], "kernel_count": 64},
        {"augment": {"noise": 1e6}, "batch_size": 10**6},
    ],
)
def test_what_cannot_fit_is_refused_before_memory_is_taken(tmp_path, settings):
    """Less than 1 GiB more is taken than this process has at its peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RecipeError, match=r"takes .* GiB of memory or more .*, and cpu has"):
        training.train(tiny_recipe(**settings), RunFolder(tmp_path / "run"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20
    assert not (tmp_path / "run").exists()


def test_the_least_is_less_than_a_step_takes():
    """For the published SHD recipe on a CPU, 2412 KiB a clip were measured."""
    recipe = tiny_recipe(steps=100, hidden=[256, 256], batch_size=256)
    needed = memory.least_bytes(recipe, 140, 20, 256)
    assert needed < 256 * 2412 * 1024
    fitting = memory.fitting_batch(recipe, 140, 20, 256 * 2412 * 1024 + 2**28)
    assert 64 <= fitting <= 128
    assert memory.fitting_batch(recipe, 140, 20, 10**6) == 0
    assert "no batch size would fit" in memory.advice(0)
    without = [{"delays": "none", "kernel_count": count} for count in (1, 64)]
    least = {memory.least_bytes(tiny_recipe(**fields), 140, 20, 1) for fields in without}
    assert len(least) == 1


def test_limits_on_this_process_count(monkeypatch):
    whole = available_memory.total_bytes("cpu")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**30, 2**30))
    assert available_memory.total_bytes("cpu") == min(whole, 2**30)
    assert available_memory.free_bytes("cpu") <= whole


def test_free_memory_is_what_this_process_has_not_taken():
    whole = available_memory.total_bytes("cpu")
    before = available_memory.free_bytes("cpu")
    assert 0 < before < whole
    with mmap.mmap(-1, 2**27) as taken:
        taken.write(b"x" * len(taken))
        assert available_memory.free_bytes("cpu") <= before - 0.9 * len(taken)


def test_what_torch_keeps_of_a_gpu_is_free_too(monkeypatch):
    """Stands for CUDA, after a run in this process: all that it took is in torch's hands."""
    sizes = {"memory_reserved": 70, "memory_allocated": 10, "mem_get_info": (5, 80)}
    for name, size in sizes.items():
        monkeypatch.setattr(torch.cuda, name, {"cuda:1": size}.get)
    assert available_memory.free_bytes("cuda:1") == 5 + 60


def test_memory_is_known_where_there_is_no_linux(monkeypatch):
    """Stands for macOS and Windows, which have neither these files nor, the latter, these calls."""
    whole = available_memory.total_bytes("cpu")
    monkeypatch.setattr(available_memory, "_LIMIT_FILES", ("/no/such/file",))
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(os, "sysconf")
    assert available_memory.total_bytes("cpu") >= whole
    assert available_memory.free_bytes("cpu") > 0


def test_faults_are_known_by_what_they_say():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert disk_sentence(OSError(28, "No space left on device", "a")) == (
        "No space left on device: a"
    )
    assert disk_sentence(OSError("odd\nand long")) == "odd"
    in_the_way = IsADirectoryError(errno.EISDIR, "Is a directory", "a")
    assert disk_sentence(in_the_way) == "A folder is in the way of a file: a"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["evaluate", "export", "run", "data encode", "plot"])
def test_signals_stop_any_command_with_a_sentence(call, tmp_path, monkeypatch, number, command):
    def struck(*_arguments, **_options):
        os.kill(os.getpid(), number)
        raise AssertionError("the signal was not heard")

    targets = {
        "evaluate": "snn_delays.data.variants.parse_variants",
        "export": "snn_delays.network_format.json_schema",
        "run": "snn_delays.engine.Network.load",
        "data encode": "snn_delays.data.encoding.left_out",
        "plot": "snn_delays.plots.run.plot_run",
    }
    words = {
        "evaluate": [tmp_path],
        "export": ["--schema"],
        "run": [tmp_path / "a.json", tmp_path / "x.npz", "-o", tmp_path / "y.npz"],
        "data encode": [tmp_path, "-o", tmp_path / "a.h5"],
        "plot": [tmp_path],
    }
    monkeypatch.setattr(targets[command], struck)
    before = signal.getsignal(number)
    code, _, err = call(*command.split(), *words[command])
    assert code == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert err == f"Error: Stopped by {name}; no file is left half written.\n"
    assert signal.getsignal(number) is before


def test_writing_spikes_below_a_file_is_bad_input(tmp_path):
    from data_helpers import random_store

    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written \(A file is in the way of a") as found:
        write_events(tmp_path / "file" / "a.h5", random_store(2))
    assert found.value.exit_code == 2


def test_what_a_batch_takes_grows_with_its_tail_and_its_noise():
    def least(**changes):
        return memory.least_bytes(tiny_recipe(**changes), 40, 10, 100)

    plain = least(augment={"noise": 0.0})
    assert least(augment={"noise": 500.0}) - plain == 100 * 24 * 500
    assert least(tail_steps=34) - least(tail_steps=24) == 100 * 4 * 10 * (40 + 4 * 8 + 10)
    synapses = 40 * 8 + 8 * 10
    one_each = least() - least(delays="fixed")  # delays have a gradient and two moments too
    assert one_each == 4 * 4 * synapses
    room = 2**28 + 2**24

    def fitting(tail):
        return memory.fitting_batch(tiny_recipe(tail_steps=tail, max_delay=4), 40, 10, room)

    assert fitting(60 + 2 * 60) == fitting(60) // 2
