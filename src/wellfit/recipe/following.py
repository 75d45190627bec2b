"""What a process does that torchrun started beside the first: it takes part in the trainings, and writes nothing.

On another machine it reads the data and builds the pixel store there.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.config import DataConfig
from wellfit.recipe.processes import lost_others
from wellfit.recipe.sharing import Meeting, Opening, Order, digest_of
from wellfit.record import RunFolder

if TYPE_CHECKING:
    from wellfit.recipe.prepare import Prepared
    from wellfit.training.distributed import Group


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
