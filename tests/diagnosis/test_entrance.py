"""What the first layer with weights receives is what unnormalised-input is judged by, in the monitor and the checks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.diagnosis.conftest import batch, digits, mlp, one_step
from wellfit.checks.batch_data import unnormalised
from wellfit.diagnosis.history import History, Sample
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.rules import RULES, lacking

RAW = 50 * digits()[0] + 127


class Scaling(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        return self.net((x - 127) / 50)


class Masked(nn.Module):
    """Text: whole numbers, and a float mask of ones."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(50, 16), nn.Linear(16, 10)

    def forward(self, words, mask):
        return self.head((self.table(words) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


class Own(nn.Module):
    """A network of one weight of its own, without a layer of torch's."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 10) / 800)

    def forward(self, x):
        return x.flatten(1) @ self.weight


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.rnn(x.squeeze(1))[0][:, -1])


def watched(model, *inputs, steps=3):
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    y = digits()[1][: len(inputs[0])]
    with Monitor(model, optimizer) as monitor:
        for _ in range(steps):
            loss = F.cross_entropy(model(*inputs), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss, targets=y)
        return monitor, [f.message for f in monitor.findings() if f.id == "unnormalised-input"]


def words():
    return torch.arange(32 * 12).reshape(32, 12) % 50, torch.ones(32, 12)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (lambda: nn.Sequential(nn.BatchNorm2d(1), mlp()), (RAW[:32],)),
        (Scaling, (RAW[:32],)),
        (Masked, words()),
        (mlp, (digits()[0][:32],)),
    ],
    ids=["a first BatchNorm", "by hand", "text with a mask", "standardised"],
)
def test_a_network_that_scales_its_input_is_not_accused(model, inputs):
    monitor, said = watched(model(), *inputs)
    assert said == []
    assert "unnormalised-input" not in monitor.unjudged
    assert abs(monitor.history.samples[0].received[0]) < 1


@pytest.mark.parametrize("model", [mlp, lambda: nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 10, 4), nn.Flatten())])
def test_raw_bytes_are_named_by_what_the_first_layer_receives(model):
    monitor, (said,) = watched(model(), RAW[:32])
    assert "the first layer receives" in said
    assert monitor.history.samples[0].received[0] > 100
    assert all(s.received is None for s in monitor.history.samples[1:])


def test_the_first_layer_may_be_recurrent():
    monitor, (_,) = watched(Recurrent(), RAW[:32])
    assert monitor.history.samples[0].received == pytest.approx(monitor.history.samples[0].input)


def test_a_network_without_such_a_layer_is_judged_by_the_batch():
    monitor, (said,) = watched(Own(), RAW[:32])
    assert "the first batch has" in said
    assert monitor.history.samples[0].received is None


def test_a_compiled_network_is_left_unjudged_as_it_may_scale_its_input_itself():
    torch.compiler.reset()
    model = nn.Sequential(nn.BatchNorm2d(1), mlp())
    monitor, said = watched(torch.compile(model, backend="eager"), RAW[:32])
    assert said == []
    assert "what the first layer receives" in monitor.unjudged["unnormalised-input"]


def test_a_history_that_knows_the_batch_alone_is_still_judged():
    def history(**figures):
        return History(losses=[2.3], samples=[Sample(0, *[torch.ones(1).numpy()] * 3, **figures)])

    rule = RULES["unnormalised-input"]
    assert rule.fires(history(input=(127.0, 50.0)))
    assert not rule.fires(history(input=(127.0, 50.0), received=(0.0, 1.0)))
    assert rule.fires(history(input=(0.0, 1.0), received=(127.0, 50.0)))
    assert "unnormalised-input" in lacking(history())


@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (0.5, 0.3), (3, 1), (5, 0.5), (0, 0.02), (0, 0.005), (0, 6)])
def test_monitor_and_checks_have_one_opinion(shift, scale):
    x = (digits()[0][:32] - digits()[0][:32].mean()) * scale + shift
    _, said = watched(mlp(), x)
    assert bool(said) == bool(unnormalised(mlp(), x))


def test_the_measure_is_taken_once_and_its_hooks_are_gone():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)
    before = sum(len(m._forward_pre_hooks) for m in model.modules())
    monitor.step(one_step(model, optimizer, *batch()))
    assert sum(len(m._forward_pre_hooks) for m in model.modules()) == before - 3
