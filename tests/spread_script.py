"""What tests/test_distributed.py runs under torchrun: `check FOLDER`, or `die COMMAND...`."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import tiny_recipe

from snn_delays.distributed import Share, backward, joined
from snn_delays.errors import DataError, TrainingError
from snn_delays.networks import DelaySNN
from snn_delays.runs import RunFolder
from snn_delays.training import epoch as one_epoch
from snn_delays.training import loop as training
from snn_delays.training.assembly import Splits

CASES = [
    {"learn_tau": learn_tau, "clips": clips, "dropout": dropout}
    for learn_tau in (False, True)  # the fused batch norm, and the other one
    for clips, dropout in ((5, 0.0), (5, 0.4), (1, 0.4))
]
"""Batches that two processes share unevenly, down to one clip."""


def gradients(case, share=None):
    """Loss, gradients and running statistics of a batch, by name; of its input too."""
    torch.manual_seed(1)
    options = {"learn_tau": case["learn_tau"], "dropout": case["dropout"], "readout": "max"}
    net = DelaySNN(4, [6, 5], 3, max_delay=3, **options).double()
    x = (2 * torch.rand(9, case["clips"], 4).double()).requires_grad_()
    labels = torch.arange(case["clips"]) % 3
    own = slice(None) if share is None else share.own
    scores = net.simulate(x[:, own], share=share).scores
    loss = torch.nn.functional.cross_entropy(scores, labels[own])
    results = {"loss": backward(loss, net, share)}
    results |= {n: p.grad for n, p in net.named_parameters()} | dict(net.named_buffers())
    # Of the input each process knows its own clips' gradient.
    results["x"] = x.grad if share is None else share.sum(x.grad)
    return {name: value.contiguous() for name, value in results.items()}


def train_in_float64(folder, world=None):
    """Train 21 steps, of which each third has an odd number of clips; the loss of each step."""
    losses = []
    batch = one_epoch.training_batch

    def recording(*args):
        losses.append(backward(*args))
        return losses[-1]

    def double(*args):
        x, *others = batch(*args)
        return x.double(), *others

    recipe = tiny_recipe(epochs=3, batch_size=301, dropout=0.2, augment={"drop": 0.1})
    torch.set_default_dtype(torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_epoch, "backward", recording)
        patch.setattr(one_epoch, "training_batch", double)
        summary = training.train(recipe, folder, world=world)
    torch.set_default_dtype(torch.float32)
    return torch.stack(losses), summary


def check(out):
    """Compute everything in two processes, and write it to `out`."""
    with joined("cpu") as world:
        for number, case in enumerate(CASES):
            found = gradients(case, world.share(case["clips"]))
            save_file(found, out / f"case{number}-rank{world.rank}.safetensors")
        assert world.send(b"from the first" if world.rank == 0 else b"") == b"from the first"
        net = torch.nn.Linear(1, 1)
        net.weight.data.fill_(world.rank)
        with pytest.raises(TrainingError, match="networks differ after epoch 7"):
            world.check_equal(net, 7)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Splits, "fingerprint", lambda _: {"shd_train.h5": str(world.rank)})
            other = RunFolder(out / f"other{world.rank}")
            with pytest.raises(DataError, match="processes of the run read different data"):
                training.train(tiny_recipe(), other, world=world)
            assert not other.path.exists()
        losses, _ = train_in_float64(RunFolder(out / f"run{world.rank}"), world)
        save_file({"losses": losses}, out / f"losses-rank{world.rank}.safetensors")


def die(words):
    """Run a command, and kill the second process in the third batch of the second epoch."""
    from snn_delays.cli import main

    batch = one_epoch.training_batch

    def deadly(data, indices, recipe, epoch, number, share: Share):
        if os.environ["RANK"] == "1" and (epoch, number) == (1, 2):
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(data, indices, recipe, epoch, number, share)

    one_epoch.training_batch = deadly
    main(words)


if __name__ == "__main__":
    if sys.argv[1] == "check":
        check(Path(sys.argv[2]))
    else:
        die(sys.argv[2:])
