"""Whitening feature vectors: zero-centre, normalise, decorrelate, whiten (SPEC D4).

For vectors such as a network's features; images are centred and scaled only (`preprocess`), as SPEC D3 has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellfit.errors import UserError

SMALLEST = 1e-10  # of the largest variance: below it a direction is rounding, and dividing by it would blow that up


@dataclass(frozen=True)
class Whitening:
    """Figures of the training vectors, applied to any others. All float64.

    mean, scale: D, subtracted and divided by. axes: D×K, orthonormal columns, the direction of largest variance first.
    variances: K, along the axes, of the normalised training vectors.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    variances: np.ndarray

    def centred(self, features: np.ndarray) -> np.ndarray:
        """N×D, mean zero on the training vectors."""
        return np.asarray(features, dtype=np.float64) - self.mean

    def normalised(self, features: np.ndarray) -> np.ndarray:
        """N×D, each dimension of deviation 1 as well."""
        return self.centred(features) / self.scale

    def decorrelated(self, features: np.ndarray) -> np.ndarray:
        """N×K, turned onto the principal axes: covariance diagonal."""
        return self.normalised(features) @ self.axes

    def whitened(self, features: np.ndarray) -> np.ndarray:
        """N×K, each axis divided by its deviation: covariance the identity."""
        return self.decorrelated(features) / np.sqrt(self.variances)


def fit_whitening(features: np.ndarray, components: int | None = None) -> Whitening:
    """Figures of the training vectors, N×D with N ≥ 2.

    components: K, how many axes are kept; by default all along which the vectors vary. Covariances divide by N.
    A dimension that never varies keeps scale 1. UserError for other shapes, for numbers that are not finite, and where
    more components are asked for than the vectors vary in.
    """
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise UserError(f"whitening needs at least two vectors, N×D, got shape {values.shape}; pass them as rows")
    if not np.isfinite(values).all():
        raise UserError("whitening needs finite numbers, got NaN or infinity in the vectors; leave those rows out")
    mean, scale = values.mean(0), values.std(0)
    # A dimension may be constant and still have a tiny deviation from rounding its mean.
    scale = np.where(scale > 1e-12 * np.maximum(1.0, np.abs(mean)), scale, 1.0)
    normalised = (values - mean) / scale
    if len(values) >= values.shape[1]:
        variances, axes = np.linalg.eigh(normalised.T @ normalised / len(values))
        variances, axes = variances[::-1], axes[:, ::-1]
    else:  # fewer vectors than dimensions: the D×D covariance would be the larger problem
        _, singular, right = np.linalg.svd(normalised, full_matrices=False)
        variances, axes = singular**2 / len(values), right.T
    varying = int((variances > SMALLEST * max(variances[0], 1e-300)).sum()) if variances[0] > 1e-20 else 0
    kept = varying if components is None else components
    if not 1 <= kept <= varying:
        raise UserError(
            f"whitening keeps at least 1 component and at most as many as the vectors vary in, {varying}, got {kept}; "
            "ask for fewer, or pass vectors that differ"
        )
    return Whitening(mean, scale, np.ascontiguousarray(axes[:, :kept]), np.ascontiguousarray(variances[:kept]))
