"""What a result depends on besides its recipe and data: versions, machine, commit."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname


def versions() -> dict[str, str]:
    """Versions of everything a result depends on, the system and the processor."""
    names = ("snn-delays", "torch", "spikingjelly", "numpy", "h5py")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree without installing
            found[name] = "not installed"
    system = {"python": platform.python_version(), "machine": platform.platform()}
    return {**found, **system, "processor": processor()}


def processor() -> str:
    """Name of the processor, as Linux tells it; elsewhere what the platform has to say."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Commit of the source tree the package came from, `+dirty` if changed; None if unknown."""
    package = Path(__file__).resolve().parent
    source = _source_tree(package)
    if source is None or not _git(source, "ls-files", "snn_delays/__init__.py"):
        return None
    commit = _git(source, "rev-parse", "HEAD")
    dirty = _git(source, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+dirty" if commit and dirty else commit


def _source_tree(package: Path) -> Path | None:
    """The tree the package was installed from, if its files are still the installed ones."""
    try:
        text = metadata.distribution("snn-delays").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        text = None
    if text is None or package.parent.name not in ("site-packages", "dist-packages"):
        return package.parent
    source = Path(url2pathname(urlparse(json.loads(text)["url"]).path))
    for installed in package.rglob("*.py"):
        original = source / "snn_delays" / installed.relative_to(package)
        if not original.is_file() or original.read_bytes() != installed.read_bytes():
            return None
    return source


def _git(folder: Path, *words: str) -> str | None:
    """Output of a git command, or None where it fails."""
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
