"""The scripts beside the package: pictures and `models/` of a tiny study, tables of tiny runs."""

import gzip
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_recipe, tiny_run

from snn_delays import RunFolder
from snn_delays.compare.plan import Study
from snn_delays.compare.wording import recipe_text
from snn_delays.engine import Network
from snn_delays.errors import RunError
from snn_delays.export import export_run
from snn_delays.predictions import predict

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def saved_study(study, tmp_path_factory):
    """The tiny study with its exported networks, as `compare` leaves it."""
    _, jobs, _, out = study
    folder = tmp_path_factory.mktemp("saved") / "study"
    shutil.copytree(out, folder)
    Study(tiny_recipe(epochs=1), ("none", "learned"), 2).save(folder)
    for job in jobs:
        export_run(RunFolder(folder / job.folder.name))
    return folder


def run_script(name, *words):
    command = [sys.executable, str(SCRIPTS / name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pictures_come_with_captions_that_name_their_source(saved_study, tmp_path):
    bench = tmp_path / "step.json"
    machine = {"threads": 1, "clock": "wall", "cpu": "a cpu", "torch": "2", "commit": "abcdefghij"}
    facts = {"recipe": "shd", "batch": 32, "kernel_count": 1}
    times = {"ratio": 4.0, "ours_s": 0.1, "peer_s": 0.4}
    bench.write_text(json.dumps({**facts, **times, "machine": machine}))
    run_script("figures.py", saved_study, "--bench", bench, "-o", tmp_path / "figures")
    captions = json.loads((tmp_path / "figures" / "captions.json").read_text())
    assert set(captions) == {
        *("arms.png", "delays.png", "raster.png", "throughput.png", "delay-layer.png")
    }
    for name in captions:
        assert (tmp_path / "figures" / name).read_bytes().startswith(b"\x89PNG")
    kind = recipe_text(tiny_recipe(epochs=1))
    assert "changed: " in kind
    assert f"data synthetic, recipe {kind}, 1 epochs, 2 seeds" in captions["arms.png"]
    assert "4.0 times (SHD, batch 32)" in captions["throughput.png"]
    assert "commit abcdefg." in captions["throughput.png"]


def test_a_network_on_the_shelf_answers_its_clips_as_stored(saved_study, tmp_path):
    words = ["--arms", "none,learned", "--data", "made up", "-o", tmp_path]
    run_script("shelf.py", saved_study, *words)
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert [name.rsplit("-", 1)[1] for name in folders] == ["learned", "none"]
    for folder in tmp_path.iterdir():
        original = saved_study / f"{folder.name.rsplit('-', 1)[1]}-seed0"
        packed = (folder / "network.json.gz").read_bytes()
        assert gzip.decompress(packed) == (original / "network.json").read_bytes()
        network = Network.load(folder / "network.json.gz")
        clips, answers = np.load(folder / "clips.npz"), np.load(folder / "answers.npz")
        assert clips["x"].shape == (5, network.input.steps, network.input.channels)
        assert answers["classes"].shape == (5,)
        again = predict(network, [clips["x"]], spikes=False)
        np.testing.assert_array_equal(answers["scores"], again["scores"])
        summary = json.loads((original / "summary.json").read_text())
        card = (folder / "card.md").read_text()
        assert f"{100 * summary['test_accuracy']:.1f} %" in card
        assert "made up" in card
        assert str(summary["git_commit"]) in card
        again = f"OMP_NUM_THREADS={summary['threads']} snn-delays train --recipe models/"
        assert again in card
        assert ("Delays from 0 to" in card) == folder.name.endswith("learned")


def test_a_network_that_test_chose_is_not_shelved(tmp_path):
    Study(tiny_recipe(epochs=1, protocol="paper"), ("learned",), 2).save(tmp_path / "study")
    words = [tmp_path / "study", "--data", "none", "-o", tmp_path / "models"]
    command = [sys.executable, str(SCRIPTS / "shelf.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "held-out data must choose the epoch; got protocol paper" in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_table_of_bits_is_not_made_of_runs_with_other_settings(tmp_path):
    finished = runpy.run_path(str(SCRIPTS / "quantisation_table.py"))["finished"]
    folder, summary = tiny_run(tmp_path / "run", epochs=1)
    finished(tiny_recipe(epochs=1), folder, None)
    assert folder.summary() == summary
    with pytest.raises(RunError, match=r"another recipe \(different: epochs\)"):
        finished(tiny_recipe(epochs=2), folder, None)


def test_an_ablation_is_not_made_of_runs_with_other_settings(tmp_path, shd_folder, monkeypatch):
    small = ["hidden=4", "steps=10", "max_delay=2", "tail_steps=2"]
    words = ["ablation.py", "--data-dir", shd_folder, "--out", tmp_path, "--only", "base"]
    words += ["--seeds", "1", *(word for pair in small for word in ("--set", pair))]
    main = runpy.run_path(str(SCRIPTS / "ablation.py"))["main"]
    monkeypatch.setattr(sys, "argv", [*map(str, words), "--epochs", "1"])
    main()
    main()  # the run is used again
    monkeypatch.setattr(sys, "argv", [*map(str, words), "--epochs", "2"])
    with pytest.raises(RunError, match=r"another recipe \(different: epochs\)"):
        main()
