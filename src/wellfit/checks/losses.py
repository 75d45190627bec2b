"""What a loss is, told by what it does: which one, how much of it, and how low it goes.

Needed where a user brings a loss of their own: the gates compare with what guessing costs and with what is left when
every answer is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.checks.sandbox import Criterion
from wellfit.randomness import generator

SURE = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # scores of the right class above the others
ALIKE = 1e-3  # relative: two losses that agree to this on random scores are one


@dataclass(frozen=True)
class LossKind:
    """name: for people. at_chance: what guessing costs, averaged over images, None where that is not known.

    factor: what the user's loss is multiplied by; the number of images where it is summed and not averaged.
    """

    name: str
    at_chance: float | None
    factor: float = 1.0


def at_chance(criterion: Criterion, classes: int) -> float | None:
    """What equal scores for all classes cost, or None for a loss that does not say and that torch does not define."""
    said = getattr(criterion, "at_chance", None)
    if callable(said):
        return float(said(classes))
    if isinstance(criterion, nn.CrossEntropyLoss) and criterion.reduction == "mean":
        return math.log(classes)
    if isinstance(criterion, nn.MultiMarginLoss) and criterion.reduction == "mean" and criterion.weight is None:
        return (classes - 1) / classes * criterion.margin**criterion.p
    return None


@torch.no_grad()
def kind_of(criterion: Criterion, outputs: Tensor, targets: Tensor) -> LossKind:
    """Which loss this is, by its values on random scores of the outputs' shape.

    outputs: N×C, or N×1 or N for one yes or no; only their shape and dtype count.
    """
    classes = outputs.shape[1] if outputs.ndim == 2 and outputs.shape[1] > 1 else 2
    known = at_chance(criterion, classes)
    if known is not None:
        cross = isinstance(criterion, nn.CrossEntropyLoss)
        return LossKind("cross-entropy" if cross else type(criterion).__name__, known)
    draws = [_random_scores(outputs, number) for number in range(3)]
    alike = []
    for name, expected, reference in _references(outputs, targets, classes):
        factor = _factor(criterion, reference, draws, targets)
        if factor is not None:
            alike.append(LossKind(name, expected, factor))
    # Of two conventions that differ by a factor, such as the hinge's, the one that needs none.
    return min(alike, key=lambda kind: abs(math.log(kind.factor)), default=LossKind("a loss that is not known", None))


def _random_scores(outputs: Tensor, number: int) -> Tensor:
    values = generator(0, "check", "loss-kind", number).standard_normal(tuple(outputs.shape))
    return torch.from_numpy(values).to(outputs)


Reference = Callable[[Tensor, Tensor], Tensor]


def _references(outputs: Tensor, targets: Tensor, classes: int) -> Iterator[tuple[str, float, Reference]]:
    """(name, loss of guessing, the loss as a mean over images), of those that fit the targets."""
    wide = outputs.ndim == 2 and outputs.shape[1] > 1
    if wide and not targets.is_floating_point():
        yield "cross-entropy", math.log(classes), functional.cross_entropy
        yield "negative log-likelihood", math.log(classes), functional.nll_loss
        yield "hinge", classes - 1.0, lambda z, y: classes * functional.multi_margin_loss(z, y)
        yield "hinge", (classes - 1.0) / classes, functional.multi_margin_loss
        for share in (0.05, 0.1, 0.2):
            yield "cross-entropy", math.log(classes), _smoothed(share)
    elif wide:
        yield "cross-entropy", math.log(classes), functional.cross_entropy
    yield "binary cross-entropy", math.log(2), _binary


def _smoothed(share: float) -> Reference:
    return lambda z, y: functional.cross_entropy(z, y, label_smoothing=share)


def _binary(scores: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(scores.reshape(targets.shape), targets.to(scores.dtype))


def _factor(criterion: Criterion, reference: Reference, draws: list[Tensor], targets: Tensor) -> float | None:
    """The constant by which the two differ on all draws, above 0; None where there is none."""
    ratios = []
    for scores in draws:
        try:
            wanted, seen = float(reference(scores, targets)), float(criterion(scores, targets))
        except Exception:  # one of the two takes other scores or targets; the user's may raise anything
            return None
        if not math.isfinite(seen) or abs(wanted) < 1e-6:
            return None
        ratios.append(seen / wanted)
    mean = sum(ratios) / len(ratios)
    return mean if mean > 0 and max(ratios) - min(ratios) <= ALIKE * mean else None


@torch.no_grad()
def around(criterion: Criterion, outputs: Tensor, targets: Tensor) -> tuple[float, float] | None:
    """Of targets that are numbers to be met: the loss of meeting them all, and that of always answering their mean.

    None where the loss takes other answers than such numbers, or where the mean costs no more.
    """
    met = targets.to(outputs.dtype)
    mean = met.mean(0, keepdim=True).expand_as(met)
    try:
        least, guessed = (float(criterion(said.reshape(outputs.shape), targets)) for said in (met, mean))
    except Exception:  # the user's loss may raise anything
        return None
    return (least, guessed) if math.isfinite(least) and math.isfinite(guessed) and guessed > least else None


@torch.no_grad()
def least_loss(criterion: Criterion, outputs: Tensor, targets: Tensor) -> float:
    """The loss of right answers, the lowest over how sure they are; 0 where it cannot be told.

    Smoothed labels, and a penalty that the loss adds, cost something even then.
    """
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        wanted = 2.0 * targets.reshape(outputs.shape).to(outputs.dtype) - 1.0
    elif targets.is_floating_point():
        wanted = targets.to(outputs.dtype)
    else:
        wanted = functional.one_hot(targets.long(), outputs.shape[1]).to(outputs.dtype)
    losses = []
    for size in SURE:
        for scores in (size * wanted, (size * wanted).log_softmax(-1)) if wanted.ndim == 2 else (size * wanted,):
            try:
                losses.append(float(criterion(scores, targets)))
            except Exception:  # such as a loss of probabilities, which is 0 where they are right
                return 0.0
    finite = [loss for loss in losses if math.isfinite(loss)]
    return max(0.0, min(finite, default=0.0))
