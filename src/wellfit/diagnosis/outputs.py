"""Sums up the network's answers at a watched step: how far they differ, what they predict, how the loss reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wellfit.diagnosis.history import Output
from wellfit.errors import UserError

# Larger answers (dense maps, huge vocabularies) are cut to their first rows.
ENTRIES = 1 << 20


def find_answers(output: Any) -> Tensor | None:
    """The N×C tensor in what a model returned: itself, `.logits`, or the first of a tuple or mapping; else None."""
    if isinstance(output, Tensor):
        return output.detach() if output.ndim == 2 and output.is_floating_point() else None
    logits = getattr(output, "logits", None)
    if logits is not None:
        return find_answers(logits)
    if isinstance(output, Mapping):
        output = [output["logits"]] if "logits" in output else list(output.values())
    if isinstance(output, list | tuple):
        return next((found for part in output if (found := find_answers(part)) is not None), None)
    return None


def check_targets(targets: Tensor, answers: Tensor | None) -> None:
    """UserError unless the targets are class numbers (N,) or class shares (N, C) for the answers (N, C)."""
    if answers is None or not isinstance(targets, Tensor):
        if isinstance(targets, Tensor):
            return
        raise UserError(f"targets are a tensor of class numbers, got {type(targets).__name__}; pass the batch's labels")
    n, width = answers.shape
    if tuple(targets.shape) not in {(n,), (n, width)}:
        raise UserError(
            f"targets are class numbers of shape ({n},) or shares of shape ({n}, {width}) for outputs of shape "
            f"({n}, {width}), got shape {tuple(targets.shape)}; pass the labels of the batch that made the loss"
        )


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
    if given.ndim == 2:
        wanted = given.double().numpy()
        true = given.argmax(1).numpy()
    else:
        true = given.to(torch.int64).numpy()
        if true.min() < 0 or true.max() >= width:
            raise UserError(
                f"targets are class numbers from 0 to {width - 1}, as the model has {width} outputs, got values from "
                f"{true.min()} to {true.max()}; number the classes from 0 or enlarge the last layer"
            )
        wanted = np.eye(width)[true] if width <= 4096 else None
    figures: dict[str, Any] = {
        "targets": np.bincount(true, minlength=width),
        "correct": int((said == true).sum()),
    }
    # A loss over rows that were cut off cannot be compared.
    if whole and wanted is not None:
        figures["as_logits"] = float(-(wanted * logs).sum(1).mean())
        if is_probability:
            figures["as_probabilities"] = float(-(wanted * np.log(np.clip(table, 1e-30, None))).sum(1).mean())
    return figures
