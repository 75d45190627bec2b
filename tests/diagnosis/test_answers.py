"""Which of the tables that a network returns holds its answers, whether they are classes, and which labels count."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.diagnosis.conftest import batch, digits, mlp, one_step
from wellfit.diagnosis.monitor import Monitor
from wellfit.errors import UserError

BY_OUTPUTS = ("double-softmax", "constant-output", "class-collapsed", "imbalance-ignored")


class Two(nn.Module):
    """Returns features of 24 columns and scores of 10, in one order or the other."""

    def __init__(self, scores_at):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU()), nn.Linear(24, 10)
        self.scores_at = scores_at

    def forward(self, x):
        features = self.body(x)
        return (features, self.head(features))[:: 1 if self.scores_at else -1]


def trained(model, loss_of, *, steps=40, labels=None, targets=True, lr=0.1, every=1, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr)
    x, y = digits()
    y = y if labels is None else labels
    with Monitor(model, optimizer, every=every, **options) as monitor:
        for step in range(steps):
            part = slice(32 * (step % 40), 32 * (step % 40) + 32)
            loss = loss_of(model(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss, targets=y[part] if targets else None)
    return monitor


def widths(monitor):
    return {s.output.width for s in monitor.history.samples if s.output is not None}


@pytest.mark.parametrize("scores_at", [0, 1])
def test_of_several_tables_the_one_whose_cross_entropy_is_the_loss_is_read(scores_at):
    monitor = trained(Two(scores_at), lambda out, y: F.cross_entropy(out[scores_at], y))
    assert widths(monitor) == {10}
    assert monitor.history.classes == 10
    assert len([s for s in monitor.history.samples if s.output]) == 40
    assert f"number {scores_at + 1} is read as its answers: its cross-entropy is the loss" in str(monitor.history.notes)
    assert f"number {scores_at + 1} is read" in repr(monitor)


@pytest.mark.parametrize("scores_at", [0, 1])
def test_a_second_softmax_is_seen_in_either_place(scores_at):
    monitor = trained(Two(scores_at), lambda out, y: F.cross_entropy(out[scores_at].softmax(1), y), lr=1.0)
    assert next(f.id for f in monitor.findings()) == "double-softmax"


@pytest.mark.parametrize("scores_at", [0, 1])
def test_where_the_loss_is_another_the_table_that_is_right_is_read(scores_at):
    weight = torch.linspace(0.2, 3, 10)
    monitor = trained(Two(scores_at), lambda out, y: F.cross_entropy(out[scores_at], y, weight=weight), lr=0.5)
    assert widths(monitor) == {10}
    assert "it is right on" in str(monitor.history.notes)


@pytest.mark.parametrize("scores_at", [0, 1])
def test_without_targets_nothing_tells_and_classes_are_asked_for(scores_at):
    monitor = trained(Two(scores_at), lambda out, y: F.cross_entropy(out[scores_at], y), targets=False)
    assert widths(monitor) == set()
    assert monitor.history.classes is None
    assert all(
        "several tables" in monitor.unjudged[name] and "classes=" in monitor.unjudged[name] for name in BY_OUTPUTS
    )
    said = trained(Two(scores_at), lambda out, y: F.cross_entropy(out[scores_at], y), targets=False, classes=10)
    assert widths(said) == {10}


def test_one_score_beside_a_table_is_no_rival():
    class Valued(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.value = mlp(), nn.Sequential(nn.Flatten(), nn.Linear(64, 1))

        def forward(self, x):
            return self.value(x), self.net(x)

    monitor = trained(Valued(), lambda out, y: F.cross_entropy(out[1], y) + out[0].square().mean())
    assert widths(monitor) == {10}


def regression(columns):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, columns))


def test_columns_of_a_regression_without_targets_are_not_taken_for_classes():
    monitor = trained(regression(3), lambda out, y: (out - y[:, None] / 9).square().mean(), targets=False)
    assert monitor.history.classes is None
    assert widths(monitor) == set()
    assert all("whether the 3 outputs of an image are scores of classes" in monitor.unjudged[n] for n in BY_OUTPUTS)
    assert "number of classes" in monitor.unjudged["labels-shuffled"]


@pytest.mark.parametrize(
    ("model", "loss_of", "options"),
    [
        (mlp, F.cross_entropy, {}),
        (mlp, F.cross_entropy, {"targets": False, "classes": 10}),
        (lambda: nn.Sequential(mlp(), nn.Softmax(1)), lambda p, y: F.nll_loss(p.log(), y), {"targets": False}),
    ],
    ids=["targets", "classes=", "probabilities"],
)
def test_classes_are_known_by_targets_by_their_number_or_as_probabilities(model, loss_of, options):
    monitor = trained(model(), loss_of, steps=5, **options)
    assert monitor.history.classes == 10
    assert widths(monitor) == {10}


@pytest.mark.parametrize("ignored", [-1, -100, 255, 10])
def test_labels_that_are_no_class_are_left_out_as_the_loss_leaves_them_out(ignored):
    y = digits()[1].clone()
    y[::3] = ignored
    monitor = trained(mlp(), lambda out, y: F.cross_entropy(out, y, ignore_index=ignored), labels=y)
    for sample in monitor.history.samples:
        assert sample.output.as_logits == pytest.approx(monitor.history.losses[sample.step], rel=1e-4)
        assert sample.output.targets.sum() == sum(y[32 * sample.step :][:32] != ignored)
    monitor.findings()
    assert [f"labels of {ignored}," in note for note in monitor.history.notes] == [True] * (ignored != -100)


@pytest.mark.parametrize("labels", [torch.full((32,), 10), batch()[1] + 5, batch()[1] - 20])
def test_a_training_is_not_ended_by_labels_that_are_no_class(labels):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)
    for _ in range(15):
        monitor.step(one_step(model, optimizer, *batch()), targets=labels)
    assert all(s.output.targets is None for s in monitor.history.samples)
    several = len(labels.unique()) > 1
    assert ("class numbers from 0 to 9" in monitor.unjudged["class-collapsed"]) == several
    assert bool(monitor.no_targets) == several


def test_classes_that_the_loss_contradicts_are_refused_at_the_first_step():
    y = (digits()[1] > 4).long()
    model = regression(2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, classes=10)
    loss = one_step(model, optimizer, batch()[0], y[:32])
    with pytest.raises(UserError, match="classes is 10, but the loss is the cross-entropy of the model's 2 outputs"):
        monitor.step(loss, targets=y[:32])
    assert not len(monitor.history.losses)


def test_classes_that_are_no_columns_leave_the_outputs_unjudged():
    # An embedding: the scores of the classes are made in the loss.
    table = torch.randn(24, 10)
    monitor = trained(regression(24), lambda out, y: F.cross_entropy(out @ table, y), classes=10, lr=1e-3)
    assert all("24 columns where 10 classes" in monitor.unjudged[name] for name in BY_OUTPUTS)
    assert monitor.history.classes == 10


@pytest.mark.parametrize("form", [list, np.asarray, lambda y: tuple(y.tolist()), lambda y: y.int()])
def test_targets_come_as_a_list_or_an_array_too(form):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)
    x, y = batch()
    monitor.step(one_step(model, optimizer, x, y), targets=form(y))
    assert monitor.history.samples[0].output.targets.sum() == 32
