"""One run spread over two processes (gloo) against the same run in one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest
import torch
from safetensors.torch import load_file
from spread_script import CASES, gradients, train_in_float64
from tiny import FLAGS, tiny_recipe, tiny_run

from snn_delays import distributed
from snn_delays.cli import spread as spread_command
from snn_delays.distributed import Share, World, backward, joined, launched_rank, total
from snn_delays.errors import SnnDelaysError, TrainingError
from snn_delays.ops.synchronised import batch_norm
from snn_delays.runs import RunFolder
from snn_delays.system.signals import Signals
from snn_delays.watching import by_steps, watched

SCRIPT = str(Path(__file__).parent / "spread_script.py")


def torchrun(*words):
    """Run in two processes; exit code and output. A hang fails the test."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    done = subprocess.run(
        list(map(str, [*command, *words])),
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """The folder that `spread_script.py check` wrote."""
    out = tmp_path_factory.mktemp("spread")
    code, output = torchrun(SCRIPT, "check", out)
    assert code == 0, output
    return out


@pytest.mark.parametrize("number", range(len(CASES)))
def test_gradients_and_statistics_are_those_of_the_whole_batch(checked, number):
    expected = gradients(CASES[number])
    assert any(value.abs().max() > 1e-3 for name, value in expected.items() if "delay" in name)
    for rank in range(2):
        found = load_file(checked / f"case{number}-rank{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=name)


def test_training_is_the_same_in_two_processes_as_in_one(checked, tmp_path):
    expected, summary = train_in_float64(RunFolder(tmp_path / "run"))
    assert len(expected) == 21
    folders = [RunFolder(checked / f"run{rank}") for rank in range(2)]
    for rank in range(2):
        losses = load_file(checked / f"losses-rank{rank}.safetensors")["losses"]
        torch.testing.assert_close(losses, expected, rtol=0, atol=1e-6)
    models = [load_file(folder.model_file) for folder in folders]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    for name in ("train_accuracy", "valid_accuracy", "test_accuracy", "test_accuracy_live"):
        assert [f.summary()[name] for f in folders] == [summary[name]] * 2, name
    for mine, theirs in zip(
        RunFolder(tmp_path / "run").read_metrics(), folders[0].read_metrics(), strict=True
    ):
        assert mine["train_accuracy"] == theirs["train_accuracy"]
        assert mine["spike_rates"] == pytest.approx(theirs["spike_rates"], rel=1e-9)


@pytest.mark.parametrize(("clips", "size"), [(1, 1), (7, 3), (256, 2), (3, 8), (1, 2)])
def test_shares_cover_a_batch_once(clips, size):
    shares = [World(rank, size, torch.device("cpu")).share(clips) for rank in range(size)]
    covered = [n for s in shares if s.counts for n in range(clips)[s.own]]
    assert covered == list(range(clips))
    sizes = [len(range(clips)[s.own]) for s in shares]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    weights = [float(s.weigh(torch.tensor(1.0))) for s in shares]
    assert sum(weights) == pytest.approx(1.0)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job_and_resume_goes_on(tmp_path):
    run = RunFolder(tmp_path / "run")
    words = ["train", *FLAGS, "--epochs", "3", "--quiet"]
    code, output = torchrun(SCRIPT, "die", *words, "--out", run.path)
    assert code == 1
    assert "Process 0 of the run lost another one" in output
    assert "Start torchrun again with --resume" in output
    assert [r["epoch"] for r in run.read_metrics()] == [1]
    code, output = torchrun("-m", "snn_delays", "train", "--resume", "--out", run.path)
    assert code == 0, output
    assert output.count("Continuing after epoch 1.") == 1  # only the first process prints
    assert output.count("Test accuracy with integer delays") == 1
    summary = json.loads(run.summary_file.read_text())
    assert summary["processes"] == 2
    assert run.network_file.is_file()
    code, output = torchrun("-m", "snn_delays", "train", "--resume", "--out", run.path)
    assert code == 0, output
    assert output.count("The run is finished: nothing is trained or tested again") == 1
    assert json.loads(run.summary_file.read_text()) == summary
    whole, _ = tiny_run(tmp_path / "whole", epochs=3)
    for spread, alone in zip(run.read_metrics(), whole.read_metrics(), strict=True):
        assert spread["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-3)


@pytest.mark.slow
def test_two_machines_with_different_data_train_nothing(tmp_path, shd_folder):
    """Two agents of torchrun, as README has them on two machines; one file differs in a label."""
    shutil.copytree(shd_folder, tmp_path / "data1")
    with h5py.File(tmp_path / "data1" / "shd_train.h5", "r+") as file:
        file["labels"][0] = file["labels"][1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agents = []
    for rank, data in enumerate((shd_folder, tmp_path / "data1")):
        where = ["--nnodes", 2, "--node-rank", rank, "--master-addr", "127.0.0.1"]
        words = ["train", "--dataset", "shd", "--data-dir", data, *FLAGS, "--out", tmp_path / "run"]
        command = [sys.executable, "-m", "torch.distributed.run", *where, "--master-port", port]
        command += ["--nproc-per-node", 1, "-m", "snn_delays", *words]
        pipe = subprocess.PIPE
        agents.append(subprocess.Popen(list(map(str, command)), stderr=pipe, text=True))
    try:
        said = [agent.communicate(timeout=90)[1] for agent in agents]
    finally:
        for agent in agents:
            agent.terminate()  # and with it its process, which a kill would leave
    assert all("The processes of the run read different data" in text for text in said)
    assert [agent.returncode for agent in agents] == [1, 1]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_that_waits_for_the_others_ends_when_asked(tmp_path):
    """Or a start that the leader refuses would last until torchrun loses its patience."""
    with socket.create_server(("127.0.0.1", 0)) as leader:
        env = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(leader.getsockname()[1])}
        command = [sys.executable, "-m", "snn_delays", "train", *FLAGS, "--out", tmp_path / "run"]
        with subprocess.Popen(
            command, env={**os.environ, **env, "TORCHELASTIC_RUN_ID": "x"}
        ) as run:
            connection, _ = leader.accept()
            run.send_signal(signal.SIGTERM)
            try:
                code = run.wait(timeout=60)
            finally:
                run.kill()
                connection.close()
    assert code == -signal.SIGTERM
    assert not (tmp_path / "run").exists()


def test_the_leader_refuses_a_folder_before_it_waits_for_anyone(call, monkeypatch, trained):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "0")
    code, _, err = call("train", *FLAGS, "--out", trained[0].path)
    assert code == 2
    assert "exists already" in err


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(torch.cuda.device_count() + 1))
    with pytest.raises(SnnDelaysError, match=r"--nproc-per-node must be at most \d+, the number"):
        joined("cuda").__enter__()


@pytest.fixture
def torchruns(monkeypatch):
    """Stands for torchrun and two GPUs: this is process 3 of 4, the second of two on its machine.

    The list gets what it does: threads and GPU taken, meeting the others and parting from them.
    """
    done = []
    for name, value in (("LOCAL_RANK", 1), ("LOCAL_WORLD_SIZE", 2)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: done.append(count))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda place: done.append(str(place)))
    monkeypatch.setattr(distributed, "core_count", lambda: 7)

    def meet(backend, timeout):
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # can be ended while it waits
        done.append(backend)

    others = {"init_process_group": meet, "destroy_process_group": lambda: done.append("parted")}
    others |= {"get_rank": lambda: 3, "get_world_size": lambda: 4}
    for name, function in others.items():
        monkeypatch.setattr(distributed.dist, name, function)
    return done


@pytest.mark.parametrize(
    ("device", "place", "taken"),
    [("cpu", "cpu", [3, "gloo"]), ("cuda", "cuda:1", ["cuda:1", 3, "nccl"])],
)
def test_each_process_has_its_share_of_the_cores_and_a_gpu_of_its_own(
    torchruns, device, place, taken
):
    with Signals(), joined(device) as world:
        assert world == World(3, 4, torch.device(place))
        assert torchruns == taken
    assert torchruns == [*taken, "parted"]


@pytest.mark.parametrize(
    ("said", "beside", "threads"), [("1", 9, [1]), (None, 2, [3]), ("5", 2, [])]
)
def test_threads_are_at_least_one_and_those_that_were_asked_for(
    torchruns, monkeypatch, said, beside, threads
):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(beside))
    if said is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    with joined("cpu"):
        assert torchruns == [*threads, "gloo"]


def test_processes_part_after_an_error_too(torchruns):
    with pytest.raises(ZeroDivisionError), joined("cpu"):
        raise ZeroDivisionError
    assert torchruns[-1] == "parted"


def test_a_rank_without_torchrun_is_none(monkeypatch):
    """Other starters set RANK too."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert launched_rank() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launched_rank() == 3


@pytest.fixture
def worlds(monkeypatch):
    """Two processes played one after the other: the second one's call sees that of the first."""
    given = []

    def all_reduce(value, operation):
        given.append(value.clone())
        both = torch.stack(given)
        value.copy_(both.amax(0) if operation == torch.distributed.ReduceOp.MAX else both.sum(0))

    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    return [World(rank, 2, torch.device("cpu")) for rank in range(2)]


def test_data_are_the_same_in_whatever_order_they_are_named(worlds):
    worlds[0].check_data({"a": "1", "b": "2"})
    worlds[1].check_data({"b": "2", "a": "1"})


@pytest.mark.parametrize("order", [(0.0, 1.0), (1.0, 0.0)])
def test_networks_that_differ_in_a_statistic_only_differ(worlds, order):
    nets = [torch.nn.BatchNorm1d(1) for _ in worlds]
    for net, mean in zip(nets, order, strict=True):
        net.running_mean.fill_(mean)
    worlds[0].check_equal(nets[0], 1)
    with pytest.raises(TrainingError, match="networks differ after epoch 1"):
        worlds[1].check_equal(nets[1], 1)


def test_a_total_leaves_the_part_as_it_was(worlds):
    parts = torch.ones(2), torch.full((2,), 3.0)
    assert [total(part).tolist() for part in parts] == [[1.0, 1.0], [4.0, 4.0]]
    assert parts[1].tolist() == [3.0, 3.0]


def test_what_a_lost_process_leaves_is_one_sentence(monkeypatch):
    def lost(*_, **__):
        raise RuntimeError("Connection closed by peer\nframe #0: ...")

    monkeypatch.setattr(distributed.dist, "all_reduce", lost)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 3)
    message = (
        r"^Process 3 of the run lost another .* \(Connection closed by peer\)\. What was saved"
    )
    with pytest.raises(TrainingError, match=message):
        total(torch.ones(1))


def test_nothing_at_all_can_be_sent(monkeypatch):
    monkeypatch.setattr(distributed.dist, "broadcast", lambda value, src: None)
    leader = World(0, 1, torch.device("cpu"))
    assert [leader.send(data) for data in (b"", b"some")] == [b"", b"some"]


def test_a_follower_trains_on_its_own_data_from_the_leaders_state(tmp_path, monkeypatch):
    recipe = tiny_recipe()
    sent = [recipe.to_toml().encode(), b"state"]
    found = {}

    @contextmanager
    def joined(device):
        yield SimpleNamespace(send=lambda: sent.pop(0))

    def train(recipe, folder, **options):
        list(by_steps("clips", 1, 1))
        found.update(options, recipe=recipe, state=folder.checkpoint_file.read_bytes())

    monkeypatch.setattr(spread_command, "joined", joined)
    monkeypatch.setattr(spread_command, "train", train)
    monkeypatch.setattr(spread_command.signal, "signal", lambda *_: None)
    with watched(lambda *_: pytest.fail("the leader alone shows its loops")):
        spread_command.follow("cpu", tmp_path / "own")
    assert (found["recipe"], found["state"]) == (recipe, b"state")
    assert (found["data_dir"], found["resume"]) == (tmp_path / "own", True)


@pytest.mark.parametrize("spread", [False, True])
def test_the_loss_is_handed_back_without_the_graph_it_came_from(spread):
    net = torch.nn.Linear(2, 1)
    loss = net(torch.ones(3, 2)).mean().double()
    found = backward(loss, net, Alone(3, slice(0, 3)) if spread else None)
    assert (found, found.dtype, found.requires_grad) == (loss, loss.dtype, False)
    torch.testing.assert_close(net.weight.grad, torch.ones(1, 2))


class Alone(Share):
    """All clips of a batch, in one process that meets no other."""

    def sum(self, part):
        return part.clone()


@pytest.mark.parametrize("momentum", [0.3, None])
def test_the_norm_of_a_share_has_the_settings_of_torchs(momentum):
    x = torch.randn(7, 5, 3)
    ours, torchs = (torch.nn.BatchNorm1d(3, eps=2.0, momentum=momentum) for _ in range(2))
    for norm in (ours, torchs):
        norm.weight.data.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.data.copy_(torch.tensor([0.1, 0.0, -0.1]))
    expected = torchs(x.flatten(0, 1)).view_as(x)
    torch.testing.assert_close(batch_norm(x, ours, Alone(5, slice(0, 5))), expected)
    torch.testing.assert_close(ours.running_var, torchs.running_var)
    torch.testing.assert_close(ours.running_mean, torchs.running_mean)


def test_the_norm_of_short_floats_is_rounded_only_at_the_end():
    x, norm = torch.randn(50, 5, 3).bfloat16(), torch.nn.BatchNorm1d(3)
    share = Alone(5, slice(0, 5))
    assert torch.equal(batch_norm(x, norm, share), batch_norm(x.float(), norm, share).bfloat16())
