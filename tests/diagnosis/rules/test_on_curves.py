"""The rules on histories written by hand: what they say, and how long they wait before they say it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.diagnosis.rules.histories import epochs, falling, noisy, sample, verdict, watched
from wellfit.diagnosis.history import History, Layer, Output, Parameter, Sample, fall_per_step, level
from wellfit.diagnosis.rules import RULES, judge, lacking
from wellfit.findings import explanations


def test_every_rule_has_an_explanation_and_an_empty_history_judges_nothing():
    assert set(RULES) <= set(explanations())
    findings, unjudged = judge(History())
    assert findings == []
    assert set(unjudged) == set(RULES)
    assert all(unjudged.values())


def test_the_families_together_judge_a_healthy_history_in_silence():
    losses = falling()
    findings, unjudged = judge(watched(losses))
    assert findings == []
    assert "nan" not in unjudged
    assert unjudged == lacking(watched(losses))


def test_level_and_slope():
    assert level(np.array([1.0, 2.0, 300.0])) == 2.0
    assert math.isnan(level(np.array([])))
    assert fall_per_step(3.0 - 0.5 * np.arange(7)) == pytest.approx(0.5)


def test_update_ratio_has_no_value_where_the_weight_is_zero():
    s = Sample(0, np.array([0.0, 2.0]), np.array([1.0, 0.02]), np.array([np.nan, 3.0]))
    assert math.isnan(s.update_ratio[0])
    assert s.update_ratio[1] == pytest.approx(0.01)
    assert s.total_gradient == 3.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_names_the_step_and_tells_growth_from_suddenness(value):
    sudden = verdict("nan", History(losses=[2.3, 2.2, 2.1, value, 2.0]))
    assert sudden.severity == "error"
    assert sudden.evidence == {"step": 3, "last_finite": 2.1, "grew_before": False}
    assert "NaN in the images" in sudden.action
    grown = verdict("nan", History(losses=[2.3, 9.0, 700.0, value]))
    assert "learning rate" in grown.action
    assert verdict("nan", History(losses=falling())) is None


def test_exploding_wants_three_steps_and_no_return():
    base = noisy([2.3] * 30)
    assert verdict("exploding", History(losses=[*base, 40.0, *base])) is None
    assert verdict("exploding", History(losses=[*base, *[40.0] * 5, *base])) is None
    found = verdict("exploding", History(losses=[*base, *[40.0] * 30]))
    assert found.evidence["step"] == 30


def test_not_learning_waits_and_spares_what_falls_warms_up_or_starts_with_knowledge():
    flat = noisy([2.303] * 150, scale=0.02)
    assert verdict("not-learning", History(losses=flat, classes=10)).evidence["steps"] == 150
    assert "not-learning" in lacking(History(losses=flat[:99]))
    assert verdict("not-learning", History(losses=falling(), classes=10)) is None
    warming = np.linspace(0, 0.1, 150).tolist()
    assert verdict("not-learning", History(losses=flat, lrs=warming, classes=10)) is None
    resumed = noisy([0.4] * 150, scale=0.02)
    assert verdict("not-learning", History(losses=resumed, classes=10)) is None


def test_a_wild_swing_oscillates_and_minibatch_noise_does_not():
    rng = np.random.default_rng(0)
    wild = (2.0 + 1.5 * np.sign(np.sin(np.arange(200))) + 0.1 * rng.normal(size=200)).tolist()
    assert verdict("oscillating", watched(wild)).evidence["swing"] > 0.5
    for seed in range(20):
        assert verdict("oscillating", watched(noisy([1.5] * 200, scale=0.2, seed=seed))) is None
    small_batch = [sample(0, output=Output(images=4, width=10, spread=0.1))]
    noise = noisy([1.5] * 200, scale=0.5)
    assert verdict("oscillating", History(losses=noise, samples=small_batch)) is None


def test_a_spike_is_named_with_its_step_and_one_hard_batch_is_none():
    losses = falling(400)
    losses[250:260] = [3.0] * 10
    found = verdict("loss-spike", History(losses=losses))
    assert found.evidence["step"] == 250
    losses = falling(400)
    losses[250] = 3.0
    assert verdict("loss-spike", History(losses=losses)) is None
    for seed in range(20):
        assert verdict("loss-spike", History(losses=falling(400, seed=seed))) is None
    stays_up = [*falling(250), *[3.0] * 100]
    assert verdict("loss-spike", History(losses=stays_up)) is None


def test_lr_too_low_wants_a_flat_loss_small_steps_and_small_promises():
    flat = noisy([2.303] * 200, scale=0.01)
    assert verdict("lr-too-low", watched(flat, ratio=1e-6, promised=1e-6)) is not None
    # the same flat loss, but every step promises a percent: the steps are not what is missing
    assert verdict("lr-too-low", watched(flat, ratio=1e-6, promised=0.02)) is None
    assert verdict("lr-too-low", watched(flat, ratio=1e-2, promised=1e-6)) is None
    assert verdict("lr-too-low", watched(flat, ratio=1e-6, promised=0.0, gradient=0.0)) is None
    assert verdict("lr-too-low", watched(falling(), ratio=1e-6, promised=1e-6)) is None


def test_steps_that_keep_their_promise_while_much_is_left_are_too_short():
    slow = noisy(2.3 - 0.004 * np.arange(200), 0.01)  # falls by 0.8 in all
    found = verdict("lr-too-low", watched(slow, ratio=3e-4, promised=0.0044))
    assert "of what the steps promised" in found.message
    # most of the promise lost to overshooting, or nearly all of the loss gone: the steps are long enough
    assert verdict("lr-too-low", watched(slow, ratio=3e-4, promised=0.04)) is None
    learned = noisy(2.3 - 0.01 * np.arange(200), 0.01)
    assert verdict("lr-too-low", watched(learned, ratio=3e-4, promised=0.011)) is None


def test_batches_of_one_class_at_a_time_unteach_each_other():
    def history(targets):
        made = watched(falling(200, end=1.2))
        made.class_counts = np.full(4, 100)
        made.samples = [
            sample(10 * i, output=Output(16, 4, 0.1, targets=np.roll(targets, i), predicted=np.full(4, 4)))
            for i in range(20)
        ]
        return made

    assert "Shuffle" in verdict("oscillating", history([16, 0, 0, 0])).action
    assert verdict("oscillating", history([6, 4, 3, 3])) is None


def test_a_loss_that_jumps_again_and_again_oscillates():
    saw = 0.8 + 1.5 * np.exp(-(np.arange(300) % 50) / 15)
    assert len(verdict("oscillating", watched(noisy(saw, 0.1))).evidence["steps"]) >= 4
    for seed in range(20):
        assert verdict("oscillating", watched(noisy(np.full(300, 0.8), 0.2, seed=seed))) is None


def test_a_tall_start_that_ends_at_chance_has_not_learned():
    def history(losses, correct):
        counts = np.full(10, 10)
        made = watched(losses)
        made.class_counts = 20 * counts
        made.samples = [
            sample(
                s, output=Output(100, 10, 0.05, as_logits=losses[s], targets=counts, predicted=counts, correct=correct)
            )
            for s in range(0, len(losses), 10)
        ]
        return made

    fell = noisy(np.r_[np.linspace(4.5, 2.31, 40), np.full(160, 2.31)], 0.005)
    assert verdict("not-learning", history(fell, correct=10)) is not None
    assert verdict("not-learning", history(fell, correct=40)) is None  # it guesses far better than chance
    assert verdict("not-learning", history(noisy(np.linspace(4.5, 1.0, 200), 0.005), correct=10)) is None


def test_first_steps_that_silence_every_difference_between_images_were_too_long():
    def history(spreads, ratios):
        made = watched(noisy([2.303] * 200, 0.005))
        made.samples = [
            sample(10 * i, ratio=r, output=Output(64, 10, spread=s))
            for i, (s, r) in enumerate(zip(spreads, ratios, strict=True))
        ]
        return made

    silenced, large = [0.02, 0.01, 1e-3] + [1e-12] * 17, [0.3] + [1e-3] * 19
    found = verdict("lr-too-high", history(silenced, large))
    assert found.severity == "error"
    assert "the same answer" in found.message
    assert verdict("lr-too-high", history([0.02] * 20, large)) is None
    assert verdict("lr-too-high", history(silenced, [1e-3] * 20)) is None
    decayed = history(silenced, large)
    decayed.samples[-1] = Sample(190, np.full(2, 1e-3), np.zeros(2), np.ones(2), output=Output(64, 10, 1e-12))
    assert verdict("lr-too-high", decayed) is None


def test_a_loss_of_classes_that_falls_without_a_floor_explodes():
    losses = noisy(-2.0 - 0.5 * np.arange(100), 0.01)
    counted = History(losses=losses, class_counts=np.full(10, 5), classes=10)
    assert "sign" in verdict("exploding", counted).action
    assert verdict("exploding", History(losses=losses)) is None  # a density may


def test_softmax_before_the_loss_is_seen_by_the_loss():
    def history(loss):
        made = watched([loss] * 60)
        made.samples = [sample(10 * i, output=Output(64, 10, 0.1, as_logits=1.0, as_twice=1.9)) for i in range(6)]
        return made

    assert verdict("double-softmax", history(1.9)).severity == "error"
    assert verdict("double-softmax", history(1.0)) is None


def test_weights_that_start_equal_are_seen_by_answers_that_start_equal():
    def history(spread, gradient):
        layers = [Layer(str(i), "relu", 0.1, 0.1, spread=0.3) for i in range(3)]
        made = watched(noisy([2.303] * 150, 0.005))
        made.samples = [
            sample(10 * i, gradient=gradient, layers=layers, output=Output(64, 10, spread)) for i in range(15)
        ]
        return made

    assert "equal" in verdict("bad-initialisation", history(1e-9, 1.0)).message
    assert verdict("bad-initialisation", history(0.02, 1.0)) is None
    assert verdict("bad-initialisation", history(1e-9, 0.0)) is None


@pytest.mark.parametrize(
    ("mean", "std", "severity"),
    [(0.0, 1.0, None), (0.45, 0.27, None), (110, 60, "warning"), (-2.0, 0.13, "warning"), (9.6, 3.9, "warning")],
)
def test_the_scale_of_the_input(mean, std, severity):
    found = verdict("unnormalised-input", History(losses=[2.3], samples=[sample(0, input=(mean, std))]))
    assert (found.severity if found else None) == severity


def test_mixed_targets_make_a_loss_swing_without_oscillating():
    rng = np.random.default_rng(0)
    wild = (2.0 + 1.5 * np.sign(np.sin(np.arange(200))) + 0.1 * rng.normal(size=200)).tolist()
    assert verdict("oscillating", watched(wild)) is not None
    assert verdict("oscillating", watched(wild, output=Output(64, 10, 0.1, mixed=True))) is None


def test_lr_too_high_wants_a_rise_that_stays_or_ends_in_nan():
    assert verdict("lr-too-high", History(losses=[2.3, 9.0, 50.0, *noisy([4.0] * 40)])).severity == "error"
    assert verdict("lr-too-high", History(losses=[2.3, 8.0, 60.0, math.inf])).evidence["bad_step"] == 3
    recovered = [2.3, 3.9, 8.0, *falling(200)]
    assert verdict("lr-too-high", watched(recovered)) is None
    # NaN out of a quiet run is no matter of the rate
    assert verdict("lr-too-high", watched([*falling(100), math.nan])) is None
    lasting = verdict("lr-too-high", watched(noisy([1.8] * 200), ratio=0.2))
    assert lasting.severity == "warning"


def test_decayed_too_early_compares_the_fall_before_and_after():
    steps = np.arange(400)
    cut = 100
    stopped = np.where(steps < cut, 2.3 - 0.008 * steps, 1.5 - 0.0002 * (steps - cut))
    lrs = np.where(steps < cut, 0.1, 0.001).tolist()
    found = verdict("decayed-too-early", History(losses=noisy(stopped, 0.01), lrs=lrs))
    assert found.evidence["step"] == cut
    # a decay after the loss has levelled off brings a drop, and is well timed
    timed = np.where(steps < cut, 1.0 + 1.3 * np.exp(-steps / 15), 0.7)
    assert verdict("decayed-too-early", History(losses=noisy(timed, 0.01), lrs=lrs)) is None
    constant = [0.1] * 400
    assert verdict("decayed-too-early", History(losses=noisy(stopped, 0.01), lrs=constant)) is None


def test_small_updates_are_judged_by_the_last_five_watched_steps():
    flat = noisy([2.303] * 100, scale=0.01)
    assert verdict("updates-too-small", watched(flat, ratio=1e-7)) is not None
    assert verdict("updates-too-small", watched(flat, ratio=1e-3)) is None
    mixed = watched(flat, ratio=1e-7)
    mixed.samples[-2] = sample(80, ratio=1e-3)
    assert verdict("updates-too-small", mixed) is None
    # the weights are too coarse to show a step at all, while there is a gradient; without one it is another finding
    assert verdict("updates-too-small", watched(flat, ratio=0.0)) is not None
    assert verdict("updates-too-small", watched(flat, ratio=0.0, gradient=0.0)) is None


def test_large_updates_are_sick_from_the_start_for_long_or_where_they_bring_nothing():
    flat, falls = noisy([2.303] * 200, scale=0.01), falling(200)

    def history(losses, ratios):
        made = watched(losses)
        made.samples = [sample(10 * i, ratio=r) for i, r in enumerate(ratios)]
        return made

    healthy = [0.1, 0.06, 0.03] + [0.01] * 17
    assert verdict("updates-too-large", history(falls, healthy)) is None
    assert "the first" in verdict("updates-too-large", history(falls, [0.3] * 5 + [0.01] * 15)).message
    assert "many" in verdict("updates-too-large", history(falls, [0.01] * 8 + [0.1] * 5 + [0.01] * 7)).message
    assert verdict("updates-too-large", history(flat, [0.06] * 20)) is not None
    assert verdict("updates-too-large", history(falls, [0.06] * 20)) is None


def test_small_updates_at_the_end_of_a_decay_are_meant():
    history = watched(noisy([2.303] * 100, scale=0.01), ratio=1e-7)
    history.lrs = [0.1] * 40 + [1e-5] * 60
    assert verdict("updates-too-small", history) is None


def test_vanishing_gradient_compares_first_and_last_layers():
    def history(first):
        norms = np.array([first, 0.1, 0.2, 1.0])
        samples = [Sample(s, np.ones(4), 1e-3 * np.ones(4), norms) for s in range(0, 60, 10)]
        return History(losses=[2.3] * 60, samples=samples, parameters=[Parameter(f"{i}", 9) for i in range(4)])

    assert verdict("vanishing-gradient", history(1e-5)).evidence["first"] == "0"
    assert verdict("vanishing-gradient", history(1e-2)) is None
    assert verdict("vanishing-gradient", history(0.0)) is None
    assert verdict("vanishing-gradient", history(np.nan)) is None


@pytest.mark.parametrize(
    ("figure", "kind", "name"), [("dead", "relu", "dead-relu"), ("saturated", "bounded", "saturated")]
)
def test_a_layer_is_sick_only_when_it_lasts(figure, kind, name):
    def history(*shares):
        return History(
            losses=[2.3] * 100,
            samples=[
                sample(10 * i, layers=[Layer("1", kind, 0.1, 0.1, **{figure: share})]) for i, share in enumerate(shares)
            ],
        )

    healthy = [0.1] * 8
    assert verdict(name, history(*healthy, 0.7, 0.8, 0.9)).evidence["layers"] == {"1": 0.7}
    assert verdict(name, history(*healthy, 0.9, 0.9)) is None
    assert verdict(name, history(*healthy, 0.9, 0.1, 0.9)) is None
    assert verdict(name, history(*[None] * 8)) is None


def test_flat_then_falling_is_a_bad_initialisation_unless_it_was_a_warm_up():
    steps = np.arange(400)
    late = noisy(np.where(steps < 120, 2.303, 0.3 + 2.0 * np.exp(-(steps - 120) / 40)), 0.005)
    found = verdict("bad-initialisation", History(losses=late, classes=10))
    assert 100 <= found.evidence["flat_steps"] <= 140
    warm = (0.1 * np.minimum(1, steps / 200) ** 4).tolist()
    assert verdict("bad-initialisation", History(losses=late, lrs=warm, classes=10)) is None
    assert verdict("bad-initialisation", History(losses=falling(400), classes=10)) is None


def test_a_tall_first_loss_is_named_beside_log_c():
    found = verdict("bad-initialisation", History(losses=[12.0, *falling(40)], classes=10))
    assert found.evidence["first_loss"] == 12.0
    assert verdict("bad-initialisation", History(losses=[3.0, *falling(40)], classes=10)) is None


def test_labels_shuffled_wants_training_to_rise_and_validation_to_guess():
    train, n = [0.2, 0.5, 0.8, 0.95], 4
    chance = History(classes=10, epochs=epochs(train_accuracy=train, val_accuracy=[0.1, 0.11, 0.09, 0.1]))
    assert verdict("labels-shuffled", chance).severity == "error"
    learns = History(classes=10, epochs=epochs(train_accuracy=train, val_accuracy=[0.2, 0.4, 0.5, 0.5]))
    assert verdict("labels-shuffled", learns) is None
    both_low = History(classes=10, epochs=epochs(train_accuracy=[0.1] * n, val_accuracy=[0.1] * n))
    assert verdict("labels-shuffled", both_low) is None
    # one class in 60% of the images: guessing gives 0.6
    skewed = History(
        classes=3,
        class_counts=np.array([60, 20, 20]),
        epochs=epochs(train_accuracy=[0.6, 0.7, 0.9], val_accuracy=[0.6, 0.6, 0.61]),
    )
    assert verdict("labels-shuffled", skewed).evidence["chance"] == 0.6


def test_overfitting_is_a_warning_only_once_validation_has_turned():
    rising = [0.5, 0.7, 0.85, 0.95, 0.99, 1.0]
    gap = epochs(
        train_accuracy=rising,
        val_accuracy=[0.5, 0.65, 0.75, 0.8, 0.82, 0.83],
        val_loss=[1.5, 1.1, 0.9, 0.8, 0.78, 0.77],
    )
    assert verdict("overfitting", History(epochs=gap)).severity == "info"
    turned = epochs(
        train_accuracy=rising, val_accuracy=[0.5, 0.65, 0.7, 0.7, 0.7, 0.7], val_loss=[1.5, 1.1, 0.9, 1.1, 1.3, 1.6]
    )
    assert verdict("overfitting", History(epochs=turned)).severity == "warning"
    close = epochs(train_accuracy=rising, val_accuracy=[v - 0.03 for v in rising], val_loss=[1.0] * 6)
    assert verdict("overfitting", History(epochs=close)) is None
    assert "overfitting" in lacking(History(epochs=turned[:3]))


def test_underfitting_wants_low_stopped_and_no_gap():
    low = [0.2, 0.3, 0.35, 0.36, 0.361, 0.36]
    assert verdict("underfitting", History(classes=10, epochs=epochs(train_accuracy=low, val_accuracy=low))) is not None
    apart = epochs(train_accuracy=low, val_accuracy=[v - 0.12 for v in low])
    assert verdict("underfitting", History(classes=10, epochs=apart)) is None
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    still = epochs(train_accuracy=rising, val_accuracy=rising)
    assert verdict("underfitting", History(classes=10, epochs=still)) is None
    creeping = [0.2, 0.21, 0.23, 0.25, 0.265, 0.28]  # at this pace the run's length again would bring 0.09 of 0.47
    slow = epochs(train_accuracy=creeping, val_accuracy=creeping)
    assert verdict("underfitting", History(classes=10, epochs=slow)) is not None
    guess = [0.1] * 6
    assert verdict("underfitting", History(classes=10, epochs=epochs(train_accuracy=guess, val_accuracy=guess))) is None


def test_plateau_wants_a_constant_rate_and_both_losses_standing():
    train = [2.0, 1.5, 1.2, 1.0, 1.0, 1.01, 1.0, 1.0, 1.0]
    val = [2.1, 1.6, 1.3, 1.1, 1.1, 1.1, 1.11, 1.1, 1.1]
    curves = epochs(train_loss=train, val_loss=val, val_accuracy=[0.2, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6])
    history = History(losses=[2.3] * 90, lrs=[0.1] * 90, classes=10, epochs=curves)
    assert "tenfold" in verdict("plateau", history).action
    history.lrs = [0.1] * 40 + [0.01] * 50
    assert verdict("plateau", history) is None
    moving = epochs(train_loss=[2.0 * 0.8**i for i in range(9)], val_loss=val, val_accuracy=[0.5] * 9)
    assert verdict("plateau", History(losses=[2.3] * 90, lrs=[0.1] * 90, epochs=moving)) is None


def thrown(gain: float, jump: float) -> History:
    """Twelve epochs at a constant rate; validation jumps by `jump` each epoch around a mean that gains in the end."""
    sign = np.where(np.arange(12) % 2, 0.5, -0.5)
    mean = np.array([0.3, 0.5, 0.6, 0.7] + [0.7] * 4 + [0.7 + gain] * 4)
    loss = np.array([1.8, 1.4, 1.1, 0.9] + [0.9] * 4 + [0.9 - 4 * gain] * 4)
    # Each third finds a better best, as the best of more draws does; training goes on falling.
    loss[[6, 10]] -= [0.1, 0.15]
    curves = epochs(train_loss=np.linspace(1.8, 0.35, 12), val_loss=loss + jump * sign, val_accuracy=mean - jump * sign)
    return History(losses=[2.3] * 120, lrs=[0.1] * 120, classes=10, epochs=curves)


def test_plateau_is_seen_under_noise_by_means_not_by_bests():
    assert verdict("plateau", thrown(gain=0.0, jump=0.05)) is not None
    assert verdict("plateau", thrown(gain=0.05, jump=0.05)) is None
    assert verdict("plateau", thrown(gain=0.0, jump=0.005)) is None


def test_a_rate_that_came_down_before_is_no_plateau_of_a_constant_one():
    history = thrown(gain=0.0, jump=0.05)
    history.lrs = [0.1, 0.01] * 59 + [0.1, 0.1]
    assert verdict("plateau", history) is None


def test_what_is_all_but_learned_wants_no_other_rate():
    history = thrown(gain=0.0, jump=0.05)
    history.epochs = [replace(e, val_accuracy=e.val_accuracy + 0.295) for e in history.epochs]
    assert verdict("plateau", history) is None


def test_labels_are_shuffled_before_they_are_learned_by_heart():
    """A slow net: 0.25 of ten classes on training, while validation has become worse than knowing nothing."""
    curves = {"train_accuracy": [0.1, 0.13, 0.16, 0.19, 0.22, 0.25], "val_accuracy": [0.1, 0.11, 0.1, 0.12, 0.1, 0.11]}
    worse = History(classes=10, epochs=epochs(**curves, val_loss=[2.31, 2.35, 2.4, 2.5, 2.55, 2.6]))
    assert verdict("labels-shuffled", worse) is not None
    open_yet = History(classes=10, epochs=epochs(**curves, val_loss=[2.31, 2.3, 2.3, 2.3, 2.3, 2.3]))
    assert verdict("labels-shuffled", open_yet) is None


def test_a_loss_that_came_down_and_climbs_has_too_high_a_rate():
    down = falling(200, end=1.0)
    up = noisy(np.linspace(1.0, 1.7, 200), 0.05, seed=1)
    assert "lr-too-high" in {f.id for f in judge(watched(down + up))[0]}
    assert "lr-too-high" not in {f.id for f in judge(watched(down + noisy([1.0] * 200, 0.05, seed=1)))[0]}


def test_a_rate_that_was_never_lowered_comes_before_what_it_does_to_the_loss():
    names = list(explanations())
    assert names.index("plateau") < min(names.index(n) for n in ("lr-too-high", "updates-too-large", "oscillating"))


def test_still_improving_is_said_of_a_rising_end_only():
    rising = epochs(val_accuracy=[0.3, 0.4, 0.5, 0.58, 0.65, 0.7])
    found = verdict("still-improving", History(epochs=rising))
    assert found.severity == "info"
    assert found.evidence["gain_per_epoch"] == pytest.approx(0.06, abs=0.002)
    assert verdict("still-improving", History(epochs=epochs(val_accuracy=[0.3, 0.6, 0.7, 0.7, 0.7, 0.7]))) is None


def counts(predicted, targets, correct):
    return Output(
        images=sum(targets),
        width=3,
        spread=0.2,
        predicted=np.array(predicted),
        targets=np.array(targets),
        correct=correct,
    )


def test_a_class_never_predicted_is_collapsed_or_a_rare_one_ignored():
    def history(output, n=20):
        return History(losses=falling(300), samples=[sample(10 * i, output=output) for i in range(n)], classes=3)

    collapsed = history(counts([16, 16, 0], [11, 11, 10], 20))
    assert verdict("class-collapsed", collapsed).evidence["classes"] == [2]
    assert verdict("imbalance-ignored", collapsed) is None
    ignored = history(counts([16, 16, 0], [15, 15, 2], 28))
    assert verdict("imbalance-ignored", ignored).evidence["classes"] == [2]
    assert verdict("class-collapsed", ignored) is None
    assert verdict("class-collapsed", history(counts([11, 11, 10], [11, 11, 10], 30))) is None
    # one of twenty, said half as often as it comes: the other class alone makes nearly all answers right
    few = Output(32, 2, 0.2, predicted=np.array([31, 1]), targets=np.array([29, 3]), correct=29)
    seldom = [sample(10 * i, output=few) for i in range(20)]
    assert verdict("imbalance-ignored", History(losses=falling(300), samples=seldom, classes=2)) is not None
    # early on, when nothing is told apart yet, it means nothing
    assert verdict("class-collapsed", history(counts([32, 0, 0], [11, 11, 10], 11))) is None
    assert "class-collapsed" in lacking(history(counts([16, 16, 0], [11, 11, 10], 20), n=7))


def test_root_causes_come_before_their_consequences():
    flat = noisy([2.303] * 200, scale=0.01)
    findings, _ = judge(watched(flat, ratio=1e-7, promised=1e-7))
    ids = [f.id for f in findings]
    assert ids.index("lr-too-low") < ids.index("updates-too-small") < ids.index("not-learning")
