"""Claims: whatever the order of what several workers do, a task is finished once, and can always be finished."""

from __future__ import annotations

import math

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from wellfit.search import claims as claims_module
from wellfit.search.claims import Claims, results
from wellfit.search.standing import Claim
from wellfit.search.trial import Task, Trial

TASK = Task(4, "coarse", {"lr": 0.1, "optimizer": "sgd"}, 1.5, rung=1, continues=2)
OTHER = Task(5, "coarse", {"lr": 0.2}, 1.5)


def workers(*names: str) -> list[Claims]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="x", direction="maximize")
    return [Claims(study, storage, name, "here") for name in names]


def trial(task: Task = TASK, score: float | None = 0.5) -> Trial:
    return Trial(task.stage, task.number, task.settings, "finished", score, worker="w")


def states(claims: Claims) -> list[TrialState]:
    return [kept.state for kept in claims._study.get_trials()]


# What a worker may do at any moment; "awake" is a look at all claims that makes those of the others void.
STEPS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["make", "settle", "finish", "drop"])), max_size=40)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_in_any_order_of_events_one_claim_at_most_is_finished(steps: list[tuple[int, str]]) -> None:
    crew = workers("a", "b", "c")
    holds: list[Claim | None] = [None, None, None]
    pending = [False, False, False]
    finished: list[int] = []
    for who, what in steps:
        claims = crew[who]
        if what == "make" and holds[who] is None and not pending[who]:
            claims.make(TASK, f"worker {who}")
            pending[who] = True
        elif what == "settle" and pending[who]:
            holds[who], pending[who] = claims.settle(TASK), False
        elif what == "finish" and (held := holds[who]) is not None:
            if claims.finish(held, trial(score=float(who))):
                finished.append(who)
            holds[who] = None
        elif what == "drop":  # this worker takes another for dead, rightly or not
            for claim in claims.read():
                if claim.running and claim.session != claims.session:
                    claims.give_up(claim)
                    break
    assert len(finished) <= 1
    kept = results(crew[0].read())
    assert [one.score for one in kept] == [float(who) for who in finished]
    if not finished:  # nobody is in the way for ever: once all claims are given up, a fresh worker can do it
        for claim in crew[0].read():
            crew[0].give_up(claim)
        crew[1].make(TASK, "w")
        again = crew[1].settle(TASK)
        assert again is not None
        assert crew[1].finish(again, trial())
    assert states(crew[0]).count(TrialState.COMPLETE) == 1


def test_the_older_of_two_claims_holds_and_the_younger_is_taken_back() -> None:
    first, second = workers("a", "b")
    first.make(TASK, "w1")
    second.make(TASK, "w2")
    assert second.settle(TASK) is None
    held = first.settle(TASK)
    assert held is not None
    assert (held.worker, held.session, held.host, held.task, held.running) == ("w1", "a", "here", TASK, True)
    assert states(first) == [TrialState.RUNNING, TrialState.FAIL]


def test_a_claim_on_another_task_is_in_nobodys_way() -> None:
    first, second = workers("a", "b")
    first.make(TASK, "w1")
    second.make(OTHER, "w2")
    assert first.settle(TASK) is not None
    assert second.settle(OTHER) is not None


def test_a_task_that_is_done_is_not_held_again() -> None:
    first, second = workers("a", "b")
    first.make(TASK, "w1")
    held = first.settle(TASK)
    assert held is not None
    first.finish(held, trial())
    for claims in (first, second):
        claims.make(TASK, "late")
        assert claims.settle(TASK) is None
    assert states(first) == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]


def test_a_second_claim_of_ones_own_is_taken_back() -> None:
    # As where the answer to the first was lost on its way and the claim was made again.
    (claims,) = workers("a")
    claims.make(TASK, "w")
    claims.make(TASK, "w")
    held = claims.settle(TASK)
    assert held is not None
    assert held.number == 0
    assert states(claims) == [TrialState.RUNNING, TrialState.FAIL]


def test_a_result_that_was_kept_and_is_told_again_is_kept_once() -> None:
    (claims,) = workers("a")
    claims.make(TASK, "w")
    held = claims.settle(TASK)
    assert held is not None
    assert claims.finish(held, trial())
    assert claims.finish(held, trial())
    assert results(claims.read()) == [trial()]


def test_the_result_of_a_claim_that_was_given_up_is_not_kept() -> None:
    first, second = workers("a", "b")
    first.make(TASK, "w1")
    held = first.settle(TASK)
    assert held is not None
    assert second.give_up(held)
    assert not second.give_up(held)
    assert not first.beat(held.key, 1)
    assert not first.finish(held, trial())
    assert results(second.read()) == []
    assert [claim.void for claim in second.read()] == [True]


@pytest.mark.parametrize(
    ("score", "state", "kept"),
    [(0.25, "finished", TrialState.COMPLETE), (None, "pruned", TrialState.PRUNED), (None, "failed", TrialState.PRUNED)],
)
def test_a_trial_comes_back_as_it_was(score: float | None, state: str, kept: TrialState) -> None:
    (claims,) = workers("a")
    claims.make(TASK, "w")
    held = claims.settle(TASK)
    assert held is not None
    told = Trial(
        TASK.stage, TASK.number, TASK.settings, state, score, 0.01, 1.5, 1, 1.5, 2, 300, 7.25, "w", "out of memory: ü\0"
    )
    claims.finish(held, told)
    assert results(claims.read()) == [told]
    assert states(claims) == [kept]


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_not_optunas_best(score: float) -> None:
    (claims,) = workers("a")
    claims.make(TASK, "w")
    held = claims.settle(TASK)
    assert held is not None
    assert claims.finish(held, trial(score=score))
    assert states(claims) == [TrialState.PRUNED]
    assert str(results(claims.read())[0].score) == str(score)


def test_beats_are_read_by_the_others_and_running_claims_alone_are_listened_to() -> None:
    first, second = workers("a", "b")
    first.make(TASK, "w1")
    second.make(OTHER, "w2")
    held, other = first.settle(TASK), second.settle(OTHER)
    assert held is not None
    assert other is not None
    assert [claim.beat for claim in second.running()] == [0, 0]
    assert first.beat(held.key, 3)
    second.finish(other, trial(OTHER))
    assert [(claim.key, claim.beat) for claim in second.running()] == [(held.key, 3)]


def test_what_had_ended_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs as much as what changed since the one before: one claim each, after a hundred that have ended."""
    mine, other = workers("a", "b")
    built: list[int] = []
    make = claims_module._claim
    monkeypatch.setattr(claims_module, "_claim", lambda kept: built.append(kept.number) or make(kept))
    for number in range(100):
        task = Task(number, "coarse", {"lr": 0.1}, 1.0)
        mine.make(task, "w")
        held = mine.settle(task)
        assert held is not None
        assert mine.finish(held, trial(task))
    assert len(built) < 4 * 100
    mine.look()
    built.clear()
    other.make(OTHER, "w")
    standing = mine.look()
    assert built == [100]
    assert [claim.session for claim in standing.running.values()] == ["b"]
    assert sorted(standing.trials) == list(range(100))
    assert [claim.number for claim in standing.of(OTHER.number)] == [5, 100]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["make", "look", "end", "void"])), max_size=40))
def test_however_often_one_looked_before_the_claims_stand_as_for_one_who_looks_first(
    events: list[tuple[int, str]],
) -> None:
    crew = workers("a", "b", "c")
    for number, (who, what) in enumerate(events):
        claims = crew[who]
        running = claims.running()
        if what == "make":
            claims.make(Task(number % 3, "coarse", {"lr": 0.1}, 1.0), "w")
        elif what == "look":
            claims.look()
        elif running and what == "end":
            claims.finish(running[0], trial(running[0].task))
        elif running:
            claims.give_up(running[-1], dead=number % 2 == 0)
    fresh = Claims(crew[0]._study, crew[0]._storage, "d", "here").look()
    for claims in crew:
        assert vars(claims.look()) == vars(fresh)
        assert claims.read() == list(fresh.claims.values())
    assert all(claim.running for claim in fresh.running.values())
    assert fresh.trials == {claim.task.number: claim.trial for claim in fresh.claims.values() if claim.trial}
