"""A search as plain text: what `wellfit show` prints of it, and the closing lines of `wellfit search`."""

from __future__ import annotations

import math
import textwrap

from wellfit.record import RunFolder
from wellfit.report.curves_search import Search, Trial, search
from wellfit.report.history import History, mapping, read_history
from wellfit.report.words import counted, duration, figure, number, percent, plain

WIDTH = 100
MOST_TRIALS = 40  # rows of the table
COLUMN = 14  # characters of a setting


def lines_of(history: History) -> list[str]:
    """Stages with their reasons, the table of trials, importance and the best; [] where no trial ended."""
    found = search(history)
    if found is None:
        return []
    return [*_stages(history, found), "", *_table(history, found), *_importance(found), "", *_best(history, found)]


def closing(folder: RunFolder) -> str:
    """What was found, and what to do with it."""
    history = read_history(folder)
    found = search(history)
    if found is None:
        return "no trial ended"
    return "\n".join([*_best(history, found), *_places(folder)])


def importance_after(history: History, stage: str) -> str:
    """How much each setting mattered by the trials up to a stage, in words; "" where that is not known."""
    shares = mapping(history.importances.get(stage, {}), "shares")
    known = [(plain(name, 30), number(share)) for name, share in shares.items()]
    said = ", ".join(f"{name} {percent(share, 0)}" for name, share in known if math.isfinite(share))
    return f"importance by the trials up to here: {said}" if said else ""


def _stages(history: History, found: Search) -> list[str]:
    lines = ["stages"]
    for stage, reasons in found.reasons.items():
        own = [trial for trial in found.trials if trial.stage == stage]
        lines.append(f"  {plain(stage, 24)}: {counted(len(own), 'trial')}")
        for reason in filter(None, (*reasons, importance_after(history, stage))):
            lines += textwrap.wrap(plain(reason, 1000), WIDTH, initial_indent="    ", subsequent_indent="    ")
    return lines


def _table(history: History, found: Search) -> list[str]:
    names = list(dict.fromkeys(name for trial in found.trials for name in (*trial.settings, *trial.choices)))[:8]
    losses = [number(line.get("validation_loss")) for line in history.trials]
    rows = [("trial", "stage", "epochs", "accuracy", "loss", *(plain(name, COLUMN) for name in names), "")]
    order = sorted(zip(found.trials, losses, strict=True), key=lambda pair: _place(pair[0]))
    for trial, loss in order[:MOST_TRIALS]:
        said = "best" if trial.best else "" if trial.state == "finished" else trial.state
        said = "; ".join(part for part in (said, *trial.findings[:2], plain(trial.reason, 60)) if part)
        settings = (_setting(trial, name) for name in names)
        length = figure(trial.epochs) if math.isfinite(trial.epochs) else "–"
        came = f"{trial.number} ← {trial.continues}" if trial.continues else trial.number
        rows.append((came, plain(trial.stage, 12), length, percent(trial.accuracy), figure(loss), *settings, said))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = ["trials, best first"]
    for row in rows:
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        lines.append(f"  {cells}  {row[-1]}".rstrip())
    left = len(found.trials) - MOST_TRIALS
    return [*lines, f"  … and {left} more, in report.html"] if left > 0 else lines


def _place(trial: Trial) -> tuple[bool, float]:
    return not trial.best, -trial.accuracy if math.isfinite(trial.accuracy) else 1.0


def _setting(trial: Trial, name: str) -> str:
    return figure(trial.settings[name]) if name in trial.settings else plain(trial.choices.get(name, "–"), COLUMN)


def _importance(found: Search) -> list[str]:
    if not found.importance:
        return []
    width = max(len(name) for name in found.importance)
    lines = ["", "importance: share of the spread of scores that a setting explains"]
    for name, share in sorted(found.importance.items(), key=lambda pair: -pair[1]):
        lines.append(f"  {plain(name, 30):<{width}}  {percent(share, 0):>5}  {'█' * round(30 * share)}")
    return lines


def _best(history: History, found: Search) -> list[str]:
    trials = counted(len(found.trials), "trial")
    off = f", {found.broken_off} broken off" if found.broken_off else ""
    took = sum(value for line in history.trials if math.isfinite(value := number(line.get("seconds"))))
    lines = [f"{trials}{off}, {duration(took)} of training"]
    if found.best is None:
        return [*lines, "none of them finished"]
    return [*lines, f"best: {percent(found.best.accuracy)} on validation with {found.best.named}"]


def _places(folder: RunFolder) -> list[str]:
    places = (("settings", folder.best), ("report", folder.report), ("record", folder.record))
    lines = [f"{name:<17} {plain(path)}" for name, path in places if path.exists()]
    if folder.best.exists():
        data = mapping(read_history(folder).run, "request").get("data")
        lines.append(f"{'train with it':<17} wellfit train {plain(data or 'DATA')} {plain(folder.best)}")
    return lines
