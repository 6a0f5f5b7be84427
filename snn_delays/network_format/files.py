"""Reading and writing network.json and network.json.gz, and the format's JSON Schema.

Every refusal is a NetworkFormatError that names the file and the field's path.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from snn_delays.errors import NetworkFormatError
from snn_delays.network_format.arrays import shown
from snn_delays.network_format.models import FORMAT, FORMAT_VERSION, Layer, Network
from snn_delays.system import atomic

MAX_BYTES = 128 * 2**20  # of JSON text, before and after decompression
_MAX_LISTS = 2**24  # and objects; each takes up to 30 times its text once it is parsed
_OTHER = "A finished run is kept: snn-delays export RUN writes it with --to nir or --to c."
_SMALLER = f"{_OTHER} Integers are shorter: --target generic --fit."
_GZIP_MAGIC = b"\x1f\x8b"


def load_network(source: str | os.PathLike[str] | bytes) -> Network:
    """Read a network from a path (.json or .json.gz) or from the file's bytes.

    Nothing in the file is executed; more than `MAX_BYTES` of text is refused before it is parsed.

    Raises:
        NetworkFormatError: the file cannot be read, or does not follow the format.
    """
    if isinstance(source, bytes):
        name, data = "network.json", source
    elif not isinstance(source, (str, os.PathLike)):
        raise NetworkFormatError("`source`", "a path, or the bytes of a file", shown(source))
    else:
        name = os.fspath(source)
        data = _read_bytes(Path(source))
    _check_size(name, len(data))
    if data.startswith(_GZIP_MAGIC):
        data = _decompress(name, data)
    _check_lists(name, data)
    return parse(_decode(name, data), name)


def parse(document: Any, name: str = "network.json") -> Network:
    """Check a document of dicts and lists (numpy arrays where numbers nest) and build the network.

    Args:
        document: what the JSON says, as `json.loads` gives it.
        name: what to call it in errors.

    Raises:
        NetworkFormatError: naming the path of the first field that is wrong.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        got = shown(document.get("format") if isinstance(document, dict) else document)
        raise NetworkFormatError(f"{name}: `format`", f"'{FORMAT}'", got)
    if "format_version" not in document:
        raise NetworkFormatError(f"{name}: `format_version` is missing")
    version = document["format_version"]
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NetworkFormatError(
            f"{name}: `format_version`",
            f"{FORMAT_VERSION} or older",
            shown(version),
            "Update snn-delays to read it.",
        )
    try:
        return Network.model_validate(document)
    except ValidationError as error:
        raise _sentence(name, error.errors(include_url=False)[0]) from None


def save_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Write `network` to `path`, atomically; compressed where the name ends in .gz.

    Raises:
        NetworkFormatError: it is larger than what `load_network` reads.
    """
    data = dumps(network).encode()
    _check_size(os.fspath(path), len(data), _SMALLER)
    _check_lists(os.fspath(path), data, _OTHER)
    if os.fspath(path).endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    atomic.write_bytes(path, data)


def dumps(network: Network) -> str:
    """`network` as JSON text, one output neuron a line; `load_network` gives it back exactly."""
    document = {
        **network.model_dump(exclude={"layers"}),
        "layers": [_layer_document(layer) for layer in network.layers],
    }
    order = [name for name in Network.model_fields if name in document]
    return _render({name: document[name] for name in order}, "") + "\n"


def json_schema() -> dict[str, Any]:
    """The format's JSON Schema (draft 2020-12); also shipped as `network-v1.schema.json`.

    It states types, keys and ranges; sizes that depend on other fields are checked by `parse`.
    """
    schema = Network.model_json_schema()
    schema["required"] = ["format", "format_version", *schema["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "snn-delays network, format version 1",
    }


def _read_bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            _check_size(str(path), os.fstat(file.fileno()).st_size)
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        inside = path.is_dir()  # a run folder, say
        raise NetworkFormatError(
            f"{path} cannot be read: {error.strerror}",
            remedy="Name the network.json in it." if inside else "Check the path.",
        ) from None


def _check_size(name: str, size: int, remedy: str = "") -> None:
    if size > MAX_BYTES:
        legal, got = f"at most {MAX_BYTES >> 20} MiB of JSON", f"{size / 2**20:.0f} MiB"
        raise NetworkFormatError(f"{name}: the file", legal, got, remedy)


def _check_lists(name: str, data: bytes, remedy: str = "") -> None:
    if data.count(b"[") + data.count(b"{") > _MAX_LISTS:
        raise NetworkFormatError(f"{name}: more than {_MAX_LISTS} lists and objects", remedy=remedy)


def _decompress(name: str, data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise NetworkFormatError(f"{name}: the gzip data is damaged ({error})") from None
    if len(text) > MAX_BYTES:
        raise NetworkFormatError(f"{name}: more than {MAX_BYTES >> 20} MiB of JSON after gzip")
    return text


def _decode(name: str, data: bytes) -> Any:
    def refuse_literal(literal: str) -> NoReturn:
        raise ValueError(f"{literal} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {shown(key)} appears twice")
            found[key] = value
        return found

    try:
        return json.loads(
            data.decode("utf-8"), parse_constant=refuse_literal, object_pairs_hook=unique
        )
    except RecursionError:
        raise NetworkFormatError(f"{name}: the JSON nests too deeply") from None
    except UnicodeDecodeError:
        raise NetworkFormatError(
            f"{name}: not a JSON document (it is not text)",
            remedy="A .nir file becomes one by: snn-delays export FILE.nir -o FILE.json",
        ) from None
    except ValueError as error:
        said = "a number of thousands of digits" if "int_max_str_digits" in str(error) else error
        raise NetworkFormatError(f"{name}: not a JSON document ({said})") from None


def _sentence(name: str, error: ErrorDetails) -> NetworkFormatError:
    """One pydantic error as our sentence."""
    path, kind, context = _path(error["loc"]), error["type"], error.get("ctx", {})
    if kind == "refused":
        subject = f"{name}: `{(path + context['path']).removeprefix('.')}`"
        return NetworkFormatError(subject, context["expected"], context["got"], context["remedy"])
    subject = f"{name}: `{path}`" if path else f"{name}: a key"
    if kind in ("missing", "union_tag_not_found"):
        missing = path if kind == "missing" else f"{path}.model"
        return NetworkFormatError(f"{name}: `{missing}` is missing")
    if kind == "extra_forbidden":
        return NetworkFormatError(
            f"{subject} is not a key of this format", remedy="Put notes of your own in `metadata`."
        )
    if kind == "union_tag_invalid":
        return NetworkFormatError(
            f"{name}: `{path}.model`", f"one of {context['expected_tags']}", context["tag"]
        )
    if kind == "too_short":
        got = f"one of {context['actual_length']}"
        return NetworkFormatError(subject, f"a list of at least {context['min_length']}", got)
    said, must_be, expected = error["msg"].partition("Input should be ")
    if not must_be:
        return NetworkFormatError(f"{subject}: {said}", got=shown(error["input"]))
    return NetworkFormatError(subject, expected, shown(error["input"]))


def _path(location: tuple[int | str, ...]) -> str:
    """`("layers", 1, "neuron", "lif", "tau")` as `layers[1].neuron.tau`."""
    path = ""
    for previous, part in zip(("", *location), location, strict=False):
        if previous == "neuron":
            continue  # pydantic's name for the member of the union
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


def _layer_document(layer: Layer) -> dict[str, Any]:
    """A layer as plain values; delays that are one per input or output stay short."""
    document = layer.model_dump()
    if layer.weight_scale is None:
        del document["weight_scale"]
    elif np.abs(layer.weights).max() < 2**53:
        document["weights"] = layer.weights.astype(np.int64)  # whole numbers, written as such
    if layer.granularity == "axonal":
        document["delays"] = layer.delays[:1]
    elif layer.granularity == "dendritic":
        document["delays"] = layer.delays[:, :1]
    return document


def _render(value: Any, indent: str) -> str:
    """JSON text with objects and matrices broken over lines, everything else on one line."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [
            f"{json.dumps(k, ensure_ascii=False)}: {_render(v, inner)}" for k, v in value.items()
        ]
        return "{\n" + ",\n".join(inner + row for row in rows) + f"\n{indent}}}"
    if isinstance(value, np.ndarray) and value.ndim > 1:
        rows = [json.dumps(row.tolist(), separators=(",", ":")) for row in value]
        return "[\n" + ",\n".join(inner + row for row in rows) + f"\n{indent}]"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(inner + _render(v, inner) for v in value) + f"\n{indent}]"
    plain = value.tolist() if isinstance(value, np.ndarray) else value
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)
