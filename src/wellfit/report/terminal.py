"""A run as plain text: what `wellfit show` prints, and the closing lines of `wellfit fit`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from wellfit.record import RunFolder
from wellfit.report.curves import accuracy_curve, loss_curve
from wellfit.report.curves_search import Search, search
from wellfit.report.curves_transfer import ProbeCurve, probe_curve
from wellfit.report.history import History, check_outcome, mapping, read_history
from wellfit.report.settled import image_size, model_name, parameters, settings
from wellfit.report.terminal_search import lines_of
from wellfit.report.verdict import judge, state_sentences
from wellfit.report.words import count, counted, duration, figure, number, percent, plain, points

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 100


def sparkline(values: ArrayLike, width: int = 40) -> str:
    """One row of bars, lowest value ▁ and highest █, at most `width` wide; values that are not finite are blank.

    Longer series are averaged over equal stretches.

    >>> sparkline([0, 1, 2, 3, float("nan"), 7])
    '▁▂▃▄ █'
    """
    series = np.asarray(values, np.float64)
    if len(series) > width:
        stretches = np.array_split(series, width)
        series = np.array(
            [part[np.isfinite(part)].mean() if np.isfinite(part).any() else math.nan for part in stretches]
        )
    finite = series[np.isfinite(series)]
    if not len(finite):
        return " " * len(series)
    low, high = float(finite.min()), float(finite.max())
    scaled = (series - low) / (high - low) if high > low else np.where(np.isfinite(series), 0.5, math.nan)
    return "".join(_BARS[round(7 * value)] if math.isfinite(value) else " " for value in scaled.tolist())


def show(folder: RunFolder) -> str:
    """The summary of a run in any state, as plain text of up to about 100 columns, without a final line break."""
    history = read_history(folder)
    lines = [_headline(history), ""]
    for sentence in (*judge(history).sentences, *state_sentences(history)):
        lines += _wrapped(sentence)
    blocks = (
        _facts(history),
        _curves(history),
        _probes(probe_curve(history)),
        lines_of(history) if history.is_search else _trials(search(history)),
        _steps(history),
        _findings(history),
        _places(folder),
    )
    for block in blocks:
        if block:
            lines += ["", *block]
    return "\n".join(lines)


def closing(folder: RunFolder) -> str:
    """The last lines of `wellfit fit`: the verdict, and where everything is."""
    history = read_history(folder)
    lines: list[str] = []
    for sentence in judge(history).sentences:
        lines += _wrapped(sentence)
    return "\n".join([*lines, "", *_places(folder)])


def _headline(history: History) -> str:
    seconds = history.end.get("seconds")
    took = f" in {duration(seconds)}" if math.isfinite(number(seconds)) else ""
    return f"{plain(history.folder.path)}: {model_name(history)}, {history.status}{took}"


def _facts(history: History) -> list[str]:
    lines: list[str] = []
    if history.audit:
        splits = mapping(history.audit, "splits")
        carved = ", ".join(f"{plain(name, 30)} {count(n)}" for name, n in splits.items())
        lines.append(
            _row(
                "data",
                f"{count(history.audit.get('images'))} images in {counted(len(history.classes), 'class', 'classes')}",
            )
            + (f" ({carved})" if carved else "")
        )
    if history.plan:
        weights, steps = parameters(history), number(history.plan.get("steps"))
        parts = [f"{weights} parameters" if weights else "", f"{count(steps)} steps planned" if steps > 0 else ""]
        parts = [part for part in (*parts, image_size(history)) if part]
        lines.append(_row("model", ", ".join([model_name(history), *parts])))
    found = settings(history)
    if found:
        lines += _wrapped("; ".join(f"{name} {value}" for name, value in found), _row("settings", ""), " " * 18)
    if history.engine.get("line"):
        lines.append(_row("engine", plain(history.engine["line"])))
    if history.checks:
        outcomes = [check_outcome(check) for check in history.checks]
        parts = [f"{outcomes.count('passed')} passed"]
        for kind in ("failed", "undecided"):
            names = [plain(c.get("check"), 60) for c, o in zip(history.checks, outcomes, strict=True) if o == kind]
            parts += [f"{kind}: {', '.join(names)}"] if names else []
        lines.append(_row("checks", ", ".join(parts)))
    return lines


def _curves(history: History) -> list[str]:
    lines: list[str] = []
    loss, accuracy = loss_curve(history), accuracy_curve(history)
    if loss is not None:
        lines.append(_spark("loss", loss.average, figure))
        if np.isfinite(loss.lr).any():
            lines.append(_spark("learning rate", loss.lr, figure))
    if accuracy is not None:
        named = (
            ("train", accuracy.train),
            ("validation", accuracy.validation),
            ("averaged weights", accuracy.averaged),
        )
        lines += [_spark(name, values, percent) for name, values in named if np.isfinite(values).any()]
    return lines


def _trials(found: Search | None) -> list[str]:
    if found is None:
        return []
    text = counted(len(found.trials), "trial") + (f", {found.broken_off} broken off" if found.broken_off else "")
    if found.best is not None:
        text += f"; best {percent(found.best.accuracy)} with {found.best.named}"
    return [_row("search", text)]


def _probes(curve: ProbeCurve | None) -> list[str]:
    if curve is None:
        return []
    text = f"{counted(sum(len(line.strengths) for line in curve.lines), 'linear classifier')} on frozen features"
    if curve.chosen is not None:
        text += (
            f"; taken: strength {figure(curve.chosen.strength)} at {curve.chosen.image_size} px, "
            f"{curve.metric} {percent(curve.chosen.score)}"
        )
    return [_row("transfer", text)]


def _steps(history: History) -> list[str]:
    if not history.recipe_steps:
        return []
    lines = ["steps"]
    for step in history.recipe_steps:
        gain = number(step.get("gain"))
        parts = [plain(step.get("reason"), 200), f"gain {points(gain)}" if math.isfinite(gain) else ""]
        told = "; ".join(part for part in parts if part)
        status, name = plain(step.get("status"), 8), plain(step.get("name"), 20)
        lines.append(f"  {name:<20} {status:<8} {duration(step.get('seconds')):>11}  {told}".rstrip())
    return lines


def _findings(history: History) -> list[str]:
    lines = ["findings, root cause first"] if history.findings else []
    for finding in history.findings:
        kind, message = plain(finding.get("severity"), 10), plain(finding.get("message"), 500)
        text = f"[{kind}] {plain(finding.get('id'), 60)}: {message}"
        lines += _wrapped(text, "  ", "    ")
        if finding.get("action"):
            lines += _wrapped(f"→ {plain(finding['action'], 500)}", "    ", "      ")
    return lines


def _places(folder: RunFolder) -> list[str]:
    places = (
        ("model", folder.model_weights),
        ("best settings", folder.best),
        ("report", folder.report),
        ("record", folder.record),
    )
    lines = [_row(name, plain(path)) for name, path in places if path.exists()]
    if folder.model_weights.exists():
        lines.append(_row("try it", f"wellfit predict {plain(folder.path)} FILES"))
    return lines


def _row(name: str, text: str) -> str:
    return f"{name:<17} {text}"


def _spark(name: str, values: ArrayLike, word: Callable[[object], str]) -> str:
    series = np.asarray(values, np.float64)
    finite = series[np.isfinite(series)]
    return _row(name, f"{word(finite[0]):>8} {sparkline(series)} {word(finite[-1])}")


def _wrapped(text: str, first: str = "", rest: str = "") -> Sequence[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False) or [""]
