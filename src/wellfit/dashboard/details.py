"""The page of one run as JSON: the report's figure data, and its words. Nothing is computed here that report/ knows."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wellfit.findings import explanations
from wellfit.report import curves
from wellfit.report.curves_filters import columns_for, read_filters
from wellfit.report.curves_layers import gradient_norms, recorded_tracks
from wellfit.report.curves_search import search
from wellfit.report.curves_transfer import probe_curve
from wellfit.report.history import History, Line, check_outcome, mapping, rows
from wellfit.report.settled import image_size, model_name, parameters, settings
from wellfit.report.verdict import judge, state_sentences
from wellfit.report.words import count, duration, figure, number, percent, plain

MOST_PICTURES = 36
MOST_CLASSES = 60  # of the confusion matrix that is drawn; the most frequent mistakes are listed in any case
MOST_FINDINGS = 100


def page_of(history: History) -> dict[str, Any]:
    """Everything that a run's page shows, save its small curves. Missing parts are None or empty."""
    verdict = judge(history)
    return {
        "model": model_name(history),
        "status": history.status,
        "search": history.is_search,
        "verdict": list(verdict.sentences),
        "state": state_sentences(history),
        "facts": _facts(history),
        "settings": [list(pair) for pair in settings(history)],
        "loss": _loss(history),
        "accuracy": _drawn(curves.accuracy_curve(history)),
        "ratios": _ratios(history),
        "layers": {what: _drawn(recorded_tracks(history, what)) for what in ("std", "dead", "saturated")},
        "gradients": _drawn(gradient_norms(history)),
        "filters": _filters(history),
        "confusion": _confusion(history),
        "reliability": _reliability(history),
        "mistakes": [_picture(row) for row in rows(history.evaluation, "mistakes")[:MOST_PICTURES]],
        "neighbours": _neighbours(history),
        "findings": [_finding(line) for line in history.findings[:MOST_FINDINGS]],
        "alarms": [{"step": line.get("step"), **_finding(line)} for line in history.alarms[:MOST_FINDINGS]],
        "notes": [{"step": line.get("step"), "text": plain(line.get("text"), 300)} for line in history.notes[-50:]],
        "checks": [
            {
                "check": plain(line.get("check"), 60),
                "outcome": check_outcome(line),
                "message": plain(line.get("message"), 400),
            }
            for line in history.checks
        ],
        "steps": [
            {
                "name": plain(line.get("name"), 40),
                "status": plain(line.get("status"), 20),
                "seconds": duration(line.get("seconds")),
                "reason": plain(line.get("reason"), 400),
            }
            for line in history.recipe_steps
        ],
        "probe": _probe(history),
        "report": history.folder.report.is_file(),
        "trials": len(history.trials),
    }


def trials_of(history: History) -> dict[str, Any]:
    """The trials of a search as the grid shows runs, and the ranges of each stage, for the edges in its figures."""
    found = search(history)
    if found is None:
        return {"runs": [], "ranges": {}, "reasons": {}, "limit": None, "importance": {}}
    items = [
        {
            "key": i + 1,
            "name": f"trial {plain(trial.number, 20)}",
            "state": {"finished": "done", "pruned": "interrupted"}.get(trial.state, "failed"),
            "stage": plain(trial.stage, 40),
            "settings": {plain(k, 60): v for k, v in (trial.settings | trial.choices).items()} | {"stage": trial.stage},
            "results": _known(
                validation_accuracy=trial.accuracy,
                loss=trial.losses[-1] if len(trial.losses) else None,
                epochs=trial.epochs,
            ),
            "reason": plain(trial.reason, 300),
            "best": trial.best,
            "curve": {"steps": numbers(trial.steps), "loss": numbers(trial.losses)},
        }
        for i, trial in enumerate(found.trials)
    ]
    ranges = {
        plain(stage, 40): {plain(k, 60): list(ends) for k, ends in bounds.items()}
        for stage, bounds in found.ranges.items()
    }
    return {
        "runs": items,
        "ranges": ranges,
        "reasons": {plain(stage, 40): plain("; ".join(why), 600) for stage, why in found.reasons.items() if why},
        "limit": found.limit,
        "importance": {plain(k, 60): v for k, v in found.importance.items()},
    }


def numbers(values: ArrayLike, digits: int = 5) -> list[float | None]:
    """Numbers of that many digits, which JSON can hold: None where one is not finite."""
    array = np.asarray(values, np.float64)
    finite = np.isfinite(array).tolist()
    return [
        float(f"{value:.{digits}g}") if known else None for value, known in zip(array.tolist(), finite, strict=True)
    ]


def _facts(history: History) -> list[list[str]]:
    audit, line = history.audit, history.engine
    splits = mapping(audit, "splits")
    spent = duration(history.end.get("seconds")) if history.end else ""
    facts = [
        ("model", model_name(history)),
        ("parameters", parameters(history)),
        ("input", image_size(history)),
        ("images", count(audit.get("images")) if audit else ""),
        ("classes", str(len(history.classes) or "")),
        ("train / validation / test", " / ".join(count(splits.get(k)) for k in ("train", "validation", "test")))
        if splits
        else ("", ""),
        ("engine", plain(line.get("line"), 120)),
        ("took", spent),
        ("command", plain(history.run.get("command"), 300)),
    ]
    return [[name, value] for name, value in facts if value and value != "–"]


def _drawn(data: Any, **more: Any) -> dict[str, Any] | None:
    """A figure's data by the names of its fields, as JSON holds them; `more` adds to them, or takes their place."""
    if data is None:
        return None
    given = {field.name: getattr(data, field.name) for field in fields(data)} | more
    return {name: _column(name, value) for name, value in given.items()}


def _column(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 2:
        return [numbers(row, 4) for row in value]
    if isinstance(value, np.ndarray):
        return numbers(value, 9 if name.endswith("steps") else 5)  # a step is a whole number, and may be a large one
    return [plain(text, 60) for text in value] if name == "names" else value


def _loss(history: History) -> dict[str, Any] | None:
    curve = curves.loss_curve(history)
    return None if curve is None else _drawn(curve, lost=curve.lost[:20], limit=curve.limit)


def _reliability(history: History) -> dict[str, Any] | None:
    found = curves.reliability(history)
    return None if found is None else _drawn(found, excess=found.excess)


def _ratios(history: History) -> dict[str, Any] | None:
    table = curves.update_ratios(history)
    if table is None:
        return None
    return {
        "names": [plain(name, 60) for name in table.parameters],
        "steps": numbers(table.steps, 9),
        "logs": [numbers(row, 4) for row in table.logs],
        "in_all": table.parameters_in_all,
    }


def _filters(history: History) -> dict[str, Any] | None:
    """The filters as one small PNG, a pixel a weight, which the page enlarges without smoothing."""
    found = read_filters(history.folder)
    if found is None:
        return None
    from PIL import Image

    columns = columns_for(len(found.colours))
    sheet = np.round(255 * found.mosaic(columns)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(sheet, "RGBA").save(out, "PNG")
    return {
        "image": "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii"),
        "width": sheet.shape[1],
        "height": sheet.shape[0],
        "count": len(found.colours),
        "flat": found.flat,
    }


def _confusion(history: History) -> dict[str, Any] | None:
    matrix = curves.confusion(history)
    if matrix is None:
        return None
    pairs = [
        [plain(true, 60), plain(said, 60), images, percent(share)] for true, said, images, share in matrix.worst_pairs()
    ]
    drawn = len(matrix.classes) <= MOST_CLASSES
    return {
        "split": plain(history.evaluation.get("split"), 40),
        "classes": [plain(name, 40) for name in matrix.classes] if drawn else None,
        "counts": matrix.counts.tolist() if drawn else None,
        "shares": [numbers(row, 4) for row in matrix.shares] if drawn else None,
        "in_all": len(matrix.classes),
        "pairs": pairs,
    }


def _picture(row: Line) -> dict[str, Any]:
    shown = {key: plain(row.get(key), 120) for key in ("file", "label", "predicted") if key in row}
    return shown | {
        "probability": percent(row.get("probability"), 0) if "probability" in row else None,
        "distance": figure(row.get("distance")) if "distance" in row else None,
        "thumbnail": plain(row.get("thumbnail"), 200) or None,
    }


def _neighbours(history: History) -> dict[str, Any] | None:
    line = history.neighbours
    if not line:
        return None

    def strips(found: Sequence[Line], most: int) -> list[dict[str, Any]]:
        return [
            {"asked": _picture(row), "neighbours": [_picture(other) for other in rows(row, "neighbours")[:8]]}
            for row in found[:most]
        ]

    suspects = [row for row in rows(line, "suspects") if row.get("thumbnail")]
    return {
        "examples": strips(rows(line, "examples"), 8),
        "suspects": strips(suspects, 8),
        "suspects_in_all": int(max(0.0, number(line.get("suspects_in_all") or 0))),
    }


def _finding(line: Line) -> dict[str, Any]:
    known = explanations().get(str(line.get("id")), {})
    return {
        "id": plain(line.get("id"), 60),
        "title": plain(known.get("title") or line.get("id"), 120),
        "severity": plain(line.get("severity"), 20),
        "message": plain(line.get("message"), 600),
        "action": plain(line.get("action"), 600),
    }


def _probe(history: History) -> list[list[str]]:
    found = probe_curve(history)
    if found is None or found.chosen is None:
        return []
    taken = found.chosen
    tried = sum(len(line.strengths) for line in found.lines)
    return [
        ["classifiers on frozen features", str(tried)],
        ["taken", f"strength {figure(taken.strength)} at {taken.image_size} px"],
        [found.metric, percent(taken.score)],
    ]


def _known(**values: float | None) -> dict[str, float]:
    return {name: float(f"{v:.5g}") for name, v in values.items() if v is not None and np.isfinite(v)}
