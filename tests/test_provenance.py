"""The commit is that of the source tree the package came from."""

import subprocess

from snn_delays import provenance


def test_the_commit_is_that_of_the_source_tree(tmp_path, monkeypatch):
    package = tmp_path / "snn_delays"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.git_commit() is None

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert provenance.git_commit() == commit
    (package / "__init__.py").write_text("changed = True")
    assert provenance.git_commit() == f"{commit}+dirty"
