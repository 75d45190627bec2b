"""A run as plain text: what `wellfit show` prints, and the closing lines of `wellfit fit`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from wellfit.record import RunFolder
from wellfit.report.curves import accuracy_curve, confusion, loss_curve
from wellfit.report.curves_search import Search, search
from wellfit.report.curves_transfer import ProbeCurve, probe_curve
from wellfit.report.history import History, check_outcome, mapping, read_history
from wellfit.report.settled import image_size, model_name, parameters, settings
from wellfit.report.terminal_search import lines_of
from wellfit.report.verdict import judge, state_sentences
from wellfit.report.words import count, counted, duration, figure, number, percent, plain, points

WIDTH = 100  # columns that a summary takes at most
_BARS = "▁▂▃▄▅▆▇█"
_INDENT = 18


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


def show(folder: RunFolder, width: int = WIDTH) -> str:
    """The summary of a run in any state, as plain text without a final line break.

    width: columns of the terminal; only paths and the table of a search's trials may be longer.
    """
    history = read_history(folder)
    lines = [_headline(history), ""]
    terms = ("how good", "how sure", "what next")
    for term, sentence in zip(terms, judge(history).sentences, strict=True):
        lines += _told(term, sentence, width)
    for sentence in state_sentences(history):
        lines += _told("note", sentence, width)
    blocks = (
        _facts(history, width),
        _curves(history, width),
        _confused(history, width),
        _probes(probe_curve(history), width),
        lines_of(history) if history.is_search else _trials(search(history), width),
        _steps(history, width),
        _findings(history, width),
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
        lines += _wrapped(sentence, WIDTH)
    return "\n".join([*lines, "", *_places(folder)])


def _headline(history: History) -> str:
    seconds = history.end.get("seconds")
    took = f" in {duration(seconds)}" if math.isfinite(number(seconds)) else ""
    return f"{plain(history.folder.path)}: {model_name(history)}, {history.status}{took}"


def _facts(history: History, width: int) -> list[str]:
    facts: list[tuple[str, str]] = []
    if history.audit:
        splits = mapping(history.audit, "splits")
        carved = ", ".join(f"{plain(name, 30)} {count(n)}" for name, n in splits.items())
        among = counted(len(history.classes), "class", "classes")
        images = f"{count(history.audit.get('images'))} images in {among}"
        facts.append(("data", images + (f" ({carved})" if carved else "")))
    if history.plan:
        weights, steps = parameters(history), number(history.plan.get("steps"))
        parts = [f"{weights} parameters" if weights else "", f"{count(steps)} steps planned" if steps > 0 else ""]
        parts = [part for part in (*parts, image_size(history)) if part]
        facts.append(("model", ", ".join([model_name(history), *parts])))
    found = settings(history)
    if found:
        facts.append(("settings", "; ".join(f"{name} {value}" for name, value in found)))
    if history.engine.get("line"):
        facts.append(("engine", plain(history.engine["line"])))
    if history.checks:
        outcomes = [check_outcome(check) for check in history.checks]
        parts = [f"{outcomes.count('passed')} passed"]
        for kind in ("failed", "undecided"):
            names = [plain(c.get("check"), 60) for c, o in zip(history.checks, outcomes, strict=True) if o == kind]
            parts += [f"{kind}: {', '.join(names)}"] if names else []
        facts.append(("checks", ", ".join(parts)))
    return [line for name, text in facts for line in _told(name, text, width)]


def _curves(history: History, width: int) -> list[str]:
    lines: list[str] = []
    loss, accuracy = loss_curve(history), accuracy_curve(history)
    if loss is not None:
        lines.append(_spark("loss", loss.average, figure, width))
        if np.isfinite(loss.lr).any():
            lines.append(_spark("learning rate", loss.lr, figure, width))
    if accuracy is not None:
        named = (
            ("train", accuracy.train),
            ("validation", accuracy.validation),
            ("averaged weights", accuracy.averaged),
        )
        lines += [_spark(name, values, percent, width) for name, values in named if np.isfinite(values).any()]
    return lines


def _confused(history: History, width: int) -> list[str]:
    """The most frequent mistakes of the final evaluation."""
    matrix = confusion(history)
    pairs = matrix.worst_pairs(4) if matrix is not None else []
    said = [f"{plain(a, 30)} taken for {plain(b, 30)} {images:,}× ({percent(share)})" for a, b, images, share in pairs]
    return list(_told("confused", "; ".join(said), width)) if said else []


def _trials(found: Search | None, width: int) -> list[str]:
    if found is None:
        return []
    text = counted(len(found.trials), "trial") + (f", {found.broken_off} broken off" if found.broken_off else "")
    if found.best is not None:
        text += f"; best {percent(found.best.accuracy)} with {found.best.named}"
    return list(_told("search", text, width))


def _probes(curve: ProbeCurve | None, width: int) -> list[str]:
    if curve is None:
        return []
    text = f"{counted(sum(len(line.strengths) for line in curve.lines), 'linear classifier')} on frozen features"
    if curve.chosen is not None:
        text += (
            f"; taken: strength {figure(curve.chosen.strength)} at {curve.chosen.image_size} px, "
            f"{curve.metric} {percent(curve.chosen.score)}"
        )
    return list(_told("transfer", text, width))


def _steps(history: History, width: int) -> list[str]:
    """Each step of the recipe; those that were skipped come last, together where the reason is the same."""
    done = [step for step in history.recipe_steps if step.get("status") != "skipped"]
    skipped: dict[str, list[str]] = {}
    for step in history.recipe_steps:
        if step.get("status") == "skipped":
            skipped.setdefault(plain(step.get("reason"), 300), []).append(plain(step.get("name"), 20))
    lines = ["steps"] if done or skipped else []
    for step in done:
        gain = number(step.get("gain"))
        parts = [plain(step.get("reason"), 300), f"gain {points(gain)}" if math.isfinite(gain) else ""]
        status = "" if step.get("status") == "done" else plain(step.get("status"), 12).upper()
        told = "; ".join(part for part in (status, *parts) if part)
        head = f"  {plain(step.get('name'), 20):<11} {duration(step.get('seconds')):>11}  "
        lines += _wrapped(head + told, width, rest=" " * (4 + _INDENT))
    if skipped:
        lines.append("skipped")
    for reason, names in skipped.items():
        lines += _wrapped(f"{', '.join(names)}: {reason}", width, "  ", "    ")
    return lines


def _findings(history: History, width: int) -> list[str]:
    lines = ["findings, root cause first"] if history.findings else []
    for finding in history.findings:
        kind, message = plain(finding.get("severity"), 10), plain(finding.get("message"), 500)
        text = f"[{kind}] {plain(finding.get('id'), 60)}: {message}"
        lines += _wrapped(text, width, "  ", "    ")
        if finding.get("action"):
            lines += _wrapped(f"→ {plain(finding['action'], 500)}", width, "    ", "      ")
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


def _told(name: str, text: str, width: int) -> Sequence[str]:
    return _wrapped(_row(name, text), width, rest=" " * _INDENT)


def _spark(name: str, values: ArrayLike, word: Callable[[object], str], width: int) -> str:
    series = np.asarray(values, np.float64)
    finite = series[np.isfinite(series)]
    long = min(40, max(6, width - _INDENT - 18))
    return _row(name, f"{word(finite[0]):>8} {sparkline(series, long)} {word(finite[-1])}")


def _wrapped(text: str, width: int, first: str = "", rest: str = "") -> Sequence[str]:
    broken = textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return broken or [""]
