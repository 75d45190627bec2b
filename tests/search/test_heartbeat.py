"""Who counts as dead: silence is counted by each observer's own clock, and begins anew where it was away itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.search.claims import Claims
from wellfit.search.heartbeat import GRACE, INTERVAL, Heartbeat, Silence
from wellfit.search.study import POLL
from wellfit.search.trial import Task


def test_silence_is_counted_from_the_first_look_at_a_beat() -> None:
    silence = Silence(20)
    for now, beat in [(100, 0), (105, 1), (110, 1), (115, 1), (120, 1)]:
        silence.look(now, {7: beat})
    assert silence.of(7) == 15
    assert not silence.too_long(7)
    silence.look(125, {7: 1})
    assert silence.of(7) == 20
    assert silence.too_long(7)
    silence.look(130, {7: 2})
    assert silence.of(7) == 0
    assert silence.of(8) == 0  # never looked at
    silence.look(135, {})
    assert silence.of(7) == 0


def test_an_observer_that_was_away_begins_anew() -> None:
    # A laptop that slept: when it wakes, the others have slept too, and get their time to say that they live.
    silence = Silence(20)
    silence.look(0, {7: 1})
    silence.look(5, {7: 1})
    silence.look(500, {7: 1})
    assert silence.of(7) == 0
    silence.look(505, {7: 1})
    assert silence.of(7) == 5
    silence.forget()  # as when the storage was away
    silence.look(510, {7: 1})
    assert silence.of(7) == 0


@given(
    st.lists(st.floats(0.1, 9.9), min_size=1, max_size=60),
    st.floats(0.1, 9.9),
    st.floats(-1e6, 1e6),
)
def test_who_beats_within_half_the_grace_is_never_given_up(looks: list[float], every: float, begin: float) -> None:
    silence, now = Silence(20), begin
    for wait in looks:
        now += wait
        silence.look(now, {7: int((now - begin) / every)})
        assert not silence.too_long(7)


@settings(max_examples=50)
@given(st.lists(st.floats(0.1, 9.9), min_size=60, max_size=60))
def test_who_is_silent_is_given_up_by_the_first_look_past_the_grace(looks: list[float]) -> None:
    silence, now, begun = Silence(20), 0.0, looks[0]
    for wait in looks:
        now += wait
        silence.look(now, {7: 3})
        assert silence.too_long(7) == (now - begun >= 20)


@given(st.floats(0, INTERVAL), st.floats(0, INTERVAL), st.floats(0, 500))
def test_the_task_of_a_worker_that_dies_is_free_within_a_minute(mine: float, theirs: float, death: float) -> None:
    """With the times that a search has, whatever the phases of the two clocks, on a clock of this test's own."""
    silence, looks = Silence(GRACE), 0
    while True:
        now = mine + looks * INTERVAL
        beats = max(0, int((min(now, death) - theirs) // INTERVAL) + 1)
        silence.look(now, {7: beats})
        if now <= death:
            assert not silence.too_long(7)
        elif silence.too_long(7):
            break
        looks += 1
    taken_up = now + POLL - death  # the worker looks for free tasks so often
    assert GRACE - INTERVAL <= taken_up <= 60


def wait_until(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not there():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def crew(*sessions: str) -> list[Claims]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="x")
    return [Claims(study, storage, session, "here") for session in sessions]


def test_the_thread_beats_for_what_is_held_and_hears_who_is_silent() -> None:
    mine, yours = crew("mine", "yours")
    tasks = [Task(0, "coarse", {}, 1.0), Task(1, "coarse", {}, 1.0)]
    mine.make(tasks[0], "w")
    yours.make(tasks[1], "dead")
    held, dead = mine.settle(tasks[0]), yours.settle(tasks[1])
    assert held is not None
    assert dead is not None
    before = threading.active_count()
    with Heartbeat(mine, interval=0.05, grace=1.0) as heartbeat:
        heartbeat.held = held.key
        wait_until(lambda: heartbeat.silence.too_long(dead.key))
        assert not heartbeat.silence.too_long(held.key)
        beats = {claim.key: claim.beat for claim in yours.running()}
        assert beats[held.key] >= 2
        assert beats[dead.key] == 0
    assert threading.active_count() == before


def test_a_claim_that_was_lost_does_not_end_the_thread() -> None:
    (mine,) = crew("mine")
    task = Task(0, "coarse", {}, 1.0)
    mine.make(task, "w")
    held = mine.settle(task)
    assert held is not None
    mine.give_up(held)
    with Heartbeat(mine, interval=0.02, grace=1.0) as heartbeat:
        heartbeat.held = held.key
        mine.make(task, "again")
        again = mine.settle(task)
        assert again is not None
        heartbeat.held = again.key
        wait_until(lambda: mine.running()[0].beat > 0)


def test_a_storage_that_is_away_ends_neither_the_thread_nor_the_claims_of_others() -> None:
    mine, yours = crew("mine", "yours")
    task = Task(0, "coarse", {}, 1.0)
    yours.make(task, "w")
    held = yours.settle(task)
    assert held is not None
    away, tried = threading.Event(), []

    class Away(Claims):
        def running(self) -> list:
            if away.is_set():
                tried.append(1)
                raise optuna.exceptions.StorageInternalError("away")
            return super().running()

    observer = Away(mine._study, mine._storage, "observer", "here")
    with Heartbeat(observer, interval=0.02, grace=0.3) as heartbeat:
        wait_until(lambda: heartbeat.silence.too_long(held.key))
        away.set()
        wait_until(lambda: len(tried) > 3)
        assert heartbeat.silence.of(held.key) == 0  # all count as alive again
        away.clear()
        wait_until(lambda: heartbeat.silence.too_long(held.key))


@pytest.mark.parametrize(("interval", "grace"), [(5, 9), (0, 20), (-1, 3)])
def test_a_grace_that_one_late_beat_breaks_is_refused(interval: float, grace: float) -> None:
    with pytest.raises(ValueError, match="at least two intervals"):
        Heartbeat(crew("a")[0], interval=interval, grace=grace)
