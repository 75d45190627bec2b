"""Which network: pretrained where weights can be had, else the most accurate that the budget can train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from wellfit.config import Config, EngineConfig
from wellfit.engine import Engine, affordable_batch, choose_engine, choose_threads, training_speed
from wellfit.errors import UserError
from wellfit.findings import Finding
from wellfit.models.zoo import OWN, Built, build, weights_at_hand
from wellfit.recipe.candidates import LEAST_SECONDS, rank
from wellfit.recipe.earlier import card_beside, perhaps_seen
from wellfit.recipe.job import Job
from wellfit.recipe.model_options import fits_published_weights, model_options
from wellfit.recipe.prepare import Prepared
from wellfit.recipe.processes import processes

SMALL_IMAGES = 48  # pixels: up to here the native size is used
WORTH_TRANSFER = 64  # pixels: smaller images hold too little of what ImageNet weights know
FEW_IMAGES = 1_000_000  # SPEC T0: below it, look for a pretrained model
PRETRAINED = ("resnet18", "mobilenet_v3_small", "squeezenet1_1")  # tried in this order where none is named
SMALL_NETS = ((16, 32, 64), (32, 64, 128), (32, 96, 192), (64, 128, 256), (128, 256, 512))  # widths, quickest first
LOOP_EFFICIENCY = 0.85  # share of the bare step's speed that the loop with data and evaluation reaches
CLOSING_SECONDS = 6.0  # saving, the report, leaving
SEARCH_SHARE, CHECKS_SHARE = 0.18, 0.06  # of the time that is left after reading the data

MEASURED_PIXELS = 64 * 64**2  # of a batch of small images that a candidate is measured on: its activations fill memory


@dataclass(frozen=True)
class Choice:
    """What will be trained, from what, how fast, and why.

    start: the network with its weights; None from scratch. transfer: as in ModelPlan. speed: images a second in the
    training probe. table: every engine that was measured.
    """

    name: str
    options: dict[str, Any]
    image_size: int
    weights: str
    transfer: str
    engine: Engine
    speed: float
    start: Built | None
    table: list[dict[str, Any]]
    reasons: list[str]


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


def choose_model(job: Job, data: Prepared, left: float) -> Choice:
    """Weights where they are asked for or can be had, else candidates measured from the quickest on."""
    config, classes = job.config, len(data.classes)
    start = _start(job, data, left)
    if start is not None:
        size, weights, transfer = config.model.image_size or start.image_size or 224, start.weights or "none", "probe"
        if card_beside(weights) is not None:
            transfer = "probe" if start.name == "probe_net" else "continue"
            why = f"goes on from the network in {Path(weights).parent}"
            seen = perhaps_seen(weights, job.data, data, config.seed)
            if seen is not None:
                job.report(seen)
        else:
            why = f"{len(data.split.train):,} training images, fewer than a million: weights of a larger set are used"
        probed = probe_engine(config.engine, start.module, size, classes, left)
        chosen = Candidate(start.name, dict(start.options), size, probed.speed)
        reasons = [why, *start.notes, probed.reason]
    else:
        weights, transfer = "none", "none"
        candidates = _candidates(config, data)
        middle = candidates[len(candidates) // 2]
        probed = probe_engine(config.engine, _module(middle, data, config), middle.image_size, classes, left)
        reasons = [probed.reason]
        if config.model.weights == "auto" and _weights_would_help(data) and not fits_published_weights(config):
            reasons.append("published weights were trained with other layers than those asked for: they are not used")
        chosen = _choose(candidates, probed.engine, data, left, reasons, config)
    engine, size, speed = probed.engine, chosen.image_size, chosen.speed
    job.record.write("engine", **engine.as_dict(), line=engine.line, images_per_second=speed, candidates=probed.table)
    return Choice(chosen.name, chosen.options, size, weights, transfer, engine, speed, start, probed.table, reasons)


def _start(job: Job, data: Prepared, left: float) -> Built | None:
    """A network with weights where they are asked for, at hand, or can be fetched; None to train from scratch."""
    config, classes = job.config, len(data.classes)
    wanted, name, size = config.model.weights, config.model.name, config.model.image_size or 224
    if wanted not in ("auto", "none"):
        name = PRETRAINED[0] if name == "auto" else name
        return build(name, classes, image_size=size, weights=wanted, seed=config.seed, **model_options(config))
    if wanted == "none" or not _weights_would_help(data) or not fits_published_weights(config):
        return None
    if ":" in name.removeprefix("timm:").removeprefix("torchvision:"):
        return None
    # A named activation is one that our nets alone can be given.
    ours = tuple(n for n in PRETRAINED if config.activation == "auto" or n in OWN)
    tried = ours if name == "auto" else (name,)
    at_hand = [n for n in tried if weights_at_hand(n) is not None]
    options = model_options(config)
    if at_hand:
        built = [
            build(n, classes, image_size=size, weights="imagenet", seed=config.seed, **options)
            for n in (at_hand if left >= LEAST_SECONDS else at_hand[:1])
        ]
        return built[0] if len(built) == 1 else _best_of(built, data, config)
    refusal = ""
    try:  # where one file cannot be fetched, the next would only cost the same wait
        return build(tried[0], classes, image_size=size, weights="imagenet", seed=config.seed, **options)
    except UserError as error:
        refusal = str(error)
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


def _best_of(built: list[Built], data: Prepared, config: Config) -> Built:
    """The one whose features serve some of the images best; its notes say how they ranked."""
    ranked = rank(built, data, config)
    scores = ", ".join(f"{one.built.name} {one.score:.1%}" for one in ranked)
    best = ranked[0].built
    best.notes.append(f"of the weights on this machine, linear classifiers on some training images rank: {scores}")
    return best


def _weights_would_help(data: Prepared) -> bool:
    return data.short_side >= WORTH_TRANSFER and len(data.split.train) < FEW_IMAGES


def _module(candidate: Candidate, data: Prepared, config: Config) -> nn.Module:
    size, options = candidate.image_size, candidate.options
    return build(candidate.name, len(data.classes), image_size=size, seed=config.seed, **options).module


def probe_engine(asked: EngineConfig, module: nn.Module, size: int, classes: int, left: float) -> EngineProbe:
    """Measure dtype and layout on this network, then whether all threads are worth having.

    asked: what the user fixed. size: of the network's input in pixels. left: seconds of the budget.
    """
    sizes, shape = range(4, 17) if size > 64 else range(16, 65), (3, size, size)
    batch, seconds = affordable_batch(module, asked, shape, classes, left, sizes), min(4.0, 0.01 * left)
    engine, table = choose_engine(module, shape, classes, asked, batch_size=batch, seconds=seconds)
    if asked.threads:
        speed = training_speed(module, engine, shape, batch, classes, seconds / 4)
    else:
        engine, speed = choose_threads(module, engine, shape, classes, batch_size=batch, seconds=seconds / 2)
    reason = f"engine {engine.line}: {speed:,.0f} images/s in the probe"
    if table:
        speeds = [row["images_per_second"] for row in table]
        reason += f" (with {table[0]['threads']} thread: {max(speeds):,.0f}, the slowest choice {min(speeds):,.0f})"
    return EngineProbe(engine, speed, reason, table)


def _candidates(config: Config, data: Prepared) -> list[Candidate]:
    """From the quickest to the most accurate, as far as the images are large enough."""
    native, fixed = data.short_side, config.model.image_size
    if config.model.name != "auto":
        size = fixed or (max(16, native) if native <= SMALL_IMAGES else min(224, max(64, native // 32 * 32)))
        return [Candidate(config.model.name, model_options(config), size)]
    layers = model_options(config)
    if fixed or native <= SMALL_IMAGES:
        size = fixed or max(16, native)
        return [Candidate("whitened", {"widths": list(widths), **layers}, size) for widths in SMALL_NETS]
    sizes = [size for size in (96, 128, 160) if size <= native]
    return [
        Candidate("whitened", {"widths": list(SMALL_NETS[1]), **layers}, 48),
        *(Candidate("whitened", {"widths": list(widths), **layers}, 64) for widths in SMALL_NETS[2:4]),
        *(Candidate("resnet18", dict(layers), size) for size in sizes),
    ]


def _choose(
    candidates: list[Candidate], engine: Engine, data: Prepared, left: float, reasons: list[str], config: Config
) -> Candidate:
    """The most accurate candidate that the budget can train for enough epochs; the quickest where none is."""
    images = len(data.split.train)
    wanted = wanted_epochs(images)
    best: Candidate | None = None
    for candidate in candidates:
        most = 16 if candidate.image_size > 64 else min(128, MEASURED_PIXELS // candidate.image_size**2)
        batch = min(most, config.training.batch_size or usual_batch_size(images))
        shape = (3, candidate.image_size, candidate.image_size)
        seconds = min(0.8, 0.0025 * left)
        candidate.speed = training_speed(
            _module(candidate, data, config), engine, shape, batch, len(data.classes), seconds
        )
        usable = max(1.0, left - closing_time(data, candidate.speed)) * (1 - SEARCH_SHARE - CHECKS_SHARE)
        candidate.epochs = usable * candidate.speed * LOOP_EFFICIENCY * processes() / images
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


def small_net(config: Config, data: Prepared, engine: Engine, left: float) -> Candidate:
    """The net that is trained from scratch beside a pretrained one, with its measured speed: a quick one."""
    plain = config.replace(**{"model.name": "auto", "model.image_size": 0, "model.options": {}})
    candidates = _candidates(plain, data)
    small = candidates[1] if data.short_side <= SMALL_IMAGES else candidates[0]
    batch = min(128, config.training.batch_size or usual_batch_size(len(data.split.train)))
    shape, seconds = (3, small.image_size, small.image_size), min(0.5, 0.0025 * left)
    small.speed = training_speed(_module(small, data, plain), engine, shape, batch, len(data.classes), seconds)
    return small


def wanted_epochs(images: int) -> float:
    # Fewer images need more passes. Measured on CIFAR-10: 3 epochs of widths 32/96/192 reach what 19 of 16/32/64 do.
    return min(60.0, max(5.0, 5.0 * math.sqrt(50_000 / max(1, images))))


def usual_batch_size(images: int) -> int:
    """About 20 steps an epoch for small sets, a power of two from 8 to 128."""
    return 2 ** max(3, min(7, int(math.log2(max(8, images / 20)))))


def closing_time(data: Prepared, speed: float = math.inf) -> float:
    """Seconds kept for the end: test images are judged (at 2.5 times the training speed), all is saved.

    Those that the data give are decoded then; those that were carved out lie in the store already.
    """
    decode = 1.5e-2 if data.short_side > WORTH_TRANSFER and data.test_is_sealed else 2e-4
    return CLOSING_SECONDS + len(data.split.test) * (decode + 1.0 / max(1.0, 2.5 * speed))
