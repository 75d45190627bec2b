"""Activation and gradient statistics of any network on one batch, layer by layer (SPEC N8, I1-I6, C7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wellfit.diagnosis.activations import END, ActivationWatch, is_silent
from wellfit.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 40
# Where the histogram of a kind begins and ends; unit-sized activations fill it.
LIMITS = {"relu": (0.0, 4.0), "bounded": (-1.0, 1.0), "other": (-4.0, 4.0)}


@dataclass(frozen=True)
class LayerStatistics:
    """One activation on the batch, over all its entries.

    kind: "relu", "bounded" (sigmoid, tanh and kin) or "other". saturated: share of entries at the ends of a bounded
    one, else None. dead: share of units inactive on all of the batch, ReLU only, else None. counts: finite entries in
    each of 40 equal bins from `low` to `high`; the first and last hold what lies beyond too.
    gradient_mean, gradient_std, gradient_norm: of the loss by these entries; None without a loss, or where none flows.
    """

    name: str
    kind: str
    mean: float
    std: float
    saturated: float | None
    dead: float | None
    low: float
    high: float
    counts: NDArray[np.int64]
    gradient_mean: float | None = None
    gradient_std: float | None = None
    gradient_norm: float | None = None


@dataclass(frozen=True)
class ActivationStatistics:
    """The layers in the order of the forward pass, of a batch of `images`; `loss` is None where none was asked for."""

    layers: tuple[LayerStatistics, ...]
    images: int
    loss: float | None = None

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """The figures as text, one line a layer; a dash where there is none."""
        head = ["layer", "kind", "mean", "std", "saturated", "dead"]
        rows = [
            [r.name, r.kind, _short(r.mean), _short(r.std), _share(r.saturated), _share(r.dead)] for r in self.layers
        ]
        if self.loss is not None:
            head += ["gradient mean", "gradient std", "gradient norm"]
            for row, r in zip(rows, self.layers, strict=True):
                row += [_short(r.gradient_mean), _short(r.gradient_std), _short(r.gradient_norm)]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in [head, *rows]
        ]
        return "\n".join(line.rstrip() for line in lines)

    def plot(self, figure: Figure | None = None) -> Figure:
        """The histograms side by side, on a matplotlib figure of its own or the one given."""
        from wellfit.report.curves_statistics import Histogram
        from wellfit.report.static_statistics import plot_histograms

        data = [
            Histogram(r.name, r.low, r.high, r.counts / max(1, r.counts.sum()), r.mean, r.std, r.gradient_std)
            for r in self.layers
        ]
        return plot_histograms(data, figure)


def activation_statistics(
    model: nn.Module,
    batch: Tensor,
    targets: Tensor | None = None,
    loss: Callable[..., Tensor] | None = None,
    *,
    limits: tuple[float, float] | None = None,
) -> ActivationStatistics:
    """Mean, spread, saturated and dead share of every activation on one batch; with a loss, its gradients too.

    model: any network; it runs once, in the mode it is in. Weights, gradients, buffers, mode, hooks and the random
        state are afterwards what they were.
    batch: N×… inputs, on the model's device. targets: what the loss takes beside the outputs.
    loss: (outputs, targets) → scalar, or (outputs) → scalar without targets; targets alone: the cross-entropy.
    limits: ends of every histogram; otherwise 0 to 4 for ReLU, −1 to 1 for tanh, 0 to 1 for sigmoid, else −4 to 4.

    Where a network has no activation modules (it calls `F.relu` and the like), the inputs of its weight layers are
    measured, which is what the activations before them put out. Raises UserError where there is nothing to measure.

    >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    >>> [row.name for row in activation_statistics(net, torch.ones(3, 2)).layers]
    ['1']
    """
    if not isinstance(batch, Tensor) or batch.ndim < 2 or len(batch) == 0:
        got = f"shape {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
        raise UserError(f"statistics are taken on one batch, a tensor of N×… inputs, got {got}; stack the inputs")
    if limits is not None and not limits[0] < limits[1]:
        raise UserError(f"the limits of a histogram rise, got {limits}; give (low, high)")
    wants_loss = loss is not None or targets is not None
    watch = _EveryEntry(model, limits)
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = [batch.device] if batch.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.inference_mode(False), torch.set_grad_enabled(wants_loss):
            inputs = batch.detach().clone()
            if wants_loss:
                inputs.requires_grad_(inputs.is_floating_point())
            watch.begin()
            outputs = _forward(model, inputs)
            watch.active = False
            value = _backward(model, inputs, outputs, targets, loss) if wants_loss else None
        rows = watch.rows()
    finally:
        watch.close()
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    if not rows:
        raise UserError(
            f"statistics need activations to look at, but {type(model).__name__} showed none; give an uncompiled "
            "network with activations or two weight layers"
        )
    return ActivationStatistics(tuple(rows), len(batch), value)


def _forward(model: nn.Module, inputs: Tensor) -> Any:
    try:
        return model(inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"statistics are taken on a batch that the network takes, but {type(model).__name__} does not take "
            f"{tuple(inputs.shape)} of {inputs.dtype} ({reason}); give inputs of its shape and type"
        ) from error


def _backward(
    model: nn.Module, inputs: Tensor, outputs: Any, targets: Tensor | None, loss: Callable[..., Tensor] | None
) -> float:
    """Send the gradient back to the inputs, which passes every activation and leaves the weights' gradients alone."""
    chosen: Callable[..., Any] = functional.cross_entropy if loss is None else loss
    value = chosen(outputs) if targets is None else chosen(outputs, targets)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise UserError(f"a loss is one number, got {_kind(value)}; take its mean over the batch")
    ends = [inputs] if inputs.requires_grad else [p for p in model.parameters() if p.requires_grad]
    if not value.requires_grad or not ends:
        raise UserError("the loss does not depend on the network's inputs or weights; compute it from the outputs")
    torch.autograd.grad(value, ends, allow_unused=True)
    return float(value.detach())


class _EveryEntry(ActivationWatch):
    """Measures whole activations, and their gradients as they pass by."""

    def __init__(self, model: nn.Module, limits: tuple[float, float] | None) -> None:
        super().__init__(model)
        self._limits = limits
        self._figures: list[tuple[dict[str, Any], list[Tensor]]] = []

    def rows(self) -> list[LayerStatistics]:
        found = []
        for fixed, gradient in self._figures:
            mean, std, norm = gradient[-1].tolist() if gradient else (None, None, None)
            found.append(LayerStatistics(**fixed, gradient_mean=mean, gradient_std=std, gradient_norm=norm))
        return found

    def _note(self, name: str, kind: str, x: Tensor, source: Tensor, centre: float, half: float, unit: int) -> None:
        x = x.float()
        std, mean = torch.std_mean(x, correction=0)
        low, high = (centre - half, centre + half) if kind == "bounded" else LIMITS[kind]
        low, high = self._limits or (low, high)
        inside = x[x.isfinite()].clamp(low, high)
        fixed = {
            "name": name,
            "kind": kind,
            "mean": float(mean),
            "std": float(std),
            "saturated": float(((x - centre).abs() > END * half).float().mean()) if kind == "bounded" else None,
            "dead": float(is_silent(x, unit).float().mean()) if kind == "relu" else None,
            "low": low,
            "high": high,
            "counts": torch.histc(inside.cpu(), BINS, low, high).numpy().astype(np.int64),
        }
        gradient: list[Tensor] = []
        self._figures.append((fixed, gradient))

        def keep(slope: Tensor) -> None:
            slope = slope.detach().float()
            spread, middle = torch.std_mean(slope, correction=0)
            gradient.append(torch.stack([middle, spread, slope.norm()]))

        if source.requires_grad:
            source.register_hook(keep)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _kind(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
