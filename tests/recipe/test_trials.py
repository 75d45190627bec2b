"""One trial: the same bytes however it came about, and its troubles are its result."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wellfit.data.split import make_folds
from wellfit.errors import Interrupted, UserError
from wellfit.models import zoo
from wellfit.recipe import trials
from wellfit.recipe.material import Material
from wellfit.recipe.trials import TrialRunner, held_out, out_of_memory
from wellfit.search.trial import Task, Trial
from wellfit.training import loop
from wellfit.training.checkpoint import load_checkpoint

LR = 3e-3


class Desk:
    """A run folder with its trials, and their lines."""

    def __init__(self, folder: Path, material: Material, **options: Any) -> None:
        self.lines: list[dict[str, Any]] = []
        self.runner = TrialRunner(material, folder, self.write, **options)

    def write(self, kind: str, **fields: Any) -> None:
        assert kind == "trial"
        self.lines.append(fields)

    def run(self, settings: dict[str, Any], epochs: float = 0.25, number: int = 0, **more: Any) -> Trial:
        return self.runner(Task(number, "coarse", settings, epochs, **more))


def result(trial: Trial) -> tuple[Any, ...]:
    return trial.state, trial.score, trial.loss, trial.error


def weights(desk: Desk, number: int) -> dict[str, torch.Tensor]:
    state = load_checkpoint(desk.runner.checkpoint(number))
    assert state is not None
    return state["module"]


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# The same task, the same bytes


def test_a_task_gives_the_same_bytes_whatever_ran_before(material: Material, tmp_path: Path) -> None:
    first = Desk(tmp_path / "a", material)
    alone = first.run({"lr": LR})
    second = Desk(tmp_path / "b", material)
    second.run({"lr": 10 * LR, "model": "lenet5", "augmentation": 2.0}, number=1)
    torch.rand(7)
    np.random.seed(5)
    assert result(second.run({"lr": LR})) == result(alone)
    assert alike(weights(first, 0), weights(second, 0))
    assert second.lines[-1]["curve"] == first.lines[-1]["curve"]


def test_no_trial_touches_torchs_generator(material: Material, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    Desk(tmp_path, material).run({"lr": LR, "model": "resnet20", "dropout": 0.3}, epochs=0.05)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("settings", [{"lr": LR}, {"lr": 0.05, "optimizer": "momentum", "weight_decay": 1e-3}])
def test_a_continued_trial_is_the_one_that_was_never_interrupted(
    settings: dict[str, Any], material: Material, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, material)
    short = desk.run(settings, epochs=0.5)
    long = desk.run(settings, epochs=1.5, number=1, rung=1, continues=0)
    straight = desk.run(settings, epochs=1.5, number=2)
    assert result(long) == result(straight)
    assert alike(weights(desk, 1), weights(desk, 2))
    assert (long.rung, long.continues, long.reason) == (1, 0, "")
    # Its cost is its own part alone; its curve begins where training began.
    assert short.images + long.images == straight.images
    assert desk.lines[1]["curve"] == desk.lines[2]["curve"]
    assert desk.lines[1]["curve"][0][0] == 1


def test_without_its_checkpoint_it_starts_again_and_says_so(material: Material, tmp_path: Path) -> None:
    desk = Desk(tmp_path, material)
    again = desk.run({"lr": LR}, epochs=0.5, number=4, rung=1, continues=3)
    assert again.reason == "started again: the checkpoint of trial 3 is not in this run folder"
    assert result(again) == result(desk.run({"lr": LR}, epochs=0.5, number=5))


def test_checkpoints_are_kept_only_where_they_are_wanted(material: Material, tmp_path: Path) -> None:
    desk = Desk(tmp_path, material, keep=lambda task: task.number == 1)
    desk.run({"lr": LR}, epochs=0.05, number=0)
    desk.run({"lr": LR}, epochs=0.05, number=1)
    assert [path.name for path in sorted((tmp_path / "trials").iterdir())] == ["1"]


def test_the_line_holds_what_the_trial_was(material: Material, tmp_path: Path) -> None:
    desk = Desk(tmp_path, material, worker="w1")
    trial = desk.run({"lr": LR}, epochs=2.0, number=7)
    (line,) = desk.lines
    assert (line["trial"], line["stage"], line["state"], line["worker"]) == (7, "coarse", "finished", "w1")
    assert (line["validation_accuracy"], line["validation_loss"]) == (trial.score, trial.loss)
    steps, losses = zip(*line["curve"], strict=True)
    assert (steps[0], steps[-1]) == (1, 2 * (len(material.data.split.train) // 32))
    assert losses[0] == pytest.approx(math.log(10), rel=0.1)
    assert losses[-1] < losses[0]
    # An evaluation an epoch, the last of which is the score.
    assert [round(epoch["epoch"], 2) for epoch in line["epoch_curve"]] == [1.0, 2.0]
    assert line["epoch_curve"][-1]["validation_accuracy"] == trial.score
    assert line["images"] == trial.images == steps[-1] * 32


def test_a_trial_says_what_it_took_and_when_it_ended(material: Material, tmp_path: Path) -> None:
    desk = Desk(tmp_path, material, clock=lambda: 71.5)
    trial = desk.run({"lr": LR}, epochs=0.5)
    assert trial.ended == desk.lines[0]["ended"] == 71.5
    assert 0 < trial.training < trial.seconds  # building the network and judging it is no training
    assert desk.lines[0]["training"] == trial.training


def test_rates_stand_still_unless_a_schedule_is_asked_for(material: Material, tmp_path: Path) -> None:
    seen: list[trials.Curve] = []
    original = trials.Curve.findings

    def spy(curve: trials.Curve, classes: int) -> list[str]:
        seen.append(curve)
        return original(curve, classes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials.Curve, "findings", spy)
        desk = Desk(tmp_path, material)
        desk.run({"lr": LR})
        desk.run({"lr": LR, "schedule": "linear"})
    constant, linear = ([line["lr"] for line in curve.steps] for curve in seen)
    assert constant == [LR] * 10
    assert linear == pytest.approx([LR * (1 - i / 10) for i in range(10)])


# What goes wrong


def test_a_rate_that_explodes_is_broken_off_with_its_reason(material: Material, tmp_path: Path) -> None:
    desk = Desk(tmp_path, material)
    trial = desk.run({"lr": 300.0}, epochs=2.0)
    assert (trial.state, trial.score) == ("pruned", None)
    assert "above 3 × 2.3" in trial.reason or "no number" in trial.reason
    assert trial.epochs < 2.0
    assert trial.images < 2 * 39 * 32
    assert set(desk.lines[0]["findings"]) & {"lr-too-high", "exploding"}  # the rules look at the curve
    assert not desk.runner.checkpoint(0).exists()


class Narrow(nn.Module):
    """Runs out of memory above so many images in training, as a small device would."""

    def __init__(self, net: nn.Module, most: int) -> None:
        super().__init__()
        self.net, self.most = net, most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) > self.most:
            raise torch.OutOfMemoryError(f"CUDA out of memory, tried {len(x)} images")
        return self.net(x)


def narrow_memory(patch: pytest.MonkeyPatch, most: int) -> None:
    original = Material.network

    def network(self: Material) -> zoo.Built:
        built = original(self)
        built.module = Narrow(built.module, most)
        return built

    patch.setattr(Material, "network", network)


def test_out_of_memory_halves_the_batch_for_that_trial_and_says_so(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow_memory(monkeypatch, 8)
    desk = Desk(tmp_path, material)
    trial = desk.run({"lr": LR})
    assert trial.state == "finished"
    assert trial.reason == desk.lines[0]["reason"] == "out of memory with 16 images a step, so it ran with 8"
    monkeypatch.undo()
    small = desk.run({"lr": LR, "batch_size": 8}, number=1)
    assert (trial.score, trial.images) == (small.score, small.images)
    # The next trial asks for the whole batch again, and a promotion goes on with the half.
    narrow_memory(monkeypatch, 8)
    on = desk.run({"lr": LR}, epochs=0.5, number=2, continues=0)
    assert (on.state, on.reason) == ("finished", "")
    assert trial.images + on.images == 2 * trial.images


def test_a_single_image_that_does_not_fit_is_a_failed_trial(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow_memory(monkeypatch, 0)
    trial = Desk(tmp_path, material).run({"lr": LR})
    assert trial.state == "failed"
    assert trial.reason.startswith(
        "out of memory with 2 images a step, so it ran with 1; OutOfMemoryError: CUDA out of"
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_memory(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) == expected


def test_any_other_exception_is_a_failed_trial(material: Material, tmp_path: Path) -> None:
    desk = Desk(tmp_path, material)
    trial = desk.run({"lr": LR, "model": "whitened", "dropout": 0.5, "label_smoothing": 2.0})
    assert trial.state == desk.lines[0]["state"] == "failed"
    assert trial.score is None
    assert trial.reason
    assert "\n" not in trial.reason
    assert desk.run({"lr": LR}, number=1).state == "finished"


def stopping_after(steps: int) -> Any:
    """Says that the trial is to stop at that step of this process."""
    asked = iter(range(1, 10**6))
    return lambda: next(asked) >= steps


@pytest.mark.parametrize("steps", [7, 39, 45])
def test_a_stopped_trial_is_no_trial_and_goes_on_from_where_it_stood(
    steps: int, material: Material, tmp_path: Path
) -> None:
    """In the first epoch, at its evaluation, in the second one: the same bytes, and only what is left is trained."""
    settings = {"lr": LR, "dropout": 0.2, "model": "resnet20"} if steps == 7 else {"lr": LR}
    epochs = 0.4 if steps == 7 else 1.5
    straight = Desk(tmp_path / "a", material)
    whole = straight.run(settings, epochs)
    stopped = Desk(tmp_path / "b", material, stop=stopping_after(steps))
    with pytest.raises(Interrupted, match="trial 0 was stopped; it goes on from there"):
        stopped.run(settings, epochs)
    assert stopped.lines == []
    trained: list[int] = []
    again = Desk(tmp_path / "b", material, stop=lambda: bool(trained.append(1)))
    on = again.run(settings, epochs)
    assert len(trained) == straight.lines[0]["curve"][-1][0] - steps
    assert result(on) == result(whole)
    assert (on.images, on.epochs, on.findings) == (whole.images, whole.epochs, whole.findings)
    assert again.lines[0]["curve"] == straight.lines[0]["curve"]
    assert again.lines[0]["epoch_curve"] == straight.lines[0]["epoch_curve"]
    assert alike(weights(again, 0), weights(straight, 0))
    assert not list((tmp_path / "b").rglob("paused*"))


def test_nothing_is_written_for_a_stop_before_there_is_one(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    seen: list[Path] = []
    Desk(tmp_path, material, stop=lambda: bool(seen.extend(tmp_path.rglob("paused*")))).run({"lr": LR})
    assert seen == []


def test_a_disk_that_is_full_when_a_trial_is_stopped_is_said(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, state: dict[str, Any]) -> None:
        raise UserError("the checkpoint could not be written (the disk is full)") from OSError(28, "no space")

    monkeypatch.setattr(loop, "save_checkpoint", full)
    desk = Desk(tmp_path, material, stop=stopping_after(3))
    with pytest.raises(UserError, match="disk is full"):
        desk.run({"lr": LR})
    assert desk.lines == []  # it has not failed


def test_a_stopped_promotion_goes_on_and_what_was_half_written_does_not_count(
    material: Material, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, material)
    desk.run({"lr": LR}, epochs=0.3)
    whole = desk.run({"lr": LR}, epochs=0.8, number=1, continues=0)
    for number, torn in ((2, False), (3, True)):
        task = {"epochs": 0.8, "number": number, "continues": 0}
        with pytest.raises(Interrupted):
            Desk(tmp_path, material, stop=stopping_after(5)).run({"lr": LR}, **task)
        if torn:  # the checkpoint is of a later moment than what belongs to it
            rest = tmp_path / "trials" / "3" / "paused.json"
            rest.write_text(rest.read_text().replace('"step": 17', '"step": 16'))
        asked: list[int] = []
        on = Desk(tmp_path, material, stop=lambda asked=asked: bool(asked.append(1))).run({"lr": LR}, **task)
        assert (result(on), on.images) == (result(whole), whole.images)
        assert len(asked) == (19 if torn else 14)


def test_a_stopped_cross_validation_keeps_the_folds_that_are_done(material: Material, tmp_path: Path) -> None:
    data = material.data
    split = replace(data.split, folds=make_folds(data.split, data.audit, 0, 3))
    plan = material.plan.replace(search=replace(material.plan.search, folds=3))
    folded = replace(material, data=replace(data, split=split), plan=plan)
    whole = Desk(tmp_path / "a", folded).run({"lr": LR}, epochs=0.1)
    with pytest.raises(Interrupted):
        Desk(tmp_path / "b", folded, stop=stopping_after(6)).run({"lr": LR}, epochs=0.1)
    asked: list[int] = []
    on = Desk(tmp_path / "b", folded, stop=lambda: bool(asked.append(1))).run({"lr": LR}, epochs=0.1)
    assert (result(on), on.images) == (result(whole), whole.images)
    assert len(asked) == 3 * 3 - 6  # three steps a fold, of which six were done


def test_a_full_disk_ends_the_search_and_not_the_trial(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, state: dict[str, Any]) -> None:
        raise UserError("the checkpoint could not be written (the disk is full)")

    monkeypatch.setattr(trials, "save_checkpoint", full)
    with pytest.raises(UserError, match="disk is full"):
        Desk(tmp_path, material).run({"lr": LR})


# Cross-validation


def test_folds_are_scored_on_each_image_once(material: Material, tmp_path: Path) -> None:
    data = material.data
    split = replace(data.split, folds=make_folds(data.split, data.audit, 0, 3))
    plan = material.plan.replace(search=replace(material.plan.search, folds=3))
    folded = replace(material, data=replace(data, split=split), plan=plan)
    pool = np.sort(np.concatenate([data.split.train, data.split.validation]))
    parts = list(held_out(folded))
    assert np.array_equal(np.sort(np.concatenate([scored for _, scored in parts])), pool)
    for trained, scored in parts:
        assert trained is not None
        assert np.array_equal(np.sort(np.concatenate([trained, scored])), pool)
    desk = Desk(tmp_path, folded)
    trial = desk.run({"lr": LR}, epochs=0.2)
    assert desk.lines[0]["runs"] == 3
    right = (trial.score or 0) * len(pool)
    assert abs(right - round(right)) < 1e-6
    on = desk.run({"lr": LR}, epochs=0.4, number=1, continues=0)
    assert result(on) == result(desk.run({"lr": LR}, epochs=0.4, number=2))
