"""What a monitor cannot watch is refused in one clear sentence."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.diagnosis.conftest import batch, mlp, one_step
from wellfit.diagnosis.monitor import Monitor
from wellfit.errors import UserError

SGD = torch.optim.SGD


def fresh():
    model = mlp()
    return model, SGD(model.parameters(), 0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Monitor(nn.ReLU(), fresh()[1]), "no parameters"),
        (lambda: Monitor(mlp(), fresh()[1]), "no parameter of this model"),
        (lambda: Monitor(nn.LazyLinear(3), fresh()[1]), "lazy"),
        (lambda: Monitor(fresh()[0], "sgd"), "torch optimizer"),
        (lambda: Monitor(fresh()[0], []), "torch optimizer"),
        (lambda: Monitor("resnet18", fresh()[1]), "nn.Module"),
        (lambda: Monitor(*fresh(), every=0), "at least 1"),
        (lambda: Monitor(*fresh(), classes=1), "at least 2 classes"),
        (lambda: Monitor(*fresh()).findings(), "before the first step"),
        (lambda: Monitor(*fresh()).step(1.0), "before any optimizer step"),
        (lambda: Monitor(*fresh()).end_epoch(val_accuracy=93.5), "divide percent by 100"),
    ],
)
def test_what_cannot_be_watched_is_one_clear_sentence(make, words):
    with pytest.raises(UserError, match=words) as error:
        make()
    assert "; " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_step_before_the_optimizer_stepped_is_refused_when_gradients_are_there():
    model, optimizer = fresh()
    monitor = Monitor(model, optimizer)
    loss = F.cross_entropy(model(batch()[0]), batch()[1])
    loss.backward()
    with pytest.raises(UserError, match="before any optimizer step"):
        monitor.step(loss)


@pytest.mark.parametrize(
    ("loss", "targets", "words"),
    [
        (torch.ones(3), None, "one number"),
        ("2.3", None, "a number"),
        (1.0, torch.arange(5), "shape"),
        (1.0, torch.zeros(32, 10, 2), "shape"),
        (1.0, torch.full((32,), 10), "from 0 to 9"),
        (1.0, torch.full((32,), -1), "from 0 to 9"),
        (1.0, [1, 2], "tensor"),
    ],
)
def test_a_loss_or_targets_that_cannot_be_are_one_clear_sentence(loss, targets, words):
    model, optimizer = fresh()
    monitor = Monitor(model, optimizer)
    one_step(model, optimizer, *batch())
    with pytest.raises(UserError, match=words):
        monitor.step(loss, targets=targets)
