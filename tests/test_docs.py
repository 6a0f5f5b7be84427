"""Every command and every piece of Python in the documentation's pages runs, page by page.

Commands are shortened by flags, and the tutorial's recordings are fewer and shorter.
"""

import re
import shlex
import shutil
import subprocess
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from tiny import FLAGS

from snn_delays.cli import main
from snn_delays.config import Recipe

DOCS = Path(__file__).parent.parent / "scripts" / "docs"
FENCE = re.compile(r"```(sh|python|toml|c)\n(.*?)```", re.DOTALL)
PAGES = sorted(path for path in DOCS.rglob("*.md") if FENCE.search(path.read_text("utf-8")))

SHORT = [*FLAGS, "--epochs", "1"]
SHORTER = {"train": SHORT, "compare": [*SHORT, "--seeds", "1"], "verify": ["--clips", "1"]}
"""Flags that make a command quick; the last of a repeated flag counts."""

SMALLER = {"TAKES, WORDS = 16_000, 24,": "TAKES, WORDS = 16_000, 6,", "1300 + 100 *": "300 + 30 *"}
"""Changes of Python that make it quick."""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
@pytest.mark.slow
def test_the_page_does_what_it_says(page, tmp_path, monkeypatch, shd_folder):
    text = page.read_text("utf-8")
    if "data encode" in text:
        pytest.importorskip("soundfile", reason="the extra `gsc` is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("snn_delays.plots.run.plot_run", lambda *_: [])
    (tmp_path / "FILE.h5").symlink_to(shd_folder / "shd_train.h5")
    for kind, block in FENCE.findall(text):
        if kind == "toml":
            (tmp_path / "mine.toml").write_text(block, "utf-8")
        elif kind == "c":
            (tmp_path / "main.c").write_text(block, "utf-8")
        elif kind == "python":
            exec(compile(shortened(block), page.name, "exec"), {"__name__": "docs"})
        else:
            for line in block.splitlines():
                run(line)


def shortened(code):
    for long, short in SMALLER.items():
        code = code.replace(long, short)
    return code


def run(line):
    """Run a `snn-delays` command, or a C compiler where there is one; check that it ends well."""
    words = shlex.split(line)
    if words[0] == "cc":
        if shutil.which("cc") is not None:
            subprocess.run(words, check=True)
        return
    if words[0] != "snn-delays":
        assert words[0] == "pip", line
        return
    if words[1] == "verify" and find_spec("nest") is None:
        return  # the extra `verify` is not installed; test_simulators_verify.py has its own tests
    if any("nir" in word.split(".") for word in words) and find_spec("nir") is None:
        return  # the extra `nir` is not installed; test_interchange_nir.py has its own tests
    flags = SHORTER.get(words[1], [])
    if words[1] == "compare" and "--resume" in words:
        flags = ["--seeds", "1"]  # a study goes on with its own recipe
    code = 0
    try:
        main([*words[1:], *flags])
    except SystemExit as stop:
        code = stop.code or 0
    assert code == 0, line


def fields_table():
    """The table of `scripts/docs/recipe-fields.md`: every field, its default and its meaning."""
    lines = ["| field | default | meaning |", "| --- | --- | --- |"]
    for name, field in Recipe.model_fields.items():
        inner = type(field.default).model_fields if isinstance(field.default, BaseModel) else {}
        rows = {f"{name}.{key}": each for key, each in inner.items()} or {name: field}
        for key, each in rows.items():
            default, words = each.default, [each.description]
            if get_origin(each.annotation) is Literal:
                words.append(", ".join(f"`{choice}`" for choice in get_args(each.annotation)))
            if isinstance(default, bool) or default is None:
                default = str(default).lower()
            if isinstance(default, tuple):
                default = ",".join(map(str, default))
            lines.append(f"| `{key}` | `{default}` | {': '.join(words)} |")
    return "\n".join(lines) + "\n"


def test_every_field_of_a_recipe_is_explained():
    page = (DOCS / "recipe-fields.md").read_text("utf-8")
    assert page.endswith("\n\n" + fields_table()), fields_table()


def test_the_command_lines_page_cuts_no_sentence(tmp_path, monkeypatch):
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    spec = spec_from_file_location("conf", DOCS / "conf.py")
    conf = module_from_spec(spec)
    spec.loader.exec_module(conf)
    monkeypatch.setattr(conf, "HERE", tmp_path)
    conf._write_cli_page(None)
    lines = (tmp_path / "cli.md").read_text("utf-8").splitlines()
    assert "* `train`: Train a network, round its delays, test it and export it." in lines
    assert not [line for line in lines if line.startswith("* ") and line.endswith("...")]


def test_there_are_pages_and_the_tutorial_goes_from_recordings_to_a_chip():
    assert len(PAGES) >= 5
    tutorial = (DOCS / "tutorial.md").read_text("utf-8")
    for step in ("data encode", "train", "compare", "weight_bits", "--target loihi2", "verify"):
        assert f"snn-delays {step}" in tutorial or step in tutorial


def test_the_shortened_python_is_still_in_the_tutorial():
    tutorial = (DOCS / "tutorial.md").read_text("utf-8")
    assert all(long in tutorial for long in SMALLER)
