"""What a rule must have seen before it may judge. A need is a function: history → "" or what is lacking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wellfit.diagnosis.history import History
from wellfit.diagnosis.rules.signs import stands_still

Need = Callable[[History], str]


# How a reason begins where nothing is missing: the question does not arise for this network.
NOT_HERE = "does not apply to this network: "
UNITS = {"relu": "ReLU, whose units can die", "bounded": "tanh or sigmoid, whose units can stand at their ends"}


def either(first: Need, other: Need) -> Need:
    """One of the two; where both are lacking, what the first lacks."""
    return lambda h: first(h) if other(h) else ""


def steps(n: int) -> Need:
    """The losses of at least `n` steps."""
    return lambda h: "" if len(h.losses) >= n else f"the losses of {n} steps (has {len(h.losses)})"


def steps_or_bad(n: int, *, above_zero: bool = True) -> Need:
    """`n` steps, or fewer when a loss was not finite: then there is nothing to wait for. They stay above zero."""
    return lambda h: (_below_zero(h) if above_zero else "") or ("" if h.first_bad_step is not None else steps(n)(h))


def no_gradient(h: History) -> str:
    """Weights that get no gradient at all, which takes less patience to say."""
    return "" if stands_still(h) else "weights of which none gets a gradient"


def _below_zero(h: History) -> str:
    # Shares of a loss say nothing once it crosses zero, as that of a density does; a stray one does not matter.
    loss = h.finite_loss
    if not len(loss) or np.mean(loss < -1e-3 * np.abs(loss).max()) <= 0.05:
        return ""
    return f"a loss that stays above zero (the lowest was {loss.min():.3g}): it is judged by shares of itself"


def samples(n: int) -> Need:
    """At least `n` watched steps with their updates."""

    def need(h: History) -> str:
        if "updates" in h.unseen:
            return f"the updates: {h.unseen['updates']}"
        return "" if len(h.samples) >= n else f"{n} watched steps (has {len(h.samples)})"

    return need


def carried(h: History) -> str:
    """Whether the last gradient was still there when the next backward pass began."""
    if any(s.carried is not None for s in h.samples):
        return ""
    return "a gradient to find again at the next backward pass, on a parameter that is not sharded"


def layers(kind: str | None = None) -> Need:
    """Watched activations, of one kind where it is named."""

    def need(h: History) -> str:
        if "layers" in h.unseen:
            return f"the activations: {h.unseen['layers']}"
        if any(kind in (None, layer.kind) for s in h.samples for layer in s.layers):
            return ""
        if kind and any(s.layers for s in h.samples):
            return f"{NOT_HERE}it has no {UNITS[kind]}"
        return "a watched activation: model(x) on the watched module"

    return need


def inputs(h: History) -> str:
    """The scale of what enters the first layer, or else of the first batch."""
    if any(s.received is not None for s in h.samples):
        return ""
    if "entrance" in h.unseen:
        return f"what the first layer receives: {h.unseen['entrance']}"
    return "" if any(s.input is not None for s in h.samples) else "an input tensor: model(x) on the watched module"


def modes(h: History) -> str:
    """The mode of the training passes."""
    if "modes" in h.unseen:
        return f"the modes: {h.unseen['modes']}"
    return "" if any(s.modes is not None for s in h.samples) else "a training pass: model(x) on the watched module"


def watched_at(step: int) -> Need:
    """A watched step this far into the training."""

    def need(h: History) -> str:
        last = h.samples[-1].step if h.samples else -1
        return "" if last >= step else f"a watched step at or after step {step} (the last was {last})"

    return need


def images_on_both_sides(n: int) -> Need:
    """At least `n` training images, and a set of as many that an epoch was validated on."""

    def need(h: History) -> str:
        if "modes" in h.unseen:
            return f"the images: {h.unseen['modes']}"
        trained = sum(s.inputs.images for s in h.samples if s.inputs is not None)
        if trained < n:
            return f"{n} training images in the calls of the model (has {trained})"
        validated = max((i.images for e in h.epochs if e.passes is not None for i in e.passes.inputs), default=0)
        return "" if validated >= n else f"{n} validation images, model(x) before end_epoch(…) (has {validated})"

    return need


def outputs(h: History) -> str:
    """The network's outputs, one column a class."""
    if "outputs" in h.unseen:
        reason = h.unseen["outputs"]
        return reason if reason.startswith(NOT_HERE) else f"the outputs: {reason}"
    return "" if any(s.output is not None for s in h.samples) else "outputs of shape (images, classes)"


def targets(h: History) -> str:
    """The targets of the watched steps."""
    if "targets" in h.unseen:
        return f"the targets: {h.unseen['targets']}"
    seen = any(s.output is not None and s.output.targets is not None for s in h.samples)
    return "" if seen else "the targets: step(loss, targets=y)"


def classes(h: History) -> str:
    """The number of classes."""
    return "" if h.classes else "the number of classes: Monitor(model, optimizer, classes=10)"


def epochs(n: int, *figures: str) -> Need:
    """At least `n` epochs that give all the named figures."""

    def need(h: History) -> str:
        full = sum(all(getattr(e, f) is not None for f in figures) for e in h.epochs)
        return "" if full >= n else f"{n} epochs with {', '.join(figures)} (has {full}): end_epoch(…)"

    return need


def lrs(h: History) -> str:
    """The learning rate of every step."""
    return "" if len(h.lrs) and len(h.lrs) == len(h.losses) else "the learning rate of every step"
