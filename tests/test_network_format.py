"""network.json: what is accepted round-trips exactly, and what is refused is refused by name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_networks import document

from snn_delays.errors import NetworkFormatError
from snn_delays.network_format import (
    Network,
    dumps,
    files,
    json_schema,
    load_network,
    parse,
    save_network,
)

GOLDEN = Path(__file__).parent / "golden" / "network-v1.json"


def damaged(path: tuple[Any, ...], value: Any, **sizes: Any) -> dict[str, Any]:
    """A valid document with the value at `path` replaced (or the key removed, for `...`)."""
    doc = document(**sizes)
    *parents, last = path
    target: Any = doc
    for part in parents:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return doc


def equal(a: Network, b: Network) -> bool:
    """Whether two networks say the same, every number bit for bit."""
    return dumps(a) == dumps(b)


def test_networks_can_be_compared() -> None:
    network, same = parse(document()), parse(document())
    assert network == same
    first, *others = network.layers
    for update in ({"weights": 2 * first.weights}, {"max_delay": 9}):
        layers = [first.model_copy(update=update), *others]
        assert network != network.model_copy(update={"layers": layers})
    whole = first.model_copy(update={"weights": np.rint(first.weights)})
    assert whole != whole.model_copy(update={"weight_scale": np.ones(first.out_features)})
    assert first != "a layer"


def test_arrays_have_full_shape_and_dtype() -> None:
    layer = parse(document(kernel_count=2)).layers[0]
    assert layer.weights.shape == layer.delays.shape == (7, 5, 2)
    assert layer.weights.dtype == layer.bias.dtype == np.float64
    assert layer.delays.dtype == np.int64


@pytest.mark.parametrize("name", ["network.json", "network.json.gz"])
def test_save_and_load_give_every_number_back(tmp_path: Path, name: str) -> None:
    doc = document(seed=3)
    doc["layers"][0]["weights"][0][0][0] = 0.1 + 0.2
    network = parse(doc)
    save_network(network, tmp_path / name)
    loaded = load_network(tmp_path / name)
    assert equal(loaded, network)
    assert np.array_equal(loaded.layers[0].weights, network.layers[0].weights)
    assert np.array_equal(loaded.layers[0].delays, network.layers[0].delays)
    assert loaded.metadata == doc["metadata"]
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_text_says_what_the_document_says() -> None:
    doc = document(seed=1, kernel_count=2, soft=True)
    assert json.loads(dumps(parse(doc))) == doc


def test_arrays_are_accepted_where_numbers_nest() -> None:
    doc = document()
    for layer in doc["layers"]:
        for name in ("delays", "weights", "bias"):
            layer[name] = np.array(layer[name])
    assert equal(parse(doc), parse(document()))


@pytest.mark.parametrize(("granularity", "axis"), [("axonal", 1), ("dendritic", 0)])
@pytest.mark.parametrize("nested", [False, True])
def test_one_delay_per_input_or_output_is_broadcast(
    granularity: str, axis: int, nested: bool
) -> None:
    doc = document()
    layer = doc["layers"][0]
    layer["granularity"] = granularity
    short = np.arange((7, 5)[axis]) % 5
    shape = (1, -1, 1) if axis else (-1, 1, 1)
    layer["delays"] = short.reshape(shape).tolist() if nested else short.tolist()
    network = parse(doc)
    assert np.array_equal(
        network.layers[0].delays, np.broadcast_to(short.reshape(shape), (7, 5, 1))
    )
    assert equal(load_network(dumps(network).encode()), network)


def test_weight_scale_makes_whole_weights_real() -> None:
    doc = document()
    layer = doc["layers"][0]
    layer["weights"] = np.arange(-17, 18).reshape(7, 5, 1).tolist()
    layer["weight_scale"] = 0.25
    assert np.array_equal(parse(doc).layers[0].real_weights.ravel(), np.arange(-17, 18) * 0.25)
    layer["weight_scale"] = [0.5, 1, 2, 3, 4, 5, 6]
    network = parse(doc)
    assert network.layers[0].real_weights[6, 4, 0] == 17 * 6
    assert equal(load_network(dumps(network).encode()), network)


REFUSED = [
    (("format",), "other", "`format` must be 'snn-delays/network'"),
    (("format_version",), 2, "`format_version` must be 1 or older; got 2. Update snn-delays"),
    (("format_version",), ..., "`format_version` is missing"),
    (("format_version",), 0, "`format_version`"),
    (("format_version",), True, "`format_version`"),
    (("dt_ms",), 0.0, "`dt_ms` must be greater than 0"),
    (("dt_ms",), ..., "`dt_ms` is missing"),
    (("matrix_order",), "[in][out][k]", "`matrix_order` must be '[out][in][k]'"),
    (("colour",), "red", "`colour` is not a key of this format"),
    (("\ud800",), 1, "a key must be a valid string"),
    (("readout", "classes", 1), "\ud800", "`readout.classes[1]` must be text that UTF-8 can hold"),
    (("metadata",), {"a": float("inf")}, "`metadata` must be plain JSON"),
    (("input", "steps"), 10**9, "`input.steps` must be less than or equal to"),
    (("input", "encoding"), "rate", "`input.encoding` must be"),
    (("layers",), [], "`layers` must be a list of at least 1; got one of 0"),
    (("layers", 0), 7, "`layers[0]`"),
    (("layers", 0, "delays", 3, 2, 0), 5, "`layers[0].delays[3][2][0]` must be an integer from 0"),
    (("layers", 1, "delays", 0, 2, 0), -1, "`layers[1].delays[0][2][0]` must be an integer from"),
    (("layers", 0, "delays", 3, 2, 0), 2.0, "`layers[0].delays[3][2][0]` must be an integer; got"),
    (("layers", 0, "delays", 3, 2, 0), True, "`layers[0].delays[3][2][0]` must be an integer"),
    (("layers", 0, "delays", 3, 2, 0), 10**300, "`layers[0].delays[3][2][0]` must be an integer"),
    (("layers", 0, "delays", 3, 2, 0), [1], "`layers[0].delays[3][2][0]` must be an integer"),
    (("layers", 0, "delays", 3, 2), [1, 2], "`layers[0].delays[3][2]` must be a list of 1"),
    (("layers", 0, "delays", 3), [], "`layers[0].delays[3]` must be a list of 5"),
    (("layers", 0, "delays"), [1, 2, 3, 4, 4], "`layers[0].delays` must be of shape [7, 5, 1]"),
    (("layers", 0, "granularity"), "axonal", "`layers[0].delays` must be one delay per input"),
    (("layers", 0, "granularity"), "dendritic", "`layers[0].delays` must be one delay per output"),
    (("layers", 0, "weights", 1, 1, 0), None, "`layers[0].weights[1][1][0]` must be a finite"),
    (("layers", 0, "weights", 1, 1, 0), float("nan"), "`layers[0].weights[1][1][0]` must be a fin"),
    (("layers", 0, "weights", 1, 1, 0), 10**400, "`layers[0].weights[1][1][0]` must be a finite"),
    (("layers", 0, "weights", 1), "x", "`layers[0].weights[1]` must be a list of 5; got 'x'"),
    (("layers", 0, "weights", 1, 1), "x", "`layers[0].weights[1][1]` must be a list of 1"),
    (("layers", 0, "weights", 0), [[1.0]] * 4, "`layers[0].weights[0]` must be a list of 5; got a"),
    (("layers", 0, "weights", 0, 0), [1.0, 1.0], "`layers[0].weights[0][0]` must be a list of 1"),
    (("layers", 0, "delays", 0), [[1]] * 4, "`layers[0].delays[0]` must be a list of 5; got a"),
    (("layers", 0, "weights"), [[[1.0]]], "`layers[0].weights` must be of shape [7, 5, 1]"),
    (("layers", 0, "weight_scale"), 0.5, "`layers[0].weight_scale` must be absent"),
    (("layers", 0, "bias"), [0.0], "`layers[0].bias` must be of shape [7]"),
    (("layers", 0, "bias"), "x", "`layers[0].bias` must be a finite number; got 'x'"),
    (("layers", 0, "max_delay"), 10**12, "`layers[0].max_delay` must be less"),
    (("layers", 0, "in_features"), 10**12, "`layers[0].in_features` must be less"),
    (("layers", 0, "neuron", "model"), "izhikevich", "`layers[0].neuron.model` must be one of"),
    (("layers", 0, "neuron", "model"), ..., "`layers[0].neuron.model` is missing"),
    (("layers", 0, "neuron", "tau"), 1.0, "`layers[0].neuron.tau` must be greater than 1"),
    (("layers", 0, "neuron", "tau"), "2", "`layers[0].neuron.tau` must be a valid number"),
    (("layers", 0, "neuron", "v_threshold"), -1.0, "`layers[0].neuron.v_threshold` must be above"),
    (("layers", 1, "neuron", "v_reset"), 0.0, "`layers[1].neuron.v_reset` is not a key"),
    (("readout", "kind"), "sum", "`readout.kind` must be"),
    (("readout", "kind"), "spike_count", "`layers[1].neuron.model` must be 'lif', as `readout"),
    (("readout", "classes"), ["a"], "`readout.classes` must be a list of 3"),
    (
        ("readout", "classes"),
        ["a", "b", "a"],
        "`readout.classes[2]` must be a name of its own, other than `classes[0]`; got 'a'",
    ),
]


@pytest.mark.parametrize(("path", "value", "said"), REFUSED)
def test_bad_field_is_refused_by_its_path(path: tuple[Any, ...], value: Any, said: str) -> None:
    with pytest.raises(NetworkFormatError) as caught:
        parse(damaged(path, value))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


def test_layers_must_chain() -> None:
    doc = document(sizes=(5, 7, 6, 3))
    del doc["layers"][1]
    with pytest.raises(NetworkFormatError, match=r"`layers\[1\].in_features` must be 7, as"):
        parse(doc)
    doc = document()
    doc["input"]["channels"] = 4
    with pytest.raises(NetworkFormatError, match=r"in_features` must be 4, as `input.channels`"):
        parse(doc)


def test_only_the_last_layer_integrates() -> None:
    doc = document()
    doc["layers"][0]["neuron"] = doc["layers"][1]["neuron"]
    with pytest.raises(
        NetworkFormatError, match=r"`layers\[0\].neuron.model` must be 'lif', as in"
    ):
        parse(doc)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a JSON document"),
        (b'{"format": 1, "format": 2}', "the key 'format' appears twice"),
        (b'{"format": NaN}', "NaN is not JSON"),
        (b'{"format": -Infinity}', "-Infinity is not JSON"),
        (b"[" * 100_000, "nests too deeply"),
        (b'{"format": ' + b"1" * 5000 + b"}", "not a JSON document"),
        (b"\xff\xfe", "not a JSON document"),
        (b"[1, 2]", "`format` must be 'snn-delays/network'"),
        (gzip.compress(b"{}", mtime=0)[:-4], "the gzip data is damaged"),
        (b"\x1f\x8b rubbish", "the gzip data is damaged"),
    ],
)
def test_bad_files_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(NetworkFormatError) as caught:
        load_network(data)
    assert said in str(caught.value)


def test_unreadable_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkFormatError, match="cannot be read: No such file"):
        load_network(tmp_path / "none.json")
    with pytest.raises(NetworkFormatError, match="cannot be read"):
        load_network(tmp_path)


def test_two_gigabytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    with open(path, "wb") as file:
        file.truncate(2 * 2**30)  # sparse: takes no space
    with pytest.raises(NetworkFormatError, match="at most 128 MiB of JSON; got 2048 MiB"):
        load_network(path)


def test_small_gzip_of_a_huge_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 10_000)
    with pytest.raises(NetworkFormatError, match="after gzip"):
        load_network(gzip.compress(b" " * 10_001))


def test_what_could_not_be_read_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network = parse(document())
    for name, most, said in (("MAX_BYTES", 1000, "at most 0 MiB"), ("_MAX_LISTS", 10, "than 10")):
        with monkeypatch.context() as patch:
            patch.setattr(files, name, most)
            for target in ("large.json", "large.json.gz"):
                with pytest.raises(NetworkFormatError, match=f"{target}: .*{said}.*--to nir"):
                    save_network(network, tmp_path / target)
    assert not list(tmp_path.iterdir())


def test_huge_sizes_are_refused_before_memory_is_taken() -> None:
    doc = document(max_delay=0)
    layer = doc["layers"][0]
    layer |= {"in_features": 2**20, "out_features": 2**20, "kernel_count": 256}
    layer["delays"] = [[[0]]]  # would broadcast to 2**48 numbers
    doc["input"]["channels"] = 2**20
    with pytest.raises(NetworkFormatError, match=r"`layers\[0\].weights` must be of shape"):
        parse(doc)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**25, max_value=10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["lif", "li", "axonal", "spike_count", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += paths(item, (*path, key))
    return found


SMALL = (2, 2, 2)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(paths(document(sizes=SMALL))), JUNK | st.just(...))
def test_damage_is_refused_or_harmless(path: tuple[Any, ...], value: Any) -> None:
    try:
        network = parse(damaged(path, value, sizes=SMALL))
    except NetworkFormatError as error:
        str(error).encode()  # can be printed
        return
    assert equal(load_network(dumps(network).encode()), network)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_text_is_refused_or_harmless(data: st.DataObject) -> None:
    text = bytearray(dumps(parse(document(sizes=SMALL))).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    try:
        network = load_network(bytes(text))
    except NetworkFormatError:
        return
    assert isinstance(network, Network)


def test_integer_weights_whose_sum_float64_cannot_hold_are_refused() -> None:
    doc = document(sizes=(3, 1, 2))
    doc["layers"][0] |= {"weights": [[[2**53], [1], [-(2**53)]]], "weight_scale": 1.0}
    with pytest.raises(NetworkFormatError, match=r"layers\[0\]\.weight_scale.*more than 2\^53 tog"):
        parse(doc)
    doc["layers"][0]["weights"] = [[[2**52], [0], [-(2**52)]]]
    assert parse(doc).layers[0].weights.sum() == 0


@pytest.mark.parametrize("kind", [dict, list])
def test_deep_metadata_are_refused_and_what_is_read_can_be_written(kind: type) -> None:
    def nested(depth: int) -> dict[str, Any]:
        value: Any = 1
        for _ in range(depth):
            value = {"a": value} if kind is dict else [value]
        return {"note": value}

    network = parse(document() | {"metadata": nested(99)})
    assert load_network(dumps(network).encode()).metadata == nested(99)
    for depth in (100, 600):
        with pytest.raises(NetworkFormatError, match="`metadata` must be nested at most 100 deep"):
            parse(document() | {"metadata": nested(depth)})


def test_many_duplicate_keys_are_refused_at_once() -> None:
    """Every key is looked at once: half a megabyte of them once took seventeen seconds."""
    keys = ", ".join(f'"k{i}": 0' for i in range(200_000))
    with pytest.raises(NetworkFormatError, match="the key 'k199999' appears twice"):
        load_network(f'{{{keys}, "k199999": 1}}'.encode())


@pytest.mark.parametrize("scale", [-0.5, [1, 1, 1, -0.5, 1, 1, 1]])
def test_a_negative_scale_is_refused(scale: Any) -> None:
    text = document()
    layer = text["layers"][0]
    layer |= {"weights": np.ones_like(np.array(layer["weights"])).tolist(), "weight_scale": scale}
    with pytest.raises(NetworkFormatError, match=r"must be at least 0; got -0\.5\. Put the sign"):
        parse(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(text, json_schema())


def test_scaled_weights_must_be_finite() -> None:
    text = document()
    weights = np.zeros_like(np.array(text["layers"][0]["weights"]))
    weights.flat[0] = 1e10
    text["layers"][0] |= {"weights": weights.tolist(), "weight_scale": 1e300}
    with pytest.raises(NetworkFormatError, match=r"layers\[0\]\.weight_scale` must be small"):
        parse(text)
