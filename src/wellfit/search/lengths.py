"""What each stage may cost: how many settings it runs, how long, and what is left for the stages behind it."""

from __future__ import annotations

from wellfit.search.asked import Asked
from wellfit.search.halving import ETA, Ladder, Wish, ladder
from wellfit.search.space import Fixed, Space

COARSE_SHARE = 0.5  # of the cost goes into the coarse stage, what is kept for the final one apart
FINAL_SHARE = 1 / 3  # of the cost is kept for the best runs to go on to full length
FINALISTS, MOST_FINALISTS = 2, 4  # that reach it; one alone has nobody to beat
STILL_TO_GO = 0.75  # of full length, at the most, when a finalist is chosen
ENOUGH_TRIALS = 24  # of the whole search, below which none are kept for finalists
DIVISIBLE = 8  # trials, below which the coarse stage has them all
LAST = 20.0  # epochs of the longest trial (SPEC S1)
SETTINGS, A_KNOB = 6, 4  # the coarse stage wants so many settings, and so many more for each one that varies
RUNGS, FINE_RUNGS = 3, 2


def for_finalists(asked: Asked) -> tuple[float, float]:
    """Epochs and trials to keep for the final stage; none where it would not be a contest, or is not needed.

    Without a budget the fine stages are as long as they may be.
    """
    if asked.budget_epochs is None or (asked.trials is not None and asked.trials < ENOUGH_TRIALS):
        return 0.0, 0.0
    epochs = FINAL_SHARE * asked.budget_epochs
    if epochs < FINALISTS * STILL_TO_GO * min(LAST, asked.longest):
        return 0.0, 0.0
    return epochs, 0.0 if asked.trials is None else 2.0 * MOST_FINALISTS


def coarse_ladder(asked: Asked, epochs: float, trials: float) -> Ladder | None:
    """The coarse stage within what is left for all but the final one; None where there is no room for a trial."""
    # A search that counts its trials alone begins with the taught epoch, however short that is.
    first = 1.0 if asked.budget_epochs is None else max(1.0, asked.shortest)
    wish, share = _coarse(asked, first), COARSE_SHARE if trials >= DIVISIBLE else 1.0
    made = ladder(wish, epochs=epochs * share, trials=trials * share, shortest=asked.shortest)
    made = made or ladder(wish, epochs=epochs, trials=trials, shortest=asked.shortest)
    if made is not None and asked.time is not None and asked.budget_epochs is None:
        return Ladder((min(wish.settings, made.settings[0]),), (asked.shortest,))  # what an epoch costs is not known
    return made


def anew(asked: Asked, made: Ladder, run: int, epochs: float, trials: float, spent: float) -> Ladder:
    """The coarse stage for a corrected budget, of which `run` settings were run as long as `made` begins.

    epochs, trials: for all stages but the final one, from the beginning of the search; spent: epochs of them.
    """
    length, share = made.epochs[0], COARSE_SHARE if trials >= DIVISIBLE else 1.0
    found = ladder(_coarse(asked, length), epochs=share * epochs, trials=share * trials, shortest=length)
    if found is not None and found.epochs[0] == length and found.settings[0] > run:
        return found
    counts = tuple(max(1, int(run / ETA**i)) for i in range(len(made.settings)))
    return fewer_rungs(Ladder(counts, made.epochs), epochs - spent)


def fewer_rungs(made: Ladder, epochs: float) -> Ladder:
    """A stage whose first rung was run, without the rungs that take more than half of the epochs that are left.

    So that another stage can follow.
    """
    rungs = 1
    for count, here, before in zip(made.settings[1:], made.epochs[1:], made.epochs, strict=False):
        if count * (here - before) > COARSE_SHARE * epochs:
            break
        rungs, epochs = rungs + 1, epochs - count * (here - before)
    return Ladder(made.settings[:rungs], made.epochs[:rungs])


def fine_ladder(asked: Asked, space: Space, first: float, epochs: float, trials: float) -> Ladder | None:
    """A fine stage in that space: of half of what is left, where another can follow; None where two runs are too dear.

    first: epochs of its first rung at least.
    """
    varied = sum(not isinstance(kind, Fixed) for kind in space.values())
    if not varied:
        return None
    first = min(first, asked.longest)
    wish = Wish(
        settings=min((SETTINGS + A_KNOB * varied) // 2, 30),
        most=40,
        rungs=FINE_RUNGS,
        first=max(first, min(10.0, asked.longest / ETA)),
        last=min(LAST, asked.longest),
    )
    half = ladder(wish, epochs=epochs / 2, trials=trials / 2, shortest=max(first, min(1.0, asked.longest / ETA)))
    if half is not None and half.settings[0] >= wish.settings:
        return half
    made = ladder(wish, epochs=epochs, trials=trials, shortest=first)
    return made if made is not None and made.settings[0] >= 2 else None


def _coarse(asked: Asked, first: float) -> Wish:
    varied = sum(not isinstance(kind, Fixed) for kind in asked.space.values())
    enough = SETTINGS + A_KNOB * max(1, varied)
    return Wish(settings=min(enough, 60), most=100, rungs=RUNGS, first=first, last=max(first, min(5.0, asked.longest)))
