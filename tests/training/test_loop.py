"""The loop: repeatable to the byte, also across kills; keeps the best; stops when it should."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.data.memory_store import MemoryStore
from wellfit.data.batches import TrainingBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.diagnosis.monitor import Monitor
from wellfit.engine import Engine
from wellfit.record import Record, read_record
from wellfit.training import loop
from wellfit.training.averaging import WeightAverage
from wellfit.training.loop import Outcome, train
from wellfit.training.optimizers import build_optimizer
from wellfit.training.pace import Pace
from wellfit.training.schedules import Plateau, schedule

SIZE, IMAGES = 8, 48
PREPROCESSING = Preprocessing(SIZE, SIZE, (0.5,) * 3, (0.25,) * 3)


def batches(seed: int = 0, augment: tuple[str, ...] = ("flip", "crop")) -> TrainingBatches:
    """Two classes told apart by their brightness."""
    rng = np.random.default_rng(1)
    targets = np.arange(IMAGES) % 2
    images = (rng.integers(0, 120, (IMAGES, SIZE, SIZE, 3)) + 100 * targets[:, None, None, None]).astype(np.uint8)
    return TrainingBatches(
        MemoryStore(images),
        np.arange(IMAGES),
        targets,
        PREPROCESSING,
        batch_size=8,
        augment=augment,
        seed=seed,
    )


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * 36, 2)
    )


class Scores:
    """A validation whose scores are given; 0.1, 0.2, … where they are not. Notes the weights it saw."""

    def __init__(self, scores: list[float] | None = None) -> None:
        self.scores = iter(scores) if scores is not None else (i / 10 for i in itertools.count(1))
        self.calls = 0

    def __call__(self, module: nn.Module) -> tuple[float, dict[str, float]]:
        self.calls += 1
        module.eval()
        score = next(self.scores)
        return score, {"loss": 1 - score, "accuracy": score}


class ByWeights:
    """A validation that follows from the weights, as a real one does."""

    def __call__(self, module: nn.Module) -> tuple[float, dict[str, float]]:
        module.eval()
        score = float(sum(p.detach().double().sin().sum() for p in module.parameters()))
        return score, {"loss": -score, "accuracy": 0.5}


def run(module: nn.Module, steps: int = 18, **options: Any) -> Outcome:
    optimizer = options.pop("optimizer", None) or build_optimizer("nesterov", module, lr=0.02, weight_decay=1e-3)
    options.setdefault("evaluate", ByWeights())
    return train(
        module,
        options.pop("batches", None) or batches(),
        functional.cross_entropy,
        optimizer,
        engine=Engine("cpu", "float32", "contiguous", torch.get_num_threads()),
        preprocessing=PREPROCESSING,
        schedule=schedule("one_cycle"),
        pace=options.pop("pace", None) or Pace(steps),
        **options,
    )


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns_and_repeats_itself_to_the_bit_in_spite_of_dropout() -> None:
    one, other = network(), network()
    first = run(one, 36)
    torch.manual_seed(99)  # the caller's own draws must not matter
    second = run(other, 36)
    assert first.losses == second.losses
    assert equal(weights(one), weights(other))
    assert np.mean(first.losses[-6:]) < 0.5 * first.losses[0]


def test_torchs_own_generator_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    module = network()
    before = torch.get_rng_state()
    run(module, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_is_another_training() -> None:
    one, other = network(), network()
    assert run(one).losses != run(other, batches=batches(seed=1)).losses


class Killed(BaseException):
    pass


@pytest.mark.parametrize("killed_at", [1, 6, 7, 13, 18])
def test_killed_and_taken_up_it_ends_with_the_same_bytes(
    killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint at every chance; the process dies in the step after `killed_at`, before anything is saved."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "READ_LOSS_EVERY", 3)

    def options(module: nn.Module) -> dict[str, Any]:
        return {"average": WeightAverage(module, 0.9, ramp=True), "evaluate_every": 4, "average_from": 0.3}

    untouched = network()
    expected = run(untouched, **options(untouched))

    victim = network()
    calls = itertools.count(1)

    def dies() -> bool:
        if next(calls) == killed_at:
            raise Killed
        return False

    path = tmp_path / "checkpoint" / "c.safetensors"
    with pytest.raises(Killed):
        run(victim, checkpoint=path, stop=dies, **options(victim))
    again = network()
    result = run(again, checkpoint=path, **options(again))
    assert result.losses == expected.losses
    assert (result.steps, result.best.step, result.best.score) == (18, expected.best.step, expected.best.score)
    assert equal(weights(again), weights(untouched))
    assert equal(result.best.weights, expected.best.weights)


def test_a_training_that_ran_out_of_patience_does_not_go_on_when_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    first = run(network(), 60, evaluate=Scores([0.5, 0.4, 0.3, 0.2]), patience=2, checkpoint=path)
    assert (first.reason, first.steps) == ("patience", 18)
    scores = Scores()
    again = run(network(), 60, evaluate=scores, patience=2, checkpoint=path)
    assert (again.reason, again.steps, scores.calls) == ("patience", 18, 0)
    assert equal(again.best.weights, first.best.weights)


def test_the_best_snapshot_is_kept_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    module = network()
    seen: list[dict[str, torch.Tensor]] = []
    scores = Scores([0.2, 0.9, 0.5])

    def evaluate(net: nn.Module) -> tuple[float, dict[str, float]]:
        seen.append(weights(net))
        return scores(net)

    result = run(module, 18, evaluate=evaluate)
    assert (result.best.score, result.best.step, result.best.averaged) == (0.9, 12, False)
    assert equal(result.best.weights, seen[1])
    assert not equal(result.best.weights, weights(module))


def test_averaged_weights_are_the_best_where_they_score_higher() -> None:
    module = network()
    average = WeightAverage(module, 0.9)
    # plain, then plain and averaged in turn from the middle on
    result = run(module, 18, evaluate=Scores([0.1, 0.2, 0.6, 0.3, 0.4]), average=average)
    assert (result.best.score, result.best.averaged, result.best.step) == (0.6, True, 12)
    assert not equal(result.best.weights, weights(module))


def test_of_equal_scores_the_lowest_loss_is_the_best() -> None:
    answers = iter([(1.0, 0.9), (1.0, 0.2), (1.0, 0.3)])

    def evaluate(net: nn.Module) -> tuple[float, dict[str, float]]:
        score, loss = next(answers)
        return score, {"loss": loss}

    assert run(network(), 18, evaluate=evaluate).best.step == 12


def test_a_lower_loss_at_the_same_score_is_no_gain_to_be_patient_for() -> None:
    answers = iter([(1.0, 0.9), (1.0, 0.8), (1.0, 0.7), (1.0, 0.6)])

    def evaluate(net: nn.Module) -> tuple[float, dict[str, float]]:
        score, loss = next(answers)
        return score, {"loss": loss}

    result = run(network(), 60, evaluate=evaluate, patience=2)
    assert (result.reason, result.steps) == ("patience", 18)


def test_the_last_step_is_always_evaluated() -> None:
    scores = Scores()
    assert run(network(), 8, evaluate=scores, evaluate_every=5).best.step == 8
    assert scores.calls == 2


def test_without_patience_it_trains_on() -> None:
    assert run(network(), 30, evaluate=Scores([0.9, 0.1, 0.1, 0.1, 0.1])).reason == "finished"


def test_a_loss_that_is_no_number_ends_it() -> None:
    module = network()
    result = run(module, 60, optimizer=build_optimizer("sgd", module, lr=1e30, weight_decay=0.0))
    assert result.reason == "diverged"
    assert result.steps < 60
    assert not math.isfinite(result.losses[-1])


def test_the_caller_can_break_it_off() -> None:
    result = run(network(), 60, give_up=lambda step, loss: step >= 12)
    assert (result.reason, result.steps) == ("broken-off", 12)


def test_asked_to_stop_it_finishes_the_step_evaluates_and_saves(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    calls = itertools.count(1)
    result = run(network(), 60, stop=lambda: next(calls) == 9, checkpoint=path)
    assert (result.reason, result.steps) == ("stopped", 9)
    assert result.best.weights
    assert path.exists()
    again = run(network(), 60, checkpoint=path)
    assert (again.reason, again.steps) == ("finished", 60)


def test_asked_to_stop_at_an_evaluation_it_finishes_its_epoch(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    result = run(network(), 60, evaluate_every=7, stop_at_evaluation=lambda: True, checkpoint=path)
    assert (result.reason, result.steps) == ("stopped", 7)
    assert result.best.step == 7
    again = run(network(), 60, evaluate_every=7, checkpoint=path)
    assert (again.reason, again.steps) == ("finished", 60)


def test_asked_to_stop_at_its_end_a_training_is_finished() -> None:
    result = run(network(), 12, evaluate_every=30, stop_at_evaluation=lambda: True)
    assert (result.reason, result.steps) == ("finished", 12)


def test_the_rates_follow_the_schedule_and_come_back_at_the_end(tmp_path: Path) -> None:
    module = network()
    optimizer = torch.optim.SGD(
        [{"params": list(module[0].parameters()), "lr": 0.01}, {"params": list(module[5].parameters()), "lr": 0.1}]
    )
    record = Record(tmp_path / "record.jsonl")
    run(module, 12, optimizer=optimizer, record=record)
    record.close()
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.1]
    rates = [line["lr"] for line in read_record(record.path) if line["kind"] == "step"]
    one_cycle = schedule("one_cycle")
    assert rates == [0.01 * one_cycle(i / 12) for i in range(12)]


def test_a_plateau_lowers_the_rate_beside_the_schedule_also_after_a_resume(tmp_path: Path) -> None:
    def rates(name: str, *stops: int) -> list[float]:
        module, scores, found = network(), [0.5] * 20, []
        for stop_at in (*stops, 0):
            record, calls = Record(tmp_path / f"{name}-{stop_at}.jsonl"), itertools.count(1)
            run(
                module,
                30,
                evaluate=lambda m: (scores.pop(0), {"loss": 1.0, "accuracy": 0.5}),
                evaluate_every=6,
                plateau=Plateau(factor=0.5, patience=0),
                record=record,
                checkpoint=tmp_path / f"{name}.safetensors",
                stop=lambda calls=calls, stop_at=stop_at: next(calls) == stop_at,
            )
            record.close()
            found += [line["lr"] for line in read_record(record.path) if line["kind"] == "step"]
        return found

    whole = rates("whole")
    one_cycle = schedule("one_cycle")
    # The first evaluation is a gain over nothing; each later one halves the rate.
    assert whole == pytest.approx([0.02 * one_cycle(i / 30) * 0.5 ** max(0, i // 6 - 1) for i in range(30)])
    assert rates("stopped", 18) == whole


def test_a_penalty_is_part_of_the_loss() -> None:
    plain, fined = network(), network()
    first = run(plain, 1).losses[0]
    with_penalty = run(fined, 1, penalty=lambda net: torch.tensor(2.5)).losses[0]
    assert with_penalty == pytest.approx(first + 2.5)


def test_blended_labels_train_repeatably_and_count_as_the_class_with_the_larger_share(tmp_path: Path) -> None:
    mixed = batches(augment=("flip", "mixup=1", "cutmix"))
    record = Record(tmp_path / "record.jsonl")
    one, other = network(), network()
    with Monitor(one, optimizer := build_optimizer("nesterov", one, lr=0.02, weight_decay=1e-3)) as monitor:
        first = run(one, 48, batches=mixed, record=record, monitor=monitor, optimizer=optimizer)
        monitor.findings()
    record.close()
    assert first.losses == run(other, 48, batches=batches(augment=("flip", "mixup=1", "cutmix"))).losses
    soft = mixed.batch(0).targets
    assert soft.shape == (8, 2)
    epochs = [line for line in read_record(record.path) if line["kind"] == "epoch"]
    assert 0.5 < epochs[-1]["train_accuracy"] <= 1.0
    assert np.mean(first.losses[-12:]) < np.mean(first.losses[:6])


def test_the_record_tells_every_step_and_each_evaluation(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    module = network()
    run(module, 15, record=record, evaluate=Scores(), average=WeightAverage(module, 0.9))
    record.close()
    lines = list(read_record(record.path))
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 16))
    assert all({"epoch", "lr", "loss", "images_per_second", "wait", "of"} <= line.keys() for line in steps)
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1.0, 2.0, 2.5]
    losses = [line["loss"] for line in steps]
    assert epochs[0]["train_loss"] == pytest.approx(np.mean(losses[:6]))
    assert epochs[1]["train_loss"] == pytest.approx(np.mean(losses[6:12]))
    assert epochs[2]["train_loss"] == pytest.approx(np.mean(losses[12:]))
    assert "averaged_validation_accuracy" not in epochs[0]
    assert "averaged_validation_accuracy" in epochs[1]


@pytest.mark.parametrize("killed_after", [None, 7])
def test_snapshots_are_taken_once_their_point_is_reached_also_after_a_resume(
    tmp_path: Path, killed_after: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = (0.25, 0.5, 1.0)
    taken: dict[float, list[dict[str, torch.Tensor]]] = {}

    def keep(point: float, module: nn.Module) -> None:
        taken.setdefault(point, []).append({name: value.clone() for name, value in module.state_dict().items()})

    straight = network()
    run(straight, steps=12, snapshots=points, on_snapshot=keep)
    assert [len(taken[point]) for point in points] == [1, 1, 1]
    assert equal(taken[1.0][0], weights(straight))
    untouched = dict(taken)
    taken.clear()

    checkpoint = tmp_path / "state.safetensors"
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    if killed_after is not None:
        stops = itertools.count(1)
        run(
            network(),
            steps=12,
            snapshots=points,
            on_snapshot=keep,
            checkpoint=checkpoint,
            stop=lambda: next(stops) >= killed_after,
        )
        assert set(taken) == {0.25, 0.5}
    run(network(), steps=12, snapshots=points, on_snapshot=keep, checkpoint=checkpoint)
    assert set(taken) == set(points)
    for point in points:
        assert equal(taken[point][-1], untouched[point][0])
