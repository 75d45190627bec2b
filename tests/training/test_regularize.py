"""Penalties and losses against sums written out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.training.optimizers import build_optimizer
from wellfit.training.regularize import balanced_class_weights, build_criterion, elastic_net, l1, l2


def net():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)).double()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.5]]))
        module[2].weight.copy_(torch.tensor([[-1.0, 4.0]]))
        module[0].bias.fill_(100.0)  # biases and scales must not count
    return module


SQUARES, ABSOLUTES = 1 + 4 + 9 + 0.25 + 1 + 16, 1 + 2 + 3 + 0.5 + 1 + 4


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: l2(0.1), 0.1 * SQUARES),
        (lambda: l2(0.1, half=True), 0.05 * SQUARES),
        (lambda: l1(0.1), 0.1 * ABSOLUTES),
        (lambda: elastic_net(0.1, beta=0.5), 0.1 * (0.5 * SQUARES + ABSOLUTES)),
        (lambda: l2(0.0), 0.0),
        (lambda: l2(0.1).with_strength(1e3), 1e3 * SQUARES),
    ],
    ids=["l2", "half l2", "l1", "elastic net", "none", "raised"],
)
def test_penalties_by_hand(make, value):
    assert make()(net()).item() == pytest.approx(value, rel=1e-12)


def test_frozen_weights_do_not_count():
    module = net()
    module[0].weight.requires_grad_(False)
    assert l2(1.0)(module).item() == pytest.approx(17.0)
    module[2].weight.requires_grad_(False)
    with pytest.raises(UserError, match="unfreeze"):
        l2(1.0)(module)


@pytest.mark.parametrize(("half", "decay"), [(True, 0.3), (False, 0.6)])
def test_l2_in_the_loss_is_weight_decay_of_plain_sgd_and_not_of_adam(half, decay):
    def one_step(name, weight_decay, penalty):
        module = net()
        optimizer = build_optimizer(name, module, lr=0.01, weight_decay=weight_decay)
        loss = module[2](module[0](torch.tensor([[0.3, -0.7]], dtype=torch.float64))).sum()
        (loss + penalty(module) if penalty else loss).backward()
        module[1].weight.grad = module[1].bias.grad = None
        optimizer.step()
        return module[0].weight.detach()

    penalty = l2(0.3, half=half)
    torch.testing.assert_close(one_step("sgd", decay, None), one_step("sgd", 0.0, penalty), rtol=1e-12, atol=0)
    apart = one_step("adamw", decay, None) - one_step("adamw", 0.0, penalty)
    assert apart.abs().max() > 1e-3


def scores_and_targets(n=6, classes=4):
    source = np.random.Generator(np.random.Philox(3))
    return source.normal(size=(n, classes)), source.integers(0, classes, n)


def log_softmax(scores):
    shifted = scores - scores.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 3.0]])
def test_cross_entropy_by_hand(smoothing, weights):
    scores, targets = scores_and_targets()
    soft = np.full(scores.shape, smoothing / 4)
    soft[np.arange(6), targets] += 1 - smoothing
    w = np.ones(4) if weights is None else np.array(weights)
    expected = -(soft * w * log_softmax(scores)).sum() / w[targets].sum()
    criterion = build_criterion(label_smoothing=smoothing, class_weights=weights)
    got = criterion(torch.tensor(scores).float(), torch.tensor(targets))
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_smoothed_targets_equal_given_probabilities():
    scores, targets = scores_and_targets()
    soft = np.full(scores.shape, 0.2 / 4)
    soft[np.arange(6), targets] += 0.8
    smooth = build_criterion("cross-entropy", label_smoothing=0.2)(torch.tensor(scores), torch.tensor(targets))
    given = build_criterion("cross_entropy")(torch.tensor(scores), torch.tensor(soft, dtype=torch.float32))
    assert smooth.item() == pytest.approx(given.item(), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 3.0]])
def test_blended_labels_by_hand(smoothing, weights):
    scores, targets = scores_and_targets()
    shares = 0.4 * np.eye(4)[targets] + 0.6 * np.eye(4)[targets[::-1]]  # as of mixup: cat 0.4, dog 0.6
    w = np.ones(4) if weights is None else np.array(weights)
    smooth = (1 - smoothing) * shares + smoothing / 4
    expected = -(smooth * w * log_softmax(scores)).sum() / (shares @ w).sum()
    criterion = build_criterion(label_smoothing=smoothing, class_weights=weights)
    got = criterion(torch.tensor(scores).float(), torch.tensor(shares).float())
    assert got.item() == pytest.approx(expected, rel=1e-5)
    # A label that is not blended costs the same as its number.
    hard, soft = torch.tensor(targets), torch.tensor(np.eye(4)[targets]).float()
    assert criterion(torch.tensor(scores).float(), soft).item() == pytest.approx(
        criterion(torch.tensor(scores).float(), hard).item(), rel=1e-5
    )


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 3.0]])
@pytest.mark.parametrize("margin", [1.0, 0.25])
def test_hinge_by_hand(weights, margin):
    scores, targets = scores_and_targets()
    w = np.ones(4) if weights is None else np.array(weights)
    total = 0.0
    for row, y in zip(scores, targets, strict=True):
        total += w[y] * sum(max(0.0, margin + row[j] - row[y]) for j in range(4) if j != y)
    criterion = build_criterion("hinge", class_weights=weights, margin=margin)
    got = criterion(torch.tensor(scores), torch.tensor(targets))
    assert got.item() == pytest.approx(total / w[targets].sum(), rel=1e-6)


def test_hinge_of_the_taught_example():
    # Three classes, scores of cat, car, frog on three images; losses 2.9, 0 and 12.9 on the course's slide.
    scores = torch.tensor([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    losses = [build_criterion("hinge")(scores[i : i + 1], torch.tensor([i])).item() for i in range(3)]
    assert losses == pytest.approx([2.9, 0.0, 12.9], abs=1e-5)


@pytest.mark.parametrize(("name", "expected"), [("cross-entropy", math.log(10)), ("hinge", 9.0)])
def test_equal_scores_cost_log_c_and_c_minus_1(name, expected):
    criterion = build_criterion(name, class_weights=torch.arange(1.0, 11.0))
    assert criterion.at_chance(10) == pytest.approx(expected)
    assert criterion(torch.zeros(20, 10), torch.arange(20) % 10).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["cross-entropy", "hinge"])
def test_half_precision_scores_are_widened(name):
    scores, targets = scores_and_targets()
    low = torch.tensor(scores).bfloat16()
    loss = build_criterion(name)(low, torch.tensor(targets))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(build_criterion(name)(low.double(), torch.tensor(targets)).item(), rel=1e-6)


def test_balanced_weights_give_each_class_the_same_sum():
    counts = [10, 40, 150]
    weights = balanced_class_weights(counts)
    np.testing.assert_allclose(weights.numpy() * counts, 200 / 3, rtol=1e-6)
    with pytest.raises(UserError, match="each class"):
        balanced_class_weights([3, 0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "crossentropy"}, "did you mean 'cross-entropy'"),
        ({"label_smoothing": 1.0}, "between 0 and 1"),
        ({"name": "hinge", "label_smoothing": 0.1}, "set it to 0"),
        ({"margin": 2.0}, "refuses its options"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words):
        build_criterion(**arguments)


def test_a_hinge_refuses_soft_targets_and_a_penalty_a_negative_strength():
    with pytest.raises(UserError, match="mixup"):
        build_criterion("hinge")(torch.zeros(2, 3), torch.full((2, 3), 1 / 3))
    with pytest.raises(UserError, match="strength"):
        l2(-1.0)


def test_a_users_own_loss_by_dotted_path():
    criterion = build_criterion("torch.nn:MultiMarginLoss", margin=0.5)
    assert criterion(torch.zeros(2, 4), torch.tensor([0, 1])).item() == pytest.approx(3 * 0.5 / 4)
