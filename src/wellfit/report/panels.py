"""The sections of the page that show figures: each figure with its caption, and the tables that belong to it."""

from __future__ import annotations

from wellfit.report import curves, sections, static, static_search
from wellfit.report.drawing import themed
from wellfit.report.history import History, rows
from wellfit.report.markup import Html, escape, join, prose, tag
from wellfit.report.thumbnails import Thumbnails
from wellfit.report.words import count, counted, figure, percent, plain


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
        figures.append(_figure("Loss and learning rate", static.draw_loss(loss), alt, text))
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
            _figure("Train and validation accuracy", static.draw_accuracy(accuracy), f"Accuracy: {best}", text)
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
        figures.append(_figure("Update / weight ratio", drawing, alt, text, size="wide" if shown > 8 else ""))
    if not figures:
        return sections.nothing("No training step is recorded.")
    return tag("div", *figures, class_="figures")


def search(history: History) -> Html:
    found = curves.search(history)
    if found is None:
        step = next((line for line in history.recipe_steps if line.get("name") == "search"), {})
        why = plain(step.get("reason"), 600)
        return sections.nothing(f"No search was run: {why}" if why else "No search is recorded.")
    off = sum(trial.state == "pruned" for trial in found.trials)
    best = found.best
    text = f"{counted(len(found.trials), 'trial')}{f', {off} broken off early' if off else ''}."
    if best is not None:
        values = ", ".join(f"{plain(name, 30)} {figure(value)}" for name, value in best.settings.items())
        text += f" The best reached {percent(best.accuracy)} on validation with {values}."
    figures, varied = [], found.varied()
    if {"lr", "weight_decay"} <= set(varied):
        said = (
            "Each dot is a trial, brighter is better; crosses were broken off. Boxes are the ranges of the stages. "
            "A best trial (ring) at the edge of its box means that the range should be wider there."
        )
        drawing = static_search.draw_search_map(found)
        figures.append(_figure("Learning rate and weight decay", drawing, f"Map of {len(found.trials)} trials", said))
    if any(len(trial.steps) for trial in found.trials):
        said = "The loss of each trial in the colour of the accuracy that it reached; dashed ones were broken off."
        drawing = static_search.draw_trial_curves(found)
        figures.append(_figure("Trials, step by step", drawing, "Loss curves of all trials", said))
    for setting in varied[:6]:
        said = (
            "A clear hill shows that the setting matters; an even scatter, that it hardly does. Bars: ranges of the "
            "stages."
        )
        drawing = static_search.draw_setting(found, setting)
        heading = f"Accuracy against {plain(static_search.setting_name(setting), 40)}"
        figures.append(_figure(heading, drawing, f"{heading} for {len(found.trials)} trials", said))
    reasons = [tag("li", tag("bdi", plain(stage, 40)), ": ", prose(why)) for stage, why in found.reasons.items() if why]
    return join(
        tag("p", text),
        tag("ul", *reasons) if reasons else None,
        tag("div", *figures, class_="figures") if figures else None,
        tag("details", tag("summary", "All trials"), sections.trials(history)),
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
        figures.append(_figure("Confusion matrix", static.draw_confusion(matrix), alt, text, size=size))
    if calibration is not None:
        text = (
            "Where the model says 80%, is it right in 80 of 100 cases? Points below the dotted line mean that it is "
            "too sure. "
            f"On average its confidence is off by {100 * calibration.error:.1f} points."
        )
        figures.append(
            _figure("Reliability", static.draw_reliability(calibration), "Accuracy by stated confidence", text)
        )
    pairs = tag("div", sections.worst_pairs(matrix)) if matrix is not None else None
    return join(
        tag("div", *figures, class_="figures") if figures else None,
        tag("p", sections.averages(history)) if figures else None,
        tag("div", tag("div", sections.per_class(history)), pairs, class_="columns"),
        sections.other_evaluations(history),
    )


def pictures(history: History) -> Html:
    thumbnails = Thumbnails(history.folder.arrays)
    mistakes, samples = rows(history.evaluation, "mistakes"), rows(history.evaluation, "samples")
    if not mistakes and not samples:
        return sections.nothing("No pictures were kept.")
    parts = []
    if samples:
        parts += [tag("h3", "A sample of the images"), sections.pictures(samples, thumbnails)]
    if mistakes:
        text = "Where the model was surest and wrong. Look first whether the label is right."
        parts += [tag("h3", "Most confident mistakes"), tag("p", text), sections.pictures(mistakes, thumbnails)]
    return join(parts)


def _figure(heading: str, svg: str, alt: str, text: str, *, size: str = "") -> Html:
    drawing = themed(svg).replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    box = tag("div", Html(drawing), class_="scroll", tabindex=0)
    return tag("figure", tag("h3", heading), box, tag("figcaption", text), class_=size or None)


def _ahead(gap: float) -> str:
    if abs(gap) < 0.005:
        return "level with"
    return f"{100 * abs(gap):.1f} points {'ahead of' if gap > 0 else 'behind'}"
