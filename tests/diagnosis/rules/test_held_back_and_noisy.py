"""What holds a network back, and what so few or such images cost by themselves, on histories written by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.diagnosis.rules.histories import epochs, falling, noisy, sample, seen_as, verdict, watched
from wellfit.diagnosis.history import History, Layer, Output, Parameter, Passes
from wellfit.diagnosis.rules import judge, lacking

# ---- whole epochs ----------------------------------------------------------------------------------------

RISING = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
CREEPING = [0.1, 0.14, 0.18, 0.22, 0.26, 0.3]  # as long again would bring 0.24, half of what is missing
STOPPED = [0.2, 0.3, 0.35, 0.36, 0.361, 0.36]


def slowly(curve=CREEPING, **changes):
    """A large network whose accuracies follow `curve`."""
    parameters = [Parameter("0.weight", 10_000), Parameter("2.weight", 10_000)]
    history = History(classes=10, epochs=epochs(train_accuracy=curve, val_accuracy=curve), parameters=parameters)
    return replace(history, **changes)


@pytest.mark.parametrize(
    ("dropped", "said"),
    [([0.7], True), ([0.1, 0.7, 0.7], True), ([0.1, 0.7, 0.2], False), ([0.65], False), ([], False)],
)
def test_a_net_that_drops_most_units_is_held_back(dropped, said):
    assert (verdict("underfitting", slowly(dropped=dropped)) is not None) == said


@pytest.mark.parametrize(("decay", "said"), [(0.011, True), (0.009, False)])
def test_a_net_that_decays_fast_is_held_back(decay, said):
    history = slowly(lrs=[0.1] * 200, losses=[2.0] * 200)
    history.samples = [sample(step, ratio=0.001) for step in range(0, 200, 10)]
    history.parameters[0] = replace(history.parameters[0], decay=decay)
    assert (verdict("underfitting", history) is not None) == said


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ([Parameter("0.weight", 300), Parameter("0.bias", 199, weight=False)], True),
        ([Parameter("0.weight", 300), Parameter("0.bias", 200, weight=False)], False),
        ([Parameter("0.weight", 96_000, requires_grad=False), Parameter("1.weight", 400)], True),
        ([Parameter("0.weight", 96_000, in_optimizer=False), Parameter("1.weight", 400)], True),
        ([Parameter("0.weight", 96_000, requires_grad=False), Parameter("1.weight", 4_000)], False),  # LoRA, a probe
        ([], False),  # not known
    ],
)
def test_a_net_of_few_weights_that_learn_is_held_back(parameters, said):
    assert (verdict("underfitting", slowly(parameters=parameters)) is not None) == said


def stripes(n=64, side=16):
    """Smooth grey images n×1×side×side, each a wave of its own phase."""
    phase = torch.linspace(0, 6, n).view(n, 1, 1, 1)
    return torch.sin(phase + torch.linspace(0, 6, side)).expand(n, 1, side, side)


def erased(images, share):
    return images * (torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) > share)


def noised(images, size):
    return images + size * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("trained_on", "said"),
    [
        (stripes(), None),
        (0.3 * stripes(), "keep 30% of the contrast"),
        (0.6 * stripes(), None),  # as mixing makes them
        (erased(stripes(), 0.9), "of the contrast"),
        (noised(stripes(), 2.0), "times their contrast"),
        (noised(stripes(), 0.7), None),
        (3 * stripes(), None),  # another scale, and no noise
        (0.3 * stripes(side=32), None),  # of another size, they cannot be compared
    ],
)
def test_a_net_is_held_back_where_augmentation_leaves_little_of_the_images(trained_on, said):
    history = slowly()
    history.epochs = [replace(row, passes=Passes(1, inputs=(seen_as(stripes()),))) for row in history.epochs]
    history.samples = [sample(0, inputs=seen_as(trained_on))]
    found = verdict("underfitting", history)
    assert (found is not None) == (said is not None)
    assert found is None or said in found.message


SLOW = [0.2, 0.24, 0.28, 0.32, 0.36, 0.4]


STANDS = [0.5, 0.7, 0.75, 0.76, 0.76, 0.76]


@pytest.mark.parametrize(
    ("val", "mixed", "said"),
    [
        (STANDS, False, True),
        (STANDS, True, False),  # the accuracy on mixed images is no measure
        ([1.9 * v for v in SLOW], False, False),  # it is still learning, as with dropout
        ([v + 0.14 for v in STANDS], False, False),  # it does well, as where training is made hard on purpose
        ([v - 0.16 for v in STANDS], False, False),  # as ordinary augmentation does it
    ],
)
def test_training_that_something_keeps_down_underfits_though_validation_stands_higher(val, mixed, said):
    history = slowly(SLOW, epochs=epochs(train_accuracy=SLOW, val_accuracy=val))
    history.samples = [sample(0, output=Output(8, 10, 0.1, mixed=mixed))]
    found = verdict("underfitting", history)
    assert (found is not None) == said
    assert not said or ("stands above it at 0.76" in found.message and "keeps it down" in found.message)


def test_a_loss_that_is_not_that_of_the_answers_disturbs_by_design():
    """As mixing two targets in the loss does, or an adversary's images."""
    history = slowly(SLOW, epochs=epochs(train_accuracy=SLOW, val_accuracy=STANDS))
    history.losses = [1.5] * 200
    for as_logits, said in ((1.5, True), (0.5, False)):
        history.samples = [sample(s, output=Output(8, 10, 0.1, as_logits=as_logits)) for s in range(0, 200, 10)]
        assert (verdict("underfitting", history) is not None) == said


def test_a_long_curve_has_stopped_where_half_of_it_stands():
    """The last three epochs alone rise by chance."""
    stands = [0.2, 0.3, 0.33, 0.34, 0.36, 0.36, 0.34, 0.33, 0.35, 0.37]
    assert verdict("underfitting", slowly(stands)) is not None
    assert verdict("underfitting", slowly([0.2, 0.3, 0.4, 0.6, 0.6, 0.5, 0.56, 0.62])) is None  # rises after a restart
    assert verdict("underfitting", slowly([0.2, 0.22, 0.25, 0.3, 0.34, 0.4, 0.45, 0.5, 0.55, 0.61])) is None


def test_a_net_that_is_held_back_and_rises_all_the_same_is_none():
    assert verdict("underfitting", slowly(RISING, dropped=[0.9])) is None
    assert verdict("underfitting", slowly([0.3, 0.4, 0.5, 0.6, 0.7, 0.8], dropped=[0.9])) is None


@pytest.mark.parametrize(("steps", "said"), [(99, False), (100, True), (0, True)])
def test_a_short_run_does_not_say_what_a_net_could_fit(steps, said):
    assert (verdict("underfitting", slowly(STOPPED, losses=[2.0] * steps)) is not None) == said


@pytest.mark.parametrize(("peak", "said"), [(22.0, True), (24.0, False)])
def test_a_net_that_exploded_guesses_whatever_its_labels_are(peak, said):
    curves = epochs(train_accuracy=[0.2, 0.5, 0.8, 0.95], val_accuracy=[0.1, 0.11, 0.09, 0.1])
    history = History(losses=[2.3, peak, *falling(100)], classes=10, epochs=curves)
    assert (verdict("labels-shuffled", history) is not None) == said


@pytest.mark.parametrize(
    ("promised", "end", "said"),
    [(3.0, 1.2, False), (2.2, 1.2, True), (3.0, 1.1, True), (math.nan, 1.2, True)],
)
def test_a_plateau_of_steps_that_overshoot_has_learned_nothing_to_refine(promised, end, said):
    """log 10, 2.303, is the first loss: half of that, 1.15, must be left."""
    history = watched([2.3] * 90, promised=promised)
    train = [2.0, 1.7, 1.4, *[end] * 6]
    curves = {"val_loss": [t + 0.1 for t in train], "val_accuracy": [0.2, 0.3, 0.4, *[0.5] * 6]}
    history.lrs, history.epochs = [0.1] * 90, epochs(train_loss=train, **curves)
    assert (verdict("plateau", history) is not None) == said


# ---- batches of few images -------------------------------------------------------------------------------


def spiked(peak=3.0, start=2.3, end=0.2, classes=10, **kwargs):
    losses = falling(400, start=start, end=end)
    losses[250:260] = [peak] * 10
    return replace(watched(losses, **kwargs), classes=classes)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (None, True),
        (Output(5, 10, 0.1), True),
        (Output(4, 10, 0.1), False),
        (Output(1, 10, 0.1), False),
        (Output(64, 10, 0.1), True),
        (Output(64, 10, 0.1, mixed=True), False),
    ],
)
def test_batches_of_few_images_or_of_mixed_targets_cost_what_they_hold(output, said):
    assert (verdict("loss-spike", spiked(output=output)) is not None) == said


@pytest.mark.parametrize("mixed", [False, True])
def test_a_mixed_batch_that_costs_more_is_no_spike(mixed):
    made = spiked()
    made.samples = [replace(s, output=Output(64, 10, 0.1, as_logits=9.0, mixed=mixed)) for s in made.samples]
    assert (verdict("loss-spike", made) is None) == mixed


@pytest.mark.parametrize(("classes", "said"), [(2, False), (10, True), (None, True)])
def test_only_two_classes_have_a_floor_under_their_spikes(classes, said):
    history = spiked(0.45, start=0.3, end=0.02, classes=classes)
    history.losses = [loss / (1 if classes == 2 else 0.3 / 2.3) for loss in history.losses]
    assert (verdict("loss-spike", history) is not None) == said


@pytest.mark.parametrize(("peak", "said"), [(0.6, False), (0.7, True)])
def test_with_two_classes_a_few_odd_images_are_no_spike(peak, said):
    """0.1 at the time; log 2 is 0.69, and 0.35 of 1.5 is 0.525."""
    history = spiked(peak, start=0.69, end=0.1, classes=2)
    assert (verdict("loss-spike", history) is not None) == said


def wander(images=2, end=2.2, ratio=0.01, promised=0.2):
    output = Output(images, 10, 0.1) if images else None
    return watched(np.linspace(2.3, end, 200).tolist(), ratio=ratio, promised=promised, output=output)


def test_steps_of_a_few_images_that_keep_nothing_of_their_promise_wander():
    found = verdict("oscillating", wander())
    assert found.evidence["images"] == 2
    # between the medians of the first ten and the last twenty lie 185 of 199 parts of the way
    assert found.evidence["kept"] == pytest.approx(0.1 * 185 / 199 / (200 * 0.2))
    assert found.evidence["left"] == pytest.approx((2.2 + 0.1 * 29.5 / 199) / (2.3 - 0.1 * 4.5 / 199))
    assert "to and fro" in found.message
    assert verdict("oscillating", wander(images=3)) is not None
    assert verdict("oscillating", wander(images=4)) is None
    assert verdict("oscillating", wander(images=None)) is None
    # what keeps a fiftieth of its promise gets somewhere
    assert verdict("oscillating", wander(promised=0.02)) is None
    assert verdict("oscillating", wander(promised=0.024)) is not None
    assert verdict("oscillating", wander(promised=math.nan)) is None
    # shorter steps are blamed where they keep less than 0.005 and leave more than half, and none below 5e-3
    assert verdict("oscillating", wander(promised=0.08, ratio=0.0069)) is None
    assert verdict("oscillating", wander(promised=0.1, ratio=0.0069)) is not None
    assert verdict("oscillating", wander(promised=0.08, ratio=0.0071)) is not None
    assert verdict("oscillating", wander(ratio=0.0049)) is None
    assert verdict("oscillating", wander(ratio=0.0051)) is not None
    assert verdict("oscillating", wander(end=0.8, promised=2.0, ratio=0.0069)) is None
    assert verdict("oscillating", wander(end=1.1, promised=2.0, ratio=0.0069)) is not None


@pytest.mark.parametrize(("images", "said"), [(4, False), (5, True)])
def test_so_few_images_jump_as_they_come(images, said):
    saw = 0.5 + 3.0 * np.exp(-(np.arange(300) % 50) / 15)
    history = watched(noisy(saw, 0.02), output=Output(images, 10, 0.1))
    assert (verdict("oscillating", history) is not None) == said


# ---- groups and rare classes -----------------------------------------------------------------------------


def answers(shown, said, correct, **kwargs):
    return Output(
        sum(shown), len(shown), 0.1, targets=np.array(shown), predicted=np.array(said), correct=correct, **kwargs
    )


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        (0.95, 0.74, True),
        (0.95, 0.76, False),
        (0.95, None, False),
        (0.95, 0.0, True),
        (None, 0.3, False),
    ],
)
def test_groups_of_classes_are_not_learned_where_validation_lies_far_behind(train, val, said):
    """Each batch holds five of ten classes; the loss stays down, as the class of today is known."""
    halves = [answers([7, 6, 6, 7, 6, 0, 0, 0, 0, 0], [3] * 10, 30), answers([0] * 5 + [6, 7, 6, 6, 7], [3] * 10, 30)]
    history = watched(falling(300, end=0.01))
    history.samples = [sample(10 * i, output=halves[i % 2]) for i in range(30)]
    history.class_counts = np.full(10, 96)
    assert verdict("oscillating", history) is None
    history.epochs = epochs(train_accuracy=[0.3, train], val_accuracy=[0.3, val])
    assert (verdict("oscillating", history) is not None) == said


@pytest.mark.parametrize(
    ("usual", "said_of_it", "mixed", "lost"),
    [
        (3, 0, False, True),
        (3, 1, False, False),
        (3, 0, True, False),  # the largest share need not be said
        (2, 0, False, False),  # the usual class comes 36 times beside it, not 53
    ],
)
def test_one_image_of_a_very_rare_class_is_enough(usual, said_of_it, mixed, lost):
    """Nine classes, 30 watched steps; the one image of the last class comes at step 120."""
    outputs = []
    for i in range(30):
        shown = [usual] * 8 + [int(i == 12)]
        said = [usual] * 8 + [said_of_it if i == 12 else 0]
        outputs.append(answers(shown, said, 7 * usual, mixed=mixed))
    history = watched(falling(300, end=0.05))
    history.samples = [sample(10 * i, output=output) for i, output in enumerate(outputs)]
    found = verdict("imbalance-ignored", history)
    assert (found is not None and found.evidence["classes"] == [8]) == lost


def test_a_rare_class_is_missed_after_sixty_steps_and_another_one_after_a_hundred():
    def history(watched_steps, steps, shown):
        made = watched(falling(steps))
        made.classes, output = 3, answers(shown, [16, 16, 0], 26)
        made.samples = [sample(5 * i, output=output) for i in range(watched_steps)]
        return made

    common, rare = [11, 11, 10], [15, 15, 2]
    assert verdict("class-collapsed", history(8, 100, common)) is not None
    assert "100 steps (has 99)" in lacking(history(8, 99, common))["class-collapsed"]
    assert "8 watched steps (has 7)" in lacking(history(7, 100, common))["class-collapsed"]
    assert verdict("imbalance-ignored", history(8, 60, rare)) is not None
    assert verdict("imbalance-ignored", history(8, 59, rare)) is None
    assert "40 steps (has 39)" in lacking(history(8, 39, rare))["imbalance-ignored"]


# ---- beside others ---------------------------------------------------------------------------------------


def closing(kind, **kwargs):
    """A layer that is mostly out of play in a net that has learned, and still learns."""
    history = watched(noisy(np.r_[np.linspace(2.3, 0.1, 150), np.full(50, 0.1)], 0.005), **kwargs)
    figure = {"relu": "dead", "bounded": "saturated"}[kind]
    history.samples = [
        replace(s, layers=(Layer("1", kind, 0.5, 0.4, 0.3, **{figure: 0.1 if s.step < 100 else 0.7}),))
        for s in history.samples
    ]
    history.epochs = epochs(val_accuracy=[0.3, 0.4, 0.5, 0.6])
    return history


@pytest.mark.parametrize(("kind", "name"), [("relu", "dead-relu"), ("bounded", "saturated")])
def test_what_is_a_waste_in_a_net_that_learns_counts_where_something_else_is_wrong(kind, name):
    alone = {f.id: f.severity for f in judge(closing(kind))[0]}
    assert alone == {name: "info", "still-improving": "info"}
    beside = {f.id: f.severity for f in judge(closing(kind, carried=True))[0]}
    assert beside == {"gradients-accumulate": "error", name: "warning", "still-improving": "info"}
    # a warning will do, and is none the worse for it
    warned = {f.id: f.severity for f in judge(closing(kind, input=(110.0, 60.0)))[0]}
    assert warned == {"unnormalised-input": "warning", name: "warning", "still-improving": "info"}


def test_a_loss_without_bound_is_not_called_oscillating_as_well():
    losses = [2.3 * 1.1**i * (3.0 if i % 2 else 1.0) for i in range(200)]
    assert verdict("exploding", History(losses=losses)).severity == "error"
    assert verdict("oscillating", History(losses=losses)) is None
    swings = [2.3 * (3.0 if i % 2 else 1.0) for i in range(200)]
    assert verdict("exploding", History(losses=swings)) is None
    assert verdict("oscillating", History(losses=swings)) is not None
