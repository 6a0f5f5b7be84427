"""Imports stay light and go one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import snn_delays

PACKAGE = Path(snn_delays.__file__).parent


def modules_loaded_by(code):
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import snn_delays", {"torch", "numpy", "spikingjelly", "matplotlib"}),
        ("import snn_delays.engine, snn_delays.network_format", {"torch", "spikingjelly"}),
        ("import snn_delays.predictions", {"torch", "spikingjelly"}),
        ("import snn_delays.chips, snn_delays.netx_format", {"torch"}),
        ("import snn_delays.clip_picture, snn_delays.verify", {"torch"}),
        ("import snn_delays.cli", {"torch", "spikingjelly", "matplotlib"}),
        ("from snn_delays import load_recipe", {"torch", "spikingjelly"}),
        ("import snn_delays.training", {"tonic", "torchaudio", "matplotlib.pyplot"}),
    ],
)
def test_imports_are_light(code, absent):
    assert not modules_loaded_by(code) & absent


def test_only_neurons_imports_spikingjelly():
    importers = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(n.split(".")[0] == "spikingjelly" for n in names):
                importers.add(path.name)
    assert importers == {"neurons.py"}


def test_every_public_name_resolves():
    for name in snn_delays.__all__:
        assert getattr(snn_delays, name) is not None
    assert set(snn_delays.__all__) <= set(dir(snn_delays))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = snn_delays.nothing


def test_every_file_opens_with_what_it_is():
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path
