"""What made the steps long: a change in mid-run, the optimizer's settings, gradients that were turned round."""

from dataclasses import replace

import numpy as np
import pytest

from tests.diagnosis.rules.histories import falling, noisy, sample, verdict, watched
from wellfit.diagnosis.history import History, OptimizerGroup, Parameter, Sample
from wellfit.diagnosis.rules import judge
from wellfit.diagnosis.rules.long_steps import _beyond_the_rate, _growing
from wellfit.diagnosis.rules.step_lengths import (
    cause_of_long_steps,
    forgetful,
    goes_uphill,
    longer_at_once,
    of_one_size,
)


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
        lengthened(losses=noisy(np.r_[np.full(150, 1.0), np.linspace(4.0, 0.5, 150)])),  # other images, learned as well
    ],
    ids=["loss stands", "hardly longer", "first steps", "just now", "rate", "curriculum"],
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
        (0.95, 0.9, False),
        (0.9, 0.8, False),
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


def of_size(kind, *, second=None, first=0.05, end=2.0):
    """A first step of one share of every weight, or of one size in every entry; weights and gradients differ."""
    weights, sizes, gradients = np.array([1.0, 5.0, 20.0]), np.array([100, 400, 900]), np.array([3.0, 0.1, 1.0])
    updates = {"share": first * weights, "entry": first * np.sqrt(sizes), "gradient": first * gradients}[kind]
    parameters = [Parameter(f"{i}.weight", int(n)) for i, n in enumerate(sizes)]
    samples = [Sample(s, weights, updates, gradients, 0.01) for s in range(0, 200, 10)]
    return History(
        losses=noisy(np.linspace(2.3, end, 200), 0.01),
        lrs=[first] * 200,
        samples=samples,
        parameters=parameters,
        classes=10,
        groups=[OptimizerGroup("Own", None, second)],
    )


@pytest.mark.parametrize(
    ("kind", "words"), [("share", "same share of every weight"), ("entry", "same in every entry"), ("gradient", "")]
)
def test_steps_of_one_size_are_told_by_the_first(kind, words):
    assert words in of_one_size(of_size(kind))
    assert bool(words) == bool(of_one_size(of_size(kind)))
    assert of_one_size(of_size(kind, second=0.999)) == ""
    assert cause_of_long_steps(of_size(kind)) == ("updates-too-large" if words else "")


def test_they_are_named_where_they_are_long_and_harm():
    assert "LARS wants a trust coefficient" in verdict("updates-too-large", of_size("share")).action
    assert verdict("updates-too-large", of_size("share", first=0.015)) is None
    assert verdict("updates-too-large", of_size("share", end=0.3)) is None


def little_by_little(factor=6.0, end=0.8, lrs=None, at_once=False):
    """The loss falls to 0.2 and rises to `end` again, while the updates grow evenly to `factor` times their length."""
    losses = noisy(np.r_[np.linspace(2.3, 0.2, 100), np.linspace(0.2, end, 200)], 0.02)
    history = watched(losses)
    grown = [(s.step > 250) if at_once else s.step / 300 for s in history.samples]
    history.samples = [sample(s.step, ratio=0.01 * factor**g) for s, g in zip(history.samples, grown, strict=True)]
    return replace(history, lrs=lrs or [0.1] * 300)


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (little_by_little(), True),
        (little_by_little(factor=3.0), False),
        (little_by_little(end=0.25), False),  # nothing is lost
        (little_by_little(end=2.5), False),  # back at the start: something else has undone it all
        (little_by_little(lrs=np.linspace(0.1, 0.4, 300).tolist()), False),  # the rate does it
        (little_by_little(at_once=True), False),  # another rule's
    ],
)
def test_steps_that_grow_little_by_little_and_undo_what_was_learned(history, said):
    assert (_growing(history) is not None) == said
    if said:
        assert "at a rate that did not rise" in verdict("updates-too-large", history).message


def test_weights_that_are_released_later_have_not_grown():
    """A backbone at a rate of 0 in its own group, while the head's stays what it was."""
    history = little_by_little()
    history.samples = [replace(s, update_norm=s.update_norm * (s.step > 150)) for s in history.samples]
    assert _growing(history) is None
    assert not any("the rule itself failed" in reason for reason in judge(history)[1].values())


@pytest.mark.parametrize(
    ("times", "second", "end", "said"),
    [(2.0, None, 1.5, True), (1.0, None, 1.5, False), (2.0, 0.999, 1.5, False), (2.0, None, 0.3, False)],
    ids=["beyond", "as Adam's", "of a known optimizer", "learned all the same"],
)
def test_entries_that_move_by_more_than_the_rate(times, second, end, said):
    history = of_size("entry", first=0.01, second=second, end=end)
    history.samples[1:] = [replace(s, update_norm=times * s.update_norm) for s in history.samples[1:]]
    # Weights of a length at which these steps take a fiftieth of them, and no more.
    history.samples = [replace(s, weight_norm=50 * times * 0.01 * np.array([10.0, 20, 30])) for s in history.samples]
    found = _beyond_the_rate(history)
    assert (found is not None) == said
    assert not said or found.evidence["entries_by_rate"] == pytest.approx(times)


@pytest.mark.parametrize(
    ("share", "by_gradient", "end", "said"),
    [(0.03, 5.0, 1.5, True), (0.03, 2.0, 1.5, False), (0.01, 5.0, 1.5, False), (0.03, 5.0, 0.3, False)],
    ids=["decays", "is SGD", "is short", "learned all the same"],
)
def test_steps_that_neither_gradient_nor_rate_explains(share, by_gradient, end, said):
    weights = np.array([1.0, 2.0])
    samples = [
        Sample(s, weights, share * weights, share * weights / by_gradient / 0.1, 0.01) for s in range(0, 200, 10)
    ]
    parameters = [Parameter("0.weight", 10_000), Parameter("2.weight", 10_000)]
    losses = noisy(np.r_[np.linspace(2.3, end, 100), np.full(100, end)], 0.01)
    history = History(losses=losses, lrs=[0.1] * 200, samples=samples, parameters=parameters, classes=10)
    found = _beyond_the_rate(history)
    assert (found is not None) == said
    assert not said or "a decay without the rate" in found.action
    # Optimizers that scale their steps by design, and lower the loss all along.
    history.losses = noisy(np.linspace(2.3, end, 200), 0.01)
    assert _beyond_the_rate(history) is None


@pytest.mark.parametrize(("shrink", "end", "said"), [(0.8, 2.3, True), (0.8, 0.5, False), (0.95, 2.3, False)])
def test_weights_that_something_takes_away_with_what_was_learned(shrink, end, said):
    history = watched(noisy([2.3] * 50 + [1.5] * 100 + [end] * 150, 0.01))
    history.samples = [
        replace(s, weight_norm=s.weight_norm * shrink**k, update_norm=s.update_norm * shrink**k)
        for k, s in enumerate(history.samples)
    ]
    found = verdict("updates-too-large", history)
    assert (found is not None) == said
    assert not said or "something decays them" in found.message


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


@pytest.mark.parametrize(
    ("growth", "end", "said"),
    [(1.15, 3.0, True), (1.15, 2.0, False), (1.05, 3.0, False)],
    ids=["grows and loses", "grows and learns", "grows a little"],
)
def test_weights_that_grow_and_grow_explode(growth, end, said):
    """A weight decay of the wrong sign lengthens them by the same share at every step."""
    history = watched(noisy(np.linspace(2.3, end, 300), 0.01))
    history.samples = [replace(s, weight_norm=s.weight_norm * growth**k) for k, s in enumerate(history.samples)]
    found = verdict("exploding", history)
    assert (found is not None) == said
    assert not said or found.evidence["growth_since_the_middle"] == pytest.approx(growth**14)


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
