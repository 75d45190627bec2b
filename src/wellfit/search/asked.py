"""What was asked of a search, as plain data: the space, its limits, the sampler, the first settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from wellfit.search.space import Space
from wellfit.search.space_file import space_from_dict, space_to_dict


@dataclass(frozen=True)
class TimeLimit:
    """What the budget of a search was worked out from, so that it can be corrected by what the trials were measured at.

    seconds: that all trials may take together, on the scale of `Trial.ended`.
    epoch_images: what an epoch of a trial costs, in training images: folds and the judging of the trial included.
    images_per_second: what was expected of all workers together, within a training; None where it was not measured.
    wanted: epochs of the training that the search is for, were there time enough.
    share: of the search's budget that this training may be as long as; None where its length was given.
    """

    seconds: float
    epoch_images: float
    images_per_second: float | None
    wanted: float
    share: float | None

    def epochs(self, images_per_second: float, seconds: float) -> float:
        """Epochs that can be trained in so many seconds."""
        return seconds * images_per_second / self.epoch_images

    def longest(self, budget_epochs: float) -> float:
        """Epochs of the longest trial within a budget."""
        return self.wanted if self.share is None else min(self.wanted, max(1.0, budget_epochs * self.share))


@dataclass(frozen=True)
class Asked:
    """What was asked: fields as in `Schedule.plan`. time: where `budget_epochs` comes from, if it is corrected."""

    space: Space
    seed: int
    longest: float
    shortest: float
    budget_epochs: float | None = None
    trials: int | None = None
    sampler: str = "random"
    first: tuple[dict[str, Any], ...] = field(default=())
    time: TimeLimit | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, as the first worker writes it into the study."""
        return {
            "space": space_to_dict(self.space),
            "seed": self.seed,
            "longest": self.longest,
            "shortest": self.shortest,
            "budget_epochs": self.budget_epochs,
            "trials": self.trials,
            "sampler": self.sampler,
            "first": [dict(given) for given in self.first],
            "time": None if self.time is None else asdict(self.time),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave."""
        time = values.get("time")
        return cls(
            space_from_dict(values["space"]),
            int(values["seed"]),
            float(values["longest"]),
            float(values["shortest"]),
            values["budget_epochs"],
            values["trials"],
            values["sampler"],
            tuple(dict(given) for given in values["first"]),
            None if time is None else TimeLimit(**time),
        )
