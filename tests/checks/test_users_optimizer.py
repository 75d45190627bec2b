"""A user's optimizer made anew on a copy takes the steps that the first one takes on the model."""

import copy
import itertools

import pytest
import timm
import torch
from torch import nn

from tests.checks.conftest import fingerprint, patterned, small_convnet
from wellfit.checks.users_optimizer import users_optimizer
from wellfit.errors import UserError

IMAGES, TARGETS = patterned(16)


def groups(model):
    return [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "lr": 3e-3},
    ]


MAKERS = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, nesterov=True),
    "groups": lambda m: torch.optim.AdamW(groups(m), 1e-2, betas=(0.8, 0.9)),
    "RMSprop": lambda m: torch.optim.RMSprop(m.parameters(), 1e-3, centered=True),
    "Adagrad": lambda m: torch.optim.Adagrad(m.parameters(), 1e-2, initial_accumulator_value=0.1),
    "Adafactor": lambda m: torch.optim.Adafactor(m.parameters(), 1e-2),
    "Rprop": lambda m: torch.optim.Rprop(m.parameters(), 1e-2),
    "Lamb": lambda m: timm.optim.create_optimizer_v2(m, "lamb", lr=1e-2, weight_decay=0.1),
    "Lion": lambda m: timm.optim.create_optimizer_v2(m, "lion", lr=1e-3),
}


def three_steps(model, optimizer):
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(IMAGES), TARGETS).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_steps_on_a_copy(name):
    model = small_convnet(classes=4)
    optimizer, trained = MAKERS[name](model), copy.deepcopy(model)
    seen = users_optimizer(optimizer, model)
    before = fingerprint(model, optimizer)
    again = three_steps(trained, seen.build(trained, seen.lr))
    assert fingerprint(model, optimizer) == before
    assert torch.equal(again, three_steps(model, optimizer))


def test_state_and_patched_steps_stay_behind():
    model = small_convnet(classes=4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    torch.optim.lr_scheduler.StepLR(optimizer, 5)  # wraps optimizer.step
    three_steps(model, optimizer)
    copied = copy.deepcopy(model)
    made = users_optimizer(optimizer, model).build(copied, 0.1)
    before = fingerprint(model, optimizer)
    assert not made.state
    three_steps(copied, made)
    assert fingerprint(model, optimizer) == before


def test_rates_are_scaled_group_by_group():
    model = small_convnet(classes=4)
    seen = users_optimizer(MAKERS["groups"](model), model)
    assert seen.lr == 1e-2
    made = seen.build(copy.deepcopy(model), 1e-4)
    assert [g["lr"] for g in made.param_groups] == pytest.approx([1e-4, 3e-5])
    assert [g["weight_decay"] for g in made.param_groups] == [0.1, 0.01]
    assert [len(g["params"]) for g in made.param_groups] == [3, 4]


def test_a_warm_up_that_begins_at_zero_does_not_hide_the_rate():
    model = small_convnet(classes=4)
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 100)
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert users_optimizer(optimizer, model).lr == 0.2


def test_candidates_hold_the_users_own_rate_and_the_usual_ones():
    model = small_convnet(classes=4)
    rates = users_optimizer(torch.optim.SGD(model.parameters(), 7.0), model).candidates()
    assert {7.0, 0.01, 0.001} <= set(rates)
    assert rates == sorted(rates, reverse=True)
    assert all(a / b >= 2 for a, b in itertools.pairwise(rates))


@pytest.mark.parametrize("given", ["nesterov", None, lambda params: torch.optim.Adam(params, 1e-3)])
def test_names_and_functions(given):
    model = small_convnet(classes=4)
    seen = users_optimizer(given, model)
    assert seen.missing == []
    made = seen.build(copy.deepcopy(model), 0.5)
    assert made.param_groups[0]["lr"] == 0.5


def test_what_it_lacks_and_what_it_holds_besides():
    model = small_convnet(classes=4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model[-1] = nn.Linear(64, 4)
    seen = users_optimizer(optimizer, model)
    assert (seen.missing, seen.strange) == (["8.weight", "8.bias"], 2)
    centres = nn.Parameter(torch.zeros(4, 64))
    optimizer = torch.optim.SGD([*model.parameters(), centres], 0.1)
    seen = users_optimizer(optimizer, model, [centres])
    assert (seen.missing, seen.strange) == ([], 0)


class Bound(torch.optim.SGD):
    """Cannot be made from groups and defaults."""

    def __init__(self, params, secret):
        assert secret == 42
        super().__init__(params, lr=0.1)


def test_a_class_that_cannot_be_made_again_is_refused():
    model = small_convnet(classes=4)
    with pytest.raises(UserError, match="Bound cannot be made"):
        users_optimizer(Bound(model.parameters(), 42), model)


def test_only_a_step_that_asks_for_a_closure_needs_one():
    model = small_convnet(classes=4)
    assert users_optimizer(torch.optim.LBFGS(model.parameters()), model).needs_closure
    assert not users_optimizer(torch.optim.Adam(model.parameters()), model).needs_closure
