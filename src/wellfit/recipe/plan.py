"""The plan: made once from measured speed, in images, steps, epochs and trials, never in seconds.

`plan.toml` pins what could differ between machines (dtype, layout, threads), so that
`wellfit fit --plan FILE` repeats it with no deadline. What was done is written back as [[done]].
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wellfit.config import build, read_toml, write_toml
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.record import write_atomically

SCHEMA = 1


@dataclass(frozen=True)
class ModelPlan:
    """Which network, and what it starts from.

    transfer: "none" trains from random weights; "probe" fits a linear classifier on frozen features; "tune" trains
    a new classifier and the network with it; "continue" trains on from an earlier run's network.
    """

    name: str
    weights: str
    image_size: int
    resize: int
    transfer: str = "none"
    parameters: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    probe_sizes: tuple[int, ...] = ()  # pixels; the probe takes the best of them on validation


@dataclass(frozen=True)
class OptimizerPlan:
    """The rule and its rates before the search looks for better ones."""

    name: str
    lr: float
    weight_decay: float
    momentum: float = 0.9


@dataclass(frozen=True)
class ChecksPlan:
    """Steps that the small-sample and learning-rate gates may take at most."""

    small_sample_steps: int = 200
    lr_iterations: int = 20


@dataclass(frozen=True)
class SearchPlan:
    """Short runs: what they may cost, judged on how many validation images. 0 trials: none.

    As many as coarse and fine trials together, of as many steps in all: the schedule divides them, from trials of
    `coarse_steps` to those of `fine_steps`.
    folds: runs of a trial, each judged on the images that it holds out; 0: one run, judged on validation.
    """

    coarse_trials: int = 0
    fine_trials: int = 0
    coarse_steps: int = 0
    fine_steps: int = 0
    validation_images: int = 0
    folds: int = 0


@dataclass(frozen=True)
class TrainingPlan:
    """The main run (after a probe: the fine-tuning; 0 steps: none)."""

    steps: int
    batch_size: int
    steps_per_epoch: int
    evaluate_every: int
    average: float = 0.995
    label_smoothing: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    patience: int = 0
    balance: str = "auto"  # tried both ways where the classes differ in size
    freeze: int = 0  # stages of a pretrained network that are not trained


@dataclass(frozen=True)
class EndingPlan:
    """What is tried once a network is trained; of all of it is kept what validation gains by (SPEC E4).

    members: networks that are trained from seeds of their own, the first included; after a probe, how many stages'
    classifiers may be averaged. snapshots: shares of a training's progress at which its weights are set aside. views:
    names of test-time views that are tried. trials: how many of the search's best trials, each of another kind, may be
    members as they are.
    asked: what was asked for by name, "ensemble" or "views": it is kept unless validation loses by it.
    """

    members: int = 1
    snapshots: tuple[float, ...] = ()
    views: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    trials: int = 0


@dataclass(frozen=True)
class ScratchPlan:
    """A small net from random weights, trained beside the fine-tuning of data unlike the pretrained one's (SPEC T4).

    0 steps: none. The rest of the training is that of the plan.
    """

    name: str = "whitened"
    image_size: int = 0
    resize: int = 0
    steps: int = 0
    lr: float = 0.0
    weight_decay: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the checks begin."""

    seed: int
    metric: str
    loss: str
    schedule: str
    augment: tuple[str, ...]
    reasons: tuple[str, ...]
    model: ModelPlan
    optimizer: OptimizerPlan
    engine: Engine
    checks: ChecksPlan
    search: SearchPlan
    training: TrainingPlan
    preprocessing: str = "standardise"
    ending: EndingPlan = field(default_factory=EndingPlan)
    transfer_strategy: str = "auto"  # or one of transfer.policy.STRATEGIES
    scratch: ScratchPlan = field(default_factory=ScratchPlan)
    compared: ScratchPlan = field(default_factory=ScratchPlan)  # a short training that the weights are compared with
    schema: int = SCHEMA

    @property
    def epochs(self) -> float:
        return self.training.steps / max(1, self.training.steps_per_epoch)

    def replace(self, **changes: Any) -> Plan:
        return dataclasses.replace(self, **changes)


def save_plan(path: Path, plan: Plan, done: list[dict[str, Any]] | None = None) -> None:
    """Write the plan; `done` are the outcomes of its steps."""
    values = dataclasses.asdict(plan)
    write_atomically(path, write_toml({**values, **({"done": done} if done else {})}))


def load_plan(path: str | Path) -> Plan:
    """Read a plan, its outcomes left out; UserError for anything that is no plan of this version."""
    values = read_toml(path)
    values.pop("done", None)
    schema = values.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise UserError(f"'{path}' is a plan of version {schema}, this wellfit reads version {SCHEMA}; make it anew")
    fields, unset = dataclasses.fields(Plan), dataclasses.MISSING
    missing = {f.name for f in fields if f.default is unset and f.default_factory is unset} - values.keys()
    if missing:
        raise UserError(
            f"'{path}' is no complete plan: {', '.join(sorted(missing))} missing; give the plan.toml of an earlier run"
        )
    try:
        plan: Plan = build(Plan, values, str(path))
    except TypeError as error:
        raise UserError(f"'{path}' is no complete plan ({error}); give the plan.toml of an earlier run") from error
    return plan


def plan_in_words(plan: Plan) -> list[str]:
    """What `--dry-run` prints and the terminal shows."""
    model, training, search = plan.model, plan.training, plan.search
    lines = [f"model      {model.name} at {model.image_size} px, {model.parameters:,} parameters"]
    if model.weights != "none":
        lines[0] += f", weights {model.weights}"
    lines.append(f"engine     {plan.engine.line}")
    trials = search.coarse_trials + search.fine_trials
    if model.transfer == "probe":
        lines.append(
            "transfer   frozen features of several stages once, then linear classifiers on them; what they show "
            "decides what else is trained"
        )
    elif trials:
        lines.append(
            f"search     up to {trials} trials of {search.coarse_steps} to {search.fine_steps} steps, coarse and then "
            "fine, scored "
            + (
                f"by {search.folds}-fold cross-validation"
                if search.folds
                else f"on {search.validation_images:,} validation images"
            )
        )
    else:
        lines.append("search     none")
    if training.steps:
        lines.append(
            f"training   {training.steps:,} steps of {training.batch_size} images ({plan.epochs:.1f} epochs), "
            f"{plan.optimizer.name} at lr {plan.optimizer.lr:.3g}, {plan.schedule}, "
            f"augment {' + '.join(plan.augment) or 'none'}"
        )
    ending = plan.ending
    several = (
        f"the mean of up to {ending.members} linear classifiers on different stages"
        if model.transfer == "probe"
        else f"an ensemble of {ending.members} networks from seeds of their own"
    )
    tried = [several] if ending.members > 1 else []
    if len(ending.snapshots) > 1 and training.steps:
        tried.append(f"{len(ending.snapshots)} snapshots of a training")
    if ending.trials and tried:
        tried.append(f"up to {ending.trials} of the search's trials")
    if ending.views:
        tried.append(f"test-time views ({', '.join(ending.views)})")
    if tried:
        lines.append(f"then       {'; '.join(tried)}: kept where validation gains")
    lines += [f"because    {reason}" for reason in plan.reasons]
    return lines
