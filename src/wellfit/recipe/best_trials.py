"""The best trials of a search, their weights set aside: networks that an ensemble may take for nothing (SPEC E1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from wellfit.recipe.job import Job
from wellfit.recipe.kept import Kept, place_of, set_aside
from wellfit.search.trial import Task

OTHER_KIND = 1.5  # times a learning rate, from which on two settings count as of another kind
PREFIX = "trial-"


def of_another_kind(lr: float, others: Sequence[float]) -> bool:
    """Whether a rate differs by more than half from each of the others."""
    return all(max(lr, other) > OTHER_KIND * min(lr, other) for other in others)


@dataclass(frozen=True)
class BestTrials:
    """Told of each trial that ended, it keeps the weights of the `most` best among the longest, each of another kind.

    They lie in the run folder, so that a search that is taken up again goes on with them.
    """

    job: Job
    most: int

    def __call__(self, task: Task, module: nn.Module, score: float, lr: float) -> None:
        """score: on validation images that the trial was not trained on. UserError on a full disk."""
        if self.most < 1:
            return
        path = place_of(self.job, f"{PREFIX}{task.number}")
        set_aside(path, module, score=score, epochs=float(task.epochs), lr=lr, number=task.number)
        chosen = {kept.path for kept in self.kept()}
        for other in path.parent.glob(f"{PREFIX}*.safetensors"):
            if other not in chosen:
                other.unlink(missing_ok=True)

    def kept(self) -> list[Kept]:
        """Those that are kept, the best first."""
        found = []
        for path in sorted(place_of(self.job, PREFIX).parent.glob(f"{PREFIX}*.safetensors")):
            about = Kept("", "trial", path).about
            name = f"trial {about['number']} (lr {about['lr']:.2g}, {about['epochs']:.1f} epochs)"
            found.append((about, Kept(name, "trial", path)))
        longest = max((about["epochs"] for about, _ in found), default=0.0)
        found.sort(key=lambda each: (-each[0]["score"], each[0]["number"]))
        chosen: list[Kept] = []
        rates: list[float] = []
        for about, kept in found:
            if len(chosen) < self.most and about["epochs"] == longest and of_another_kind(about["lr"], rates):
                chosen.append(kept)
                rates.append(about["lr"])
        return chosen
