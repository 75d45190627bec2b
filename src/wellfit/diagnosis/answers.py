"""Finds, among what a network returns, the table N×C whose columns are the classes, and says where there is none.

A network may return several tables: features beside scores, auxiliary heads. The one whose cross-entropy is the loss,
or which is right far more often than the others, holds the answers; otherwise only the user can say.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from wellfit.diagnosis.history import Output, Tally
from wellfit.diagnosis.outputs import check_targets, is_ignored, shape_of, sum_up, tables, why_no_classes
from wellfit.diagnosis.rules.needs import NOT_HERE
from wellfit.diagnosis.tally import TallyWatch
from wellfit.errors import UserError

# A cross-entropy that is the loss agrees with it within this share, whatever the precision.
SAME = 2e-3
# Watched steps after which no more is learned about which table it is; standard errors that tell two of them apart.
TRIES, APART = 50, 3.0
# Tables that are looked at.
MOST = 6


class AnswerWatch:
    """The tables of the last training pass, and which of them is the answers.

    given: the number of classes as the user says it. known: whether columns are known to be classes.
    no_targets: why the targets tell nothing; "" where they do.
    """

    def __init__(self, given: int | None) -> None:
        self.tables: list[Tensor] = []
        self.known = given is not None
        self._given = given
        self._place: int | None = None
        self._how = ""
        self._tries = 0
        self._right: dict[int, int] = {}
        self._shown = 0
        self._unlike = self._no_classes = self._open = self._ignored = self.no_targets = ""
        self._outside: set[int] = set()
        self._tally = TallyWatch()

    def begin(self) -> None:
        self.tables = []

    def see(self, output: Any, *, watched: bool) -> None:
        """What a pass returned; one without tables leaves those of an earlier one."""
        found = [t.detach() for t in tables(output)][:MOST]
        if found:
            self.tables = found
        elif watched and not self._unlike:
            self._unlike = f"{NOT_HERE}the model returned {shape_of(output)}, a classifier's are (images, classes)"

    @property
    def answers(self) -> Tensor | None:
        """The table of the answers; None where there is none, or none is known to be it."""
        places = self._candidates()
        if self._place in places:
            return self.tables[self._place or 0]
        alike = len({self.tables[i].shape for i in places}) == 1
        return self.tables[places[0]] if alike else None

    def check(self, targets: Tensor) -> None:
        """UserError unless the targets fit the answers, or one of the tables that may be them."""
        places = self._candidates()
        chosen = self.answers
        fitting = [chosen] if chosen is not None else [self.tables[i] for i in places]
        for number, table in enumerate(fitting, 1):
            try:
                return check_targets(targets, table)
            except UserError:
                if number == len(fitting):
                    raise

    def settle(self, loss: float, targets: Tensor | None) -> None:
        """At a watched step: learn which table the loss is made of.

        UserError where it is one whose columns are not as many as the classes that the user named.
        """
        if targets is None or not math.isfinite(loss):
            return
        places = self._candidates()
        if self._place is None and len(places) > 1 and self._tries < TRIES:
            self._choose(places, loss, targets)
        answers = self.answers
        if self._given is None or answers is None or answers.shape[1] in (1, self._given) or self._no_classes:
            return
        seen = None if why_no_classes(answers, targets) else sum_up(answers, targets)
        if seen is not None and _is_loss(seen, loss):
            raise UserError(
                f"classes is {self._given}, but the loss is the cross-entropy of the model's {answers.shape[1]} "
                f"outputs; pass classes={answers.shape[1]}, or leave it out"
            )

    def sum_up(self, targets: Tensor | None) -> Output | None:
        """The figures of a watched step's answers; None where they are no choice of a class, or not known to be."""
        answers = self.answers
        if answers is None:
            widths = " and ".join(str(self.tables[i].shape[1]) for i in self._candidates())
            self._open = widths and (
                f"the model returns several tables, of {widths} columns, and the loss is the cross-entropy of none of "
                "them; Monitor(…, classes=) says which holds the answers"
            )
            return None
        self._no_classes = self._no_classes or why_no_classes(answers, targets) or self._other_width(answers)
        if self._no_classes:
            return None
        self._look_outside(targets, answers.shape[1])
        found = sum_up(answers, None if self.no_targets else targets)
        if found is None:
            return None
        self.known = self.known or targets is not None or found.probabilities
        if self.known:
            return found
        self._open = (
            f"whether the {answers.shape[1]} outputs of an image are scores of classes; step(loss, targets=y) or "
            "Monitor(…, classes=) tells"
        )
        return None

    def count(self, targets: Tensor | None) -> None:
        """At every step: which classes came and were answered, where the answers are known to choose one of them."""
        answers = self.answers
        if answers is None or targets is None or not self.known or self._no_classes or self.no_targets:
            return
        self._tally.add(answers, targets)

    def counted(self) -> Tally | None:
        """The counts since the last watched step."""
        return self._tally.collect()

    def why_unseen(self, *, seen: bool) -> str:
        """Why the outputs cannot be judged; "" where they can. seen: whether there ever was a figure of them."""
        if self._no_classes or seen:
            return self._no_classes
        return self._open or self._unlike

    @property
    def notes(self) -> tuple[str, ...]:
        """How the outputs and the targets were read, where that had to be found out."""
        return tuple(note for note in (self._how, self._ignored) if note)

    def _candidates(self) -> list[int]:
        """Places of the tables that may be the answers: as wide as the user said, or of two columns and more."""
        wide = [i for i, t in enumerate(self.tables) if t.shape[1] > 1] or list(range(len(self.tables)))[:1]
        return [i for i in wide if self.tables[i].shape[1] == self._given] or wide

    def _choose(self, places: list[int], loss: float, targets: Tensor) -> None:
        fitting = [i for i in places if targets.shape in (self.tables[i].shape[:1], self.tables[i].shape)]
        seen = {i: sum_up(self.tables[i], targets) for i in fitting if not why_no_classes(self.tables[i], targets)}
        known = {i: out for i, out in seen.items() if out is not None and out.targets is not None}
        self._tries += 1
        same = [i for i, out in known.items() if _is_loss(out, loss)]
        if len(same) == 1:
            self._take(same[0], "its cross-entropy is the loss")
            return
        self._shown += max((int(out.targets.sum()) for out in known.values() if out.targets is not None), default=0)
        for i, out in known.items():
            self._right[i] = self._right.get(i, 0) + (out.correct or 0)
        shares = sorted(((right / max(1, self._shown), i) for i, right in self._right.items()), reverse=True)
        if len(shares) < 2:
            return
        (best, place), (second, _) = shares[:2]
        error = APART * math.sqrt(max(best * (1 - best), 1 / self._shown) / self._shown)
        if best > max(second, 1 / self.tables[place].shape[1]) + error + 0.02:
            self._take(place, f"it is right on {best:.0%} of the images")

    def _take(self, place: int, why: str) -> None:
        self._place = place
        widths = " and ".join(str(t.shape[1]) for t in self.tables)
        self._how = (
            f"of the tables that the model returns, of {widths} columns, number {place + 1} is read as its answers: "
            f"{why}"
        )

    def _other_width(self, answers: Tensor) -> str:
        if self._given is None or answers.shape[1] == self._given:
            return ""
        return f"the model returns {answers.shape[1]} columns where {self._given} classes were named"

    def _look_outside(self, targets: Tensor | None, width: int) -> None:
        """Labels that are no class: one number is what the loss ignores, several are a numbering that does not fit."""
        if targets is None or targets.ndim != 1 or self.no_targets:
            return
        strange = targets[is_ignored(targets, width, named=False)]
        if not len(strange):
            return
        ends = int(strange.min()), int(strange.max())
        self._outside.update(ends)
        if len(self._outside) > 1:
            self._ignored = ""
            self.no_targets = (
                f"class numbers from 0 to {width - 1}, as the model has {width} outputs, got values such as "
                f"{min(self._outside)} and {max(self._outside)}; number the classes from 0"
            )
        else:
            self._ignored = (
                f"labels of {ends[0]}, which is none of 0 to {width - 1}, are left out, as a loss with "
                f"ignore_index={ends[0]} leaves them out"
            )


def _is_loss(out: Output, loss: float) -> bool:
    """Whether the loss is the cross-entropy of these answers, read in any way."""
    readings = (out.as_logits, out.as_probabilities, out.as_twice)
    return any(read is not None and abs(read - loss) < SAME * max(abs(loss), 1e-3) for read in readings)
