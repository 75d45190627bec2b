"""Which form of transfer the amount of data and the measured similarity ask for (SPEC T4).

The rule is the taught table of little or much data, similar or different. Similarity is not asked for but measured:
a data set is similar where the network's last stage, the most specific one, serves it as well as any earlier stage does
and better than the same network with random weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LITTLE = 2000  # training images below which a linear classifier is the advice
FEW_EPOCHS = 2.0  # of all layers: a time that holds fewer goes to the top stages, a step of which takes about half
PROBE, EARLIER, TOP, ALL, SCRATCH = "probe", "earlier", "top", "all", "scratch"
STRATEGIES = {
    PROBE: "a linear classifier on the last stage",
    EARLIER: "a linear classifier on an earlier stage",
    TOP: "fine-tune the top stages",
    ALL: "fine-tune all layers, with lower rates below",
    SCRATCH: "train a small net from scratch",
}
FASTER = 10.0  # times the usual rate of fine-tuning where the data are different: more of what was learnt has to change


@dataclass(frozen=True)
class Stage:
    """The best linear classifier on one stage, judged on images that it was not fitted on: score in [0, 1], loss."""

    layer: str
    pooling: str
    score: float
    loss: float


@dataclass(frozen=True)
class Evidence:
    """What was measured. images: that could be trained on; judged: that the scores rest on.

    stages: from the input on. control: of `control_images` images, the best score of the pretrained stages and of the
    same network with random weights; None where it was not measured. scratch: on `scratch_images` validation images,
    the score of a small net trained from scratch for a short time, and that of the best linear classifier; None where
    there was none. epochs: of fine-tuning all layers, that the time holds. unmeasured: why not.
    """

    images: int
    classes: int
    judged: int
    metric: str
    stages: Sequence[Stage]
    control: tuple[float, float] | None = None
    control_images: int = 0
    scratch: tuple[float, float] | None = None
    scratch_images: int = 0
    epochs: float = math.inf
    unmeasured: Sequence[str] = field(default_factory=tuple)

    @property
    def last(self) -> Stage:
        return self.stages[-1]

    @property
    def earlier(self) -> Stage | None:
        """The earlier stage to take: of those within a standard error of the best score, the lowest loss."""
        among = self.stages[:-1]
        if not among:
            return None
        top = max(stage.score for stage in among)
        close = [stage for stage in among if stage.score >= top - self.error(top)]
        return min(close, key=lambda stage: stage.loss)

    @property
    def last_is_best(self) -> bool:
        """Whether the earlier stage to take has neither a higher score than the last one nor a lower loss."""
        return self.earlier is None or (self.last.score >= self.earlier.score and self.last.loss <= self.earlier.loss)

    def error(self, score: float, judged: int = 0) -> float:
        """Standard error of a score in [0, 1] on the images that were judged."""
        judged = max(1, judged or self.judged)
        return math.sqrt(max(score * (1 - score), 1 / judged) / judged)


@dataclass(frozen=True)
class Decision:
    """strategies: to be tried in this order, a linear classifier first; a later one must be better on validation.

    cell: (little or lot, similar or different). helps: whether the weights serve better than random ones. table: the
    2×2 table with these numbers, as text. reasons: sentences.
    """

    strategies: tuple[str, ...]
    cell: tuple[str, str]
    helps: bool
    table: str
    reasons: tuple[str, ...]

    @property
    def evidence(self) -> dict[str, Any]:
        return {"strategies": list(self.strategies), "cell": list(self.cell), "helps": self.helps, "table": self.table}


def decide(evidence: Evidence) -> Decision:
    """From the measured numbers to the cell of the table and what it advises.

    Little and similar: a linear classifier on top. Little and different: linear classifiers on earlier stages. A lot
    and similar: fine-tune all layers. A lot and different: fine-tune all, and a small net from scratch beside. Where
    the time is too short for all layers, the top stages alone. Where data are different by other signs and the last
    stage serves best, the linear classifier stays there.
    """
    little = evidence.images < LITTLE
    similar, helps, reasons = _similar(evidence)
    amount = "little" if little else "lot"
    kind = "similar" if similar else "different"
    linear = PROBE if similar or evidence.last_is_best else EARLIER
    tuned = TOP if evidence.epochs < (FEW_EPOCHS if similar else 1) else ALL
    further: tuple[str, ...] = () if little else (tuned,) if similar else (tuned, SCRATCH)
    reasons.insert(
        0,
        f"{evidence.images:,} training images, {'fewer' if little else 'not fewer'} than {LITTLE:,}: "
        + ("little data" if little else "a lot of data"),
    )
    if TOP in further:
        reasons.append(
            f"the time holds {evidence.epochs:.1f} epochs of fine-tuning all layers: the top stages alone have more"
        )
    if not similar and linear == PROBE and evidence.earlier is not None:
        reasons.append(
            "no earlier stage scores better here, so the linear classifier sits on the last one all the same"
        )
    return Decision((linear, *further), (amount, kind), helps, _table(evidence, amount, kind), tuple(reasons))


def handed_over(strategies: Sequence[str], scores: Mapping[str, float]) -> str:
    """Of the strategies that were run, the one that validation keeps: a later one must be better than those before."""
    run = [strategy for strategy in strategies if strategy in scores]
    return max(run, key=lambda strategy: (scores[strategy], -run.index(strategy)))


def _similar(evidence: Evidence) -> tuple[bool, bool, list[str]]:
    last, earlier, reasons = evidence.last, evidence.earlier, []
    similar = True
    if earlier is not None:
        behind = earlier.score - last.score
        # The two are judged on the same images: their difference is surer than either, and so is the loss.
        similar = behind <= evidence.error(last.score) and not (behind > 0 and earlier.loss < last.loss)
        relation = "no better than" if similar else "better than"
        reasons.append(
            f"the best earlier stage, {earlier.layer}, scores {earlier.score:.1%}, {relation} the last stage, "
            f"{last.layer}, with {last.score:.1%}: {'similar' if similar else 'different'}"
        )
    helps = True
    if evidence.control is not None:
        weights, random = evidence.control
        helps = weights > random + evidence.error(random, evidence.control_images)
        reasons.append(
            f"on {evidence.control_images:,} of the images the pretrained stages reach {weights:.1%}, the same network "
            f"with random weights {random:.1%}: the weights {'help' if helps else 'do not clearly help'}"
        )
        if not helps:
            similar = False
            reasons.append("weights that help so little are those of a different data set")
    if evidence.scratch is not None:
        scratch, linear = evidence.scratch
        beaten = scratch > linear + evidence.error(linear, evidence.scratch_images)
        reasons.append(
            f"a small net, trained from scratch for a short time, reaches {scratch:.1%} of {evidence.scratch_images:,} "
            f"validation images, the linear classifier {linear:.1%}"
            + (": weights that serve so little are those of a different data set" if beaten else "")
        )
        similar = similar and not beaten
    return similar, helps, [*reasons, *evidence.unmeasured]


def _table(evidence: Evidence, amount: str, kind: str) -> str:
    """The taught 2×2 table, the chosen cell marked, with the measured numbers beneath."""
    cells = {
        ("little", "similar"): ("linear classifier", "on the last stage"),
        ("little", "different"): ("linear classifiers on", "earlier stages"),
        ("lot", "similar"): ("fine-tune", "a few layers, or all"),
        ("lot", "different"): ("fine-tune more or all,", "or train from scratch"),
    }
    width = 26

    def row(label: str, size: str, line: int) -> str:
        parts = []
        for column in ("similar", "different"):
            marked = (size, column) == (amount, kind)
            parts.append(
                (f"> {cells[size, column][line]} <" if marked else f"  {cells[size, column][line]}").ljust(width)
            )
        return f"{label:<22}| " + "| ".join(parts).rstrip()

    rule = "-" * 22 + "+" + "-" * (width + 1) + "+" + "-" * width
    lines = [
        f"{'':<22}| {'similar data':<{width}}| different data",
        rule,
        row("little data", "little", 0),
        row(f"(< {LITTLE:,} images)", "little", 1),
        rule,
        row("a lot of data", "lot", 0),
        row("", "lot", 1),
        rule,
        f"yours: {evidence.images:,} training images of {evidence.classes} classes; linear classifiers, "
        f"{evidence.metric.replace('_', ' ')} on {evidence.judged:,} images not fitted on:",
    ]
    lines += [f"  {stage.layer} ({stage.pooling})  {stage.score:.1%}" for stage in evidence.stages]
    if evidence.control is not None:
        lines.append(
            f"  random weights, best stage  {evidence.control[1]:.1%} (pretrained there {evidence.control[0]:.1%})"
        )
    if evidence.scratch is not None:
        lines.append(f"  small net from scratch  {evidence.scratch[0]:.1%}")
    return "\n".join(lines)
