"""Newton and BFGS against closed forms and scipy; what they would cost."""

from __future__ import annotations

import doctest
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from wellfit.errors import UserError
from wellfit.training import second_order
from wellfit.training.second_order import bfgs, kind_of, newton_step, second_order_cost

CENTRE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
TURN = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]


def quadratic(eigenvalues):
    hessian = TURN @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ TURN.T
    return lambda x: 0.5 * (x - CENTRE) @ hessian @ (x - CENTRE) + 3.0


@pytest.mark.parametrize(
    ("eigenvalues", "kind"),
    [([1e-3, 1.0, 1e3], "minimum"), ([-5.0, -1.0, -0.1], "maximum"), ([-1.0, 2.0, 30.0], "saddle")],
)
def test_one_newton_step_goes_to_the_critical_point_and_says_which(eigenvalues, kind) -> None:
    step = newton_step(quadratic(eigenvalues), torch.tensor([10.0, 10.0, -7.0], dtype=torch.float64))
    torch.testing.assert_close(step.x, CENTRE, rtol=1e-9, atol=1e-9)
    assert step.kind == kind
    np.testing.assert_allclose(step.eigenvalues.numpy(), sorted(eigenvalues), rtol=1e-8)


def test_a_flat_valley_is_entered_at_its_nearest_point() -> None:
    start = torch.tensor([10.0, 10.0, -7.0], dtype=torch.float64)
    step = newton_step(quadratic([0.0, 1.0, 2.0]), start)
    assert step.kind == "flat"
    along = TURN[:, 0]
    torch.testing.assert_close(step.x - CENTRE, along * (along @ (start - CENTRE)), rtol=1e-8, atol=1e-8)
    assert kind_of(torch.zeros(2)) == "flat"


def test_newton_is_quadratic_near_a_minimum_and_drawn_to_saddles() -> None:
    def function(x):
        return x[0] ** 4 / 4 - x[0] ** 2 / 2 + x[1] ** 2  # minima at ±1, a saddle at 0

    x, errors = torch.tensor([1.3, 1.0], dtype=torch.float64), []
    for _ in range(5):
        x = newton_step(function, x).x
        errors.append(float((x - torch.tensor([1.0, 0.0])).norm()))
    assert errors[-1] < 1e-12
    assert all(after <= 3 * before**2 for before, after in pairwise(errors) if before > 1e-7)
    saddle = newton_step(function, torch.tensor([0.1, 1.0], dtype=torch.float64))
    assert saddle.kind == "saddle"
    assert abs(float(saddle.x[0])) < 0.01


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def test_bfgs_finds_the_minimum_as_scipy_does() -> None:
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    found = bfgs(rosenbrock, start, tolerance=1e-6)
    theirs = minimize(lambda x: float(rosenbrock(torch.tensor(x))), start.numpy(), method="BFGS")
    assert found.converged
    assert found.loss < 1e-12
    assert len(found.path) < 3 * theirs.nit
    torch.testing.assert_close(found.x, torch.ones(2, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    losses = [float(rosenbrock(x)) for x in found.path]
    assert losses == sorted(losses, reverse=True)


def test_bfgs_learns_the_inverse_hessian_by_rank_two_updates() -> None:
    found = bfgs(quadratic([0.5, 2.0, 20.0]), torch.tensor([3.0, 1.0, 9.0], dtype=torch.float64), tolerance=1e-12)
    hessian = TURN @ torch.diag(torch.tensor([0.5, 2.0, 20.0], dtype=torch.float64)) @ TURN.T
    torch.testing.assert_close(found.inverse_hessian, torch.linalg.inv(hessian), rtol=1e-3, atol=1e-3)


def test_the_cost_grows_as_squares_and_cubes() -> None:
    small, large = second_order_cost(1000), second_order_cost(10_000)
    assert small["newton"].bytes == 4_000_000
    assert large["newton"].bytes == 100 * small["newton"].bytes
    assert large["newton"].operations / small["newton"].operations == pytest.approx(1000, rel=1e-6)
    assert large["bfgs"].operations == 100 * small["bfgs"].operations
    assert large["lbfgs"].bytes == 10 * small["lbfgs"].bytes == 2 * 20 * 10_000 * 4
    assert "4 TB" in second_order_cost(10**6)["newton"].sentence


def test_the_examples_hold() -> None:
    assert doctest.testmod(second_order, extraglobs={"torch": torch}).failed == 0


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(UserError, match="one flat vector"):
        newton_step(lambda x: x.sum(), torch.zeros(2, 2))
    with pytest.raises(UserError, match="from 1"):
        second_order_cost(0)
