"""The first loss, before any training, is the loss of guessing (SPEC row C2)."""

from __future__ import annotations

import contextlib
import math
import time

import torch
from torch import Tensor, nn

from wellfit.checks.losses import LossKind, kind_of
from wellfit.checks.result import CheckResult
from wellfit.checks.sandbox import Context, Criterion, copy_of, own_randomness, scores, without_noise
from wellfit.checks.targets import class_of, right
from wellfit.findings import Finding, Severity

TOLERANCE = 0.1  # relative, to both sides
# A net of foreign make at its own initialisation: EfficientNets and deep nets for two classes start at up to four times
# what guessing costs and train well all the same.
FAR_SHARE, FAR_NATS = 1.5, 2.5
WELL_ABOVE_CHANCE = 0.2  # accuracy above the most frequent class's share: the net knows these images
ACCUMULATED = 64  # batches whose gradients may make one step: 1/2 to 1/64 of the loss is then meant so


def initial_loss(
    module: nn.Module,
    criterion: Criterion,
    inputs: Tensor,
    targets: Tensor,
    *,
    classes: int,
    created_head: bool,
    context: Context = contextlib.nullcontext,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> CheckResult:
    """Compare the untrained loss, regularisation off, with log C (hinge: C − 1).

    inputs: N×channels×H×W, preprocessed. targets: N class indices.
    created_head: whether wellfit made and scaled the classifier, so that the figure must hold. A foreign net may start
    above it: a remark where the loss is half as much again, a warning where it is far above or below what it can be.
    """
    begun = time.monotonic()
    with own_randomness(module, seed, "initial-loss"), torch.no_grad(), context():
        outputs = scores(without_noise(copy_of(module)), inputs)
        value = float(criterion(outputs, targets))
        kind = kind_of(criterion, outputs, targets)
        accuracy = float(right(outputs, targets).float().mean())
    expected = kind.at_chance
    evidence = {
        "loss": value,
        "expected": expected,
        "classes": classes,
        "images": len(inputs),
        "accuracy": accuracy,
        "loss_kind": kind.name,
        "factor": kind.factor,
    }
    severity: Severity | None = None
    message, action = "", ""
    if not math.isfinite(value):
        severity = "error"
        message = f"the loss before training is {value}"
        action = "look for values that are not finite in the input, then lower the scale of the initial weights"
    elif expected is None:
        message = f"the loss before training is {value:.5g}; what guessing costs is not known for this loss"
    elif abs(kind.factor - 1) > tolerance:
        severity, message, action = _of_factor(kind, value, len(inputs))
    else:
        message = f"the loss before training is {value:.5g}, as guessing among {classes} classes costs ({expected:.5g})"
        severity = _severity(value, expected, created_head, tolerance, accuracy, targets)
        if severity is not None or abs(value - expected) > tolerance * expected:
            message = (
                f"the loss before training is {value:.5g}, {value / expected:.2g} times the {expected:.5g} that "
                f"guessing among {classes} classes costs"
            )
            action = (
                "lower the scale of the last layer's initial weights"
                if value > expected
                else "make sure that the model has not seen these images, that the targets match the classes, and that "
                "the loss is given what it expects (raw scores or logarithms of probabilities)"
            )
    finding = None
    if severity is not None:
        finding = Finding("initial-loss", severity, message, evidence, action, "SPEC C2")
    passed = severity != "error"
    return CheckResult("initial-loss", passed, value, expected, message, finding, time.monotonic() - begun)


def _severity(
    value: float, expected: float, created_head: bool, tolerance: float, accuracy: float, targets: Tensor
) -> Severity | None:
    if abs(value - expected) <= tolerance * expected:
        return None
    if created_head:
        return "error"
    if value > expected:
        far = value > expected + max(FAR_SHARE * expected, FAR_NATS)
        return "warning" if far else "info" if value > 1.5 * expected else None
    shares = torch.bincount(class_of(targets)).double() / len(targets)
    entropy = float(torch.special.entr(shares).sum())
    # Biases may start at the classes' frequencies; a trained net may be gone on with.
    if value >= 0.5 * min(expected, entropy):
        return None
    return "info" if accuracy > float(shares.max()) + WELL_ABOVE_CHANCE else "warning"


def _of_factor(kind: LossKind, value: float, images: int) -> tuple[Severity, str, str]:
    """A loss that is a multiple of a known one: summed, in another base, divided for accumulation."""
    factor = kind.factor
    summed, base_two = abs(factor / images - 1) < 1e-2, abs(factor * math.log(2) - 1) < 1e-2
    why = ", summed over the batch" if summed else ", in base 2" if base_two else ""
    whole = abs(1 / factor - round(1 / factor)) < 1e-2
    meant = whole and 2 <= round(1 / factor) <= ACCUMULATED and round(1 / factor) != images
    return (
        "info" if meant else "warning",
        f"the loss before training is {value:.5g}: it is {factor:.3g} times the {kind.name} averaged over images{why}, "
        f"so that the learning rate acts as {factor:.3g} times as much",
        "average the loss over the images of a batch, with natural logarithms and no factor",
    )
