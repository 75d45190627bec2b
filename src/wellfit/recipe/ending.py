"""How the plan spends what one training does not need: further networks, snapshots, views (SPEC E1, E2, D8)."""

from __future__ import annotations

from dataclasses import dataclass

from wellfit.config import Config
from wellfit.inference.views import VIEWS, preset
from wellfit.recipe.plan import EndingPlan
from wellfit.training.schedules import schedule, snapshot_points

# Epochs of one network, as a multiple of those that data of this size want, from which on another network from a seed
# of its own brings more than training the first one longer.
ENOUGH = 2.0
MOST_NETWORKS = 5
MOST_TRIALS = 3  # of a search, whose weights are kept to be members
LATE = (0.7, 0.8, 0.9, 1.0)  # progress at which snapshots are taken under a schedule without restarts
PASSING = 2.5  # how much quicker an image is judged than trained on
JUDGED = 0.06  # of the time that is left: what trying views, or keeping and judging snapshots, may cost


@dataclass(frozen=True)
class Means:
    """What the plan can count on. seconds: for the training; rate: training images a second; tests, validation: images;
    affordable, wanted: epochs that the time holds, and that data of this size want.
    """

    seconds: float
    rate: float
    validation: int
    tests: int
    affordable: float
    wanted: float

    def judging(self, passes: float) -> float:
        """Share of the time that so many passes over validation and test images take."""
        return passes * (self.validation + self.tests) / (PASSING * self.rate) / max(1e-9, self.seconds)


def networks(config: Config, means: Means, reasons: list[str]) -> int:
    """How many networks are trained, each from a seed of its own."""
    if config.ensemble != "auto":
        return asked_networks(config)
    several = min(MOST_NETWORKS, int(means.affordable / (ENOUGH * means.wanted)))
    while several > 1 and means.judging(several) > JUDGED:
        several -= 1
    if several < 2 or config.training.epochs:
        return 1
    reasons.append(
        f"{several} networks from seeds of their own, each for {means.affordable / several:.0f} epochs: the time holds "
        f"{means.affordable:.0f}, and {means.wanted:.0f} are wanted"
    )
    return several


def asked_networks(config: Config) -> int:
    """How many members `--ensemble` asks for; 1 where it leaves that to the plan."""
    return 1 if config.ensemble in ("auto", "none") else int(config.ensemble)


def plan_ending(
    config: Config,
    means: Means,
    *,
    members: int,
    trains: bool,
    rate: str,
    augment: tuple[str, ...],
    searched: bool = False,
) -> EndingPlan:
    """Snapshots, trials and views that the time allows trying. trains: whether a network is trained in mini-batches.

    rate: the schedule. searched: whether a search comes before, none of whose trials is cross-validated.
    Mirror images are tried unasked only where the training sees them too.
    """
    asked = tuple(name for name in ("ensemble", "views") if getattr(config, name) not in ("auto", "none"))
    points: tuple[float, ...] = ()
    if trains and config.ensemble != "none":
        points = snapshot_points(schedule(rate))
        points = points if len(points) > 1 else LATE
        if means.judging(len(points) + 2) > JUDGED:
            points = ()
    trials = MOST_TRIALS if searched and (points or members > 1) else 0
    while trials and means.judging(len(points) + 2 + trials) > JUDGED:
        trials -= 1
    if config.views != "auto":
        views: tuple[str, ...] = (config.views,)
    else:
        views, passes = (), 0
        for name in list(VIEWS)[1:]:
            passes += preset(name).passes
            if (preset(name).mirrored and "flip" not in augment) or means.judging(passes) > JUDGED:
                continue
            views = (*views, name)
    return EndingPlan(members, points, views, asked, trials)


def judging_passes(ending: EndingPlan, tests: float) -> float:
    """Passes over validation that the plan's ending takes; tests: test images a validation image."""
    candidates = (len(ending.snapshots) + 2) * ending.members if ending.snapshots or ending.members > 1 else 0
    candidates += ending.trials
    views = [preset(name).passes for name in ending.views]
    candidates += 1 if any(name != "none" for name in ending.views) else 0  # without views, to compare with
    return candidates + sum(views) + (1 + tests) * (ending.members - 1 + max(views, default=1) - 1)
