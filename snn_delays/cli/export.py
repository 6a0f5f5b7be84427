"""`snn-delays export`: a trained network as network.json, NIR, netx or C; or the JSON Schema."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from snn_delays.cli import options as opt
from snn_delays.cli.console import console
from snn_delays.cli.export_report import report
from snn_delays.errors import SnnDelaysError
from snn_delays.runs import RunFolder
from snn_delays.system.atomic import write_json
from snn_delays.words import ScaleOf

if TYPE_CHECKING:
    from snn_delays.chips import Chip
    from snn_delays.config import Recipe
    from snn_delays.network_format import Network


Target = Literal["generic", "loihi2", "spinnaker1"]
Format = Literal["json", "nir", "netx", "c"]

SUFFIXES: dict[Format, str] = {"json": ".json", "nir": ".nir", "netx": ".net", "c": ".h"}

SourceArgument = Annotated[
    Path | None,
    typer.Argument(help="Folder of a finished run, a network.json, or a .nir file of ours."),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="File to write. Default: network[-TARGET].json (or .nir, .net, .h) in a run's folder.",
    ),
]
ToOption = Annotated[
    Format | None,
    typer.Option(
        "--to",
        help="json (network.json), nir (extra `nir`), netx (Lava's HDF5, for loihi2), or c (a C99 "
        "header). Default: as the name of --output ends; json without it.",
    ),
]
TargetOption = Annotated[
    Target | None,
    typer.Option("--target", help="Check a chip's limits on delays, weights and neurons first."),
]
FitOption = Annotated[
    bool, typer.Option("--fit", help="With --target: clamp delays, quantise weights.")
]
DelayStepOption = Annotated[
    int,
    typer.Option(
        "--delay-step",
        min=1,
        max=65535,
        help="With --target: delays in multiples of so many steps.",
    ),
]
WeightBitsOption = Annotated[
    int | None,
    typer.Option(
        "--weight-bits", help="Bits of a weight, its sign included. Default: the target's."
    ),
]
MaxDelayOption = Annotated[
    int | None, typer.Option("--max-delay", help="Largest delay, in steps. Default: the target's.")
]
ScaleOption = Annotated[
    ScaleOf | None,
    typer.Option("--scale", help="What shares one weight scale. Default: output; netx: layer."),
]
SchemaOption = Annotated[
    bool, typer.Option("--schema", help="Write the JSON Schema of network.json instead.")
]


def export_command(
    source: SourceArgument = None,
    output: OutputOption = None,
    to: ToOption = None,
    target: TargetOption = None,
    fit: FitOption = False,
    delay_step: DelayStepOption = 1,
    weight_bits: WeightBitsOption = None,
    max_delay: MaxDelayOption = None,
    scale: ScaleOption = None,
    data_dir: opt.DataDirOption = None,
    schema: SchemaOption = False,
) -> None:
    """Write integer delays and weights, batch norm folded, as one file.

    A json name that ends in .gz is compressed. Where held-out data is at hand, float32 arithmetic
    is compared with float64. With --target, every limit of the chip that the network breaks is
    listed with a count (delays, bits of a weight, reset and rest; of loihi2 bias and threshold
    too); with --fit it is made to fit, and measured before and after.
    """
    if schema:
        _write_schema(output)
        return
    if source is None:
        raise SnnDelaysError(
            "`export` needs the folder of a finished run", remedy="For example runs/shd-…"
        )
    to = to or _format_of(output)
    target = _target_of(to, target)
    limits = (weight_bits, max_delay, scale)
    if target is None and (fit or delay_step > 1 or any(limit is not None for limit in limits)):
        raise SnnDelaysError("--fit and its limits need --target, for example --target generic")
    from snn_delays.engine.checks import check_sums

    original, recipe = _read(source)
    check_sums(original, source)
    path = output or _default_output(source, to, target)
    network = original
    if target is not None:
        from snn_delays import chips

        scale = scale or ("layer" if to == "netx" else "output")
        chip = chips.chip(target, weight_bits, max_delay)
        network = _checked(network, chip, fit, delay_step, scale)
    network = _write(network, path, to)
    _say_what(network, path)
    _say_what_differs(network, to, target if fit else None)
    report(original, network, recipe, source, data_dir)


def _write_schema(output: Path | None) -> None:
    from snn_delays.network_format import json_schema

    if output is None:
        print(json.dumps(json_schema(), indent=2))
    else:
        write_json(output, json_schema())
        console().print(f"{escape(str(output))}: the JSON Schema of network.json")


def _format_of(output: Path | None) -> Format:
    """The format that the file's name ends in; json without a file."""
    if output is None or output.name.endswith(".json.gz"):
        return "json"
    for to, ending in SUFFIXES.items():
        if output.suffix == ending:
            return to
    endings = f"{', '.join(SUFFIXES.values())} or .json.gz"
    raise SnnDelaysError(
        "--output", f"a name that ends in {endings}", output, "Or say the format with --to."
    )


def _target_of(to: Format, target: Target | None) -> Target | None:
    """The chip to check; netx is Loihi 2's."""
    if to != "netx":
        return target
    if target not in (None, "loihi2"):
        raise SnnDelaysError("--target", "loihi2 for netx, which is Lava's format", target)
    return "loihi2"


def _read(source: Path) -> tuple[Network, Recipe | None]:
    """The network in a run folder (with its recipe), a network.json or a NIR file."""
    if not source.is_dir():
        if source.suffix == ".nir":
            from snn_delays.interchange.nir import load_nir

            return load_nir(source), None
        for to in ("netx", "c"):
            if source.suffix == SUFFIXES[to]:
                raise SnnDelaysError(
                    f"{source} is a {to} file by its name, which cannot be read back",
                    remedy="Export from the run or its network.json.",
                )
        if source.is_file() or source.suffix in (".json", ".gz"):
            from snn_delays.network_format import load_network

            return load_network(source), None
    from snn_delays.export import run_network

    folder = RunFolder(source)
    return run_network(folder), folder.recipe()


def _default_output(source: Path, to: Format, target: Target | None) -> Path:
    if not source.is_dir():
        raise SnnDelaysError("--output is needed where the source is a file, not a run folder")
    name = "network" if target is None else f"network-{target}"
    return source / f"{name}{SUFFIXES[to]}"


def _checked(
    network: Network, chip: Chip, fit: bool, delay_step: int, scale_of: ScaleOf
) -> Network:
    """The network, fitted if so wanted, once it keeps the chip's limits; prints what it breaks.

    Raises:
        SnnDelaysError: it breaks limits, and they are not, or cannot be, mended.
    """
    from snn_delays import chips

    broken = chips.violations(network, chip, delay_step, scale_of)
    output = console()
    output.print(
        f"{chip.name} (delays 0 to {chip.max_delay}, weights of {chip.weight_bits} bits): "
        + (f"{sum(v.count for v in broken)} violations" if broken else "fits")
    )
    for violation in broken:
        output.print(f"  {violation}")
    unseen = ["memory", "connections of a core", "potentials"]
    if chip.largest_bias == math.inf:
        unseen.append("bias and threshold, which stay real numbers")
    output.print(f"  Not checked: {', '.join(unseen)}.")
    if fit:
        network = chips.fit(network, chip, delay_step, scale_of)
        broken = chips.violations(network, chip, delay_step, scale_of)
        if broken:
            raise SnnDelaysError(
                f"The network cannot be made to fit {chip.name} ({broken[0]})",
                remedy="Train with neurons that the chip has.",
            )
    elif broken:
        raise SnnDelaysError(
            f"The network does not fit {chip.name}; nothing is written",
            remedy="Add --fit to make it fit.",
        )
    return network


def _write(network: Network, path: Path, to: Format) -> Network:
    """Write the file; returns the network that it holds (netx rounds bias, threshold and leak)."""
    if to == "nir":
        from snn_delays.interchange.nir import save_nir

        save_nir(network, path)
    elif to == "netx":
        from snn_delays.interchange.netx import netx_network, save_netx

        network = netx_network(network)
        save_netx(network, path)
    elif to == "c":
        from snn_delays.interchange.c_header import save_c

        save_c(network, path)
    else:
        from snn_delays.network_format import save_network

        save_network(network, path)
    return network


def _say_what(network: Network, path: Path) -> None:
    synapses = sum(layer.weights.size for layer in network.layers)
    longest = max(int(layer.delays.max()) for layer in network.layers)
    console().print(
        f"{escape(str(path))}: {len(network.layers)} layers, {synapses} synapses, "
        f"delays 0 to {longest} steps of {network.dt_ms:g} ms, {path.stat().st_size / 1e3:.0f} kB"
    )


def _say_what_differs(network: Network, to: Format, fitted_to: Target | None) -> None:
    """What another reader, or another format of the same export, would make of the network."""
    if to == "nir":
        console().print(
            "NIR spikes above the threshold, not at it: it is written one float64 step lower, which"
            " means the same; a reader that casts to float32 may lose exact ties."
        )
    several = any(
        layer.weight_scale is not None and len(set(layer.weight_scale.tolist())) > 1
        for layer in network.layers
    )
    if fitted_to == "loihi2" and (several or to == "netx"):
        console().print(
            "A network.json has a weight scale for each output, a netx file one for each layer"
            " (as --scale layer; integers of few bits with several scales become 8-bit ones) and a"
            " rounded bias, threshold and leak: export for the file that you will use, and judge"
            " the network by that one."
        )
