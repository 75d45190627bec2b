"""From the record to the data of the transfer figures: linear classifiers on frozen features (SPEC T2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellfit.report.curves import Floats, column
from wellfit.report.history import History, Line
from wellfit.report.words import number, plain

METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1"}


@dataclass(frozen=True)
class ProbeLine:
    """The classifiers of one image size (pixels) and one place: score in [0, 1] and loss by strength, strengths rising.

    features: the layer and the pooling, "" where the record does not say. All figures are of images that the classifier
    judging them was not fitted on. NaN where one is absent.
    """

    image_size: int
    strengths: Floats
    scores: Floats
    losses: Floats
    features: str = ""

    @property
    def name(self) -> str:
        return f"{self.image_size} px" + (f", {self.features}" if self.features else "")


@dataclass(frozen=True)
class Choice:
    """The classifier that was taken."""

    image_size: int
    strength: float
    score: float
    loss: float
    features: str = ""


@dataclass(frozen=True)
class ProbeCurve:
    """One line an image size and place, sizes in rising order; `metric` says in words what the scores are."""

    lines: list[ProbeLine]
    metric: str
    chosen: Choice | None

    @property
    def shown(self) -> list[ProbeLine]:
        """The lines of a figure: of each size and layer the pooling with the best score, and the one taken."""
        best: dict[tuple[int, str], ProbeLine] = {}
        for line in self.lines:
            place = (line.image_size, line.features.partition(" ")[0])
            if (
                self._is_taken(line)
                or place not in best
                or (not self._is_taken(best[place]) and _top(line) > _top(best[place]))
            ):
                best[place] = line
        return list(best.values())

    def _is_taken(self, line: ProbeLine) -> bool:
        chosen = self.chosen
        return chosen is not None and (chosen.image_size, chosen.features) == (line.image_size, line.features)

    @property
    def has_losses(self) -> bool:
        return any(np.isfinite(line.losses).any() for line in self.lines)


def probe_curve(history: History) -> ProbeCurve | None:
    """Score and loss of every classifier on frozen features, and which one was taken; None where there is none."""
    metric = str(history.config.get("metric"))
    metric = metric if metric in METRICS else "accuracy"
    sizes, strengths = column(history.probes, "image_size"), column(history.probes, "strength")
    scores, losses = column(history.probes, metric), column(history.probes, "loss")
    usable = np.isfinite(sizes) & np.isfinite(strengths) & (strengths > 0) & np.isfinite(scores)
    lines = []
    places = np.array([_features(row) for row in history.probes])
    for size in np.unique(sizes[usable]):
        for place in dict.fromkeys(places[usable & (sizes == size)].tolist()):
            rows = np.flatnonzero(usable & (sizes == size) & (places == place))
            rows = rows[np.argsort(strengths[rows], kind="stable")]
            lines.append(ProbeLine(int(size), strengths[rows], scores[rows], losses[rows], place))
    return ProbeCurve(lines, METRICS[metric], _chosen(history, metric)) if lines else None


def _chosen(history: History, metric: str) -> Choice | None:
    taken = next((row for row in history.probes if row.get("chosen") is True), None)
    if taken is None:
        return None
    size, strength = number(taken.get("image_size")), number(taken.get("strength"))
    if not (np.isfinite(size) and np.isfinite(strength)):
        return None
    return Choice(int(size), strength, number(taken.get(metric)), number(taken.get("loss")), _features(taken))


def _features(row: Line) -> str:
    layer, pooling = row.get("layer"), row.get("pooling")
    return f"{plain(layer, 60)} {plain(pooling, 20)}" if layer and pooling else ""


def _top(line: ProbeLine) -> float:
    return float(np.nanmax(line.scores))
