"""A loss that goes up and down: in a cycle, or because each step is carried on for too long."""

from dataclasses import replace

import numpy as np
import pytest

from tests.diagnosis.rules.histories import falling, noisy, verdict, watched
from wellfit.diagnosis.history import Epoch, OptimizerGroup, Output
from wellfit.diagnosis.rules.swings import _waving

NAME = "oscillating"


def in_turns(period=2, high=1.8, low=0.4, steps=200, epoch=40, **fields):
    """Every `period`-th batch costs `high`, the others `low`."""
    losses = np.full(steps, low)
    losses[::period] = high
    losses[:10] = 2.3
    history = watched(noisy(losses, 0.05))
    ends = range(epoch, steps + 1, epoch)
    # A validation that stands still: the loss swings with what the batches hold, not with the weights.
    return replace(
        history, **{"epochs": [Epoch(step=e, val_accuracy=0.9) for e in ends], "lrs": [0.1] * steps} | fields
    )


def two_tasks(floor, begun):
    """Every other step is another task's, whose loss begins at `begun` and comes down to `floor`."""
    history = in_turns()
    losses = np.array(history.losses)
    losses[::2] = noisy(np.r_[np.linspace(begun, floor, 50), np.full(50, floor)], 0.03, seed=1)
    return replace(history, losses=losses.tolist())


@pytest.mark.parametrize("period", [2, 3, 7, 20])
def test_batches_that_come_in_turns_are_a_cycle(period):
    found = verdict(NAME, in_turns(period))
    assert found.evidence["period"] % period == 0
    assert f"a cycle of {found.evidence['period']} steps" in found.message
    assert found.evidence["high"] == pytest.approx(1.8, rel=0.1)


@pytest.mark.parametrize(
    "history",
    [
        in_turns(period=40),  # the same order in every epoch
        in_turns(high=1.0),  # hard batches are learned as well: less than half of the start
        in_turns(low=1.3),  # no kind is learned
        in_turns(lrs=[0.01, 0.1] * 100),  # the rate comes in turns
        in_turns(lrs=[]),  # or may
    ],
    ids=["fixed order", "learned", "nothing learned", "cyclic rate", "unknown rate"],
)
def test_what_else_goes_in_cycles_is_none(history):
    assert verdict(NAME, history) is None


@pytest.mark.parametrize(("floor", "said"), [(2.2, False), (2.8, True)])
def test_a_task_with_a_taller_loss_of_its_own_is_measured_against_its_own_start(floor, said):
    assert ("cycle" in str(verdict(NAME, two_tasks(floor, 4.6)))) == said


def test_without_epochs_a_fixed_order_could_be_the_cycle():
    assert "cycle" not in verdict(NAME, in_turns(epochs=[])).message


def test_noise_without_a_cycle_is_none():
    history = watched(noisy(np.full(300, 1.0), 0.3, seed=3))
    history.lrs = [0.1] * 300
    history.epochs = [Epoch(step=s, val_accuracy=0.9) for s in range(30, 301, 30)]
    assert verdict(NAME, history) is None


@pytest.mark.parametrize(
    ("momentum", "second", "end", "said"),
    [(0.995, None, 1.5, True), (0.99, None, 1.5, False), (0.995, 0.999, 1.5, False), (0.995, None, 0.3, False)],
    ids=["carried on", "of the courses", "of Adam", "learned all the same"],
)
def test_a_momentum_beyond_the_usual_is_named_where_much_is_left(momentum, second, end, said):
    history = watched(falling(end=end))
    history.groups = [OptimizerGroup("SGD", momentum, second)]
    found = verdict(NAME, history)
    assert (found is not None) == said
    assert not said or "carries each step on for 200 more" in found.message


def waves(count=3, low=1.0, high=2.2, steps=300, images=32, **fields):
    """The loss falls to `low` and climbs to `high`, slowly and so many times; batches of `images`, None: unknown."""
    place = np.linspace(0, count, steps)
    losses = np.r_[np.full(10, 2.3), low + (high - low) * np.abs(np.cos(np.pi * place))]
    history = watched(noisy(losses, 0.03))
    if images:
        history.samples = [replace(s, output=Output(images, 10, 0.1)) for s in history.samples]
    return replace(history, **fields)


@pytest.mark.parametrize(
    ("history", "climbs"),
    [
        (waves(), 3),
        (waves(5), 5),
        (waves(2), 0),  # two may be chance
        (waves(low=1.5), 0),  # not far enough down
        (waves(high=1.4, low=0.5), 0),  # never back to where it began
        (waves(images=5), 0),  # batches of five swing by as much
        (waves(images=None), 0),  # and so may those of no one knows how many
        (waves(class_counts=np.array([90, 10])), 0),  # batches cost what they hold
        (waves(lrs=(0.1 + 0.05 * np.cos(np.linspace(0, 6 * np.pi, 310))).tolist()), 0),  # the rate restarts
        (waves(lrs=[*np.linspace(0, 0.1, 30), *[0.1] * 280]), 3),  # a warm-up
        (waves(losses=falling(310)), 0),
    ],
)
def test_a_loss_that_climbs_again_and_again_however_slowly(history, climbs):
    found = verdict(NAME, history)
    if not climbs:
        assert "climbed again" not in str(found)
        return
    assert f"climbed again {climbs} times" in found.message
    assert len(found.evidence["steps"]) == climbs
    assert np.diff(found.evidence["steps"]) == pytest.approx(300 / climbs, abs=15)


@pytest.mark.parametrize("steps", [30, 60, 100, 150])
@pytest.mark.parametrize("tasks", [4, 5, 8])
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_tasks_one_after_another_jump_and_are_no_waves(steps, tasks, noise):
    """Each begins where guessing is and is learned within a third of its time."""
    task = np.maximum(0.4, np.linspace(2.3, -3.0, steps))
    assert _waving(waves(losses=noisy(np.tile(task, tasks), noise))) is None


@pytest.mark.parametrize(("noise", "steps"), [(0.25, 1000), (0.18, 20_000), (0.14, 50_000)])
@pytest.mark.parametrize("seed", range(3))
def test_noise_about_one_level_is_no_wave_however_long_it_lasts(noise, steps, seed):
    losses = np.exp(noise * np.random.default_rng(seed).normal(size=steps))
    assert _waving(waves(losses=losses.tolist())) is None
