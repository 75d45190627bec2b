"""What a monitor cannot watch is refused in one clear sentence."""

import copy
import pickle

import numpy as np
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
        (lambda: Monitor(nn.Linear, fresh()[1]), "got the class Linear"),
        (lambda: Monitor([mlp(), mlp()], fresh()[1]), "one network, got 2"),
        (lambda: Monitor(fresh()[0].state_dict(), fresh()[1]), "got OrderedDict"),
        (lambda: Monitor(fresh()[0], SGD), "got the class SGD"),
        (lambda: Monitor(fresh()[0], None), "got NoneType"),
        (lambda: Monitor(fresh()[0], [fresh()[1], 3]), "got int 3"),
        (lambda: Monitor(fresh()[0], {"body": fresh()[1]}), r"pass its values\(\)"),
        (lambda: Monitor(fresh()[0], iter(())), "torch optimizer"),
        (lambda: pickle.dumps(Monitor(*fresh())), r"cannot be pickled; keep monitor.state_dict\(\)"),
        (lambda: Monitor(fresh()[0], torch.optim.lr_scheduler.StepLR(fresh()[1], 3)), "no parameter of this model"),
        (lambda: Monitor(*fresh(), every=2.5), "whole number, at least 1, got 2.5"),
        (lambda: Monitor(*fresh(), every=True), "whole number"),
        (lambda: Monitor(*fresh(), entries=0), "entries is a whole number"),
        (lambda: Monitor(*fresh(), classes="ten"), "at least 2 classes, got 'ten'"),
        (lambda: Monitor(*fresh()).end_epoch(val_accuracy=float("nan")), "got nan; leave it out"),
        (lambda: Monitor(*fresh()).end_epoch(val_accuracy=-0.1), "between 0 and 1, got -0.1"),
        (lambda: Monitor(*fresh()).end_epoch(train_loss="0.3"), "one number or None, got str '0.3'"),
        (lambda: Monitor(*fresh()).end_epoch(val_loss=torch.ones(3)), r"of shape \(3,\)"),
        (lambda: Monitor(*fresh()).end_epoch(0.3, [0.9]), "train_accuracy is one number or None, got list"),
        (lambda: Monitor(*fresh()).findings(), "before the first step"),
        (lambda: Monitor(*fresh()).report("doctor.html"), "before the first step"),
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
        (None, None, "a number"),
        (True, None, "a number"),
        (torch.tensor(1 + 1j), None, "real number"),
        (1.0, torch.arange(5), "shape"),
        (1.0, torch.zeros(32, 10, 2), "shape"),
        (1.0, [1, 2], "shape"),
        (1.0, "labels", "a list of class numbers, got str"),
        (1.0, ["one", "two"], "a list of class numbers, got list"),
        (1.0, {"y": 1}, "got dict"),
    ],
)
def test_a_loss_or_targets_that_cannot_be_are_one_clear_sentence(loss, targets, words):
    model, optimizer = fresh()
    monitor = Monitor(model, optimizer)
    one_step(model, optimizer, *batch())
    with pytest.raises(UserError, match=words):
        monitor.step(loss, targets=targets)


def test_figures_of_an_epoch_may_be_any_kind_of_number():
    monitor = Monitor(*fresh())
    monitor.end_epoch(torch.tensor(0.5), np.float32(0.25), val_loss=1, val_accuracy=torch.tensor([1.0]))
    epoch = monitor.history.epochs[0]
    assert (epoch.train_loss, epoch.train_accuracy, epoch.val_loss, epoch.val_accuracy) == (0.5, 0.25, 1.0, 1.0)
    monitor.end_epoch(val_loss=float("inf"))  # a loss may explode
    assert monitor.history.epochs[1].val_loss == float("inf")


def test_a_refused_call_leaves_no_trace():
    model, optimizer = fresh()
    monitor = Monitor(model, optimizer)
    monitor.step(one_step(model, optimizer, *batch()))
    for call in (lambda: monitor.end_epoch(val_accuracy=93.0), lambda: monitor.step("x")):
        with pytest.raises(UserError):
            call()
    assert not monitor.history.epochs
    assert len(monitor.history.losses) == 1
    one_step(model, optimizer, *batch())
    with pytest.raises(UserError):
        monitor.step(1.0, targets=torch.arange(5))
    assert len(monitor.history.losses) == 1
    monitor.step(1.0, targets=batch()[1])
    assert len(monitor.history.losses) == 2


@pytest.mark.parametrize("given", [lambda o: (each for each in o), lambda o: dict(enumerate(o)).values(), set])
def test_optimizers_come_in_any_iterable(given):
    model = mlp()
    optimizers = [SGD([p], 0.1) for p in model.parameters()]
    monitor = Monitor(model, given(optimizers))
    loss = F.cross_entropy(model(batch()[0]), batch()[1])
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    monitor.step(loss)
    assert (monitor.history.samples[0].update_norm > 0).all()


def test_a_copy_of_what_holds_a_monitor_holds_the_same_one():
    model, optimizer = fresh()
    holder = nn.ModuleDict({"net": model})
    holder.monitor = Monitor(model, optimizer)
    assert copy.deepcopy(holder).monitor is holder.monitor
