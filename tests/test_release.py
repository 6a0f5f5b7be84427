"""The wheel: it holds the package and nothing else, and trains from an empty environment, offline.

Dependencies come from the environment that runs the tests; the package comes from the wheel alone.
"""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from tiny import FLAGS

import snn_delays

ROOT = Path(__file__).parent.parent
NO_NETWORK = """
import socket

def refuse(*_):
    raise OSError("no network in this test")

socket.socket.connect = refuse
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="the extra `dev` is not installed")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    info = f"snn_delays-{snn_delays.__version__}.dist-info/"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(info + "METADATA").decode()
    files = (path for path in (ROOT / "snn_delays").rglob("*") if path.is_file())
    package = {
        path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in str(path)
    }
    assert {name for name in names if not name.startswith(info)} == package
    schema = "snn_delays/network_format/network-v1.schema.json"
    types = "snn_delays/py.typed"  # without it, a user's type checker reads none of our types
    assert {schema, "snn_delays/recipes/shd.toml", types} <= names
    assert {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"} == {
        name.removeprefix(info) for name in names if name.startswith(info)
    }
    assert f"Version: {snn_delays.__version__}\n" in metadata
    assert "License-Expression: MIT\n" in metadata


@pytest.mark.slow
def test_the_wheel_runs_the_first_command_of_the_readme_in_an_empty_environment(wheel, tmp_path):
    pytest.importorskip("pip", reason="pip is what installs the wheel")
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    bin_folder = home / ("Scripts" if os.name == "nt" else "bin")
    python = bin_folder / "python"
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--python", python]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)
    site = next(home.rglob("site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["NUMBA_OPT"] = "0"  # everything is compiled anew here; spend less on it
    where = [python, "-c", "import snn_delays; print(snn_delays.__file__)"]
    found = run(where, tmp_path, environment)
    assert Path(found.strip()).is_relative_to(site)
    output = run([bin_folder / "snn-delays", "train", *FLAGS], tmp_path, environment)
    assert "Test accuracy with integer delays" in output
    assert list(tmp_path.glob("runs/synthetic-*/network.json"))


def run(command, folder, environment):
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_version_is_the_same_everywhere():
    version = snn_delays.__version__
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text("utf-8")
