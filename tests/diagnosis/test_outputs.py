"""What a network answers: found wherever it is, judged as classes only where it is that."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.diagnosis.conftest import batch, digits, mlp, one_step
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.outputs import shape_of, tables, why_no_classes
from wellfit.errors import UserError

SGD = torch.optim.SGD
BY_OUTPUTS = ("double-softmax", "constant-output", "class-collapsed", "imbalance-ignored")


@dataclass
class Answer:
    loss: torch.Tensor
    scores: torch.Tensor


class Output(dict):
    """A mapping whose entries are attributes too, as transformers' outputs are."""

    __getattr__ = dict.get


LOGITS, FEATURES = torch.zeros(4, 10), torch.zeros(4, 64)


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (LOGITS, [LOGITS]),
        ((FEATURES, LOGITS), [FEATURES, LOGITS]),
        ({"loss": torch.tensor(1.0), "out": LOGITS}, [LOGITS]),
        (Output(loss=torch.tensor(1.0), logits=LOGITS, hidden=FEATURES), [LOGITS]),
        (Answer(torch.tensor(1.0), LOGITS), [LOGITS]),
        ([torch.zeros(4, 3, 8, 8), (LOGITS,)], [LOGITS]),
        (torch.zeros(4, 3, 8, 8), []),
        (torch.zeros(4, 10, dtype=torch.int64), []),
        (torch.tensor(1.0), []),
        ("text", []),
        (Answer, []),
        (None, []),
    ],
)
def test_the_tables_are_found_in_what_a_model_returns(output, found):
    assert [t.shape for t in tables(output)] == [t.shape for t in found]


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        (None, ""),
        (torch.tensor([0, 1]), ""),
        (torch.tensor([True, False]), ""),
        (torch.tensor([[0.3, 0.7], [1.0, 0.0]]), ""),
        (torch.tensor([0.2, 1.4]), "fractions"),
        (torch.tensor([[1, 1], [0, 1]]), "several classes"),
        (torch.tensor([[0, 0], [0, 1]]), "several classes"),
        (torch.tensor([[-0.5, 1.5], [1.0, 0.0]]), "several classes"),
    ],
)
def test_answers_are_classes_where_the_targets_say_so(targets, reason):
    said = why_no_classes(torch.zeros(2, 2), targets)
    assert reason in said
    assert bool(said) == bool(reason)


def test_one_output_is_no_choice_of_classes():
    assert "one output" in why_no_classes(torch.zeros(5, 1), None)


def trained(model, loss_of, y, steps=60, **options):
    optimizer = SGD(model.parameters(), 0.05)
    monitor = Monitor(model, optimizer, every=1, **options)
    x = digits()[0]
    for step in range(steps):
        part = slice(32 * (step % 40), 32 * (step % 40) + 32)
        loss = loss_of(model(x[part]), y[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(loss, targets=y[part])
    return monitor


def ids(monitor):
    return [f.id for f in monitor.findings() if f.severity != "info"]


def test_a_regression_is_judged_by_all_but_its_outputs():
    y = digits()[1].float()[:, None] / 9
    monitor = trained(nn.Sequential(*mlp()[:-1], nn.Linear(64, 1)), F.mse_loss, y)
    assert ids(monitor) == []
    assert all("one output" in monitor.unjudged[name] for name in BY_OUTPUTS)
    assert "nan" not in monitor.unjudged
    assert "updates-too-small" not in monitor.unjudged


def test_a_regression_of_two_numbers_is_no_classification():
    def loss_of(out, y):
        return F.gaussian_nll_loss(out[:, 0], y, F.softplus(out[:, 1]) + 0.1)

    monitor = trained(nn.Sequential(*mlp()[:-1], nn.Linear(64, 2)), loss_of, digits()[1].float() / 9)
    assert ids(monitor) == []
    assert "fractions" in monitor.unjudged["class-collapsed"]
    assert monitor.history.classes is None
    # the loss of a density goes below zero, where shares of it say nothing
    assert min(monitor.history.losses) < 0
    assert all("above zero" in monitor.unjudged[name] for name in ("loss-spike", "not-learning", "lr-too-high"))
    assert "nan" not in monitor.unjudged


def test_several_labels_an_image_are_no_classification():
    y = torch.stack([digits()[1] >= k for k in range(1, 7)], 1).float()
    monitor = trained(nn.Sequential(*mlp()[:-1], nn.Linear(64, 6)), F.binary_cross_entropy_with_logits, y)
    assert ids(monitor) == []
    assert all("several classes" in monitor.unjudged[name] for name in BY_OUTPUTS)


def test_what_first_looks_like_classes_and_is_not_is_taken_back():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.05)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    labels = F.one_hot(y, 10).float()
    for step in range(6):
        monitor.step(one_step(model, optimizer, x, labels), targets=labels)
        assert ("several" in monitor.unjudged.get("double-softmax", "")) == (step > 3)
        if step == 3:
            labels[0] = 1.0


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))

    def forward(self, x):
        return self.body(x)


def test_dense_outputs_are_unjudged_with_their_shape():
    y = (digits()[0][:, 0] > 0).long()
    monitor = trained(Dense(), F.cross_entropy, y)
    assert ids(monitor) == []
    assert all("(32, 2, 8, 8)" in monitor.unjudged[name] for name in BY_OUTPUTS)
    assert "dead-relu" not in monitor.unjudged
    assert "tuple" in shape_of((1, 2))
    assert "(4, 2, 5)" in shape_of(Output(logits=torch.zeros(4, 2, 5)))


def test_ignored_targets_do_not_count():
    y = digits()[1].clone()
    y[::2] = -100
    monitor = trained(mlp(), F.cross_entropy, y, steps=10)
    output = monitor.history.samples[-1].output
    assert output.targets.sum() == 16
    assert output.correct <= 16
    loss = monitor.history.losses[-1]
    assert output.as_logits == pytest.approx(loss, rel=1e-4)
    whole = trained(mlp(), lambda out, y: out.square().mean(), torch.full((1797,), -100), steps=3)
    assert whole.history.samples[-1].output.targets is None


def test_a_refused_target_leaves_the_step_to_be_told_again():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    loss = one_step(model, optimizer, x, y)
    with pytest.raises(UserError, match="of shape"):
        monitor.step(loss, targets=y[:5])
    assert monitor.stepped
    monitor.step(loss, targets=y)
    assert not monitor.stepped
    assert len(monitor.history.samples) == 1
    assert len(monitor.history.losses) == 1
