"""The sections of the page that show figures: each figure with its caption, and the tables that belong to it."""

from __future__ import annotations

import math

import numpy as np

from wellfit.report import (
    attempts,
    curves,
    evaluation,
    static,
    static_filters,
    static_layouts,
    static_search,
    static_search_lines,
    static_transfer,
)
from wellfit.report.curves_filters import read_filters
from wellfit.report.curves_layouts import read_layouts
from wellfit.report.curves_search import search as search_of
from wellfit.report.curves_transfer import probe_curve
from wellfit.report.document import figure
from wellfit.report.history import History, rows
from wellfit.report.markup import Html, join, nothing, prose, tag
from wellfit.report.terminal_search import importance_after
from wellfit.report.thumbnails import Thumbnails
from wellfit.report.words import count, counted, number, percent, plain, points
from wellfit.report.words import figure as number_text

WAITING = 0.05  # of the steps' time: from here on the data hold the training up


def training(history: History) -> Html:
    loss, accuracy, ratios = curves.loss_curve(history), curves.accuracy_curve(history), curves.update_ratios(history)
    figures = []
    if loss is not None:
        alt = f"Loss of {counted(len(history.steps), 'step')}, ending near {loss.average[-1]:.3g}"
        text = (
            "Dots: the loss of single steps. Line: their exponential moving average over about "
            f"{loss.horizon} steps, with bias correction. A healthy loss falls fast, then slowly; a sudden drop "
            "usually follows a lower learning rate (below)."
        )
        if loss.lost:
            text += f" In {counted(len(loss.lost), 'step')} the loss was not finite, first at step {loss.lost[0]:,}."
        figures.append(figure("Loss and learning rate", static.draw_loss(loss), alt, text))
    if accuracy is not None:
        best = (
            f"best validation accuracy {percent(accuracy.best)}" if accuracy.best is not None else "no validation yet"
        )
        text = (
            "A wide gap between the lines means learning by heart; two low lines together mean too small a network "
            "or too little time."
        )
        if accuracy.gap is not None:
            text = f"At the end training is {_ahead(accuracy.gap)} validation. {text}"
        text += " Training accuracy is measured on augmented images, so it can lie below validation."
        figures.append(
            figure("Train and validation accuracy", static.draw_accuracy(accuracy), f"Accuracy: {best}", text)
        )
    if ratios is not None:
        shown = len(ratios.parameters)
        text = (
            "How much each step changes the weights, relative to their size. About 1e-3 is healthy; far below, the "
            "parameter hardly learns; above 1e-2, steps are so long that they undo each other."
        )
        if shown < ratios.parameters_in_all:
            text += f" Shown are {shown} of {ratios.parameters_in_all} parameters, evenly chosen."
        alt = f"Update-to-weight ratio of {counted(shown, 'parameter')} over time"
        drawing = static.draw_update_ratios(ratios)
        figures.append(figure("Update / weight ratio", drawing, alt, text, size="wide" if shown > 8 else ""))
    if not figures:
        return nothing("No training step is recorded.")
    return join(_speed(history), tag("div", *figures, class_="figures"))


def _speed(history: History) -> Html | None:
    """Images a second, and how much of the steps' time was spent waiting for data."""
    speeds, waits = (curves.column(history.steps, name) for name in ("images_per_second", "wait"))
    known = np.isfinite(speeds) & (speeds > 0) & np.isfinite(waits)
    if not known.any():
        return None
    lengths = 1 / speeds[known]  # of steps of one size
    share = float((waits[known] * lengths).sum() / lengths.sum())
    text = (
        f"The median step trained {count(float(np.median(speeds[known])))} images a second; "
        f"{percent(share)} of the steps' time was spent waiting for data."
    )
    if share > WAITING:
        text += " Preparing them holds the network up: fewer augmentations help, and so does a faster disk."
    return tag("p", text)


def transfer(history: History) -> Html:
    """Linear classifiers on the features of a frozen network: all that were tried, which was taken and why."""
    curve = probe_curve(history)
    parts: list[Html | None] = [_said(history, "probe", "The classifier"), _said(history, "fine-tune", "Fine-tuning")]
    if curve is None:
        return join(nothing("No classifier on frozen features is recorded."), parts)
    taken = curve.chosen
    text = (
        "The network came with weights that it had learnt before. Its features of each image were computed once, and "
        "linear classifiers were fitted on them; each was judged on images that it had not seen."
    )
    if taken is not None:
        text += (
            f" Taken was the one at {taken.image_size} px with strength {number_text(taken.strength)}: "
            f"{curve.metric} {percent(taken.score)}, loss {number_text(taken.loss)}."
        )
    tried = f"of {counted(sum(len(line.strengths) for line in curve.lines), 'classifier')}"
    said = (
        "Strength: how freely a classifier may follow the images that it is fitted on (the inverse of its "
        "regularisation). Too low and it misses what the features hold; too high and it learns by heart. The ring is "
        "the one taken."
    )
    loss_said = (
        "Neighbouring strengths may differ in score by chance alone; the loss is smoother, and decides among those "
        "that are level."
    )
    heading = f"{curve.metric[:1].upper()}{curve.metric[1:]} on held-out images"
    figures = [figure(heading, static_transfer.draw_probe_scores(curve), f"{heading} {tried} by strength", said)]
    if curve.has_losses:
        heading = "Loss on held-out images"
        drawing = static_transfer.draw_probe_losses(curve)
        figures.append(figure(heading, drawing, f"{heading} {tried} by strength", loss_said))
    return join(
        tag("p", text),
        parts,
        tag("div", *figures, class_="figures"),
        tag("details", tag("summary", "All classifiers"), attempts.classifiers(curve)),
    )


def _said(history: History, step: str, what: str) -> Html | None:
    """A sentence with how a step of the recipe ended and its reason."""
    line = history.recipe_step(step)
    if not line:
        return None
    gain = number(line.get("gain"))
    gained = f" ({points(gain)} on validation)" if math.isfinite(gain) else ""
    return tag("p", f"{what}: {plain(line.get('status'), 20)}{gained}. ", prose(_sentence(line.get("reason"))))


def _sentence(reason: object) -> str:
    text = plain(reason, 600)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def search(history: History) -> Html:
    found = search_of(history)
    if found is None:
        why = plain(history.recipe_step("search").get("reason"), 600)
        return nothing(f"No search was run: {why}" if why else "No search is recorded.")
    off = found.broken_off
    best = found.best
    text = f"{counted(len(found.trials), 'trial')}{f', {off} broken off early' if off else ''}."
    if best is not None:
        text += f" The best reached {percent(best.accuracy)} on validation with {best.named}."
    figures, varied = [], found.varied()
    if {"lr", "weight_decay"} <= set(varied):
        said = (
            "Each dot is a trial, brighter is better; crosses were broken off. Boxes are the ranges of the stages. "
            "A best trial (ring) at the edge of its box means that the range should be wider there."
        )
        drawing = static_search.draw_search_map(found)
        figures.append(figure("Learning rate and weight decay", drawing, f"Map of {len(found.trials)} trials", said))
    if any(len(trial.steps) for trial in found.trials):
        said = "The loss of each trial in the colour of the accuracy that it reached; dashed ones were broken off."
        drawing = static_search.draw_trial_curves(found)
        figures.append(figure("Trials, step by step", drawing, "Loss curves of all trials", said))
    if len(varied) + len(found.chosen_names()) > 1:
        said = (
            "One line a trial, from setting to setting to its accuracy, in the colour of that accuracy; dotted ones "
            "were broken off. Where bright lines meet, a setting has a good value; where they spread, it does not "
            "matter."
        )
        drawing = static_search_lines.draw_parallel(found)
        alt = f"Parallel coordinates of {len(found.trials)} trials"
        figures.append(figure("All settings at once", drawing, alt, said, size="wide"))
    if found.importance:
        said = (
            "How much of the spread of scores each setting explains by itself, by a functional analysis of variance on "
            "a forest fitted to the trials (Hutter et al. 2014)."
        )
        drawing = static_search_lines.draw_importance(found)
        figures.append(figure("Importance of the settings", drawing, "Importance of each setting", said))
    for setting in varied[:6]:
        said = (
            "A clear hill shows that the setting matters; an even scatter, that it hardly does. Bars: ranges of the "
            "stages."
        )
        drawing = static_search.draw_setting(found, setting)
        heading = f"Accuracy against {plain(static_search.setting_name(setting), 40)}"
        figures.append(figure(heading, drawing, f"{heading} for {len(found.trials)} trials", said))
    layouts = read_layouts(history.folder) if history.is_search else None
    if layouts is not None:
        said = (
            "Not of this search: the same number of trials on a grid and at random, on a function in which one setting "
            "matters and the other hardly does. The grid tries each value of the one that matters again and again "
            "(Bergstra & Bengio 2012)."
        )
        drawing = static_layouts.draw_layouts(layouts)
        figures.append(figure("Why settings are drawn at random", drawing, "Random against grid", said, size="wide"))
    said_of = {stage: [*why, importance_after(history, stage)] for stage, why in found.reasons.items()}
    because = [(stage, plain("; ".join(filter(None, why)), 1200)) for stage, why in said_of.items() if any(why)]
    reasons = [tag("li", tag("bdi", plain(stage, 40)), ": ", prose(why)) for stage, why in because]
    return join(
        tag("p", text),
        _said(history, "search", "The search"),
        tag("ul", *reasons) if reasons else None,
        tag("div", *figures, class_="figures") if figures else None,
        tag("details", tag("summary", "All trials"), attempts.trials(history)),
    )


def classes(history: History) -> Html:
    matrix, calibration = curves.confusion(history), curves.reliability(history)
    figures = []
    if matrix is not None:
        text = (
            "Rows are the true classes, columns the answers. Blue on the diagonal is right; orange marks what is taken "
            "for what."
        )
        size = "" if len(matrix.classes) <= 14 else "wide" if len(matrix.classes) <= 40 else "wide huge"
        among = counted(len(matrix.classes), "class", "classes")
        alt = f"Confusion matrix of {among}, {count(int(matrix.counts.sum()))} images"
        figures.append(figure("Confusion matrix", static.draw_confusion(matrix), alt, text, size=size))
    if calibration is not None:
        text = (
            "Where the model says 80%, is it right in 80 of 100 cases? Points below the dotted line mean that it is "
            "too sure. "
            f"On average its confidence is off by {100 * calibration.error:.1f} points."
        )
        figures.append(
            figure("Reliability", static.draw_reliability(calibration), "Accuracy by stated confidence", text)
        )
    pairs = tag("div", evaluation.worst_pairs(matrix)) if matrix is not None else None
    return join(
        tag("div", *figures, class_="figures") if figures else None,
        tag("p", evaluation.averages(history)) if figures else None,
        tag("div", tag("div", evaluation.per_class(history)), pairs, class_="columns"),
        evaluation.other_evaluations(history),
    )


def filters(history: History) -> Html | None:
    """The first convolution's filters as small pictures; None where the run saved none."""
    found = read_filters(history.folder)
    if found is None:
        return None
    count, height, width = found.colours.shape[:3]
    text = (
        f"The {counted(count, 'filter')} of the first convolution, {height}×{width} pixels, each on its own scale; "
        "grey is 0. A network that has learnt well shows edges, colours and simple patterns; grains like noise mean "
        "that it was not trained long enough, or was regularised too little. On grey images the colours are left over "
        "from the random start."
    )
    if min(height, width) < 5:
        text += " On so few pixels a filter is a difference of neighbours or a colour, and not more."
    if found.flat:
        text += f" {counted(found.flat, 'filter')} stayed near 0 beside the others."
    alt = f"{counted(count, 'filter')} of the first convolution as pictures"
    drawn = figure("First filters", static_filters.draw_filters(found), alt, text, size="wide" if count > 24 else "")
    return tag("div", drawn, class_="figures")


def pictures(history: History) -> Html:
    thumbnails = Thumbnails(history.folder.arrays)
    mistakes, samples = rows(history.evaluation, "mistakes"), rows(history.evaluation, "samples")
    if not mistakes and not samples:
        return nothing("No pictures were kept.")
    parts = []
    if samples:
        parts += [tag("h3", "A sample of the images"), evaluation.pictures(samples, thumbnails)]
    if mistakes:
        text = "Where the model was surest and wrong. Look first whether the label is right."
        parts += [tag("h3", "Most confident mistakes"), tag("p", text), evaluation.pictures(mistakes, thumbnails)]
    return join(parts)


def _ahead(gap: float) -> str:
    if abs(gap) < 0.005:
        return "level with"
    return f"{100 * abs(gap):.1f} points {'ahead of' if gap > 0 else 'behind'}"
