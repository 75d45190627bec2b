"""What a training leaves of its time for the end of the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from torch import nn

from tests.recipe.plans import longer, small_plan
from wellfit.inference.views import VIEWS
from wellfit.recipe.model_choice import closing_time
from wellfit.recipe.plan import EndingPlan
from wellfit.recipe.prepare import Prepared
from wellfit.recipe.timed_score import MOST_JUDGED, TimedScore
from wellfit.training.pace import Pace

NET = nn.Identity()
EVERYTHING = EndingPlan(members=2, snapshots=(0.7, 0.8, 0.9, 1.0), views=tuple(VIEWS)[1:])


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def prepared(validation: int = 900, test: int = 900, train: int = 4200) -> Prepared:
    split = SimpleNamespace(validation=range(validation), test=range(test), train=range(train))
    return cast(Prepared, SimpleNamespace(split=split, short_side=32))


def timed(
    ending: EndingPlan, *, seconds: float = 60.0, share: float = 1.0, judging: float = 0.0, average: float = 0.995
) -> TimedScore:
    """A score that takes `judging` seconds, under a deadline `seconds` from now.

    After the deadline come four passes over as many images: the last look at the weights and at their average, saving,
    and the test.
    """
    clock = Clock()

    def score(module: nn.Module) -> tuple[float, dict[str, float]]:
        clock.now += judging
        return 0.5, {"loss": 1.0}

    pace = Pace(1000, clock.now + seconds, clock)
    plan = small_plan(ending=ending, training=longer(60, average=average))
    return TimedScore(score, pace, plan, prepared(), budget=90.0, share=share)


def left(score: TimedScore) -> float:
    assert score.pace.deadline is not None
    return score.pace.deadline - score.begun


def test_before_a_pass_was_timed_the_guess_at_it_does_not_end_the_training() -> None:
    """The views of this plan are some hundred passes; at the cautious speed they would take three minutes."""
    score = timed(EVERYTHING)
    assert left(score) > (1 - MOST_JUDGED) * 60.0 - closing_time(prepared()) - 4 * 900 / 500 - 1e-9
    score.pace.advance()
    assert not score.pace.finished


def test_a_pass_that_was_slow_once_does_not_end_it_either() -> None:
    score = timed(EVERYTHING, judging=5.0)
    score(NET)
    assert left(score) == pytest.approx((1 - MOST_JUDGED) * 60.0 - closing_time(prepared()) - 4 * 5.0)


def test_views_that_were_asked_for_have_their_time() -> None:
    asked = EndingPlan(views=("ten",), asked=("views",))
    score = timed(asked, judging=1.0)
    score(NET)
    # Eleven passes to judge the views against none; to use them, nine more of twice as many images (validation, test).
    assert left(score) == pytest.approx(60.0 - closing_time(prepared()) - 4 * 1.0 - (11 + 2 * 9) * 1.0)


def test_without_an_average_the_last_look_is_one_pass() -> None:
    scores = [timed(EndingPlan(), judging=1.0, average=average) for average in (0.995, 0.0)]
    for score in scores:
        score(NET)
    assert left(scores[1]) - left(scores[0]) == pytest.approx(1.0)


def test_networks_share_what_the_end_leaves() -> None:
    whole, half = timed(EVERYTHING, judging=0.1), timed(EVERYTHING, share=0.5, judging=0.1)
    whole(NET)
    half(NET)
    assert left(half) == pytest.approx(left(whole) / 2)


def test_without_a_deadline_there_is_none_to_move() -> None:
    score = TimedScore(lambda net: (0.5, {"loss": 1.0}), Pace(10), small_plan(), prepared(), budget=None)
    score(NET)
    assert score.pace.deadline is None
