"""A loss is told by what it does, whatever it is called."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wellfit.checks.losses import at_chance, kind_of, least_loss
from wellfit.training.regularize import build_criterion

SCORES = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(12) % 5
SHARES = F.one_hot(TARGETS, 5).float()
YES = (TARGETS > 2).float()


def hinge_by_hand(s, t):
    margins = (1 + s - s.gather(1, t[:, None])).clamp_min(0).scatter(1, t[:, None], 0.0)
    return margins.sum(1).mean()


class Focal(nn.Module):
    def forward(self, s, t):
        losses = F.cross_entropy(s, t, reduction="none")
        return ((1 - (-losses).exp()) ** 2 * losses).mean()


@pytest.mark.parametrize(
    ("loss", "name", "chance", "factor"),
    [
        (nn.CrossEntropyLoss(), "cross-entropy", math.log(5), 1),
        (nn.CrossEntropyLoss(label_smoothing=0.1), "cross-entropy", math.log(5), 1),
        (F.cross_entropy, "cross-entropy", math.log(5), 1),
        (lambda s, t: F.cross_entropy(s, t, label_smoothing=0.1), "cross-entropy", math.log(5), 1),
        (lambda s, t: -s.log_softmax(1)[torch.arange(12), t].mean(), "cross-entropy", math.log(5), 1),
        (nn.CrossEntropyLoss(reduction="sum"), "cross-entropy", math.log(5), 12),
        (lambda s, t: F.cross_entropy(s, t) / math.log(2), "cross-entropy", math.log(5), 1 / math.log(2)),
        (lambda s, t: F.cross_entropy(s, t) / 4, "cross-entropy", math.log(5), 0.25),
        (nn.NLLLoss(), "negative log-likelihood", math.log(5), 1),
        (hinge_by_hand, "hinge", 4.0, 1),
        (build_criterion("hinge"), "MulticlassHinge", 4.0, 1),
        (nn.MultiMarginLoss(), "MultiMarginLoss", 0.8, 1),
        (F.multi_margin_loss, "hinge", 0.8, 1),
        (Focal(), "a loss that is not known", None, 1),
        (lambda s, t: (s.softmax(1) - F.one_hot(t, 5)).square().mean(), "a loss that is not known", None, 1),
        (lambda s, t: F.cross_entropy(s, t) + 0.3, "a loss that is not known", None, 1),
    ],
)
def test_losses_of_class_numbers(loss, name, chance, factor):
    kind = kind_of(loss, SCORES, TARGETS)
    assert kind.name == name
    assert kind.at_chance == (chance if chance is None else pytest.approx(chance))
    assert kind.factor == pytest.approx(factor, rel=1e-3)


def test_losses_of_shares_and_of_yes_or_no():
    assert kind_of(F.cross_entropy, SCORES, SHARES).at_chance == pytest.approx(math.log(5))
    several = kind_of(nn.BCEWithLogitsLoss(), SCORES, SHARES)
    assert (several.name, several.at_chance) == ("binary cross-entropy", pytest.approx(math.log(2)))
    for outputs in (SCORES[:, 0], SCORES[:, :1]):
        kind = kind_of(lambda s, t: F.binary_cross_entropy_with_logits(s.reshape(-1), t.float()), outputs, YES)
        assert (kind.name, kind.factor) == ("binary cross-entropy", pytest.approx(1.0))


def test_a_loss_that_fails_on_other_scores_is_not_known():
    def probabilities_only(s, t):
        if s.min() < 0:
            raise AssertionError("probabilities, please")
        return -s[torch.arange(12), t].log().mean()

    assert kind_of(probabilities_only, SCORES.softmax(1), TARGETS).at_chance is None


def test_at_chance_agrees_with_the_loss_of_equal_scores():
    equal = torch.full((12, 5), 0.7)
    for loss in (nn.CrossEntropyLoss(), nn.MultiMarginLoss(margin=0.5), build_criterion("hinge")):
        assert at_chance(loss, 5) == pytest.approx(float(loss(equal, TARGETS)), rel=1e-6)
    assert at_chance(nn.CrossEntropyLoss(reduction="sum"), 5) is None


@pytest.mark.parametrize(
    ("loss", "floor"),
    [
        (F.cross_entropy, 0.0),
        (hinge_by_hand, 0.0),
        (nn.NLLLoss(), 0.0),
        (Focal(), 0.0),
        (lambda s, t: F.cross_entropy(s, t) + 0.25, 0.25),
    ],
)
def test_the_least_loss_of_right_answers(loss, floor):
    assert least_loss(loss, SCORES, TARGETS) == pytest.approx(floor, abs=1e-6)


def test_the_least_smoothed_loss_is_near_the_entropy_of_its_targets():
    share, classes = 0.1, 5
    right, wrong = 1 - share + share / classes, share / classes
    entropy = -right * math.log(right) - (classes - 1) * wrong * math.log(wrong)
    found = least_loss(nn.CrossEntropyLoss(label_smoothing=share), SCORES, TARGETS)
    assert entropy <= found < 1.15 * entropy


def test_the_least_loss_of_one_yes_or_no():
    assert least_loss(nn.BCEWithLogitsLoss(), SCORES[:, 0], YES) == pytest.approx(0.0, abs=1e-6)
