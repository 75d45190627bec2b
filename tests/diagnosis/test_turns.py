"""The steps that are watched closely do not fall in step with the loop, and what moves between them is seen."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.diagnosis.conftest import digits, mlp
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.turns import FIRST, is_watched


def watched(every, until):
    return np.array([step for step in range(until) if is_watched(step, every)])


@pytest.mark.parametrize("every", [2, 3, 7, 10, 20, 50])
def test_each_stretch_has_one_place_of_its_own(every):
    steps = watched(every, 1000 * every)
    assert steps[:FIRST].tolist() == list(range(FIRST))
    later = steps[steps >= FIRST]
    stretches, places = np.divmod(later + every // 2, every)
    whole = stretches * every - every // 2 >= FIRST
    assert stretches[whole].tolist() == list(range(stretches[whole][0], stretches[whole][0] + whole.sum()))
    shares = np.bincount(places[whole], minlength=every) / whole.sum()
    assert shares.min() > 0.4 / every
    assert shares.max() < 2 / every


def test_every_step_is_watched_where_that_is_asked_for():
    assert watched(1, 50).tolist() == list(range(50))


@pytest.mark.parametrize("epoch", [5, 10, 20, 30])
def test_no_batch_of_a_fixed_order_is_always_or_never_watched(epoch):
    seen = np.bincount(watched(10, 6000) % epoch, minlength=epoch)
    assert seen.min() > 0.5 * seen.mean()
    assert seen.max() < 1.6 * seen.mean()


def test_class_counts_of_a_fixed_order_are_those_of_the_data():
    x, y = digits()[0][:640], digits()[1][:640].sort().values
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with Monitor(model, optimizer) as monitor:
        for step in range(300):
            part = slice(64 * (step % 10), 64 * (step % 10) + 64)
            loss = F.cross_entropy(model(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss, targets=y[part])
    # With a fixed distance of ten, all but the first batches of an epoch would be missing.
    assert (monitor.history.class_counts > 0).all()


class Branching(nn.Module):
    """A branch beside the network, used where `open` says so."""

    def __init__(self):
        super().__init__()
        self.net, self.branch = mlp(), nn.Linear(64, 10)
        self.open = False

    def forward(self, x):
        return self.net(x) + (self.branch(x.flatten(1)) if self.open else 0)


def trained(used, *, steps=80, resumed_at=None):
    model = Branching()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    monitor = Monitor(model, optimizer)
    x, y = digits()
    for step in range(steps):
        if step == resumed_at:
            state = monitor.state_dict()
            monitor.close()
            monitor = Monitor(model, optimizer)
            monitor.load_state_dict(state)
        model.open = used(step)
        part = slice(32 * (step % 40), 32 * (step % 40) + 32)
        loss = F.cross_entropy(model(x[part]), y[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(loss, targets=y[part])
    monitor.close()
    return monitor


@pytest.mark.parametrize("resumed_at", [None, 33, 34, 35, 60])
def test_a_branch_that_is_used_between_watched_steps_alone_has_moved(resumed_at):
    def used(step):
        return step == 30 + next(i for i in range(20) if not is_watched(30 + i, 10))

    monitor = trained(used, resumed_at=resumed_at)
    names = [p.name for p in monitor.history.parameters]
    assert max(s.update_norm[names.index("branch.weight")] for s in monitor.history.samples) == 0
    assert "frozen-parameters" not in [f.id for f in monitor.findings()]
    assert monitor.history.samples[-1].moved.all()
    assert not monitor.history.samples[0].moved[names.index("branch.weight")]


@pytest.mark.parametrize("resumed_at", [None, 35])
def test_a_branch_that_is_never_used_has_not(resumed_at):
    monitor = trained(lambda step: False, resumed_at=resumed_at)
    (found,) = [f for f in monitor.findings() if f.id == "frozen-parameters"]
    assert found.evidence["parameters"] == ["branch.weight", "branch.bias"]
