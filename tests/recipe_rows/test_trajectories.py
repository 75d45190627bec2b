"""What the gallery's page of optimizers shows, as assertions on its own paths (SPEC O11)."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "gallery" / "optimisation" / "plot_optimizers.py"
BEFORE_THE_RACE = "rates = {"
BOWL, VALLEYS, SADDLE, NOISE = range(4)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The page's names, up to where its race begins: landscapes, rules, `run` and `heights`."""
    source = PAGE.read_text(encoding="utf-8")
    assert BEFORE_THE_RACE in source
    beginning = tmp_path_factory.mktemp("page") / "beginning.py"
    beginning.write_text(source[: source.index(BEFORE_THE_RACE)], encoding="utf-8")
    with mpl.rc_context():
        mpl.use("Agg")
        return runpy.run_path(str(beginning), run_name="page")


def path_of(page: dict[str, Any], rule: str, lr: float, land: int, steps: int = 100) -> np.ndarray:
    return page["run"](rule, (lr,), page["LANDSCAPES"][land], steps)[0]


def test_the_condition_number_is_shown(page: dict[str, Any]) -> None:
    assert page["eigenvalues"].tolist() == [1.0, page["CONDITION"]]
    assert f"condition number {page['CONDITION']:.0f}" in page["LANDSCAPES"][BOWL].title


def test_rules_that_divide_by_the_gradient_see_a_round_bowl(page: dict[str, Any]) -> None:
    """The first step of Adam, AdaGrad and RMSProp is as long along the valley as across; SGD's 15 times less so."""
    for rule in ("adam", "adagrad", "rmsprop"):
        first = np.abs(np.diff(path_of(page, rule, 1e-2, BOWL, 1), axis=0)[0])
        assert first[0] == pytest.approx(first[1], rel=1e-4), rule
    first = np.abs(np.diff(path_of(page, "sgd", 1e-2, BOWL, 1), axis=0)[0])
    assert first[1] / first[0] == pytest.approx(50 * 0.55 / 1.8)


@pytest.mark.parametrize("rule", ["momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "kron"])
def test_every_rule_is_lower_on_the_bowl_than_plain_descent_at_its_best(page: dict[str, Any], rule: str) -> None:
    land = page["LANDSCAPES"][BOWL]
    rates = {"momentum": 2e-2, "nesterov": 2e-2, "kron": 1e-1}
    reached = page["heights"](path_of(page, rule, rates.get(rule, 3e-1), BOWL, 60), land)
    plain = page["heights"](path_of(page, "sgd", 3e-2, BOWL, 60), land)  # 2/50 is where it begins to fly out
    assert reached[-10:].min() < plain[-10:].min()
    assert page["heights"](path_of(page, "sgd", 4.1e-2, BOWL, 60), land)[-1] > plain[0]


def test_muon_takes_steps_of_one_length(page: dict[str, Any]) -> None:
    path = path_of(page, "muon", 3e-1, BOWL, 60)
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert lengths.std() < 0.1 * lengths.mean()
    assert np.linalg.norm(path[-1]) < np.linalg.norm(path[0])


def test_momentum_rolls_through_the_local_minimum_where_plain_descent_stays(page: dict[str, Any]) -> None:
    for rule, lr, passes in (("sgd", 2e-2, False), ("momentum", 2e-2, True), ("nesterov", 2e-2, True)):
        assert bool(path_of(page, rule, lr, VALLEYS)[-1, 0] > 0) is passes, rule


def test_adam_leaves_the_saddle_while_plain_descent_waits(page: dict[str, Any]) -> None:
    away = {rule: path_of(page, rule, 3e-2, SADDLE, 60)[:, 1] for rule in ("sgd", "adam")}
    assert away["adam"][-1] > 0.9  # the minima lie at height ±1
    assert away["sgd"][-1] < 0.1
    assert away["adam"][1] - away["adam"][0] == pytest.approx(3e-2, rel=1e-3), "of length lr, however small the slope"


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adam"])
def test_at_a_constant_rate_noise_lets_nobody_rest(page: dict[str, Any], rule: str) -> None:
    across = {land: np.abs(path_of(page, rule, 2e-2, land, 200)[-50:, 1]).mean() for land in (BOWL, NOISE)}
    assert across[BOWL] < 1e-3
    assert across[NOISE] > 5e-3
