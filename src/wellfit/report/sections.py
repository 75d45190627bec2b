"""The sections of the page that are tables, lists and pictures; one function each, from history to HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Sized

from wellfit.findings import explanations
from wellfit.report.curves import Confusion
from wellfit.report.history import History, Line, check_outcome, mapping, rows, texts
from wellfit.report.markup import Html, block, escape, join, name, prose, table, tag
from wellfit.report.thumbnails import Thumbnails
from wellfit.report.words import count, counted, duration, figure, interval, number, percent, plain, points

MOST_ROWS = 400
_SEVERITIES = ("error", "warning", "info")
_OUTCOMES = {"passed": "good", "failed": "error", "undecided": "warning"}
# A check bears the id of the finding that it would give; in a table of passed checks that would read upside down.
_CHECKS = {
    "initial-loss": "The first loss is that of an even guess",
    "input-ignored": "The loss depends on the image",
    "batch-leak": "Images of a batch do not see each other",
    "gradient-wrong": "The gradient agrees with a numerical one",
    "regularisation-inert": "Regularisation reaches the weights",
    "cannot-overfit-small-sample": "A few images can be learnt by heart",
    "no-good-lr": "A learning rate makes the loss fall",
}
_STATUS = {"done": "good", "skipped": "quiet", "failed": "error"}


def nothing(text: str) -> Html:
    """The one line of a section that has nothing to show."""
    return tag("p", text, class_="quiet")


def findings(history: History) -> Html:
    """Findings, root cause first, each with its action, evidence and the paragraph that explains it."""
    if not history.findings:
        return nothing("No findings: nothing in the data, the checks, the training or the search asked for attention.")
    return tag("ol", *map(_finding, history.findings[:MOST_ROWS]), _more(history.findings), class_="findings")


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
            tag("p", prose(known["text"], 5000)) if "text" in known else None,
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
            _value(line.get("value")),
            _value(line.get("expected")),
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


def per_class(history: History) -> Html:
    """Precision, recall and F1 of every class, lowest F1 first."""
    lines = rows(history.evaluation, "per_class")
    if not lines:
        return nothing("No evaluation is recorded.")

    def worst_first(line: Line) -> float:
        value = number(line.get("f1"))
        return value if math.isfinite(value) else -1.0

    body = [
        (
            name(line.get("class"), 60),
            count(line.get("images")),
            *(join(bar(number(line.get(key))), percent(line.get(key))) for key in ("precision", "recall", "f1")),
        )
        for line in sorted(lines, key=worst_first)[:MOST_ROWS]
    ]
    head = ("class", "images", "precision", "recall", "F1")
    classes = table(head, body, numeric=(1, 2, 3, 4), caption="Classes, lowest F1 first")
    return join(classes, _more(lines))


def averages(history: History) -> str:
    """Figures over all classes, in a sentence."""
    evaluation = history.evaluation
    balanced, macro = percent(evaluation.get("balanced_accuracy")), percent(evaluation.get("macro_f1"))
    return f"Balanced accuracy {balanced}, macro-F1 {macro}, loss {figure(evaluation.get('loss'))}."


def worst_pairs(matrix: Confusion) -> Html:
    """The most frequent mistakes as a table: readable also where the matrix has a hundred classes."""
    pairs = matrix.worst_pairs()
    if not pairs:
        return nothing("Not one image was given a wrong class.")
    body = [(name(true, 60), name(said, 60), count(n), percent(share)) for true, said, n, share in pairs]
    head = ("true class", "taken for", "images", "of the class")
    return table(head, body, numeric=(2, 3), caption="Most frequent mistakes")


def pictures(lines: list[Line], thumbnails: Thumbnails, most: int = 60) -> Html:
    """Images with their label and the model's answer; right and wrong are told apart by a word and a colour."""
    cards = []
    for line in lines[:most]:
        right = line.get("label") == line.get("predicted")
        uri = thumbnails.uri(line.get("thumbnail"))
        alt = f"{plain(line.get('file'))}: {plain(line.get('label'))}, answered {plain(line.get('predicted'))}"
        shown = tag("img", src=uri, alt=alt, loading="lazy") if uri else tag("div", "no picture", class_="absent")
        answer = [name(line.get("predicted"), 40), f" {percent(line.get('probability'), 0)}"]
        verdict = tag("b", "right: " if right else "wrong: ")
        label = None if right else tag("span", "is ", name(line.get("label"), 40), class_="label")
        text = tag(
            "figcaption", tag("span", verdict, *answer), label, tag("span", name(line.get("file"), 30), class_="file")
        )
        cards.append(tag("figure", shown, text, class_="card right" if right else "card wrong"))
    return tag("div", *cards, class_="cards")


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
            tag(
                "div", table(("class", "images"), counts, numeric=(1,), caption="Images of each class"), _more(classes)
            ),
            tag(
                "div",
                table(("file", "reason"), gone, caption=f"{counted(len(left_out), 'file')} left out"),
                _more(left_out),
            )
            if left_out
            else nothing("No file was left out."),
            class_="columns",
        ),
    )


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
            *(_value(mapping(line, "settings").get(key)) for key in settings),
            duration(line.get("seconds")),
        )
        for line in sorted(history.trials, key=best_first)[:MOST_ROWS]
    ]
    head = ("trial", "stage", "", "accuracy", "loss", *(plain(key, 30) for key in settings), "took")
    right = (3, 4, *range(5, 6 + len(settings)))
    return join(table(head, body, numeric=right, label="Trials, best on validation first"), _more(history.trials))


def origin(history: History) -> Html:
    """What it takes to repeat the run: command, seed, versions, machine, engine, configuration, plan."""
    run, engine = history.run, history.engine
    facts: list[tuple[object, object]] = [
        (plain(key), _value(run.get(key))) for key in ("seed", "started", "schema") if run.get(key) is not None
    ]
    facts += [(plain(key, 40), _value(value)) for key, value in mapping(run, "versions").items()]
    machine = [(plain(key, 40), _value(value)) for key, value in mapping(run, "machine").items()]
    machine += [(key, _value(engine[key])) for key in ("device", "dtype", "layout", "threads") if key in engine]
    command = run.get("command")
    command = " ".join(map(str, command)) if isinstance(command, list) else str(command or "")
    keys = ("dtype", "layout", "threads", "images_per_second")
    candidates = [tuple(_value(row.get(key)) for key in keys) for row in rows(engine, "candidates")[:MOST_ROWS]]
    head = ("dtype", "layout", "threads", "images/s")
    probe = table(head, candidates, numeric=(2, 3), caption="Settings that the probe compared") if candidates else None
    return join(
        tag("h3", "Command"),
        block(command or "not recorded"),
        tag("p", escape(engine.get("line"))) if engine.get("line") else None,
        tag(
            "div",
            tag("div", table(("", ""), facts, caption="Seed and versions")),
            tag("div", table(("", ""), machine, caption="Machine"), probe),
            class_="columns",
        ),
        _file("config.toml", history.config_text),
        _file("plan.toml", history.plan_text),
        _file("model.json", json.dumps(history.card, indent=1, ensure_ascii=False) if history.card else ""),
    )


def other_evaluations(history: History) -> Html | None:
    """One row for each split or data set that was evaluated, where there is more than one."""
    if len(history.evaluations) < 2:
        return None
    body = []
    for split, line in list(history.evaluations.items())[:MOST_ROWS]:
        bounds = line.get("interval")
        shown = interval(*bounds) if isinstance(bounds, list) and len(bounds) == 2 else "–"
        figures = (
            percent(line.get("accuracy")),
            shown,
            percent(line.get("balanced_accuracy")),
            figure(line.get("loss")),
        )
        body.append((name(split, 60), count(line.get("images")), *figures))
    head = ("measured on", "images", "accuracy", "95% interval", "balanced", "loss")
    return table(head, body, numeric=(1, 2, 3, 4, 5), caption="All evaluations")


def badge(kind: str, text: str) -> Html:
    """A short word on a tinted ground; the word carries the meaning, the colour only repeats it."""
    return tag("span", text, class_=f"badge {kind}")


def bar(share: float) -> Html | None:
    """A small bar behind a figure, `share` of its full length."""
    if not math.isfinite(share):
        return None
    width = f"width:{100 * min(1.0, max(0.0, share)):.1f}%"
    return tag("span", tag("span", style=width), class_="bar", aria_hidden="true")


def _file(title: str, text: str) -> Html:
    if not text.strip():
        return tag("p", tag("code", title), " is not in the run folder.", class_="quiet")
    return tag("details", tag("summary", tag("code", title), " in full"), block(text))


def _more(items: Sized) -> Html | None:
    n = len(items)
    return nothing(f"… and {n - MOST_ROWS:,} more in record.jsonl.") if n > MOST_ROWS else None


def _value(value: object) -> Html:
    if value is None:
        return escape("–")
    if isinstance(value, bool):
        return escape("yes" if value else "no")
    if isinstance(value, float):
        return escape(figure(value))
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return escape(value)
