"""What is the cause and what came of it, on histories written by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.diagnosis.rules.histories import epochs, falling, noisy, sample, seen_as, verdict, watched
from wellfit.diagnosis.history import History, Layer, Output, Parameter, Passes, Sample
from wellfit.diagnosis.rules import RULES, judge, lacking
from wellfit.diagnosis.rules.likeness import lasting_difference
from wellfit.diagnosis.rules.signs import never_learned

FLAT = noisy([2.303] * 200, scale=0.005)


def answers(shown, said, correct=0, **kwargs):
    """A watched step every ten, each with these counts of targets and answers."""
    shown, said = np.asarray(shown), np.asarray(said)
    return Output(int(shown.sum()), len(shown), 0.1, targets=shown, predicted=said, correct=correct, **kwargs)


def with_outputs(losses, outputs, counts=None):
    history = watched(losses)
    history.samples = [sample(10 * i, output=output) for i, output in enumerate(outputs)]
    history.class_counts = np.sum([o.targets for o in outputs], 0) if counts is None else np.asarray(counts)
    return history


def test_a_rate_that_is_gone_wastes_the_rest_of_the_run():
    losses = noisy(2.3 - 0.002 * np.arange(200), 0.01)
    history = watched(losses)
    history.lrs = [0.1 * 0.1 ** (i // 25) for i in range(200)]
    assert "change nothing" in verdict("decayed-too-early", history).message
    # a cosine is below a thousandth of its top at the very end alone
    history.lrs = [0.05 * (1 + math.cos(math.pi * i / 200)) for i in range(200)]
    assert verdict("decayed-too-early", history) is None


def test_classes_that_come_in_groups_unteach_each_other():
    halves = [answers([7, 6, 6, 7, 6, 0, 0, 0, 0, 0], [3] * 10), answers([0, 0, 0, 0, 0, 6, 7, 6, 6, 7], [3] * 10)] * 10
    assert "Shuffle" in verdict("oscillating", with_outputs(falling(200, end=1.2), halves)).action
    draws = np.random.default_rng(0)
    alike = [answers(draws.multinomial(32, [0.1] * 10), [3] * 10) for _ in range(20)]
    assert verdict("oscillating", with_outputs(falling(200, end=1.2), alike)) is None


def test_a_class_is_lost_where_all_others_are_found_even_on_a_hard_task():
    hard = [answers([4, 4, 4, 4, 4], [6, 5, 5, 4, 0], correct=6) for _ in range(20)]
    assert verdict("class-collapsed", with_outputs(falling(200), hard)).evidence["classes"] == [4]
    # where one of the others is hardly said either, the net has only begun
    said = [17, 10, 8, 5, 0, 0, 0, 0, 0, 0]
    begun = [answers([4] * 10, said, correct=8)] * 19 + [answers([4] * 10, [16, 10, 8, 5, 1, *[0] * 5], correct=8)]
    assert verdict("class-collapsed", with_outputs(falling(200), begun)) is None


def test_rare_classes_that_never_come_up_are_ignored():
    some = [answers([16, 15, 0], [16, 15, 0], correct=30) for _ in range(18)]
    rare = [*some, *[answers([16, 15, 1], [16, 16, 0], correct=30)] * 3]
    assert verdict("imbalance-ignored", with_outputs(falling(210), rare)) is not None
    said = [*some, *[answers([16, 15, 1], [16, 15, 1], correct=32)] * 3]
    assert verdict("imbalance-ignored", with_outputs(falling(210), said)) is None


def test_updates_that_grew_before_the_loss_are_its_cause_and_a_first_step_too_long_is_the_rate():
    losses = [2.3, 2.3, 2.4, 900.0, *[1e6] * 40]
    history = watched(losses)
    ratios = {0: 0.02, 1: 5.0, 2: 3.0, 10: 8.0, 20: 8.0, 30: 8.0, 40: 8.0}
    history.samples = [sample(step, ratio=ratio) for step, ratio in ratios.items()]
    assert verdict("updates-too-large", history) is not None
    history.samples[0] = sample(0, ratio=20.0)
    assert verdict("updates-too-large", history) is None
    history.samples[:3] = [sample(0, ratio=0.02), sample(1, ratio=0.03), sample(2, ratio=0.03)]
    assert verdict("updates-too-large", history) is None


@pytest.mark.parametrize("dead_at_first", [0.9, 0.1])
def test_units_that_died_for_want_of_something_to_learn_are_no_cause(dead_at_first):
    history = watched(FLAT)
    history.samples = [
        replace(s, layers=(Layer("1", "relu", 0.5, 0.5, 0.1, dead=dead_at_first if place < 8 else 0.9),))
        for place, s in enumerate(history.samples)
    ]
    severity = verdict("dead-relu", history).severity
    assert (severity == "info") == (dead_at_first < 0.5)


def test_answers_that_grew_alike_for_want_of_something_to_learn_are_no_cause():
    def history(first):
        return with_outputs(FLAT, [Output(32, 10, first if i < 8 else 1e-5) for i in range(20)], counts=[100] * 10)

    assert verdict("constant-output", history(1e-5)) is not None
    assert verdict("constant-output", history(0.02)) is None


def test_a_second_softmax_is_seen_by_the_exact_loss_before_the_answers_differ():
    def history(loss):
        outputs = [Output(32, 10, 0.01, as_logits=2.3026, as_twice=2.30259) for _ in range(20)]
        return with_outputs([loss] * 200, outputs, counts=[100] * 10)

    assert verdict("double-softmax", history(2.30259)) is not None
    assert verdict("double-softmax", history(2.3026)) is None


def test_batches_of_two_swing_where_they_do_not_learn():
    def history(level):
        losses = noisy([2.3] * 100 + [level] * 100, 0.6, seed=1)
        return with_outputs(losses, [Output(2, 10, 0.1) for _ in range(20)], counts=[10] * 10)

    assert verdict("oscillating", history(2.0)) is not None
    assert verdict("oscillating", history(0.5)) is None


def test_what_is_learned_by_heart_with_a_wide_gap_is_overfitting():
    train = [0.5, 0.8, 0.95, *[1.0] * 7]
    still = [0.5, 0.7, 0.75, 0.76, 0.76, *[0.76] * 5]
    losses = [0.9] * 10
    found = verdict("overfitting", History(epochs=epochs(train_accuracy=train, val_accuracy=still, val_loss=losses)))
    assert found.severity == "warning"
    gains = [*still[:5], 0.78, 0.79, 0.8, 0.8, 0.81]
    found = verdict("overfitting", History(epochs=epochs(train_accuracy=train, val_accuracy=gains, val_loss=losses)))
    assert found.severity == "info"


def test_a_rate_that_comes_and_goes_is_oscillating_and_not_too_high():
    history = watched(noisy([2.3] * 100 + [0.5] * 100), ratio=0.2)
    history.lrs = [0.1] * 200
    assert verdict("lr-too-high", history) is not None
    history.lrs = [0.1 if i // 10 % 2 else 0.005 for i in range(200)]
    assert verdict("lr-too-high", history) is None


def test_layers_that_shrink_by_decades_are_a_bad_start_wherever_little_is_learned():
    def history(end):
        losses = noisy(np.linspace(2.3, end, 200), 0.01)
        made = watched(losses)
        layers = tuple(Layer(str(i), "relu", 0.1, 10.0 ** (-3 * i), 10.0 ** (-3 * i)) for i in range(3))
        made.samples[0] = replace(made.samples[0], layers=layers)
        return made

    assert "shrink" in verdict("bad-initialisation", history(2.0)).message
    assert verdict("bad-initialisation", history(0.1)) is None


@pytest.mark.parametrize(("val", "severity"), [(0.4, "warning"), (0.7, "info")])
def test_training_images_changed_on_purpose_are_no_mismatch_where_validation_is_no_worse(val, severity):
    def figures(std):
        return seen_as(torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * std)

    rows = epochs(train_accuracy=[0.7] * 3, val_accuracy=[val] * 3)
    history = History(epochs=[replace(row, passes=Passes(1, inputs=(figures(1.0),))) for row in rows])
    history.samples = [sample(10 * i, inputs=figures(3.0)) for i in range(4)]
    assert RULES["train-val-mismatch"].judge(history).severity == severity


@pytest.mark.parametrize("val", [0.4, 0.7])
def test_what_no_augmentation_does_is_a_mismatch_however_validation_stands(val):
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)) ** 3  # mostly dark
    seen, inverted = seen_as(images), seen_as(1 - images)
    rows = epochs(train_accuracy=[0.7] * 3, val_accuracy=[val] * 3)
    history = History(epochs=[replace(row, passes=Passes(1, inputs=(inverted,))) for row in rows])
    history.samples = [sample(10 * i, inputs=seen) for i in range(4)]
    assert RULES["train-val-mismatch"].judge(history).severity == "warning"


PICTURES = torch.rand(64, 1, 1, 1, generator=torch.Generator().manual_seed(1)) + torch.rand(
    64, 3, 8, 8, generator=torch.Generator().manual_seed(0)
)


def validated_on(change, course):
    """Validation on pictures (A) or on those after a change (B and on, more and more of it), as training ends."""
    rows = epochs(train_accuracy=[0.7] * len(course), val_accuracy=[0.7] * len(course))
    looks = {"A": PICTURES}
    for name in "BCD":
        looks[name] = change(list(looks.values())[-1])
    history = History(epochs=[])
    for row, name in zip(rows, course, strict=True):
        history.epochs.append(replace(row, passes=Passes(1, inputs=(seen_as(looks[name]),))))
    history.samples = [sample(10 * i, inputs=seen_as(looks[course[-1]])) for i in range(4)]
    return history


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x, None),
        (lambda x: 0.5 * x, "contrast"),
        (lambda x: 0.8 * x, "contrast"),  # too little to tell training and validation apart, but nothing is augmented
        (lambda x: 0.5 * x[..., :4], None),  # of another size
    ],
)
def test_a_set_that_was_validated_on_is_prepared_in_the_same_way_at_every_epoch(change, said):
    found = RULES["train-val-mismatch"].judge(validated_on(change, "AABB"))
    assert (found is not None) == (said is not None)
    if found:
        assert found.severity == "warning"
        assert "from epoch 3 on " in found.message
        assert "up to epoch 2 " in found.message
        assert said in found.message


@pytest.mark.parametrize("course", ["AAAB", "ABBB", "ABAB", "AABA", "ABCD", "AAAA"])
def test_sets_that_change_for_an_epoch_or_at_each_are_other_images(course):
    assert RULES["train-val-mismatch"].judge(validated_on(lambda x: 0.5 * x, course)) is None


def test_one_of_several_sets_may_be_the_one_that_changes():
    history = validated_on(lambda x: 0.5 * x, "AABB")
    other = seen_as(1.05 * PICTURES)
    both = [replace(e, passes=Passes(2, inputs=(other, *e.passes.inputs))) for e in history.epochs]
    assert RULES["train-val-mismatch"].judge(replace(history, epochs=both)) is not None
    uneven = [*both[:3], history.epochs[3]]
    assert RULES["train-val-mismatch"].judge(replace(history, epochs=uneven)) is None


def test_a_remark_on_training_images_hides_no_warning_of_validation():
    history = validated_on(lambda x: 0.5 * x, "AABB")
    history.samples = [sample(10 * i, inputs=seen_as(3 * PICTURES)) for i in range(4)]
    assert RULES["train-val-mismatch"].judge(replace(history, epochs=history.epochs[:2] * 2)).severity == "info"
    assert RULES["train-val-mismatch"].judge(history).severity == "warning"


def as_it_is(x):
    return x


def alone(x):
    """Each image less its own level."""
    return x - x.mean((1, 2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        (alone, as_it_is, "all training images"),
        (lambda x: alone(x) * torch.tensor([1.0, 2, 3])[:, None, None], as_it_is, "all training images"),
        (as_it_is, alone, None),  # as augmentation of what was standardised alike does
        (as_it_is, lambda x: 0.2 * x, None),  # less of everything
        (lambda x: x[:, :, :1, :1].expand_as(x), as_it_is, None),  # no contrast
        (alone, alone, None),
    ],
)
def test_images_that_were_each_standardised_by_themselves_on_one_side(train, val, said):
    found = lasting_difference(seen_as(train(PICTURES)), seen_as(val(PICTURES)))
    assert ("each was standardised by itself" in str(found)) == (said is not None)
    assert said is None or said in found


@pytest.mark.parametrize(
    ("end", "said"),
    [([-30.0] * 10, True), ([-5.0] * 10, False), ([-1.0, -1e3, -1e9, -math.inf], True), ([1.0, math.inf], False)],
)
def test_a_loss_without_a_floor_explodes_downwards_and_no_rate_is_to_blame(end, said):
    history = watched([*noisy([2.3] * 40), *end])
    history.class_counts = np.full(10, 100)
    found = [f for f in judge(history)[0] if f.severity != "info"]
    assert any("without a floor" in f.message for f in found) == said
    assert not (said and any(f.id == "lr-too-high" for f in found))


@pytest.mark.parametrize(
    ("n", "changes", "said"),
    [
        (21, {}, True),
        (19, {}, False),  # too early to say
        (21, {"unseen": {"updates": "they are on other machines"}}, False),
        (21, {"lrs": [0.0] * 21}, False),  # nothing is to move yet
        (21, {"lrs": [0.1] * 21}, True),
    ],
)
def test_where_no_weight_moves_nothing_is_learned(n, changes, said):
    history = replace(watched(noisy([1.0] * n)), **changes)
    history.samples = [sample(step, ratio=0.0, gradient=0.0) for step in range(n)]
    assert ("not-learning" not in lacking(history)) == said
    if said:
        assert "no weight got a gradient, and none has moved" in verdict("not-learning", history).message
    history.samples[-1] = sample(n - 1, ratio=1e-6)
    assert "not-learning" in lacking(history)


def test_a_net_that_guesses_better_than_chance_has_learned_something_whatever_its_loss_says():
    guesses = [answers([10] * 4, [10] * 4, correct=20) for _ in range(20)]
    assert verdict("not-learning", with_outputs(FLAT, guesses)) is None
    none = [answers([10] * 4, [10] * 4, correct=10) for _ in range(20)]
    assert verdict("not-learning", with_outputs(FLAT, none)) is not None


def test_a_wild_start_counts_where_it_was_not_made_good():
    def history(end):
        made = watched(falling(300, end=end))
        made.samples = [sample(s, ratio=0.15 if s <= 20 else 0.005) for s in (0, 1, 2, *range(10, 300, 10))]
        return made

    assert "not made good" in verdict("updates-too-large", history(0.8)).message
    assert verdict("updates-too-large", history(0.02)) is None


def test_long_updates_count_where_the_loss_jumps():
    steady = watched(falling(300), ratio=0.04)
    assert verdict("updates-too-large", steady) is None
    losses = np.array(falling(300, end=1.0))
    losses[[150, 151]] = 5.0
    found = verdict("updates-too-large", watched(losses.tolist(), ratio=0.04))
    assert "and the loss jumps" in found.message
    assert found.evidence["limit"] == 0.025
    assert verdict("updates-too-large", watched(losses.tolist(), ratio=0.004)) is None


def test_a_validation_loss_beyond_all_uncertainty_is_a_mismatch():
    def history(val_loss, val_accuracy=0.6):
        curves = epochs(train_loss=[0.9, 0.6, 0.5], val_loss=[val_loss] * 3, val_accuracy=[val_accuracy] * 3)
        return History(losses=falling(), classes=10, epochs=curves)

    assert "never so sure and so wrong" in verdict("train-val-mismatch", history(40.0)).message
    assert verdict("train-val-mismatch", history(4.0)) is None  # overfitted
    assert verdict("train-val-mismatch", history(40.0, val_accuracy=0.1)) is None  # guesses, for some other reason


def of_two_groups(still_ratio, gradient):
    """Three weights: two move, the third's updates and gradient are as given; a rate of 0.1."""
    samples = []
    for step in range(0, 100, 10):
        norms, moves = np.ones(3), np.array([1e-3, 1e-3, still_ratio])
        samples.append(Sample(step, norms, moves, np.array([1.0, 1.0, gradient]), 0.01))
    parameters = [Parameter(f"{i}.weight", 100) for i in range(3)]
    return History(falling(100), [0.1] * 100, samples=samples, parameters=parameters, classes=10)


def test_a_group_whose_rate_is_zero_is_frozen():
    found = verdict("frozen-parameters", of_two_groups(0.0, gradient=1.0))
    assert found.evidence["parameters"] == ["2.weight"]
    assert "group is 0" in found.message
    assert verdict("frozen-parameters", of_two_groups(1e-6, gradient=1.0)) is None


def test_a_step_that_is_too_small_to_show_is_not_called_frozen():
    """As of a bias before BatchNorm, whose gradient is nothing but rounding."""
    assert verdict("frozen-parameters", of_two_groups(0.0, gradient=1e-7)) is None


def test_a_divided_loss_is_no_knowledge():
    """A mean loss that is divided by the batch size starts far below log C, while the answers are guesses."""
    history = watched([0.036 - 1e-6 * i for i in range(200)], ratio=1e-4, promised=1e-6)
    history.epochs = epochs(train_accuracy=[0.1, 0.11, 0.1])
    history.lrs = [0.1] * 200
    assert verdict("lr-too-low", history) is not None
    history.epochs = epochs(train_accuracy=[0.99, 0.99, 0.99])
    assert verdict("lr-too-low", history) is None


def test_steps_of_a_usual_length_are_not_called_short():
    """Early in a training that goes well, long steps keep most of what they promise."""
    losses = noisy(np.linspace(2.3, 1.3, 150), 0.01)
    assert verdict("lr-too-low", watched(losses, ratio=5e-3, promised=1.0 / 150)) is None
    assert verdict("lr-too-low", watched(losses, ratio=1e-3, promised=1.0 / 150)) is not None


def grouped(losses):
    """Ten classes; each batch holds 16 images of four of them."""
    draw = np.random.default_rng(0)
    outputs = []
    for _ in range(len(losses) // 10):
        shown = np.zeros(10, int)
        shown[draw.choice(10, 4, replace=False)] = 16
        outputs.append(answers(shown, shown, correct=60))
    return with_outputs(losses, outputs)


def test_groups_of_classes_by_design_that_are_learned_do_not_oscillate():
    """As for metric learning: four classes a batch, sixteen images of each."""
    assert verdict("oscillating", grouped(falling(300, end=0.01))) is None
    assert verdict("oscillating", grouped(falling(300, end=1.2))) is not None


@pytest.mark.parametrize(("mixed", "silent"), [(False, False), (True, True)])
def test_the_largest_share_of_a_soft_target_need_not_be_said(mixed, silent):
    """Nine classes of which the last comes eight times in a run and is never said."""
    shown, said = [12] * 8 + [0], [12] * 8 + [0]
    outputs = [answers([*shown[:-1], int(i % 4 == 0)], said, correct=90, mixed=mixed) for i in range(30)]
    found = verdict("imbalance-ignored", with_outputs(falling(300, end=0.05), outputs))
    assert (found is None) == silent


def test_wild_first_steps_are_given_time_to_be_made_good():
    history = watched(noisy([1.5] * 60))
    history.samples = [sample(i, ratio=0.17 if i < 20 else 1e-3) for i in range(0, 60, 4)]
    assert verdict("updates-too-large", history) is None
    history.losses = noisy([1.5] * 120)
    assert verdict("updates-too-large", history) is not None


@pytest.mark.parametrize(("peak_at", "said"), [(3, True), (150, False)])
def test_one_group_at_a_rate_of_its_own_throws_the_loss_at_once(peak_at, said):
    """The head's updates are as long as its weights, the others' as usual; a late jump has other causes."""
    losses = noisy([2.0] * 200)
    losses[peak_at] = 100.0
    history = watched(losses)
    head = np.array([1e-3, 1e-3, 1.0])
    history.samples = [
        Sample(i, np.ones(3), head if i < 20 else head * 1e-3, np.ones(3), 0.01) for i in range(0, 200, 5)
    ]
    history.parameters = [Parameter(f"{i}.weight", 100) for i in range(3)]
    assert (verdict("lr-too-high", history) is not None) == said


def with_a_class_that_costs(much, said_of_it=0, steps=30):
    draws = np.random.default_rng(1)
    shown = draws.multinomial(32, [0.25] * 4, steps)
    said = np.array([[12, 10, 10 - said_of_it, said_of_it]] * steps)
    losses = [much * row[3] / 32 + 1.2 + 0.05 * draws.normal() for row in shown]
    outputs = [Output(32, 4, 0.1, targets=t, predicted=p, correct=9) for t, p in zip(shown, said, strict=True)]
    samples = [sample(i, output=output) for i, output in enumerate(outputs)]
    parameters = [Parameter("0.weight", 100), Parameter("2.weight", 100)]
    return History(losses, samples=samples, parameters=parameters, classes=4, class_counts=shown.sum(0))


def test_a_class_that_cannot_be_said_is_the_cause_of_a_tall_first_loss_and_of_its_swings():
    history = with_a_class_that_costs(1000.0, steps=120)
    assert "class 3 was never predicted" in verdict("class-collapsed", history).message
    assert {f.id for f in judge(history)[0]}.isdisjoint({"bad-initialisation", "lr-too-high", "oscillating"})
    # named once it is possible, or dear but no dearer than what is not yet known
    assert verdict("class-collapsed", with_a_class_that_costs(1000.0, said_of_it=1, steps=120)) is None
    assert verdict("class-collapsed", with_a_class_that_costs(3.0, steps=120)) is None
    assert verdict("bad-initialisation", with_a_class_that_costs(1000.0, said_of_it=1, steps=120)) is not None


def test_what_a_rate_did_that_was_lowered_soon_is_past():
    losses = [2.3, *[4000.0] * 4, *noisy([3.2] * 195)]
    history = watched(losses)
    history.samples = [sample(s, ratio=2.0 if s < 5 else 1e-4) for s in range(0, 200, 4)]
    history.lrs = [1.0] * 8 + [0.01] * 192
    assert [verdict(name, history).severity for name in ("exploding", "updates-too-large")] == ["info", "info"]
    assert verdict("lr-too-high", history).severity == "error"
    # a rate that stays is no past
    history.lrs = [1.0] * 200
    assert [verdict(name, history).severity for name in ("exploding", "updates-too-large")] == ["error", "warning"]


def thrown_early(steps=200, promised=0.01):
    history = watched([2.3, *[4000.0] * 2, *noisy([9.0] * (steps - 3))])
    history.samples = [sample(s, ratio=2.0 if s < 3 else 1e-4, promised=promised) for s in range(0, steps, 2)]
    history.lrs = [1.0] * 3 + [0.01] * (steps - 3)
    return history


def test_an_explosion_is_past_only_where_the_rate_is_blamed_as_an_error():
    assert verdict("exploding", thrown_early()).severity == "info"
    assert verdict("lr-too-high", thrown_early()).severity == "error"
    # along the gradient no rate is to blame, nor where a class costs much that cannot be said, nor judged so soon
    uphill = thrown_early(promised=-0.01)
    shown = with_a_class_that_costs(1000.0, steps=100)
    impossible = replace(thrown_early(), samples=shown.samples, classes=4, class_counts=shown.class_counts)
    impossible.losses = [2.3, 2.3, 4000.0, 4000.0, *(20 * np.array(shown.losses)).tolist()]
    impossible.samples = [replace(s, step=s.step + 4) for s in shown.samples]
    impossible.lrs = [1.0] * 4 + [0.01] * 100
    for history in (uphill, impossible):
        assert verdict("lr-too-high", history) is None
        assert verdict("exploding", history).severity == "error"
    soon = thrown_early(steps=18)
    assert any(need(soon) for need in RULES["lr-too-high"].needs)
    assert verdict("exploding", soon).severity == "error"


@pytest.mark.parametrize("seed", range(40))
def test_an_explosion_that_is_called_past_leaves_another_error(seed):
    draws = np.random.default_rng(seed)
    steps, early = int(draws.integers(12, 120)), int(draws.integers(1, 5))
    history = thrown_early(max(steps, 12), promised=float(draws.choice([-0.01, 0.01])))
    end = float(draws.choice([2.0, 2.6, 9.0, 400.0]))
    history.losses = [
        2.3,
        *[float(draws.choice([30.0, 4000.0]))] * early,
        *noisy([end] * (len(history.lrs) - early - 1)),
    ]
    findings = judge(history)[0]
    if any(f.id == "exploding" for f in findings):
        assert any(f.severity == "error" for f in findings)


def test_weights_that_grow_at_once_without_a_rise_of_the_loss_began_too_small():
    def history(growth, losses):
        seen = watched(losses)
        scales = 1 + (growth - 1) * np.minimum(1, np.arange(0, len(losses), 10) / 30)
        seen.samples = [
            Sample(10 * i, scale * np.ones(2), 1e-2 * np.ones(2), np.ones(2), 0.01) for i, scale in enumerate(scales)
        ]
        return seen

    found = verdict("bad-initialisation", history(30.0, falling()))
    assert "30 times" in found.message
    assert found.evidence["growth"] == pytest.approx(30)
    assert verdict("bad-initialisation", history(3.0, falling())) is None
    # a rate that throws the loss makes weights grow as well
    assert verdict("bad-initialisation", history(30.0, [2.3, 5.0, 6.0, *falling(297)])) is None


def test_a_rate_that_had_to_be_lowered_was_not_lowered_too_early():
    losses = [2.3, *[4000.0] * 4, *noisy([2.31] * 195, 0.003)]
    history = watched(losses)
    history.samples = [sample(s, ratio=2.0 if s < 5 else 1e-4) for s in range(0, 200, 4)]
    history.lrs = [1.0] * 8 + [1e-4] * 192
    assert verdict("decayed-too-early", history) is None
    assert verdict("lr-too-high", history) is not None
    # the same rates, and nothing that they threw
    calm = replace(history, losses=noisy([2.31] * 200, 0.003), samples=[sample(s) for s in range(0, 200, 4)])
    assert verdict("decayed-too-early", calm) is not None


def test_long_steps_that_throw_validation_about_are_too_large():
    history = watched(falling(300, end=1.8), ratio=0.03)
    history.epochs = epochs(train_loss=[2.2, 2.0, 1.9, 1.8], val_loss=[2.6, 3.5, 2.1, 3.2])
    found = verdict("updates-too-large", history)
    assert "and the validation loss leaps from epoch to epoch" in found.message
    assert found.evidence["limit"] == 0.02
    history.epochs = epochs(train_loss=[2.2, 2.0, 1.9, 1.8], val_loss=[2.2, 2.1, 2.0, 1.9])
    assert verdict("updates-too-large", history) is None
    # steps of a usual length are not to blame
    usual = watched(falling(300, end=1.8), ratio=0.003)
    usual.epochs = epochs(train_loss=[2.2, 2.0, 1.9, 1.8], val_loss=[2.6, 3.5, 2.1, 3.2])
    assert verdict("updates-too-large", usual) is None
    # nor are they where training is learned by heart
    learned = watched(falling(300, end=0.2), ratio=0.03)
    learned.epochs = epochs(train_loss=[1.2, 0.8, 0.4, 0.2], val_loss=[2.6, 3.5, 2.1, 3.2])
    assert verdict("updates-too-large", learned) is None


@pytest.mark.parametrize(
    ("losses", "never"),
    [
        ([2.303] * 200, True),
        ([2.4] * 20 + [2.303] * 180, True),  # down to what knowing nothing costs
        ([2.4] * 100 + [2.2] * 20 + [2.303] * 80, False),  # something was learned, and lost
        ([2.4] * 20 + [1.5] * 180, False),
    ],
)
def test_to_come_down_to_chance_is_no_learning(losses, never):
    history = with_outputs(noisy(losses, 0.002), [answers([10] * 10, [10] * 10, correct=10)] * 20)
    for place, loss in enumerate(history.losses[::10]):
        output = replace(history.samples[place].output, as_logits=loss)
        history.samples[place] = replace(history.samples[place], output=output)
    history.classes = 10
    assert never_learned(history) == never


@pytest.mark.parametrize(("far", "severity"), [(0.1, "info"), (3.0, "error")])
def test_units_that_the_first_steps_of_their_biases_killed_are_the_cause(far, severity):
    """The weights hardly move, the biases by `far` an entry; units are silent soon after, and nothing is learned."""
    history = watched(FLAT)
    history.parameters = [Parameter("0.weight", 100), Parameter("0.bias", 100, weight=False)]
    for place, s in enumerate(history.samples):
        layers = (Layer("1", "relu", 0.1, 0.5, 0.2, dead=0.95 if place > 4 else 0.0),)
        history.samples[place] = replace(s, layers=layers, update_norm=np.array([1e-3, far * 10]))
    assert verdict("dead-relu", history).severity == severity


@pytest.mark.parametrize(
    ("first", "now", "place", "frozen", "severity"),
    [
        (0.9, 0.6, 1, False, "warning"),  # it was drawn so
        (0.7, 0.6, 1, False, "info"),  # as the last layers of pretrained nets are
        (0.9, 0.6, 1, True, "info"),  # of a net whose first layers are kept as they are
        (0.7, 0.6, 0, False, "warning"),  # first layers are not
        (0.1, 0.6, 0, False, "info"),  # what is learned may do so
    ],
)
def test_units_that_were_silent_from_the_start_though_all_is_learned(first, now, place, frozen, severity):
    history = watched(falling(end=0.05))
    history.parameters = [replace(history.parameters[0], requires_grad=not frozen), history.parameters[1]]
    for k, s in enumerate(history.samples):
        dead = [0.0, 0.0]
        dead[place] = first if k == 0 else now
        layers = tuple(Layer(str(i), "relu", 0.1, 0.5, 0.2, dead=d) for i, d in enumerate(dead))
        history.samples[k] = replace(s, layers=layers)
    assert verdict("dead-relu", history).severity == severity
