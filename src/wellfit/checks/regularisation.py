"""Regularisation reaches the weights that it is meant for (SPEC row C3)."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wellfit.checks.result import CheckResult
from wellfit.checks.sandbox import Context, Criterion, copy_of, own_randomness, scores, without_noise
from wellfit.findings import Finding
from wellfit.training.optimizers import decaying_names
from wellfit.training.regularize import Penalty

RAISED = 1e3
# How far weights are moved to see whether a penalty of 0 feels them: a little, then beyond any limit.
NUDGES = (1e-2, 10.0)

# λ times something of a module's weights, a scalar: wellfit's own, or a user's function.
PenaltyTerm = Callable[[nn.Module], Tensor]


@dataclass
class Seen:
    """What one of the two kinds of regularisation does. value, expected: see `regularisation`."""

    passed: bool = True
    sentence: str = ""
    value: float | None = None
    expected: float | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


def regularisation(
    module: nn.Module,
    criterion: Criterion,
    inputs: Tensor,
    targets: Tensor,
    *,
    penalty: PenaltyTerm | None = None,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    meant: Collection[str] | None = None,
    foreign: bool = False,
    context: Context = contextlib.nullcontext,
    seed: int = 0,
) -> CheckResult:
    """A penalty raised to 1e3 raises the loss; a decay raised 1e3 times shrinks exactly the parameters meant to decay.

    penalty: the term of the loss, called with the module. optimizer: builds the run's optimizer for a module, with its
    weight decay; the loss cannot show decay that an optimizer applies, so one step with zero gradients does.
    meant: names of the parameters that should decay; by default the trained weights of two or more dimensions.
    foreign: a user's own optimizer may decay biases too, or some layers alone; it fails where no weight of two or more
    dimensions shrinks, or where biases or norms shrink without their weights and most of the weights do not.
    value, expected: with a penalty the raised loss and the plain one, else how many parameters shrank and should.
    """
    begun = time.monotonic()
    parts: list[Seen] = []
    with own_randomness(module, seed, "regularisation-inert"):
        if optimizer is not None:
            shrunk = shrunk_by_decay(module, optimizer)
            if shrunk is not None:
                should = set(decaying_names(module) if meant is None else meant)
                parts.append(_decay_of_users(module, shrunk, should) if foreign else _decay(shrunk, should))
        if isinstance(penalty, Penalty):
            if penalty.strength > 0:
                with torch.no_grad(), context():
                    network = without_noise(copy_of(module))
                    plain = float(criterion(scores(network, inputs), targets))
                with torch.no_grad():
                    parts.append(_raised(plain, plain + float(penalty.with_strength(RAISED)(network))))
        elif penalty is not None:
            parts.append(_users_penalty(module, penalty))
    message = "; ".join(part.sentence for part in parts)
    message = message or "nothing to check: there is no penalty and the weight decay is 0"
    finding = None
    passed = all(part.passed for part in parts)
    if not passed:
        evidence: dict[str, Any] = {}
        for part in parts:
            evidence |= part.evidence
        action = "hand the optimizer and the penalty the parameters of the model that is trained"
        finding = Finding("regularisation-inert", "error", message, evidence, action, "SPEC C3")
    last = parts[-1] if parts else Seen()
    seconds = time.monotonic() - begun
    return CheckResult("regularisation-inert", passed, last.value, last.expected, message, finding, seconds)


def _decay(shrunk: set[str], should: set[str]) -> Seen:
    missing, extra = sorted(should - shrunk), sorted(shrunk - should)
    evidence = {"not_shrunk": missing, "shrunk_by_mistake": extra}
    passed = not missing and not extra
    return Seen(passed, _decay_sentence(missing, extra, len(should)), float(len(shrunk)), float(len(should)), evidence)


def _decay_of_users(module: nn.Module, shrunk: set[str], should: set[str]) -> Seen:
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    reached, missing, others = should & shrunk, sorted(should - shrunk), sorted(shrunk - should)
    share = sum(sizes[n] for n in reached) / max(1, sum(sizes[n] for n in should))
    # A layer that decays in whole, its bias too, is meant; a bias or a norm that decays without its weight is not.
    whole = {name.rpartition(".")[0] for name in reached}
    backwards = share < 0.5 and any(name.rpartition(".")[0] not in whole for name in others)
    passed = bool(reached) and not backwards
    if not missing and not others:
        sentence = f"weight decay shrinks exactly the {len(should)} parameters meant to decay"
    elif passed:
        sentence = f"weight decay shrinks {len(reached)} of {len(should)} weights of two or more dimensions"
        sentence += f" and {len(others)} other parameters" if others else ""
    else:
        sentence = _decay_sentence(missing, others, len(should))
    evidence = {"not_shrunk": missing, "shrunk_besides": others, "share_of_weights": share}
    return Seen(passed, sentence, float(len(shrunk)), float(len(should)), evidence)


def _raised(plain: float, raised: float) -> Seen:
    rises = math.isfinite(raised) and raised > plain
    verb = "raises" if rises else "does not raise"
    sentence = f"a penalty of {RAISED:g} {verb} the loss ({plain:.5g} to {raised:.5g})"
    return Seen(rises, sentence, raised, plain, {"loss": plain, "raised_loss": raised})


def _users_penalty(module: nn.Module, penalty: PenaltyTerm) -> Seen:
    """A function of the user's: a finite number above 0 whose gradient reaches weights, or the scales of norms alone.

    One that holds the weights near where they start is 0 there: it is asked again with each weight moved a little.
    """
    network = copy_of(module)
    (value, held), beside = _asked(module, network, penalty), ""
    for far in NUDGES if value == 0 else ():
        # Gradients are taken there, too: what a penalty has kept for them is of the weights where it was asked.
        with _moved(network, far), _moved(module, far):
            (value, held), beside = _asked(module, network, penalty), " once the weights have moved"
        if value != 0:
            break
    felt = [p for _, p, g in held if bool(g.any())]
    reached = sum(p.ndim >= 2 for p in felt)
    if not any(p.ndim >= 2 or name.endswith("bias") for name, p, _ in held):
        reached = len(felt)  # the scales of norms alone, which thins a network out
    why = ""
    if not (math.isfinite(value) and value > 0):
        why = f"the penalty is {value:.5g}, which no weight can lower"
    elif not reached:
        why = f"the penalty of {value:.5g} has no gradient in the weights: they were detached, or are another model's"
    sentence = why or f"the penalty of {value:.5g}{beside} has a gradient in {reached} weights"
    return Seen(not why, sentence, value, None, {"penalty": value, "weights_reached": reached})


@contextlib.contextmanager
def _moved(network: nn.Module, far: float) -> Iterator[None]:
    """Each weight that learns is moved by this share of itself and of its tensor's spread, and back afterwards."""
    trained = [p for p in network.parameters() if p.requires_grad and p.is_floating_point()]
    before = [p.detach().clone() for p in trained]
    try:
        with torch.no_grad():
            for p in trained:
                p.mul_(1 + far).add_(far * p.std(correction=0))
        yield
    finally:
        for p, kept in zip(trained, before, strict=True):
            p.data.copy_(kept)


def _asked(
    module: nn.Module, network: nn.Module, penalty: PenaltyTerm
) -> tuple[float, list[tuple[str, nn.Parameter, Tensor]]]:
    """The penalty of the network, and by name the parameters that it reaches, with their gradients."""
    term: Any = penalty(network)
    if not (isinstance(term, Tensor) and term.requires_grad):
        return float(term.detach() if isinstance(term, Tensor) else term), []
    # A function that was written around one model reads that one, whichever it is given.
    named = [(name, p) for m in (network, module) for name, p in m.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(term, [p for _, p in named], allow_unused=True)
    reached = [(name, p, g) for (name, p), g in zip(named, gradients, strict=True) if g is not None]
    return float(term.detach()), reached


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
