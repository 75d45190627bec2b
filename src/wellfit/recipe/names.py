"""Names in a configuration, looked up before anything is read: a slip must not cost the reading of all images."""

from __future__ import annotations

from wellfit.config import Config
from wellfit.data.augment import check_names
from wellfit.dotted import is_dotted, load_dotted
from wellfit.errors import unknown_name
from wellfit.models.zoo import resolve
from wellfit.training.optimizers import OPTIMIZERS
from wellfit.training.regularize import build_criterion
from wellfit.training.schedules import schedule


def refuse_unknown_names(config: Config) -> None:
    """UserError for a model, optimizer, loss, schedule or augmentation that is not there, naming the nearest."""
    if config.model.name != "auto":
        namespace, name = resolve(config.model.name)
        if namespace == "user":
            load_dotted(name, "model")
    optimizer = config.optimizer.name
    if is_dotted(optimizer):
        load_dotted(optimizer, "optimizer")
    elif optimizer not in ("auto", *OPTIMIZERS):
        raise unknown_name("optimizer", optimizer, OPTIMIZERS)
    if config.schedule != "auto":
        schedule(config.schedule)
    build_criterion(config.loss)
    if config.augment != ("auto",):
        check_names(tuple(name for name in config.augment if name != "none"))
