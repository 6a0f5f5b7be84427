"""What a GPU would be asked to do, on devices that hold no values: nobody may ask them for one."""

import pytest
import torch
from tiny import tiny_recipe
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from snn_delays.data.binning import scatter_events, select_events
from snn_delays.networks import DelaySNN
from snn_delays.nn import clamp_delays
from snn_delays.ops.fourier import transforms
from snn_delays.training.finite import FiniteCheck
from snn_delays.training.optimisation import Optimisation


def network(**settings):
    return DelaySNN(10, [16, 16], 3, max_delay=6, tail_steps=3, dropout=0.4, **settings)


@pytest.mark.parametrize("settings", [{}, {"learn_tau": True}, {"readout_tau": 2.0}], ids=str)
def test_a_step_of_training_asks_no_device_for_a_value(settings):
    net = network(**settings).to("meta").train()
    optimisation = Optimisation(net, tiny_recipe(hidden=[16, 16]))
    x, targets = torch.empty(20, 24, 10, device="meta"), torch.empty(24, 3, device="meta")
    result = net.simulate(x)
    loss = F.cross_entropy(result.scores, targets)
    loss.backward()
    skip = FiniteCheck(net, waits=False).look(loss, 0, 0)
    optimisation.step()
    clamp_delays(net)
    assert skip.device.type == result.scores.device.type == "meta"
    assert all(p.grad.shape == p.shape for p in net.parameters())


def test_binning_asks_no_device_for_a_value():
    columns = [torch.empty(50, dtype=d, device="meta") for d in (torch.int32, torch.int16)]
    offsets, clips = (torch.empty(n, dtype=torch.int64, device="meta") for n in (9, 4))
    events = select_events(*columns, offsets, clips, 30)
    assert scatter_events(events, 4, 10_000, 20, 10, 1).shape == (20, 4, 10)


def test_a_trace_leaves_nothing_behind(monkeypatch):
    """Without the compiled loops, as on a GPU: matrices of a trace hold no values."""
    for module in ("ops.convolution", "functional", "ops.fused"):
        monkeypatch.setattr(f"snn_delays.{module}.runs_compiled", lambda x: False)
    net, x = DelaySNN(40, [64], 3, max_delay=30).eval(), torch.rand(60, 16, 40)
    transforms.cache_clear()
    with torch.no_grad():
        expected = net(x)
        assert transforms.cache_info().currsize > 0
        transforms.cache_clear()
        program = torch.export.export(net, (x,)).module()
        assert torch.equal(net(x), expected)
        torch.export.export(net, (x,))
        torch.testing.assert_close(program(x), expected)


def test_a_network_on_a_gpu_makes_every_tensor_there():
    """A fake GPU, which refuses tensors of two devices in one operation as a real one does."""
    x = torch.poisson(torch.full((20, 8, 10), 0.3))
    with FakeTensorMode() as fake:
        net = network().train()
        for module in net.modules():  # `to` cannot swap fake tensors
            for store in (module._parameters, module._buffers):
                moved = {k: v.detach().to("cuda") for k, v in store.items() if v is not None}
                store.update({k: torch.nn.Parameter(v) if store is module._parameters else v
                              for k, v in moved.items()})  # fmt: skip
        result = net.simulate(fake.from_tensor(x).to("cuda"))
        placed = {t.device.type for t in (result.scores, result.potentials, *result.spikes)}
    assert placed == {"cuda"}
    assert result.scores.shape == (8, 3)
