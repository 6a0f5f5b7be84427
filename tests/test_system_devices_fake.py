"""A fake GPU, which holds no values, refuses tensors of two devices, and tells who waits for it.

Backward passes run on fake `meta` tensors: torch's autograd asks a CUDA driver for its streams.
"""

import copy
from contextlib import contextmanager

import pytest
import torch
from tiny import tiny_recipe
from torch._functorch import config
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from snn_delays import data, distributed
from snn_delays.data import augment
from snn_delays.data.dataset import ClipDataset, SpikeDataset
from snn_delays.distributed import Share
from snn_delays.networks import DelaySNN
from snn_delays.nn import clamp_delays, quantise, round_delays, set_sigma
from snn_delays.training import checkpoint
from snn_delays.training import epoch as one_epoch
from snn_delays.training.finite import FiniteCheck
from snn_delays.training.optimisation import Optimisation

KINDS = [
    {},
    {"kernel_count": 2, "bias": True},
    {"granularity": "axonal", "learn_tau": True},
    {"granularity": "dendritic", "v_reset": None, "decay_input": True},
    {"delays": "fixed", "detach_reset": False},
    {"delays": "none", "readout_tau": 2.0},
    {"surrogate": "sigmoid", "readout": "max"},
    {"surrogate": "soft_sign", "readout": "mean"},
    {"surrogate": "erf", "readout": "last"},
]


class Waiting(TorchDispatchMode):
    """Notes copies between devices for which the processor waits."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = function._schema.name
        if name == "aten::_to_copy":
            places, waits = (args[0], result), not kwargs.get("non_blocking")
        elif name == "aten::copy_":
            places, waits = args[:2], not (len(args) > 2 and args[2])
        else:
            return result
        kinds = [t.device.type for t in places]
        if waits and kinds[0] != kinds[1]:
            self.copies.append((name, *kinds))
        return result


class Generator:
    """Stands in for one of a GPU, which cannot be made without."""

    def __init__(self, device="cpu"):
        self.device = torch.device(device)

    def manual_seed(self, seed):
        self.seed = seed
        return self

    def initial_seed(self):
        return self.seed


@pytest.fixture
def fake():
    with config.patch(fake_tensor_allow_meta=True):
        yield FakeTensorMode()


@pytest.fixture(autouse=True)
def _no_compiled_loop(monkeypatch):
    def refuse(kernel, *_):
        raise AssertionError(f"{kernel} got tensors of a GPU")

    for module in ("functional", "ops.fused", "ops.fourier"):
        monkeypatch.setattr(f"snn_delays.{module}.in_ranges", refuse)


@pytest.fixture
def random(monkeypatch):
    """Random numbers of a GPU, without its generator."""
    monkeypatch.setattr(augment, "Generator", Generator)
    for name in ("rand", "randn", "randint", "randperm"):
        draw = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, _=draw, generator=None, **k: _(*a, **k))


@pytest.fixture
def clips(monkeypatch):
    """The built-in task; indices are not looked at, as in the fake mode they hold no values."""
    clips = data.load("synthetic", "valid")
    monkeypatch.setattr(ClipDataset, "_check_indices", lambda *_: None)
    monkeypatch.setattr(SpikeDataset, "_total", lambda *_: 1000)
    return clips


def network(**settings):
    return DelaySNN(10, [16, 12], 3, max_delay=6, tail_steps=3, dropout=0.4, **settings)


def quantised():
    net = network()
    quantise(net, 4, 5, 2)
    return net


def large():
    """Its convolutions are by Fourier transforms, the second in blocks of time."""
    return DelaySNN(40, [64, 64], 3, max_delay=24, tail_steps=24, dropout=0.4)


def moved(net, fake, device):
    """`net` on a device (`to` cannot swap fake tensors); called within the fake mode."""
    for module in net.modules():
        for store in (module._parameters, module._buffers):
            for name, value in store.items():
                if value is None:
                    continue
                there = fake.from_tensor(value).detach().to(device)
                if store is module._parameters:
                    there = torch.nn.Parameter(there, requires_grad=value.requires_grad)
                store[name] = there
    return net


def moved_clips(clips, fake):
    there = copy.copy(clips)
    for name in (*there._tensors, "labels", "speakers"):
        setattr(there, name, fake.from_tensor(getattr(there, name)).to("cuda"))
    return there


@contextmanager
def autocast(wanted):
    """Autocast of CUDA, which `torch.autocast` leaves off where there is none."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", wanted)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        torch.clear_autocast_cache()


def backward(net, fake, share=None, dtype=torch.float32, classes=False):
    with fake:
        moved(net, fake, "meta").train()
        x = torch.empty(20, 8, net.in_features, device="meta", dtype=dtype)
        targets = torch.empty(8, 3, device="meta", dtype=dtype)
        if classes:
            targets = targets[:, 0].long()
        loss = F.cross_entropy(net.simulate(x, share=share).scores, targets)
        total = distributed.backward(loss, net, share)
        skip = FiniteCheck(net, waits=False).look(total, 0, 0)
    assert skip.device.type == total.device.type == "meta"
    for parameter in net.parameters():
        if parameter.requires_grad:
            assert parameter.grad.shape == parameter.shape
            assert parameter.grad.device.type == "meta"


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_backward_pass_makes_every_tensor_where_the_network_is(fake, settings):
    backward(network(**settings), fake)


@pytest.mark.parametrize("make", [quantised, large])
def test_so_do_those_of_other_networks(fake, make):
    backward(make(), fake)


def test_so_do_those_for_classes_and_in_float64(fake):
    backward(network(), fake, classes=True)
    backward(network().double(), fake, dtype=torch.float64)


def test_so_does_one_that_is_spread_over_processes(fake, monkeypatch):
    monkeypatch.setattr(distributed, "_all_reduce", lambda *_: None)
    backward(network(), fake, Share(16, slice(0, 8)))


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("amp", [False, True])
def test_a_forward_pass_on_a_gpu_does_not_wait_for_it(fake, settings, amp):
    net, currents = network(**settings), []
    net.readout.register_forward_hook(lambda *call: currents.append(call[-1].dtype))
    with fake, autocast(amp):
        moved(net, fake, "cuda").train()
        x = torch.empty(20, 8, net.in_features, device="cuda")
        with Waiting() as waiting:
            result = net.simulate(x)
    assert not waiting.copies
    assert (currents == [torch.bfloat16]) == (amp and "bias" not in settings)  # it is float32
    assert {t.device.type for t in (*result.spikes, result.scores)} == {"cuda"}
    assert {t.dtype for t in result.spikes} == {torch.float32}


def test_transforms_and_masks_are_not_waited_for_either(fake):
    """Convolutions in blocks and not, of lengths that are new to the device."""
    with fake:
        net = moved(large(), fake, "cuda").train()
        steps = torch.empty(44, 8, dtype=torch.bool, device="cuda")
        with Waiting() as waiting:
            result = net.simulate(torch.empty(20, 8, 40, device="cuda"), steps)
    assert not waiting.copies
    assert result.scores.device.type == "cuda"


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("settings", [{}, {"learn_tau": True}, {"delays": "none"}], ids=str)
def test_the_optimisers_of_a_gpu_do_not_wait_for_it(fake, settings, optimizer):
    net = network(**settings)
    recipe = tiny_recipe(hidden=[16, 12], optimizer=optimizer)
    with fake:
        moved(net, fake, "cuda").train()
        optimisation, check = Optimisation(net, recipe), FiniteCheck(net)
        assert optimisation.fused
        assert not check.waits
        with Waiting() as waiting:
            for batch in range(2):
                for parameter in net.parameters():
                    if parameter.requires_grad:
                        parameter.grad = torch.empty_like(parameter)
                skip = check.look(torch.empty((), device="cuda"), 0, batch)
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimisation.step(skip)
                clamp_delays(net)
            set_sigma(net, 0.7)
            optimisation.end_epoch()
        moments, _ = checkpoint.optimisation_state(optimisation)
    assert not waiting.copies
    assert {value.device.type for value in moments.values()} == {"cuda"}  # its steps too


AUGMENT = {
    "channel_shift": 2,
    "channel_jitter": 1.0,
    "time_shift_ms": 5.0,
    "time_warp": 0.1,
    "drop": 0.1,
    "cut_mix_share": 0.5,
}


@pytest.mark.usefixtures("random")
@pytest.mark.parametrize("settings", [{}, AUGMENT], ids=["plain", "augmented"])
@pytest.mark.parametrize("share", [None, Share(16, slice(4, 8))], ids=["whole", "share"])
def test_batches_are_made_on_a_gpu_without_waiting_for_it(fake, clips, settings, share):
    recipe = tiny_recipe(augment=settings)
    with fake:
        there = moved_clips(clips, fake)
        with Waiting() as waiting:
            batch = one_epoch.training_batch(there, torch.arange(16), recipe, 0, 0, share)
    assert not waiting.copies
    assert {tensor.device.type for tensor in batch} == {"cuda"}
    assert batch[0].shape == (clips.steps, 16 if share is None else 4, clips.channels)
    assert batch[2].shape == ((*batch[1].shape, len(clips.classes)) if settings else batch[1].shape)


@pytest.mark.usefixtures("random")
def test_frames_are_shifted_where_they_are(fake):
    with fake, Waiting() as waiting:
        x = torch.empty(20, 8, 10, device="cuda")
        shifted = augment.shift_frames(x, 2, 1, Generator("cuda"))
    assert not waiting.copies
    assert (shifted.device.type, shifted.shape) == ("cuda", x.shape)


@pytest.mark.parametrize("change", [copy.copy, round_delays])
def test_answers_are_found_on_a_gpu_without_waiting_for_it(fake, clips, change):
    """As `evaluate` does, whose indices must hold values."""
    net = change(DelaySNN(clips.channels, [16], len(clips.classes), max_delay=6).eval())
    with fake, torch.no_grad():
        moved(net, fake, "cuda")
        there = moved_clips(clips, fake)
        with Waiting() as waiting:
            x, labels = there.batch(torch.arange(16))
            right = (net(x).argmax(1) == labels).sum()
    assert not waiting.copies
    assert right.device.type == "cuda"
