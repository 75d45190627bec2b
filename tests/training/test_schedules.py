"""Schedules at first, middle and last step, by hand and against torch's own."""

import math
import pickle

import pytest
import torch

from wellfit.errors import UserError
from wellfit.training.schedules import (
    SCHEDULES,
    Plateau,
    plateau_of,
    scaled_lr,
    schedule,
    snapshot_points,
    warmup_share,
)


@pytest.mark.parametrize(
    ("name", "options", "first", "middle", "last"),
    [
        ("constant", {}, 1, 1, 1),
        ("step", {}, 1, 0.1, 0.001),
        ("step", {"at": (0.5,), "factor": 0.5}, 1, 0.5, 0.5),
        ("step", {"every": 0.1, "factor": 0.5}, 1, 1 / 32, 1 / 1024),
        ("exponential", {"rate": 2.0}, 1, math.exp(-1), math.exp(-2)),
        ("exponential", {}, 1, 0.1, 0.01),
        ("inverse_time", {"rate": 4.0}, 1, 1 / 3, 1 / 5),
        ("1/t", {"rate": 4.0}, 1, 1 / 3, 1 / 5),
        ("cosine", {}, 1, 0.5, 0),
        ("cosine", {"floor": 0.2}, 1, 0.6, 0.2),
        ("linear", {}, 1, 0.5, 0),
        ("linear", {"floor": 0.2}, 1, 0.6, 0.2),
        ("inverse_sqrt", {"steps": 24}, 1, 1 / math.sqrt(13), 1 / 5),
        ("one_cycle", {"peak": 0.25}, 0, 2 / 3, 0),
        ("one_cycle", {"peak": 0.5, "start": 0.1, "end": 0.05}, 0.1, 1, 0.05),
        ("one_cycle", {"peak": 0.25, "shape": "cosine"}, 0, 0.75, 0),
        ("cyclic", {"cycles": 2}, 1, 1, 0),
        ("cyclic", {"cycles": 1}, 1, 0.5, 0),
        ("warmup+constant", {"warmup": 0.25}, 0, 1, 1),
        ("warmup+linear", {"warmup": 0.2, "warmup_start": 0.1}, 0.1, 0.625, 0),
        ("warmup+cosine", {"warmup": 0.5}, 0, 1, 0),
    ],
)
def test_first_middle_and_last_step(name, options, first, middle, last):
    rate = schedule(name, **options)
    assert [rate(0.0), rate(0.5), rate(1.0)] == pytest.approx([first, middle, last], abs=1e-12)
    assert (rate(-0.1), rate(1.1)) == (rate(0.0), rate(1.0))


def torch_rates(make, steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


torch_schedulers = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("ours", "make", "steps"),
    [
        (schedule("step", at=(0.3, 0.6, 0.9)), lambda o: torch_schedulers.MultiStepLR(o, [27, 54, 81], 0.1), 90),
        (schedule("step", every=1 / 7, factor=0.5), lambda o: torch_schedulers.StepLR(o, 3, 0.5), 21),
        (schedule("exponential", rate=2.0), lambda o: torch_schedulers.ExponentialLR(o, math.exp(-2 / 40)), 40),
        (schedule("cosine", floor=0.1), lambda o: torch_schedulers.CosineAnnealingLR(o, 40, eta_min=0.1), 40),
        (schedule("linear", floor=0.1), lambda o: torch_schedulers.LinearLR(o, 1.0, 0.1, 40), 40),
        (schedule("cyclic", cycles=3), lambda o: torch_schedulers.CosineAnnealingWarmRestarts(o, 30), 89),
        (schedule("cyclic", cycles=3, growth=2), lambda o: torch_schedulers.CosineAnnealingWarmRestarts(o, 10, 2), 69),
    ],
)
def test_equal_to_torch(ours, make, steps):
    total = {89: 90, 69: 70}.get(steps, steps)  # torch restarts after the last step, ours ends
    assert [ours(i / total) for i in range(steps + 1)] == pytest.approx(torch_rates(make, steps), abs=1e-9)


def test_warm_up_equals_torch_sequence():
    def make(optimizer):
        warm = torch_schedulers.LinearLR(optimizer, 0.1, 1.0, 10)
        rest = torch_schedulers.CosineAnnealingLR(optimizer, 40)
        return torch_schedulers.SequentialLR(optimizer, [warm, rest], [10])

    ours = schedule("warmup+cosine", warmup=0.2, warmup_start=0.1)
    assert [ours(i / 50) for i in range(51)] == pytest.approx(torch_rates(make, 50), abs=1e-9)


def test_one_cycle_equals_torch():
    ours = schedule("one_cycle", peak=0.3, start=1 / 25, end=1 / 25e4)

    def make(optimizer):
        # torch counts the peak one step early, at pct·total − 1 of total − 1.
        return torch_schedulers.OneCycleLR(
            optimizer, 1.0, total_steps=41, pct_start=13 / 41, anneal_strategy="linear", cycle_momentum=False
        )

    assert [ours(i / 40) for i in range(40)] == pytest.approx(torch_rates(make, 39), abs=1e-9)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_multipliers_are_finite_between_0_and_1_and_travel_to_other_processes(name):
    for rate in (schedule(name), schedule(f"warmup+{name}")):
        values = [rate(i / 500) for i in range(501)]
        assert all(0.0 <= value <= 1.0 for value in values)
        again = pickle.loads(pickle.dumps(rate))
        assert [again(i / 500) for i in range(501)] == values


def test_restarts_fall_on_steps_whatever_the_count():
    for steps in (90, 99, 300, 999):
        rate = schedule("cyclic", cycles=3)
        assert rate((steps // 3) / steps) == pytest.approx(1.0)
        assert rate((2 * steps // 3) / steps) == pytest.approx(1.0)


def test_batch_times_k_means_rate_times_k():
    assert scaled_lr(0.1, 256 * 8, 256) == pytest.approx(0.8)
    with pytest.raises(UserError, match="at least one image"):
        scaled_lr(0.1, 0, 256)


def test_snapshots_are_taken_where_cycles_end_at_the_lowest_rate():
    for options in ({"cycles": 3}, {"cycles": 4, "growth": 2.0}, {"cycles": 5, "floor": 0.1}):
        for name, extra in (("cyclic", {}), ("warmup+cyclic", {"warmup": 0.1})):
            rate = schedule(name, **options, **extra)
            points = snapshot_points(rate)
            assert len(points) == options["cycles"]
            assert points[-1] == pytest.approx(1.0)
            for point in points:
                assert rate(point - 1e-6) == pytest.approx(options.get("floor", 0.0), abs=1e-6)
            for point in points[:-1]:
                assert rate(point + 1e-6) == pytest.approx(1.0, abs=1e-6)
    assert snapshot_points(schedule("cyclic", cycles=2, growth=3.0)) == (0.25, 1.0)
    assert snapshot_points(schedule("warmup+cosine")) == (1.0,)
    assert snapshot_points(lambda t: t) == (1.0,)


def test_a_warm_up_is_5000_steps_and_less_of_a_short_training():
    assert warmup_share(90_000) == pytest.approx(1 / 18)
    assert warmup_share(90_000, iterations=900) == pytest.approx(0.01)
    assert warmup_share(100) == 0.2
    rate = schedule("warmup+constant", warmup=warmup_share(50_000))
    assert [rate(step / 50_000) for step in (0, 2500, 5000, 50_000)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
    with pytest.raises(UserError, match="from 1"):
        warmup_share(0)


def test_a_plateau_by_name_is_a_constant_and_a_rule():
    assert [schedule("plateau")(t) for t in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]
    assert [schedule("warmup+plateau", warmup=0.5)(t) for t in (0.0, 0.25, 1.0)] == [0.0, 0.5, 1.0]
    for name in ("plateau", "warmup+plateau"):
        rule = plateau_of(name)
        assert [rule.update(0.5) for _ in range(8)] == pytest.approx([1.0] * 6 + [0.1] * 2)
    assert plateau_of("cosine") is None


@pytest.mark.parametrize("mode", ["max", "min"])
def test_plateau_equals_torch(mode):
    values = [0.5, 0.6, 0.6, 0.59, 0.58, 0.61, 0.6, 0.6, 0.6, 0.6, 0.6, 0.7, math.nan, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch_schedulers.ReduceLROnPlateau(optimizer, mode, factor=0.5, patience=2, min_lr=0.2, eps=0.0)
    ours = Plateau(factor=0.5, patience=2, mode=mode, floor=0.2)
    for i, value in enumerate(values):
        theirs.step(value)
        if i == 9:
            state = ours.state_dict()
            ours = Plateau(factor=0.5, patience=2, mode=mode, floor=0.2)
            ours.load_state_dict(state)
        assert ours.update(value) == optimizer.param_groups[0]["lr"], (i, value)
    assert ours.multiplier < 1.0


def own_schedule(t, low=0.5):
    return 1.0 - (1.0 - low) * t


def test_a_users_own_schedule_by_dotted_path():
    rate = schedule("warmup+tests.training.test_schedules:own_schedule", warmup=0.5, low=0.2)
    assert [rate(0.25), rate(0.5), rate(1.0)] == pytest.approx([0.5, 1.0, 0.2])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cosin", {}, "did you mean 'cosine'"),
        ("warmup+cosin", {}, "did you mean 'cosine'"),
        ("cosine", {"flor": 0.1}, "did you mean 'floor'"),
        ("warmup+cosine", {"warmup": 1.5}, "between 0 and 1"),
        ("one_cycle", {"shape": "round"}, "'linear' or 'cosine'"),
        ("one_cycle", {"peak": 0.0}, "peak"),
        ("cyclic", {"cycles": 0}, "cycles"),
        ("inverse_sqrt", {"steps": 0}, "positive"),
        ("step", {"every": 0.0}, "every"),
        ("exponential", {"rate": "fast"}, "refuses its options"),
    ],
)
def test_mistakes_are_one_sentence(name, options, words):
    with pytest.raises(UserError, match=words):
        schedule(name, **options)


def test_plateau_refuses_nonsense():
    with pytest.raises(UserError, match="0 < factor < 1"):
        Plateau(factor=1.5)
