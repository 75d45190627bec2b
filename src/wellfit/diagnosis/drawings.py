"""What a monitor saw, as the figures of its page: curves, weights, layers. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wellfit.diagnosis.history import Floats, History, Layer
from wellfit.report import static
from wellfit.report.curves import accuracy_points, loss_points, ratio_table
from wellfit.report.curves_layers import Scale, layer_tracks
from wellfit.report.document import figure
from wellfit.report.markup import Html, nothing, tag
from wellfit.report.static_layers import FEW, draw_tracks
from wellfit.report.words import counted, percent

MOST_PARAMETERS = 16
# A share below which dead or saturated units are not worth a drawing.
FEW_UNITS = 0.01


def curves(h: History) -> Html:
    """Loss of every step with the learning rate; accuracies of every epoch."""
    steps = np.arange(len(h.losses), dtype=np.float64)
    lr = h.lr if len(h.lrs) == len(h.losses) else np.full(len(steps), np.nan)
    loss = loss_points(steps, h.loss, lr, classes=h.classes or 0)
    figures = []
    if loss is not None:
        text = (
            f"Dots: the loss of single steps. Line: their moving average over about {loss.horizon} steps. Below: the "
            "learning rate."
        )
        if loss.lost:
            text += f" In {counted(len(loss.lost), 'step')} the loss was not finite, first at step {loss.lost[0]:,}."
        alt = f"Loss of {counted(len(steps), 'step')}, ending near {loss.average[-1]:.3g}"
        figures.append(figure("Loss and learning rate", static.draw_loss(loss), alt, text))
    at = np.array([e.step for e in h.epochs], np.float64)
    train, val = (_of_epochs(h, name) for name in ("train_accuracy", "val_accuracy"))
    accuracy = accuracy_points(at, train, val, np.full(len(at), np.nan), classes=h.classes or 0)
    if accuracy is not None:
        best = f"best validation {percent(accuracy.best)}" if accuracy.best is not None else "no validation"
        text = (
            "A wide gap between the lines means learning by heart; two low lines together mean too small a network, "
            "too much restraint or too little time."
        )
        drawn = static.draw_accuracy(accuracy)
        figures.append(figure("Train and validation accuracy", drawn, f"Accuracy by epoch, {best}", text))
    return tag("div", *figures, class_="figures") if figures else nothing("No step had a finite loss.")


def weights(h: History) -> Html:
    """Size of updates beside the weights, and of gradients, for each parameter over time."""
    steps = np.array([s.step for s in h.samples], np.float64)
    figures = []
    if h.samples:
        learning = [i for i, p in enumerate(h.parameters) if p.requires_grad]
        # Of many parameters the weights alone: beside them, biases and scales say little and take room.
        large = [i for i in learning if h.parameters[i].weight]
        learning = large if large and len(learning) > MOST_PARAMETERS else learning
        names = [h.parameters[i].name for i in learning]
        ratios = ratio_table(names, steps, np.array([s.update_ratio[learning] for s in h.samples]).T)
        if ratios is not None:
            text = (
                "How much each step changes the weights, relative to their size. About 1e-3 is healthy; far below, "
                "the parameter hardly learns; above 1e-2, steps are so long that they undo each other."
            )
            if learning is large:
                text += " Shown are the weights, without biases and normalisation."
            shown = len(ratios.parameters)
            alt = f"Update-to-weight ratio of {counted(shown, 'parameter')} over time"
            drawn = static.draw_update_ratios(ratios)
            figures.append(figure("Update / weight ratio", drawn, alt, text, size="wide" if shown > 8 else ""))
        norms = np.array([s.gradient_norm[large] for s in h.samples]).T
        text = (
            "Norm of the gradient of each weight tensor, first layer first. Within about three decades is usual; a "
            "first layer far below the last one hardly learns; growth over time announces an explosion."
        )
        names = [h.parameters[i].name for i in large]
        figures += _tracks(names, steps, norms, "log", "gradient norm", "Gradient norms", text)
    return tag("div", *figures, class_="figures") if figures else nothing("No step was watched closely.")


def layers(h: History) -> Html:
    """Spread of each layer's activations, and the shares of dead and saturated units, over time."""
    watched = [s for s in h.samples if s.layers]
    kinds = {layer.name: layer.kind for s in watched for layer in s.layers}
    names = list(kinds)
    steps = np.array([s.step for s in watched], np.float64)

    def table(value: Callable[[Layer], float | None]) -> Floats:
        by_name = [{layer.name: value(layer) for layer in s.layers} for s in watched]
        return np.array([[np.nan if (v := row.get(name)) is None else v for row in by_name] for name in names])

    shown = [
        f"{name} ({kind})" if kind != "other" and kind not in name.lower() else name for name, kind in kinds.items()
    ]
    spread = (
        "How much the activations of a layer differ between images. They should neither shrink nor grow by decades "
        "from layer to layer."
    )
    dead = (
        "Units that were silent on everything lately seen. They get no gradient and stay as they are; above half of a "
        "layer is sick."
    )
    saturated = "Activations at the ends of a bounded non-linearity, where its slope is nearly zero."
    figures = [
        *_tracks(shown, steps, table(lambda a: a.spread), "log", "spread over images", "Activations", spread),
        *_tracks(shown, steps, table(lambda a: a.dead), "share", "dead units", "Dead units", dead, 0.5),
        *_tracks(shown, steps, table(lambda a: a.saturated), "share", "saturated", "Saturated units", saturated, 0.5),
    ]
    return tag("div", *figures, class_="figures") if figures else nothing(_why_no_layers(h))


def _tracks(
    names: list[str],
    steps: Floats,
    values: Floats,
    scale: Scale,
    what: str,
    heading: str,
    text: str,
    limit: float | None = None,
) -> list[Html]:
    tracks = layer_tracks(names, steps, values, scale)
    if tracks is None:
        return []
    if scale == "share" and np.nanmax(tracks.values) < FEW_UNITS:
        said = f"In none of {counted(tracks.in_all, 'layer')} was there more than {FEW_UNITS:.0%} of them. {text}"
        return [tag("figure", tag("h3", heading), tag("p", said, class_="quiet"))]
    if len(tracks.names) < tracks.in_all:
        text += f" Shown are {len(tracks.names)} of {tracks.in_all}, evenly chosen."
    drawn = draw_tracks(tracks, what, heading.lower().replace(" ", "-"), limit)
    alt = f"{heading} of {counted(len(tracks.names), 'layer')} over {counted(len(steps), 'watched step')}"
    return [figure(heading, drawn, alt, text, size="wide" if len(tracks.names) > FEW else "")]


def _of_epochs(h: History, name: str) -> Floats:
    values = [getattr(e, name) for e in h.epochs]
    return np.array([np.nan if v is None else v for v in values], np.float64)


def _why_no_layers(h: History) -> str:
    return f"No activation was seen: {h.unseen['layers']}." if "layers" in h.unseen else "No activation was seen."
