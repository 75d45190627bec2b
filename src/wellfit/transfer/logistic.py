"""Many multinomial logistic regressions on the same features, fitted at once (SPEC T2).

Problems differ in the strength of their penalty and in the weights of the samples (a fold held out has weight 0).
In the principal axes of the features the curvature of all of them has one diagonal bound (Böhning 1992, "Multinomial
logistic regression algorithm"), so that one decomposition serves every problem and a step of all of them is two matrix
products. The steps are accelerated and restarted as Nesterov 1983 and O'Donoghue & Candès 2015 have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

CHECK_EVERY = 10  # iterations between looks at whether the problems have settled
NEVER = -30.0  # the bias of a class that a problem has no sample of


@dataclass(frozen=True)
class Axes:
    """Standardised features in their principal axes: features = (scores · rotation) · std + mean.

    scores: float32 M×R; rotation: R×F; variances: R, the sum of squares along each axis; mean, std: F.
    """

    scores: torch.Tensor
    rotation: torch.Tensor
    variances: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor


@dataclass(frozen=True)
class Fits:
    """The solutions of P problems with C classes: coefficients R×P×C in the axes, biases P×C."""

    axes: Axes
    coefficients: torch.Tensor
    biases: torch.Tensor

    def logits(self, rows: torch.Tensor | slice = slice(None), problem: int | slice = slice(None)) -> torch.Tensor:
        """M×P×C, or M×C of one problem: what the classifiers say of the samples, or of those `rows`."""
        coefficients, biases = self.coefficients[:, problem], self.biases[problem]
        answers = self.axes.scores[rows] @ coefficients.flatten(1)
        return answers.unflatten(1, biases.shape) + biases

    def classifier(self, problem: int) -> tuple[np.ndarray, np.ndarray]:
        """(weight C×F, bias C) of one problem for features as they were given."""
        axes = self.axes
        weight = (self.coefficients[:, problem].T.double() @ axes.rotation.double()) / axes.std
        bias = self.biases[problem].double() - weight @ axes.mean
        return weight.float().numpy(), bias.float().numpy()


def principal_axes(features: np.ndarray | torch.Tensor) -> Axes:
    """The axes of M×F features, standardised by their own mean and spread; R is the smaller of M and F at most."""
    x = torch.as_tensor(features).float()
    mean, std = x.double().mean(0), x.double().std(0, correction=0) + 1e-6
    x = (x - mean.float()) / std.float()
    wide = x.shape[1] > x.shape[0]
    # Single precision does: what it blurs are axes along which the features hardly vary.
    variances, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = variances > 1e-6 * variances[-1].clamp(min=1e-12)
    variances, vectors = variances[kept], vectors[:, kept]
    if wide:
        length = variances.sqrt()
        return Axes(vectors * length, (vectors / length).T @ x, variances, mean, std)
    return Axes(x @ vectors, vectors.T, variances, mean, std)


@torch.inference_mode()
def fit_logistic(
    axes: Axes,
    targets: np.ndarray,
    classes: int,
    strengths: np.ndarray,
    weights: np.ndarray,
    *,
    iterations: int = 300,
    tolerance: float = 1e-4,
) -> Fits:
    """Minimise Σ weight · cross-entropy + |coefficients|² / (2 · strength) for P problems; the bias bears no penalty.

    targets: M class numbers. strengths: P, the inverse penalties. weights: P×M, none negative. The steps end after
    `iterations`, or when no coefficient moves by more than `tolerance` of the largest: few steps are an early stop,
    which acts as a penalty of its own.
    """
    scores, problems = axes.scores, len(strengths)
    sample_weights = torch.as_tensor(weights, dtype=torch.float32).T.contiguous()  # M×P
    labels = torch.as_tensor(targets, dtype=torch.int64)
    given = torch.nn.functional.one_hot(labels, classes).float()  # M×C
    absent = (given.T @ sample_weights) == 0  # C×P
    # Two columns share one decision: their penalties together are that of the single row of a binary regression.
    penalty = torch.as_tensor(1.0 / np.asarray(strengths), dtype=torch.float32) * (2.0 if classes == 2 else 1.0)
    heaviest = sample_weights.amax(0)  # P
    step = 1.0 / (0.5 * axes.variances[:, None] * heaviest + penalty)  # R×P
    bias_step = 1.0 / (0.5 * len(scores) * heaviest)  # P
    # Problems lie innermost, where the sums over few classes are quickest; the last row holds the biases.
    here = torch.zeros(len(axes.variances) + 1, classes, problems)
    here[-1][absent] = NEVER
    look, pace = here.clone(), torch.ones(problems)
    for iteration in range(iterations):
        logits = (scores @ look[:-1].flatten(1)).unflatten(1, (classes, problems)) + look[-1]
        error = (torch.softmax(logits, dim=1) - given[:, :, None]) * sample_weights[:, None]
        slope = torch.empty_like(look)
        slope[:-1] = (scores.T @ error.flatten(1)).unflatten(1, (classes, problems)) + penalty * look[:-1]
        slope[-1] = error.sum(0).masked_fill(absent, 0.0)
        after = look.clone()
        after[:-1] -= step[:, None] * slope[:-1]
        after[-1] -= bias_step * slope[-1]
        moved = after - here
        uphill = (slope * moved).sum((0, 1)) > 0  # the momentum of a problem points the wrong way: it starts afresh
        pace = torch.where(uphill, 1.0, pace)
        faster = (1 + (1 + 4 * pace**2).sqrt()) / 2
        look = after + torch.where(uphill, 0.0, (pace - 1) / faster) * moved
        here, pace = after, faster
        if iteration % CHECK_EVERY == CHECK_EVERY - 1:
            largest = here[:-1].abs().amax((0, 1)) if len(axes.variances) else torch.ones(problems)
            if (moved.abs().amax((0, 1)) <= tolerance * largest.clamp(min=1e-12)).all():
                break
    found = here.transpose(1, 2).contiguous()
    return Fits(axes, found[:-1], found[-1])
