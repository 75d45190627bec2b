"""Rare classes by how often they are right at every step, and answers that something cuts off from the images."""

from dataclasses import replace

import numpy as np
import pytest

from tests.diagnosis.rules.histories import epochs, falling, noisy, sample, verdict, watched
from wellfit.diagnosis.history import Layer, Output, Tally
from wellfit.diagnosis.rules import judge
from wellfit.diagnosis.rules.signs import cut_off_behind


def counted(shown, right, steps=100):
    """Every watched step brings so many images of each class, and so many of them right."""
    shown, right = np.array(shown), np.array(right)
    said = right + np.eye(len(shown), dtype=int)[0] * (shown - right).sum()
    history = watched(falling(steps))
    output = Output(4, len(shown), 0.1, predicted=said, targets=shown, correct=int(right.sum()))
    tally = Tally(shown, said, right)
    history.samples = [replace(s, output=output, tally=tally) for s in history.samples]
    return replace(history, classes=len(shown), class_counts=10 * shown)


@pytest.mark.parametrize(
    ("shown", "right", "said"),
    [
        ([40, 40, 4], [36, 36, 0], True),
        ([40, 40, 4], [36, 36, 1], False),  # a quarter, beside nine in ten: on its way
        ([40, 40, 40], [36, 36, 0], False),  # not rare
        ([40, 40, 4], [12, 12, 0], False),  # the others are not told apart yet
        ([40, 40, 1], [36, 36, 0], False),  # five images in the second half may be chance
        ([200, 3], [199, 0], True),
    ],
    ids=["missed", "begun", "common", "early", "a handful", "two classes"],
)
def test_rare_classes_are_judged_by_how_often_they_are_right(shown, right, said):
    history = counted(shown, right)
    # five watched steps in the second half; without the answers there, which know too little
    history.samples = [replace(s, output=None if s.tally else s.output) for s in history.samples[:-1]] + [
        history.samples[-1]
    ]
    found = verdict("imbalance-ignored", history)
    assert (found is not None) == said
    if said:
        assert found.evidence["classes"] == [len(shown) - 1]
        assert f"was right 0 times of {5 * shown[-1]}" in found.message


@pytest.mark.parametrize(
    ("shown", "right", "end", "said"),
    [
        ([40, 40], [40, 0], 0.1, True),
        ([40, 40], [40, 0], 0.2, False),  # as BCE or a focal loss falls before anything is told apart
        ([40, 40], [40, 2], 0.1, False),  # the other class is said as well
        ([70, 30], [70, 0], 0.1, False),  # the answer that an unbalanced set invites
        ([20, 20, 20, 20], [20, 0, 0, 0], 0.05, True),
        ([20, 20, 20, 20], [20, 0, 0, 0], 0.2, False),
    ],
)
def test_one_answer_for_all_at_hardly_any_loss_is_a_collapse(shown, right, end, said):
    history = counted(shown, right, 120)
    history.losses = noisy([0.7] * 20 + [end] * 100)
    found = verdict("class-collapsed", history)
    assert (found is not None) == said
    if said:
        assert found.evidence["classes"] == list(range(1, len(shown)))
        assert f"the right one for {shown[0] / sum(shown):.0%}" in found.message


@pytest.mark.parametrize(("late", "said"), [(3.0, True), (0.12 * 8, False)])
def test_a_loss_that_is_divided_is_low_and_counts_all_classes(late, said):
    """Cross-entropy by eight, from 0.3 to 0.12; or one whose answers cost more in the end than the loss lets see."""
    history = counted([40, 40], [40, 0], 120)
    history.losses = noisy([0.3] * 20 + [0.12] * 100, 0.01)
    history.samples = [
        replace(s, output=replace(s.output, as_logits=2.4 if s.step < 20 else late)) for s in history.samples
    ]
    assert (verdict("class-collapsed", history) is not None) == said


def test_an_unbalanced_training_is_not_shuffled_where_validation_holds_all_classes_alike():
    """Saying the largest class alone is right for 0.6 of training's images and 0.1 of validation's."""
    known = counted([60, 10, 5, 5, 4, 4, 3, 3, 3, 3], [60, 6, 1, 1, 1, 1, 0, 0, 0, 0])
    curve = {"train_accuracy": [0.5, 0.6, 0.7, 0.9], "val_accuracy": [0.2, 0.3, 0.35, 0.35]}
    assert verdict("labels-shuffled", replace(known, epochs=epochs(**curve))) is None
    guessing = curve | {"val_accuracy": [0.1, 0.12, 0.11, 0.12]}
    assert verdict("labels-shuffled", replace(known, epochs=epochs(**guessing))) is not None
    as_often = curve | {"val_accuracy": [0.6, 0.58, 0.61, 0.6]}
    assert verdict("labels-shuffled", replace(known, epochs=epochs(**as_often))) is not None


def cut(spread=1e-9, layer_spread=0.3, std=0.5, dropped=(), first=0):
    history = watched(noisy([2.303] * 200, 0.003))
    output = Output(32, 10, spread)
    layers = (Layer("3", "relu", 0.1, std, layer_spread, dead=0.1),)
    history.samples = [sample(s, layers=layers, output=output) for s in (first, 1, 2, *range(10, 200, 10))]
    return replace(history, dropped=list(dropped))


def test_answers_that_are_cut_off_are_said_first_with_the_last_layer_that_knows():
    history = cut()
    found = judge(history)[0]
    assert found[0].id == "constant-output"
    assert "3 still told them apart" in found[0].message
    assert found[0].evidence["cut_off_behind"] == "3"


def test_a_dropout_of_one_is_named():
    found = verdict("constant-output", cut(layer_spread=1e-4, dropped=[0.2, 1.0]))
    assert "dropout loses them" in found.message


@pytest.mark.parametrize(
    "history",
    [cut(layer_spread=1e-3), cut(std=1e-4, layer_spread=1e-4), cut(spread=1e-3), cut(first=5)],
    ids=["differences fade", "nothing is left", "answers differ", "begun late"],
)
def test_what_fades_is_not_cut_off(history):
    assert cut_off_behind(history) is None


@pytest.mark.parametrize(("ratio", "kept"), [(1e-3, False), (0.2, True)])
def test_answers_that_grow_alike_for_want_of_something_to_learn_are_no_finding(ratio, kept):
    """Unless the first steps overwrote the weights, which explains it."""
    history = cut()
    steps = [s.step for s in history.samples]
    history.samples = [
        sample(s, ratio=ratio, output=Output(32, 10, 0.01 if s < 3 else 1e-5), promised=1e-4) for s in steps
    ]
    assert (verdict("constant-output", history) is not None) == kept


@pytest.mark.parametrize(("best", "said"), [(0.35, False), (0.6, True)])
def test_a_plateau_is_where_a_rate_has_done_its_work(best, said):
    history = watched(falling(120, end=1.0))
    accuracy = [0.3, *np.linspace(0.3, best, 5), *[best] * 6]
    loss = [1.6, 1.5, 1.4, 1.3, 1.25, 1.2, *[1.2] * 6]
    history.epochs = epochs(train_loss=loss, val_loss=loss, val_accuracy=accuracy)
    assert (verdict("plateau", history) is not None) == said
