"""What a study found, in sentences: the verdict, and what to beware of."""

import re
from dataclasses import astuple, replace

import numpy as np
from tiny import tiny_recipe

from snn_delays.compare.answers import Answers
from snn_delays.compare.plan import Cell
from snn_delays.compare.results import CellResult, Results
from snn_delays.compare.wording import (
    p_text,
    points,
    recipe_text,
    signed,
    training_text,
    verdict,
    warnings,
)
from snn_delays.config import load_recipe


def results_of(accuracies, setting=(), split="test", recipe=None, **facts):
    """Results with these accuracies of each arm on a thousand clips, without runs."""
    cells = [
        CellResult(
            Cell(arm, setting, recipe or tiny_recipe(name="tiny", epochs=4), 10, 5),
            {},
            {seed: {"protocol": "valid", **facts} for seed in range(len(values))},
            {seed: answers_of(a) for seed, a in enumerate(values)},
        )
        for arm, values in accuracies.items()
    ]
    return Results(split, cells)


def answers_of(accuracy):
    """Answers to a thousand clips of class 0, of which so many are right."""
    labels = np.zeros(1000, int)
    given = np.where(np.arange(1000) < round(1000 * accuracy), 0, 1)
    no_variants = np.array([], str), np.array([]), np.zeros((0, 1000), int)
    return Answers(labels, labels, given, given, *no_variants)


def test_the_verdict_compares_learned_with_the_best_other_fixed_and_none():
    ten = [k / 1000 for k in range(10)]
    results = results_of(
        {
            "none": [0.1 + k for k in ten],
            "matched": [0.12 - k for k in ten],
            "fixed": [0.4 + k for k in ten],
            "learned": [0.85 - k for k in ten],
        }
    )
    words = verdict(results, ())
    assert words.startswith(
        "Learned delays answer 84.5 % of the test clips right after 4 epochs (10"
    )
    assert re.search(
        r"44\.1 points more than fixed random delays \(.* corrected p = 0\.012\)", words
    )
    assert "74.1 points more than no delays" in words
    assert "wider" not in words
    assert warnings(results) == []


def test_a_tiny_corrected_p_is_said_to_be_below_a_thousandth():
    twelve = [k / 1000 for k in range(12)]
    results = results_of({"none": [0.1 + k for k in twelve], "learned": [0.8 - k for k in twelve]})
    assert ", corrected p < 0.001)." in verdict(results, ())


def test_the_verdict_names_the_best_other_arm_where_learned_is_the_best_of_all():
    arms = {"none": [0.1], "fixed": [0.4], "learned": [0.8], "axonal": [0.6], "matched": [0.5]}
    assert verdict(results_of(arms), ()).endswith(
        " (one seed): 20.0 points more than learned delays per input; 40.0 points more than fixed "
        "random delays; 70.0 points more than no delays."
    )


def test_the_verdict_says_when_training_was_cut_short():
    short = results_of({"learned": [0.5]}, recipe=load_recipe("shd", {"epochs": 8}))
    assert verdict(short, ()) == (
        "Learned delays answer 50.0 % of the test clips right after 8 epochs instead of the 150 of "
        "recipe shd (one seed)."
    )
    assert training_text(load_recipe("shd")) == "150 epochs"
    own = load_recipe("shd", {"epochs": 1, "name": "mine"})
    assert (training_text(own), recipe_text(own)) == ("1 epoch", "mine, not a built-in one")
    assert recipe_text(load_recipe("shd", {"seed": 3})) == "shd, unchanged"


def test_few_seeds_are_named_and_no_p_is_quoted():
    three = results_of({"none": [0.1, 0.11, 0.12], "learned": [0.8, 0.82, 0.85]})
    assert "p =" not in verdict(three, ())
    assert "p = 0.25, corrected for the number of pairs (1)" in warnings(three)[0]
    assert "at least 6 seeds" in warnings(three)[0]
    assert len(warnings(three)) == 1
    six = results_of({"none": [0.1] * 6, "fixed": [0.4] * 6, "learned": [0.8, 0.82] * 3})
    assert "corrected p" not in verdict(six, ())
    assert "may be chance" not in verdict(six, ())
    assert "p = 0.094, corrected for the number of pairs (3)" in warnings(six)[0]
    assert "at least 7 seeds" in warnings(six)[0]
    one = results_of({"none": [0.1], "learned": [0.8]})
    assert verdict(one, ()) == (
        "Learned delays answer 80.0 % of the test clips right after 4 epochs (one seed): 70.0 "
        "points more than no delays."
    )
    assert "One seed" in warnings(one)[0]


def test_a_worse_or_uncertain_result_is_said_as_such():
    up_and_down = [0.5 + (-1) ** k * 0.01 for k in range(10)]
    results = results_of({"fixed": [0.505] * 10, "learned": up_and_down})
    assert re.search("0.5 points less than fixed .*, which may be chance", verdict(results, ()))
    three = results_of({"fixed": [0.5, 0.52, 0.48], "learned": [0.51, 0.5, 0.5]})
    assert "which may be chance" in verdict(three, ())
    alone = results_of({"dendritic": [0.5, 0.6]}, (("tau", "2"),))
    assert verdict(alone, (("tau", "2"),)).startswith("At tau=2, learned delays per output answer")


def test_a_difference_may_be_chance_by_its_corrected_p_alone():
    gains = [10, 12, -3, 8, 9, -2, 11, 7, -1, 6]
    alternating = [0.5 + k % 2 / 1000 for k in range(10)]
    learned = [0.5 + k / 1000 for k in gains]
    results = results_of({"none": [0.5] * 10, "fixed": alternating, "learned": learned})
    assert re.search(
        r"no delays \(0\.0 to 1\.1, corrected p = 0\.\d+\), which may be chance",
        verdict(results, ()),
    )


def test_more_or_less_is_of_the_seeds_that_both_arms_have():
    results = results_of({"fixed": [0.5, 0.52, 0.1], "learned": [0.46, 0.47]})
    assert "4.5 points less than fixed random delays" in verdict(results, ())
    assert "Some runs are missing" in " ".join(warnings(results))


def test_missing_runs_are_said_where_arms_have_as_many_of_other_seeds():
    def without(result, lost):
        kept = {s: a for s, a in result.answers.items() if s != lost}
        return replace(result, answers=kept, summaries={s: result.summaries[s] for s in kept})

    none, learned = results_of({"none": [0.1, 0.2, 0.3], "learned": [0.8, 0.9, 0.85]}).cells
    alike = Results("test", [without(none, 1), without(learned, 1)])
    assert "Some runs are missing" not in " ".join(warnings(alike))
    others = Results("test", [without(none, 0), without(learned, 1)])
    assert "differences are over the seeds that both arms have" in warnings(others)[-1]


def test_arms_with_unequal_numbers_of_seeds():
    ten = [0.5 + k / 1000 for k in range(10)]
    results = results_of({"none": [0.1], "fixed": [s - 0.2 for s in ten], "learned": ten})
    assert "corrected p = 0.002" in verdict(results, ())  # the other pairs have no p
    found = warnings(results)
    assert found[0].startswith("One seed of none: there is no spread")
    assert "Some runs are missing" in found[1]
    assert len(found) == 2
    few = results_of({"none": ten[:3], "fixed": ten, "learned": [0.8, *ten[1:]]}, (("tau", "2"),))
    assert "With 3 seeds the permutation test cannot give less than p = 0.75" in warnings(few)[0]
    lone = results_of({"none": [0.1], "learned": ten}, (("tau", "2"),))
    assert warnings(lone)[0].startswith("One seed of none at tau=2: ")


def test_two_seeds_are_warned_of():
    two = results_of({"none": [0.1, 0.2], "learned": [0.8, 0.9, 0.85]})
    assert warnings(two)[0].startswith("Two seeds: where they differ much")
    assert "four times as wide as it need be on average" in warnings(two)[0]
    assert "Two seeds" not in " ".join(warnings(results_of({"learned": [0.8, 0.9, 0.85]})))


def test_of_a_single_clip_no_interval_is_known():
    cells = [
        replace(c, answers={s: Answers(*(v[..., :1] for v in astuple(a))) for s, a in all_of})
        for c in results_of({"none": [0.0, 0.0], "learned": [1.0, 1.0]}).cells
        if (all_of := c.answers.items())
    ]
    words = verdict(Results("test", cells), ())
    assert words.endswith("(2 seeds, 95 % interval –): 100.0 points more than no delays.")


def test_an_interval_without_width_is_warned_of():
    alike = results_of({"none": [0.1, 0.1], "learned": [1.0, 1.0]})
    assert "without width" in " ".join(warnings(alike))
    same = {"none": [0.1, 0.2, 0.15], "learned": [0.1, 0.2, 0.15]}
    assert "A difference of 0.0 to 0.0" in " ".join(warnings(results_of(same)))
    opposite = {"none": [0.1, 0.2, 0.15], "learned": [0.2, 0.1, 0.15]}  # 0 on average only
    assert "A difference" not in " ".join(warnings(results_of(opposite)))


def test_figures_have_a_true_minus_and_no_negative_zero():
    assert [signed(s) for s in (0.0123, -0.004, -0.0001, 0.0)] == ["+1.2", "−0.4", "+0.0", "+0.0"]
    assert (signed(-0.6), points(0.6), points(-0.0001)) == ("−60.0", "60.0", "0.0")


def test_a_p_value_has_two_digits_or_is_below_a_thousandth():
    found = [p_text(p) for p in (None, 0.00099, 0.001, 2 / 1024, 0.25, 1.0)]
    assert found == ["–", "< 0.001", "0.001", "0.002", "0.25", "1"]


def test_weak_protocols_and_missing_runs_are_warned_of():
    valid = results_of({"none": [0.1] * 10, "learned": [0.8] * 9}, split="valid")
    text = " ".join(warnings(valid))
    assert "also chose the epoch" in text
    assert "Some runs are missing" in text
    assert "of the valid clips" in verdict(valid, ())
    paper = results_of({"none": [0.1] * 10}, protocol="paper")
    assert "the test set chose the epoch" in " ".join(warnings(paper))


def test_every_setting_has_its_own_verdict_and_the_better_arm_is_named_first():
    ten = [k / 1000 for k in range(10)]
    low = results_of({"none": [0.1 + k for k in ten], "learned": [0.5 - k for k in ten]})
    arms = {
        "none": [0.3 + k for k in ten],
        "fixed": [0.6 - k for k in ten],
        "learned": [0.8 + k for k in ten],
    }
    high = results_of(arms, (("tau", "2"),))
    both = Results("test", [*low.cells, *high.cells])
    assert verdict(both, ()).startswith("Learned delays answer 49.5 %")
    words = verdict(both, (("tau", "2"),))
    assert words.startswith("At tau=2, learned delays answer 80.5 % of the test clips right")
    assert 0 < words.index("fixed random delays") < words.index("no delays")
