"""Newton's method and BFGS on a function of one flat vector, and why networks are not trained by them (SPEC row O8).

    Newton   x ← x − H⁻¹g                         H the Hessian: N² numbers to keep, about N³/3 operations to solve
    BFGS     B ← (I − ρ s yᵀ) B (I − ρ y sᵀ) + ρ s sᵀ,  ρ = 1/(yᵀs)     an inverse Hessian learnt by updates of rank 2

One Newton step goes to the critical point of a quadratic, whatever kind of point that is: to a minimum only where the
Hessian is positive definite; on a saddle it is attracted by the saddle. BFGS needs gradients alone and N² operations a
step, L-BFGS keeps the last m pairs (s, y) instead of B: 2mN numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import line_search
from torch import Tensor

from wellfit.errors import UserError

Function = Callable[[Tensor], Tensor]
Kind = Literal["minimum", "maximum", "saddle", "flat"]

FLAT = 1e-10  # of the largest eigenvalue: smaller ones count as zero


@dataclass(frozen=True)
class NewtonStep:
    """One step x − H⁻¹g.

    x: N, where it goes. kind: of the critical point of the quadratic that was solved, by the signs of the Hessian's
    `eigenvalues` (N, ascending); "flat" where some are zero, and x is then the nearest point of zero slope.
    """

    x: Tensor
    kind: Kind
    eigenvalues: Tensor


def kind_of(eigenvalues: Tensor) -> Kind:
    """What kind of critical point a Hessian with these eigenvalues belongs to."""
    largest = float(eigenvalues.abs().max())
    low, high = float(eigenvalues.min()), float(eigenvalues.max())
    if largest == 0.0 or float(eigenvalues.abs().min()) <= FLAT * largest:
        return "flat"
    return "minimum" if low > 0 else "maximum" if high < 0 else "saddle"


def newton_step(function: Function, x: Tensor) -> NewtonStep:
    """One Newton step for a scalar function of a flat vector; see the module for its cost.

    x: N floating-point numbers, float64 for the sake of the eigenvalues. Raises UserError for another shape.

    >>> newton_step(lambda v: (v**2).sum() - v[0], torch.tensor([3.0, 4.0], dtype=torch.float64)).x
    tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    if x.ndim != 1 or not x.is_floating_point():
        raise UserError(
            f"a Newton step takes one flat vector of floating-point numbers, got shape {tuple(x.shape)} of {x.dtype}; "
            "flatten the parameters first"
        )
    x = x.detach()
    gradient: Tensor = torch.func.grad(function)(x)
    hessian: Tensor = torch.func.hessian(function)(x)
    eigenvalues, vectors = torch.linalg.eigh((hessian + hessian.T) / 2)
    used = eigenvalues.abs() > FLAT * eigenvalues.abs().max()
    inverse = torch.where(used, 1.0 / torch.where(used, eigenvalues, 1.0), 0.0)
    return NewtonStep(x - vectors @ (inverse * (vectors.T @ gradient)), kind_of(eigenvalues), eigenvalues)


@dataclass(frozen=True)
class Minimum:
    """Where BFGS ended. path: (steps + 1)×N, the points visited; inverse_hessian: N×N, as it was learnt."""

    x: Tensor
    loss: float
    path: Tensor
    inverse_hessian: Tensor
    converged: bool


def bfgs(function: Function, start: Tensor, *, steps: int = 200, tolerance: float = 1e-8) -> Minimum:
    """Minimise a smooth scalar function of a flat vector, with a line search by the strong Wolfe conditions.

    start: N numbers. tolerance: of the largest entry of the gradient. Nocedal and Wright 2006, algorithm 6.1.
    """
    slope = torch.func.grad(function)

    def value(x: np.ndarray) -> float:
        return float(function(torch.from_numpy(x)))

    def gradient(x: np.ndarray) -> np.ndarray:
        return np.asarray(slope(torch.from_numpy(x)).detach().numpy(), dtype=np.float64)

    x = start.detach().to(torch.float64).numpy().copy()
    g, identity = gradient(x), np.eye(len(x))
    inverse, path, converged = identity, [x], False
    for step in range(steps):
        converged = bool(np.abs(g).max() <= tolerance)
        if converged:
            break
        direction = -inverse @ g
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the answer None says the same
            length = line_search(value, gradient, x, direction, gfk=g)[0]
        if length is None:  # rounding: no lower point can be told apart
            break
        s = length * direction
        x, before = x + s, g
        g = gradient(x)
        y = g - before
        if step == 0:  # the first step has told the scale of the curvature
            inverse = identity * float(y @ s) / float(y @ y)
        rho = 1.0 / float(y @ s)
        left = identity - rho * np.outer(s, y)
        inverse = left @ inverse @ left.T + rho * np.outer(s, s)
        path.append(x)
    return Minimum(
        torch.from_numpy(x), value(x), torch.from_numpy(np.stack(path)), torch.from_numpy(inverse), converged
    )


@dataclass(frozen=True)
class Cost:
    """What one step takes for N parameters, beside the gradient itself: bytes kept and operations done."""

    method: str
    parameters: int
    bytes: int
    operations: int

    @property
    def sentence(self) -> str:
        """In words, for people."""
        return (
            f"{self.method} with {self.parameters:,} parameters keeps {_amount(self.bytes, 'B')} and takes "
            f"{_amount(self.operations, ' operations')} a step, beside the gradient"
        )


def second_order_cost(parameters: int, *, history: int = 20, bytes_each: int = 4) -> dict[str, Cost]:
    """Newton (N² numbers, N³/3 operations), BFGS (N², 4N²) and L-BFGS with `history` pairs (2mN, 4mN) for N parameters.

    >>> print(second_order_cost(1_000_000)["newton"].sentence)
    Newton with 1,000,000 parameters keeps 4 TB and takes 333 quadrillion operations a step, beside the gradient
    """
    if parameters < 1 or history < 1:
        raise UserError(f"a cost is counted for parameters and pairs from 1, got {parameters} and {history}")
    n = parameters
    return {
        "newton": Cost("Newton", n, n * n * bytes_each, n**3 // 3),
        "bfgs": Cost("BFGS", n, n * n * bytes_each, 4 * n * n),
        "lbfgs": Cost("L-BFGS", n, 2 * history * n * bytes_each, 4 * history * n),
    }


def _amount(number: int, unit: str) -> str:
    names = ("", "k", "M", "G", "T", "P", "E") if unit == "B" else _WORDS
    power = min(len(names) - 1, (len(str(number)) - 1) // 3)
    figure = f"{number / 1000**power:.3g}"
    return f"{figure} {names[power]}{unit}" if unit == "B" else f"{figure}{names[power]}{unit}"


_WORDS = ("", " thousand", " million", " billion", " trillion", " quadrillion", " quintillion")
