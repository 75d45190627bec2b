"""Making the plan: the machine is measured, then model, image size and counts follow from the budget."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import nn

from wellfit.config import Config
from wellfit.errors import UserError
from wellfit.models.zoo import Built, build
from wellfit.recipe.augmentation import augmentations
from wellfit.recipe.budget import in_words
from wellfit.recipe.ending import PASSING, Means, asked_networks, judging_passes, networks, plan_ending
from wellfit.recipe.full_batch import PASSES, is_full_batch
from wellfit.recipe.job import Job
from wellfit.recipe.model_choice import (
    CHECKS_SHARE,
    CLOSING_SECONDS,
    LOOP_EFFICIENCY,
    SEARCH_SHARE,
    SMALL_IMAGES,
    Candidate,
    Choice,
    choose_model,
    closing_time,
    small_net,
    usual_batch_size,
    wanted_epochs,
)
from wellfit.recipe.optimizer_advice import advice
from wellfit.recipe.plan import ChecksPlan, ModelPlan, OptimizerPlan, Plan, ScratchPlan, SearchPlan, TrainingPlan
from wellfit.recipe.prepare import Prepared
from wellfit.recipe.processes import processes
from wellfit.training.full_batch import check_settings, refuse_noise
from wellfit.training.schedules import scaled_lr
from wellfit.transfer.policy import LITTLE, SCRATCH

FEWEST_TUNED = 0.5  # epochs of all layers: the top stages, which take about half as long, then have a whole one
FEWEST_EPOCHS = 3.0  # of a small net from scratch: with fewer it has no chance against pretrained weights
COMPARED_IMAGES, COMPARED_EPOCHS = 6000, 40  # that the small net of the policy sees at most
COMPARED_SHARE = 0.03  # of the time that is left, that it may take
MOST_EPOCHS = 8  # times the epochs that a network of this size of data wants: more would only pass the time
AMPLE = 2.0  # times the epochs wanted: a time that holds more has more trials, each longer, before more epochs
MOST_SEARCH, LEAST_SEARCH = 0.36, 0.11  # of the time, for them; and where it holds few epochs, each of which counts
TELLING = 1 / 8  # of the epochs wanted: as long as each of them is at least
SHORTEST_TRIAL = 2000  # images of a coarse trial: shorter ones cannot tell learning rates apart
MOST_STEPS_NEEDED = 200  # of a tiny batch, which sees few images in many steps
FINE_LENGTH = 3  # how many times longer a fine trial is than a coarse one (SPEC S1: 1-5 epochs, then 10-20)
LONGEST_TRIAL = 6  # a coarse trial takes at most this part of the epochs that the training wants
FEW_TRIALS = 10  # of the coarse stage; more of them only where each can be long
JUDGED_PART = 4  # of a coarse trial's images: so many validation images take a twelfth of its time
# Coarse trials, fine trials, validation images that judge them at least: the first that the time can hold.
DESIGNS = ((16, 12, 1000), (10, 5, 1000), (10, 5, 500), (7, 4, 500), (5, 3, 400), (4, 2, 300))
EVALUATION_SHARE = 0.08  # of an epoch's time: where validation costs more, it is looked at less often
NO_DEADLINE_SECONDS = 600.0  # what is planned for where no budget was given


def make_plan(job: Job, data: Prepared, *, left: float | None = None, transfer: str = "") -> Plan:
    """Measure, decide, and say why. Raises UserError when not even the smallest run fits the budget.

    left: seconds for the training; what is left of the budget where it is not given. transfer: how networks with
    weights are trained, in the stead of a probe.
    """
    config, images = job.config, len(data.split.train)
    tight = left is None
    left = min(
        job.budget.left if left is None else left, NO_DEADLINE_SECONDS if job.budget.seconds is None else math.inf
    )
    if left < CLOSING_SECONDS + 4 and tight:
        raise UserError(
            f"the budget is used up: {in_words(left)} are left after reading {data.audit.images:,} images; "
            f"give at least --budget {math.ceil(job.budget.spent + 30)}s"
        )
    choice = choose_model(job, data, left)
    reasons = choice.reasons
    transfer = transfer if transfer and choice.transfer == "probe" and choice.name != "probe_net" else choice.transfer
    if config.training.freeze and transfer == "none":
        raise UserError(
            f"training.freeze keeps stages of a pretrained network as they are, got {config.training.freeze}, and "
            f"{choice.name} starts from random numbers; set it to 0, or give --weights imagenet"
        )
    built = build(choice.name, len(data.classes), image_size=choice.image_size, seed=config.seed, **choice.options)
    whole = is_full_batch(config.optimizer.name)
    if whole:
        refuse_noise(built.module)
        check_settings(batch_size=config.training.batch_size, images=images)
    reasons += advice(config.optimizer.name)
    base_size = config.training.batch_size or usual_batch_size(images)
    batch_size = images if whole else base_size * config.training.batch_scale
    optimizer = _optimizer(config, built.module, base_size, choice.start is not None)
    optimizer, learning_schedule = _scaled(config, optimizer, base_size, reasons)
    usable = max(1.0, left - closing_time(data, choice.speed))
    rate = choice.speed * LOOP_EFFICIENCY
    search, search_seconds = SearchPlan(), 0.0
    if transfer != "probe" and not _fixed(config):
        holds = usable * (1 - SEARCH_SHARE - CHECKS_SHARE) * rate / images / wanted_epochs(images)
        share = min(MOST_SEARCH, max(LEAST_SEARCH, SEARCH_SHARE * holds / AMPLE))
        least = TELLING * wanted_epochs(images) if share > SEARCH_SHARE else 0.0
        search, search_seconds = _search(usable * share, rate, batch_size, images, data, reasons, least)
    steps_per_epoch = max(1, images // min(batch_size, images))
    tests, members = len(data.split.test), 1
    means = Means(left, rate, len(data.split.validation), tests, 0.0, wanted_epochs(images))
    if transfer == "probe":
        steps = _fine_tune_steps(config, images, usable, rate, batch_size, steps_per_epoch, reasons)
        members = asked_networks(config)
    else:
        seconds = usable * (1 - CHECKS_SHARE) - search_seconds
        affordable = seconds * rate * processes() / images / (PASSES if whole else 1.0)
        means = replace(means, affordable=affordable)
        members = networks(config, means, reasons) if not whole else 1
        affordable /= members
        epochs = config.training.epochs or min(MOST_EPOCHS * wanted_epochs(images), max(1.0, affordable))
        steps = max(1, round(epochs * steps_per_epoch))
    resize = _resize(choice.image_size, data, choice.start)
    fresh = steps / steps_per_epoch if transfer == "none" else 0.0
    augment = augmentations(config, data, fresh, resize > choice.image_size, reasons)
    validation_cost = len(data.split.validation) / (3 * rate)
    epoch_cost = images / rate
    every = steps_per_epoch * max(1, math.ceil(validation_cost / (EVALUATION_SHARE * epoch_cost)))
    return Plan(
        seed=config.seed,
        metric=config.metric,
        loss=config.loss,
        preprocessing=config.preprocessing,
        transfer_strategy=config.training.transfer,
        scratch=_scratch(config, choice, data, usable, base_size, reasons) if transfer == "probe" else ScratchPlan(),
        compared=_compared(config, choice, data, usable, base_size) if transfer == "probe" else ScratchPlan(),
        schedule=learning_schedule,
        augment=augment,
        reasons=tuple(reasons),
        model=ModelPlan(
            name=choice.name,
            weights=choice.weights,
            image_size=choice.image_size,
            resize=resize,
            transfer=transfer,
            parameters=sum(p.numel() for p in built.module.parameters()),
            options=built.options,
            probe_sizes=_probe_sizes(choice, data, left) if transfer == "probe" else (),
        ),
        optimizer=optimizer,
        engine=choice.engine,
        # A tiny batch shows a fall of the loss later than a large one; SPEC C6 looks at about 100 iterations.
        checks=ChecksPlan(lr_iterations=min(80, max(20, 2560 // batch_size))),
        search=search,
        training=TrainingPlan(
            steps=steps,
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            evaluate_every=min(every, max(1, steps)),
            average=config.training.average,
            label_smoothing=_smoothing(config, data, transfer == "probe"),
            l1=config.training.l1,
            l2=config.training.l2,
            patience=config.training.patience,
            balance=config.training.balance,
            freeze=config.training.freeze,
        ),
        ending=plan_ending(
            config,
            means,
            members=members,
            trains=transfer != "probe" and not whole,
            rate=learning_schedule,
            augment=augment,
            searched=bool(search.coarse_trials) and not search.folds,
        ),
    )


def _scaled(config: Config, optimizer: OptimizerPlan, batch_size: int, reasons: list[str]) -> tuple[OptimizerPlan, str]:
    """Rate and schedule for a batch of `training.batch_scale` times the size: lr × k behind a warm-up (SPEC O10)."""
    k, name = config.training.batch_scale, config.schedule if config.schedule != "auto" else "one_cycle"
    if k == 1:
        return optimizer, name
    lr = scaled_lr(optimizer.lr, k * batch_size, batch_size)
    if name != "one_cycle" and not name.startswith("warmup+"):  # one_cycle begins with a warm-up of its own
        name = f"warmup+{name}"
    reasons.append(
        f"the batch is scaled by {k}, from {batch_size} to {k * batch_size:,} images, so the learning rate is too, "
        f"from {optimizer.lr:.3g} to {lr:.3g}, and the schedule '{name}' warms up to it"
    )
    return replace(optimizer, lr=lr), name


def _smoothing(config: Config, data: Prepared, transfer: bool) -> float:
    if config.training.label_smoothing >= 0:
        return config.training.label_smoothing
    return 0.1 if len(data.classes) > 2 and not transfer and config.loss == "cross-entropy" else 0.0


def _optimizer(config: Config, module: nn.Module, batch_size: int, transfer: bool) -> OptimizerPlan:
    """AdamW is the default (SPEC O13)."""
    name = "adamw" if config.optimizer.name == "auto" else config.optimizer.name
    lr, decay = usual_rates(name, module, batch_size, transfer=transfer)
    return OptimizerPlan(
        name=name,
        lr=config.optimizer.lr or lr,
        weight_decay=decay if config.optimizer.weight_decay < 0 else config.optimizer.weight_decay,
        momentum=config.optimizer.momentum,
    )


def usual_rates(name: str, module: nn.Module, batch_size: int, *, transfer: bool) -> tuple[float, float]:
    """Learning rate and weight decay of an optimizer where nobody asked for others.

    Nets with BatchNorm bear several times the rate of those without; weights that were trained before, a tenth.
    """
    normalised = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
    adaptive = name in ("adam", "adamw", "rmsprop", "adagrad", "muon")
    if adaptive:  # the noise of a smaller batch asks for a rate lower by its square root, as Adam's steps are scaled
        lr = (6e-3 if normalised else 1e-3) * math.sqrt(batch_size / 128)
    else:
        lr = (0.2 if normalised else 0.02) * batch_size / 128
    if transfer:
        lr /= 10
    return lr, (0.05 if normalised else 0.01) if name in ("adamw", "muon") else 5e-4


def expected_seconds(plan: Plan, data: Prepared, speed: float) -> dict[str, float]:
    """What each part would take at `speed` training images a second, as the probe measured it."""
    rate, search, training = speed * LOOP_EFFICIENCY, plan.search, plan.training
    trained = search.coarse_trials * search.coarse_steps + search.fine_trials * search.fine_steps
    judged = search.validation_images * (search.coarse_trials + search.fine_trials)
    trial_images = training.batch_size * trained * max(1, search.folds) + judged / 3
    validation, tests = len(data.split.validation), len(data.split.test)
    trained = plan.ending.members if plan.model.transfer != "probe" else 1
    features = 2 * (len(data.split.train) + len(data.split.validation)) / 2.5
    return {
        "search": trial_images / rate,
        "probe": features / speed * max(1, len(plan.model.probe_sizes)) if plan.model.transfer == "probe" else 0.0,
        "training": training.steps * training.batch_size * trained / rate,
        "ensemble and views": judging_passes(plan.ending, tests / max(1, validation)) * validation / speed / PASSING,
        "test and report": closing_time(data, speed),
    }


def _fixed(config: Config) -> bool:
    return config.optimizer.lr > 0 and config.optimizer.weight_decay >= 0


def _search(
    seconds: float, rate: float, batch_size: int, images: int, data: Prepared, reasons: list[str], least: float = 0.0
) -> tuple[SearchPlan, float]:
    """Coarse trials of 1 unit and fine ones of FINE_LENGTH units; fewer trials before ones too short to tell.

    least: epochs that a unit has where some design holds them, for there is time for fewer and longer trials.
    A unit is at least SHORTEST_TRIAL images (or an epoch of a small set) and at most 3 epochs, or more of a set so
    small that many are wanted. Where the split has folds, a trial is cross-validated if the time allows it.
    """
    steps_per_epoch = max(1, images // batch_size)
    shortest = min(steps_per_epoch, MOST_STEPS_NEEDED, math.ceil(SHORTEST_TRIAL / batch_size))
    longest = math.ceil(max(3.0, wanted_epochs(images) / LONGEST_TRIAL) * steps_per_epoch)
    folds = data.split.folds or []
    telling = min(longest, math.ceil(least * steps_per_epoch))
    for runs in (len(folds), 1) if folds else (1,):
        for coarse, fine, judged in DESIGNS:
            validation = min(judged, len(data.split.validation)) if runs == 1 else sum(map(len, folds))
            overhead = (coarse + fine) * (validation / (3 * rate) + 0.1 * runs)
            units = (coarse + FINE_LENGTH * fine) * runs
            steps = min(longest, int((seconds - overhead) * rate / batch_size / units))
            last = runs == 1 and (coarse, fine, judged) == DESIGNS[-1]
            enough = shortest if last else max(shortest, telling)
            if coarse > FEW_TRIALS:
                enough = max(enough, min(steps_per_epoch, 4 * shortest))
            if steps < enough:
                continue
            if runs > 1:
                reasons.append(
                    f"search trials are judged by {runs}-fold cross-validation; the training keeps its best weights by "
                    f"the {len(data.split.validation):,} validation images"
                )
            elif folds:
                reasons.append(
                    f"{len(folds)}-fold cross-validation of the search trials does not fit into {in_words(seconds)}, "
                    f"so they are judged on the {validation:,} validation images"
                )
            if runs == 1:  # of long trials more images tell the scores apart, at little cost beside them
                validation = min(len(data.split.validation), max(validation, steps * batch_size // JUDGED_PART))
            plan = SearchPlan(coarse, fine, steps, FINE_LENGTH * steps, validation, runs if runs > 1 else 0)
            return plan, units * steps * batch_size / rate + overhead
    reasons.append(
        f"no search: {in_words(seconds)} do not hold six trials that could tell learning rates apart; "
        "the default rate is used"
    )
    return SearchPlan(), 0.0


def _fine_tune_steps(
    config: Config, images: int, usable: float, rate: float, batch_size: int, steps_per_epoch: int, reasons: list[str]
) -> int:
    """After the probe: what the time allows, up to 10 epochs; none for small sets, where the probe is the advice."""
    asked = config.training.transfer
    if asked not in ("auto", "top", "all"):
        reasons.append(f"no fine-tuning: '{asked}' was asked for")
        return 0
    if images < LITTLE and asked == "auto":
        reasons.append(f"no fine-tuning: with {images:,} images, fewer than {LITTLE:,}, a linear classifier is advised")
        return 0
    seconds = usable * 0.9 - 2 * images / (2.5 * rate)
    if config.training.epochs:
        return max(1, round(config.training.epochs * steps_per_epoch))
    epochs = min(10.0 if images >= LITTLE else 30.0, seconds * rate * processes() / images)
    if epochs < FEWEST_TUNED and asked == "auto":  # what was asked for is tried, as far as the time goes
        reasons.append("no fine-tuning: the time after the features holds less than one epoch, also of the top stages")
        return 0
    return max(1, round(max(FEWEST_TUNED if asked == "auto" else 1.0, epochs) * steps_per_epoch))


def _scratch(
    config: Config, choice: Choice, data: Prepared, usable: float, batch_size: int, reasons: list[str]
) -> ScratchPlan:
    """A small net from scratch beside the fine-tuning, where there are images enough and half the time holds it."""
    images, asked = len(data.split.train), config.training.transfer
    if asked != SCRATCH and (asked != "auto" or images < LITTLE):
        return ScratchPlan()
    small = small_net(config, data, choice.engine, usable)
    share = 0.9 if asked == SCRATCH else 0.45
    epochs = min(MOST_EPOCHS * wanted_epochs(images), share * usable * small.speed * LOOP_EFFICIENCY / images)
    if epochs < FEWEST_EPOCHS and asked != SCRATCH:
        reasons.append(f"no small net from scratch: the time allows {epochs:.1f} epochs of it")
        return ScratchPlan()
    steps = max(1, round(max(1.0, epochs) * max(1, images // min(batch_size, images))))
    return _small_plan(small, config, data, batch_size, steps)


def _compared(config: Config, choice: Choice, data: Prepared, usable: float, batch_size: int) -> ScratchPlan:
    """A small net from scratch for a moment, with which the policy compares the weights; none without time for it."""
    if config.training.transfer != "auto":
        return ScratchPlan()
    small, train = small_net(config, data, choice.engine, usable), len(data.split.train)
    wanted = compared_images(train)
    images = min(wanted, COMPARED_SHARE * usable * small.speed * LOOP_EFFICIENCY)
    if images < wanted / 4:
        return ScratchPlan()
    return _small_plan(small, config, data, batch_size, math.ceil(images / min(batch_size, train)))


def compared_images(train: int) -> int:
    """How many images the small net that weights are compared with should see in its training."""
    return min(COMPARED_IMAGES, COMPARED_EPOCHS * train)


def _small_plan(small: Candidate, config: Config, data: Prepared, batch_size: int, steps: int) -> ScratchPlan:
    built = build(small.name, len(data.classes), image_size=small.image_size, seed=config.seed, **small.options)
    lr, decay = usual_rates("adamw", built.module, batch_size, transfer=False)
    return ScratchPlan(
        name=small.name,
        image_size=small.image_size,
        resize=_resize(small.image_size, data, None),
        steps=steps,
        lr=lr,
        weight_decay=decay,
        options=built.options,
    )


def _probe_sizes(choice: Choice, data: Prepared, left: float) -> tuple[int, ...]:
    """The weights' own size, and a larger one where the images hold it and the features cost under a fifth of the time.

    Networks trained on random crops see objects larger than they are at test time; a larger input makes up for it
    (Touvron et al. 2019, "Fixing the train-test resolution discrepancy").
    """
    larger = round(choice.image_size * 288 / 224 / 32) * 32
    images = len(data.split.train) + len(data.split.validation)
    cost = 2 * images * (larger / choice.image_size) ** 2 / (2.5 * max(1.0, choice.speed))
    return (choice.image_size, larger) if larger <= data.short_side and cost < left / 5 else (choice.image_size,)


def _resize(size: int, data: Prepared, start: Built | None) -> int:
    """Short side before the centre crop: the weights' own ratio, 8:7 for photos, none for small images."""
    if data.short_side <= SMALL_IMAGES or size > data.short_side:
        return size
    crop = start.crop_pct if start is not None and start.crop_pct else 0.875
    return round(size / crop)
