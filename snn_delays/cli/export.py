"""`snn-delays export`: a trained network as network.json or NIR, or the format's JSON Schema."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from snn_delays.cli import options as opt
from snn_delays.cli.console import console, percent
from snn_delays.errors import DataError, SnnDelaysError

if TYPE_CHECKING:
    from snn_delays.chips import Chip, ScaleOf
    from snn_delays.config import Recipe
    from snn_delays.data import ClipDataset
    from snn_delays.network_format import Network

MEASURED_CLIPS = 512
"""Clips on which `export` compares float32 with float64."""


class TargetName(StrEnum):
    """Chips that a network can be checked against."""

    generic = "generic"
    loihi2 = "loihi2"
    spinnaker1 = "spinnaker1"


class ScaleName(StrEnum):
    """What shares one weight scale."""

    output = "output"
    layer = "layer"


class FormatName(StrEnum):
    """What a network can be written as."""

    json = "json"
    nir = "nir"


def export_command(
    source: Annotated[
        Path | None,
        typer.Argument(help="Folder of a finished run, a network.json, or a .nir file of ours."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="File to write. Default: network[-TARGET].json (or .nir) in a run's folder.",
        ),
    ] = None,
    to: Annotated[
        FormatName, typer.Option("--to", help="json (network.json), or nir (extra `nir`).")
    ] = FormatName.json,
    target: Annotated[
        TargetName | None, typer.Option("--target", help="Check the limits of a chip first.")
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Make it fit: clamp delays, quantise weights.")
    ] = False,
    delay_step: Annotated[
        int, typer.Option("--delay-step", min=1, help="Delays in multiples of so many steps.")
    ] = 1,
    weight_bits: Annotated[
        int | None, typer.Option("--weight-bits", help="Bits of a weight. Default: the target's.")
    ] = None,
    max_delay: Annotated[
        int | None, typer.Option("--max-delay", help="Largest delay. Default: the target's.")
    ] = None,
    scale: Annotated[
        ScaleName, typer.Option("--scale", help="One weight scale for each of these.")
    ] = ScaleName.output,
    data_dir: opt.DataDirOption = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Write the JSON Schema of network.json instead.")
    ] = False,
) -> None:
    """Write integer delays and weights, batch norm folded, as one file.

    A json name that ends in .gz is compressed. Where held-out data is at hand, float32 arithmetic
    is compared with float64. With --target, every limit of the chip that the network breaks is
    listed with its count; with --fit it is made to fit, and measured before and after.
    """
    from snn_delays import chips
    from snn_delays import network_format as nf
    from snn_delays.atomic import write_json

    if schema:
        if output is None:
            print(json.dumps(nf.json_schema(), indent=2))
        else:
            write_json(output, nf.json_schema())
        return
    if source is None:
        raise SnnDelaysError(
            "`export` needs the folder of a finished run", remedy="For example runs/shd-…"
        )
    network, recipe = _read(source)
    path = output or _default_output(source, to, target)
    if target is not None:
        chip = chips.chip(target.value, weight_bits, max_delay)
        original, network = network, _checked(network, chip, fit, delay_step, scale.value)
    elif fit or delay_step > 1 or weight_bits is not None or max_delay is not None:
        raise SnnDelaysError("--fit and its limits need --target, for example --target generic")
    _write(network, path, to)
    synapses = sum(layer.weights.size for layer in network.layers)
    longest = max(int(layer.delays.max()) for layer in network.layers)
    size = path.stat().st_size / 1e6
    console().print(
        f"{path}: {len(network.layers)} layers, {synapses} synapses, "
        f"delays 0 to {longest} steps of {network.dt_ms:g} ms, {size:.1f} MB",
    )
    try:
        data = _held_out(network, recipe, data_dir)
    except DataError as error:
        console().print(f"Not measured on held-out clips: {escape(str(error))}")
        return
    if fit:
        _report_fit(original, network, data)
    _report_float32(network, data)


def _checked(
    network: Network, chip: Chip, fit: bool, delay_step: int, scale_of: ScaleOf
) -> Network:
    """The network, fitted if so wanted, once it keeps the chip's limits; prints what it breaks.

    Raises:
        SnnDelaysError: it breaks limits, and they are not, or cannot be, mended.
    """
    from snn_delays import chips

    broken = chips.violations(network, chip, delay_step)
    output = console()
    output.print(
        f"{chip.name} (delays 0 to {chip.max_delay}, weights of {chip.weight_bits} bits): "
        + (f"{sum(v.count for v in broken)} violations" if broken else "fits")
    )
    for violation in broken:
        output.print(f"  {violation}")
    if fit:
        network = chips.fit(network, chip, delay_step, scale_of)
        broken = chips.violations(network, chip, delay_step)
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


def _read(source: Path) -> tuple[Network, Recipe | None]:
    """The network in a run folder (with its recipe), a network.json or a NIR file."""
    if source.suffix == ".nir":
        from snn_delays.nir_format import load_nir

        return load_nir(source), None
    if source.is_file():
        from snn_delays.network_format import load_network

        return load_network(source), None
    from snn_delays.export import run_network
    from snn_delays.runs import RunFolder

    folder = RunFolder(source)
    return run_network(folder), folder.recipe()


def _default_output(source: Path, to: FormatName, target: TargetName | None) -> Path:
    if not source.is_dir():
        raise SnnDelaysError("--output is needed where the source is a file, not a run folder")
    name = "network" if target is None else f"network-{target.value}"
    return source / f"{name}.{to.value}"


def _write(network: Network, path: Path, to: FormatName) -> None:
    if to is FormatName.nir:
        from snn_delays.nir_format import save_nir

        save_nir(network, path)
    else:
        from snn_delays.network_format import save_network

        save_network(network, path)


def _held_out(network: Network, recipe: Recipe | None, data_dir: Path | None) -> ClipDataset:
    """Clips that the network was not trained on; of an exported network, the test split."""
    if recipe is not None:
        from snn_delays.assembly import load_held_out

        return load_held_out(recipe, data_dir)
    from snn_delays.evaluation import load_for_network

    return load_for_network(network, network.input.dataset, "test", data_dir)


def _report_fit(before: Network, after: Network, data: ClipDataset) -> None:
    """Say what fitting did to accuracy and spikes, on all of `data`."""
    from snn_delays.engine import Engine
    from snn_delays.fidelity import compare_engines

    found = compare_engines(Engine(before), Engine(after), data)
    right, then = (percent(n / found.clips) for n in found.correct)
    console().print(
        f"Accuracy on {found.clips} clips of {data.name}: {right} before, {then} after; "
        f"{found.different_spikes} of {found.spikes} hidden spikes and "
        f"{found.different_classes} answers differ"
    )


def _report_float32(network: Network, data: ClipDataset) -> None:
    """Say how far voltages keep from the threshold, and what float32 changes."""
    import numpy as np

    from snn_delays.engine import Engine
    from snn_delays.fidelity import compare_engines

    engines = Engine(network), Engine(network, np.float32)
    found = compare_engines(*engines, data, MEASURED_CLIPS)
    console().print(
        f"float32 against float64 on {found.clips} clips of {data.name}: "
        f"{found.different_spikes} of {found.spikes} hidden spikes and "
        f"{found.different_classes} answers differ; "
        f"smallest distance of a membrane to its threshold {found.margin:.2g}"
    )
