"""The JSON Schema of network.json: the shipped one is the models', and accepts what we write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sample_networks import document
from test_network_format import GOLDEN, damaged, equal

from snn_delays.network_format import dumps, files, json_schema, load_network, parse


def test_shipped_schema_is_the_one_the_models_say() -> None:
    shipped = Path(files.__file__).with_name("network-v1.schema.json")
    assert json.loads(shipped.read_text()) == json_schema()


@pytest.mark.parametrize(
    "options",
    [{}, {"kernel_count": 2}, {"soft": True}, {"readout": "spike_count"}, {"encoding": "analog"}],
)
def test_json_schema_accepts_what_we_write(options: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    reader = jsonschema.Draft202012Validator(json_schema())
    assert list(reader.iter_errors(json.loads(dumps(parse(document(**options)))))) == []


def test_json_schema_accepts_short_delays_and_the_golden_file() -> None:
    doc = document()
    doc["layers"][0] |= {"granularity": "axonal", "delays": [0, 1, 2, 3, 4]}
    for valid in (doc, json.loads(GOLDEN.read_text())):
        jsonschema.validate(valid, json_schema())
        assert equal(load_network(dumps(parse(valid)).encode()), parse(valid))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("dt_ms",), ...),
        (("format_version",), 2),
        (("layers", 0, "delays", 0, 0, 0), 0.5),
        (("layers", 0, "neuron", "model"), "izhikevich"),
        (("input", "colour"), 1),
    ],
)
def test_json_schema_refuses(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(damaged(path, value), json_schema())
