"""Every public name against wrong shapes, dtypes, devices, NaN, empty batches and short clips."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sample_networks import document

import snn_delays
from snn_delays import DelayLinear, DelaySNN, evaluate, load_recipe, load_trained, round_delays
from snn_delays import data as sdata
from snn_delays.config import Recipe
from snn_delays.engine import Engine, Network, simulate
from snn_delays.errors import DataError, NetworkFormatError, ShapeError, SnnDelaysError
from snn_delays.network_format import load_network, parse
from snn_delays.runs import RunFolder


def net(**options):
    return DelaySNN(3, [4], 2, max_delay=5, **options)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3),
        torch.zeros(7, 3),
        torch.zeros(7, 2, 4),
        torch.zeros(7, 0, 3),
        torch.zeros(0, 2, 3),
        torch.zeros(7, 2, 3, 1),
        torch.zeros(7, 2, 3, dtype=torch.int64),
        torch.zeros(7, 2, 3, dtype=torch.float64),
        torch.zeros(7, 2, 3, dtype=torch.bool),
        torch.zeros(7, 2, 3, device="meta"),
        torch.zeros(7, 2, 3).to_sparse(),
        np.zeros((7, 2, 3)),
        [[[1.0]]],
        None,
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [net, lambda: DelayLinear(3, 4, max_delay=5)])
def test_a_network_refuses_what_is_no_batch(make, x):
    model = make()
    if isinstance(model, DelayLinear) and getattr(x, "shape", ()) == (7, 0, 3):
        return  # a layer maps no clips to no clips
    with pytest.raises(ShapeError, match="`x` must be"):
        model(x)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("training", [False, True])
def test_a_network_refuses_input_that_is_not_finite(value, training):
    x = torch.zeros(7, 2, 3)
    x[3, 1, 2] = value
    with pytest.raises(SnnDelaysError, match="`x` must be finite everywhere"):
        net().train(training)(x)


@pytest.mark.parametrize("part", ["weight", "delay"])
def test_a_network_with_nan_is_refused_by_name(part):
    model = net()
    with torch.no_grad():
        getattr(model.readout, part)[0, 0, 0] = float("nan")
    for use in (round_delays, snn_delays.delay_statistics):
        with pytest.raises(SnnDelaysError, match=f"`readout.{part}` must be finite everywhere"):
            use(model)
    with pytest.raises(SnnDelaysError, match=f"`{part}` must be"):
        model(torch.zeros(7, 2, 3))


def test_clips_shorter_than_the_largest_delay_are_answered():
    scores = net()(torch.ones(1, 2, 3))
    assert scores.shape == (2, 2)
    assert scores.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        {"in_features": 0},
        {"in_features": 2.5},
        {"hidden": []},
        {"hidden": [0]},
        {"classes": 0},
        {"max_delay": -1},
        {"kernel_count": 0},
        {"delays": "some"},
        {"readout": "most"},
        {"sigma": 0.0},
        {"sigma": float("nan")},
        {"tau": 1.0},
        {"tau": float("nan")},
        {"dropout": 1.5},
        {"dropout": -0.1},
        {"tail_steps": -1},
        {"surrogate": "none"},
        {"v_threshold": float("nan")},
        {"v_threshold": "a"},
        {"v_reset": "a"},
        {"v_reset": float("nan")},
        {"tau": "x"},
        {"tau": float("inf")},
        {"readout_tau": 1},
        {"hidden": 4},
        {"hidden": [True]},
        {"hidden": "ab"},
        {"hidden": None},
        {"max_delay": 10**12},
        {"max_delay": True},
        {"in_features": 10**12},
        {"classes": 10**5000},
        {"surrogate": ["atan"]},
        {"surrogate_alpha": 0},
        {"surrogate_alpha": float("nan")},
        {"dropout": "a"},
        {"tail_steps": 1.5},
        {"tail_steps": 10**12},
        {"sigma": "a"},
        {"readout": None},
    ],
    ids=lambda options: str(options)[:40] if "classes" not in options else "classes",
)
def test_a_network_refuses_impossible_sizes(options):
    whole = {"in_features": 3, "hidden": [4], "classes": 2, "max_delay": 5, **options}
    with pytest.raises(SnnDelaysError, match=r"^`\w+(\[0\])?` must be"):
        DelaySNN(**whole)


@pytest.mark.parametrize(
    "value", [0.0, -1.0, float("nan"), float("inf"), 1e300, 1e-300, 10**400, True, "a", None]
)
def test_sigma_is_a_positive_number(value):
    with pytest.raises(SnnDelaysError, match="`sigma`"):
        snn_delays.set_sigma(net(), value)


def test_evaluation_needs_clips_and_a_fitting_network():
    clips = sdata.load("synthetic", "test")
    with pytest.raises(ShapeError, match="`x` must be"):
        evaluate(net(), clips)
    nobody = sdata.SpikeDataset(clips._store, [], dt_ms=10, steps=60, channel_bin=1)
    with pytest.raises(SnnDelaysError, match="`data` must be a data set of at least one clip"):
        evaluate(net(), nobody)
    for batch_size in (0, -1, 2.5, None):
        with pytest.raises(SnnDelaysError, match="`batch_size`"):
            evaluate(DelaySNN(40, [2], 10, max_delay=1), clips, batch_size)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(3),
        np.zeros((2, 12)),
        np.zeros((2, 11, 5)),
        np.zeros((2, 12, 6)),
        np.full((1, 12, 5), np.nan),
        np.full((1, 12, 5), np.inf),
        np.full((1, 12, 5), -1),
        np.full((1, 12, 5), 0.5),
        np.full((1, 12, 5), "a"),
        np.full((1, 12, 5), 1j),
        np.full((1, 12, 5), None),
        None,
        [[1, 2], [3]],
        torch.zeros(1, 12, 5, requires_grad=True),
        torch.zeros(1, 12, 5).to_sparse(),
        torch.zeros(1, 12, 5, dtype=torch.bfloat16),
        np.full((1, 12, 5), 1e300),
        np.full((1, 12, 5), 2**40),
    ],
    ids=lambda x: f"{type(x).__name__} {getattr(x, 'dtype', '')} {getattr(x, 'shape', '')}",
)
def test_the_engine_refuses_what_are_no_clips(x):
    network = parse(document())
    for run in (Engine(network).run, Network(**dict(network)).run):
        with pytest.raises(ShapeError, match="`x` must be"):
            run(x)


def test_the_engine_answers_no_clips_and_short_ones():
    engine = Engine(parse(document()))
    assert engine.run(np.zeros((0, 12, 5))).scores.shape == (0, 3)
    short = parse(document(steps=1, tail_steps=0, max_delay=9))
    x = np.ones((2, 1, 5))
    np.testing.assert_array_equal(Engine(short).run(x).output, simulate(short, x)[-1])
    for batch in (0, True, 1.0):
        with pytest.raises(SnnDelaysError, match="`batch`"):
            engine.start(batch)
    with pytest.raises(SnnDelaysError, match=r"`dtype` must be numpy\.float32 or"):
        Engine(parse(document()), np.dtype("float32"))
    with pytest.raises(ShapeError, match="N=2"):
        engine.step(engine.start(2), np.zeros((3, 5)))


@pytest.mark.parametrize(
    "options",
    [
        {"name": "mnist"},
        {"split": "dev"},
        {"dt_ms": 0},
        {"dt_ms": float("nan")},
        {"dt_ms": 1e-9},
        {"steps": 0},
        {"channel_bin": 0},
        {"channel_bin": 41},
        {"valid_speakers": (99,)},
        {"valid_speakers": ()},
        {"split": "train", "valid_speakers": tuple(range(16))},
    ],
    ids=str,
)
def test_data_refuse_impossible_settings(options):
    whole = {"name": "synthetic", "split": "valid", **options}
    with pytest.raises(DataError):
        sdata.load(whole.pop("name"), whole.pop("split"), **whole)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda x: {"scores": x}, r"What `net` gives must be scores \[N=256, classes\]; got dict"),
        (lambda x: x, r"got \[100, 256, 40\]"),
        (lambda x: x.sum(0)[:9], r"got \[9, 40\]"),
    ],
)
def test_evaluate_refuses_what_are_no_scores_and_no_data(net, message):
    class Module(torch.nn.Module):
        def forward(self, x):
            return net(x)

    data = sdata.load("synthetic", "test", steps=100)
    with pytest.raises(ShapeError, match=message):
        evaluate(Module(), data)
    with pytest.raises(SnnDelaysError, match=r"`data` must be a data set, .*; got Subset"):
        evaluate(Module(), torch.utils.data.Subset(data, [0]))
    with pytest.raises(SnnDelaysError, match="`net` must be a torch module; got function"):
        evaluate(net, data)


@pytest.mark.parametrize("index", [-961, 960, 10**9])
def test_samples_that_do_not_exist(index):
    with pytest.raises(IndexError, match="synthetic test"):
        sdata.load("synthetic", "test")[index]


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "0", '"a"', "{", "\x00", "[" * 10**5])
def test_no_network_is_one_sentence(tmp_path, text):
    path = tmp_path / "network.json"
    path.write_text(text)
    for load in (load_network, Network.load):
        with pytest.raises(NetworkFormatError) as refused:
            load(path)
        assert "\n" not in str(refused.value)
    with pytest.raises(NetworkFormatError):
        load_network(text.encode())


@pytest.mark.parametrize("source", [None, 5, ["network.json"]])
def test_a_network_is_read_from_a_path(source):
    for load in (load_network, Network.load):
        with pytest.raises(NetworkFormatError, match="must be a path"):
            load(source)


def test_recipes_and_runs_that_are_none(tmp_path):
    for source in ("", "none", tmp_path, tmp_path / "none.toml"):
        with pytest.raises(SnnDelaysError):
            load_recipe(source)
    with pytest.raises(SnnDelaysError):
        load_trained(RunFolder(tmp_path))
    assert isinstance(Recipe(), Recipe)


def test_rounding_and_statistics_of_other_modules():
    """A module without delay layers is copied as it is, and has no statistics."""
    plain = torch.nn.Linear(2, 2)
    assert snn_delays.delay_statistics(plain) == {}
    assert torch.equal(round_delays(plain).weight, plain.weight)
    snn_delays.clamp_delays(plain)


def test_the_summary_is_enough_to_run_again(trained):
    folder, summary = trained
    assert Recipe(**json.loads(folder.summary_file.read_text())["settings"]) == folder.recipe()
    assert summary["deterministic"] is False
    assert summary["threads"] >= 1


def test_deterministic_algorithms_on_request(call, tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    words = ["--epochs", "1", "--set", "hidden=4", "--quiet", "--device", "cpu"]
    try:
        code, _, err = call("train", *words, "--deterministic", "--out", tmp_path / "run")
        assert (code, err) == (0, "")
        assert RunFolder(tmp_path / "run").summary()["deterministic"] is True
    finally:
        forget_determinism(monkeypatch)


def test_every_process_of_a_spread_run_is_deterministic_on_request(call, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "1")
    found = []

    def follow(*_):
        found.append(torch.are_deterministic_algorithms_enabled())

    monkeypatch.setattr("snn_delays.cli.spread.follow", follow)
    try:
        assert call("train", "--deterministic")[0] == 0
    finally:
        forget_determinism(monkeypatch)
    assert found == [True]


def forget_determinism(monkeypatch):
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
