"""What a trial's settings change about the plan: every knob of a search, in one place (SPEC S2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wellfit.data.augmentations.strength import at_strength
from wellfit.data.preprocess import Preprocessing
from wellfit.errors import UserError
from wellfit.models.catalogue import hollow_net
from wellfit.models.freezing import stages
from wellfit.models.zoo import build, resolve
from wellfit.recipe.full_batch import is_full_batch
from wellfit.recipe.material import Material
from wellfit.recipe.names import refuse_mixing_with
from wellfit.recipe.plan import ModelPlan, OptimizerPlan, Plan
from wellfit.recipe.planning import usual_rates
from wellfit.search.space import Space, values_of
from wellfit.training.optimizers import OPTIMIZERS

DROPOUT = {"own": "dropout", "torchvision": "dropout", "timm": "drop_rate", "user": "dropout"}
"""The constructor's option for the probability to drop, by namespace."""


def with_settings(material: Material, settings: dict[str, Any]) -> Material:
    """The material with the settings put into its plan. Raises UserError for one that the network cannot have.

    An optimizer that is chosen without a rate of its own comes with its usual one.
    """
    plan = material.plan
    model = _model(plan.model, settings)
    training = plan.training
    batch_size = int(settings.get("batch_size", training.batch_size))
    training = replace(
        training,
        batch_size=batch_size,
        steps_per_epoch=max(1, len(material.data.split.train) // min(batch_size, len(material.data.split.train))),
        label_smoothing=float(settings.get("label_smoothing", training.label_smoothing)),
        l1=float(settings.get("l1", training.l1)),
        freeze=int(settings.get("freeze", training.freeze)),
        balance=str(settings.get("balance", training.balance)),
    )
    augment = plan.augment
    if "augmentation" in settings:
        augment = at_strength(augment, float(settings["augmentation"]))
    changed = plan.replace(
        model=model,
        training=training,
        augment=augment,
        schedule=str(settings.get("schedule", plan.schedule)),
        optimizer=_optimizer(plan, model, batch_size, len(material.data.classes), settings),
    )
    return replace(material, plan=changed, preprocessing=_preprocessing(material, model))


def _model(model: ModelPlan, settings: dict[str, Any]) -> ModelPlan:
    name = str(settings.get("model", model.name))
    options = dict(model.options) if name == model.name else {}
    if "dropout" in settings:
        share = float(settings["dropout"])
        option = DROPOUT[resolve(name)[0]]
        if share > 0 or option in options:
            options[option] = share
    return replace(model, name=name, options=options)


def _optimizer(plan: Plan, model: ModelPlan, batch_size: int, classes: int, settings: dict[str, Any]) -> OptimizerPlan:
    rule = plan.optimizer
    name = str(settings.get("optimizer", rule.name))
    if name != rule.name:
        net = hollow_net(model.name, image_size=model.image_size, classes=classes, **model.options)
        lr, decay = usual_rates(name, net, batch_size, transfer=model.transfer != "none")
        rule = replace(rule, name=name, lr=lr, weight_decay=decay)
    return replace(
        rule,
        lr=float(settings.get("lr", rule.lr)),
        weight_decay=float(settings.get("weight_decay", rule.weight_decay)),
        momentum=float(settings.get("momentum", rule.momentum)),
    )


def _preprocessing(material: Material, model: ModelPlan) -> Preprocessing:
    """Another pretrained network comes with figures of its own."""
    if model.name == material.plan.model.name or model.transfer == "none":
        return material.preprocessing
    built = build(model.name, 2, image_size=model.image_size, weights=model.weights, **model.options)
    if built.mean is None or built.std is None:
        return material.preprocessing
    return replace(material.preprocessing, mean=tuple(built.mean), std=tuple(built.std))


def refuse_unfit(material: Material, space: Space) -> None:
    """UserError for a value of the space that no trial could be run with: said before the first one, not by each."""
    values = {name: list(values_of(kind)) for name, kind in space.items()}
    plan = material.plan
    for name in values.get("optimizer", []):
        if is_full_batch(name):
            raise UserError(
                f"a search compares trainings on mini-batches, and '{name}' takes the whole split at each step; "
                "leave it out of [optimizer]"
            )
    if plan.loss != "cross-entropy" and any(values.get("label_smoothing", [])):
        raise UserError(
            f"label smoothing is for cross-entropy, and the loss is '{plan.loss}'; leave it out of the space"
        )
    refuse_mixing_with(plan.loss, plan.augment)
    _refuse_idle(plan, space)
    names = values.get("model", [plan.model.name])
    if "model" in values and plan.model.transfer == "continue":
        raise UserError("a search that goes on from an earlier run has that run's network; leave [model] out")
    deepest = max((int(value) for value in values.get("freeze", [])), default=0)
    if deepest and plan.model.transfer == "none":
        raise UserError(
            f"freeze keeps stages of a pretrained network as they are, and {plan.model.name} starts from random "
            "numbers here; leave [freeze] out, or give --weights imagenet"
        )
    for name in names:
        _refuse_model(material, name, max(values.get("dropout", [0.0])), deepest)


def _refuse_idle(plan: Plan, space: Space) -> None:
    """UserError for a setting that changes nothing beside the others: its trials would be spent on nothing."""
    if "momentum" in space:
        chosen = _optimizers_beside(plan, space)
        if not any(_may_take_momentum(name) for name in chosen):
            takers = ", ".join(name for name, rule in OPTIMIZERS.items() if rule.takes_momentum)
            raise UserError(
                f"momentum is for the optimizers that have it ({takers}), and beside [momentum] the space has "
                f"{', '.join(chosen)} alone; leave [momentum] out, or add one of them to [optimizer]"
            )
    strength = list(values_of(space["augmentation"])) if "augmentation" in space else []
    if strength and not plan.augment and max(strength) <= 1:
        raise UserError(
            f"augmentation is a strength of what the plan augments by, which is nothing here, got {max(strength):g} at "
            "the most; leave [augmentation] out, go above 1, or name augmentations with --augment"
        )


def _optimizers_beside(plan: Plan, space: Space) -> list[str]:
    """The optimizers with which momentum is drawn."""
    names = list(values_of(space["optimizer"])) if "optimizer" in space else [plan.optimizer.name]
    wanted = space["momentum"].only_with.get("optimizer", names)
    return [name for name in names if name in wanted]


def _may_take_momentum(name: str) -> bool:
    """Whether it does; of timm's and the user's own it is not known before they are built."""
    return name not in OPTIMIZERS or OPTIMIZERS[name].takes_momentum


def _refuse_model(material: Material, name: str, dropout: float, deepest: int) -> None:
    model = _model(material.plan.model, {"model": name, **({"dropout": dropout} if dropout else {})})
    classes = len(material.data.classes)
    if model.transfer != "none" and name != material.plan.model.name:
        build(name, classes, image_size=model.image_size, weights=model.weights, **model.options)
    try:
        net = hollow_net(name, image_size=model.image_size, classes=classes, **model.options)
    except UserError as error:
        if not dropout:
            raise
        raise UserError(
            f"the space has [dropout], and {name} takes none ({error}); leave it out, or take a network that has it, "
            "such as resnet20"
        ) from error
    found = len(stages(net, model.image_size)) if deepest else 0
    if deepest > found:
        raise UserError(
            f"freeze goes up to {deepest} in the space, and {name} has {found} stages before its classifier; "
            f"take at most {found}"
        )
