"""The plan of a study: every cell of every seed, equal budgets, axes, and what is refused."""

import json

import numpy as np
import pytest
import torch
from tiny import tiny_recipe

from snn_delays.compare import plan
from snn_delays.compare.plan import ARMS, Study, load_study, make_cells, make_jobs, parse_axes
from snn_delays.errors import MissingSplitError, RunError, SnnDelaysError
from snn_delays.nn import delay_layers
from snn_delays.training.assembly import network_from_recipe


def cells_of(recipe, arms, axes=None):
    return {(c.arm, c.setting): c for c in make_cells(Study(recipe, arms, 1, axes or {}), None)}


def test_the_plan_is_every_arm_of_every_seed(tmp_path):
    cells = make_cells(Study(tiny_recipe(seed=4), ("none", "learned"), 2), None)
    jobs = make_jobs(cells, 2, tmp_path, None, "cpu")
    assert [(j.arm, j.recipe.delays, j.recipe.seed, j.folder.name) for j in jobs] == [
        ("none", "none", 4, "none-seed4"),
        ("learned", "learned", 4, "learned-seed4"),
        ("none", "none", 5, "none-seed5"),
        ("learned", "learned", 5, "learned-seed5"),
    ]
    assert jobs[3].name == "learned, seed 5"


def test_every_arm_keeps_all_fields_but_its_own():
    recipe = tiny_recipe(seed=3)
    for (arm, _), cell in cells_of(recipe, tuple(ARMS)).items():
        own = {"delays", "granularity", "learn_weights"} | (
            {"hidden"} if ARMS[arm].matched else set()
        )
        ours, study = cell.recipe.model_dump(exclude=own), recipe.model_dump(exclude=own)
        assert ours == study


def test_budgets_are_those_of_the_networks():
    recipe = tiny_recipe(hidden=[32, 16])
    cells = {arm: cell for (arm, _), cell in cells_of(recipe, tuple(ARMS)).items()}
    weights, norms = 40 * 32 + 32 * 16 + 16 * 10, 2 * (32 + 16)
    expected = {
        "none": weights + norms,
        "fixed": weights + norms,
        "delays-only": weights,
        "learned": 2 * weights + norms,
        "axonal": weights + norms + 40 + 32 + 16,
        "dendritic": weights + norms + 32 + 16 + 10,
    }
    for arm, parameters in expected.items():
        assert (cells[arm].parameters, cells[arm].synapses) == (parameters, weights), arm
    for arm in ("matched", "fixed-matched"):
        assert 0.95 * expected["learned"] < cells[arm].parameters <= expected["learned"]
        assert cells[arm].recipe.hidden[0] == pytest.approx(2 * cells[arm].recipe.hidden[1], abs=1)


def test_without_delays_a_second_contact_is_no_second_number():
    recipe = tiny_recipe(hidden=[32], kernel_count=2)
    arms = ("none", "matched", "fixed", "learned")
    cells = {arm: cell for (arm, _), cell in cells_of(recipe, arms).items()}
    pairs, norms = 40 * 32 + 32 * 10, 2 * 32
    assert (cells["none"].parameters, cells["none"].synapses) == (pairs + norms, pairs)
    assert (cells["fixed"].parameters, cells["fixed"].synapses) == (2 * pairs + norms, 2 * pairs)
    assert cells["learned"].parameters == 4 * pairs + norms
    assert 0.95 * cells["learned"].parameters < cells["matched"].parameters
    assert cells["matched"].parameters <= cells["learned"].parameters
    assert cells["matched"].recipe.hidden[0] > 3.8 * 32


def test_a_study_does_not_start_from_a_trained_network():
    with pytest.raises(SnnDelaysError, match="would all start from runs/a: arms would have its"):
        Study(tiny_recipe(init="runs/a"), ("fixed", "learned"), 2)
    with pytest.raises(SnnDelaysError, match="--axis must be fields other than"):
        parse_axes(["init=runs/a,runs/b"])


def test_of_a_study_that_an_earlier_version_let_start_from_a_network_it_says_so(tmp_path):
    Study(tiny_recipe(), ("fixed", "learned"), 2).save(tmp_path)
    facts = json.loads((tmp_path / "study.json").read_text())
    facts["recipe"]["init"] = "runs/a"
    (tmp_path / "study.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"or of another version \(The runs of a study would all"):
        load_study(tmp_path)


def test_arms_of_a_seed_start_from_the_same_weights():
    nets = {}
    for (arm, _), cell in cells_of(tiny_recipe(), tuple(ARMS)).items():
        torch.manual_seed(1)
        nets[arm] = network_from_recipe(cell.recipe, 40, 10)
    first = delay_layers(nets["learned"])
    for arm, net in nets.items():
        if not ARMS[arm].matched:
            for name, layer in delay_layers(net).items():
                assert torch.equal(layer.weight, first[name].weight), arm
    for name, layer in delay_layers(nets["delays-only"]).items():
        assert torch.equal(layer.delay, first[name].delay)
    for name, layer in delay_layers(nets["fixed"]).items():
        assert torch.equal(layer.delay, first[name].delay.round())


def test_axes_multiply_the_cells(tmp_path):
    axes = parse_axes(["max_delay=8, 16", "hidden=[4],[4,4]", "augment.drop=0.1"])
    assert axes == {
        "max_delay": ("8", "16"),
        "hidden": ("[4]", "[4,4]"),
        "augment.drop": ("0.1",),
    }
    study = Study(tiny_recipe(), ("none", "learned"), 2, axes)
    cells = make_cells(study, None)
    assert len(cells) == 2 * 2 * 2
    last = cells[-1].recipe
    assert (last.max_delay, last.hidden, last.augment.drop) == (16, (4, 4), 0.1)
    jobs = make_jobs(cells, study.seeds, tmp_path, None, "cpu")
    assert len({job.folder for job in jobs}) == len(jobs) == 16
    assert jobs[0].name == "none, max_delay=8, hidden=[4], augment.drop=0.1, seed 0"
    assert jobs[0].folder.name == "none-max_delay=8-hidden=_4_-augment.drop=0.1-seed0"


def test_matched_is_as_wide_as_the_budget_allows_where_layers_differ_in_width():
    recipe = tiny_recipe(hidden=[64, 32], delays="none")
    budget = cells_of(recipe, ("learned",))["learned", ()].parameters
    scaled = (
        tiny_recipe(hidden=[round(f * 64), round(f * 32)], delays="none")
        for f in np.arange(1.5, 1.6, 0.002)
    )
    most = max((p, r.hidden) for r in scaled if (p := plan.budget(r, 40, 10)[0]) <= budget)
    matched = cells_of(recipe, ("matched",))["matched", ()]
    assert (matched.parameters, matched.recipe.hidden) == most


def test_matched_follows_the_axis():
    cells = cells_of(tiny_recipe(), ("matched", "learned"), {"hidden": ("8", "16")})
    for value in ("8", "16"):
        setting = (("hidden", value),)
        budget = cells["learned", setting].parameters
        assert 0.9 * budget < cells["matched", setting].parameters <= budget


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("max_delay", "--axis must be key=value"),
        ("max_delai=3", "In --axis, `max_delai` is not a field. Did you mean `max_delay`"),
        ("seed=1,2", "--axis must be fields other than"),
        ("delays=none", "--axis must be fields other than"),
        ("tau=2,2", "--axis tau must be a list of different values"),
        ("tau=2,many", "`tau`: must be a number"),
        ("max_delay=8,99", "max_delay must be less than"),
    ],
)
def test_impossible_axes_are_refused(word, message):
    with pytest.raises(SnnDelaysError, match=message):
        make_cells(Study(tiny_recipe(), ("none",), 1, parse_axes([word])), None)


def test_speakers_that_are_not_held_out_make_no_axis():
    axes = parse_axes(["valid_speakers=[0,1],[2,3]"])
    with pytest.raises(SnnDelaysError, match="`valid_speakers` has no effect on ssc"):
        make_cells(Study(tiny_recipe(dataset="ssc"), ("none",), 1, axes), None)


def test_a_study_is_kept_and_read_back(tmp_path):
    study = Study(tiny_recipe(), ("none", "learned"), 3, {"max_delay": ("8", "16")})
    study.save(tmp_path)
    assert load_study(tmp_path) == study
    (tmp_path / "study.json").unlink()
    (tmp_path / "study.json").mkdir()
    with pytest.raises(RunError, match=r"study\.json cannot be read \(Is a directory\)"):
        load_study(tmp_path)
    (tmp_path / "study.json").rmdir()
    (tmp_path / "study.json").write_text('{"arms": 3}')
    with pytest.raises(RunError, match="is damaged"):
        load_study(tmp_path)
    with pytest.raises(RunError, match="holds no study"):
        load_study(tmp_path / "elsewhere")


def test_protocol_last_without_test_data_is_refused_before_training(monkeypatch):
    whole = plan.load_split

    def no_test(recipe, split, data_dir):
        if split == "test":
            raise MissingSplitError(f"no {split}")
        return whole(recipe, split, data_dir)

    monkeypatch.setattr(plan, "load_split", no_test)
    with pytest.raises(MissingSplitError, match="no test"):
        make_cells(Study(tiny_recipe(protocol="last"), ("none",), 1), None)


@pytest.mark.parametrize("arms", [(), ("none", "none"), ("somatic",)])
def test_unknown_or_repeated_arms_are_refused(arms):
    with pytest.raises(SnnDelaysError, match="--delays must be a list of none, matched, fixed"):
        Study(tiny_recipe(), arms, 1)


def test_at_least_one_seed():
    with pytest.raises(SnnDelaysError, match="--seeds must be from 1 to 10000; got 0"):
        Study(tiny_recipe(), ("none",), 0)


def test_the_budget_is_that_of_learned_whatever_the_recipes_own_delays_are():
    usual = cells_of(tiny_recipe(), ("matched",))["matched", ()].recipe.hidden
    for changes in ({"delays": "none"}, {"granularity": "axonal"}, {"learn_weights": False}):
        own = cells_of(tiny_recipe(**changes), ("matched", "learned"))
        assert own["matched", ()].recipe.hidden == usual
        budget = own["learned", ()].parameters
        assert 0.9 * budget < own["matched", ()].parameters <= budget
