"""A network that can learn at all learns twenty images by heart (SPEC row C4)."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from wellfit.checks.losses import LossKind, around, kind_of, least_loss
from wellfit.checks.result import CheckResult
from wellfit.checks.sandbox import Context, Criterion, copy_of, own_randomness, scores, without_noise
from wellfit.checks.targets import name_classes, right
from wellfit.findings import Finding
from wellfit.training.optimizers import build_optimizer

CANDIDATES = (1e-3, 1e-4, 1e-2)  # Adam's usual rate, the one for nets without normalisation, and a bold one
PATIENCE = 50  # steps without a lower loss before the next rate is tried
# A loss that came down by this share of itself within that time is on its way, and is given so many times the steps.
ON_ITS_WAY, LONGER = 0.2, 4
# One that came down by less stands.
STANDING = 0.05


@dataclass
class Attempt:
    """One learning rate's try: best figures over its steps, and how it ended."""

    lr: float
    steps: int = 0
    loss: float = math.inf
    accuracy: float | None = 0.0
    ended: str = "steps"  # "learnt", "steps", "stuck", "diverged" or "time"


def small_sample(
    module: nn.Module,
    criterion: Criterion,
    inputs: Tensor,
    targets: Tensor,
    *,
    max_steps: int = 200,
    deadline: float | None = None,
    candidates: Sequence[float] = CANDIDATES,
    context: Context = contextlib.nullcontext,
    seed: int = 0,
) -> CheckResult:
    """Train a copy on the given images, full batch, by Adam, until accuracy 1.00 and a loss a tenth of guessing's.

    inputs: about 20 preprocessed images, N×channels×H×W, of at least two classes. targets: N class indices, or what
    the criterion takes instead; where they are numbers to be met, as of a regression, the loss alone is judged: a tenth
    of what their mean costs. A loss that cannot reach zero (smoothed labels) is taken from its own floor.
    max_steps: for each of the learning rates `candidates`, four times as many while the loss comes down by a fifth in
    50 of them; the check ends with the first that succeeds.
    deadline: on time.monotonic's scale; a check cut short has not failed, and `finished` is False.
    Regularisation is off: no dropout, no augmentation, no penalty, no decay, no label smoothing.
    """
    begun = time.monotonic()
    exact = _unsmoothed(criterion)
    attempts: list[Attempt] = []
    first_gradient = small = math.nan
    with own_randomness(module, seed, "cannot-overfit-small-sample"):
        for lr in candidates:
            attempt, gradient, small = _try(module, exact, inputs, targets, lr, max_steps, deadline, context)
            attempts.append(attempt)
            first_gradient = gradient if math.isnan(first_gradient) else first_gradient
            if attempt.ended in ("learnt", "time"):
                break
    best = max(attempts, key=lambda a: (a.ended == "learnt", a.accuracy or 0.0, -a.loss))
    passed = best.ended == "learnt"
    finished = passed or attempts[-1].ended != "time"
    steps = sum(a.steps for a in attempts)
    finding = None
    if passed:
        message = f"learnt {len(inputs)} images by heart in {best.steps} steps at lr {best.lr:g} (loss {best.loss:.3g})"
    else:
        rates = ", ".join(f"{a.lr:g}" for a in attempts)
        shown = "" if best.accuracy is None else f"accuracy {best.accuracy:.2f}, "
        figures = f"{shown}loss {best.loss:.3g} after {steps} steps at lr {rates}"
        if finished:
            suspects = _suspects(attempts, first_gradient)
            message = f"could not learn {len(inputs)} images by heart: {figures}; suspects: {suspects}"
            action = "check in this order what the message suspects, on these few images alone"
        else:
            message = f"ran out of time before {len(inputs)} images were learnt by heart: {figures}"
            action = "give it a larger budget"
        finding = Finding(
            "cannot-overfit-small-sample",
            "error" if finished else "warning",
            message,
            {"attempts": [asdict(a) for a in attempts], "first_gradient_norm": first_gradient, "images": len(inputs)},
            action,
            "SPEC C4",
        )
    seconds = time.monotonic() - begun
    value, wanted = (best.accuracy, 1.0) if best.accuracy is not None else (best.loss, small)
    return CheckResult("cannot-overfit-small-sample", passed, value, wanted, message, finding, seconds, finished)


def _try(
    module: nn.Module,
    criterion: Criterion,
    inputs: Tensor,
    targets: Tensor,
    lr: float,
    max_steps: int,
    deadline: float | None,
    context: Context,
) -> tuple[Attempt, float, float]:
    """How it went, the norm of the first gradient, and the loss that was to be reached."""
    network = without_noise(copy_of(module))
    optimizer = build_optimizer("adam", network, lr=lr)
    attempt, first_gradient, first_loss, stale = Attempt(lr), math.nan, math.nan, 0
    limit, before, standing = max_steps, math.inf, math.inf
    while True:
        with context():
            outputs = scores(network, inputs)
            tensor = criterion(outputs, targets)
        loss = float(tensor.detach())
        if attempt.steps == 0:
            first_loss = loss
            kind = kind_of(criterion, outputs.detach(), targets)
            if kind.at_chance is None and not name_classes(targets):
                attempt.accuracy = None
            least, chance = _ends(criterion, outputs.detach(), targets, kind, first_loss)
            small = least + 0.1 * max(0.0, chance - least)
        # Against the last clear fall: a loss that creeps down by less than a hundredth a step falls as well.
        if _fell(loss, standing, 0.01):
            standing, stale = loss, 0
        else:
            stale += 1
        accuracy = float(right(outputs.detach(), targets).float().mean()) if attempt.accuracy is not None else 1.0
        if attempt.accuracy is not None:
            attempt.accuracy = max(attempt.accuracy, accuracy)
        attempt.loss = min(attempt.loss, loss) if math.isfinite(loss) else attempt.loss
        if attempt.steps == limit - PATIENCE:
            before = attempt.loss
        if (
            attempt.steps == limit < LONGER * max_steps
            and math.isfinite(before)
            and _fell(attempt.loss, before, ON_ITS_WAY)
        ):
            limit, before = limit + PATIENCE, attempt.loss
        if accuracy == 1.0 and loss <= small:
            attempt.ended = "learnt"
        elif not math.isfinite(loss):
            attempt.ended = "diverged"
        elif stale >= PATIENCE:
            # Far above its start and not coming down is divergence, even where the loss stays a number.
            attempt.ended = "diverged" if loss > 3 * first_loss else "stuck"
        elif attempt.steps < limit and not (deadline is not None and time.monotonic() >= deadline):
            tensor.backward()
            if attempt.steps == 0:
                first_gradient = _gradient_norm(network)
            optimizer.step()
            optimizer.zero_grad()
            attempt.steps += 1
            continue
        elif attempt.steps < limit:
            attempt.ended = "time"
        elif math.isfinite(before) and not _fell(attempt.loss, before, STANDING):
            attempt.ended = "stuck"
        return attempt, first_gradient, small


def _fell(loss: float, before: float, share: float) -> bool:
    """Whether the loss, which may be negative, came down by this share of what it was."""
    return math.isinf(before) or loss < before - share * abs(before)


def _ends(
    criterion: Criterion, outputs: Tensor, targets: Tensor, kind: LossKind, first_loss: float
) -> tuple[float, float]:
    """The least that the loss can be, and what guessing costs; where that is not known, what it was at first."""
    known = around(criterion, outputs, targets) if kind.at_chance is None and not name_classes(targets) else None
    if known is not None:
        return known
    chance = kind.factor * kind.at_chance if kind.at_chance is not None else first_loss
    return least_loss(criterion, outputs, targets), chance


def _gradient_norm(module: nn.Module) -> float:
    norms = [p.grad.float().norm() for p in module.parameters() if p.grad is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0


def _unsmoothed(criterion: Criterion) -> Criterion:
    if not getattr(criterion, "label_smoothing", 0.0):
        return criterion
    # Smoothed targets have a loss floor above zero, which would read as "cannot learn".
    exact = copy.deepcopy(criterion)
    vars(exact)["label_smoothing"] = 0.0
    return exact


def _suspects(attempts: list[Attempt], first_gradient: float) -> str:
    architecture = "architecture (a layer that cuts the input off, or too few units)"
    rate = "learning rate (all tried rates are listed)"
    start = "initialisation (weights that start too large or too small)"
    if not first_gradient > 1e-7:
        return "; ".join([f"initialisation (the first gradient is {first_gradient:.2g})", architecture, rate])
    if all(a.ended == "diverged" for a in attempts):
        return "; ".join(["learning rate (every tried rate diverged)", start, architecture])
    if any(a.ended == "steps" for a in attempts):
        return "; ".join(["learning rate (the loss was still falling)", architecture, start])
    return "; ".join([architecture, rate, start])
