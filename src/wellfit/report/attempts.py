"""Tables of what was tried: the trials of the search, the classifiers on frozen features."""

from __future__ import annotations

import math

from wellfit.report.curves_transfer import ProbeCurve
from wellfit.report.history import History, Line, mapping, texts
from wellfit.report.markup import MOST_ROWS, Html, badge, cell, join, more, table
from wellfit.report.words import duration, figure, number, percent, plain


def trials(history: History) -> Html:
    """All trials with their settings, best first (SPEC S7)."""
    settings = list(dict.fromkeys(key for line in history.trials for key in mapping(line, "settings")))[:12]

    def best_first(line: Line) -> float:
        value = number(line.get("validation_accuracy"))
        return -value if math.isfinite(value) else 1.0

    body = [
        (
            plain(line.get("trial"), 12),
            plain(line.get("stage"), 24),
            badge(
                {"finished": "good", "failed": "error"}.get(str(line.get("state")), "quiet"),
                plain(line.get("state"), 20),
            ),
            percent(line.get("validation_accuracy")),
            figure(line.get("validation_loss")),
            *(cell(mapping(line, "settings").get(key)) for key in settings),
            figure(line.get("epochs")),
            plain(line.get("continues"), 12),
            duration(line.get("seconds")),
            plain("; ".join([*texts(line, "findings")[:3], *filter(None, [str(line.get("reason") or "")])]), 160),
        )
        for line in sorted(history.trials, key=best_first)[:MOST_ROWS]
    ]
    head = (
        "trial",
        "stage",
        "",
        "accuracy",
        "loss",
        *(plain(key, 30) for key in settings),
        "epochs",
        "from",
        "took",
        "",
    )
    right = (3, 4, *range(5, 8 + len(settings)))
    return join(table(head, body, numeric=right, label="Trials, best on validation first"), more(history.trials))


def classifiers(curve: ProbeCurve) -> Html:
    """Every classifier with its strength, score and loss, by image size and place."""
    chosen = curve.chosen
    taken = (chosen.image_size, chosen.features, chosen.strength) if chosen is not None else None
    body = [
        (
            line.name,
            figure(strength),
            percent(score),
            figure(loss),
            badge("good", "taken") if taken == (line.image_size, line.features, strength) else "",
        )
        for line in curve.lines
        for strength, score, loss in zip(line.strengths, line.scores, line.losses, strict=True)
    ]
    head = ("input", "strength", curve.metric, "loss", "")
    return join(table(head, body[:MOST_ROWS], numeric=(1, 2, 3), label="Classifiers on frozen features"), more(body))
