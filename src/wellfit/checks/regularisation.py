"""Regularisation reaches the weights that it is meant for (SPEC row C3)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from wellfit.checks.result import CheckResult
from wellfit.checks.sandbox import Context, Criterion, copy_of, own_randomness, scores, without_noise
from wellfit.findings import Finding
from wellfit.training.optimizers import decaying_names
from wellfit.training.regularize import Penalty

RAISED = 1e3


def regularisation(
    module: nn.Module,
    criterion: Criterion,
    inputs: Tensor,
    targets: Tensor,
    *,
    penalty: Penalty | None = None,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    meant: Collection[str] | None = None,
    context: Context = contextlib.nullcontext,
    seed: int = 0,
) -> CheckResult:
    """A penalty raised to 1e3 raises the loss; a decay raised 1e3 times shrinks exactly the parameters meant to decay.

    penalty: the term of the loss. optimizer: builds the run's optimizer for a module, with its weight decay; the loss
    cannot show decay that an optimizer applies, so one step with zero gradients does.
    meant: names of the parameters that should decay; by default the trained weights of two or more dimensions.
    value, expected: with a penalty the raised loss and the plain one, else how many parameters shrank and should.
    """
    begun = time.monotonic()
    sentences: list[str] = []
    evidence: dict[str, object] = {}
    value = expected = None
    passed = True
    with own_randomness(module, seed, "regularisation-inert"):
        if optimizer is not None:
            shrunk = shrunk_by_decay(module, optimizer)
            if shrunk is not None:
                should = set(decaying_names(module) if meant is None else meant)
                missing, extra = sorted(should - shrunk), sorted(shrunk - should)
                value, expected = float(len(shrunk)), float(len(should))
                evidence |= {"not_shrunk": missing, "shrunk_by_mistake": extra}
                passed = not missing and not extra
                sentences.append(_decay_sentence(missing, extra, len(should)))
        if penalty is not None and penalty.strength > 0:
            with torch.no_grad(), context():
                network = without_noise(copy_of(module))
                plain = float(criterion(scores(network, inputs), targets))
            with torch.no_grad():
                raised = plain + float(penalty.with_strength(RAISED)(network))
            value, expected = raised, plain
            evidence |= {"loss": plain, "raised_loss": raised}
            rises = math.isfinite(raised) and raised > plain
            passed = passed and rises
            verb = "raises" if rises else "does not raise"
            sentences.append(f"a penalty of {RAISED:g} {verb} the loss ({plain:.5g} to {raised:.5g})")
    message = "; ".join(sentences) or "nothing to check: there is no penalty and the weight decay is 0"
    finding = None
    if not passed:
        action = "hand the optimizer and the penalty the parameters of the model that is trained"
        finding = Finding("regularisation-inert", "error", message, evidence, action, "SPEC C3")
    return CheckResult("regularisation-inert", passed, value, expected, message, finding, time.monotonic() - begun)


def shrunk_by_decay(module: nn.Module, build: Callable[[nn.Module], torch.optim.Optimizer]) -> set[str] | None:
    """Names of the parameters that one step at 1e3 times the decay, with zero gradients, shrinks. None: no decay.

    Works on a float64 copy whose parameters are tiny tensors of ones with their own number of dimensions: decay is
    given by name and dimension, a large net costs nothing, and biases that start at 0 show their decay too.
    """
    network = copy_of(module).cpu()
    for parameter in network.parameters():
        parameter.data = torch.ones([2] * parameter.ndim, dtype=torch.float64)
    optimizer = build(network)
    strongest = max((group.get("weight_decay", 0.0) for group in optimizer.param_groups), default=0.0)
    if not strongest:
        return None
    for group in optimizer.param_groups:
        group["weight_decay"] = RAISED * group.get("weight_decay", 0.0)
        # Small enough not to overshoot zero, whether the rule scales by the gradient or takes steps of size lr.
        group["lr"] = min(0.01, 0.5 / (RAISED * strongest))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    return {name for name, parameter in network.named_parameters() if bool((parameter.detach() < 1.0).all())}


def _decay_sentence(missing: list[str], extra: list[str], meant: int) -> str:
    if not missing and not extra:
        return f"weight decay shrinks exactly the {meant} parameters meant to decay"
    parts = []
    if missing:
        parts.append(f"does not reach {_listed(missing)}")
    if extra:
        parts.append(f"shrinks {_listed(extra)}, not meant to decay")
    return "weight decay " + " and ".join(parts)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
