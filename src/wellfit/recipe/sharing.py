"""One run by several processes that torchrun started: the first does the recipe, the others train whenever it trains.

What the others need is told to them: the data's name, the split, and for each training the plan and the settings. What
they do with it is in `following`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wellfit.config import DataConfig
from wellfit.errors import UserError
from wellfit.recipe.job import Job
from wellfit.recipe.processes import lost_others, processes

if TYPE_CHECKING:
    from torch import nn

    from wellfit.data.audit import Audit
    from wellfit.data.preprocess import Preprocessing
    from wellfit.data.split import Split
    from wellfit.models.zoo import Built
    from wellfit.recipe.material import Material, Settings
    from wellfit.recipe.plan import Plan
    from wellfit.recipe.prepare import Prepared
    from wellfit.training.distributed import Together


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


def refuse_full_batch(optimizer: str) -> None:
    """UserError where the optimizer takes the whole split at each step."""
    from wellfit.recipe.full_batch import is_full_batch

    if processes() > 1 and is_full_batch(optimizer):
        raise UserError(
            f"several processes share each mini-batch of a training, and the optimizer '{optimizer}' has none; start "
            "it without torchrun, or take another optimizer"
        )


@contextlib.contextmanager
def shared(job: Job, location: str | None) -> Iterator[None]:
    """The others take part in this job's trainings, where torchrun started any. For the first process.

    location: of the data; None where each process was given its own in memory.
    """
    if processes() == 1:
        yield
        return
    from wellfit.training.distributed import Group

    job.group = group = Group()
    group.same(Opening(str(job.folder.path.resolve()), location, job.config.data))
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


def digest_of(data: Prepared) -> str:
    """Names the contents of all images and their order."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(b"".join(h or bytes(16) for h in data.inspection.content_hash))
    return digest.hexdigest()
