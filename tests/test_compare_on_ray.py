"""Jobs on a Ray cluster of two nodes, one of which is killed; archives of run folders."""

import contextlib
import io
import os
import socket
import sys
import time
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import FLAGS, tiny_recipe

from snn_delays.cli.runners import choose_workforce
from snn_delays.compare import on_ray
from snn_delays.compare.jobs import Job
from snn_delays.compare.on_ray import cluster_cores, pack, run_on_ray, unpack
from snn_delays.errors import RunError, SnnDelaysError
from snn_delays.evaluation import evaluate
from snn_delays.nn import round_delays
from snn_delays.runs import RunFolder
from snn_delays.training.assembly import load_split, load_trained


def archive(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return content.getvalue()


def files_below(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def cluster():
    """A head and a second node on this machine, one core each."""
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    from ray.cluster_utils import Cluster

    system = {f"health_check_{k}": v for k, v in (("period_ms", 300), ("failure_threshold", 3))}
    system["worker_niceness"] = 0  # else other tests leave them no time
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        cluster = Cluster(True, head_node_args=small | {"_system_config": system})
        cluster.second = cluster.add_node(**small)
        yield cluster
        cluster.shutdown()


def busy_workers(node):
    """Processes of a node that carry out a task now, not those that stand by."""
    raylet = str(node.all_processes["raylet"][0].process.pid)
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            title = (folder / "cmdline").read_text()
        except OSError:
            continue  # it ended just now
        if parent == raylet and title.startswith("ray::learned"):
            found.append(int(folder.name))
    return found


def wait_until_busy(node):
    end = time.monotonic() + 60
    while not (found := busy_workers(node)):
        assert time.monotonic() < end, "no task came to the second node"
        time.sleep(0.05)
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
@pytest.mark.slow
def test_a_node_killed_in_the_middle_loses_nothing(cluster, tmp_path):
    long = 20  # so that both nodes are busy when the short run is back
    recipes = [tiny_recipe(seed=seed, epochs=e) for seed, e in enumerate((3, long, long))]
    jobs = [Job(r, tmp_path / f"learned-seed{r.seed}", None, "cpu", "learned") for r in recipes]
    with contextlib.closing(run_on_ray(jobs, cluster.address, 1)) as results:
        first, summary = next(results)
        before = files_below(first.folder)
        assert before.keys() >= {"summary.json", "metrics.jsonl", "last.ckpt", "plots/raster.png"}
        assert wait_until_busy(cluster.second)
        cluster.remove_node(cluster.second, allow_graceful=False)
        done = {first: summary, **dict(results)}
    assert set(done) == set(jobs)
    assert files_below(first.folder) == before
    for job, result in done.items():
        assert result == RunFolder(job.folder).summary()
        assert result["seed"] == job.recipe.seed
    net, recipe, _ = load_trained(RunFolder(jobs[2].folder))
    again = evaluate(round_delays(net), load_split(recipe, "test", None))
    assert again.accuracy == done[jobs[2]]["test_accuracy"]


@pytest.mark.slow
def test_what_fails_over_there_is_an_error_here_and_begun_runs_go_on(cluster, tmp_path, trained):
    begun = tmp_path / "begun"
    unpack(pack(trained[0].path), begun)
    (begun / "summary.json").unlink()
    recipe = RunFolder(begun).recipe()
    impossible = tiny_recipe(dataset="shd", seed=1)
    jobs = [
        Job(recipe, begun, None, "cpu", "learned"),
        Job(impossible, tmp_path / "impossible", tmp_path / "no-data", "cpu", "learned"),
    ]
    results = dict(run_on_ray(jobs, cluster.address, 1))
    assert results[jobs[0]]["test_accuracy"] == trained[1]["test_accuracy"]
    metrics = "metrics.jsonl"  # with the times of the epochs, which were not done again
    assert (begun / metrics).read_bytes() == (trained[0].path / metrics).read_bytes()
    assert isinstance(results[jobs[1]], SnnDelaysError)
    assert "no-data" in str(results[jobs[1]])
    with pytest.raises(SnnDelaysError, match="`threads` must be at most 1, the cores of the"):
        next(run_on_ray(jobs, cluster.address, 64))


@pytest.mark.slow
def test_compare_on_a_cluster(cluster, call, tmp_path):
    out = tmp_path / "study"
    words = ["--engine", "ray", "--address", cluster.address, "--delays", "learned"]
    code, printed, err = call("compare", *FLAGS, *words, "--seeds", "1", "--out", out)
    assert (code, err) == (0, "")
    assert "1 runs; 1 at a time" in printed
    assert (out / "learned-seed0" / "network.json").is_file()
    assert "learned,0," in (out / "results.csv").read_text()


def test_options_that_do_not_go_together(call, tmp_path):
    for words in (["--address", "10.0.0.1:6379"], ["--engine", "ray", "--workers", "2"]):
        code, _, err = call("compare", *FLAGS, *words, "--out", tmp_path / "study")
        assert code == 2
        assert "--engine" in err
        assert not (tmp_path / "study").exists()


def test_no_cluster_and_no_ray_are_one_sentence_each(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SnnDelaysError, match=r'pip install "snn-delays\[ray\]"'):
        cluster_cores(None)
    monkeypatch.undo()
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(SnnDelaysError, match=f"No Ray cluster answers at {address}"):
            cluster_cores(address)


def test_a_machine_outside_the_cluster_is_told_how_to_join(monkeypatch):
    """Ray itself would end the process with a list of C++ calls."""
    pytest.importorskip("ray")
    monkeypatch.setattr(on_ray, "_JOIN", "raise SystemExit(1)")
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        with pytest.raises(SnnDelaysError, match=rf"^This .*`ray start --address {address}`"):
            cluster_cores(address)
        monkeypatch.setattr(on_ray, "_JOIN", "import time; time.sleep(60)")
        monkeypatch.setattr(on_ray, "_JOIN_SECONDS", 0.1)
        with pytest.raises(SnnDelaysError, match=r"^No Ray cluster answers .* heard for 0.1 s"):
            cluster_cores(address)


names = st.lists(
    st.text("abcXYZ019_-.", min_size=1).filter(lambda s: not s.startswith(".")),
    min_size=1,
    max_size=3,
).map("/".join)


@given(files=st.dictionaries(names, st.binary(), max_size=5))
def test_a_folder_comes_back_as_it_was(files, tmp_path_factory):
    place = tmp_path_factory.mktemp("archives")
    files = {f"{i}/{name}": data for i, (name, data) in enumerate(files.items())}
    for name, data in files.items():
        (place / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "a" / name).write_bytes(data)
    unpack(pack(place / "a"), place / "b")
    found = {
        p.relative_to(place / "b").as_posix(): p.read_bytes()
        for p in (place / "b").rglob("*")
        if p.is_file()
    }
    assert found == files


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "plots/../../evil", "a//b", ".hidden", "a\\b", "C:evil", "plots/"]
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    folder = tmp_path / "out" / "run"
    with pytest.raises(RunError, match="unsafe name"):
        unpack(archive({"summary.json": "{}", name: "x"}), folder)
    assert not folder.exists()
    assert not list(tmp_path.rglob("evil"))


def test_a_damaged_archive_changes_nothing(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").write_text("old")
    content = archive({"new": "x" * 100})
    for damaged in (b"", content[:-30], content.replace(b"xxx", b"yyy")):
        with pytest.raises(RunError, match="is damaged"):
            unpack(damaged, tmp_path / "run")
    assert files_below(tmp_path) == {"run/old": b"old"}
    unpack(content, tmp_path / "run")
    assert files_below(tmp_path) == {"run/new": b"x" * 100}
    assert os.listdir(tmp_path) == ["run"]


def gpus_of_tasks(monkeypatch, device, resources, folder):
    """How many GPUs a task is given for `device`, and what is its device, on a made-up cluster."""
    given = []

    def remote(job, *_):
        given.append(job.device)
        return 0

    def declared(num_gpus, **_):  # in `options`, Ray would take one process for many tasks
        def options(name):
            given.append(num_gpus)
            return SimpleNamespace(remote=remote)

        return lambda task: SimpleNamespace(options=options)

    ray = SimpleNamespace(
        nodes=lambda: [{"Resources": {"CPU": 4}, "Alive": True}],
        cluster_resources=lambda: resources,
        remote=declared,
        wait=lambda tasks, num_returns: (tasks, []),
        shutdown=lambda: None,
    )
    monkeypatch.setattr(on_ray, "_connect", lambda address: ray)
    monkeypatch.setattr(on_ray, "_collect", lambda *_: {})
    list(run_on_ray([Job(tiny_recipe(), folder, None, device, "learned")], None, 1))
    return given


def test_a_task_has_a_gpu_of_its_own_where_there_are_some(monkeypatch, tmp_path):
    found = partial(gpus_of_tasks, monkeypatch, folder=tmp_path / "run")
    assert found("cuda:1", {"GPU": 2.0}) == [1, "cuda"]
    assert found("auto", {"GPU": 2.0}) == [1, "auto"]
    assert found("cpu", {"GPU": 2.0}) == [0, "cpu"]
    assert found("auto", {}) == [0, "auto"]
    with pytest.raises(SnnDelaysError, match="--device must be auto or cpu: the cluster has no"):
        found("cuda", {})


def test_the_cluster_that_is_named_is_asked_and_used(monkeypatch):
    cores = {"head:6379": 12, None: 2}
    monkeypatch.setattr("snn_delays.compare.on_ray.cluster_cores", cores.get)
    chosen = choose_workforce("ray", "head:6379", None, "auto", 20)
    assert (chosen.workers, chosen.threads) == (12, 1)
    assert chosen.runner.keywords == {"address": "head:6379", "threads": 1}
    assert choose_workforce("ray", "head:6379", None, "auto", 3).workers == 3
