"""The monitor's own page, `monitor.report("doctor.html")`: the verdict, the findings and what they rest on.

One self-contained file without scripts or requests. It is drawn by the report's modules from the history alone;
what the loop calls its layers is text to the page, never markup.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wellfit.diagnosis import drawings
from wellfit.diagnosis.history import History, InputFigures
from wellfit.diagnosis.rules import RULES
from wellfit.diagnosis.rules.inputs import pool
from wellfit.diagnosis.rules.needs import NOT_HERE
from wellfit.diagnosis.standing import Watched, headline
from wellfit.errors import UserError
from wellfit.findings import Finding, explanations
from wellfit.report import sections
from wellfit.report.document import document, write_page
from wellfit.report.markup import Html, escape, join, nothing, prose, table, tag
from wellfit.report.words import count, counted, percent, plain
from wellfit.report.words import figure as number_text


def write(
    path: str | os.PathLike[str], h: History, watched: Watched, findings: Sequence[Finding], unjudged: dict[str, str]
) -> Path:
    """Write the page and return its path. UserError where nothing was watched or the place cannot be written to."""
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"a report is written to a path, got {type(path).__name__}; give one, such as 'doctor.html'")
    place = Path(path)
    if place.is_dir() or not place.name:
        raise UserError(f"a report is one file, but '{place}' is a folder; give a file in it, such as 'doctor.html'")
    if not len(h.losses):
        raise UserError("there is nothing to report before the first step; call monitor.step(loss) in the loop")
    return write_page(place, render(h, watched, findings, unjudged))


def render(h: History, watched: Watched, findings: Sequence[Finding], unjudged: dict[str, str]) -> str:
    """The page as text; the same history gives the same text."""
    parts = [
        ("findings", "Findings", _findings(findings)),
        ("curves", "Curves", drawings.curves(h)),
        ("weights", "Weights and gradients", drawings.weights(h)),
        ("layers", "Layers", drawings.layers(h)),
        ("images", "Input images", _images(h)),
        ("judged", "What was judged", _judged(h, findings, unjudged)),
    ]
    footer = "Written by wellfit's monitor. This page asks nothing of the network."
    return document(
        f"wellfit doctor: {plain(watched.network, 80)}", _header(h, watched, findings, unjudged), parts, footer
    )


def _header(h: History, watched: Watched, findings: Sequence[Finding], unjudged: dict[str, str]) -> Html:
    sick = [f for f in findings if f.severity != "info"]
    said: list[tuple[str, str]] = []
    if sick:
        said.append(("Seen", _sentence(sick[0].message)))
        said.append(("What to do", _sentence(sick[0].action)))
    if len(sick) > 1:
        others = ", ".join(f"`{f.id}`" for f in sick[1:])
        said.append(("Also found", f"{others}. What stands further down is often a consequence of what stands above."))
    watched_steps = counted(len(h.samples), "step")
    sure = (
        f"{len(RULES) - len(unjudged)} of {len(RULES)} questions could be judged, from {counted(len(h.losses), 'step')}"
        f" and {counted(len(h.epochs), 'epoch')}; {watched_steps} were watched closely."
    )
    said.append(("How sure", sure))
    return tag(
        "header",
        tag("p", "wellfit doctor · ", tag("bdi", plain(watched.network, 80)), class_="kicker"),
        tag("h1", headline(findings, unjudged)),
        tag("dl", *(tag("div", tag("dt", term), tag("dd", prose(text))) for term, text in said), class_="verdict"),
        _facts(h, watched),
    )


def _facts(h: History, watched: Watched) -> Html:
    size = sum(p.size for p in h.parameters)
    frozen = sum(p.size for p in h.parameters if not p.requires_grad)
    last = h.epochs[-1] if h.epochs else None
    tail = np.median(h.finite_loss[-20:]) if len(h.finite_loss) else float("nan")
    bad = h.first_bad_step
    facts = (
        ("network", watched.network),
        ("parameters", f"{count(size)}{f', {percent(frozen / size, 0)} frozen' if frozen else ''}" if size else ""),
        ("optimizer", ", ".join(watched.optimizers)),
        ("learning rate", _span(h.lr)),
        ("steps", count(len(h.losses))),
        ("epochs", count(len(h.epochs)) if h.epochs else ""),
        ("loss", f"{number_text(h.loss[0])} → {number_text(tail) if bad is None else h.loss[bad]}"),
        ("train accuracy", percent(last.train_accuracy) if last and last.train_accuracy is not None else ""),
        ("validation accuracy", percent(last.val_accuracy) if last and last.val_accuracy is not None else ""),
    )
    return tag("dl", *(tag("div", tag("dt", t), tag("dd", plain(v, 80))) for t, v in facts if v), class_="facts")


def _span(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return ""
    low, high = number_text(known.min()), number_text(known.max())
    return high if low == high else f"{low} … {high}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _findings(findings: Sequence[Finding]) -> Html:
    if not findings:
        return nothing("No rule found anything to say.")
    return sections.finding_list([{**f.as_dict(), "message": _sentence(f.message)} for f in findings])


def _images(h: History) -> Html:
    """Training images beside validation's, as they went into the network."""
    sides = [("training", pool([s.inputs for s in h.samples]))]
    last = next((e.passes.inputs for e in reversed(h.epochs) if e.passes is not None and e.passes.inputs), ())
    sides += [("validation" if len(last) == 1 else f"validation, set {k}", f) for k, f in enumerate(last, 1)]
    rows = [(name, *_row(f)) for name, f in sides if f is not None]
    if not rows:
        return nothing("No images were seen: the network got no batch of numbers, or its calls could not be watched.")
    said = "Measured on a sample of what went into the network. Both lines should agree but for what augmentation does."
    head = ("", "shape", "images looked at", "mean by channel", "standard deviation", "lowest", "highest")
    return join(tag("p", said), table(head, rows, numeric=(2, 5, 6), label="Input images"))


def _row(f: InputFigures) -> tuple[object, ...]:
    mean, std = (" / ".join(number_text(v) for v in part) for part in (f.means, f.deviations))
    return "×".join(map(str, f.shape)), count(f.images), mean, std, number_text(f.low), number_text(f.high)


def _judged(h: History, findings: Sequence[Finding], unjudged: dict[str, str]) -> Html:
    known = explanations()
    found = {f.id for f in findings}
    order = [name for name in known if name in RULES]
    fine = [name for name in order if name not in unjudged and name not in found]
    reasons = [(_named(name, known[name]["title"]), unjudged[name]) for name in order if name in unjudged]
    open_ = [(name, escape(reason)) for name, reason in reasons if not reason.startswith(NOT_HERE)]
    foreign = [(name, escape(reason.removeprefix(NOT_HERE))) for name, reason in reasons if reason.startswith(NOT_HERE)]
    parts: list[Html] = [tag("p", f"Note: {note}.") for note in h.notes]
    if open_:
        parts.append(tag("p", "What could not be judged, and what was lacking:"))
        parts.append(table(("finding", "lacking"), open_, label="What could not be judged"))
    if foreign:
        parts.append(tag("p", "What does not apply to this network:"))
        parts.append(table(("finding", "since"), foreign, label="What does not apply"))
    if fine:
        items = [tag("li", _named(name, known[name]["title"])) for name in fine]
        heading = f"Judged, with nothing to say: {counted(len(fine), 'question')}"
        parts.append(tag("details", tag("summary", heading), tag("ul", *items)))
    return join(*parts)


def _named(name: str, title: str) -> Html:
    return join(title, " ", tag("code", name, class_="short"))
