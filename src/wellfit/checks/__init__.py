"""Gates before training: each works on a copy, and none of them changes the run that follows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from wellfit.checks.gradients import gradients_agree
from wellfit.checks.independence import batch_leak, input_ignored
from wellfit.checks.initial_loss import initial_loss
from wellfit.checks.lr_range import lr_range
from wellfit.checks.regularisation import PenaltyTerm, regularisation
from wellfit.checks.result import CheckResult
from wellfit.checks.sandbox import Context, Criterion
from wellfit.checks.small_sample import small_sample
from wellfit.checks.targets import class_of
from wellfit.findings import GateFailed, root_cause_first

SMALL_SAMPLE = 20
GRADIENT_SAMPLE = 4
INDEPENDENCE_SAMPLE = 8  # images are alike here: a few tell as much as many

__all__ = [
    "CheckResult",
    "batch_leak",
    "few_of_each_class",
    "gradients_agree",
    "initial_loss",
    "input_ignored",
    "lr_range",
    "regularisation",
    "run_gates",
    "small_sample",
]


def run_gates(
    module: nn.Module,
    criterion: Criterion,
    inputs: Tensor,
    targets: Tensor,
    *,
    classes: int,
    created_head: bool,
    optimizer: Callable[[nn.Module, float], torch.optim.Optimizer],
    lr: float = 1e-3,
    penalty: PenaltyTerm | None = None,
    batches: Callable[[int], tuple[Tensor, Tensor]] | None = None,
    candidates: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
    iterations: int = 100,
    max_steps: int = 200,
    deadline: float | None = None,
    context: Context = contextlib.nullcontext,
    seed: int = 0,
    force: bool = False,
    gradients: bool = False,
    foreign: bool = False,
    on_result: Callable[[CheckResult], None] = lambda result: None,
) -> list[CheckResult]:
    """All gates in the recipe's order, cheapest first; the first that fails stops, with GateFailed, unless `force`.

    inputs, targets: one preprocessed batch of at least two images; the small sample is taken from it.
    optimizer(module, lr): builds the run's optimizer with its weight decay.
    batches(i): inputs and targets of iteration i, for the range of learning rates; None leaves that gate out.
    deadline: on time.monotonic's scale. A gate that it cuts short does not stop the run, and its result says so.
    gradients: check the module's gradient too, for networks that may bring a backward pass of their own.
    foreign: the network, the loss and the optimizer are the user's: the loss's gradient is checked as well, and an
        optimizer may decay what it likes as long as it reaches weights.
    on_result: called with each result as it comes, also with the one that stops.
    """

    def gates() -> Iterator[CheckResult]:
        yield input_ignored(module, inputs[:INDEPENDENCE_SAMPLE], context=context, seed=seed)
        yield batch_leak(module, inputs[:INDEPENDENCE_SAMPLE], context=context, seed=seed)
        yield initial_loss(
            module,
            criterion,
            inputs,
            targets,
            classes=classes,
            created_head=created_head,
            context=context,
            seed=seed,
        )
        yield regularisation(
            module,
            criterion,
            inputs,
            targets,
            penalty=penalty,
            optimizer=lambda network: optimizer(network, lr),
            foreign=foreign,
            context=context,
            seed=seed,
        )
        if gradients:
            pair = inputs[:GRADIENT_SAMPLE], targets[:GRADIENT_SAMPLE]
            yield gradients_agree(module, *pair, criterion=criterion if foreign else None, deadline=deadline, seed=seed)
        few = few_of_each_class(class_of(targets), SMALL_SAMPLE)
        now = time.monotonic()
        half = deadline if deadline is None or batches is None else now + 0.5 * (deadline - now)
        yield small_sample(
            module,
            criterion,
            inputs[few],
            targets[few],
            max_steps=max_steps,
            deadline=half,
            context=context,
            seed=seed,
        )
        if batches is not None:
            yield lr_range(
                module,
                criterion,
                batches,
                optimizer,
                candidates=candidates,
                iterations=iterations,
                deadline=deadline,
                any_rate=foreign,
                context=context,
                seed=seed,
            )

    results = []
    for result in gates():
        results.append(result)
        on_result(result)
        if result.stops and not force and result.finding is not None:
            raise GateFailed(root_cause_first([r.finding for r in results if r.finding is not None]))
    return results


def few_of_each_class(targets: Tensor, count: int) -> Tensor:
    """Indices of up to `count` images, taken in turn from each class in the order they come."""
    order = torch.argsort(targets, stable=True)
    ranked = targets[order]
    first = torch.searchsorted(ranked, ranked)  # where the class begins
    turn = torch.empty_like(order)
    turn[order] = torch.arange(len(targets), device=targets.device) - first
    return torch.argsort(turn, stable=True)[:count].sort().values
