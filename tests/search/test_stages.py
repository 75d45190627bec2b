"""What follows from trials: the best, the edge, the next range, and when the default is kept (SPEC S3, S4, S5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wellfit.randomness import generator
from wellfit.search.samplers import settings_of
from wellfit.search.space import Choice, Fixed, Integer, LogUniform, Space, Uniform, check_conditions, contains
from wellfit.search.stages import NARROW, WIDEN, best_trial, diverged, narrow, ranked, winner
from wellfit.search.trial import Trial

SPACE: Space = {"lr": LogUniform(1e-4, 1.0), "weight_decay": LogUniform(1e-6, 1e-2)}


def trial(number: int, lr: float, score: float | None, decay: float = 1e-4, **more: object) -> Trial:
    state = "finished" if score is not None else "pruned"
    return Trial("coarse", number, {"lr": lr, "weight_decay": decay}, state, score, **more)


def test_the_best_has_the_highest_score_then_the_lowest_loss_then_came_first() -> None:
    far_apart = [trial(0, 1e-4, 0.5, loss=1.0), trial(1, 1e-1, 0.7, loss=0.9), trial(2, 1e2, 0.6, loss=0.8)]
    assert best_trial(far_apart) is far_apart[1]
    twins = [trial(0, 0.1, 0.7, loss=0.9), trial(1, 0.1, 0.7, loss=0.8), trial(2, 0.1, 0.7, loss=0.8)]
    assert best_trial(twins) is twins[1]
    assert best_trial([trial(3, 1, None)]) is None
    assert best_trial([]) is None


def test_a_best_value_in_the_middle_is_narrowed_around_and_said() -> None:
    result = narrow(SPACE, [trial(0, 0.01, 0.6), trial(1, 0.02, 0.4)], "coarse")
    assert result.findings == []
    lr = result.space["lr"]
    assert isinstance(lr, LogUniform)
    assert (lr.low, lr.high) == pytest.approx((0.01 / NARROW, 0.01 * NARROW), rel=1e-5)
    assert "lr narrowed from 0.0001 to 1 to 0.0033 to 0.03 around 0.01" in result.reason
    assert "trial 0 (0.600), trial 1 (0.400)" in result.reason


@pytest.mark.parametrize(("lr", "side"), [(1.5e-4, "low"), (0.8, "high")])
def test_a_best_value_at_the_edge_widens_that_side_and_is_a_finding(lr: float, side: str) -> None:
    result = narrow(SPACE, [trial(0, lr, 0.6), trial(1, 0.01, 0.4)], "coarse")
    (finding,) = result.findings
    assert (finding.id, finding.severity) == ("best-at-edge", "warning")
    assert finding.evidence["setting"] == "lr"
    assert finding.evidence["side"] == side
    finer = result.space["lr"]
    assert isinstance(finer, LogUniform)
    if side == "low":
        assert (finer.low, finer.high) == pytest.approx((lr / WIDEN, lr * NARROW), rel=1e-5)
        assert finer.low < 1e-4  # beyond the range that was searched
    else:
        assert (finer.low, finer.high) == pytest.approx((lr / NARROW, lr * WIDEN), rel=1e-5)
        assert finer.high > 1.0
    assert f"at the {side} edge" in finding.message
    assert f"at the {side} edge" in result.reason


def test_a_choice_stays_as_it_is() -> None:
    space: Space = {**SPACE, "balance": Choice(("none", "weights"))}
    found = Trial("coarse", 0, {"lr": 0.01, "weight_decay": 1e-4, "balance": "none"}, "finished", 0.5)
    assert narrow(space, [found], "coarse").space["balance"] == Choice(("none", "weights"))


def test_where_every_trial_was_broken_off_lower_rates_are_tried() -> None:
    result = narrow(SPACE, [trial(0, 0.1, None), trial(1, 0.5, None)], "coarse")
    lr = result.space["lr"]
    assert isinstance(lr, LogUniform)
    assert lr.low < 1e-4
    assert lr.high < 1e-3
    assert result.space["weight_decay"] == SPACE["weight_decay"]
    assert "no coarse trial finished" in result.reason


def test_the_default_is_kept_unless_another_is_expected_to_do_better_beyond_doubt() -> None:
    default, worse = trial(0, 0.1, 0.6, error=0.02), trial(1, 1e2, 0.59, error=0.02)
    chosen, why = winner([default, worse], default)
    assert chosen is default
    assert "no trial is expected to do better" in why
    chosen, why = winner([default, worse, trial(2, 1e5, 0.61, error=0.02)], default)
    assert chosen is default
    assert "too little to leave it" in why
    better = trial(3, 1e5, 0.8, error=0.02)
    chosen, why = winner([default, worse, better], default)
    assert chosen is better
    assert "above the default" in why


def test_the_longer_the_training_beyond_the_trials_the_more_a_gain_must_be() -> None:
    default, other = trial(0, 1e-3, 0.50, error=0.01, epochs=2.0), trial(1, 1e-2, 0.53, error=0.01, epochs=2.0)
    assert winner([default, other], default, length=2.0)[0] is other
    assert winner([default, other], default, length=2e6)[0] is default


def test_a_lucky_score_among_poor_neighbours_does_not_win() -> None:
    default, lucky = trial(0, 1e-3, 0.50, error=0.05), trial(1, 0.1, 0.60, error=0.05)
    poor = [trial(2, 0.11, 0.38, error=0.05), trial(3, 0.09, 0.39, error=0.05), trial(4, 0.1, 0.38, error=0.05)]
    assert best_trial([default, lucky]) is lucky
    assert best_trial([default, lucky, *poor]) is default


def test_a_rate_beside_a_cliff_is_passed_over() -> None:
    default, edge, safe = trial(0, 1e-5, 0.30), trial(1, 0.10, 0.62), trial(2, 0.01, 0.60)
    cliff = trial(3, 0.11, None)
    assert best_trial([default, edge, safe]) is edge
    assert best_trial([default, edge, safe, cliff]) is safe


def test_a_default_that_was_broken_off_gives_way_to_any_that_finished() -> None:
    default, other = trial(0, 1.0, None), trial(1, 0.1, 0.3)
    assert winner([default, other], default)[0] is other
    assert winner([other], None)[0] is other
    assert winner([default], default) == (default, "no trial finished")


def test_broken_off_trials_are_counted_with_the_lowest_rate_among_them() -> None:
    finding = diverged([trial(0, 0.5, None), trial(1, 0.2, None), trial(2, 0.01, 0.5)], 2.3026)
    assert finding is not None
    assert finding.id == "diverged-trials"
    assert finding.evidence == {"pruned": [0, 1], "lowest_lr": 0.2, "initial_loss": 2.3026}
    assert "2 of 3 trials" in finding.message
    assert diverged([trial(2, 0.01, 0.5)], 2.3) is None


def scored(space: Space, count: int, score: Callable[[dict[str, Any]], float]) -> list[Trial]:
    """Trials with random settings."""
    settings = [settings_of("random", space, seed=4, number=n) for n in range(count)]
    return [Trial("coarse", n, s, "finished", score(s), 0.001, epochs=1.0) for n, s in enumerate(settings)]


def test_even_ranges_and_whole_numbers_are_narrowed_too() -> None:
    space: Space = {"dropout": Uniform(0.0, 0.9), "freeze": Integer(0, 20)}
    found = scored(space, 40, lambda s: 0.9 - (s["dropout"] - 0.4) ** 2 - 0.002 * (s["freeze"] - 9) ** 2)
    result = narrow(space, found, "coarse")
    assert result.findings == []
    dropout, freeze = result.space["dropout"], result.space["freeze"]
    assert isinstance(dropout, Uniform)
    assert isinstance(freeze, Integer)
    assert 0.0 < dropout.low < 0.4 < dropout.high < 0.9
    assert 0 < freeze.low < 9 < freeze.high < 20
    assert "dropout narrowed from 0 to 0.9 to" in result.reason
    assert "freeze narrowed from 0 to 20 to" in result.reason


def test_a_setting_that_does_not_matter_stays_wide() -> None:
    found = scored(SPACE, 60, lambda s: 0.9 - 0.1 * abs(math.log10(s["lr"]) + 2))
    space = narrow(SPACE, found, "coarse").space
    lr, decay = space["lr"], space["weight_decay"]
    assert isinstance(lr, LogUniform)
    assert isinstance(decay, LogUniform)
    assert math.log10(lr.high / lr.low) < 1.5
    assert math.log10(decay.high / decay.low) > 2.5  # of four; a fine range has one


def test_a_choice_that_all_good_trials_share_is_kept_alone_and_said() -> None:
    space: Space = {
        "lr": LogUniform(1e-4, 1e-1),
        "optimizer": Choice(("adam", "momentum", "sgd")),
        "momentum": Uniform(0.5, 0.99, only_with={"optimizer": ("momentum", "sgd")}),
    }
    found = scored(space, 40, lambda s: 0.9 if s["optimizer"] == "adam" else 0.5)
    result = narrow(space, found, "coarse")
    assert result.space["optimizer"] == Fixed("adam")
    assert "optimizer adam is kept alone: all good trials have it" in result.reason
    assert "momentum" not in result.space  # its condition cannot be met any more
    other = narrow(space, scored(space, 40, lambda s: 0.9 if s["optimizer"] == "sgd" else 0.5), "coarse").space
    assert other["optimizer"] == Fixed("sgd")
    assert other["momentum"].only_with == {"optimizer": ("sgd",)}
    check_conditions(other)


def test_a_choice_that_few_trials_agree_on_is_left_open() -> None:
    space: Space = {"optimizer": Choice(("adam", "sgd"))}
    few = [Trial("coarse", n, {"optimizer": o}, "finished", s) for n, (o, s) in enumerate(
        [("adam", 0.9), ("adam", 0.89), ("sgd", 0.5), ("sgd", 0.4)])]  # fmt: skip
    assert narrow(space, few, "coarse").space["optimizer"] == space["optimizer"]


def test_a_range_that_ends_where_the_setting_does_is_no_worry() -> None:
    space: Space = {"dropout": Uniform(0.0, 0.5)}
    none = narrow(space, scored(space, 30, lambda s: 0.9 - s["dropout"]), "coarse")
    assert none.findings == []
    much = narrow(space, scored(space, 30, lambda s: 0.4 + s["dropout"]), "coarse")
    (finding,) = much.findings
    assert finding.evidence["side"] == "high"
    widened = much.space["dropout"]
    assert isinstance(widened, Uniform)
    assert 0.5 < widened.high < 1.0
    most: Space = {"dropout": Uniform(0.0, 0.95)}
    further = narrow(most, scored(most, 30, lambda s: 0.4 + s["dropout"] / 2), "coarse").space["dropout"]
    assert isinstance(further, Uniform)
    assert further.high < 1.0  # as far as dropout can go


def test_the_edge_of_a_fine_range_is_worrying_only_where_nothing_beyond_was_tried() -> None:
    fine: Space = {"lr": LogUniform(1e-3, 1e-2), "weight_decay": LogUniform(1e-6, 1e-2)}
    found = scored(fine, 20, lambda s: 0.9 + 0.1 * math.log10(s["lr"]))
    assert [f.evidence["side"] for f in narrow(fine, found, "fine").findings if f.evidence["setting"] == "lr"] == [
        "high"
    ]
    beyond = narrow(fine, found, "fine", explored=SPACE)
    assert not any(f.evidence["setting"] == "lr" for f in beyond.findings)


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 30))
def test_what_is_narrowed_is_a_space_again_and_holds_the_best(seed: int, count: int) -> None:
    space: Space = {
        "lr": LogUniform(1e-5, 1e-1),
        "dropout": Uniform(0.0, 0.9),
        "freeze": Integer(0, 5),
        "optimizer": Choice(("adam", "momentum")),
        "momentum": Uniform(0.5, 0.99, only_with={"optimizer": ("momentum",)}),
    }
    luck = generator(seed, "scores")
    found = scored(space, count, lambda s: float(luck.uniform(0.1, 0.9)))
    result = narrow(space, found, "coarse")
    check_conditions(result.space)
    best = found[ranked(found, space)[0]]
    assert contains(result.space, best.settings)
    assert f"trial {best.number} ({best.score:.3f})" in result.reason
