"""`report.html`: one self-contained page without scripts or requests, verdict first.

Every name, message and setting from the record is text to the page, never markup (see `markup`).
"""

from __future__ import annotations

import math
from pathlib import Path

from wellfit.record import RunFolder
from wellfit.report import neighbours, panels, sections, settled
from wellfit.report.combined import combined
from wellfit.report.document import Part, document, write_page
from wellfit.report.history import History, mapping, read_history
from wellfit.report.markup import Html, prose, tag
from wellfit.report.origin import origin
from wellfit.report.settled import model_name
from wellfit.report.verdict import Verdict, judge, state_sentences
from wellfit.report.words import count, duration, interval, percent, plain


def write_report(folder: RunFolder) -> Path:
    """Write `report.html` into the run folder and return its path.

    Reads only the run folder; works on a run that is unfinished, failed or torn, and says what is missing.
    UserError where the folder is no run or cannot be written to.
    """
    return write_page(folder.report, render(read_history(folder)))


def render(history: History) -> str:
    """The page as text; the same history gives the same text."""
    verdict = judge(history)
    parts = [
        *_fitting(history),
        *_combined(history),
        *_judged(history),
        *_neighbours(history),
        *_filters(history),
        ("checks", "Checks", sections.checks(history)),
        ("findings", "Findings", sections.findings(history)),
        ("data", "Data", sections.audit(history)),
        ("steps", "Steps", sections.recipe_steps(history)),
        ("origin", "How to repeat it", origin(history)),
    ]
    title = f"wellfit: {model_name(history)}, {plain(history.folder.path.name, 80)}"
    return document(title, _header(history, verdict), parts, _footer(history))


def _fitting(history: History) -> list[Part]:
    """How the model came about. A run that only fits classifiers on features has neither training nor search."""
    fitting: list[Part] = []
    if "ensemble" in mapping(history.run, "request"):  # its members were trained in runs of their own
        return fitting
    if history.transfers:
        fitting.append(("transfer", "Transfer", panels.transfer(history)))
    if history.is_search:
        return [("search", "Search", panels.search(history))]
    if history.steps or history.epochs or not history.transfers:
        fitting.append(("training", "Fine-tuning" if history.transfers else "Training", panels.training(history)))
    if history.trials or not history.transfers:
        fitting.append(("search", "Search", panels.search(history)))
    return fitting


def _combined(history: History) -> list[Part]:
    shown = combined(history)
    return [] if shown is None else [("combined", "Ensemble and views", shown)]


def _judged(history: History) -> list[Part]:
    if history.is_search:  # it hands over settings, and no model
        return []
    return [
        ("classes", "Classes and confusion", panels.classes(history)),
        ("pictures", "Pictures", panels.pictures(history)),
    ]


def _neighbours(history: History) -> list[Part]:
    shown = neighbours.neighbours(history)
    return [] if shown is None else [("neighbours", "Neighbours", shown)]


def _filters(history: History) -> list[Part]:
    shown = panels.filters(history)
    return [] if shown is None else [("filters", "First layer", shown)]


def _header(history: History, verdict: Verdict) -> Html:
    said = (("How good", verdict.good), ("How sure", verdict.sure), ("What next", verdict.next))
    state = state_sentences(history)
    return tag(
        "header",
        tag("p", "wellfit report · ", tag("bdi", plain(history.folder.path.name, 80)), class_="kicker"),
        tag("h1", _headline(history, verdict)),
        _scale(verdict) if verdict.measured else None,
        tag("div", *(tag("p", prose(sentence)) for sentence in state), class_="state") if state else None,
        tag("dl", *(tag("div", tag("dt", term), tag("dd", prose(text))) for term, text in said), class_="verdict"),
        _facts(history),
    )


def _headline(history: History, verdict: Verdict) -> str:
    if verdict.measured:
        where = {"test": "right on test images", "validation": "right on validation images"}.get(verdict.split, "right")
        return f"{percent(verdict.accuracy)} {where}"
    if history.is_search and history.best:
        return f"Search: {percent(history.best.get('validation_accuracy'))} on validation"
    return {
        "failed": "The run failed before it could be measured",
        "interrupted": "Interrupted before it could be measured",
        "done": "Ended without a measurement",
    }.get(history.status, "Not measured yet")


def _scale(verdict: Verdict) -> Html:
    """A line from 0 to 100% with the interval, the accuracy, chance and the largest class on it."""
    marks = []
    largest = math.nan if abs(verdict.largest - verdict.chance) < 0.005 else verdict.largest  # classes of one size
    for share, words in ((verdict.chance, "guessing"), (largest, "largest class")):
        if math.isfinite(share):
            marks.append(tag("span", class_="mark", style=_left(share), title=f"{words} {percent(share)}"))
    if math.isfinite(verdict.low):
        style = f"left:{100 * verdict.low:.2f}%;width:{100 * (verdict.high - verdict.low):.2f}%"
        marks.append(tag("span", class_="interval", style=style))
    marks.append(tag("span", class_="point", style=_left(verdict.accuracy)))
    legend = [
        f"accuracy {percent(verdict.accuracy)}",
        f"95% interval {interval(verdict.low, verdict.high)}" if math.isfinite(verdict.low) else None,
        f"guessing {percent(verdict.chance)}" if math.isfinite(verdict.chance) else None,
        f"largest class {percent(largest)}" if math.isfinite(largest) else None,
    ]
    text = " · ".join(part for part in legend if part)
    return tag("div", tag("div", *marks, class_="line"), tag("p", text), class_="scale", role="img", aria_label=text)


def _facts(history: History) -> Html:
    facts = (
        ("model", model_name(history) if history.plan or history.card else None),
        ("parameters", settled.parameters(history)),
        ("image size", settled.image_size(history)),
        *settled.settings(history),
        ("images", count(history.audit["images"]) if "images" in history.audit else None),
        ("classes", count(len(history.classes)) if history.classes else None),
        ("steps", count(history.steps[-1].get("step")) if history.steps else None),
        ("trials", count(len(history.trials)) if history.trials else None),
        ("time", duration(history.end["seconds"]) if "seconds" in history.end else None),
    )
    shown = [tag("div", tag("dt", term), tag("dd", value)) for term, value in facts if value]
    return tag("dl", *shown, class_="facts")


def _footer(history: History) -> str:
    version = mapping(history.run, "versions").get("wellfit")
    written = f"Written by wellfit {plain(version, 20)}" if version else "Written by wellfit"
    return f"{written} from record.jsonl. This page asks nothing of the network."


def _left(share: float) -> str:
    return f"left:{100 * share:.2f}%"
