"""Rules about input and activations: unnormalised-input, bad-initialisation, dead-relu, saturated."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis.history import History, Layer, fall_per_step, level
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import (
    chance,
    impossible_class,
    is_blank,
    is_flat,
    knows_nothing,
    never_learned,
    share_left,
    starts_with_knowledge,
    weights_shrank,
)
from wellfit.diagnosis.rules.step_lengths import coarse_at_first
from wellfit.diagnosis.rules.updates import vanishing_gradient
from wellfit.diagnosis.scale import LARGE, is_small, is_unusual
from wellfit.findings import Finding, Severity

# Half of a layer's units silent on all data, or half of a layer's entries at the ends of its non-linearity; of one
# that matters less, much or most of it.
DEAD = 0.5
SATURATED = 0.5
MUCH, MOSTLY = 0.65, 0.8
# Units of an early layer that are dead from the start.
BEGUN = 0.6
PATIENCE = 3
# Of what chance gives: what is left of the loss where a net has learned, and where it has not begun to.
MASTERED, LEARNED, STUCK = 0.1, 0.3, 0.8
# From first to last hidden layer the spread of a well-scaled net stays within two decades.
SPREAD = 100.0
# Deviations of first weights, times √fan_in: PyTorch draws 0.58, Xavier's rule 1, Kaiming's 1.4.
DRAWN_SMALL, DRAWN_LARGE = 0.1, 4.0
# A first loss of three times log C comes from logits that are far too large.
TALL_START, TALL, SURE = 3.0, 3.0, 0.3
# A flat start has lasted when the loss moved less than 2% in this many steps (SPEC C6: about 100 should show a fall),
# and at least this share of the run.
FLAT_STEPS = 100
# Small first weights may have grown by then.
GROWN = 60
FLAT_SHARE = 0.1
# Weights that grow so many times within so many steps began too small; unless the loss rose, when it was the rate.
GREW, WITHIN, RISEN = 6.0, 40, 1.1


def dead_relu(h: History) -> Finding | None:
    sick = _lasting(h, "dead", DEAD)
    if not sick or is_blank(h) or weights_shrank(h):
        return None  # without input, or without weights, there is nothing to be active on
    name, share = max(sick.items(), key=lambda item: item[1])
    # Units that died slowly in a net which never learned anything did so for want of something to learn.
    known = next((s.layers for s in h.samples if any(layer.dead is not None for layer in s.layers)), ())
    first = {layer.name: _value(layer, "dead") for layer in known}
    alive = max(first.values(), default=1.0) < DEAD and not coarse_at_first(h)
    # Late layers of pretrained nets are silent on much that they were not taught, but not on nearly all where they are
    # to learn; early ones are not.
    early = list(first)[: (len(first) + 1) // 2]
    limit = MOSTLY if all(p.requires_grad for p in h.parameters) else np.inf
    begun = any(share >= (BEGUN if name in early else limit) for name, share in first.items() if name in sick)
    return Finding(
        "dead-relu",
        "info" if alive and never_learned(h) else _severity(h, share, begun=begun),
        f"{share:.0%} of the units of {name} were silent on everything seen lately"
        + (f"; {len(sick)} layers are like that" if len(sick) > 1 else ""),
        {"layers": sick, "limit": DEAD},
        "Lower the learning rate and start again; if units are dead from the start, use Kaiming initialisation "
        "or leaky ReLU",
        "SPEC C7, N7",
    )


def saturated(h: History) -> Finding | None:
    sick = _lasting(h, "saturated", SATURATED)
    if not sick or is_blank(h):
        return None
    first = {layer.name: _value(layer, "saturated") for layer in h.samples[0].layers} if h.samples[0].step == 0 else {}
    at_first = max(first.get(name, 1.0) for name in sick)
    if at_first < 0.2 and vanishing_gradient(h) is not None:
        return None  # they were drawn there by the little that is learned without a gradient
    name, share = max(sick.items(), key=lambda item: item[1])
    begun = any(first.get(name, 0.0) >= SATURATED for name in sick)
    severity = _severity(h, share, begun=begun)
    # Gates close or open for good where that is what is wanted: those that began open and shut, and the loss fell.
    if _left(h) <= MASTERED and at_first < SATURATED:
        severity = "info"
    return Finding(
        "saturated",
        "warning" if severity == "error" else severity,
        f"{share:.0%} of the activations of {name} stand at the ends of the non-linearity, where gradients are zero"
        + (f"; {len(sick)} layers are like that" if len(sick) > 1 else ""),
        {"layers": sick, "limit": SATURATED},
        "Scale the first weights down (Xavier), centre and scale the input, or use ReLU",
        "SPEC C7, I2, I3",
    )


def _severity(h: History, share: float, *, begun: bool) -> Severity:
    """How bad it is that this share of a layer is out of play. What is left may be enough: then it is a waste only.

    begun: whether it was so from the start: nothing that is learned puts half of a layer there.
    """
    start = h.chance_loss or h.reference_loss
    left = _left(h, start)
    if left > LEARNED and share > MOSTLY:
        return "error"
    return "warning" if begun or share > MOSTLY or left > STUCK or (left > LEARNED and share > MUCH) else "info"


def _left(h: History, start: float | None = None) -> float:
    """What is left of the loss, as a share of where it started; all of it where no one can tell."""
    left = share_left(h, start)
    return left if h.first_bad_step is None and not np.isnan(left) else 1.0


def unnormalised_input(h: History) -> Finding | None:
    """What enters the first layer with weights; where that was not seen, the batch that went in."""
    received = next((s.received for s in h.samples if s.received is not None), None)
    seen = received or next((s.input for s in h.samples if s.input is not None), None)
    if seen is None or not is_unusual(*seen):
        return None
    mean, std = seen
    # Raw pixels less their mean are how many a net was taught: a fault where it shows.
    harmless = abs(mean) < 0.1 * std and not is_small(std) and not _suffers(h)
    said = "the first batch has" if received is None else "the first layer receives values of"
    return Finding(
        "unnormalised-input",
        "info" if harmless else "warning",
        f"{said} mean {mean:.3g} and standard deviation {std:.3g}; about 0 and 1 are usual",
        {"mean": mean, "std": std},
        "Subtract the mean of the training images and divide by their standard deviation",
        "SPEC D3",
    )


def _suffers(h: History) -> bool:
    """Whether anything is wrong that a large input may be the cause of."""
    loss, ground = h.finite_loss, chance(h)
    if h.first_bad_step is not None or (ground is not None and len(loss) and loss[0] > 1.5 * ground):
        return True
    off = [_value(layer, figure) for s in h.samples[-3:] for layer in s.layers for figure in ("saturated", "dead")]
    return max(off, default=0.0) > MOSTLY


def bad_initialisation(h: History) -> Finding | None:
    ways = (_tall_start, _badly_scaled, _without_scale, _uneven_layers, _alike_units, _outgrown, _flat_then_falls)
    return next((found for way in ways if (found := way(h)) is not None), None)


def _tall_start(h: History) -> Finding | None:
    loss, ground = h.finite_loss, chance(h)
    if ground is None or len(loss) == 0:
        return None
    # A first batch of few images may be right by chance: answers that are sure then tell on the next ones.
    first = h.samples[0].output if h.samples and h.samples[0].step == 0 else None
    cost = level(loss[:3]) if first is not None and first.spread > SURE else float(loss[0])
    if cost < max(TALL_START * ground, ground + TALL) or impossible_class(h) is not None:
        return None
    return Finding(
        "bad-initialisation",
        "warning",
        f"the first loss is {cost:.3g}, {cost / ground:.1f} times log C = {ground:.3g}: the first answers are sure and "
        "wrong",
        {"first_loss": cost, "chance": ground},
        "Scale the last layer's first weights down so that the first loss is log C",
        "SPEC C2, C5",
    )


def _badly_scaled(h: History) -> Finding | None:
    """The typical weight tensor is drawn far from the scale that keeps activations as they are, 1 to √2 of 1/√fan_in.

    Normalisation makes a net indifferent to it, and many learn all the same: then there is nothing to say.
    """
    first = h.samples[0] if h.samples and h.samples[0].step == 0 else None
    # What is frozen at first may begin to learn later.
    known = [] if first is None else [i for i in h.weights if h.parameters[i].fan_in and first.gradient_norm[i] >= 0]
    # Zero here and there is on purpose (a branch that begins as nothing); zero everywhere is not.
    if first is not None and np.any(first.weight_norm[known] > 0):
        known = [i for i in known if first.weight_norm[i] > 0]
    # One hidden layer grows out of any scale: that small weights pass less and less on takes several.
    if first is None or len(known) < 3 or starts_with_knowledge(h) or _left(h) <= MASTERED:
        return None
    sizes, fans = (np.array([getattr(h.parameters[i], name) for i in known]) for name in ("size", "fan_in"))
    scale = level(first.weight_norm[known] / np.sqrt(sizes) * np.sqrt(fans))
    if DRAWN_SMALL <= scale <= DRAWN_LARGE or (_left(h) < LEARNED and scale > 0):
        return None
    if 0 < scale < DRAWN_SMALL and (len(h.losses) < GROWN or h.warming_up):
        return None  # it may grow: transformers begin with 0.02 whatever their width
    return Finding(
        "bad-initialisation",
        "warning",
        f"the typical weight was drawn with a deviation of {scale:.2g}/√fan_in; 1/√fan_in for tanh and 1.4/√fan_in for "
        "ReLU keep activations at one size",
        {"scale": scale, "limits": [DRAWN_SMALL, DRAWN_LARGE]},
        "Use Kaiming initialisation (√(2/fan_in)) with ReLU, Xavier with tanh",
        "SPEC N8, I1-I6",
    )


def _without_scale(h: History) -> Finding | None:
    """Every BatchNorm's scale begins at zero, so that nothing passes; the last one of a residual block may."""
    first = h.samples[0] if h.samples and h.samples[0].step == 0 else None
    names = {f"{b.name}.weight" for b in h.batchnorms if b.learns}
    scales = [i for i, p in enumerate(h.parameters) if p.name in names and p.requires_grad]
    if first is None or not scales or np.any(first.weight_norm[scales] > 0) or not (is_flat(h) or knows_nothing(h)):
        return None
    return Finding(
        "bad-initialisation",
        "warning",
        f"all {len(scales)} BatchNorm layers begin with a scale of zero: nothing passes them, and nothing was learned",
        {"layers": len(scales)},
        "Begin with a scale of 1; only the last BatchNorm of a residual block may begin at zero",
        "SPEC N2, N8",
    )


def _uneven_layers(h: History) -> Finding | None:
    first = next((s for s in h.samples if s.layers), None)
    if first is None or first.step > 0:
        return None
    spreads, names = [layer.spread for layer in first.layers], [layer.name for layer in first.layers]
    few = len(spreads) <= 3  # they may shrink for the kind of their non-linearity
    if few and first.input is not None and 0.1 < first.input[1] < LARGE:
        spreads, names = [first.input[1], *spreads], ["the input", *names]  # a first layer may shrink it as well
    if len(spreads) < 3 or not np.isfinite(spreads).all() or spreads[0] <= 0:
        return None
    if spreads[-1] == 0 or max(_value(layer, "saturated") for layer in first.layers) > MUCH:
        return None  # units that are dead or saturated from the start are a finding of their own
    factor = spreads[-1] / spreads[0]
    # Many nets with uneven layers train well; it is a fault when this one does not.
    stuck = is_flat(h) or knows_nothing(h) or h.first_bad_step is not None or _flat_start(h)
    # By four decades and more it is one where it has not learned well.
    extreme = not SPREAD**-2 <= factor <= SPREAD**2 and _left(h) > LEARNED
    if 1 / SPREAD <= factor <= SPREAD or not ((extreme and not (few and vanishing_gradient(h))) or (stuck and not few)):
        return None
    what = "shrink" if factor < 1 else "grow"
    return Finding(
        "bad-initialisation",
        "warning",
        f"before the first step activations {what} from layer to layer: over images they vary by {spreads[0]:.2g} at "
        f"{names[0]} and by {spreads[-1]:.2g} at {names[-1]}",
        {"spread": spreads, "factor": factor},
        "Use Kaiming initialisation (√(2/fan_in)) with ReLU, Xavier with tanh, or add BatchNorm",
        "SPEC C7, N8, I1-I6",
    )


def _alike_units(h: History) -> Finding | None:
    """The layers tell images apart and the answers do not: equal weights give equal units, and they stay equal."""
    first = next((s for s in h.samples if s.layers and s.output is not None), None)
    if first is None or first.step > 0 or first.output is None or not (is_flat(h) or knows_nothing(h)):
        return None
    spread = first.layers[-1].spread
    if not np.nansum(first.gradient_norm[h.weights]) > 0:
        return None  # answers that hang on no weight are alike for another reason
    if not (spread > 1e-3 and first.output.spread < 1e-6 * spread):
        return None
    return Finding(
        "bad-initialisation",
        "warning",
        f"before the first step all images get the same answer, although {first.layers[-1].name} tells them apart (it "
        f"varies by {spread:.2g}): weights that start equal stay equal, and nothing was learned since",
        {"spread_of_layer": spread, "spread_of_answers": first.output.spread},
        "Draw the first weights at random: Kaiming initialisation with ReLU, Xavier with tanh",
        "SPEC N8, C9",
    )


def _outgrown(h: History) -> Finding | None:
    """Within the first steps the typical weight tensor becomes many times what it began as, and the loss falls."""
    seen = [s for s in h.finite_samples if s.step <= WITHIN]
    loss = h.finite_loss
    if len(seen) < PATIENCE or seen[0].step > 0 or not len(h.weights) or h.first_bad_step is not None:
        return None
    first, last = seen[0].weight_norm[h.weights], seen[-1].weight_norm[h.weights]
    if not (first > 0).any() or loss.max() > RISEN * h.reference_loss:
        return None
    grew = float(np.median(last[first > 0] / first[first > 0]))
    if grew < GREW:
        return None
    return Finding(
        "bad-initialisation",
        "warning",
        f"within {seen[-1].step} steps the typical weight grew to {grew:.3g} times its norm: it began far too small",
        {"growth": grew, "steps": seen[-1].step, "first_norms": first[:50].tolist()},
        "Use Kaiming initialisation (√(2/fan_in)) with ReLU, Xavier with tanh",
        "SPEC C7, I1-I6",
    )


def _flat_then_falls(h: History) -> Finding | None:
    loss = h.finite_loss
    if h.first_bad_step is not None or len(loss) < 2 * FLAT_STEPS or level(loss[-20:]) > 0.8 * level(loss[:10]):
        return None
    start, flat = level(loss[:10]), _flat_start(h)
    if flat < FLAT_SHARE * len(loss) or not flat:
        return None
    return Finding(
        "bad-initialisation",
        "warning",
        f"the loss stood at {start:.4g} for {flat} steps and only then began to fall, to {level(loss[-20:]):.3g}",
        {"flat_steps": flat, "start": start, "end": level(loss[-20:])},
        "Use Kaiming or Xavier initialisation, so that learning starts at once",
        "SPEC C9",
    )


def _flat_start(h: History) -> int:
    """For how many steps the loss stood where it started; 0 when it moved soon, or no one can tell."""
    loss = h.finite_loss
    start = level(loss[:10])
    levels = np.median(loss[: len(loss) // 10 * 10].reshape(-1, 10), axis=1)
    left = np.flatnonzero(levels < 0.98 * start)
    flat = 10 * int(left[0]) if len(left) else len(loss)
    stretch = loss[:flat]
    if flat < FLAT_STEPS:
        return 0
    # A warm-up is meant to start flat, and a noisy loss hides a slow fall.
    low_rate = len(h.lrs) >= flat and int(np.sum(h.lr[:flat] >= 0.5 * h.lr.max())) < FLAT_STEPS
    noisy = np.std(stretch) > 0.05 * start
    falling = fall_per_step(stretch) * flat > 0.02 * start
    return 0 if low_rate or noisy or falling else flat


def _lasting(h: History, figure: str, limit: float) -> dict[str, float]:
    """Layers whose figure was above the limit at each of the last watched steps, with the smallest of them."""
    watched = [s.layers for s in h.samples if s.layers][-PATIENCE:]
    if len(watched) < PATIENCE:
        return {}
    values: dict[str, list[float]] = {}
    for layers in watched:
        for layer in layers:
            values.setdefault(layer.name, []).append(_value(layer, figure))
    return {name: min(v) for name, v in values.items() if len(v) == PATIENCE and min(v) > limit}


def _value(layer: Layer, figure: str) -> float:
    value = getattr(layer, figure)
    return float("-inf") if value is None else float(value)


RULES = {
    "unnormalised-input": Rule(unnormalised_input, (needs.inputs,)),
    "bad-initialisation": Rule(bad_initialisation, (needs.steps_or_bad(20),)),
    "dead-relu": Rule(dead_relu, (needs.layers("relu"), needs.samples(8))),
    "saturated": Rule(saturated, (needs.layers("bounded"), needs.samples(PATIENCE))),
}
