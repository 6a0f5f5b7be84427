"""Reading SHD: packed clips to tensors, against tonic and against SpikingJelly's frames.

python scripts/bench/data.py --data-dir DIR [--clips 512] [--json FILE]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from common import arguments, interleaved, positive, prepared, report

from snn_delays import data
from snn_delays.data.events import take_clips
from snn_delays.data.gzipped import unpacked
from snn_delays.data.hdf5 import write_events
from snn_delays.data.sources import find_file, find_source


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="where shd_train.h5 lies")
    parser.add_argument("--clips", type=positive, default=512, help="clips read in a round")
    options = parser.parse_args()
    prepared(options)
    source = find_source("shd")
    path = find_file(options.data_dir, source.files["train"])
    with tempfile.TemporaryDirectory() as scratch, unpacked(path, Path(scratch)) as plain:
        folder = Path(scratch)
        named = folder / "source" / source.files["train"]  # an unpacked .gz has a name of its own
        named.parent.mkdir()
        named.symlink_to(plain.resolve())
        began = time.perf_counter()
        clips = data.load("shd", "train+valid", data_dir=named.parent, cache_dir=folder / "cache")
        packing_s = time.perf_counter() - began
        began = time.perf_counter()
        data.load("shd", "train+valid", data_dir=named.parent, cache_dir=folder / "cache")
        opening_s = time.perf_counter() - began
        chosen = torch.from_numpy(np.random.default_rng(0).permutation(len(clips))[: options.clips])
        found = len(clips.labels[chosen].unique())
        if found < (classes := len(clips.classes)):
            expected = f"clips of all {classes} classes, which SpikingJelly's folders must have"
            raise SystemExit(f"--clips must give {expected}; got {found} of them. Take more.")
        theirs = tonic_clips(plain, folder / "tonic")
        frames = spikingjelly_frames(clips, chosen, folder / "spikingjelly")
        check_same_counts(clips, theirs, int(chosen[0]))
        batch_s, single_s, tonic_s, spikingjelly_s = interleaved(
            options,
            lambda: use(clips.batch(part) for part in chosen.split(128)),
            lambda: use(clips[i] for i in chosen.tolist()),
            lambda: use(theirs[i] for i in chosen.tolist()),
            lambda: use(frames[i] for i in range(len(chosen))),
        )
    ours, tonic, jelly = (s / len(chosen) for s in (batch_s, tonic_s, spikingjelly_s))
    results = {
        "benchmark": "data",
        "file": path.name,
        "clips": len(clips),
        "clips_a_round": len(chosen),
        "packing_s": packing_s,
        "opening_s": opening_s,
        "ours_ms_a_clip": 1e3 * ours,
        "ours_one_by_one_ms": 1e3 * single_s / len(chosen),
        "tonic_ms_a_clip": 1e3 * tonic,
        "spikingjelly_ms_a_clip": 1e3 * jelly,
        "over_spikingjelly": jelly / ours,
        "ratio": tonic / ours,
        "ours_s": batch_s,
        "peer_s": tonic_s,
    }
    report(results, options)


def use(items: Iterable[object]) -> None:
    """Take one after another and keep none, as a training loop does."""
    for _ in items:
        pass


def tonic_clips(plain: Path, folder: Path):
    """tonic's SHD with frames of 10 ms; it finds the file where it would have unpacked it."""
    from tonic.datasets import SHD
    from tonic.transforms import ToFrame

    place = folder / "SHD"
    place.mkdir(parents=True)
    (place / "shd_train.h5").symlink_to(plain.resolve())
    (place / "shd_train.h5.zip").touch()
    return SHD(str(folder), True, ToFrame(sensor_size=SHD.sensor_size, time_window=10_000))


def spikingjelly_frames(clips: data.SpikeDataset, chosen: torch.Tensor, folder: Path):
    """SpikingJelly's frames of 10 ms, written to disk beforehand, one file a clip."""
    from spikingjelly.datasets.shd import SpikingHeidelbergDigits

    raw = folder / "events_h5"
    subset = take_clips(clips._store, chosen.numpy())
    write_events(raw / "shd_train.h5", subset)
    write_events(raw / "shd_test.h5", subset)
    return SpikingHeidelbergDigits(str(folder), train=True, data_type="frame", duration=10)


def check_same_counts(clips: data.SpikeDataset, theirs, index: int) -> None:
    """Both hold the same spikes of a clip, channel by channel, so that the same work is compared.

    tonic's frames begin at the first spike and may lack the last one, so steps cannot agree.
    """
    ours = clips.events(torch.tensor([index])).units.bincount(minlength=700)
    frames = torch.from_numpy(theirs[index][0].sum((0, 1)).astype(np.int64))
    difference = int((ours - frames).abs().sum())
    if difference > 0.02 * int(ours.sum()):
        raise SystemExit(f"ours and tonic's spikes of clip {index} differ by {difference}")


if __name__ == "__main__":
    main()
