"""A training with a monitor is the training without it, bit for bit; so is one that a monitor was taken from midway."""

import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.diagnosis.conftest import Functional, cnn, digits, mlp
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.turns import is_watched

STEPS = 24


def dropping():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.2),
        nn.Flatten(),
        nn.Linear(288, 32),
        nn.BatchNorm1d(32, momentum=None),
        nn.RReLU(),
        nn.Dropout(0.5),
        nn.Linear(32, 10),
    )


NETS = {"mlp": mlp, "cnn": cnn, "functional": Functional, "dropout and batchnorm": dropping}
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "SGD foreach": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, foreach=True),
    "Adam fused": lambda p: torch.optim.Adam(p, 1e-3, fused=True),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, 1e-3, foreach=True),
    "AdamW one by one": lambda p: torch.optim.AdamW(p, 1e-3, foreach=False, amsgrad=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 1e-3),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 1e-2),
    "LBFGS": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=3, line_search_fn="strong_wolfe"),
}


def trained(make, optimizer_of, *, watched, until=STEPS, compiled=False, validate=True):
    """Everything that a training leaves behind, as bytes: weights, buffers, optimizer state, losses, random state."""
    torch.manual_seed(1)
    model = make()
    called = torch.compile(model, backend="eager") if compiled else model
    optimizer = optimizer_of(model.parameters())
    monitor = Monitor(called, optimizer, every=3) if watched else None
    x, y = digits()
    losses = []
    for i in range(STEPS):
        part = slice(32 * i, 32 * i + 32)

        def closure(part=part):
            optimizer.zero_grad()
            loss = F.cross_entropy(called(x[part]), y[part])
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        losses.append(float(loss.detach()))
        if monitor is not None and i < until:
            monitor.step(loss, targets=y[part])
        if validate and i % 8 == 7:
            model.eval()
            with torch.no_grad():
                accuracy = float((called(x[1200:1300]).argmax(1) == y[1200:1300]).float().mean())
            model.train()
            if monitor is not None and i < until:
                monitor.end_epoch(val_accuracy=accuracy)
                monitor.findings()
        if monitor is not None and i + 1 == until:
            assert monitor.history.samples
            monitor.close()
    left = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), losses, torch.get_rng_state()], left)
    return left.getvalue()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", NETS)
def test_watching_changes_no_bit(net, optimizer):
    plain = trained(NETS[net], OPTIMIZERS[optimizer], watched=False)
    assert trained(NETS[net], OPTIMIZERS[optimizer], watched=True) == plain


@pytest.mark.parametrize("net", ["cnn", "dropout and batchnorm"])
def test_taking_the_monitor_away_midway_changes_no_bit(net):
    plain = trained(NETS[net], OPTIMIZERS["AdamW foreach"], watched=False)
    assert trained(NETS[net], OPTIMIZERS["AdamW foreach"], watched=True, until=10) == plain


@pytest.mark.parametrize("net", ["cnn", "dropout and batchnorm"])
def test_watching_a_compiled_network_changes_no_bit(net):
    torch.compiler.reset()
    plain = trained(NETS[net], OPTIMIZERS["SGD"], watched=False, compiled=True)
    torch.compiler.reset()
    assert trained(NETS[net], OPTIMIZERS["SGD"], watched=True, compiled=True) == plain


def test_a_report_of_nothing_but_bytes_can_tell_trainings_apart():
    plain = trained(mlp, OPTIMIZERS["SGD"], watched=False)
    assert plain == trained(mlp, OPTIMIZERS["SGD"], watched=False)
    assert plain != trained(mlp, lambda p: torch.optim.SGD(p, 0.0501, momentum=0.9), watched=False)


class Waits(TorchDispatchMode):
    """Counts what would wait for an accelerator: a number read from a tensor."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "_local_scalar_dense" in str(function) or "nonzero" in str(function) or "is_nonzero" in str(function):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


# Not the third net: BatchNorm's plain average reads a counter itself.
@pytest.mark.parametrize("net", ["mlp", "cnn", "functional"])
def test_a_step_that_is_not_watched_and_a_validation_wait_for_nothing(net):
    torch.manual_seed(0)
    model = NETS[net]()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, foreach=False)
    monitor = Monitor(model, optimizer)
    x, y = digits()

    def step():
        loss = F.cross_entropy(model(x[:32]), y[:32])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(2.3)  # a loss on an accelerator would be kept there, which a processor cannot show

    following = next(s for s in range(5, 20) if is_watched(s, 10))
    for _ in range(4):
        step()
    with Waits() as plain:
        for _ in range(following - 4):
            step()
        assert not monitor.watched
        model.eval()
        with torch.no_grad():
            for part in x[1200:1500].split(50):
                model(part)
        model.train()
    assert plain.found == []
    with Waits() as watched:
        step()
    assert monitor.watched
    assert watched.found
