"""Every command of the README runs, shortened by flags; its map and its Python are true."""

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

from tiny import FLAGS

from snn_delays.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

SHORTER = {"train": FLAGS, "compare": [*FLAGS, "--seeds", "1"], "verify": ["--clips", "1"]}
"""Flags that make a command quick; the last of a repeated flag counts."""


def commands():
    """All shell commands of the README, in order, split at `&&`."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [part.strip() for line in lines for part in line.split("&&")]


def test_the_readme_has_the_two_set_up_commands():
    assert "pip install . && snn-delays train\n" in README
    assert 'pip install ".[test]" && pytest\n' in README


def test_every_snn_delays_command_runs(tmp_path, monkeypatch, shd_folder):
    monkeypatch.chdir(tmp_path)
    ran = []
    for command in commands():
        words = shlex.split(command)
        if words[0] == "torchrun":  # in one process here; tests/test_distributed.py has two
            words = ["snn-delays", *words[words.index("snn_delays") + 1 :]]
        if words[0] != "snn-delays":
            assert words[0] in ("pip", "pytest"), command
            continue
        if words[0:2] == ["snn-delays", "verify"] and find_spec("nest") is None:
            continue  # without the extra `verify`: test_simulators_verify.py has its own tests
        words = [w if w != "DIR" else str(shd_folder) for w in words[1:]]
        main_and_check([*words, *SHORTER.get(words[0], [])], command)
        ran.append(words[0])
    assert {"train", "export", "evaluate", "run", "compare"} <= set(ran)
    assert Path("network.json").is_file()
    assert Path("predictions.npz").is_file()


def main_and_check(words, command):
    code = 0
    try:
        main(words)
    except SystemExit as stop:
        code = stop.code or 0
    assert code == 0, command


def test_the_python_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_map_is_the_tree():
    """Every path of the map exists, and every module of the package is on the map."""
    block = re.search(r"## Map\n\n```\n(.*?)```", README, re.DOTALL).group(1)
    listed, stack = set(), []
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        stack = [*stack[:depth], name]
        path = "".join(stack).rstrip("/")
        assert (ROOT / path).exists(), path
        listed.add(path)
    for path in (ROOT / "snn_delays").rglob("*.py"):
        if not path.name.startswith("_"):
            assert path.relative_to(ROOT).as_posix() in listed, path


def test_pictures_are_small_and_have_alt_text_and_the_captions_their_script_wrote():
    captions = json.loads((ROOT / "scripts/docs/figures/captions.json").read_text("utf-8"))
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", README)
    assert len(pictures) >= 5
    for alt, path in pictures:
        assert len(alt.split()) >= 5, path
        assert (ROOT / path).stat().st_size < 150_000, path
        name = path.rpartition("/")[2]
        assert name == "delay-layer.png" or f"\n*{captions[name]}*\n" in README, path


def test_top_level_is_the_fixed_one():
    allowed = {"pyproject.toml", "snn_delays", "datasets", "models", "scripts", "tests"}
    allowed |= {"README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "PERFORMANCE.md"}
    allowed |= {"RELIABILITY.md", "CITATION.cff", "build", "runs", "dist", "data"}
    allowed |= {"PKG-INFO"}  # of an unpacked source distribution
    found = {p.name for p in ROOT.iterdir() if not p.name.startswith(".")}
    assert {n for n in found - allowed if not n.endswith(".egg-info")} == set()
    for shelf in ("datasets", "models"):
        assert not list((ROOT / shelf).rglob("*.py"))
