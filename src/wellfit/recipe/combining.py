"""After a training: averages of its weights, its snapshots, other networks; what validation gains by stays.

Three steps, in the order of what they cost when the model is used: averaged weights are one network like any other
(SPEC E3), snapshots come from the training that there is (E2), trials of the search and networks from further seeds are
trainings of their own (E1).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from wellfit.findings import GateFailed
from wellfit.inference.evaluate import logits_of
from wellfit.inference.gain import Judged, gain, judge
from wellfit.inference.selection import Selection, greedy, mean_answers
from wellfit.inference.views import preset
from wellfit.models.zoo import Built, build
from wellfit.randomness import generator
from wellfit.recipe.best_trials import BestTrials, of_another_kind
from wellfit.recipe.fitting import Fitted, Trained, train_member
from wellfit.recipe.job import Job
from wellfit.recipe.kept import Kept, place_of, set_aside
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.model_choice import closing_time
from wellfit.recipe.viewing import time_of_views
from wellfit.record import read_record
from wellfit.training.averaging import recompute_batchnorm

REDONE = 2000  # training images that BatchNorm's statistics of averaged weights are measured on
STEPS = ("averages", "snapshots", "ensemble")
NO_TIME_FOR_VIEWS = "no time would be left for views, which cost as much and mostly bring more"


@dataclass
class Candidate:
    """A network that could be handed over or be a member: its weights, and what it says of the validation images.

    weights: reads them from where they are kept, since all candidates of a large network together fill a memory.
    """

    name: str
    kind: str  # "best", "average", "snapshot", "trial" or "seed"
    weights: Callable[[], dict[str, torch.Tensor]]
    answers: np.ndarray
    judged: Judged


class Bench:
    """Judges weights of the run's architecture on the validation split; one scratch network serves all."""

    def __init__(self, job: Job, material: Material, fitted: Fitted) -> None:
        self.job, self.material, self.fitted = job, material, fitted
        self.module = copy.deepcopy(fitted.module)
        self.batches = material.evaluation(material.data.split.validation)
        self.targets, self.seconds, self.passes = self.batches.targets, 0.0, 0
        self.redone_so_far = 0

    def candidate(self, name: str, kind: str, weights: Callable[[], dict[str, torch.Tensor]]) -> Candidate:
        self.module.load_state_dict(weights())
        begun = time.monotonic()
        plan = self.material.plan
        answers = logits_of(self.module, self.batches, plan.engine, self.material.preprocessing)
        self.seconds, self.passes = self.seconds + time.monotonic() - begun, self.passes + 1
        return Candidate(name, kind, weights, answers, judge(answers, self.targets, plan.metric))

    @property
    def milliseconds(self) -> float:
        """Of one network on one image, as measured so far."""
        return 1000 * self.seconds / max(1, self.passes * len(self.targets))

    def redone(self, name: str, weights: dict[str, torch.Tensor]) -> Candidate:
        """A candidate whose BatchNorm statistics are measured anew on training images (Izmailov et al. 2018)."""
        self.module.load_state_dict(weights)
        material, plan = self.material, self.material.plan
        train = material.data.split.train
        some = train[np.sort(generator(plan.seed, "batchnorm").permutation(len(train))[:REDONE])]
        inputs = (plan.engine.inputs(b.images, material.preprocessing) for b in material.evaluation(some))
        recompute_batchnorm(self.module, inputs, plan.engine.autocast)
        self.redone_so_far += 1
        kept = Kept(name, "average", place_of(self.job, f"redone-{self.redone_so_far}"))
        set_aside(kept.path, self.module)
        return self.candidate(name, "average", kept.weights)


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a module's weights on the CPU, by name."""
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}


def mean_weights(states: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of several states of one architecture, in float64; whole numbers (counters) are the last state's."""
    mean = {}
    for name, last in states[-1].items():
        if last.is_floating_point():
            mean[name] = torch.stack([state[name].double() for state in states]).mean(0).to(last.dtype)
        else:
            mean[name] = last.clone()
    return mean


def combine(job: Job, material: Material, fitted: Fitted) -> Fitted:
    """The fitted network, or what validation says is better: an average of its weights, or an ensemble."""
    stopped = fitted.interrupted or job.stop()
    if stopped or not fitted.kept:
        why = "the run was stopped" if stopped else "no snapshots and no further networks are planned"
        if fitted.probe is not None or fitted.held_out is not None:
            why = "a linear classifier on fixed features has no course of training to take from"
        told = {outcome.name for outcome in job.outcomes}
        for name in STEPS:
            if name not in told:
                job.skip(name, why)
        return replace(fitted, interrupted=stopped)
    plan = material.plan
    plan.engine.activate()
    bench = Bench(job, material, fitted)
    handed_over = state_of(fitted.module)
    best = bench.candidate("the best weights on validation", "best", lambda: handed_over)
    best, averages = _average(job, bench, best)
    snapshots = list(_snapshots(bench, fitted.kept))
    chosen = _join_snapshots(job, bench, best, snapshots)
    seeds, stopped = _further(job, material, bench, fitted, best, [*averages, *snapshots], chosen)
    pool, selection = seeds or chosen or ([best], None)
    if selection is None or len(selection.chosen) == 1:
        alone = best if selection is None else pool[selection.chosen[0]]
        fitted.module.load_state_dict(alone.weights())
        return replace(fitted, score=alone.judged.score, interrupted=stopped)
    members = [(pool[i], float(selection.weights[i])) for i in selection.chosen]
    _write(job, bench, pool, selection)
    built = ensemble_of(material, fitted, [member.weights() for member, _ in members], [share for _, share in members])
    return replace(fitted, built=built, module=built.module, score=selection.judged.score, interrupted=stopped)


Chosen = tuple[list[Candidate], Selection]


def _average(job: Job, bench: Bench, best: Candidate) -> tuple[Candidate, list[Candidate]]:
    """Averages of the training's weights, BatchNorm's statistics redone; the best of them and of what there was."""
    with job.step("averages") as outcome:
        kept = bench.fitted.kept
        found = [bench.redone(each.name, each.weights()) for each in kept if each.kind == "average"]
        late = [each.weights() for each in kept if each.kind == "snapshot"]
        if len(late) > 1:
            found.append(bench.redone(f"the mean of {len(late)} snapshots' weights", mean_weights(late)))
        if not found:
            outcome.skip("the training keeps no average of its weights")
            return best, []
        top = max(found, key=lambda each: (each.judged.score, -each.judged.loss))
        took = top.judged.beats(best.judged)
        change = gain(best.judged, top.judged)
        outcome.gain = round(change.score, 4) if took else 0.0
        outcome.reason = (
            f"{'taken' if took else 'not taken'}: {top.name}, BatchNorm statistics redone, {top.judged.score:.4f} on "
            f"validation against {best.judged.score:.4f}"
        )
        return (top if took else best), [each for each in found if each is not top or not took]


def _snapshots(bench: Bench, kept: Sequence[Kept]) -> Iterator[Candidate]:
    for each in kept:
        if each.kind == "snapshot":
            yield bench.candidate(each.name, "snapshot", each.weights)


def _join_snapshots(job: Job, bench: Bench, best: Candidate, snapshots: list[Candidate]) -> Chosen | None:
    """An ensemble of one training's snapshots, where it gains."""
    with job.step("snapshots") as outcome:
        if len(snapshots) < 2:
            outcome.skip("fewer than two snapshots were taken")
            return None
        pool = [best, *snapshots]
        selection = greedy([each.answers for each in pool], bench.targets, bench.material.plan.metric)
        took = worth(selection, asked=False)
        said = verdict(selection, took)
        if took and _costs_the_views(job, bench, len(selection.chosen)):
            took, said = False, f"not kept: {NO_TIME_FOR_VIEWS}"
        outcome.gain = round(selection.gain.score, 4) if took else 0.0
        last, every = snapshots[-1].judged.score, _judged_together(bench, snapshots)
        outcome.reason = f"{said}; all {len(snapshots)} snapshots together {every.score:.4f}, the last alone {last:.4f}"
        return (pool, selection) if took else None


def _costs_the_views(job: Job, bench: Bench, members: int) -> bool:
    """Whether one network leaves time to try the cheapest planned view, and a mean of so many members does not."""
    ending = bench.material.plan.ending
    passes = [preset(name).passes for name in ending.views if name != "none"]
    if not passes or "views" in ending.asked:  # what was asked for is tried whatever the clock says
        return False
    alone = time_of_views(bench.material, bench.seconds / bench.passes, min(passes))
    left = job.budget.left - closing_time(bench.material.data)
    return alone <= left < members * alone


def _further(
    job: Job,
    material: Material,
    bench: Bench,
    fitted: Fitted,
    best: Candidate,
    others: list[Candidate],
    chosen: Chosen | None,
) -> tuple[Chosen | None, bool]:
    """The search's best trials and networks from seeds of their own, joined with all that there is; and whether
    somebody asked to stop.
    """
    ending = material.plan.ending
    trials = BestTrials(job, ending.trials).kept()
    if job.stop():
        job.skip("ensemble", "the run was stopped")
        return None, True
    if ending.members < 2 and not trials and "ensemble" in {outcome.name for outcome in job.outcomes}:
        return None, False  # it was decided before, with what transfer tried
    with job.step("ensemble") as outcome:
        if ending.members < 2 and not trials:
            outcome.skip("one training takes all of the time" if job.config.ensemble == "auto" else "not asked for")
            return None, False
        pool = [best, *others, *(bench.candidate(each.name, "trial", each.weights) for each in trials)]
        planned = ending.members > 1 or "ensemble" in ending.asked
        stopped, found = False, settings_of_kinds(job, material, fitted.settings)
        for number in range(1, ending.members):
            settings = found[number % len(found)]
            trained = _another(job, material, settings, number)
            if trained is None:
                continue
            if trained.best.weights:
                name = trained.kept[0].name if trained.kept else f"network {number + 1}"
                if settings != fitted.settings:
                    name += f" (lr {settings.lr:.2g}, weight decay {settings.weight_decay:.2g})"
                own = trained.kept[0].weights if trained.kept else partial(state_of, trained.module)
                pool.append(bench.candidate(name, "seed", own))
            pool += [bench.redone(each.name, each.weights()) for each in trained.kept if each.kind == "average"]
            stopped = trained.reason == "stopped"
            if stopped:
                break
        selection = greedy([each.answers for each in pool], bench.targets, material.plan.metric)
        took = worth(selection, asked="ensemble" in ending.asked)
        # Networks that were planned for have time of their own.
        if took and not planned and _costs_the_views(job, bench, len(selection.chosen)):
            outcome.reason, outcome.gain = f"not kept: {NO_TIME_FOR_VIEWS}", 0.0
            return None, stopped
        if took and chosen is not None and not selection.judged.beats(chosen[1].judged):
            outcome.reason, outcome.gain = "the snapshots of the first training together are as good", 0.0
            return None, stopped
        outcome.gain = round(selection.judged.score - best.judged.score, 4) if took else 0.0
        outcome.reason = f"{verdict(selection, took)}; {_tried(pool)}, {bench.milliseconds:.2f} ms an image each"
        if not took and gain(best.judged, selection.single).helps:
            first = selection.steps[0].member
            outcome.reason += f"; {pool[first].name} is better than the first network by itself, and taken"
            outcome.gain = round(selection.single.score - best.judged.score, 4)
            selection, took = Selection(np.eye(len(pool))[first], selection.steps[:1]), True
        return ((pool, selection) if took else None), stopped


def settings_of_kinds(job: Job, material: Material, chosen: Settings) -> list[Settings]:
    """The settings to train networks at: the chosen ones, then those of the search's trials that differ in kind.

    A trial counts whose score lies within its standard error of the best of the same length; of another kind is a rate
    that differs by more than half.
    """
    lines = [line for line in read_record(job.folder.record) if line["kind"] == "trial"]
    done = [line for line in lines if line.get("state") == "finished" and line.get("validation_accuracy") is not None]
    longest = max((line["epochs"] for line in done), default=0.0)
    last = [line for line in done if line["epochs"] == longest and line["settings"].get("lr")]
    last.sort(key=lambda line: -line["validation_accuracy"])
    found = [chosen]
    for line in last:
        near = last[0]["validation_accuracy"] - line["validation_accuracy"] <= (line.get("error") or 0.0)
        settings = Settings.of(material.plan, line["settings"])
        settings = replace(settings, lowest=chosen.lowest)
        if near and of_another_kind(settings.lr, [other.lr for other in found]):
            found.append(settings)
    return found


def _another(job: Job, material: Material, settings: Settings, number: int) -> Trained | None:
    """One more network; None where no rate would train it, which says nothing against the others."""
    try:
        return train_member(job, material, settings, number)
    except GateFailed:
        job.say(f"network {number + 1} diverged at every rate and is left out of the ensemble")
        return None


def worth(selection: Selection, *, asked: bool) -> bool:
    """Whether a mean of several is used: where validation gains, or where it was asked for and does not lose."""
    if len(selection.chosen) < 2:
        return False
    return selection.gain.helps or (asked and selection.gain.score >= 0)


def verdict(selection: Selection, took: bool) -> str:
    """What became of a choice of members, in words."""
    if len(selection.chosen) < 2:
        return f"not kept: no member makes the log loss on validation better than {selection.single.loss:.4f}"
    said = f"{selection.single.score:.4f} → {selection.judged.score:.4f} on validation"
    return f"{'kept' if took else 'not kept'}: {len(selection.chosen)} members, {said}"


def _tried(pool: Sequence[Candidate]) -> str:
    """Beside the best network: those from seeds of their own with their mean score, and the search's trials."""
    seeds = [pool[0].judged.score, *(each.judged.score for each in pool if each.kind == "seed")]
    trials = [each.judged.score for each in pool if each.kind == "trial"]
    said = []
    if len(seeds) > 1:
        said.append(f"the {len(seeds)} networks, each from a seed of its own, have {np.mean(seeds):.4f} on the average")
    if trials:
        said.append(f"the search's {len(trials)} best trials of different kind {', '.join(f'{s:.4f}' for s in trials)}")
    return "; ".join(said) or "no other network was trained"


def _judged_together(bench: Bench, candidates: Sequence[Candidate]) -> Judged:
    answers = mean_answers([each.answers for each in candidates], [1.0] * len(candidates))
    return judge(answers, bench.targets, bench.material.plan.metric)


def _write(job: Job, bench: Bench, pool: list[Candidate], selection: Selection) -> None:
    job.record.write("ensemble", **record_line(pool, selection, bench.milliseconds, len(bench.targets)))


def record_line(
    pool: Sequence[Any], selection: Selection, milliseconds: float, images: int, *, together: float | None = None
) -> dict[str, Any]:
    """The record's line: each member, each step's gain on validation, what it costs.

    milliseconds: of one network on one image. together: of all members, where they are of unlike size.
    """
    members = [
        {
            "name": pool[i].name,
            "kind": pool[i].kind,
            "share": round(float(selection.weights[i]), 4),
            "score": pool[i].judged.score,
            "loss": pool[i].judged.loss,
        }
        for i in selection.chosen
    ]
    steps = [
        {
            "name": pool[step.member].name,
            "score": step.judged.score,
            "loss": step.judged.loss,
            "gain": step.gain.score,
            "loss_gain": step.gain.loss,
            "loss_error": step.gain.error,
        }
        for step in selection.steps
    ]
    together = milliseconds * len(members) if together is None else together
    return {
        "members": members,
        "steps": steps,
        "tried": [{"name": each.name, "kind": each.kind, "score": each.judged.score} for each in pool],
        "images": images,
        "gain": selection.gain.score,
        "single": selection.single.score,
        "score": selection.judged.score,
        "milliseconds": [round(milliseconds, 3), round(together, 3)],
    }


def ensemble_of(
    material: Material, fitted: Fitted, states: Sequence[dict[str, torch.Tensor]], shares: Sequence[float]
) -> Built:
    """One network of several states of the run's architecture, on the engine."""
    plan, built = material.plan, fitted.built
    size = plan.model.image_size
    member = {"name": built.name, "options": built.options, "image_size": size}
    options: dict[str, Any] = {"members": [member] * len(states), "shares": [round(share, 6) for share in shares]}
    made = build("ensemble", len(material.data.classes), image_size=size, weights=None, seed=plan.seed, **options)
    made.module.load_state_dict(
        {f"members.{i}.{name}": value for i, state in enumerate(states) for name, value in state.items()}
    )
    module = plan.engine.place(made.module)
    return Built(module, "ensemble", options, built.weights, licence=built.licence, source=built.source)
