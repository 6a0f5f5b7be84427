"""OpenMP's threads sleep soon after their work, unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

from snn_delays.system.spinning import limit_spinning


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "5000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_what_the_user_said_stays(monkeypatch, said, expected):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    limit_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_the_command_line_limits_it_before_torch_is_there():
    code = (
        "import os, sys; os.environ.pop('GOMP_SPINCOUNT', 0); os.environ.pop('OMP_WAIT_POLICY', 0);"
        "import snn_delays.cli as cli; early = 'torch' not in sys.modules\n"
        "try: cli.main(['--version'])\n"
        "except SystemExit: pass\n"
        "print(early, os.environ['GOMP_SPINCOUNT'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["True", "5000"]
