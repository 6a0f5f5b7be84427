"""Predictions: an exported network over clips from a file, into one .npz.

Needs no torch for an .npz of clips; spike files are binned with it.
"""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from snn_delays.engine import Network
from snn_delays.engine.checks import clips_at_once
from snn_delays.errors import DataError
from snn_delays.system.atomic import replacing
from snn_delays.system.available_memory import total_bytes
from snn_delays.watching import by_steps

if TYPE_CHECKING:
    from snn_delays.data import SpikeDataset

Predictions = dict[str, NDArray[np.generic]]

_SPIKE_FILES = (".h5", ".h5.gz", ".hdf5")

_UNREADABLE = (
    *(OSError, ValueError, EOFError, RuntimeError, KeyError, TypeError, AttributeError),
    *(MemoryError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)  # what zipfile and numpy raise on damage


def predict(network: Network, batches: Iterable[NDArray[np.generic]], spikes: bool) -> Predictions:
    """Run every batch of clips and collect the answers.

    Args:
        network: an exported network.
        batches: arrays `[n, steps, channels]`.
        spikes: also collect every hidden spike.
    Returns:
        `classes [N]`, `scores [N, classes]`, `spike_counts [N, hidden layers]`, and with `spikes`
        for each hidden layer `l` the events `layer{l}_sample`, `layer{l}_step`, `layer{l}_neuron`,
        in the order of sample, step, neuron.
    """
    parts: dict[str, list[NDArray[np.generic]]] = {}
    done = 0
    most = clips_at_once(network)
    for x in (
        batch[first : first + most] for batch in batches for first in range(0, len(batch), most)
    ):
        result = network.run(x)
        own: Predictions = {
            "classes": result.classes,
            "scores": result.scores,
            "spike_counts": result.spike_counts,
        }
        if spikes:
            for index, layer in enumerate(result.spikes):
                sample, step, neuron = np.nonzero(layer)
                own[f"layer{index}_sample"] = sample + done
                own[f"layer{index}_step"] = step
                own[f"layer{index}_neuron"] = neuron
        for name, values in own.items():
            parts.setdefault(name, []).append(values)
        done += len(x)
    return {name: np.concatenate(values) for name, values in parts.items()}


def save_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write predictions to an .npz file, atomically."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **predictions)  # type: ignore[arg-type]


def read_clips(path: str | Path, network: Network) -> Iterable[NDArray[np.generic]]:
    """The clips `[n, steps, channels]` of an .npz file or of a spike file, in batches.

    The word `synthetic` stands for the built-in task's test clips.

    Raises:
        DataError: the file is neither, or is damaged.
    """
    path = _built_in(Path(path), network)
    if path.suffix == ".npz":
        return _in_pieces(clips_from_npz(path), clips_at_once(network), f"clips of {path.name}")
    if path.name.endswith(_SPIKE_FILES):
        return clips_from_events(path, network)
    raise DataError(f"{path}", "an .npz file, a spike file (.h5, .h5.gz) or the word synthetic")


def first_clips(path: str | Path, network: Network, count: int) -> NDArray[np.generic]:
    """At most the first `count` clips `[n, steps, channels]` of a file; see `read_clips`."""
    parts: list[NDArray[np.generic]] = []
    for batch in read_clips(path, network):
        parts.append(batch[: count - sum(map(len, parts))])
        if sum(map(len, parts)) == count:
            break
    return np.concatenate(parts)


def clips_from_npz(path: str | Path) -> NDArray[np.generic]:
    """The clips `x [N, steps, channels]` of an .npz file.

    Raises:
        DataError: the file cannot be read, or has no such array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if "x" not in file.files:
                found = ", ".join(file.files) or "nothing"
                raise DataError(f"{path} has no array `x` [N, steps, channels]; it holds {found}")
            _refuse_huge(path, file.zip)
            x = file["x"]
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there") from error
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or (str(error) or "damaged").splitlines()[0]
        if Path(path).is_file() and not zipfile.is_zipfile(path):  # numpy then speaks of pickle
            reason = "no zip archive, as those are"
        raise DataError(f"{path} cannot be read as an .npz file ({reason})") from error
    if x.ndim != 3 or len(x) == 0:
        raise DataError(f"`x` of {path}", "[N, steps, channels] with N at least 1", list(x.shape))
    return x


def _in_pieces(x: NDArray[np.generic], clips: int, things: str) -> Iterator[NDArray[np.generic]]:
    for first in by_steps(things, len(x), clips):
        yield x[first : first + clips]


def _refuse_huge(path: str | Path, archive: zipfile.ZipFile) -> None:
    """Refuse an array that this machine cannot hold, by what it says of itself, unread."""
    with archive.open("x.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0
        shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(
            member
        )
    size, most = dtype.itemsize * math.prod(shape), total_bytes("cpu") // 2
    if size > most:
        raise DataError(
            f"`x` of {path} takes {size / 2**30:.1f} GiB, more than half of this machine's memory",
            remedy="Split it into several files.",
        )


def clips_from_events(path: str | Path, network: Network) -> Iterator[NDArray[np.generic]]:
    """The clips of a spike file in SHD's layout, binned as the network's input says, in batches.

    Raises:
        DataError: the file is damaged, or holds units that the network has no channel for.
    """
    data = _events(path, network)
    for indices in data.in_order(clips_at_once(network)):
        yield data.batch(indices)[0].transpose(0, 1).numpy()


def label_of(path: str | Path, network: Network, clip: int) -> str | None:
    """The true class of clip number `clip` of a file; None for an .npz, which has no labels."""
    path = Path(path)
    if path.suffix == ".npz":
        return None
    data = _events(_built_in(path, network), network)
    label, names = int(data.labels[clip]), network.readout.classes
    own = data.classes[label]
    return names[label] if own == str(label) and label < len(names) else own


def late_spikes(path: str | Path, network: Network) -> str:
    """What to say of the spikes that come after the network's steps, if they are many."""
    path = _built_in(Path(path), network)
    if not path.name.endswith(_SPIKE_FILES):
        return ""
    from snn_delays.data.binning import say_dropped

    return say_dropped(_events(path, network).dropped_share, network.input.steps * network.dt_ms)


def _built_in(path: Path, network: Network) -> Path:
    """`path`, or the file of the built-in task's test clips for the word `synthetic`.

    Raises:
        DataError: the network takes another number of channels than the built-in task has.
    """
    if path != Path("synthetic"):
        return path
    from snn_delays.data import SOURCES, SyntheticTask, make_synthetic

    task, own = SOURCES["synthetic"].channels, network.input
    if math.ceil(task / own.channel_bin) != own.channels:
        taken = own.channels * own.channel_bin
        remedy = "Name clips of the data that the network was trained on."
        raise DataError(f"The network takes {taken} channels, synthetic has {task}", remedy=remedy)
    return make_synthetic(SyntheticTask())["test"]


def _events(path: str | Path, network: Network) -> SpikeDataset:
    """A spike file, binned as the network's input says.

    Raises:
        DataError: it cannot be read, the network takes no spikes, or all come after its steps.
    """
    if network.input.encoding != "spike_counts":
        raise DataError(f"{path} holds spikes, but the network takes real numbers, in an .npz")
    from snn_delays.data import SOURCES, SpikeDataset, open_store
    from snn_delays.data.loading import refuse_all_late

    settings = network.input
    source = SOURCES.get(settings.dataset)
    channels = source.channels if source else settings.channels * settings.channel_bin
    store = open_store(path, channels=channels, classes=None)  # its labels may mean anything
    data = SpikeDataset(
        store,
        np.arange(len(store)),
        dt_ms=network.dt_ms,
        steps=settings.steps,
        channel_bin=settings.channel_bin,
    )
    refuse_all_late(data)
    return data
