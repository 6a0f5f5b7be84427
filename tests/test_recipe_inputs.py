"""Every field of a recipe against wrong types and ranges, generated from the schema.

Each value trains or is refused in one sentence that names the field; never a traceback, and never
more memory or time than a tiny run takes.
"""

from __future__ import annotations

import json

import pytest

from snn_delays.config import Recipe, _keys, load_recipe, make_recipe, parse_overrides
from snn_delays.errors import RecipeError, SnnDelaysError
from snn_delays.training import assembly

FIELDS = [key for key in _keys() if key not in ("augment", "quantization")]

WRONG = {
    "text": "word",
    "empty": "",
    "truth": True,
    "list": [1, 2],
    "nested": [[1]],
    "no list": [],
    "table": {"a": 1},
    "fraction": 1.5,
    "nan": float("nan"),
    "infinity": float("inf"),
    "below": -1,
    "far below": -(10**30),
    "zero": 0,
    "one": 1,
    "tiny": 1e-308,
    "huge": 1e308,
    "large": 10**9,
    "wide": 2**31,
    "larger": 2**63,
    "largest": 10**30,
    "many": [10**9, 10**9],
    "none": None,
}


def with_field(key, value):
    """The built-in task's fields, with one replaced; `augment.drop` is inside a table."""
    outer, _, inner = key.partition(".")
    return {**SMALL, outer: {inner: value} if inner else value}


SMALL = load_recipe("synthetic", {"hidden": [3], "epochs": 1, "batch_size": 16}).model_dump()


@pytest.mark.parametrize("key", FIELDS)
def test_a_value_is_taken_or_refused_by_name(key):
    for value in WRONG.values():
        try:
            recipe = make_recipe(with_field(key, value))
        except RecipeError as error:
            said = str(error)
            assert "\n" not in said
            assert key.split(".")[-1] in said, said
            assert len(said) < 900, said
        else:
            assert make_recipe(recipe.model_dump()) == recipe
            assert isinstance(recipe, Recipe)


def test_a_recipe_of_other_keys_or_types_is_refused():
    for fields in ({"": 1}, {"a.b": 1}, {"epochs\n": 1}, {"seed": {}}, {"augment": 1}):
        with pytest.raises(RecipeError):
            make_recipe(fields)
    for text in ("=", "=1", "seed", "augment.=1", ".=1", "augment.drop.x=1", "seed=[", 'seed="'):
        with pytest.raises(RecipeError):
            make_recipe(parse_overrides([text]))


@pytest.mark.parametrize(
    "text", ["[", "seed = 1\nseed = 2", "seed = 1979-05-27", "\x00", "a" * 10**6, "[" * 10**5]
)
def test_bad_toml_is_one_sentence(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as refused:
        load_recipe(path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 3000


@pytest.fixture
def small_data(monkeypatch):
    """Forty clips stand for each split, so that a run takes milliseconds."""
    real = assembly.load_split

    def few(recipe, split, data_dir):
        data = real(recipe, split, data_dir)
        cut = data.to("cpu")
        for name in ("_clips", "_lengths", "labels"):
            setattr(cut, name, getattr(data, name)[::48][:40])
        cut.speakers = data.speakers[::48][:40]
        return cut

    monkeypatch.setattr(assembly, "load_split", few)
    monkeypatch.setattr("snn_delays.plots.run.plot_run", lambda *_: [])


def taken(key):
    """The values of the table that the schema accepts for this field, but for long runs."""
    found = {}
    for name, value in WRONG.items():
        try:
            recipe = make_recipe(with_field(key, value))
        except RecipeError:
            continue
        if recipe.epochs < 100:
            found[name] = value
    return found


@pytest.mark.slow
@pytest.mark.parametrize("key", FIELDS)
def test_what_is_taken_trains_or_says_why_not(call, tmp_path, small_data, key):
    for name, value in taken(key).items():
        if value is None:
            continue  # the same as leaving it out
        setting = f"{key}={json.dumps(value)}"
        small = [word for pair in ("hidden=3", "batch_size=16") for word in ("--set", pair)]
        words = ["train", *small, "--epochs", "1", "--device", "cpu", "--quiet"]
        code, _, err = call(*words, "--set", setting, "--out", tmp_path / name.replace(" ", "-"))
        assert code in (0, 1, 2), (setting, code)
        assert "Traceback" not in err, setting
        assert "Internal error" not in err, (setting, err)
        assert (code == 0) == (err == ""), (setting, err)
        assert err.count("\n") <= 1, err
        if code == 1:
            assert "not finite" in err or "The loss is" in err, (setting, err)


def test_no_error_class_is_without_its_exit_code():
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    codes = {kind.__name__: kind.exit_code for kind in below(SnnDelaysError)}
    faults = {"TrainingError", "MachineFault", "DataWriteError"}
    assert {name for name, code in codes.items() if code == 1} >= faults
    assert set(codes.values()) <= {1, 2}
