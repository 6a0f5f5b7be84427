"""Recipes: built-in ones load, overrides apply, and every mistake is named."""

import numpy as np
import pytest

from snn_delays.config import (
    OWN_VALID,
    Recipe,
    changes,
    load_recipe,
    make_recipe,
    parse_overrides,
    recipe_names,
)
from snn_delays.data.sources import SOURCES
from snn_delays.errors import RecipeError


def test_every_built_in_recipe_loads_and_survives_its_own_toml(tmp_path):
    assert recipe_names() == ["gsc", "shd", "shd-paper", "ssc", "synthetic"]
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.dataset == name.removesuffix("-paper")
        path = tmp_path / f"{name}.toml"
        path.write_text(recipe.to_toml(), encoding="utf-8")
        assert load_recipe(path) == recipe


@pytest.mark.parametrize("init", ["runs/ö", "runs/\U0001f600", 'a "b"\\c', "a\x7f\n\tb"])
def test_a_run_to_start_from_may_have_any_name(init, tmp_path):
    recipe = load_recipe("shd", {"init": init})
    path = tmp_path / "mine.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_published_values_of_shd():
    recipe = load_recipe("shd-paper")
    assert (recipe.hidden, recipe.max_delay, recipe.tau) == ((256, 256), 24, 1.005)
    assert (recipe.epochs, recipe.batch_size, recipe.dropout) == (150, 256, 0.4)
    assert (recipe.weight_lr, recipe.delay_lr, recipe.weight_decay) == (5e-3, 0.1, 1e-5)


def test_overrides_are_toml_values_or_plain_words():
    words = ["epochs=3", "hidden=64,32", "delays=fixed", "tau=2", "bias=true", "readout_tau=none"]
    recipe = load_recipe("shd", parse_overrides(words))
    assert (recipe.epochs, recipe.hidden, recipe.delays) == (3, (64, 32), "fixed")
    assert (recipe.tau, recipe.bias, recipe.readout_tau) == (2.0, True, None)
    assert load_recipe("shd", parse_overrides(["hidden=[8]"])).hidden == (8,)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("epoch=3", "`epoch` is not a field. Did you mean `epochs`"),
        ("epochs", "--set must be key=value"),
        ("=3", "--set must be key=value"),
        ("epochs=many", "`epochs`: must be a whole number"),
        ("epochs=0", "`epochs`: .*greater than or equal to 1; got 0"),
        ("dropout=1.0", "`dropout`: .*less than 1"),
        ("tau=nan", "`tau`: input should be a finite number"),
        ("tau=1.0", "`tau`: input should be greater than 1"),
        ("delays=random", "`delays`: input should be 'learned', 'fixed' or 'none'"),
        ("hidden=", "`hidden`: .*at least 1 item"),
        ("hidden=4,0", r"`hidden.1`: .*greater than or equal to 1"),
        ("sigma_floor=1e-25", "`sigma_floor`: .*greater than or equal to 0.001"),
        ("seed=true", "`seed` must not be true or false"),
        ("hidden=true,8", "`hidden` must not be true or false"),
        (
            "quantization.delay_step=9 quantization.max_delay=8",
            "largest delay, 8; got 9",
        ),
        ("augment.noise=true", "`augment.noise` must not be true or false"),
        ('name="\U0001f600"', "`name`: string should match pattern"),
        ("sigma_floor=99", "sigma_floor must be at most sigma_start"),
        ("learn_weights=false delays=none", "learn_weights = false leaves nothing to learn"),
        ("granularity=somatic", "`granularity`: input should be 'synaptic', 'axonal' or"),
        ("v_reset=1.5", "v_reset must be below v_threshold"),
        ("max_delay=124", r"max_delay must be less than steps \+ tail_steps = 124; got 124"),
    ],
)
def test_mistakes_are_named(word, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("shd", parse_overrides(word.split()))


def test_files_that_are_no_recipes_are_refused(tmp_path):
    with pytest.raises(
        RecipeError, match=r"must be one of gsc, shd, shd-paper, ssc, synthetic, or a path"
    ):
        load_recipe("mnist")
    with pytest.raises(RecipeError, match=r"missing\.toml cannot be read: No such file"):
        load_recipe(tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("epochs = = 3")
    with pytest.raises(RecipeError, match=r"not valid TOML: .*line 1"):
        load_recipe(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="not UTF-8 text"):
        load_recipe(broken)
    broken.write_text("epoch = 3")
    with pytest.raises(RecipeError, match=r"broken\.toml, `epoch` is not a field"):
        load_recipe(broken)


def test_every_field_is_described():
    for name, field in Recipe.model_fields.items():
        assert field.description, name


def test_recipes_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        make_recipe({}).epochs = 3


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 5\r\n")
    assert load_recipe(path).seed == 5


def test_a_number_of_thousands_of_digits_is_a_sentence(tmp_path):
    digits = "9" * 5000
    with pytest.raises(RecipeError, match=r"`hidden`: must be numbers .*9…\.$") as caught:
        load_recipe("shd", parse_overrides([f"hidden={digits}"]))
    assert len(str(caught.value)) < 300
    path = tmp_path / "mine.toml"
    path.write_text(f"epochs = {digits}")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("source", "field", "value"),
    [
        ("ssc", "valid_speakers", [1]),
        ("gsc", "valid_speakers", [1]),
        ("shd", "features", "published"),
    ],
)
def test_a_field_at_which_the_data_do_not_look_is_not_changed_in_vain(source, field, value):
    with pytest.raises(RecipeError, match=f"`{field}` has no effect on {source}, which h"):
        load_recipe(source, {field: value})


@pytest.mark.parametrize("protocol", ["last", "paper"])
def test_speakers_who_are_trained_on_are_not_held_out_in_vain(protocol):
    with pytest.raises(RecipeError, match=f"`valid_speakers` has no effect with.* {protocol}"):
        load_recipe("shd", {"protocol": protocol, "valid_speakers": np.array([0, 1])})
    assert load_recipe("shd", {"protocol": protocol}).valid_speakers == (9, 11)


def test_changes_that_change_nothing_are_taken():
    assert load_recipe("ssc", {"valid_speakers": []}).valid_speakers == ()
    assert load_recipe("shd", {"features": "mel140"}).features == "mel140"
    assert changes(Recipe(**load_recipe("ssc").model_dump() | {"valid_speakers": (9, 11)})) == {}
    last = Recipe(valid_speakers=(0, 1), features="published", protocol="last")
    assert not {"valid_speakers", "features"} & set(changes(last))  # a command may not set them
    own = [s.name for s in SOURCES.values() if "valid" in s.files or s.folder]
    assert tuple(own) == OWN_VALID


@pytest.mark.parametrize(("source", "overrides"), [(None, None), (3, None), ("shd", ["epochs=3"])])
def test_arguments_of_another_kind_are_a_sentence(source, overrides):
    with pytest.raises(RecipeError, match=r"(The recipe|`overrides`) must be .*; got"):
        load_recipe(source, overrides)
