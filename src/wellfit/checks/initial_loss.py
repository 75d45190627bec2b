"""The first loss, before any training, is the loss of guessing (SPEC row C2)."""

from __future__ import annotations

import contextlib
import math
import time

import torch
from torch import Tensor, nn

from wellfit.checks.result import CheckResult
from wellfit.checks.sandbox import Context, Criterion, copy_of, own_randomness, scores, without_noise
from wellfit.findings import Finding, Severity

TOLERANCE = 0.1  # relative, to both sides


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
    created_head: whether wellfit made and scaled the classifier, so that the figure must hold; a foreign model at
    its default initialisation may start well above, which is a finding and no refusal unless it is not finite.
    """
    begun = time.monotonic()
    with own_randomness(module, seed, "initial-loss"), torch.no_grad(), context():
        value = float(criterion(scores(without_noise(copy_of(module)), inputs), targets))
    expected = loss_at_chance(criterion, classes)
    evidence = {"loss": value, "expected": expected, "classes": classes, "images": len(inputs)}

    severity: Severity | None = None
    action = ""
    if not math.isfinite(value):
        severity = "error"
        message = f"the loss before training is {value}"
        action = "look for values that are not finite in the input, then lower the scale of the initial weights"
    elif expected is None:
        message = f"the loss before training is {value:.5g}; what guessing costs is not known for this loss"
    elif abs(value - expected) <= tolerance * expected:
        message = f"the loss before training is {value:.5g}, as guessing among {classes} classes costs ({expected:.5g})"
    else:
        severity = "error" if created_head else "warning"
        side = "above" if value > expected else "below"
        message = (
            f"the loss before training is {value:.5g}, {value / expected:.2g} times the {expected:.5g} that guessing "
            f"among {classes} classes costs"
        )
        action = (
            "lower the scale of the last layer's initial weights"
            if side == "above"
            else "make sure that the model has not seen these images and that the targets match the classes"
        )
    finding = None
    if severity is not None:
        finding = Finding("initial-loss", severity, message, evidence, action, "SPEC C2")
    passed = severity != "error"
    return CheckResult("initial-loss", passed, value, expected, message, finding, time.monotonic() - begun)


def loss_at_chance(criterion: Criterion, classes: int) -> float | None:
    """What equal scores for all classes cost, or None for a loss that does not say and that torch does not define."""
    at_chance = getattr(criterion, "at_chance", None)
    if callable(at_chance):
        return float(at_chance(classes))
    if isinstance(criterion, nn.CrossEntropyLoss) and criterion.reduction == "mean":
        return math.log(classes)
    if isinstance(criterion, nn.MultiMarginLoss) and criterion.reduction == "mean" and criterion.weight is None:
        return (classes - 1) / classes * criterion.margin**criterion.p
    return None
