"""Training: seeds, data, time and the run it starts from are those that were named."""

import pytest
import torch
from test_training_loop import StopAfter
from tiny import tiny_recipe, tiny_run

from snn_delays.errors import SnnDelaysError
from snn_delays.nn import delay_layers
from snn_delays.runs import RunFolder
from snn_delays.training import assembly
from snn_delays.training import epoch as one_epoch
from snn_delays.training import loop as training
from snn_delays.training.assembly import load_split, load_trained, network_from_recipe, start_from
from snn_delays.training.checkpoint import load_tensors, save_tensors


def test_the_seed_draws_both_the_weights_and_the_order_of_the_clips(tmp_path, monkeypatch):
    orders, starts, batch = [], [], one_epoch.training_batch

    def seen(data, indices, recipe, epoch, *others):
        orders[-1].append(indices.tolist())
        return batch(data, indices, recipe, epoch, *others)

    build = training.network_from_recipe

    def built(*words):
        net = build(*words)
        starts.append({n: t.clone() for n, t in net.state_dict().items()})
        return net

    monkeypatch.setattr(one_epoch, "training_batch", seen)
    monkeypatch.setattr(training, "network_from_recipe", built)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        orders.append([])
        tiny_run(tmp_path / name, epochs=1, seed=seed)
    assert orders[0] == orders[1] != orders[2]
    first, second, third = (start["readout.weight"] for start in starts)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_a_device_of_torch_is_taken_and_one_that_is_not_here_refused(tmp_path):
    recipe, folder = tiny_recipe(epochs=1), RunFolder(tmp_path / "run")
    for absent in ("cuda:99", torch.device("meta")):
        with pytest.raises(SnnDelaysError, match="--device must be auto, cpu or an available cuda"):
            training.train(recipe, folder, device=absent)
    assert training.train(recipe, folder, device=torch.device("cpu"))["device"] == "cpu"


def test_a_resumed_run_counts_the_seconds_of_all_its_sessions(tmp_path):
    recipe, folder = tiny_recipe(epochs=2), RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, folder, reporter=StopAfter(1))
    tensors, facts = load_tensors(folder.checkpoint_file)
    facts["seconds"] += 1000
    facts["training_seconds"] += 500
    save_tensors(folder.checkpoint_file, tensors, facts)
    summary = training.train(recipe, folder, resume=True)
    assert 1000 < summary["wall_seconds"] < 1200
    assert summary["samples_per_second"] < 1.01 * 2 * 1920 / 500  # rounded


def test_arms_without_learned_delays_start_from_whole_ones_of_the_run(trained):
    folder, _ = trained
    source = load_trained(folder)[0].readout.delay
    for delays in ("learned", "fixed"):
        net = network_from_recipe(tiny_recipe(delays=delays, max_delay=3), 40, 10)
        start_from(net, str(folder.path))
        expected = source.clamp(0, 3)
        expected = expected.round() if delays == "fixed" else expected
        torch.testing.assert_close(net.readout.delay, expected, rtol=0, atol=0)
        for layer in delay_layers(net).values():
            assert layer.start_delay.max() <= 3
            if delays == "fixed":
                assert torch.equal(layer.start_delay, layer.delay)


@pytest.mark.parametrize("limit", [{"max_delay": 2}, {"quantization": {"max_delay": 2}}])
def test_a_run_to_start_from_is_kept_within_the_delays_allowed(trained, limit):
    folder, _ = trained
    net = network_from_recipe(tiny_recipe(**limit), 40, 10)
    start_from(net, str(folder.path))
    for layer in delay_layers(net).values():
        assert layer.delay.min() >= 0
        assert layer.delay.max() == 2
        assert layer.start_delay.max() <= 2


def test_a_run_is_known_again_by_its_files_and_its_clips(trained):
    recipe = trained[0].recipe()
    splits = assembly.load_splits(recipe, None)
    found, files = splits.fingerprint(), trained[1]["files"]
    assert {f["name"]: f["sha256"] for f in files}.items() <= found.items()
    clips = {k: v for k, v in found.items() if k.startswith("clips of")}
    assert sorted(clips.values()) == [640, 960, 1920]


def test_every_setting_of_the_data_reaches_the_loader(monkeypatch):
    asked = []
    monkeypatch.setattr(assembly.sdata, "load", lambda *words, **more: asked.append((words, more)))
    settings = {"dt_ms": 5.0, "steps": 70, "channel_bin": 2, "valid_speakers": (3,)}
    recipe = tiny_recipe().model_copy(update={**settings, "features": "published"})
    load_split(recipe, "valid", "somewhere")
    expected = {"data_dir": "somewhere", **settings, "features": "published"}
    assert asked == [(("synthetic", "valid"), expected)]
