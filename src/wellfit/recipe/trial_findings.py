"""Look at the curves: what the rules see on the trials of a search, summed up (SPEC S1 row 6)."""

from __future__ import annotations

from collections.abc import Sequence

from wellfit.findings import Finding, explanations
from wellfit.search.trial import Trial

NAMED = 5  # trials that a message names; the evidence has all of them


def on_curves(trials: Sequence[Trial], best: Trial | None) -> list[Finding]:
    """One finding for each id that the rules gave to any trial.

    A warning where the best run has it too: then it is no matter of poor settings. A run is judged by its last trial.
    """
    continued = {trial.continues for trial in trials if trial.state != "failed"}
    runs = [trial for trial in trials if trial.number not in continued]
    ids = dict.fromkeys(id_ for trial in runs for id_ in trial.findings)
    return [_summed(id_, runs, best) for id_ in ids if id_ in explanations()]


def _summed(id_: str, runs: Sequence[Trial], best: Trial | None) -> Finding:
    having = [trial.number for trial in runs if id_ in trial.findings]
    also_best = best is not None and best.number in having
    named = ", ".join(str(number) for number in having[:NAMED]) + (", …" if len(having) > NAMED else "")
    title, known = explanations()[id_]["title"], explanations()[id_]
    among = ", the best one among them" if also_best else ""
    return Finding(
        id_,
        "warning" if also_best else "info",
        f"on the curves of {len(having)} of {len(runs)} runs{among}: {title[0].lower()}{title[1:]} (trials {named})",
        {"trials": having, "of": len(runs), "best": also_best},
        known["action"].strip() if also_best else "Nothing to do: the settings of these runs were not chosen.",
        known["reference"],
    )
