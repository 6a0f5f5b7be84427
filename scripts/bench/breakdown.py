"""Where the time of our training step goes, and how far products and transforms are from a limit.

The rest holds what measuring takes, too.

python scripts/bench/breakdown.py [--recipe shd] [--batch 64] [--set KEY=VALUE] [--json FILE]

The limits: the rate of one large matrix product, and that of copying memory, both measured here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from common import add_recipe, arguments, interleaved, now, prepared, report
from steps import clips, example, our_step
from torch.utils._python_dispatch import TorchDispatchMode

from snn_delays.config import load_recipe, parse_overrides
from snn_delays.ops.gemm import fast_matmul
from snn_delays.system.threads import in_ranges
from snn_delays.training.optimisation import Optimisation

LOOPS = {"ops.fourier": "transforms", "functional": "delay_kernels", "ops.fused": "neurons"}
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::addmm_")
DENSE = ("aten::convolution", "aten::convolution_backward")
SIDE, COPIED = 2048, 2**26  # of the limits: a square matrix, float32 numbers


class Parts(TorchDispatchMode):
    """Adds up seconds and work of the parts of a step, while entered."""

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options
        self.sums: Counter[str] = Counter()
        self.patches = ExitStack()

    def __enter__(self) -> Parts:
        for module, name in LOOPS.items():
            loops = self.timed(name, in_ranges)
            self.patches.enter_context(patch(f"snn_delays.{module}.in_ranges", loops))
        step = self.timed("optimisers", Optimisation.step)
        self.patches.enter_context(patch.object(Optimisation, "step", step))
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.patches.close()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its seconds added up; of transforms also the numbers that memory holds."""

        def measured(*args: Any) -> Any:
            began = now(self.options)
            result = function(*args)
            self.sums[f"{name}_s"] += now(self.options) - began
            if name == "transforms":
                columns, begin, end, tables = args[1], args[4], args[5], args[6]
                numbers = columns * (end - begin + 3 * len(tables.start))
                self.sums["bytes"] += numbers * args[2].itemsize
            return result

        return measured

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        name = function._schema.name
        began = now(self.options)
        result = function(*args, **(kwargs or {}))
        seconds = now(self.options) - began
        if name in DENSE:
            self.sums["dense_convolutions_s"] += seconds
        elif name in PRODUCTS:
            self.sums["products_s"] += seconds
            inner = args[-1].shape[-2]  # of `[.., n, m]`, the second factor
            self.sums["multiplications"] += result.numel() * inner
        return result


def main() -> None:
    parser = arguments(__doc__)
    add_recipe(parser, "shd")
    options = parser.parse_args()
    prepared(options)
    recipe = load_recipe(options.recipe, parse_overrides(options.set))
    batch = clips(recipe, options.batch)
    step = our_step(recipe, *example(recipe, batch))
    rounds: list[Counter[str]] = []

    def in_parts() -> None:
        with Parts(options) as parts:
            step()
        rounds.append(parts.sums)

    step_s, measured_s, product_s, copy_s = interleaved(options, step, in_parts, *limits())
    found = {key: median(sums[key] for sums in rounds[2:]) for key in rounds[-1]}  # 2 warm up
    work = {key: found.pop(key, 0) for key in ("multiplications", "bytes")}
    found["rest_s"] = measured_s - math.fsum(found.values())
    results = {"benchmark": "breakdown", "recipe": recipe.name, "batch": batch, "step_s": step_s}
    results |= found
    rates = {"product": SIDE**3 / product_s, "copy": 8 * COPIED / copy_s}  # bytes: there and back
    least = {
        "products": work["multiplications"] / rates["product"],
        "transforms": work["bytes"] / rates["copy"],
    }
    for name, seconds in least.items():
        results[f"{name}_at_least_s"] = seconds
        if seconds:
            results[f"{name}_over_limit"] = found[f"{name}_s"] / seconds
    results |= {"product_gflops": 2e-9 * rates["product"], "copy_gb_s": 1e-9 * rates["copy"]}
    report(results, options)


def limits() -> tuple[Callable[[], object], Callable[[], object]]:
    """A large product, and a large copy."""
    a, b, source = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE), torch.ones(COPIED)
    target, out = torch.empty_like(source), torch.empty_like(a)

    def product() -> None:
        with fast_matmul(a):
            torch.mm(a, b, out=out)

    return product, lambda: target.copy_(source)


if __name__ == "__main__":
    main()
