import pytest
import torch
from torch.nn import functional

from wellfit.checks.targets import are_measures, class_of, name_classes, right

NUMBERS = torch.tensor([2, 0, 1])


def test_the_class_of_every_kind_of_target():
    assert class_of(NUMBERS).tolist() == [2, 0, 1]
    assert class_of(NUMBERS[:, None]).tolist() == [2, 0, 1]
    assert class_of(functional.one_hot(NUMBERS, 3).float() * 0.8 + 0.1).tolist() == [2, 0, 1]
    assert class_of(torch.tensor([0.0, 1.0])).tolist() == [0, 1]
    assert class_of(torch.tensor([[1.0], [0.0]])).tolist() == [1, 0]


def test_right_answers():
    scores = torch.tensor([[0.0, 1.0, 2.0], [0.0, 3.0, 1.0], [0.0, 3.0, 1.0]])
    assert right(scores, NUMBERS).tolist() == [True, False, True]
    assert right(scores, functional.one_hot(NUMBERS, 3).float()).tolist() == [True, False, True]


def test_one_yes_or_no_by_scores_and_by_probabilities():
    wanted = torch.tensor([1.0, 0.0, 1.0])
    assert right(torch.tensor([0.2, -3.0, -0.1]), wanted).tolist() == [True, True, False]
    assert right(torch.tensor([[0.8], [0.3], [0.4]]), wanted).tolist() == [True, True, False]
    assert right(torch.tensor([0.2, -3.0, -0.1]), wanted.long()).tolist() == [True, True, False]


def test_several_yes_or_no_must_all_be_right():
    wanted = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert right(torch.tensor([[2.0, 1.0, -1.0], [-1.0, -1.0, 0.5]]), wanted).tolist() == [True, False]


@pytest.mark.parametrize(
    ("targets", "classes", "measures"),
    [
        (NUMBERS, True, False),
        (torch.tensor([0.0, 1.0, 1.0]), True, False),
        (torch.tensor([[1.0, 1.0], [0.0, 1.0]]), True, False),
        (torch.tensor([[0.3, 0.7], [1.0, 0.0]]), True, False),
        (torch.tensor([0.1, 0.9, 0.1]), False, False),  # smoothed, or numbers: the loss tells
        (torch.linspace(0, 1, 40), False, True),
        (torch.linspace(0, 1, 40)[:, None], False, True),
        (torch.tensor([-0.5, 2.0]), False, True),
        (torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), False, True),
    ],
)
def test_classes_are_told_from_numbers_to_be_met(targets, classes, measures):
    assert name_classes(targets) == classes
    assert are_measures(targets) == measures
