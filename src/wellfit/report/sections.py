"""The sections of the page that are tables and lists; one function each, from history to HTML."""

from __future__ import annotations

import json
import math

from wellfit.findings import explanations
from wellfit.report.history import History, Line, check_outcome, mapping, rows, texts
from wellfit.report.markup import (
    MOST_ROWS,
    Html,
    badge,
    bar,
    block,
    cell,
    escape,
    join,
    more,
    name,
    nothing,
    prose,
    table,
    tag,
)
from wellfit.report.words import count, counted, duration, number, plain, points

_SEVERITIES = ("error", "warning", "info")
_OUTCOMES = {"passed": "good", "failed": "error", "undecided": "warning"}
# A check bears the id of the finding that it would give; in a table of passed checks that would read upside down.
_CHECKS = {
    "initial-loss": "The first loss is that of an even guess",
    "input-ignored": "The scores depend on the image",
    "batch-leak": "Images of a batch do not see each other",
    "gradient-wrong": "The gradient agrees with a numerical one",
    "regularisation-inert": "Regularisation reaches the weights",
    "cannot-overfit-small-sample": "A few images can be learnt by heart",
    "no-good-lr": "A learning rate makes the loss fall",
}
_STATUS = {"done": "good", "skipped": "quiet", "failed": "error"}


def findings(history: History) -> Html:
    """Findings, root cause first, each with its action, evidence and the paragraph that explains it."""
    if not history.findings:
        return nothing("No findings: nothing in the data, the checks, the training or the search asked for attention.")
    return finding_list(history.findings)


def finding_list(lines: list[Line]) -> Html:
    """Findings in the order given; a line has a Finding's fields, and the step where it was seen."""
    return tag("ol", *map(_finding, lines[:MOST_ROWS]), more(lines), class_="findings")


def _finding(line: Line) -> Html:
    known = explanations().get(str(line.get("id")), {})
    severity = str(line.get("severity"))
    severity = severity if severity in _SEVERITIES else "info"
    step = number(line.get("step"))
    evidence = mapping(line, "evidence")
    return tag(
        "li",
        tag(
            "h3",
            badge(severity, severity),
            " ",
            tag("span", known.get("title") or plain(line.get("id"))),
            " ",
            tag("code", plain(line.get("id"), 60)),
            tag("span", f" at step {step:,.0f}", class_="quiet") if math.isfinite(step) else None,
        ),
        tag("p", prose(line.get("message"))),
        tag("p", tag("strong", "Do: "), prose(line.get("action"))) if line.get("action") else None,
        tag(
            "details",
            tag("summary", "What this means, and the evidence"),
            tag("p", prose(" ".join(known["text"].split()), 5000)) if "text" in known else None,
            block(json.dumps(evidence, indent=1, ensure_ascii=False), 4000) if evidence else None,
            tag("p", f"Reference: {plain(line.get('reference') or known.get('reference') or '–')}", class_="quiet"),
        ),
        class_=severity,
    )


def checks(history: History) -> Html:
    """The checks that ran before training: what was measured, what was expected, in a sentence."""
    if not history.checks:
        return nothing("No checks are recorded.")
    body = [
        (
            _CHECKS.get(str(line.get("check"))) or tag("code", plain(line.get("check"), 60)),
            badge(_OUTCOMES[check_outcome(line)], check_outcome(line)),
            cell(line.get("value")),
            cell(line.get("expected")),
            prose(line.get("message")),
            duration(line.get("seconds")),
        )
        for line in history.checks[:MOST_ROWS]
    ]
    return table(("check", "", "measured", "expected", "what was seen", "took"), body, numeric=(5,), label="Checks")


def recipe_steps(history: History) -> Html:
    """Each step of the recipe, done or skipped, with its seconds, its reason and its gain."""
    if not history.recipe_steps:
        return nothing("No steps are recorded.")
    seconds = [number(line.get("seconds")) for line in history.recipe_steps]
    longest = max((s for s in seconds if math.isfinite(s)), default=0.0)
    body = [
        (
            name(line.get("name"), 40),
            badge(_STATUS.get(str(line.get("status")), "quiet"), plain(line.get("status"), 20)),
            join(bar(took / longest if longest > 0 else 0), duration(took)),
            points(line.get("gain")),
            prose(line.get("reason")),
        )
        for line, took in zip(history.recipe_steps[:MOST_ROWS], seconds, strict=False)
    ]
    head = ("step", "", "time", "gain on validation", "reason")
    reason = history.plan.get("reason")
    return join(
        tag("p", "The plan: ", prose(reason)) if isinstance(reason, str) and reason else None,
        table(head, body, numeric=(2, 3), label="Steps of the recipe"),
    )


def audit(history: History) -> Html:
    """What the data are: counts, splits, what was left out and why, and the sentences about the split."""
    line = history.audit
    if not line:
        return nothing("The audit of the data is not recorded.")
    classes = sorted(history.classes.items(), key=lambda item: -item[1])
    largest = max((n for _, n in classes), default=1) or 1
    left_out, splits = rows(line, "left_out"), mapping(line, "splits")
    carved = ", ".join(f"{plain(split, 30)} {count(n)}" for split, n in splits.items())
    intro = f"{count(line.get('images'))} images in {counted(len(classes), 'class', 'classes')}"
    sentences = texts(line, "sentences")
    counts = [(name(label, 60), join(bar(n / largest), count(n))) for label, n in classes[:MOST_ROWS]]
    gone = [(name(row.get("file"), 120), escape(row.get("reason"))) for row in left_out[:MOST_ROWS]]
    return join(
        tag("p", f"{intro}{f': {carved}' if carved else ''}."),
        tag("ul", *(tag("li", prose(sentence)) for sentence in sentences[:50])) if sentences else None,
        tag(
            "div",
            tag("div", table(("class", "images"), counts, numeric=(1,), caption="Images of each class"), more(classes)),
            tag(
                "div",
                table(("file", "reason"), gone, caption=f"{counted(len(left_out), 'file')} left out"),
                more(left_out),
            )
            if left_out
            else nothing("No file was left out."),
            class_="columns",
        ),
    )
