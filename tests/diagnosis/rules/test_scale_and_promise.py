"""How first weights are scaled, what steps promise and what weight decay takes, on histories written by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.diagnosis.rules.histories import falling, noisy, sample, verdict, watched
from wellfit.diagnosis.history import BatchNorm, History, Layer, Output, Parameter, Sample
from wellfit.diagnosis.rules import judge
from wellfit.diagnosis.rules.signs import begins_saturated, is_blank
from wellfit.diagnosis.rules.step_lengths import cause_of_long_steps, decay_at_a_step, promised_share

FLAT = noisy([2.303] * 200, scale=0.005)


def at_ends(share):
    return [Layer("1", "bounded", 0.0, 0.9, 0.5, saturated=0.1), Layer("3", "bounded", 0.0, 0.9, 0.5, saturated=share)]


def decayed(history, rate, decay):
    """The same training at this rate, its last weight with this decay."""
    parameters = [*history.parameters[:-1], replace(history.parameters[-1], decay=decay)]
    return replace(history, lrs=[rate] * len(history.losses), parameters=parameters)


# ---- signs -----------------------------------------------------------------------------------------------


def promising(losses, *promises):
    return History(losses=losses, samples=[sample(10 * i, promised=p) for i, p in enumerate(promises)])


def test_what_a_quarter_of_the_steps_promised_is_measured_by_the_first_loss():
    assert promised_share(promising([2.0] * 50, 0, 1, 2, 3, 4)) == pytest.approx(3 / 2)
    assert promised_share(promising([2.0] * 60, math.nan, 4, 3, 2, 1, 0)) == pytest.approx(3 / 2)
    # or by log C, where the first loss is lower
    by_chance = replace(promising([2.0] * 50, 0, 1, 2, 3, 4), classes=100)
    assert promised_share(by_chance) == pytest.approx(3 / math.log(100))


def test_a_promise_wants_two_watched_steps_and_a_loss():
    assert math.isnan(promised_share(promising([2.0] * 50, 1)))
    assert math.isnan(promised_share(promising([2.0] * 50, 1, math.nan)))
    assert promised_share(promising([2.0] * 50, 1, 1)) == 0.5
    assert math.isnan(promised_share(promising([0.0] * 50, 1, 1)))
    assert math.isnan(promised_share(promising([math.nan] * 50, 1, 1)))


def test_promises_count_until_the_loss_rose_to_more_than_three_times_its_start():
    """Of steps 0, 10, 20, 30 and 40 the last two come after the rise."""
    assert promised_share(promising([2.0] * 25 + [6.1] * 25, 0, 1, 2, 90, 90)) == pytest.approx(1.5 / 2)
    assert promised_share(promising([2.0] * 25 + [6.0] * 25, 0, 1, 2, 3, 4)) == pytest.approx(3 / 2)
    # the step at which it rose has made its promise at the loss it rose to
    assert promised_share(promising([2.0] * 20 + [6.1] * 30, 1, 1, 90)) == pytest.approx(1 / 2)
    # and so do those until it was no number
    assert promised_share(promising([2.0] * 25 + [math.nan] * 25, 0, 1, 2, 90, 90)) == pytest.approx(1.5 / 2)


def test_where_all_explodes_the_first_three_steps_tell():
    rises = [2.0] * 45
    assert promised_share(promising([*rises, *[20.1] * 5], 0, 1, 2, 90, 90)) == pytest.approx(1.5 / 2)
    assert promised_share(promising([*rises, *[20.0] * 5], 0, 1, 2, 3, 4)) == pytest.approx(3 / 2)


def test_the_largest_decay_of_a_weight_that_learns_times_the_largest_rate():
    parameters = [
        Parameter("0.weight", 9, decay=0.01),
        Parameter("1.weight", 9, decay=0.1),
        Parameter("1.bias", 3, weight=False, decay=1.0),
        Parameter("2.weight", 9, requires_grad=False, decay=1.0),
        Parameter("3.weight", 9, in_optimizer=False, decay=1.0),
    ]
    samples = [sample(step, ratio=0.016, n=5) for step in range(3)]
    history = History(losses=[2.3] * 3, lrs=[0.1, 0.5, 0.2], parameters=parameters, samples=samples)
    assert decay_at_a_step(history) == pytest.approx(0.05)
    # less than a third of what it should take was seen: the optimizer scales it by something of its own
    assert decay_at_a_step(replace(history, samples=[sample(step, ratio=0.014, n=5) for step in range(3)])) == 0.0
    assert decay_at_a_step(replace(history, samples=[])) == 0.0
    assert decay_at_a_step(replace(history, lrs=[])) == 0.0
    assert decay_at_a_step(replace(history, parameters=[])) == 0.0


def test_a_layer_stood_at_its_ends_before_the_first_step():
    def history(share, start=0):
        return History(losses=[2.3] * 30, samples=[sample(start + i, layers=at_ends(share)) for i in (0, 10)])

    assert begins_saturated(history(0.81))
    assert not begins_saturated(history(0.8))
    assert not begins_saturated(history(None))
    assert not begins_saturated(history(0.9, start=10))  # the first steps may have brought it there
    assert not begins_saturated(History(losses=[2.3]))
    # seen at the first watched step that shows layers, not at a later one
    grew = history(0.1)
    grew.samples[1] = replace(grew.samples[1], layers=at_ends(0.9))
    assert not begins_saturated(grew)


@pytest.mark.parametrize(
    ("received", "start", "spread", "blank"),
    [
        ((0.5, 0.0), 0, 0.3, True),
        ((0.0, 0.0), 0, 0.3, True),
        ((0.5, 1.0), 0, 0.3, False),
        ((0.0, 1.0), 0, 0.3, False),
        (None, 0, 0.3, False),
        ((0.5, 0.0), 10, 0.3, False),  # its first layers were not seen
        ((0.5, 1.0), 0, 0.0, True),  # no layer shows a difference
    ],
)
def test_images_of_one_value_are_blank_however_their_layers_differ(received, start, spread, blank):
    layers = [Layer("1", "relu", 0.5, 0.4, spread=spread)]
    history = History(losses=[2.3] * 30, samples=[sample(start, layers=layers, received=received)])
    assert is_blank(history) is blank


def test_units_that_nothing_comes_to_are_no_dead_ones():
    """They differ between images by their dropout."""

    def history(std):
        layers = [Layer("1", "relu", 0.5, 0.4, spread=0.3, dead=0.9)]
        return watched(falling(200), layers=layers, received=(0.0, std))

    assert verdict("dead-relu", history(0.0)) is None
    assert verdict("dead-relu", history(1.0)) is not None


# ---- updates ---------------------------------------------------------------------------------------------


def test_steps_that_promise_more_than_the_whole_loss_overshoot():
    found = verdict("updates-too-large", watched([2.0] * 200, ratio=0.02, promised=3.0))
    assert found.severity == "warning"
    assert "overshoot" in found.message
    assert found.evidence["promised_share"] == pytest.approx(3.0 / math.log(10))
    assert verdict("updates-too-large", watched([2.0] * 200, ratio=0.02, promised=2.2)) is None
    # a step that does not show in the weights has a steep slope, no length; where one of them does, they are long
    assert verdict("updates-too-large", watched([2.0] * 200, ratio=0.01, promised=3.0)) is None
    one = watched([2.0] * 200, ratio=0.001, promised=3.0)
    one.samples[7] = replace(one.samples[7], update_norm=0.02 * np.ones(2))
    assert verdict("updates-too-large", one) is not None
    # nor does a slope tell where a layer began at its ends
    assert verdict("updates-too-large", watched([2.0] * 200, ratio=0.02, promised=3.0, layers=at_ends(0.9))) is None
    assert verdict("updates-too-large", watched([2.0] * 200, ratio=0.02, promised=3.0, layers=at_ends(0.5)))


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([2.0] * 100, True),
        ([2.0] * 99, False),  # it may yet be made good
        ([2.3] * 89 + [2.31] * 10, True),  # it has grown worse
        ([2.31] * 89 + [2.29] * 10, False),
    ],
)
def test_first_steps_that_go_far_are_given_time_to_be_made_good(losses, said):
    """Steps that overshoot, and such as overwrite the weights in the first twenty steps."""
    far = watched(losses)
    far.samples = [sample(s, ratio=0.3 if s <= 20 else 0.005) for s in (0, 1, 2, *range(10, len(losses), 10))]
    for history in (watched(losses, ratio=0.02, promised=3.0), far):
        assert (verdict("updates-too-large", history) is not None) == said


@pytest.mark.parametrize(("many", "said"), [(6, True), (4, False)])
def test_a_quarter_of_the_steps_must_overshoot(many, said):
    history = watched([2.0] * 200, ratio=0.02)
    history.samples[-many:] = [replace(s, promised=3.0) for s in history.samples[-many:]]
    assert (verdict("updates-too-large", history) is not None) == said


def test_before_an_explosion_the_first_steps_must_have_gone_far():
    def history(first_ratio, first_promise=3.0, later=0.04):
        made = watched([2.3] * 100 + [40.0] * 100)
        made.samples = [
            sample(s, ratio=first_ratio if s < 30 else later, promised=first_promise if s < 30 else 3.0)
            for s in range(0, 200, 10)
        ]
        return made

    assert "overshoot" in verdict("updates-too-large", history(0.03)).message
    assert verdict("updates-too-large", history(0.025)) is None
    assert verdict("updates-too-large", history(0.03, first_promise=2.0)) is None
    # one of the first three is enough, and the fourth is none of them
    mixed = history(0.02)
    mixed.samples[2] = sample(20, ratio=0.03, promised=3.0)
    assert verdict("updates-too-large", mixed) is not None


def test_decay_that_takes_a_hundredth_of_the_weights_at_a_step_is_too_much_where_nothing_is_learned():
    found = verdict("updates-too-large", decayed(watched(FLAT, ratio=0.01), 0.1, 0.1))
    assert found.severity == "warning"
    assert "weight decay takes 0.01 of the weights" in found.message
    assert found.evidence["decay_at_a_step"] == pytest.approx(0.01)
    assert verdict("updates-too-large", decayed(watched(FLAT, ratio=0.01), 0.1, 0.09)) is None
    assert verdict("updates-too-large", decayed(watched(falling(200), ratio=0.01), 0.1, 0.1)) is None


def with_first_shares(*shares, end=1.0):
    """Four weights; the first gets these shares of the whole gradient, then a tenth. The loss falls from 2.3."""
    samples = []
    for i in range(12):
        share = shares[i] if i < len(shares) else 0.1
        rest = math.sqrt((1 - share**2) / 3)
        samples.append(Sample(10 * i, np.ones(4), 1e-3 * np.ones(4), np.array([share, rest, rest, rest]), 0.01))
    parameters = [Parameter(f"{i}.weight", 9) for i in range(4)]
    return History(losses=np.linspace(2.3, end, 120).tolist(), samples=samples, parameters=parameters)


def test_a_first_layer_that_began_with_next_to_nothing_was_held_up():
    found = verdict("vanishing-gradient", with_first_shares(8e-4, 9e-4, 5e-4))
    assert "is 0.0008 of the whole gradient, until step 20" in found.message
    assert found.evidence["until"] == 20
    # more than a thousandth, and two steps alone, are a slow beginning; exactly nothing has another cause
    for shares in ((8e-4, 9e-4, 1.1e-3), (8e-4, 9e-4), (0.0, 0.0, 0.0), (0.0, 0.0, 5e-4)):
        assert verdict("vanishing-gradient", with_first_shares(*shares)) is None


@pytest.mark.parametrize(
    ("share", "end", "limit"), [(6.9e-3, 1.0, 7e-3), (7.1e-3, 1.0, None), (8.9e-3, 2.3, 9e-3), (9.1e-3, 2.3, None)]
)
def test_a_small_share_to_the_end_is_a_gradient_that_vanishes_and_sooner_where_nothing_is_learned(share, end, limit):
    found = verdict("vanishing-gradient", with_first_shares(*[share] * 12, end=end))
    assert (None if found is None else found.evidence["limit"]) == limit


@pytest.mark.parametrize(("end", "said"), [(0.02, False), (0.15, True)])
def test_first_steps_that_overwrite_the_weights_are_no_fault_where_all_is_learned(end, said):
    """A hundredth and a fifteenth of the loss are left."""
    history = watched(falling(400, end=end))
    history.samples = [sample(10 * i, ratio=0.3 if i < 5 else 0.01) for i in range(40)]
    found = verdict("updates-too-large", history)
    assert (found is not None and "at the first" in found.message) == said


@pytest.mark.parametrize(("end", "said"), [(0.66, False), (0.72, True)])
def test_a_wild_start_is_made_good_where_less_than_a_third_of_the_loss_is_left(end, said):
    history = watched(falling(400, end=end))
    history.samples = [sample(s, ratio=0.15 if s <= 20 else 0.005) for s in (0, 1, 2, *range(10, 400, 10))]
    assert (verdict("updates-too-large", history) is not None) == said


@pytest.mark.parametrize(("ratio", "said"), [(0.13, True), (0.11, False)])
def test_an_eighth_of_the_weights_at_once_is_enough_to_blow_all_up(ratio, said):
    history = watched([2.3, 2.3, 2.4, 900.0, *[1e6] * 40])
    history.samples = [sample(step, ratio=r) for step, r in ((0, 0.02), (1, ratio), (2, 0.02), (10, 8), (20, 8))]
    assert (verdict("updates-too-large", history) is not None) == said


@pytest.mark.parametrize(
    ("carried", "said"),
    [
        ([1, 1, 1], True),
        ([0, 1, 1], False),
        ([1, 0, 1, 0, 1], True),  # zeroed once an epoch
        ([0, 0, 1, 0, 1], False),
        ([1, 1, 1, 0, 0], False),  # it is zeroed now
        ([1, 1, 1, 1, 0, 0, 0, 1, 1], False),  # it was zeroed three times of late
        ([1, None, 0, None, 1, 0, None, 1], True),
    ],
)
def test_an_old_gradient_at_three_of_the_last_five_steps_accumulates(carried, said):
    history = watched(FLAT)
    history.samples = [sample(10 * i, carried=c if c is None else bool(c)) for i, c in enumerate(carried)]
    found = verdict("gradients-accumulate", history)
    assert (found is not None) == said
    if found is not None:
        assert found.severity == "error"
        assert found.evidence == {
            "checked": sum(c is not None for c in carried),
            "carried": sum(c or 0 for c in carried),
        }


# ---- first weights and layers ----------------------------------------------------------------------------


def drawn(*scales, end=1.5, start=2.3, first_step=0, **changes):
    """Weights of 16·25 entries that make 16 outputs: a norm of 4 is a deviation of 0.2, which is 1/√fan_in."""
    norms = 4.0 * np.array(scales)
    samples = [Sample(first_step + s, norms, 1e-3 * norms, np.ones(len(norms)), 0.01) for s in range(0, 190, 10)]
    parameters = [Parameter(f"{i}.weight", 400, fan_in=25) for i in range(len(scales))]
    losses = noisy(np.linspace(start, end, 200), 0.005)
    return replace(History(losses=losses, samples=samples, parameters=parameters, classes=10), **changes)


@pytest.mark.parametrize("scale", [0.09, 4.1, 0.0])
def test_weights_drawn_far_from_the_usual_scale_are_a_bad_start(scale):
    found = verdict("bad-initialisation", drawn(scale, scale, scale))
    assert found.severity == "warning"
    assert found.evidence["scale"] == pytest.approx(scale)
    assert f"a deviation of {scale:.2g}/√fan_in" in found.message


@pytest.mark.parametrize("scale", [0.11, 1 / math.sqrt(3), 1.0, math.sqrt(2), 3.9])
def test_weights_as_libraries_draw_them_are_a_good_start(scale):
    assert verdict("bad-initialisation", drawn(scale, scale, scale)) is None


def test_the_typical_tensor_tells_and_each_is_measured_by_its_own_size():
    assert verdict("bad-initialisation", drawn(0.05, 1.0, 0.08)).evidence["scale"] == pytest.approx(0.08)
    assert verdict("bad-initialisation", drawn(0.05, 1.0, 1.0)) is None
    # a norm of 4 over a hundred entries is a deviation of 0.4, and 4.8/√144
    wide = drawn(1.0, 1.0, 1.0)
    wide.parameters = [replace(p, size=100, fan_in=144) for p in wide.parameters]
    assert verdict("bad-initialisation", wide).evidence["scale"] == pytest.approx(4.8)


def test_a_scale_wants_three_tensors_that_learn_from_the_first_step_on():
    assert verdict("bad-initialisation", drawn(0.05, 0.05)) is None
    # of a tensor without a known fan-in, without a gradient, or outside the optimizer, no one can tell
    changes = [{"fan_in": 0}, {"requires_grad": False}, {"in_optimizer": False}, {"weight": False}]
    for change in changes:
        history = drawn(0.05, 0.05, 0.05)
        history.parameters[1] = replace(history.parameters[1], **change)
        assert verdict("bad-initialisation", history) is None
    frozen = drawn(0.05, 0.05, 0.05)
    frozen.samples[0] = replace(frozen.samples[0], gradient_norm=np.array([1.0, np.nan, 1.0]))
    assert verdict("bad-initialisation", frozen) is None
    still = drawn(0.05, 0.05, 0.05)
    still.samples[0] = replace(still.samples[0], gradient_norm=np.zeros(3))  # a gradient of zero is one
    assert verdict("bad-initialisation", still) is not None
    # frozen ones aside, three are left
    four = drawn(0.05, 0.05, 0.05, 1.0)
    four.samples[0] = replace(four.samples[0], gradient_norm=np.array([1.0, 1.0, 1.0, np.nan]))
    assert verdict("bad-initialisation", four).evidence["scale"] == pytest.approx(0.05)
    assert verdict("bad-initialisation", drawn(0.05, 0.05, 0.05, first_step=10)) is None
    assert verdict("bad-initialisation", drawn(0.05, 0.05, 0.05, samples=[])) is None


def test_the_scale_of_weights_that_know_something_is_what_it_is():
    assert verdict("bad-initialisation", drawn(0.05, 0.05, 0.05, start=1.7, end=0.9)) is not None
    assert verdict("bad-initialisation", drawn(0.05, 0.05, 0.05, start=1.5, end=0.9)) is None


def test_a_net_that_learns_outgrows_its_scale():
    """Of 2.3, log 10, the last twenty losses leave 0.85, 0.63 and 0.2: 37%, 27% and 9%."""
    for scale in (0.05, 5.0):
        assert verdict("bad-initialisation", drawn(*[scale] * 3, end=0.78)) is not None
        assert verdict("bad-initialisation", drawn(*[scale] * 3, end=0.55)) is None
    # where all weights are zero the rest of the net has learned, not they
    assert verdict("bad-initialisation", drawn(0, 0, 0, end=0.55)) is not None
    assert verdict("bad-initialisation", drawn(0, 0, 0, end=0.1)) is None
    # and what was learned before all was lost is gone
    lost = drawn(0.05, 0.05, 0.05, end=0.3)
    lost.losses = [*lost.losses[:-1], math.nan]
    assert verdict("bad-initialisation", lost) is not None


@pytest.mark.parametrize(
    ("steps", "scale", "said"), [(59, 0.05, False), (60, 0.05, True), (59, 5.0, True), (59, 0.0, True)]
)
def test_small_weights_are_given_sixty_steps_to_grow(steps, scale, said):
    """Transformers begin with 0.02 whatever their width."""
    history = drawn(*[scale] * 3)
    history.losses = history.losses[:steps]
    assert (verdict("bad-initialisation", history) is not None) == said


def with_scales(*norms, losses=FLAT, first_step=0):
    """A convolution, then BatchNorm layers whose scales have these norms at the start."""
    values = np.array([1.0, *norms])
    names = [f"{i}.weight" for i in range(1, len(norms) + 1)]
    samples = [Sample(first_step + s, values, 1e-3 * values, np.ones(len(values)), 0.01) for s in range(0, 190, 10)]
    parameters = [Parameter("0.weight", 100), *(Parameter(name, 8, weight=False) for name in names)]
    layers = [BatchNorm(name.removesuffix(".weight")) for name in names]
    return History(losses=losses, samples=samples, parameters=parameters, batchnorms=layers, classes=10)


def test_scales_that_all_begin_at_zero_let_nothing_pass():
    found = verdict("bad-initialisation", with_scales(0, 0))
    assert found.severity == "warning"
    assert "all 2 BatchNorm layers begin with a scale of zero" in found.message
    assert found.evidence == {"layers": 2}
    assert verdict("bad-initialisation", with_scales(0, 1)) is None  # the last one of a residual block
    assert verdict("bad-initialisation", with_scales(1, 1)) is None
    assert verdict("bad-initialisation", with_scales(0, 0, losses=falling(200))) is None
    assert verdict("bad-initialisation", with_scales(0, 0, first_step=10)) is None
    assert verdict("bad-initialisation", with_scales()) is None


def test_a_scale_of_zero_counts_where_it_could_learn():
    frozen = with_scales(0, 1)
    frozen.parameters[2] = replace(frozen.parameters[2], requires_grad=False)
    assert verdict("bad-initialisation", frozen).evidence == {"layers": 1}
    for change in ({"parameters": [replace(p, requires_grad=False) for p in frozen.parameters]}, {"batchnorms": []}):
        assert verdict("bad-initialisation", replace(with_scales(0, 0), **change)) is None
    without = with_scales(0, 0)
    without.batchnorms = [replace(b, learns=False) for b in without.batchnorms]
    assert verdict("bad-initialisation", without) is None


def test_scales_of_zero_are_seen_where_only_the_class_frequencies_were_learned():
    """Two classes of 90 and 10 images: knowing no more than that costs 0.325, less than half of the first loss."""
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    losses = np.r_[np.linspace(math.log(2), entropy, 40), np.full(160, entropy)].tolist()
    history = with_scales(0, 0, losses=losses)
    history.classes, history.class_counts = 2, np.array([90, 10])
    history.samples = [
        replace(s, output=Output(10, 2, 0.0, as_logits=losses[s.step], targets=np.array([9, 1]), correct=9))
        for s in history.samples
    ]
    assert "scale of zero" in verdict("bad-initialisation", history).message


@pytest.mark.parametrize(
    ("classes", "first", "said"),
    [(2, 3.6, False), (2, 3.8, True), (10, 6.8, False), (10, 7.0, True), (100, 13.7, False), (100, 13.9, True)],
)
def test_a_tall_start_is_three_times_chance_and_three_more_at_least(classes, first, said):
    """log 2 + 3 = 3.69, 3·log 10 = 6.91, 3·log 100 = 13.8."""
    found = verdict("bad-initialisation", History(losses=[first, *falling(40, start=0.6)], classes=classes))
    assert (found is not None) == said


@pytest.mark.parametrize(
    ("first_losses", "spread", "start", "seen"),
    [
        ([0.1, 12.0, 14.0], 0.31, 0, 12.0),  # right by chance at first
        ([0.1, 12.0, 14.0], 0.3, 0, None),
        ([0.1, 12.0, 14.0], 0.31, 10, None),  # whether the first answers were sure was not seen
        ([12.0, 0.5, 0.5], 0.31, 0, None),  # one odd batch
        ([12.0, 0.5, 0.5], 0.3, 0, 12.0),
        ([12.0, 0.5, 0.5], 0.31, 10, 12.0),
    ],
)
def test_first_answers_that_are_sure_are_judged_by_three_batches(first_losses, spread, start, seen):
    history = watched([*first_losses, *falling(40)])
    history.samples = [sample(start + 10 * i, output=Output(2, 10, spread)) for i in range(3)]
    found = verdict("bad-initialisation", history)
    assert (None if found is None else found.evidence["first_loss"]) == seen
    assert found is None or "12, 5.2 times log C" in found.message


def gates(first, last, end):
    """A sigmoid with these shares of its entries at the ends, at first and from step 100 on, and the last loss."""
    history = watched(noisy(np.r_[np.linspace(2.3, end, 150), np.full(50, end)], 0.005))
    history.samples = [
        replace(s, layers=(Layer("1", "bounded", 0.5, 0.4, 0.3, saturated=first if s.step < 100 else last),))
        for s in history.samples
    ]
    return history


@pytest.mark.parametrize(
    ("first", "end", "severity"),
    [
        (0.1, 0.2, "info"),  # they closed while the loss fell to a twelfth
        (0.49, 0.2, "info"),
        (0.5, 0.2, "warning"),  # they were closed before
        (0.1, 0.26, "warning"),  # more than a tenth is left
    ],
)
def test_gates_that_close_while_the_loss_falls_do_as_they_should(first, end, severity):
    assert verdict("saturated", gates(first, 0.9, end)).severity == severity


@pytest.mark.parametrize(
    ("share", "end", "severity"),
    [
        (0.81, 0.5, "error"),
        (0.79, 0.5, "warning"),
        (0.66, 0.5, "warning"),
        (0.64, 0.5, "info"),
        (0.64, 0.85, "warning"),
        (0.81, 0.2, "warning"),
        (0.79, 0.2, "info"),
    ],
)
def test_how_bad_dead_units_are_hangs_on_their_share_and_on_what_is_left_of_the_loss(share, end, severity):
    assert verdict("dead-relu", dying(share, end)).severity == severity


def dying(share, end, first=0.1, layer=0):
    """One of two ReLU layers has this share of dead units in the end, and had `first` of them at the start."""
    losses = 2.303 * np.r_[np.linspace(1, end, 150), np.full(50, end)]
    history = watched(losses.tolist())
    for k, s in enumerate(history.samples):
        dead = [0.1, 0.1]
        dead[layer] = first if k == 0 else share
        layers = [Layer(name, "relu", 0.5, 0.4, 0.3, dead=d) for name, d in zip("13", dead, strict=True)]
        history.samples[k] = replace(s, layers=layers)
    return history


@pytest.mark.parametrize(("first", "layer", "severity"), [(0.61, 0, "warning"), (0.59, 0, "info"), (0.61, 1, "info")])
def test_an_early_layer_that_was_dead_from_the_start_was_drawn_so(first, layer, severity):
    assert verdict("dead-relu", dying(0.64, 0.2, first, layer)).severity == severity


# ---- rates -----------------------------------------------------------------------------------------------


def vain(end=2.2, ratio=0.02, promised=0.5, steps=200, **kwargs):
    """A loss on its straight way from 2.3 to `end`: of 200 steps' way the medians at the ends see 185."""
    return watched(np.linspace(2.3, end, steps).tolist(), ratio=ratio, promised=promised, **kwargs)


def test_long_steps_that_promise_much_and_bring_nothing_are_taken_in_vain():
    found = verdict("lr-too-high", vain())  # 0.093 of 100 promised
    assert found.severity == "warning"
    assert verdict("lr-too-high", vain(promised=0.45)) is None  # each promises 0.195 of the loss
    assert verdict("lr-too-high", vain(promised=0.47)) is not None  # 0.204
    assert verdict("lr-too-high", vain(end=1.9)) is None  # 0.0037 of what was promised
    assert verdict("lr-too-high", vain(end=2.0)) is not None  # 0.0028
    assert verdict("lr-too-high", vain(end=1.0, promised=5.0)) is None  # less than half is left
    assert verdict("lr-too-high", vain(end=1.2, promised=5.0)) is not None
    assert verdict("lr-too-high", vain(ratio=0.01)) is None
    assert verdict("lr-too-high", vain(ratio=0.011)) is not None
    assert verdict("lr-too-high", vain(steps=99)) is None
    assert verdict("lr-too-high", vain(steps=100)) is not None
    assert verdict("lr-too-high", vain(layers=at_ends(0.9))) is None
    assert verdict("lr-too-high", vain(promised=math.nan)) is None
    lost = vain()
    lost.losses = [*lost.losses, math.nan]
    assert verdict("lr-too-high", lost) is None


def test_where_decay_is_hard_the_rate_is_not_to_blame_unless_the_loss_was_thrown():
    assert verdict("lr-too-high", decayed(vain(gradient=0.2), 0.1, 0.011)) is None
    assert verdict("lr-too-high", decayed(vain(gradient=0.2), 0.1, 0.009)) is not None
    # where the first step is not made with the rate, as Prodigy's, no one knows what the decay takes
    assert verdict("lr-too-high", decayed(vain(gradient=0.05), 0.1, 0.011)) is not None
    thrown = watched([2.3, 9.0, 50.0, *noisy([4.0] * 40)], ratio=0.02)
    assert verdict("lr-too-high", decayed(thrown, 0.1, 0.011)) is not None


def test_long_steps_of_a_layer_that_was_saturated_from_the_start_are_no_fault_of_the_rate():
    losses = noisy([1.8] * 200)
    assert verdict("lr-too-high", watched(losses, ratio=0.2, layers=at_ends(0.5))) is not None
    assert verdict("lr-too-high", watched(losses, ratio=0.2, layers=at_ends(0.9))) is None
    # nor is a loss that it threw
    thrown = [2.3, 9.0, *noisy([4.0] * 40)]
    assert verdict("lr-too-high", watched(thrown, ratio=0.02, layers=at_ends(0.5))).severity == "error"
    assert verdict("lr-too-high", watched(thrown, ratio=0.02, layers=at_ends(0.9))) is None


@pytest.mark.parametrize(("lowered", "said"), [(0.01, False), (0.5, True)])
def test_long_steps_of_a_rate_that_was_lowered_soon_are_past_for_the_rate_too(lowered, said):
    history = watched(falling(200))
    history.samples = [sample(s, ratio=0.25 if s < 36 else 0.001) for s in range(0, 200, 4)]
    history.lrs = [1.0] * 36 + [lowered] * 164
    assert verdict("updates-too-large", history).severity == ("warning" if said else "info")
    assert (verdict("lr-too-high", history) is not None) == said


@pytest.mark.parametrize(("lowest", "said"), [(0.11, False), (0.12, True)])
def test_a_climb_counts_from_a_twentieth_of_the_first_loss_on(lowest, said):
    """From its lowest to twice that: 0.11 or 0.12 of 2.3."""
    levels = [*np.linspace(2.3, lowest, 80), *[lowest] * 160, *[1.2 * lowest] * 80, *[2 * lowest] * 80]
    assert (verdict("lr-too-high", watched(levels)) is not None) == said


@pytest.mark.parametrize(
    ("promised", "ratio", "said"), [(0.005, 5e-4, True), (0.006, 5e-4, False), (0.005, 7e-4, False)]
)
def test_small_steps_that_keep_a_quarter_of_their_promise_are_too_short(promised, ratio, said):
    """A loss that falls by 0.0015 a step, 0.2775 between the medians at its ends: 28% and 23% of what was promised."""
    history = watched((2.3 - 0.0015 * np.arange(200)).tolist(), ratio=ratio, promised=promised)
    assert (verdict("lr-too-low", history) is not None) == said


@pytest.mark.parametrize(("ratio", "said"), [(0.009, False), (0.011, True)])
def test_steps_of_less_than_a_hundredth_of_the_weights_throw_no_loss(ratio, said):
    """What grows beside such steps grows by itself: a decay of the wrong sign, a penalty that is subtracted."""
    found = verdict("lr-too-high", watched([2.3] * 20 + [2.3 * 1.2**i for i in range(40)], ratio=ratio))
    assert (found is not None) == said


# ---- one remedy, two findings ----------------------------------------------------------------------------------


def first_step(lr, gradient, update, size=400):
    """A first step of `update` an entry at a gradient of `gradient` an entry, in two weights of `size` entries."""
    history = watched([2.3] * 50, n=2)
    norms = np.full(2, np.sqrt(size))
    history.samples[0] = replace(history.samples[0], gradient_norm=gradient * norms, update_norm=update * norms)
    history.parameters = [Parameter(f"{i}.weight", size) for i in range(2)]
    history.lrs = [lr] * 50
    return history


@pytest.mark.parametrize(
    ("lr", "gradient", "update", "cause"),
    [
        (0.6, 0.01, 0.006, "lr-too-high"),  # SGD: lr·g
        (0.4, 0.01, 0.004, ""),
        (0.1, 0.2, 0.02, "updates-too-large"),  # the gradient's norm over both is 0.2·√800 = 5.7
        (0.1, 0.1, 0.01, ""),  # and 2.8
        (0.1, 0.2, 0.038, "updates-too-large"),  # Nesterov: 1.9·lr·g
        (0.02, 0.01, 0.02, "lr-too-high"),  # Adam: lr
        (0.01, 0.01, 0.01, ""),
        (0.02, 0.01, 0.2, "lr-too-high"),  # RMSprop: 10·lr
        (0.02, 0.01, 0.5, ""),  # neither
        (0.0, 0.2, 0.0, ""),  # a warm-up from nothing
    ],
)
def test_the_first_step_tells_whether_the_rate_or_the_gradient_is_out_of_the_usual(lr, gradient, update, cause):
    history = first_step(lr, gradient, update)
    assert cause_of_long_steps(history) == cause
    history.samples = history.samples[1:]
    assert cause_of_long_steps(history) == ""


@pytest.mark.parametrize(
    ("lr", "order"),
    [
        (0.6, ["lr-too-high", "exploding", "updates-too-large"]),
        (0.1, ["updates-too-large", "exploding", "lr-too-high"]),
    ],
)
def test_of_two_findings_with_one_remedy_the_likelier_cause_is_first_and_the_other_last(lr, order):
    gradient = 0.01 if lr > 0.5 else 0.2
    history = first_step(lr, gradient, lr * gradient)
    history.losses = [2.3] * 4 + [2.3 * 3.0**i for i in range(1, 46)]
    history.samples[0] = replace(history.samples[0], weight_norm=history.samples[0].update_norm / 0.2)
    findings, _ = judge(history)
    ids = [f.id for f in findings if f.id in order]
    assert ids == order
    assert findings[-1].id == order[-1]


def test_of_a_loss_that_starts_at_nothing_or_crosses_zero_no_share_is_promised():
    steep = [2.0] * 5
    assert promised_share(promising([1.0] * 50, *steep)) == pytest.approx(2.0)
    assert math.isnan(promised_share(promising([0.01, *[1.0] * 49], *steep)))  # the loss of a policy gradient
    assert math.isnan(promised_share(promising([1.0, -1.0] * 25, *steep)))


def test_a_branch_that_begins_as_nothing_is_on_purpose():
    """LoRA draws one of its two matrices at zero."""
    assert verdict("bad-initialisation", drawn(0, 0, 0, 1.0, 1.0, 1.0)) is None
    assert verdict("bad-initialisation", drawn(0, 0, 0, 5.0, 5.0, 5.0)) is not None


def test_small_weights_are_given_their_warm_up():
    history = drawn(0.05, 0.05, 0.05)
    history.lrs = np.linspace(0, 1e-3, 200).tolist()
    assert verdict("bad-initialisation", history) is None
    history.lrs = [1e-3] * 200
    assert verdict("bad-initialisation", history) is not None


def test_a_first_layer_held_up_at_first_that_learned_since_is_none():
    assert verdict("vanishing-gradient", with_first_shares(8e-4, 9e-4, 5e-4, end=0.4)) is None
    assert verdict("vanishing-gradient", with_first_shares(8e-4, 9e-4, 5e-4, end=1.0)) is not None
