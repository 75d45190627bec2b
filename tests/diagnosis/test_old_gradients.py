"""An old gradient is one that the next step is made of, not one that merely was there for a while."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.diagnosis.conftest import batch, mlp
from wellfit.diagnosis.monitor import Monitor


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_generator_s_pass_through_the_discriminator_is_no_fault_of_its_zero_grad(forgotten):
    """The order of calls of DCGAN (Radford et al. 2016) as PyTorch's tutorial has it."""
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    make = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))
    of_judge, of_make = (torch.optim.Adam(net.parameters(), 1e-3) for net in (judge, make))
    monitor = Monitor(judge, of_judge, every=1)
    for _ in range(6):
        if not forgotten:
            of_judge.zero_grad()
        real = F.softplus(-judge(torch.randn(16, 8))).mean()
        real.backward()
        fake = make(torch.randn(16, 4))
        false = F.softplus(judge(fake.detach())).mean()
        false.backward()
        of_judge.step()
        monitor.step(real + false)
        of_make.zero_grad()
        F.softplus(-judge(fake)).mean().backward()
        of_make.step()
    assert [s.carried for s in monitor.history.samples] == [None] + [forgotten] * 5


@pytest.mark.parametrize("set_to_none", [False, True])
@pytest.mark.parametrize("forgotten", [False, True])
def test_gradients_that_are_added_up_over_several_passes(forgotten, set_to_none):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    for _ in range(5):
        for part in range(4):
            loss = F.cross_entropy(model(x[part::4]), y[part::4])
            loss.backward()
        optimizer.step()
        monitor.step(loss)
        if not forgotten:
            optimizer.zero_grad(set_to_none=set_to_none)
    assert [s.carried for s in monitor.history.samples] == [None] + [forgotten] * 4


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_closure_makes_its_gradient_within_the_step(forgotten):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()

    def closure():
        if not forgotten:
            optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    for _ in range(4):
        monitor.step(optimizer.step(closure))
    assert [s.carried for s in monitor.history.samples] == [None] + [forgotten] * 3


def test_gradients_that_are_put_in_place_of_the_old_ones():
    """As where the gradients of several tasks are combined by hand."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer, every=1)
    parameters = list(model.parameters())
    for _ in range(4):
        loss = F.cross_entropy(model(batch()[0]), batch()[1])
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = gradient
        optimizer.step()
        monitor.step(loss)
    assert not any(s.carried for s in monitor.history.samples)


def test_closing_leaves_no_hook_on_a_parameter():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Monitor(model, optimizer, every=1) as monitor:
        loss = F.cross_entropy(model(batch()[0]), batch()[1])
        loss.backward()
        optimizer.step()
        monitor.step(loss)
        assert any(p._backward_hooks for p in model.parameters())
    assert not any(p._backward_hooks for p in model.parameters())
