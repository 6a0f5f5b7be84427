"""Coverage-guided fuzzing of every reader of files that somebody else may have made (atheris).

`pip install atheris`, then `python scripts/fuzz.py TARGET SECONDS [CORPUS]`; a finding is a crash.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["snn_delays", "nir"]):
    import numpy as np

    from snn_delays.config import load_recipe
    from snn_delays.data import EventStore
    from snn_delays.data.gzipped import unpacked
    from snn_delays.data.hdf5 import read_events, write_events
    from snn_delays.errors import SnnDelaysError
    from snn_delays.interchange.nir import load_nir, save_nir
    from snn_delays.network_format import load_network
    from snn_delays.predictions import clips_from_npz
    from snn_delays.runs import RunFolder
    from snn_delays.training.assembly import load_trained

FOLDER = Path(tempfile.mkdtemp())
RECIPE = "dataset = 'synthetic'\nsteps = 60\nchannel_bin = 1\nhidden = [3]\nmax_delay = 2\n"


def network(data: bytes) -> None:
    """network.json, plain or gzip."""
    load_network(data)


def recipe(data: bytes) -> None:
    """A recipe's TOML, and the recipe written again."""
    path = FOLDER / "recipe.toml"
    path.write_bytes(data)
    found = load_recipe(path)
    path.write_text(found.to_toml(), encoding="utf-8")
    assert load_recipe(path) == found


def checkpoint(data: bytes) -> None:
    """The model of a run folder."""
    run = RunFolder(FOLDER / "run")
    run.path.mkdir(exist_ok=True)
    run.recipe_file.write_text(RECIPE, encoding="utf-8")
    run.model_file.write_bytes(data)
    load_trained(run)


def npz(data: bytes) -> None:
    """Clips in an .npz file."""
    path = FOLDER / "clips.npz"
    path.write_bytes(data)
    clips_from_npz(path)


def hdf5(data: bytes) -> None:
    """Spikes in SHD's layout."""
    path = FOLDER / "spikes.h5"
    path.write_bytes(data)
    read_events(path, channels=20)


def gzipped(data: bytes) -> None:
    """The same, compressed."""
    path = FOLDER / "spikes.h5.gz"
    path.write_bytes(data)
    with unpacked(path, FOLDER) as plain:
        read_events(plain, channels=20)


def nir(data: bytes) -> None:
    """A NIR graph."""
    path = FOLDER / "net.nir"
    path.write_bytes(data)
    load_nir(path)


def summary(data: bytes) -> None:
    """What else a run folder holds."""
    run = RunFolder(FOLDER / "other")
    run.path.mkdir(exist_ok=True)
    run.summary_file.write_bytes(data)
    run.metrics_file.write_bytes(data)
    for read in (run.summary, run.read_metrics):
        try:
            read()
        except SnnDelaysError:
            continue


TARGETS = {f.__name__: f for f in (network, recipe, checkpoint, npz, hdf5, gzipped, nir, summary)}


def seeds() -> dict[str, list[bytes]]:
    """One sound file for each target, to begin from."""
    neuron = {"model": "li", "tau": 2.0, "decay_input": False}
    layer = {"in_features": 1, "out_features": 1, "kernel_count": 1, "max_delay": 2}
    layer |= {"granularity": "synaptic", "delays": [[[1]]], "weights": [[[0.5]]], "bias": [0.0]}
    document = {"format": "snn-delays/network", "format_version": 1, "created_by": "x", "dt_ms": 1}
    document |= {"input": {"channels": 1, "encoding": "spike_counts", "steps": 3, "tail_steps": 1}}
    document |= {"layers": [{**layer, "neuron": neuron}]}
    document |= {"readout": {"kind": "max", "classes": ["a"]}}
    text = json.dumps(document).encode()
    save_nir(load_network(text), FOLDER / "seed.nir")
    counts = np.array([2, 3])
    store = EventStore(
        np.arange(5, dtype=np.int32), np.arange(5, dtype=np.int16), np.array([0, *counts.cumsum()]),
        np.array([0, 1]), np.array([0, 1]), 20, ("a", "b"), "seed",
    )  # fmt: skip
    write_events(FOLDER / "seed.h5", store)
    clips = io.BytesIO()
    np.savez_compressed(clips, x=np.zeros((1, 2, 3), np.int8))
    return {
        "network": [text],
        "recipe": [load_recipe("synthetic").to_toml().encode(), RECIPE.encode()],
        "checkpoint": [_model()],
        "npz": [clips.getvalue()],
        "hdf5": [(FOLDER / "seed.h5").read_bytes()],
        "gzipped": [_gzip((FOLDER / "seed.h5").read_bytes())],
        "nir": [(FOLDER / "seed.nir").read_bytes()],
        "summary": [b'{"dataset": 1}\n{"epoch": 1}\n'],
    }


def _gzip(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data)


def _model() -> bytes:
    from snn_delays.training.assembly import network_from_recipe
    from snn_delays.training.checkpoint import save_tensors

    path = FOLDER / "seed.toml"
    path.write_text(RECIPE, encoding="utf-8")
    net = network_from_recipe(load_recipe(path), 2, 2)
    save_tensors(FOLDER / "seed.safetensors", dict(net.state_dict()), {"classes": ["a", "b"]})
    return (FOLDER / "seed.safetensors").read_bytes()


def main() -> None:
    """Fuzz one target for some seconds."""
    name, seconds = sys.argv[1], sys.argv[2]
    corpus = Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp())
    corpus.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(seeds()[name]):
        (corpus / f"seed{i}").write_bytes(data)

    def once(data: bytes) -> None:
        try:
            TARGETS[name](data)
        except SnnDelaysError as error:
            if "\n" in str(error):
                raise RuntimeError("a message of several lines") from error

    words = {w for data in seeds()[name] for w in re.findall(rb"[A-Za-z_]{3,20}|-?\d[\d.e]*", data)}
    words |= {b"null", b"NaN", b"1e999", b"[", b"]", b"{", b"}", b"-1", b"9223372036854775808"}
    lines = [f'"{word.decode()}"' for word in sorted(words)]
    (FOLDER / "words").write_text("\n".join(lines), encoding="ascii")
    options = [
        f"-dict={FOLDER / 'words'}",
        f"-max_total_time={seconds}",
        "-rss_limit_mb=4096",
        "-timeout=20",
        "-max_len=200000",
    ]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}/found-", str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
