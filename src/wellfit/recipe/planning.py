"""Making the plan: the machine is measured, then model, image size and counts follow from the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from wellfit.config import Config
from wellfit.data.symmetry import mirror_agreement, mirror_is_safe
from wellfit.engine import Engine, choose_engine, choose_threads, training_speed
from wellfit.errors import UserError
from wellfit.findings import Finding
from wellfit.models.zoo import Built, build, weights_at_hand
from wellfit.recipe.budget import in_words
from wellfit.recipe.earlier import card_beside
from wellfit.recipe.job import Job
from wellfit.recipe.plan import ChecksPlan, ModelPlan, OptimizerPlan, Plan, SearchPlan, TrainingPlan
from wellfit.recipe.prepare import Prepared

SMALL_IMAGES = 48  # pixels: up to here the native size is used
WORTH_TRANSFER = 64  # pixels: smaller images hold too little of what ImageNet weights know
FEW_IMAGES = 1_000_000  # SPEC T0: below it, look for a pretrained model
FINE_TUNE_FROM = 2000  # images: with fewer, a linear classifier on top is the advice (SPEC T4)
PRETRAINED = ("resnet18", "mobilenet_v3_small", "squeezenet1_1")  # tried in this order where none is named
SMALL_NETS = ((16, 32, 64), (32, 64, 128), (32, 96, 192), (64, 128, 256), (128, 256, 512))  # widths, quickest first
LOOP_EFFICIENCY = 0.85  # share of the bare step's speed that the loop with data and evaluation reaches
CLOSING_SECONDS = 6.0  # saving, the report, leaving
SEARCH_SHARE, CHECKS_SHARE, EVALUATION_SHARE = 0.15, 0.06, 0.08
NO_DEADLINE_SECONDS = 600.0  # what is planned for where no budget was given


@dataclass
class Candidate:
    """A model that could be trained from scratch, with its measured speed."""

    name: str
    options: dict[str, Any]
    image_size: int
    speed: float = 0.0
    epochs: float = 0.0


@dataclass(frozen=True)
class EngineProbe:
    """The fastest engine, the images a second that it trains at, why, and all that was measured."""

    engine: Engine
    speed: float
    reason: str
    table: list[dict[str, Any]]


def make_plan(job: Job, data: Prepared) -> Plan:
    """Measure, decide, and say why. Raises UserError when not even the smallest run fits the budget."""
    config, left = job.config, min(job.budget.left, NO_DEADLINE_SECONDS if job.budget.seconds is None else math.inf)
    reasons: list[str] = []
    images = len(data.split.train)
    if left < CLOSING_SECONDS + 4:
        raise UserError(
            f"the budget is used up: {in_words(left)} are left after reading {data.audit.images:,} images; "
            f"give at least --budget {math.ceil(job.budget.spent + 30)}s"
        )
    start = _start(job, data)
    transfer = "none"
    if start is not None:
        size = config.model.image_size or start.image_size or 224
        probed = _probe(job, start.module, size, len(data.classes), left)
        engine = probed.engine
        chosen = Candidate(start.name, dict(start.options), size, probed.speed)
        weights, transfer = start.weights or "none", "probe"
        if card_beside(weights) is not None:
            transfer = "probe" if start.name == "probe_net" else "continue"
            reasons.append(f"goes on from the network in {Path(weights).parent}")
        else:
            reasons.append(f"{images:,} training images are fewer than a million: weights of a larger set are used")
        reasons.append(probed.reason)
    else:
        candidates = _candidates(config, data)
        middle = candidates[len(candidates) // 2]
        probed = _probe(job, _module(middle, data, config), middle.image_size, len(data.classes), left)
        engine = probed.engine
        reasons.append(probed.reason)
        chosen = _choose(candidates, engine, data, left, reasons, config)
        weights = "none"
    built = build(chosen.name, len(data.classes), image_size=chosen.image_size, seed=config.seed, **chosen.options)
    if not config.engine.threads:
        shape, batch = (3, chosen.image_size, chosen.image_size), 16 if chosen.image_size > 64 else 128
        engine = choose_threads(
            built.module, engine, shape, len(data.classes), batch_size=batch, seconds=min(2.0, 0.01 * left)
        )
    job.record.write("engine", **engine.as_dict(), line=engine.line, candidates=probed.table)
    augment = _augment(config, data, reasons)
    batch_size = config.training.batch_size or _batch_size(images)
    usable = max(1.0, left - _closing(data, chosen.speed))
    rate = chosen.speed * LOOP_EFFICIENCY
    search, search_seconds = SearchPlan(), 0.0
    if transfer != "probe" and not _fixed(config):
        search, search_seconds = _search(usable * SEARCH_SHARE, rate, batch_size, images, data, reasons)
    steps_per_epoch = max(1, images // min(batch_size, images))
    if transfer == "probe":
        steps = _fine_tune_steps(images, usable, rate, batch_size, steps_per_epoch, reasons)
    else:
        seconds = usable * (1 - CHECKS_SHARE) - search_seconds
        epochs = config.training.epochs or min(3 * _wanted_epochs(images), max(1.0, seconds * rate / images))
        steps = max(1, round(epochs * steps_per_epoch))
    validation_cost = len(data.split.validation) / (3 * rate)
    epoch_cost = images / rate
    every = steps_per_epoch * max(1, math.ceil(validation_cost / (EVALUATION_SHARE * epoch_cost)))
    return Plan(
        seed=config.seed,
        metric=config.metric,
        loss=config.loss,
        schedule=config.schedule if config.schedule != "auto" else "one_cycle",
        augment=augment,
        reasons=tuple(reasons),
        model=ModelPlan(
            name=chosen.name,
            weights=weights,
            image_size=chosen.image_size,
            resize=_resize(chosen.image_size, data, start),
            transfer=transfer,
            parameters=sum(p.numel() for p in built.module.parameters()),
            options=built.options,
            probe_sizes=_probe_sizes(chosen, data, left) if transfer == "probe" else (),
        ),
        optimizer=_optimizer(config, built.module, batch_size, start is not None),
        engine=engine,
        checks=ChecksPlan(),
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
            balance="none" if config.training.balance == "auto" else config.training.balance,
        ),
    )


def _start(job: Job, data: Prepared) -> Built | None:
    """A network with weights where they are asked for, at hand, or can be fetched; None to train from scratch."""
    config, classes = job.config, len(data.classes)
    wanted, name, size = config.model.weights, config.model.name, config.model.image_size or 224
    if wanted not in ("auto", "none"):
        name = PRETRAINED[0] if name == "auto" else name
        return build(name, classes, image_size=size, weights=wanted, seed=config.seed, **config.model.options)
    large_enough = data.short_side >= WORTH_TRANSFER and len(data.split.train) < FEW_IMAGES
    if wanted == "none" or not large_enough or ":" in name.removeprefix("timm:").removeprefix("torchvision:"):
        return None
    tried = PRETRAINED if name == "auto" else (name,)
    at_hand = [n for n in tried if weights_at_hand(n) is not None]
    refusal = ""
    for candidate in at_hand or tried:
        try:
            return build(candidate, classes, image_size=size, weights="imagenet", seed=config.seed)
        except UserError as error:
            refusal = str(error)
            if at_hand:
                raise
            break  # where one file cannot be fetched, the next would only cost the same wait
    job.report(
        Finding(
            "no-pretrained-weights",
            "warning",
            f"no pretrained weights could be had for {' or '.join(tried)}, so the network starts from random numbers",
            {"tried": list(tried), "refusal": refusal},
            "Put a weight file in place or give one with --weights FILE: with "
            f"{len(data.split.train):,} training images it usually gains much.",
            "CS231n, transfer learning; SPEC T0",
        )
    )
    return None


def _module(candidate: Candidate, data: Prepared, config: Config) -> nn.Module:
    size, options = candidate.image_size, candidate.options
    return build(candidate.name, len(data.classes), image_size=size, seed=config.seed, **options).module


def _probe(job: Job, module: nn.Module, size: int, classes: int, left: float) -> EngineProbe:
    """Measure device, dtype and layout on this network."""
    batch, shape, seconds = 16 if size > 64 else 64, (3, size, size), min(8.0, 0.02 * left)
    engine, table = choose_engine(module, shape, classes, job.config.engine, batch_size=batch, seconds=seconds)
    if not table:
        speed = training_speed(module, engine, shape, batch, classes, seconds)
        return EngineProbe(engine, speed, f"engine {engine.line}, the only choice: {speed:,.0f} images/s", table)
    speeds = [row["images_per_second"] for row in table]
    reason = f"engine {engine.line}: {max(speeds):,.0f} images/s in the probe, the slowest choice {min(speeds):,.0f}"
    return EngineProbe(engine, max(speeds), reason, table)


def _candidates(config: Config, data: Prepared) -> list[Candidate]:
    """From the quickest to the most accurate, as far as the images are large enough."""
    native, fixed = data.short_side, config.model.image_size
    if config.model.name != "auto":
        size = fixed or (max(16, native) if native <= SMALL_IMAGES else min(224, max(64, native // 32 * 32)))
        return [Candidate(config.model.name, dict(config.model.options), size)]
    if fixed or native <= SMALL_IMAGES:
        size = fixed or max(16, native)
        return [Candidate("whitened", {"widths": list(widths)}, size) for widths in SMALL_NETS]
    sizes = [size for size in (96, 128, 160) if size <= native]
    return [
        Candidate("whitened", {"widths": list(SMALL_NETS[1])}, 48),
        *(Candidate("whitened", {"widths": list(widths)}, 64) for widths in SMALL_NETS[2:4]),
        *(Candidate("resnet18", {}, size) for size in sizes),
    ]


def _choose(
    candidates: list[Candidate], engine: Engine, data: Prepared, left: float, reasons: list[str], config: Config
) -> Candidate:
    """The most accurate candidate that the budget can train for enough epochs; the quickest where none is."""
    images = len(data.split.train)
    wanted = _wanted_epochs(images)
    best: Candidate | None = None
    for candidate in candidates:
        batch = 16 if candidate.image_size > 64 else 128
        shape = (3, candidate.image_size, candidate.image_size)
        seconds = min(1.5, 0.005 * left)
        candidate.speed = training_speed(
            _module(candidate, data, config), engine, shape, batch, len(data.classes), seconds
        )
        usable = max(1.0, left - _closing(data, candidate.speed)) * (1 - SEARCH_SHARE - CHECKS_SHARE)
        candidate.epochs = usable * candidate.speed * LOOP_EFFICIENCY / images
        if best is None or candidate.epochs >= wanted:
            best = candidate
        if candidate.epochs < wanted:
            break
    assert best is not None
    named = f"{best.name} {best.options.get('widths', '')}".strip()
    reasons.append(
        f"{named} at {best.image_size} px trains {best.speed:,.0f} images/s, about {best.epochs:.0f} epochs of "
        f"{images:,} images in the time; {wanted:.0f} are wanted"
    )
    return best


def _wanted_epochs(images: int) -> float:
    # Fewer images need more passes; 8 at 50,000 images is what one-cycle runs of this size of net need.
    return min(60.0, max(8.0, 8.0 * math.sqrt(50_000 / max(1, images))))


def _batch_size(images: int) -> int:
    # About 20 steps an epoch for small sets, a power of two, 128 at most.
    return 2 ** max(3, min(7, int(math.log2(max(8, images / 20)))))


def _closing(data: Prepared, speed: float) -> float:
    """Seconds kept for the end: test images are decoded and judged, the report written."""
    tests = len(data.split.test)
    decode = 2e-4 if data.short_side <= WORTH_TRANSFER else 1.5e-2
    return CLOSING_SECONDS + tests * (decode + 1.0 / max(1.0, 2.5 * speed))


def _augment(config: Config, data: Prepared, reasons: list[str]) -> tuple[str, ...]:
    if config.augment != ("auto",):
        return tuple(name for name in config.augment if name != "none")
    train = data.split.train
    plain, mirrored = mirror_agreement(data.store.thumbnails[data.rows(train)], data.targets(train), seed=config.seed)
    safe = mirror_is_safe(plain, mirrored, len(data.classes))
    reasons.append(
        f"mirror images {'keep' if safe else 'lose'} their class, so flip is {'on' if safe else 'off'}: nearest "
        f"neighbours agree for {plain:.0%} of plain and {mirrored:.0%} of mirrored thumbnails"
    )
    return ("flip", "crop") if safe else ("crop",)


def _smoothing(config: Config, data: Prepared, transfer: bool) -> float:
    if config.training.label_smoothing >= 0:
        return config.training.label_smoothing
    return 0.1 if len(data.classes) > 2 and not transfer and config.loss == "cross-entropy" else 0.0


def _optimizer(config: Config, module: nn.Module, batch_size: int, transfer: bool) -> OptimizerPlan:
    """AdamW is the default (SPEC O13); nets with BatchNorm bear several times the rate of those without."""
    normalised = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
    name = "adamw" if config.optimizer.name == "auto" else config.optimizer.name
    adaptive = name in ("adam", "adamw", "rmsprop", "adagrad", "muon")
    if adaptive:  # the noise of a smaller batch asks for a rate lower by its square root, as Adam's steps are scaled
        lr = (6e-3 if normalised else 1e-3) * math.sqrt(batch_size / 128)
    else:
        lr = (0.2 if normalised else 0.02) * batch_size / 128
    if transfer:
        lr /= 10
    decay = (0.05 if normalised else 0.01) if name in ("adamw", "muon") else 5e-4
    return OptimizerPlan(
        name=name,
        lr=config.optimizer.lr or lr,
        weight_decay=decay if config.optimizer.weight_decay < 0 else config.optimizer.weight_decay,
        momentum=config.optimizer.momentum,
    )


def _fixed(config: Config) -> bool:
    return config.optimizer.lr > 0 and config.optimizer.weight_decay >= 0


def _search(
    seconds: float, rate: float, batch_size: int, images: int, data: Prepared, reasons: list[str]
) -> tuple[SearchPlan, float]:
    """Trials of at least 20 steps and at most 3 epochs; fewer trials before shorter ones."""
    steps_per_epoch = max(1, images // batch_size)
    validation = min(1000, len(data.split.validation))
    overhead = validation / (3 * rate) + 0.1
    for coarse, fine in ((12, 6), (8, 4), (5, 3), (4, 0)):
        share = seconds / (coarse + fine) - overhead
        steps = int(share * rate / batch_size)
        if steps >= 40 or (steps >= 15 and coarse <= 5):
            steps = min(steps, 3 * steps_per_epoch)
            plan = SearchPlan(coarse, fine, steps, validation)
            return plan, (coarse + fine) * (steps * batch_size / rate + overhead)
    reasons.append(
        f"no search: {in_words(seconds)} allow no four trials of 15 steps; the default learning rate is used"
    )
    return SearchPlan(), 0.0


def _fine_tune_steps(
    images: int, usable: float, rate: float, batch_size: int, steps_per_epoch: int, reasons: list[str]
) -> int:
    """After the probe: what the time allows, up to 10 epochs; none for small sets, where the probe is the advice."""
    if images < FINE_TUNE_FROM:
        reasons.append(
            f"no fine-tuning: with {images:,} images, fewer than {FINE_TUNE_FROM:,}, a linear classifier is advised"
        )
        return 0
    seconds = usable * 0.9 - 2 * images / (2.5 * rate)
    epochs = min(10.0, seconds * rate / images)
    if epochs < 1:
        reasons.append("no fine-tuning: the time after the features allows less than one epoch")
        return 0
    return round(epochs * steps_per_epoch)


def _probe_sizes(chosen: Candidate, data: Prepared, left: float) -> tuple[int, ...]:
    """The weights' own size, and a larger one where the images hold it and the features cost under a fifth of the time.

    Networks trained on random crops see objects larger than they are at test time; a larger input makes up for it
    (Touvron et al. 2019, "Fixing the train-test resolution discrepancy").
    """
    larger = round(chosen.image_size * 288 / 224 / 32) * 32
    images = len(data.split.train) + len(data.split.validation)
    cost = 2 * images * (larger / chosen.image_size) ** 2 / (2.5 * max(1.0, chosen.speed))
    return (chosen.image_size, larger) if larger <= data.short_side and cost < left / 5 else (chosen.image_size,)


def _resize(size: int, data: Prepared, start: Built | None) -> int:
    """Short side before the centre crop: the weights' own ratio, 8:7 for photos, none for small images."""
    if data.short_side <= SMALL_IMAGES or size > data.short_side:
        return size
    crop = start.crop_pct if start is not None and start.crop_pct else 0.875
    return round(size / crop)
