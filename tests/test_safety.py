"""Files that somebody else made: no pickle, no more memory than they deserve, no path that leaves.

The last part keeps what the fuzzer found (see `scripts/fuzz.py`).
"""

from __future__ import annotations

import ast
import gzip
import io
import resource
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sample_networks import document

import snn_delays
from snn_delays.data.fetch import unpack
from snn_delays.data.gzipped import unpacked
from snn_delays.errors import DataError, NetworkFormatError, RunError
from snn_delays.network_format import files, load_network
from snn_delays.predictions import clips_from_npz
from snn_delays.runs import RunFolder
from snn_delays.training import checkpoint as ckpt
from snn_delays.training.assembly import load_trained
from snn_delays.training.loop import train

PACKAGE = Path(snn_delays.__file__).parent
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def calls_of(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_unpickles_or_evaluates(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not {name.split(".")[0] for name in names} & FORBIDDEN_MODULES, path
    for name, keywords in calls_of(path):
        assert name not in FORBIDDEN_CALLS, (path, name)
        assert name not in ("torch.load", "np.fromfile", "read_pickle"), (path, name)
        if name in ("np.load", "numpy.load"):  # numpy's own default is False too
            assert keywords.get("allow_pickle", "False") == "False", path


def grown(function, *arguments):
    """KiB by which the peak of this process grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    function(*arguments)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def npz_of(header, body=b""):
    """An .npz whose `x.npy` says this of itself."""
    text = repr(header).encode().ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", array)
    return data.getvalue()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"descr": "<f8", "fortran_order": False, "shape": (2**40, 9, 9)}, "GiB, more than half"),
        ({"descr": "<f8", "fortran_order": False, "shape": (-1, 9, 9)}, "cannot be read"),
        ({"descr": "|O", "fortran_order": False, "shape": (1, 1, 1)}, "cannot be read"),
        ({"descr": "<f8", "fortran_order": False, "shape": (5, 5, 5)}, "cannot be read"),
        ({"descr": "<U99999999", "fortran_order": False, "shape": (9**9, 1, 1)}, "GiB"),
    ],
)
def test_an_npz_that_promises_too_much(tmp_path, header, message):
    path = tmp_path / "x.npz"
    path.write_bytes(npz_of(header))

    def read():
        with pytest.raises(DataError, match=message):
            clips_from_npz(path)

    assert grown(read) < 2**19


def test_gzip_bombs_are_cut_off(tmp_path):
    path = tmp_path / "bomb.h5.gz"
    path.write_bytes(gzip.compress(bytes(200 << 20)))
    with pytest.raises(DataError, match="unpacks to more than"), unpacked(path, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(NetworkFormatError, match="MiB of JSON"):
        load_network(gzip.compress(bytes(200 << 20)))


def test_a_network_of_nothing_but_lists_is_refused_unparsed():
    text = b"[" + b"[]," * (files._MAX_LISTS // 2)
    assert grown(refuse_network, gzip.compress(text + text), "lists and objects") < 2**19


def refuse_network(data, message):
    with pytest.raises(NetworkFormatError, match=message):
        load_network(data)


def test_shapes_that_the_file_cannot_hold_take_no_memory():
    doc = document()
    doc["layers"][0] |= {"in_features": 2**20, "out_features": 2**20, "kernel_count": 256}
    doc["input"]["channels"] = 2**20
    text = __import__("json").dumps(doc).encode()
    assert grown(refuse_network, text, r"layers\[0\]\.(delays|weights)") < 2**17


def test_a_recipe_that_asks_for_more_than_its_model_holds(trained, tmp_path):
    folder = RunFolder(shutil.copytree(trained[0].path, tmp_path / "run"))
    folder.summary_file.unlink()  # it would tell that the recipe was edited
    text = folder.recipe_file.read_text()
    folder.recipe_file.write_text(text.replace("hidden = [8]", "hidden = [1000000, 1000000]"))

    def read():
        with pytest.raises(RunError, match="does not fit its recipe"):
            load_trained(folder)

    assert grown(read) < 2**17


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "C:\\out.txt"])
def test_paths_in_archives_stay_inside(tmp_path, name):
    packed = tmp_path / "in" / "words.tar.gz"
    packed.parent.mkdir()
    with tarfile.open(packed, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    with pytest.raises(DataError, match="leads outside"):
        unpack(packed, tmp_path / "in" / "words")
    assert {p.name for p in tmp_path.rglob("*")} == {"in", "words.tar.gz"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_archives_hold_no_links_and_no_devices(tmp_path, kind):
    packed = tmp_path / "words.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(DataError, match="not a plain file"):
        unpack(packed, tmp_path / "words")
    assert list(tmp_path.iterdir()) == [packed]


def damaged_run(trained, tmp_path, alter):
    """A copy of a run, trained but not tested yet, whose checkpoint says something else."""
    folder = RunFolder(shutil.copytree(trained[0].path, tmp_path / "run"))
    folder.summary_file.unlink()
    tensors, facts = ckpt.load_tensors(folder.checkpoint_file)
    alter(tensors, facts)
    ckpt.save_tensors(folder.checkpoint_file, tensors, facts)
    return folder


@pytest.mark.parametrize(
    "alter",
    [
        lambda tensors, facts: facts.update(optimisation={}),
        lambda tensors, facts: facts.update(optimisation=[1]),
        lambda tensors, facts: facts.pop("best_epoch"),
        lambda tensors, facts: facts.update(position={"batches": 1, "other": 2}),
        lambda tensors, facts: tensors.update({"optimisation/weights/0/exp_avg": torch.ones(3)}),
        lambda tensors, facts: tensors.update({"optimisation/weights": torch.ones(3)}),
        lambda tensors, facts: tensors.update({"optimisation/weights/99/exp_avg": torch.ones(3)}),
        lambda tensors, facts: tensors.pop("model/readout.weight"),
        lambda tensors, facts: tensors["model/readout.weight"].fill_(float("nan")),
    ],
)
def test_a_checkpoint_that_was_altered_is_one_sentence(trained, tmp_path, alter):
    folder = damaged_run(trained, tmp_path, alter)
    with pytest.raises(RunError, match=r"last\.ckpt"):
        train(folder.recipe(), folder, resume=True)


@pytest.mark.parametrize("names", [5, "ab", [], [1], None])
def test_class_names_are_names(trained, tmp_path, names):
    folder = RunFolder(shutil.copytree(trained[0].path, tmp_path / "run"))
    tensors, _ = ckpt.load_tensors(folder.model_file)
    ckpt.save_tensors(folder.model_file, tensors, {"classes": names})
    with pytest.raises(RunError, match="must be a list of names"):
        load_trained(folder)


def test_a_model_without_layers_is_one_sentence(trained, tmp_path):
    folder = RunFolder(shutil.copytree(trained[0].path, tmp_path / "run"))
    ckpt.save_tensors(folder.model_file, {}, {"classes": ["a"]})
    with pytest.raises(RunError, match="does not fit its recipe"):
        load_trained(folder)
    save_file({"a": torch.zeros(1)}, folder.model_file, metadata={"snn_delays": "[" * 10**5})
    with pytest.raises(RunError, match="not a readable"):
        load_trained(folder)


def test_found_by_fuzzing_a_member_whose_compression_is_damaged(tmp_path):
    """zlib's own error is no OSError."""
    data = io.BytesIO()
    np.savez_compressed(data, x=np.zeros((1, 2, 3), np.int8))
    path = tmp_path / "x.npz"
    whole, refused = data.getvalue(), 0
    for index in range(30, 120):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0xF7]) + whole[index + 1 :])
        refused += is_refused(path)
    assert refused > 60


def is_refused(path):
    """Whether the clips of a file are refused, in one line."""
    try:
        clips_from_npz(path)
    except DataError as error:
        return "\n" not in str(error)
    return False


def test_found_by_fuzzing_a_summary_that_is_a_number(trained, tmp_path):
    folder = RunFolder(shutil.copytree(trained[0].path, tmp_path / "run"))
    folder.summary_file.write_text("2")
    with pytest.raises(RunError, match="must be a JSON object"):
        folder.summary()
