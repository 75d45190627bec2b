"""Tables and pictures of what the model does on images that it was not trained on."""

from __future__ import annotations

import math

from wellfit.report.curves import Confusion
from wellfit.report.history import History, Line, rows
from wellfit.report.markup import MOST_ROWS, Html, bar, join, more, name, nothing, table, tag
from wellfit.report.thumbnails import Thumbnails
from wellfit.report.words import count, figure, interval, number, percent, plain


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
    return join(classes, more(lines))


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
