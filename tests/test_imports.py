"""Imports stay light and go one way."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from itertools import pairwise
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
        (
            "from snn_delays.system import"
            " allocator, atomic, available_memory, compiled, faults, signals, spinning",
            {"torch"},
        ),
        ("import snn_delays.chips, snn_delays.interchange.netx", {"torch"}),
        ("import snn_delays.interchange.c_header", {"torch"}),
        ("import snn_delays.plots.clip, snn_delays.simulators.verify", {"torch"}),
        ("import snn_delays.cli", {"torch", "spikingjelly", "matplotlib"}),
        ("from snn_delays import load_recipe", {"torch", "spikingjelly"}),
        ("import snn_delays.training.loop", {"tonic", "torchaudio", "matplotlib.pyplot"}),
    ],
)
def test_imports_are_light(code, absent):
    assert not modules_loaded_by(code) & absent


def test_the_engine_runs_on_what_its_page_installs():
    root = Path(__file__).parents[1]
    page = (root / "scripts/docs/howto/engine.md").read_text("utf-8")
    installed = re.search(r"`pip install ([\w ]+) && pip install --no-deps", page).group(1).split()
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    needs = {re.match(r"\w+", need).group() for need in project["dependencies"]}
    network = root / "tests/golden/network-v1.json"
    script = f"""
import sys
sys.modules |= dict.fromkeys({needs - set(installed)})  # whose import fails then
import numpy as np
from snn_delays import Network
net = Network.load({str(network)!r})
clips = np.zeros((2, net.input.steps, net.input.channels), np.int8)
net.run(clips), net.step(net.start(batch=2), clips[:, 0])
"""
    modules_loaded_by(script)


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


def imported_by(path):
    """The `snn_delays.…` that a file imports, also within functions, but not for types only."""
    pending = [ast.parse(path.read_text("utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            for alias in node.names:
                home = snn_delays._HOMES.get(alias.name, alias.name)
                yield f"{node.module}.{home if node.module == 'snn_delays' else alias.name}"


def test_imports_between_parts_go_one_way():
    """A part is a package or a module directly in `snn_delays`; no two reach one another."""
    parts = {p.stem for p in PACKAGE.iterdir() if p.is_dir() or p.suffix == ".py"} - {"__init__"}
    graph = {part: set() for part in parts}
    for path in set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"}:
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        names = (name.split(".") for name in imported_by(path))
        used = {name[1] for name in names if name[0] == "snn_delays" and len(name) > 1}
        graph[part] |= (used & parts) - {part}
    TopologicalSorter(graph).prepare()  # raises CycleError
    for chain in (
        "errors system network_format engine",
        "ops functional nn networks training compare cli",
    ):
        for lower, upper in pairwise(chain.split()):
            assert lower in graph[upper], f"{upper} does not import {lower}"


def test_every_public_name_resolves():
    for name in snn_delays.__all__:
        assert getattr(snn_delays, name) is not None
    assert set(snn_delays.__all__) <= set(dir(snn_delays))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = snn_delays.nothing


def test_every_file_opens_with_what_it_is():
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path
