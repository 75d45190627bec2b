"""Each rule on real tiny trainings: healthy ones stay unnamed, a planted fault is named first or second."""

import math

import pytest
import torch
import torch.nn.functional as F
from timm.optim import MADGRAD, Lamb, Lion, Muon
from torch import nn

from tests.diagnosis.conftest import Course, Functional, cnn, digits, mlp, train

SGD, AdamW = torch.optim.SGD, torch.optim.AdamW
schedules = torch.optim.lr_scheduler


def sgd(model, lr=0.1, **kwargs):
    return SGD(model.parameters(), lr, momentum=0.9, **kwargs)


def with_schedule(make_schedule):
    model = mlp()
    optimizer = sgd(model)
    return train(model, optimizer, schedule=make_schedule(optimizer))


def right_softmax():
    model = nn.Sequential(mlp(), nn.Softmax(1))
    return train(model, sgd(model), loss_of=lambda p, y: F.nll_loss(p.clamp_min(1e-9).log(), y))


def frozen_on_purpose():
    model = cnn()
    for p in model[0].parameters():
        p.requires_grad_(False)
    return train(model, SGD([p for p in model.parameters() if p.requires_grad], 0.1))


HEALTHY = {
    "mlp, SGD with momentum": lambda: (m := mlp(), train(m, sgd(m)))[1],
    "mlp, plain SGD": lambda: (m := mlp(), train(m, SGD(m.parameters(), 0.05)))[1],
    "tanh, AdamW": lambda: (m := mlp(nn.Tanh, 3), train(m, AdamW(m.parameters(), 1e-3)))[1],
    "GELU, AdamW": lambda: (m := mlp(nn.GELU), train(m, AdamW(m.parameters(), 3e-3)))[1],
    "BatchNorm, SGD with decay": lambda: (m := cnn(), train(m, sgd(m, weight_decay=5e-4)))[1],
    "BatchNorm, AdamW": lambda: (m := cnn(), train(m, AdamW(m.parameters(), 1e-3)))[1],
    # Optimizers whose steps are neither the rate times the gradient nor the rate in each entry, by design.
    "LAMB": lambda: (m := cnn(), train(m, Lamb(m.parameters(), 0.02)))[1],
    "Muon": lambda: (m := mlp(), train(m, Muon(m.parameters(), 0.02)))[1],
    "Adafactor": lambda: (m := mlp(), train(m, torch.optim.Adafactor(m.parameters(), 0.02)))[1],
    "MADGRAD": lambda: (m := mlp(), train(m, MADGRAD(m.parameters(), 0.01)))[1],
    "Lion": lambda: (m := cnn(), train(m, Lion(m.parameters(), 3e-4)))[1],
    "functional": lambda: (m := Functional(), train(m, sgd(m, 0.03)))[1],
    "cosine": lambda: with_schedule(lambda o: schedules.CosineAnnealingLR(o, 180)),
    "warm-up": lambda: with_schedule(lambda o: schedules.LambdaLR(o, lambda s: min(1.0, s / 90))),
    "steps": lambda: with_schedule(lambda o: schedules.MultiStepLR(o, [100, 150])),
    "softmax with its own loss": right_softmax,
    "frozen on purpose": frozen_on_purpose,
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_training_has_no_warning(name):
    course = HEALTHY[name]()
    assert course.history.epochs[-1].val_accuracy > 0.8  # it is healthy
    assert course.ids == []


def normal_weights(model, std):
    for p in model.parameters():
        nn.init.normal_(p, std=std) if p.ndim > 1 else nn.init.zeros_(p)
    return model


def dead(model, layer):
    nn.init.constant_(layer.bias, -20)
    return train(model, sgd(model))


def double_softmax(**kwargs):
    model = nn.Sequential(mlp(), nn.Softmax(1))
    return train(model, sgd(model), **kwargs)


def detached():
    class Detached(Functional):
        def forward(self, x):
            x = F.relu(self.second(F.relu(self.first(x)))).flatten(1).detach()
            return self.last(F.relu(self.third(x)))

    model = Detached()
    return train(model, sgd(model))


def forgotten_layer():
    model = mlp()
    return train(model, SGD([*model[1].parameters(), *model[5].parameters()], 0.1, momentum=0.9))


def shuffled_labels():
    _, y = digits()
    model = mlp(width=256)
    mixed = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]
    return train(model, AdamW(model.parameters(), 5e-3), labels=mixed, steps=450)


def noisy_labels():
    _, y = digits()
    draw = torch.Generator().manual_seed(1)
    wrong = torch.rand(len(y), generator=draw) < 0.4
    y = torch.where(wrong, torch.randint(0, 10, y.shape, generator=draw), y)
    model = mlp(width=256)
    return train(model, AdamW(model.parameters(), 5e-3), labels=y, steps=450)


def tiny():
    model = mlp(nn.Tanh, hidden=1, width=1)
    return train(model, sgd(model), steps=500)


def early_decay():
    model = mlp()
    optimizer = sgd(model, 0.02)
    return train(model, optimizer, schedule=schedules.StepLR(optimizer, 40, 0.01))


def nan_image():
    x, _ = digits()
    x = x.clone()
    x[300] = math.nan
    model = mlp()
    return train(model, sgd(model), images=x, epochs=False)


def ignored_class():
    model = mlp()
    weights = torch.ones(10)
    weights[3] = 0
    return train(model, sgd(model, 0.02), loss_of=lambda o, y: F.cross_entropy(o, y, weight=weights), steps=260)


def one_image_everywhere():
    x, _ = digits()
    model = mlp()
    return train(model, sgd(model), images=x[:1].expand_as(x))


SICK = {
    "lr-too-low: SGD at 1e-6": ("lr-too-low", lambda: (m := mlp(), train(m, sgd(m, 1e-6)))[1]),
    "lr-too-low: BatchNorm, SGD at 1e-6": ("lr-too-low", lambda: (m := cnn(), train(m, sgd(m, 1e-6)))[1]),
    "lr-too-low: AdamW at 1e-7": ("lr-too-low", lambda: (m := mlp(), train(m, AdamW(m.parameters(), 1e-7)))[1]),
    "lr-too-high: SGD at 1": ("lr-too-high", lambda: (m := mlp(), train(m, sgd(m, 1.0)))[1]),
    "lr-too-high: AdamW at 1": ("lr-too-high", lambda: (m := mlp(), train(m, AdamW(m.parameters(), 1.0)))[1]),
    "exploding: SGD at 1000": ("exploding", lambda: (m := mlp(), train(m, sgd(m, 1e3), steps=40))[1]),
    "nan: an image of NaN": ("nan", nan_image),
    "exploding: AdamW at 100": ("exploding", lambda: (m := mlp(), train(m, AdamW(m.parameters(), 100.0)))[1]),
    "gradients-accumulate: SGD": (
        "gradients-accumulate",
        lambda: (m := mlp(), train(m, sgd(m, 0.01), zero_grad=False, steps=60))[1],
    ),
    "gradients-accumulate: AdamW": (
        "gradients-accumulate",
        lambda: (m := cnn(), train(m, AdamW(m.parameters(), 1e-3), zero_grad=False, steps=60))[1],
    ),
    "double-softmax": ("double-softmax", double_softmax),
    "double-softmax without targets": ("double-softmax", lambda: double_softmax(show_targets=False)),
    "double-softmax with label smoothing": (
        "double-softmax",
        lambda: double_softmax(loss_of=lambda o, y: F.cross_entropy(o, y, label_smoothing=0.1)),
    ),
    "frozen-parameters: detach": ("frozen-parameters", detached),
    "frozen-parameters: not in the optimizer": ("frozen-parameters", forgotten_layer),
    "vanishing-gradient": ("vanishing-gradient", lambda: (m := mlp(nn.Sigmoid, 7), train(m, sgd(m)))[1]),
    "bad-initialisation: shrinking": (
        "bad-initialisation",
        lambda: (m := normal_weights(mlp(nn.ReLU, 6), 0.01), train(m, sgd(m)))[1],
    ),
    "bad-initialisation: growing": (
        "bad-initialisation",
        lambda: (m := normal_weights(mlp(nn.ReLU, 6), 1.0), train(m, sgd(m, 1e-3)))[1],
    ),
    "dead-relu: module": ("dead-relu", lambda: (m := mlp(), dead(m, m[1]))[1]),
    "dead-relu: functional": ("dead-relu", lambda: (m := Functional(), dead(m, m.second))[1]),
    "saturated": ("saturated", lambda: (m := normal_weights(mlp(nn.Tanh, 3), 1.0), train(m, sgd(m, 0.003)))[1]),
    "constant-output": ("constant-output", one_image_everywhere),
    "labels-shuffled": ("labels-shuffled", shuffled_labels),
    "overfitting": ("overfitting", noisy_labels),
    "underfitting": ("underfitting", tiny),
    "decayed-too-early": ("decayed-too-early", early_decay),
    "unnormalised-input": (
        "unnormalised-input",
        lambda: (m := mlp(), train(m, sgd(m, 1e-6), images=digits()[0] * 60 + 50, steps=40))[1],
    ),
    "class-collapsed": ("class-collapsed", ignored_class),
}


@pytest.mark.parametrize("name", SICK)
def test_a_planted_fault_is_named_first_or_second(name):
    wanted, make = SICK[name]
    course: Course = make()
    assert wanted in course.ids[:2], [str(f) for f in course.findings]
    finding = next(f for f in course.findings if f.id == wanted)
    assert finding.action
    assert finding.evidence
    assert finding.reference


def test_a_head_trained_alone_is_no_finding_where_the_rest_says_so():
    model = mlp()
    course = train(model, SGD(model[5].parameters(), 0.1), epochs=False)
    assert course.ids == ["frozen-parameters"]
    model = mlp()
    model[:5].requires_grad_(False)
    assert train(model, SGD(model[5].parameters(), 0.1), epochs=False).findings == []


def test_an_unfinished_training_is_said_to_be_improving():
    model = mlp(nn.Tanh, 3)
    course = train(model, sgd(model, 0.02), steps=90)
    assert "still-improving" in [f.id for f in course.findings]
    assert course.ids == []


def test_the_network_that_looks_at_nothing_is_no_lr_too_low():
    assert "lr-too-low" not in one_image_everywhere().ids
