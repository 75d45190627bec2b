"""One run by several processes that torchrun started: the first does the recipe, the others train whenever it trains.

What the others need is told to them: the data's name, the split, and for each training the plan and the settings.
They write nothing. On another machine they read the data and build the pixel store there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.config import DataConfig
from wellfit.errors import Interrupted, UserError
from wellfit.recipe.job import Job
from wellfit.record import RunFolder

if TYPE_CHECKING:
    from torch import nn

    from wellfit.data.audit import Audit
    from wellfit.data.preprocess import Preprocessing
    from wellfit.data.split import Split
    from wellfit.models.zoo import Built
    from wellfit.recipe.material import Material, Settings
    from wellfit.recipe.plan import Plan
    from wellfit.recipe.prepare import Prepared
    from wellfit.training.distributed import Group, Together

LOST = re.compile(r"gloo|nccl|peer|connection", re.IGNORECASE)  # what torch says when another process has gone


@dataclass(frozen=True)
class Opening:
    """The first word: which run this is. location: of the data; None where each process was given its own in memory."""

    folder: str
    location: str | None
    data: DataConfig


@dataclass(frozen=True)
class Meeting:
    """The word before a training: how the images are split."""

    split: Split
    audit: Audit


@dataclass(frozen=True)
class Order:
    """A training to take part in. trained: the parameters that take gradients; top: only the last stages do."""

    plan: Plan
    settings: Settings
    preprocessing: Preprocessing
    name: str
    options: dict[str, Any]
    trained: tuple[str, ...]
    top: bool
    steps: int

    @classmethod
    def of(
        cls, material: Material, built: Built, module: nn.Module, settings: Settings, *, top: bool, steps: int
    ) -> Order:
        trained = tuple(name for name, parameter in module.named_parameters() if parameter.requires_grad)
        parts = material.plan, settings, material.preprocessing, built.name, built.options
        return cls(*parts, trained=trained, top=top, steps=steps)


def processes() -> int:
    """How many processes torchrun started for this command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if {"RANK", "MASTER_ADDR"} <= os.environ.keys() else 1


def follows() -> bool:
    """Whether this process is one that takes part and is not the first."""
    return processes() > 1 and os.environ["RANK"] != "0"


def refuse_several(what: str) -> None:
    """UserError where torchrun started several processes for something that one does."""
    if processes() > 1:
        raise UserError(
            f"torchrun's processes share a training (fit, train and resume), but {processes()} were started for "
            f"{what}; start it without torchrun"
        )


def refuse_full_batch(optimizer: str) -> None:
    """UserError where the optimizer takes the whole split at each step."""
    from wellfit.recipe.full_batch import is_full_batch

    if processes() > 1 and is_full_batch(optimizer):
        raise UserError(
            f"several processes share each mini-batch of a training, and the optimizer '{optimizer}' has none; start "
            "it without torchrun, or take another optimizer"
        )


@contextlib.contextmanager
def shared(job: Job) -> Iterator[None]:
    """The others take part in this job's trainings, where torchrun started any. For the first process."""
    if processes() == 1:
        yield
        return
    from wellfit.recipe.opening import lasting
    from wellfit.training.distributed import Group

    job.group = group = Group()
    group.same(Opening(str(job.folder.path.resolve()), lasting(job.data), job.config.data))
    said = f"{group.size} processes share each batch of the training; the first one does everything else"
    job.record.tell("say", text=said)
    try:
        yield
    finally:
        if not group.busy:  # in the middle of a training nobody listens: the connection that breaks ends the others
            group.same(None)
            group.close()


@contextlib.contextmanager
def shared_training(job: Job, order: Order, data: Prepared, module: nn.Module) -> Iterator[Together]:
    """The processes that train `module` together from here on, which have its parameters and buffers then.

    Raises UserError where they have other images or the engine cannot be shared, Interrupted where one of them ends.
    """
    from wellfit.training.distributed import ALONE

    group = job.group
    if group is None:
        yield ALONE
        return
    if order.plan.engine.device == "mps":
        raise UserError("several processes share processors or CUDA devices, but the plan's device is 'mps'; take cpu")
    with lost_others(f"`torchrun … -m wellfit resume {job.folder.path}` takes the run up from its last checkpoint"):
        group.busy = True
        group.same(Meeting(data.split, data.audit))
        digests = group.all(digest_of(data))
        others = [str(rank) for rank, digest in enumerate(digests) if digest != digests[0]]
        if others:
            group.busy = False
            raise UserError(
                f"all processes read the same images, but those with the numbers {', '.join(others)} found others than "
                "the first one; put the same data in place on each machine"
            )
        group.same(order)
        group.same_state(module)
        yield group
        group.busy = False


@contextlib.contextmanager
def lost_others(advice: str) -> Iterator[None]:
    """What torch says of a connection that broke, as one sentence."""
    try:
        yield
    except RuntimeError as error:
        if not LOST.search(str(error)):
            raise
        raise Interrupted(
            f"another of the {processes()} processes ended, so this one cannot go on; {advice}"
        ) from error


def follow(data: Any) -> RunFolder:
    """Take part in the trainings of the first process until it is done; the run's folder, which may be elsewhere."""
    from wellfit.training.distributed import Group

    group = Group()
    with lost_others("what happened is said by the one that ended first"):
        opening: Opening = heard(group)
        reading = _Reading(data if opening.location is None else opening.location, opening.data)
        if group.local_rank == 0:  # another machine: its store is built while the first process builds its own
            reading()
        with _deaf():
            while (meeting := heard(group)) is not None:
                read = reading.with_split(meeting)
                group.all(digest_of(read))
                order = heard(group)
                if order is None:
                    break
                _train_along(group, order, read)
        group.close()
    return RunFolder(Path(opening.folder))


def heard(group: Group) -> Any:
    """The first process's next word; None where there is none to come."""
    return group.same(None)


@dataclass
class _Reading:
    """The data as this process finds them, read once."""

    given: Any
    config: DataConfig
    found: Any = None

    def __call__(self) -> Any:
        from wellfit.recipe.prepare import read_data

        if self.found is None:
            self.found = read_data(self.given, self.config)
        return self.found

    def with_split(self, meeting: Meeting) -> Prepared:
        from wellfit.recipe.prepare import Prepared

        source, inspection, store = self()
        return Prepared(source, inspection, store, meeting.audit, meeting.split)


def digest_of(data: Prepared) -> str:
    """Names the contents of all images and their order."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(b"".join(h or bytes(16) for h in data.inspection.content_hash))
    return digest.hexdigest()


def _train_along(group: Group, order: Order, data: Prepared) -> None:
    """The same training as the first process's, without its record, its checkpoints and its monitor."""
    from wellfit.models.freezing import freeze
    from wellfit.models.zoo import construct
    from wellfit.recipe.material import Material
    from wellfit.recipe.training_parts import TrainingParts
    from wellfit.training.distributed import SharedScore
    from wellfit.training.loop import train
    from wellfit.training.pace import Pace
    from wellfit.transfer.rates import freeze_below_top

    plan, size = order.plan, order.plan.model.image_size
    material = Material(data, plan, order.preprocessing)
    module = construct(order.name, len(data.classes), image_size=size, seed=plan.seed, **order.options)
    freeze(module, plan.training.freeze, size)
    if order.top:
        freeze_below_top(module, size)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in order.trained)
    module = plan.engine.place(module)
    group.same_state(module)
    parts = TrainingParts.of(material, module, order.settings)
    train(
        module,
        parts.batches,
        parts.criterion,
        parts.optimizer,
        pace=Pace(order.steps),
        evaluate=SharedScore(material.validation_score(), group),
        together=group,
        **parts.options,
    )


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C and termination reach all processes; the first one decides when the training ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
