"""The checks on what a user's own loop holds: their module, loss, optimizer and batches, all left as they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from wellfit.checks import CheckResult, run_gates
from wellfit.checks.batch_data import (
    imbalanced,
    leaked,
    not_finite,
    prepared_otherwise,
    softmax_twice,
    unnormalised,
)
from wellfit.checks.losses import kind_of
from wellfit.checks.regularisation import PenaltyTerm
from wellfit.checks.sandbox import Criterion, copy_of, own_randomness, scores, without_noise
from wellfit.checks.users_optimizer import Maker, UsersOptimizer, users_optimizer
from wellfit.config import Config
from wellfit.errors import UserError, WellfitError
from wellfit.findings import Finding, root_cause_first
from wellfit.randomness import generator
from wellfit.recipe.loop_data import KINDS, LoopData, is_loop_data, read_loop_data
from wellfit.training.regularize import CrossEntropy

GATE_IMAGES = 64
GATE_BATCH = (32, 64)  # at least and at most, for the range of rates
LR_ITERATIONS, SMALL_SAMPLE_STEPS = 80, 200
LOOKING_SHARE = 0.15  # of the time, for looking at the data
Listener = Callable[[str, dict[str, Any]], None]


def check_module(
    data: Any,
    model: nn.Module,
    *,
    loss: Criterion | str | None,
    optimizer: torch.optim.Optimizer | Maker | str | None,
    validation: Any,
    penalty: PenaltyTerm | None,
    classes: int | None,
    config: Config,
    seconds: float,
    listener: Listener | None,
) -> dict[str, Any]:
    """All gates on copies of `model`, and the audit's questions on what is seen of the batches. See `wellfit.check`."""
    begun = time.monotonic()
    tell = listener or (lambda kind, fields: None)
    network = unwrapped(model)
    refuse_model(network)
    criterion = users_loss(loss, network)
    rule = users_optimizer(optimizer, network, _parameters_of(criterion))
    training, held_out, findings = _data(data, validation, network, config, begun, seconds, listener)
    device = next(network.parameters()).device
    outputs = refuse_outputs(network, criterion, training, classes, device, config.seed)
    if held_out is not None:
        findings += leaked(training.digests, held_out.digests)
        findings += prepared_otherwise((training.inputs, training.targets), (held_out.inputs, held_out.targets))
    weighted = getattr(criterion, "weight", None) is not None or getattr(criterion, "pos_weight", None) is not None
    inputs = training.inputs[_some(training, config.seed)].to(device)
    targets = training.targets[_some(training, config.seed)].to(device)
    findings += not_finite(training.inputs)
    findings += imbalanced(training.counts, weighted=weighted)
    findings += unnormalised(network, inputs, config.seed)
    findings += softmax_twice(outputs, kind_of(criterion, outputs, targets[: len(outputs)]))
    findings += _stale(rule)
    for finding in findings:
        tell("finding", {"step": None, **finding.as_dict()})

    def on_result(result: CheckResult) -> None:
        tell("check", result.as_dict())
        if result.finding is not None:  # a gate that ran out of time has seen nothing wrong
            found = result.finding if result.finished else replace(result.finding, severity="info")
            findings.append(found)
            tell("finding", {"step": None, **found.as_dict()})

    results = run_gates(
        network,
        criterion,
        inputs,
        targets,
        classes=outputs.shape[1] if outputs.ndim == 2 and outputs.shape[1] > 1 else 2,
        created_head=False,
        optimizer=rule.build,
        lr=rule.lr,
        penalty=penalty,
        batches=None if rule.needs_closure else _batches(training, device, config.seed),
        candidates=rule.candidates(),
        iterations=LR_ITERATIONS,
        max_steps=SMALL_SAMPLE_STEPS,
        deadline=None if not np.isfinite(seconds) else begun + seconds,
        seed=config.seed,
        force=True,
        gradients=True,
        foreign=True,
        on_result=on_result,
    )
    return {
        "passed": all(result.passed or not result.finished for result in results),
        "checks": [result.as_dict() for result in results],
        "findings": [finding.as_dict() for finding in root_cause_first(findings)],
    }


def unwrapped(model: nn.Module) -> nn.Module:
    """The module behind torch.compile, DataParallel or DistributedDataParallel."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def refuse_model(model: nn.Module) -> None:
    """UserError for a module that cannot be trained."""
    parameters = list(model.parameters())
    name = type(model).__name__
    if not parameters:
        raise UserError(f"the checks need a model that learns, but {name} has no parameters; register its layers")
    if any(isinstance(p, UninitializedParameter) for p in parameters):
        raise UserError(f"{name} has lazy layers that have seen no input yet; run it once on a batch, then check it")
    if not any(p.requires_grad for p in parameters):
        raise UserError(
            f"the checks need a model that learns, but all {len(parameters)} parameters of {name} are frozen; set "
            "requires_grad on those that are to be trained"
        )


def users_loss(loss: Criterion | str | None, model: nn.Module) -> Criterion:
    """The loss as the gates call it: a copy of a criterion module, the function itself, or cross-entropy."""
    if loss is None:
        return CrossEntropy()
    if isinstance(loss, str):
        from wellfit.training.regularize import build_criterion

        return build_criterion(loss)
    if isinstance(loss, type) or not callable(loss):
        held = f"the class {loss.__name__}" if isinstance(loss, type) else type(loss).__name__
        raise UserError(
            f"a loss is called with (outputs, targets), got {held}; give an object such as CrossEntropyLoss()"
        )
    if isinstance(loss, nn.Module):
        return copy_of(loss).to(next(model.parameters()).device)
    return loss


def refuse_outputs(
    model: nn.Module, criterion: Criterion, data: LoopData, classes: int | None, device: torch.device, seed: int
) -> Tensor:
    """Run model and loss once on copies; the outputs of a few images. UserError where the parts do not fit."""
    inputs, targets = (part[: GATE_IMAGES // 2].to(device) for part in (data.inputs, data.targets))
    name = type(model).__name__
    network = without_noise(copy_of(model))
    with own_randomness(model, seed, "probe"):
        try:
            outputs = scores(network, inputs)
        except WellfitError:
            raise
        except Exception as error:  # the user's forward pass
            raise UserError(
                f"{name} could not be run on images of shape {tuple(inputs.shape)} ({_reason(error)}); give the "
                "batches that your training loop gives it"
            ) from error
        width = outputs.shape[1] if outputs.ndim == 2 else 1
        _refuse_targets(name, width, targets, data, criterion, classes)
        try:
            value = criterion(outputs, targets)
        except WellfitError:
            raise
        except Exception as error:  # the user's loss
            raise UserError(
                f"the loss could not be computed from outputs of shape {tuple(outputs.shape)} and targets of shape "
                f"{tuple(targets.shape)} and type {targets.dtype} ({_reason(error)}); class numbers are int64 of shape "
                "(N,), and a loss is called with (outputs, targets)"
            ) from error
    if not isinstance(value, Tensor) or value.numel() != 1 or value.ndim:
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UserError(f"a loss is one number, a tensor without dimensions, got {shape}; average it over the images")
    if not value.requires_grad:
        raise UserError(
            "the loss has no gradient, so that nothing can be learnt from it; remove the detach(), item() or no_grad() "
            "from the model's forward pass or the loss"
        )
    return outputs.detach()


def _refuse_targets(
    name: str, width: int, targets: Tensor, data: LoopData, criterion: Criterion, classes: int | None
) -> None:
    if classes is not None and classes < 2:
        raise UserError(f"a classification has at least 2 classes, got {classes}; leave it out when not known")
    if classes is not None and width not in (classes, 1):
        raise UserError(f"{name} has {width} outputs for {classes} classes; make its last layer as wide as that")
    if width == 1 and isinstance(criterion, CrossEntropy):
        raise UserError(
            f"{name} has one output, which cross-entropy cannot learn from; give loss=torch.nn.BCEWithLogitsLoss(), or "
            "make the last layer as wide as there are classes"
        )
    if targets.is_floating_point():
        if targets.ndim == 2 and targets.shape[1] != width:
            raise UserError(
                f"targets of shape (N, C) have a column for each output, got {targets.shape[1]} columns for {width} "
                f"outputs of {name}; make them equal"
            )
        return
    if targets.ndim != 1 and width > 1:
        raise UserError(f"class numbers have shape (N,), got {tuple(targets.shape)}; squeeze or argmax them")
    low, high = int(data.targets.min()), int(data.targets.max())
    if low < 0 or high >= max(2, width):
        raise UserError(
            f"targets are class numbers from 0 to {max(2, width) - 1}, as {name} has {width} outputs, got values from "
            f"{low} to {high}; number the classes from 0 or enlarge the last layer"
        )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def _parameters_of(criterion: Criterion) -> list[Tensor]:
    return list(criterion.parameters()) if isinstance(criterion, nn.Module) else []


def _stale(rule: UsersOptimizer) -> list[Finding]:
    """An optimizer that was made before a layer was replaced."""
    if not rule.missing or not rule.strange:
        return []
    listed = ", ".join(rule.missing[:3]) + (f" and {len(rule.missing) - 3} more" if len(rule.missing) > 3 else "")
    return [
        Finding(
            "frozen-parameters",
            "warning",
            f"the optimizer holds {rule.strange} tensors that are not the model's, and lacks {listed}",
            {"missing": rule.missing, "strange": rule.strange},
            "make the optimizer after the model's layers are in place",
            "PyTorch, torch.optim",
        )
    ]


def _some(data: LoopData, seed: int) -> Tensor:
    order = generator(seed, "check", "gate-images").permutation(len(data.inputs))[:GATE_IMAGES]
    return torch.from_numpy(np.sort(order))


def _batches(data: LoopData, device: torch.device, seed: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Batch i of a training on the images kept, shuffled anew each time they are through."""
    images = len(data.inputs)
    size = min(images, max(GATE_BATCH[0], min(data.batch_size, GATE_BATCH[1])))
    each = max(1, images // size)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        order = generator(seed, "check", "batches", step // each).permutation(images)
        rows = torch.from_numpy(order[(step % each) * size :][:size])
        return data.inputs[rows].to(device), data.targets[rows].to(device)

    return batch


def _data(
    data: Any,
    validation: Any,
    network: nn.Module,
    config: Config,
    begun: float,
    seconds: float,
    listener: Listener | None,
) -> tuple[LoopData, LoopData | None, list[Finding]]:
    """Both sides as tensors; what the audit said where wellfit read images itself."""
    until = begun + LOOKING_SHARE * min(seconds, 600.0)
    if not is_loop_data(data):
        from wellfit.recipe.users_images import prepared_for

        return prepared_for(data, validation, network, config, listener)
    training = read_loop_data(data, "data", seed=config.seed, deadline=until)
    if validation is None:
        return training, None, []
    if not is_loop_data(validation):
        raise UserError(
            f"validation comes in the form of the data, tensors beside tensors, got {type(validation).__name__}; "
            f"give {KINDS}"
        )
    held_out = read_loop_data(validation, "validation", seed=config.seed, deadline=until + LOOKING_SHARE * seconds)
    return training, held_out, []
