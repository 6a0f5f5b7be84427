"""The commit is that of the source tree the package came from; versions and processor are named."""

import json
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from snn_delays import provenance


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def tree(tmp_path):
    """A source tree, in no repository."""
    package = tmp_path / "a tree" / "snn_delays"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    return package.parent


def lies_in(package, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))


def test_the_commit_is_that_of_the_source_tree(tree, monkeypatch):
    lies_in(tree / "snn_delays", monkeypatch)
    assert provenance.git_commit() is None
    git(tree, "init", "-q")
    git(tree, "commit", "-q", "--allow-empty", "-m", "of something else that holds the package")
    assert provenance.git_commit() is None
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "first")
    commit = git(tree, "rev-parse", "HEAD")
    assert provenance.git_commit() == commit
    (tree / "notes.txt").write_text("not of the source")
    assert provenance.git_commit() == commit
    (tree / "snn_delays" / "__init__.py").write_text("changed = True")
    assert provenance.git_commit() == f"{commit}+dirty"
    monkeypatch.setenv("PATH", "")
    assert provenance.git_commit() is None  # git is not installed


def test_a_tree_without_a_commit_has_none(tree, monkeypatch):
    lies_in(tree / "snn_delays", monkeypatch)
    git(tree, "init", "-q")
    git(tree, "add", ".")
    assert provenance.git_commit() is None


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_an_installed_package_has_the_commit_of_its_tree_while_they_are_the_same(
    tree, tmp_path, monkeypatch, folder
):
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "first")
    commit = git(tree, "rev-parse", "HEAD")
    package = tmp_path / folder / "snn_delays"
    shutil.copytree(tree / "snn_delays", package)
    lies_in(package, monkeypatch)
    told = SimpleNamespace(read_text=lambda _: json.dumps({"url": tree.as_uri()}))
    monkeypatch.setattr(metadata, "distribution", lambda _: told)
    assert provenance.git_commit() == commit
    (package / "added.py").write_text("")
    assert provenance.git_commit() is None
    (package / "added.py").unlink()
    (package / "__init__.py").write_text("changed = True")
    assert provenance.git_commit() is None
    told.read_text = lambda _: None  # from a package index
    assert provenance.git_commit() is None


def test_what_is_not_installed_is_named_as_such(tree, monkeypatch):
    def missing(name):
        if name == "snn-delays":
            raise metadata.PackageNotFoundError(name)
        return f"1 of {name}"

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setattr(metadata, "distribution", missing)
    expected = {name: f"1 of {name}" for name in ("torch", "spikingjelly", "numpy", "h5py")}
    expected |= {"snn-delays": "not installed", "python": platform.python_version()}
    assert provenance.versions().items() >= expected.items()
    lies_in(tree / "snn_delays", monkeypatch)
    assert provenance.git_commit() is None  # but no error


@pytest.mark.parametrize(
    ("cpuinfo", "told", "expected"),
    [
        (
            "model\t\t: 85\nmodel name\t: A CPU: fast\nmodel name\t: A CPU: fast\n",
            "x",
            "A CPU: fast",
        ),
        ("BogoMIPS\t: 50\n", "x", "x"),
        (None, "x", "x"),
        (None, "", "arm64"),
    ],
)
def test_the_processor_is_named_on_every_system(monkeypatch, cpuinfo, told, expected):
    def read(path, *_, **__):
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(platform, "processor", lambda: told)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert provenance.processor() == expected
