"""One delay layer forward and backward over width, T and batch, and how well the form is chosen.

python scripts/bench/scaling.py [--taps 25] [--longest 10] [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from common import arguments, interleaved, positive, prepared, report

from snn_delays.ops.convolution import best_blocks, by_dft, dft_cost, direct, direct_cost, sizes_of

CENTRE = {"width": 256, "steps": 124, "batch": 64}
SWEEPS = {
    "width": (64, 128, 256, 512, 1024, 2048),
    "steps": (50, 124, 250, 500, 1000),
    "batch": (1, 8, 64, 256, 512),
}
RATE = 3 * 1e-11  # seconds of a multiplication forward and backward, to skip what takes too long


def main() -> None:
    parser = arguments(__doc__, on_gpu=True)
    parser.add_argument("--taps", type=positive, default=25)
    parser.add_argument("--longest", type=float, default=10.0, help="skip slower dense runs, in s")
    options = parser.parse_args()
    prepared(options)
    rows = []
    for name, values in SWEEPS.items():
        for value in values:
            row = {"sweep": name, **measure({**CENTRE, name: value}, options)}
            rows.append(row)
            print(*(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()))
    report({"benchmark": "scaling", "taps": options.taps, "rows": rows}, options)


def measure(sizes: dict[str, int], options: object) -> dict[str, object]:
    """Seconds of both forms at one size; None where the dense one would take too long."""
    shape = (sizes["steps"], sizes["batch"], sizes["width"])
    x = torch.randn(shape, device=options.device, requires_grad=True)
    shape_of_kernel = (options.taps, sizes["width"], sizes["width"])
    kernel = torch.randn(shape_of_kernel, device=options.device, requires_grad=True)
    problem = sizes_of(x, kernel, len(x))
    best = best_blocks(problem)
    blocks = best or 1

    def both_ways(form: Callable[..., torch.Tensor], *more: object) -> Callable[[], None]:
        probe = torch.randn(shape, device=options.device)
        return lambda: form(x, kernel, len(x), *more).backward(probe)

    with torch.no_grad():
        few = x[:, :2].contiguous()
        dense = direct(few, kernel, len(x))
        error = (by_dft(few, kernel, len(x), blocks) - dense).abs().max() / dense.abs().max()
    if not error <= 1e-4:
        sys.exit(f"the forms differ by {float(error):.2e} at {sizes}")
    tasks = [both_ways(by_dft, blocks)]
    if direct_cost(problem) * RATE < options.longest:
        tasks.append(both_ways(direct))
    dft_s, *direct_s = interleaved(options, *tasks)
    chosen = f"{blocks} blocks" if best else "direct"
    predicted = direct_cost(problem) / dft_cost(problem, blocks)
    row = {**sizes, "chosen": chosen, "dft_s": dft_s, "direct_s": None, "predicted": predicted}
    return row | ({"direct_s": direct_s[0], "ratio": direct_s[0] / dft_s} if direct_s else {})


if __name__ == "__main__":
    main()
