"""One training step (forward, loss, backward, two Adams, clamp) against the peer and no delay.

python scripts/bench/train_step.py --recipe shd [--batch 64] [--set kernel_count=2] [--json FILE]
"""

from __future__ import annotations

from agreement import check_same
from common import add_recipe, arguments, interleaved, prepared, report
from steps import CHANNELS, classes, clips, example, our_step, peer_step

from snn_delays.config import load_recipe, parse_overrides


def main() -> None:
    parser = arguments(__doc__, on_gpu=True)
    add_recipe(parser, "shd")
    options = parser.parse_args()
    prepared(options)
    recipe = load_recipe(options.recipe, parse_overrides(options.set))
    batch = clips(recipe, options.batch)
    differences = check_same(recipe, batch, options.device)
    x, labels = example(recipe, batch, device=options.device)
    plain = recipe.model_copy(update={"delays": "none"})
    ours = our_step(recipe, x, labels)
    peer = peer_step(recipe, x, labels)
    ours_s, peer_s, plain_s = interleaved(options, ours, peer, our_step(plain, x, labels))
    results = {
        "benchmark": "train_step",
        "recipe": recipe.name,
        "overrides": options.set,
        "batch": batch,
        "steps": recipe.steps + recipe.tail_steps,
        "layers": [CHANNELS, *recipe.hidden, classes(recipe)],
        "taps": recipe.max_delay + 1,
        "kernel_count": recipe.kernel_count,
        "ratio": peer_s / ours_s,
        "ours_s": ours_s,
        "peer_s": peer_s,
        "no_delay_s": plain_s,
        "over_no_delay": ours_s / plain_s,
        **differences,
    }
    report(results, options)


if __name__ == "__main__":
    main()
