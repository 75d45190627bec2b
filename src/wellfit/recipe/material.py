"""What several steps build from a plan: the network, its preprocessing, the batches, the loss, the optimizer.

Made anew each time from the plan and the seed, so that every step sees the same start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from wellfit.data.batches import EvaluationBatches, TrainingBatches
from wellfit.data.preprocess import Preprocessing, fit_preprocessing
from wellfit.dotted import is_dotted
from wellfit.inference.evaluate import ValidationScore
from wellfit.models.freezing import freeze
from wellfit.models.probe_net import ProbeNet, last_feature_map
from wellfit.models.zoo import Built, build
from wellfit.randomness import generator
from wellfit.recipe.earlier import card_beside, match_classes, preprocessing_beside
from wellfit.recipe.plan import ModelPlan, Plan, ScratchPlan
from wellfit.recipe.prepare import Prepared
from wellfit.training.optimizers import build_optimizer
from wellfit.training.regularize import Penalty, balanced_class_weights, build_criterion
from wellfit.transfer.rates import rate_groups
from wellfit.transfer.stage_features import Spot

IMBALANCED = 3.0  # largest class / smallest
# These tell the classifier from the rest by the module, or have one rate for all.
UNGRADED = ("muon", "lbfgs")
STEM_IMAGES = 2000  # enough patches for the whitening stem


@dataclass(frozen=True)
class Settings:
    """The numbers that the search chooses; the rest is the plan's."""

    lr: float
    weight_decay: float
    balance: str = "none"
    lowest: float = 1.0  # the earliest stage's rate as a share of lr; 1: all layers alike

    @classmethod
    def of(cls, plan: Plan, found: dict[str, Any] | None = None) -> Settings:
        found = found or {}
        return cls(
            lr=float(found.get("lr", plan.optimizer.lr)),
            weight_decay=float(found.get("weight_decay", plan.optimizer.weight_decay)),
            balance=str(found.get("balance", "none" if plan.training.balance == "auto" else plan.training.balance)),
        )


@dataclass(frozen=True)
class Material:
    """Data and plan, brought together."""

    data: Prepared
    plan: Plan
    preprocessing: Preprocessing

    @classmethod
    def of(cls, data: Prepared, plan: Plan) -> Material:
        """The training split's own mean and std; a pretrained network keeps the figures it was trained with."""
        model = plan.model
        preprocessing = fit_preprocessing(
            data.store,
            data.rows(data.split.train),
            size=model.image_size,
            resize=model.resize,
            method=plan.preprocessing,
        )
        earlier = preprocessing_beside(model.weights)
        if earlier is not None:
            preprocessing = earlier
        elif model.transfer != "none":
            built = build(model.name, 2, image_size=model.image_size, weights=model.weights, **model.options)
            if built.mean is not None and built.std is not None:
                preprocessing = Preprocessing(model.image_size, model.resize, tuple(built.mean), tuple(built.std))
        return cls(data, plan, preprocessing)

    def at_size(self, size: int) -> Material:
        """The same at another image size, the ratio of resize to size kept."""
        model, old = self.plan.model, self.preprocessing
        if size == model.image_size:
            return self
        resize = round(old.resize * size / old.size)
        plan = self.plan.replace(model=replace(model, image_size=size, resize=resize))
        return Material(self.data, plan, replace(old, size=size, resize=resize))

    def network(self) -> Built:
        """The network at its start: same plan, same bytes."""
        plan, classes = self.plan, len(self.data.classes)
        model = plan.model
        built = build(
            model.name,
            classes,
            image_size=model.image_size,
            weights=None if model.transfer == "none" else model.weights,
            seed=plan.seed,
            **model.options,
        )
        card = card_beside(model.weights)
        if card is not None:
            match_classes(built.module, card["classes"], self.data.classes, plan.seed, model.image_size)
        prepare_stem = getattr(built.module, "initialise_from_data", None)
        if callable(prepare_stem) and model.transfer == "none":
            train = self.data.split.train
            chosen = np.sort(generator(plan.seed, "stem").permutation(len(train))[:STEM_IMAGES])
            prepare_stem(self.inputs(train[chosen]))
        freeze(built.module, plan.training.freeze, model.image_size)
        return built

    def probe_network(self, spot: Spot | None = None) -> tuple[Built, ProbeNet]:
        """The pretrained network with an empty linear classifier on one of its maps; by default on the last one."""
        built, size = self.network(), self.plan.model.image_size
        options: dict[str, Any] = {"backbone": built.name, **built.options}
        backbone = built.module
        if isinstance(backbone, ProbeNet):  # gone on from an earlier probe
            if spot is None or spot == Spot(backbone.layer, backbone.pooling):
                return built, backbone
            options, backbone = dict(built.options), backbone.released()
        if spot is None or spot == Spot(last_feature_map(backbone, size), "mean+max"):
            options.pop("probe_layer", None), options.pop("probe_pooling", None)
            net = ProbeNet(backbone, len(self.data.classes), size)
        else:
            options |= {"probe_layer": spot.layer, "probe_pooling": spot.pooling}
            net = ProbeNet(backbone, len(self.data.classes), size, layer=spot.layer, pooling=spot.pooling)
        return replace(built, module=net, name="probe_net", options=options), net

    def from_scratch(self, small: ScratchPlan | None = None) -> Material:
        """The same data with a small net, by default the plan's, in the place of the pretrained network."""
        small, training = small or self.plan.scratch, self.plan.training
        model = ModelPlan(small.name, "none", small.image_size, small.resize, "none", 0, dict(small.options))
        plan = self.plan.replace(
            model=model,
            optimizer=replace(self.plan.optimizer, lr=small.lr, weight_decay=small.weight_decay),
            training=replace(training, steps=small.steps, freeze=0),
        )
        return Material.of(self.data, plan)

    def inputs(self, indices: np.ndarray) -> torch.Tensor:
        """float32 N×3×S×S on the CPU: the fixed views of a few images."""
        batches = self.evaluation(indices)
        return torch.cat([self.preprocessing.normalise(batch.images) for batch in batches])

    def evaluation(self, indices: np.ndarray) -> EvaluationBatches:
        data = self.data
        batch_size = 256 if self.plan.model.image_size <= 64 else 32
        return EvaluationBatches(data.store, data.rows(indices), data.targets(indices), self.preprocessing, batch_size)

    def some_of_validation(self, images: int) -> np.ndarray:
        """The validation split, or `images` of it drawn once from the seed."""
        indices = self.data.split.validation
        if not 0 < images < len(indices):
            return indices
        return indices[np.sort(generator(self.plan.seed, "validation-subset").permutation(len(indices))[:images])]

    def validation_score(self) -> ValidationScore:
        return self.score_on(self.data.split.validation)

    def score_on(self, indices: np.ndarray) -> ValidationScore:
        """Scores on images of the source, none of the test split."""
        return ValidationScore(
            self.evaluation(indices), self.data.classes, self.plan.engine, self.preprocessing, self.plan.metric
        )

    def training(
        self, seed: int, balance: str, batch_size: int | None = None, images: np.ndarray | None = None
    ) -> TrainingBatches:
        """Batches of the training split, or of the source's `images`."""
        data, train = self.data, self.data.split.train if images is None else images
        return TrainingBatches(
            data.store,
            data.rows(train),
            data.targets(train),
            self.preprocessing,
            batch_size=batch_size or self.plan.training.batch_size,
            augment=self.plan.augment,
            seed=seed,
            class_weights=self.class_weights() if balance == "sampler" else None,
            classes=len(data.classes),
        )

    @property
    def imbalanced(self) -> bool:
        """Whether the classes differ so much in size that weighting and resampling are worth trying."""
        counts = np.bincount(self.data.targets(self.data.split.train), minlength=len(self.data.classes))
        return bool(counts.max() >= IMBALANCED * max(1, counts.min()))

    def class_weights(self) -> np.ndarray:
        """C weights, inversely proportional to the class counts of the training split."""
        counts = np.bincount(self.data.targets(self.data.split.train), minlength=len(self.data.classes))
        return np.asarray(balanced_class_weights(counts.tolist()))

    def criterion(self, balance: str) -> nn.Module:
        training = self.plan.training
        options: dict[str, Any] = {"label_smoothing": training.label_smoothing} if training.label_smoothing else {}
        weights = self.class_weights() if balance == "weights" else None
        criterion = build_criterion(
            self.plan.loss, class_weights=None if weights is None else weights.tolist(), **options
        )
        return criterion.to(self.plan.engine.device)

    def penalty(self) -> Penalty | None:
        """λΣw² and λΣ|w| over the decaying weights, where the plan asks for either."""
        training = self.plan.training
        return Penalty(1.0, square=training.l2, absolute=training.l1) if training.l1 or training.l2 else None

    def optimizer(self, module: nn.Module, settings: Settings) -> torch.optim.Optimizer:
        """The plan's rule; a network with weights of its own has lower rates at its earlier layers (SPEC T3)."""
        rule = self.plan.optimizer
        graded = settings.lowest < 1.0 and rule.name not in UNGRADED and not is_dotted(rule.name)
        size = self.plan.model.image_size
        return build_optimizer(
            rule.name,
            rate_groups(module, settings.lr, lowest=settings.lowest, image_size=size) if graded else module,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=rule.momentum,
        )
