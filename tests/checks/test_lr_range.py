"""SPEC C6: the rate at which the loss falls, spikes forgiven, and refusal where none does."""

import importlib
import math
import random
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tests.checks.conftest import patterned, small_convnet
from wellfit.checks import lr_range
from wellfit.checks.lr_range import find_lr
from wellfit.errors import UserError
from wellfit.findings import GateFailed
from wellfit.training.optimizers import build_optimizer
from wellfit.training.regularize import build_criterion

CE = build_criterion("cross-entropy")


def batches(i):
    return patterned(32, seed=1000 + i)


def momentum(module, lr):
    return build_optimizer("momentum", module, lr=lr)


def adam(module, lr):
    return build_optimizer("adam", module, lr=lr)


@pytest.mark.parametrize(("optimizer", "good"), [(momentum, (1e-1, 1e-2)), (adam, (1e-2, 1e-3))])
def test_a_rate_that_trains_is_found(optimizer, good):
    result = lr_range(small_convnet(classes=4), CE, batches, optimizer, iterations=60)
    assert result.passed
    assert result.value in good
    assert result.finding is None
    assert f"{result.value:g}" in result.message


def test_the_same_seed_gives_the_same_answer():
    first, second = (
        lr_range(small_convnet(classes=4, dropout=0.5), CE, batches, momentum, iterations=20) for _ in range(2)
    )
    assert (first.value, first.message) == (second.value, second.message)


class Bowl(nn.Module):
    """Scores that make the cross-entropy of class 0 a function of one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x):
        return torch.cat([self.weight.expand(len(x), 1), torch.zeros(len(x), 1)], 1)


def test_an_early_spike_is_forgiven():
    state = {}

    def spiky(scores, targets):
        # Steps 2 to 6 of the fastest rate cost ten times as much; it still ends lowest.
        weight = float(scores[0, 0].detach())
        state["spikes"] = state.get("spikes", 0) + (weight > 0.05)
        loss = nn.functional.cross_entropy(scores, targets)
        return loss * 10 if 0.05 < weight < 0.3 else loss

    pair = (torch.zeros(4, 1), torch.zeros(4, dtype=torch.long))
    result = lr_range(
        Bowl(),
        spiky,
        lambda i: pair,
        lambda m, lr: torch.optim.SGD(m.parameters(), lr=lr),
        candidates=(1e-1, 1e-3, 1e-4),
    )
    assert state["spikes"] > 0
    assert result.value == 1e-1
    assert "edge" in result.message


def test_a_net_that_cannot_learn_has_no_good_rate():
    source = torch.Generator().manual_seed(0)

    def nonsense(i):
        return torch.randn(32, 3, 16, 16, generator=source), torch.randint(4, (32,), generator=source)

    result = lr_range(small_convnet(classes=4), CE, nonsense, adam, iterations=40)
    assert not result.passed
    assert result.stops
    assert result.value is None
    assert "at no rate of 1e-05 to 0.1" in result.finding.message
    assert len(result.finding.evidence["candidates"]) == 5


def test_divergence_at_every_rate_is_said():
    result = lr_range(small_convnet(classes=4), lambda s, t: s.sum() * math.inf, batches, momentum, iterations=12)
    assert not result.passed
    assert "5 of 5 diverged" in result.finding.message


def test_high_rates_that_explode_leave_the_others_standing():
    result = lr_range(
        small_convnet(classes=4), CE, batches, momentum, candidates=(1e12, 1e6, 1e-2, 1e-5), iterations=40
    )
    assert result.passed
    assert result.value == 1e-2


def test_a_deadline_ends_it_without_a_refusal():
    result = lr_range(small_convnet(classes=4), CE, batches, momentum, deadline=time.monotonic() - 1)
    assert not result.passed
    assert not result.finished
    assert not result.stops
    assert "ran out of time" in result.message


def test_what_was_seen_before_the_deadline_decides(monkeypatch):
    ticks = iter(range(10_000))
    clock = SimpleNamespace(monotonic=lambda: float(next(ticks)))
    monkeypatch.setattr(importlib.import_module("wellfit.checks.lr_range"), "time", clock)
    result = lr_range(small_convnet(classes=4), CE, batches, momentum, iterations=100, deadline=40.0)
    assert result.passed
    assert not result.finished
    assert result.value in (1e-1, 1e-2)


@pytest.mark.parametrize("arguments", [{"candidates": ()}, {"candidates": (0.1, -1.0)}, {"iterations": 3}])
def test_nonsense_is_refused(arguments):
    with pytest.raises(UserError, match="are usual"):
        lr_range(small_convnet(classes=4), CE, batches, momentum, **arguments)


def test_a_loss_that_stands_still_does_not_fall_because_batches_differ():
    def uneven(i):
        images, targets = patterned(16, seed=100 + i)
        return images * (3.0 if i < 3 else 0.5), targets  # the first batches cost more

    net = small_convnet(classes=4)
    with torch.no_grad():
        net[-1].weight.mul_(60)

    def still(module, lr):
        return torch.optim.SGD(module.parameters(), lr=0.0)

    assert not lr_range(net, CE, uneven, still, iterations=40).passed


def adam(module, lr):
    return build_optimizer("adam", module, lr=lr)


def test_any_rate_ends_early_and_with_the_same_verdict():
    calls = []

    def counted(i):
        calls.append(i)
        return patterned(16, seed=100 + i)

    net = small_convnet(classes=4)
    whole = lr_range(net, CE, counted, adam, iterations=80)
    steps_of_whole = len(calls)
    calls.clear()
    soon = lr_range(net, CE, counted, adam, iterations=80, any_rate=True)
    assert whole.passed
    assert soon.passed
    assert len(calls) < steps_of_whole


def bytes_of(module, optimizer):
    """Everything that a training goes on from: weights, buffers, optimizer state, the generators, the mode."""
    state = optimizer.state_dict()
    tensors = [*module.state_dict().values(), *(v for s in state["state"].values() for v in s.values())]
    tensors = [t if isinstance(t, torch.Tensor) else torch.tensor(t) for t in tensors]
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    generators = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    flat = [t.detach().contiguous().numpy().tobytes() for t in (*tensors, *gradients, generators[0])]
    return (
        flat,
        generators[1:],
        state["param_groups"],
        module.training,
        [len(m._forward_hooks) for m in module.modules()],
    )


@pytest.mark.parametrize("rates", [(1e-1, 1e-2, 1e-3), (1e4, 1e6)], ids=["found", "none works"])
def test_it_changes_not_a_byte_of_what_follows(rates):
    """A training that was interrupted to look for a rate goes on as one that was not."""

    def train(look):
        torch.manual_seed(3)
        np.random.seed(4)
        random.seed(5)
        net = small_convnet(classes=4, dropout=0.5)
        optimizer = adam(net, 1e-3)
        for step in range(4):
            if step == 2 and look:
                before = bytes_of(net, optimizer)
                try:
                    found = find_lr(net, CE, batches, momentum, candidates=rates, iterations=12)
                    assert found.lr in rates
                except GateFailed:
                    assert rates == (1e4, 1e6)
                assert bytes_of(net, optimizer) == before
            images, targets = batches(step)
            CE(net(images), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        return bytes_of(net, optimizer)

    assert train(look=True) == train(look=False)


def test_a_rate_comes_with_its_reason_and_never_as_none():
    found = find_lr(small_convnet(classes=4), CE, batches, momentum, iterations=60)
    assert found.lr in (1e-1, 1e-2)
    assert f"at lr {found.lr:g} the loss falls from" in found.reason
    with pytest.raises(GateFailed, match=r"at no rate of 10000 to 1e\+06 does the loss fall clearly"):
        find_lr(small_convnet(classes=4), CE, batches, momentum, candidates=(1e4, 1e6), iterations=12)


@pytest.mark.parametrize(("rate", "within"), [(1e-4, 100), (5e-5, 200)])
def test_a_loss_that_has_begun_to_fall_is_given_as_many_iterations_again(rate, within):
    """After 50 steps it is beyond doubt a little lower, and not by the share that is wanted."""
    module, pair = small_convnet(classes=4), patterned(32)
    result = lr_range(module, CE, lambda i: pair, adam, candidates=(rate,), iterations=50)
    assert result.passed, result.message
    assert 50 < int(result.message.split(" within ")[1].split()[0]) <= within
