"""Recipes: everything a run depends on, in one validated schema.

A recipe is a flat TOML file. Built-in ones lie in `snn_delays/recipes`; `--set key=value` overrides
any field, and the resolved recipe is stored with each run.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from snn_delays.errors import RecipeError
from snn_delays.words import Delays, Features, Granularity, Readout

Dataset = Literal["synthetic", "shd", "ssc", "gsc"]
Protocol = Literal["valid", "last", "paper"]
OWN_VALID = ("ssc", "gsc")  # data sets with valid clips of their own, not of `valid_speakers`

_LONGEST_VALUE = 120  # characters of a bad value in a message
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Rate = Annotated[float, Field(ge=0, le=1e6)]


class Augment(BaseModel):
    """What is changed at random in training batches; 0 leaves it out. See `data.augment`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    channel_shift: int = Field(0, ge=0, le=32767, description="largest shift, source channels")
    channel_jitter: float = Field(
        0.0, ge=0, le=32767, description="deviation of each spike's channel"
    )
    time_shift_ms: float = Field(0.0, ge=0, le=60_000, description="largest shift in time")
    time_warp: float = Field(0.0, ge=0, le=10, description="stretch by up to 1 + this")
    drop: float = Field(0.0, ge=0, lt=1, description="share of spikes left out")
    noise: float = Field(0.0, ge=0, le=1e6, description="mean number of spikes added to a clip")
    cut_mix_share: float = Field(0.0, ge=0, le=1, description="share of clips that are mixed")


class Quantization(BaseModel):
    """What is rounded in the forward pass of training, so that a network learns to live with it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weight_bits: int | None = Field(None, ge=2, le=16, description="bits of integer weights")
    max_delay: int | None = Field(None, ge=0, description="longer delays are rounded down to this")
    delay_step: Positive = Field(1, description="delays are multiples of it")


class Recipe(BaseModel):
    """One training run, fully specified. Times are in steps unless the name ends in `_ms`.

    Defaults are the published SHD values (Hammouamri et al., ICLR 2024, arXiv:2306.17670).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(
        "shd", pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,79}$", description="what it is called"
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="seeds weights, delays, order, dropout and augmentation"
    )

    # Data
    dataset: Dataset = Field("shd", description="which data to train on")
    dt_ms: float = Field(10.0, gt=0, le=1000, description="length of a step in milliseconds")
    steps: int = Field(
        100, ge=1, le=10_000, description="time steps of a clip; later events are dropped"
    )
    channel_bin: Positive = Field(5, description="neighbouring input channels summed into one")
    features: Features = Field("mel140", description="features of recordings (gsc)")
    valid_speakers: tuple[int, ...] = Field((9, 11), description="held out for valid; not ssc, gsc")
    protocol: Protocol = Field("valid", description="which data chooses the epoch")

    augment: Augment = Field(Augment.model_validate({}), description="changes of training batches")

    # Network
    hidden: tuple[Positive, ...] = Field((256, 256), min_length=1, description="layer widths")
    delays: Delays = Field(
        "learned", description="whether there are delays, and how they come about"
    )
    granularity: Granularity = Field(
        "synaptic", description="one delay per synapse, per input or per output"
    )
    learn_weights: bool = Field(True, description="off: nothing but delays is learned")
    max_delay: int = Field(24, ge=0, le=4096, description="largest delay, inclusive")
    kernel_count: int = Field(
        1, ge=1, le=64, description="delayed contacts per pair of neurons; 1 without delays"
    )
    tail_steps: int = Field(
        24, ge=0, le=10_000, description="silent steps added once after the input"
    )
    bias: bool = Field(False, description="a bias in every delay layer")
    tau: float = Field(1.005, gt=1, le=1e6, description="membrane time constant")
    learn_tau: bool = Field(False, description="learn one time constant per hidden layer")
    v_threshold: float = Field(1.0, gt=0, le=1e6, description="firing threshold")
    v_reset: float = Field(0.0, ge=-1e6, description="potential after a spike (hard reset)")
    reset: Literal["hard", "soft"] = Field("hard", description="soft subtracts the threshold")
    decay_input: bool = Field(False, description="divide the input current by tau")
    detach_reset: bool = Field(True, description="no gradient through the reset")
    surrogate: Literal["atan", "sigmoid", "soft_sign", "erf", "piecewise_quadratic"] = Field(
        "atan", description="shape of the surrogate gradient"
    )
    surrogate_alpha: float = Field(
        5.0, gt=0, le=1e6, description="steepness of the surrogate gradient"
    )
    dropout: float = Field(0.4, ge=0, lt=1, description="share of hidden neurons silenced per clip")
    readout: Readout = Field("softmax_sum", description="how potentials become class scores")
    readout_tau: float | None = Field(
        None, gt=1, le=1e6, description="time constant of the readout; where there is none, `tau`"
    )

    # Training
    init: str | None = Field(None, description="run folder whose network training starts from")
    quantization: Quantization = Field(
        Quantization.model_validate({}), description="what training rounds; off unless changed"
    )
    epochs: Positive = Field(150, description="passes over the training data")
    batch_size: Positive = Field(256, description="clips per step")
    optimizer: Literal["adam", "adamw"] = Field("adam", description="for weights and delays")
    weight_lr: Rate = Field(5e-3, gt=0, description="peak rate of the weights (one cycle)")
    weight_decay: float = Field(
        1e-5, ge=0, le=1e6, description="on weights; not on norms or delays"
    )
    delay_lr: float = Field(
        0.1, ge=0, le=1e6, description="initial rate of the delays (cosine to 0)"
    )
    sigma_start: float = Field(12.27, gt=0, le=1e6, description="first width of the delay kernels")
    sigma_floor: float = Field(0.5, ge=1e-3, description="last width of the delay kernels")
    sigma_share: float = Field(0.25, ge=0, le=1, description="share of epochs sigma shrinks over")
    clip_norm: float | None = Field(None, gt=0, description="largest gradient norm, if clipped")
    amp: bool = Field(
        False, description="bfloat16 autocast on CUDA; convolutions by Fourier stay float32"
    )
    tf32: bool = Field(False, description="TF32 products and convolutions on CUDA, in training")

    @property
    def evaluation_batch(self) -> int:
        """Clips evaluated together: nothing is kept for a backward, so twice as many fit."""
        return 2 * self.batch_size

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, fields: Any) -> Any:
        """pydantic would read `seed = true` as 1."""
        for key, value in fields.items():
            if cls.model_fields[key].annotation is not bool:
                _refuse_truth(key, value)
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.sigma_floor > self.sigma_start:
            raise ValueError(
                f"sigma_floor must be at most sigma_start; got {self.sigma_floor} > "
                f"{self.sigma_start}"
            )
        if self.reset == "hard" and self.v_reset >= self.v_threshold:
            raise ValueError(
                f"v_reset must be below v_threshold; got {self.v_reset} >= {self.v_threshold}"
            )
        if not self.learn_weights and self.delays != "learned":
            raise ValueError(
                f"learn_weights = false leaves nothing to learn unless delays is 'learned'; "
                f"got {self.delays!r}"
            )
        limit = self.max_delay
        if self.quantization.max_delay is not None:
            limit = min(limit, self.quantization.max_delay)
        if self.quantization.delay_step > max(1, limit):
            raise ValueError(
                f"quantization.delay_step must be at most the largest delay, {limit}; got "
                f"{self.quantization.delay_step}"
            )
        if self.max_delay >= self.steps + self.tail_steps:
            raise ValueError(
                f"max_delay must be less than steps + tail_steps = {self.steps + self.tail_steps}; "
                f"got {self.max_delay}"
            )
        return self

    def to_toml(self) -> str:
        """The recipe as TOML, one `key = value` a line; fields that are None are left out."""
        lines = [f"# snn-delays recipe {self.name!r}: every field, as it was run"]
        for key, value in self.model_dump(mode="json").items():
            if isinstance(value, dict):
                given = {k: v for k, v in value.items() if v is not None}
                pairs = ", ".join(f"{k} = {json.dumps(v)}" for k, v in given.items())
                lines.append(f"{key} = {{ {pairs} }}")
            elif value is not None:
                # not as ASCII: JSON would write 😀 in two halves, which TOML does not know
                lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
        return "\n".join(lines).replace("\x7f", "\\u007f") + "\n"  # TOML has no bare DEL


def _refuse_truth(key: str, value: Any) -> None:
    """Refuse true and false as a value, or inside its list or table."""
    if isinstance(value, bool):
        raise ValueError(f"`{key}` must not be true or false; got {value}")
    inside = value.items() if isinstance(value, dict) else ()
    for name, inner in inside:
        _refuse_truth(f"{key}.{name}", inner)
    for inner in value if isinstance(value, list | tuple) else ():
        _refuse_truth(key, inner)


def recipe_names() -> list[str]:
    """Names of the built-in recipes."""
    folder = resources.files("snn_delays") / "recipes"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))


def load_recipe(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe by its built-in name or its path, and apply overrides.

    Raises:
        RecipeError: the recipe is not found, is not TOML, or has an unknown key or a bad value.
    """
    if not isinstance(source, str | Path):
        raise RecipeError("The recipe", "a name or a path", repr(source))
    if overrides is not None and not isinstance(overrides, Mapping):
        example = 'fields and their values, {"epochs": 20}'
        raise RecipeError("`overrides`", example, type(overrides).__name__)
    path = Path(source)
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8-sig")  # some editors begin with a mark
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise RecipeError(f"Recipe file {path} cannot be read: {reason}") from error
    elif str(source) in recipe_names():
        text = (resources.files("snn_delays") / "recipes" / f"{source}.toml").read_text("utf-8")
    else:
        legal = f"one of {', '.join(recipe_names())}, or a path that ends in .toml"
        near = difflib.get_close_matches(str(source), recipe_names(), n=1)
        remedy = f"Did you mean `{near[0]}`?" if near else ""
        raise RecipeError("The recipe", legal, repr(str(source)), remedy)
    try:
        fields = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise RecipeError(f"Recipe {source} is not valid TOML: {error}") from error
    recipe = make_recipe(_merged(fields, overrides or {}), f"recipe {source}")
    refuse_unused(recipe, overrides or {})
    return recipe


def refuse_unused(recipe: Recipe, overrides: Mapping[str, Any]) -> None:
    """Refuse to change a field at which the recipe's data set or protocol does not look."""
    for key, reason in _unused(recipe).items():
        if key in overrides and getattr(recipe, key) not in ((), "mel140"):
            raise RecipeError(f"`{key}` has no effect {reason}", remedy="Leave it out.")


def _unused(recipe: Recipe) -> dict[str, str]:
    """The fields at which the recipe's data set or protocol does not look, and why."""
    unused, name = {}, recipe.dataset
    if recipe.protocol != "valid":
        unused["valid_speakers"] = f"with protocol {recipe.protocol}, which trains on all speakers"
    if name in OWN_VALID:
        unused["valid_speakers"] = f"on {name}, which has valid clips of its own"
    if name != "gsc":
        unused["features"] = f"on {name}, which holds spikes"
    return unused


def _merged(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with `overrides` on top; of two tables, key by key."""
    merged = dict(fields)
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = {**merged[key], **value}
        merged[key] = value
    return merged


def make_recipe(fields: Mapping[str, Any], where: str = "the recipe") -> Recipe:
    """Validate plain fields; `where` names them in messages.

    Raises:
        RecipeError: naming the first bad field, what was expected and what was got.
    """
    for key, value in fields.items():
        _check_key(key, where)
        if isinstance(value, dict) and not isinstance(Recipe.model_fields[key].default, BaseModel):
            raise RecipeError(f"In {where}, `{key}`", "a value of its own, not a table", "a table")
        for inner in value if isinstance(value, dict) else ():
            _check_key(f"{key}.{inner}", where)
    try:
        return Recipe(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise RecipeError(f"In {where}, {message}") from None
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] in ("int_parsing", "int_type", "int_from_float"):
            message = "must be a whole number"
        if first["type"] in ("float_parsing", "float_type"):
            message = "must be a number"
        if first["type"] in ("bool_parsing", "bool_type"):
            message = "must be true or false"
        if first["type"] == "tuple_type":
            message = "must be numbers with commas between (in TOML and Python, in brackets)"
        message = message[0].lower() + message[1:]
        got = repr(first["input"])
        got = got if len(got) <= _LONGEST_VALUE else f"{got[:_LONGEST_VALUE]}…"
        raise RecipeError(f"In {where}, `{key}`: {message}; got {got}") from None


def changed(recipe: Recipe, overrides: Mapping[str, Any], where: str = "the recipe") -> Recipe:
    """The recipe with some fields changed, those of a table one by one, and validated anew.

    Raises:
        RecipeError: as `make_recipe`.
    """
    return make_recipe(_merged(recipe.model_dump(), overrides), where)


def changes(recipe: Recipe) -> dict[str, Any] | None:
    """The fields, those of tables as `table.field`, that differ from the built-in recipe.

    None where there is no built-in recipe of its name. The seed, or an unused field, is no change.
    """
    if recipe.name not in recipe_names():
        return None
    built_in, own = _flat(load_recipe(recipe.name)), _flat(recipe)
    none = {"seed", *_unused(recipe)}
    return {k: v for k, v in own.items() if v != built_in[k] and k not in none}


def _flat(recipe: Recipe) -> dict[str, Any]:
    fields = recipe.model_dump(mode="json")
    tables = {key: value for key, value in fields.items() if isinstance(value, dict)}
    plain = {key: value for key, value in fields.items() if key not in tables}
    return plain | {f"{k}.{inner}": v for k, table in tables.items() for inner, v in table.items()}


def parse_overrides(pairs: Iterable[str], option: str = "--set") -> dict[str, Any]:
    """Turn `key=value` words of `option` into fields; values are TOML, bare words are strings.

    `hidden=128` and `hidden=128,64` both work for a field that holds several numbers, and
    `augment.drop=0.1` for a field inside a table.
    """
    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise RecipeError(option, f"key=value, for example {option} epochs=20", repr(pair))
        _check_key(key, option)
        field, _, inner = key.partition(".")
        default = Recipe.model_fields[field].default
        value = _parse_value(getattr(default, inner) if inner else default, text.strip())
        if inner:
            table = overrides.setdefault(field, {})
            overrides[field] = {**(table if isinstance(table, dict) else {}), inner: value}
        else:
            overrides[key] = value
    return overrides


def _check_key(key: str, where: str) -> None:
    """Refuse a key that is neither a field nor, as `table.field`, one inside a table."""
    legal = _keys()
    if key in legal:
        return
    near = difflib.get_close_matches(key, legal, n=1)
    hint = f"Did you mean `{near[0]}`?" if near else f"Fields: {', '.join(legal)}"
    raise RecipeError(f"In {where}, `{key}` is not a field. {hint}")


def _keys() -> list[str]:
    """Every field of a recipe, those of its tables after them as `table.field`."""
    keys = []
    for name, field in Recipe.model_fields.items():
        keys.append(name)
        if isinstance(field.default, BaseModel):
            keys += [f"{name}.{inner}" for inner in type(field.default).model_fields]
    return keys


def _parse_value(default: Any, text: str) -> Any:
    if text.lower() == "none" and default is None:
        return None
    if isinstance(default, tuple) and not text.startswith("["):
        text = f"[{text}]"
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # TOMLDecodeError, or a number of thousands of digits
        return text
