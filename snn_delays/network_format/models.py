"""What a network.json says, as pydantic models: the network's parts, and the checks on each.

A bad value raises pydantic's ValidationError; `files.parse` turns it into one sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from snn_delays.network_format.arrays import (
    first_index,
    index_path,
    read_integers,
    read_numbers,
    refusal,
    shown,
)

FORMAT: Final = "snn-delays/network"
FORMAT_VERSION: Final = 1
MAX_FEATURES = 2**20
MAX_KERNELS = 256
MAX_DELAY = 2**16 - 1
MAX_STEPS = 10**6
MAX_DT_MS = 60_000.0
MAX_NESTING = 100  # of `metadata`


LARGEST_SUM = 2.0**53
"""Of integer weights: float64 holds every whole number up to it."""


def _nested(item: dict[str, Any], axes: int) -> dict[str, Any]:
    schema = item
    for _ in range(axes):
        schema = {"type": "array", "minItems": 1, "items": schema}
    return schema


_NUMBER = {"type": "number"}
_DELAY = {"type": "integer", "minimum": 0, "maximum": MAX_DELAY}
_DELAYS = {"anyOf": [_nested(_DELAY, 3), _nested(_DELAY, 1)]}
_NOT_NEGATIVE = {"type": "number", "minimum": 0}
_SCALE = {
    "anyOf": [
        _NOT_NEGATIVE,
        {"type": "array", "minItems": 1, "items": _NOT_NEGATIVE},
        {"type": "null"},
    ]
}


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refusal("", "text that UTF-8 can hold", ascii(text)) from None
    return text


Features = Annotated[int, Field(ge=1, le=MAX_FEATURES)]
Text = Annotated[str, AfterValidator(_encodable)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


class LIF(_Part):
    """Leaky integrate-and-fire neurons.

    `H = V - (V - v_reset)/tau + I`, or `H = V + (I - (V - v_reset))/tau` with `decay_input`;
    a spike where `H >= v_threshold`, then `V = v_reset`; else `V = H`. Before the first step `V` is
    `v_reset`. Where that is null (soft reset) a spike leaves `V = H - v_threshold`, and start and
    leak are at 0. `tau` is in steps, above 1.
    """

    model: Literal["lif"]
    tau: float = Field(gt=1)
    v_threshold: float
    v_reset: float | None
    decay_input: bool

    @property
    def rest(self) -> float:
        """Where `V` starts and leaks to."""
        return 0.0 if self.v_reset is None else self.v_reset

    @model_validator(mode="after")
    def _threshold_above_rest(self) -> Self:
        if self.v_threshold <= self.rest:
            legal = f"above the reset voltage {self.rest:g}"
            raise refusal(".v_threshold", legal, self.v_threshold)
        return self


class LI(_Part):
    """Leaky integrators, the readout: `LIF` without threshold and reset, from and towards 0."""

    model: Literal["li"]
    tau: float = Field(gt=1)
    decay_input: bool

    @property
    def rest(self) -> float:
        """Where `V` starts and leaks to."""
        return 0.0


Neuron = Annotated[LIF | LI, Field(discriminator="model")]


class Layer(_Part):
    """One delayed linear map and its neurons.

    `I[o, t] = bias[o] + scale[o] * sum over i, k of weights[o, i, k] * s[i, t - delays[o, i, k]]`,
    `scale` being `weight_scale`, or 1: sums of integers are exact in any order.

    Attributes:
        delays: int64 `[out, in, k]` in steps, `0 .. max_delay`. A file may hold 1 for an axis along
            which all are equal: `[1, in, k]` or `[in]` for `axonal` delays, `[out, 1, k]` or
            `[out]` for `dendritic` ones, the same for every `k`. A read-only view then.
        weights: float64 `[out, in, k]` as stored; see `real_weights`.
        weight_scale: None, or float64 `[out]` from 0 (in a file also one number for all); then
            `weights` are whole numbers, of one output 2^53 together at most.
        bias: float64 `[out]`.
    """

    in_features: Features
    out_features: Features
    kernel_count: int = Field(ge=1, le=MAX_KERNELS)
    max_delay: int = Field(ge=0, le=MAX_DELAY)
    granularity: Literal["synaptic", "axonal", "dendritic"]
    delays: Annotated[np.ndarray, WithJsonSchema(_DELAYS)]
    weights: Annotated[np.ndarray, WithJsonSchema(_nested(_NUMBER, 3))]
    weight_scale: Annotated[np.ndarray | None, WithJsonSchema(_SCALE)] = None
    bias: Annotated[np.ndarray, WithJsonSchema(_nested(_NUMBER, 1))]
    neuron: Neuron

    @property
    def real_weights(self) -> np.ndarray:
        """float64 `[out, in, k]`: the weights with `weight_scale` multiplied in."""
        if self.weight_scale is None:
            return self.weights
        return self.weights * self.weight_scale[:, None, None]

    @field_validator("delays", mode="before")
    @classmethod
    def _read_delays(cls, value: Any, info: ValidationInfo) -> np.ndarray:
        shape, size = _sizes(info), info.data
        delays = read_integers(value, shape if size.get("granularity") == "synaptic" else None)
        if shape is None or "max_delay" not in size or "granularity" not in size:
            return delays  # an earlier field is already refused
        bad = first_index((delays < 0) | (delays > size["max_delay"]))
        if bad is not None:
            legal = f"an integer from 0 to {size['max_delay']}, the layer's `max_delay`"
            raise refusal(index_path(bad), legal, int(delays[bad]))
        legal, short = f"of shape {list(shape)}", {"axonal": 1, "dendritic": 0}
        axis = short.get(size["granularity"])
        if axis is not None:
            legal += f" or [{shape[axis]}]"
            if delays.shape == (shape[axis],):
                delays = delays.reshape([-1 if a == axis else 1 for a in range(3)])
        if delays.ndim != 3 or any(
            n not in (1, m) for n, m in zip(delays.shape, shape, strict=True)
        ):
            raise refusal("", legal, f"shape {list(delays.shape)}")
        if axis is not None and np.ptp(delays, axis=1 - axis).any():
            owner = "input" if axis else "output"
            raise refusal("", f"one delay per {owner}, as `granularity` says", "several")
        return np.broadcast_to(delays, shape)

    @field_validator("weights", mode="before")
    @classmethod
    def _read_weights(cls, value: Any, info: ValidationInfo) -> np.ndarray:
        return _shaped(read_numbers(value, _sizes(info)), _sizes(info))

    @field_validator("weight_scale", mode="before")
    @classmethod
    def _read_scale(cls, value: Any, info: ValidationInfo) -> np.ndarray | None:
        weights = info.data.get("weights")
        if value is None or weights is None:
            return None
        bad = first_index(weights != np.rint(weights))
        if bad is not None:
            path = f"`weights{index_path(bad)}` = {weights[bad]}"
            raise refusal("", "absent where weights are not whole numbers", f"it beside {path}")
        sums = np.abs(weights).sum(axis=(1, 2))
        bad = first_index(sums > LARGEST_SUM)
        if bad is not None:
            legal = "absent where the whole weights of an output are more than 2^53 together"
            raise refusal("", legal, f"it beside {sums[bad]:.4g} in `weights{index_path(bad)}`")
        scale = read_numbers(value)
        bad = first_index(scale < 0)
        if bad is not None:
            remedy = "Put the sign into `weights`."
            raise refusal(index_path(bad), "at least 0", f"{scale[bad]:g}", remedy)
        scale = (
            np.full(len(weights), scale) if not scale.ndim else _shaped(scale, weights.shape[:1])
        )
        with np.errstate(over="ignore"):
            real = weights * scale[:, None, None]
        bad = first_index(~np.isfinite(real))
        if bad is not None:
            path = f"`weights{index_path(bad)}` = {weights[bad]:g}"
            raise refusal("", "small enough for finite weights", f"{scale[bad[0]]:g} for {path}")
        return scale

    @field_validator("bias", mode="before")
    @classmethod
    def _read_bias(cls, value: Any, info: ValidationInfo) -> np.ndarray:
        sizes = _sizes(info)
        return _shaped(read_numbers(value), None if sizes is None else sizes[:1])

    @field_validator("weights", "weight_scale", "bias")
    @classmethod
    def _keep_from_changes(cls, value: np.ndarray | None) -> np.ndarray | None:
        if value is not None:
            value.setflags(write=False)  # an engine made before would not see a change
        return value

    def __eq__(self, other: object) -> bool:
        """Whether every field is equal; pydantic's own cannot tell of arrays."""
        if type(other) is not type(self):
            return False
        fields = type(self).model_fields
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in fields)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self  # nothing of it changes; a copy of the arrays could be written to

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed, which are checked as those of a file; always deep."""
        return type(self).model_validate({**dict(self), **(update or {})})


def _sizes(info: ValidationInfo) -> tuple[int, int, int] | None:
    """`(out, in, k)` of the layer, or None where one of them was refused."""
    try:
        return info.data["out_features"], info.data["in_features"], info.data["kernel_count"]
    except KeyError:
        return None


def _shaped(array: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    if shape is not None and array.shape != shape:
        raise refusal("", f"of shape {list(shape)}", f"shape {list(array.shape)}")
    return array


class Input(_Part):
    """What the first layer receives: `[steps, channels]`, then `tail_steps` steps of zeros.

    `spike_counts`: events binned by `dt_ms` and by `channel_bin` neighbouring channels, counted.
    `analog`: real-valued frames, whose features and normalisation `metadata` describes.
    """

    channels: Features
    encoding: Literal["spike_counts", "analog"]
    dataset: Text = ""
    channel_bin: int = Field(default=1, ge=1, le=MAX_FEATURES)
    steps: int = Field(ge=1, le=MAX_STEPS)
    tail_steps: int = Field(ge=0, le=MAX_STEPS)


class Readout(_Part):
    """How the last layer's output `[T, classes]` becomes scores; the largest is the answer.

    Over all steps, the tail's too: `softmax_sum` adds up softmax(V[t]), a softmax over classes;
    `max`, `mean`, `last` take the largest, the mean, the last V[t]; `spike_count` counts spikes.
    """

    kind: Literal["softmax_sum", "max", "mean", "last", "spike_count"]
    classes: list[Text] = Field(
        min_length=1, max_length=MAX_FEATURES, json_schema_extra={"uniqueItems": True}
    )

    @field_validator("classes", mode="after")
    @classmethod
    def _each_name_once(cls, value: list[str]) -> list[str]:
        first: dict[str, int] = {}
        for i, name in enumerate(value):
            if first.setdefault(name, i) != i:
                expected = f"a name of its own, other than `classes[{first[name]}]`"
                raise refusal(f"[{i}]", expected, shown(name))
        return value


def _parts(value: Any) -> Iterable[Any]:
    """What is directly in a JSON value."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (list, tuple)) else ()


class Network(_Part):
    """A whole rounded network, as one network.json says it."""

    format: Literal["snn-delays/network"] = FORMAT
    format_version: int = Field(default=FORMAT_VERSION, ge=1, le=FORMAT_VERSION)
    created_by: Text
    dt_ms: float = Field(gt=0, le=MAX_DT_MS)
    delay_unit: Literal["steps"] = "steps"
    matrix_order: Literal["[out][in][k]"] = "[out][in][k]"
    input: Input
    layers: list[Layer] = Field(min_length=1, max_length=1000)
    readout: Readout
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("metadata", mode="after")
    @classmethod
    def _plain_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise refusal("", "plain JSON values", f"one that is not ({error})") from None
        level, depth = [value], 0
        while level := [part for whole in level for part in _parts(whole)]:
            depth += 1
            if depth > MAX_NESTING:
                raise refusal("", f"nested at most {MAX_NESTING} deep", "more")
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        size, source = self.input.channels, "`input.channels`"
        for i, layer in enumerate(self.layers):
            if layer.in_features != size:
                expected = f"{size}, as {source} says"
                raise refusal(f"layers[{i}].in_features", expected, layer.in_features)
            size, source = layer.out_features, f"`layers[{i}].out_features`"
        *hidden, last = self.layers
        models = ["lif"] * len(hidden) + ["lif" if self.readout.kind == "spike_count" else "li"]
        for i, (layer, model) in enumerate(zip(self.layers, models, strict=True)):
            if layer.neuron.model != model:
                reason = (
                    "as `readout.kind` needs" if layer is last else "as in all layers but the last"
                )
                raise refusal(
                    f"layers[{i}].neuron.model", f"'{model}', {reason}", repr(layer.neuron.model)
                )
        if len(self.readout.classes) != size:
            expected = f"a list of {size}, the outputs of the last layer"
            raise refusal("readout.classes", expected, f"a list of {len(self.readout.classes)}")
        return self
