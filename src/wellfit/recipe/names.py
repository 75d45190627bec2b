"""Names in a configuration, looked up before anything is read: a slip must not cost the reading of all images."""

from __future__ import annotations

from pathlib import Path

from wellfit.config import Config
from wellfit.data.augmentations.table import mixing_names, parse_all
from wellfit.dotted import load_dotted
from wellfit.errors import UserError
from wellfit.inference.views import preset
from wellfit.models.pretrained import PUBLISHED_WORDS
from wellfit.models.weights import read_state
from wellfit.models.zoo import build, resolve
from wellfit.recipe.earlier import card_beside
from wellfit.recipe.model_choice import PRETRAINED
from wellfit.recipe.model_options import model_options, refuse_unknown_layers
from wellfit.training.optimizers import check_optimizer_name
from wellfit.training.regularize import build_criterion
from wellfit.training.schedules import schedule


def refuse_unknown_names(config: Config) -> None:
    """UserError for a model, layer, optimizer, loss, schedule, augmentation or views that are not there, naming the
    nearest.
    """
    if config.model.name != "auto":
        namespace, name = resolve(config.model.name)
        if namespace == "user":
            load_dotted(name, "model")
    refuse_unknown_layers(config)
    optimizer = config.optimizer.name
    if optimizer != "auto":
        check_optimizer_name(optimizer)
    if config.schedule != "auto":
        schedule(config.schedule)
    build_criterion(config.loss)
    if config.views != "auto":
        preset(config.views)
    if config.augment != ("auto",):
        parse_all(() if config.augment == ("none",) else config.augment)
    refuse_mixing_with(config.loss, config.augment)


def refuse_unfit_weights(config: Config) -> None:
    """UserError for weights that were asked for and cannot be had, read, or loaded into their network.

    Published ones are fetched here where they are not on this machine. A network of the user's own may want its classes
    known before its weights fit: of its file it is only seen whether it can be read.
    """
    wanted, size = config.model.weights, config.model.image_size or 224
    if wanted in ("auto", "none"):
        return
    name = PRETRAINED[0] if config.model.name == "auto" else config.model.name
    if resolve(name)[0] == "user":
        if wanted not in PUBLISHED_WORDS and not wanted.startswith(("http://", "https://")):
            read_state(Path(wanted).expanduser())
        return
    card = card_beside(wanted)
    classes = len(card["classes"]) if card is not None else 2
    try:
        build(name, classes, image_size=size, weights=wanted, **model_options(config))
    except UserError as error:
        if config.model.name != "auto":
            raise
        raise UserError(f"{error} (no --model was given, so '{name}' was tried: name the right one)") from error


def refuse_mixing_with(loss: str, augment: tuple[str, ...]) -> None:
    """UserError for labels that are blended and a loss that takes one class an image."""
    mixing = mixing_names(augment)
    if mixing and loss.replace("_", "-") == "hinge":
        raise UserError(
            f"mixing ({', '.join(mixing)}) blends the labels of two images, and the hinge loss takes one an image; "
            "use the loss 'cross-entropy', or leave the mixing out"
        )
