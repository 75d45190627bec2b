import torch
from torch.nn import functional

from wellfit.checks.targets import class_of, right

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
