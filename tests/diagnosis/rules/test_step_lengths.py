"""What made the steps long: a change in mid-run, the optimizer's settings, gradients that were turned round."""

from dataclasses import replace

import numpy as np
import pytest

from tests.diagnosis.rules.histories import falling, noisy, sample, verdict, watched
from wellfit.diagnosis.history import History, OptimizerGroup, Parameter, Sample
from wellfit.diagnosis.rules import judge
from wellfit.diagnosis.rules.step_lengths import cause_of_long_steps, forgetful, goes_uphill, longer_at_once


def lengthened(factor=4.0, after=4.0, at=150, **fields):
    """From step `at` on the updates are `factor` times as long and the loss stands at `after`."""
    losses = noisy(np.where(np.arange(300) < at, 1.0, after))
    history = watched(losses)
    history.samples = [sample(s.step, ratio=0.01 * (factor if s.step >= at else 1.0)) for s in history.samples]
    return replace(history, **fields)


def test_steps_that_grow_at_once_are_named_with_the_step():
    found = verdict("updates-too-large", lengthened())
    assert found.evidence["step"] == 150
    assert (found.evidence["before"], found.evidence["after"]) == pytest.approx((0.01, 0.04))
    assert "at the same rate" in found.message


def test_they_are_the_cause_where_a_rate_could_be():
    assert cause_of_long_steps(lengthened()) == "updates-too-large"


@pytest.mark.parametrize(
    "history",
    [
        lengthened(after=1.5),  # the loss hardly rose
        lengthened(factor=1.5),
        lengthened(at=30),  # among the first
        lengthened(at=250),  # not seen for long enough
        lengthened(lrs=[0.01] * 150 + [0.04] * 150),  # the rate was raised
    ],
    ids=["loss stands", "hardly longer", "first steps", "just now", "rate"],
)
def test_other_changes_are_not(history):
    assert longer_at_once(history) is None


@pytest.mark.parametrize(
    ("first", "second", "is_it"),
    [
        (0.9, 0.999, False),
        (0.9, 0.95, False),
        (0.5, 0.9, False),
        (0.9, 0.3, True),  # forgets at once
        (0.999, 0.9, True),  # the wrong way round
        (0.95, 0.95, False),
        (None, 0.9, False),  # RMSprop as TensorFlow has it
        (None, None, False),
    ],
)
def test_which_optimizers_forget(first, second, is_it):
    assert (forgetful(History(groups=[OptimizerGroup("Adam", first, second)])) is not None) == is_it


def test_swapped_betas_are_named_whatever_came_of_them_and_a_short_memory_where_it_harms():
    swapped = replace(watched(falling()), groups=[OptimizerGroup("Adam", 0.999, 0.9)])
    assert "0.999 of its first" in verdict("updates-too-large", swapped).message
    short = OptimizerGroup("Adam", 0.0, 0.5)
    assert verdict("updates-too-large", replace(watched(falling()), groups=[short])) is None
    stands = replace(watched(noisy([2.3] * 200)), groups=[short])
    assert "0.5 of its second moment" in verdict("updates-too-large", stands).message


def climbing(kept):
    """The loss rises by `kept` times what the steps promise that it falls."""
    losses = 2.3 + np.arange(200.0)
    return watched(losses.tolist(), promised=1.0 / kept)


@pytest.mark.parametrize(("kept", "uphill"), [(1.0, True), (0.3, True), (0.05, False), (30.0, False)])
def test_a_loss_that_rises_as_it_was_promised_to_fall_goes_uphill(kept, uphill):
    history = climbing(kept)
    assert goes_uphill(history) == uphill
    ids = [f.id for f in judge(history)[0] if f.severity != "info"]
    assert "exploding" in ids
    assert not (uphill and "lr-too-high" in ids)


def held(rate, like, *, gradient=1.0, moved=0.02):
    """Two groups of ten weights: the first moves, the second gets a gradient and does not."""
    weights = [Parameter(f"{i}.weight", 100) for i in range(4)]
    step = {"sgd": rate * gradient, "adam": rate * 10.0}[like]
    updates = np.array([step, 0.0, 0.0, 0.0])
    samples = [
        Sample(s, np.full(4, step / moved), updates, np.full(4, gradient), 0.01, moved=updates > 0)
        for s in range(0, 60, 5)
    ]
    group = OptimizerGroup("Adam", 0.9, 0.999) if like == "adam" else OptimizerGroup("SGD", 0.9)
    return History(losses=falling(60), lrs=[rate] * 60, samples=samples, parameters=weights, classes=10, groups=[group])


@pytest.mark.parametrize("like", ["sgd", "adam"])
@pytest.mark.parametrize("moved", [0.02, 1e-3])
def test_weights_that_a_step_like_the_others_would_move_are_held(like, moved):
    found = verdict("frozen-parameters", held(1e-3, like, moved=moved))
    assert found.evidence["count"] == 3
    assert "rate of their group is 0" in found.message


@pytest.mark.parametrize("like", ["sgd", "adam"])
def test_weights_whose_gradient_is_too_small_to_be_seen_are_not(like):
    history = held(1e-3, like)
    small = np.array([1.0, 1e-7, 1e-7, 1e-7])
    history.samples = [replace(s, gradient_norm=s.gradient_norm * small) for s in history.samples]
    assert verdict("frozen-parameters", history) is None
