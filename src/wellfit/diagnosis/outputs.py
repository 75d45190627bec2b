"""Sums up the network's answers at a watched step: how far they differ, what they predict, how the loss reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wellfit.diagnosis.history import Output
from wellfit.diagnosis.rules.needs import NOT_HERE
from wellfit.errors import UserError

# Larger answers (dense maps, huge vocabularies) are cut to their first rows.
ENTRIES = 1 << 20
# The class number that torch's cross-entropy leaves out unless told otherwise; any other is taken for one, too.
IGNORED = -100


def tables(output: Any) -> Iterator[Tensor]:
    """Every N×C tensor in what a model returned, in its order, with its gradient."""
    if isinstance(output, Tensor):
        if output.ndim == 2 and output.is_floating_point():
            yield output
        return
    if isinstance(output, Mapping):
        parts = [output["logits"]] if output.get("logits") is not None else list(output.values())
    elif getattr(output, "logits", None) is not None:
        parts = [output.logits]
    elif isinstance(output, list | tuple):
        parts = list(output)
    elif is_dataclass(output) and not isinstance(output, type):
        parts = [getattr(output, f.name, None) for f in fields(output)]
    else:
        return
    for part in parts:
        yield from tables(part)


def shape_of(output: Any) -> str:
    """What a model returned, in words, where there is no N×C tensor in it."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    inner = getattr(output, "logits", None)
    return shape_of(inner) if isinstance(inner, Tensor) else f"a {type(output).__name__} without such a tensor"


def as_targets(targets: Any) -> Tensor:
    """Targets as a tensor, of a list or an array too. UserError for what holds no numbers."""
    if isinstance(targets, Tensor):
        return targets
    try:
        if isinstance(targets, list | tuple | np.ndarray):
            return torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise UserError(
        f"targets are a tensor, an array or a list of class numbers, got {type(targets).__name__}; pass the labels of "
        "the batch"
    )


def check_targets(targets: Tensor, answers: Tensor) -> None:
    """UserError unless the targets are class numbers (N,) or class shares (N, C) for the answers (N, C)."""
    n, width = answers.shape
    if tuple(targets.shape) not in {(n,), (n, width)}:
        raise UserError(
            f"targets are class numbers of shape ({n},) or shares of shape ({n}, {width}) for outputs of shape "
            f"({n}, {width}), got shape {tuple(targets.shape)}; pass the labels of the batch that made the loss"
        )


def is_ignored(targets: Tensor, width: int, *, named: bool = True) -> Tensor:
    """Which class numbers (N,) are none of 0 to width − 1: a loss leaves them out, or it could not be computed.

    named: torch's own −100 among them.
    """
    outside = (targets < 0) | (targets >= width)
    return outside if named else outside & (targets != IGNORED)


def why_no_classes(answers: Tensor, targets: Tensor | None) -> str:
    """Why the answers (N×C) do not choose one class of several an image; "" where they may."""
    if answers.shape[1] < 2:
        return f"{NOT_HERE}the model has one output, as for a regression or for two classes on one logit"
    if targets is None:
        return ""
    if targets.ndim == 1:
        return f"{NOT_HERE}the targets are no class numbers but fractions" if targets.is_floating_point() else ""
    shares = targets.detach().double()
    if bool((shares >= 0).all()) and bool(((shares.sum(1) - 1).abs() < 1e-2).all()):
        return ""
    return f"{NOT_HERE}the targets name several classes an image, or none"


def sum_up(answers: Tensor, targets: Tensor | None) -> Output | None:
    """The figures of one batch of answers (N×C); None where there is no class to choose (C < 2) or no number."""
    n, width = answers.shape
    if width < 2 or n == 0:
        return None
    rows = max(1, ENTRIES // width)
    table = answers[:rows].float().cpu().numpy().astype(np.float64)
    if not np.isfinite(table).all():
        return None
    is_probability = bool(table.min() >= 0 and np.abs(table.sum(1) - 1).max() < 1e-2)
    logs = table - table.max(1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(1, keepdims=True))
    shares = table if is_probability else np.exp(logs)
    said = table.argmax(1)
    figures: dict[str, Any] = {}
    if targets is not None:
        figures = _against(targets[:rows], table, logs, said, is_probability=is_probability, whole=n <= rows)
    return Output(
        images=n,
        width=width,
        spread=float(shares.std(0).mean()),
        probabilities=is_probability,
        top=float(shares.max(1).mean()),
        predicted=np.bincount(said, minlength=width),
        **figures,
    )


def _against(
    targets: Tensor, table: np.ndarray, logs: np.ndarray, said: np.ndarray, *, is_probability: bool, whole: bool
) -> dict[str, Any]:
    width = table.shape[1]
    given = targets.detach().cpu()
    wanted: np.ndarray | None
    mixed = False
    if given.ndim == 2:
        wanted = given.double().numpy()
        true = given.argmax(1).numpy()
        # Smoothed labels are equally sure of every image.
        mixed = bool(np.std(wanted.max(1)) > 0.02)
    else:
        true = given.to(torch.int64).numpy()
        kept = ~is_ignored(given.to(torch.int64), width).numpy()
        if not kept.any():
            return {}
        true, table, logs, said = true[kept], table[kept], logs[kept], said[kept]
        wanted = np.eye(width)[true] if width <= 4096 else None
    figures: dict[str, Any] = {
        "targets": np.bincount(true, minlength=width),
        "correct": int((said == true).sum()),
        "mixed": mixed,
    }
    # A loss over rows that were cut off cannot be compared.
    if whole and wanted is not None:
        figures["as_logits"] = float(-(wanted * logs).sum(1).mean())
        shares = np.exp(logs)
        figures["as_twice"] = float(-(wanted * (shares - np.log(np.exp(shares).sum(1, keepdims=True)))).sum(1).mean())
        if is_probability:
            figures["as_probabilities"] = float(-(wanted * np.log(np.clip(table, 1e-30, None))).sum(1).mean())
    return figures
