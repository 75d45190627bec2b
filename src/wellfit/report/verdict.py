"""The verdict in words: how good the model is, how sure that is, and what to do next; one sentence each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wellfit.findings import explanations
from wellfit.report.curves import accuracy_curve, reliability
from wellfit.report.curves_search import search
from wellfit.report.history import History, Line, check_outcome, mapping, rows
from wellfit.report.settled import model_name
from wellfit.report.words import counted, interval, number, percent, plain

# Train minus validation accuracy above which regularisation or data is the next thing to think of (SPEC C9).
_WIDE_GAP = 0.10
# Mean |confidence − accuracy| up to which probabilities can be taken at their word.
_CALIBRATED = 0.03


@dataclass(frozen=True)
class Verdict:
    """`accuracy`, `low`, `high`, `chance` and `largest` are shares, NaN where unknown; `split` is what was measured on.

    largest: accuracy of always naming the most frequent class of the split.
    """

    good: str
    sure: str
    next: str
    accuracy: float
    low: float
    high: float
    chance: float
    largest: float
    largest_class: str
    images: int
    split: str

    @property
    def sentences(self) -> tuple[str, str, str]:
        return self.good, self.sure, self.next

    @property
    def measured(self) -> bool:
        return math.isfinite(self.accuracy)


def judge(history: History) -> Verdict:
    """The verdict on a run in any state; a figure that is missing is said to be missing."""
    evaluation = history.evaluation
    accuracy = number(evaluation.get("accuracy"))
    bounds = evaluation.get("interval")
    low, high = (number(b) for b in bounds) if isinstance(bounds, list) and len(bounds) == 2 else (math.nan, math.nan)
    sizes = {str(r.get("class")): number(r.get("images")) for r in rows(evaluation, "per_class")}
    sizes = {name: n for name, n in sizes.items() if n >= 0} or {k: float(v) for k, v in history.classes.items()}
    total = sum(sizes.values())
    largest_class = max(sizes, key=lambda name: sizes[name]) if total else ""
    images = number(evaluation.get("images"))
    facts = Verdict(
        good="",
        sure="",
        next="",
        accuracy=accuracy,
        low=low,
        high=high,
        chance=1 / len(sizes) if sizes else math.nan,
        largest=sizes[largest_class] / total if total else math.nan,
        largest_class=largest_class,
        images=int(images) if math.isfinite(images) else 0,
        split=str(evaluation.get("split", "")),
    )
    words = {"good": _how_good(history, facts), "sure": _how_sure(history, facts), "next": _what_next(history, facts)}
    return Verdict(**{**vars(facts), **words})


def _how_good(history: History, facts: Verdict) -> str:
    model = model_name(history)
    if history.is_search:
        return _how_good_a_search(history)
    if not facts.measured:
        reached = accuracy_curve(history)
        state = {
            "failed": "The run stopped on a failure before the final evaluation",
            "interrupted": "The run was interrupted before the final evaluation",
            "done": "The run ended without a final evaluation",
        }.get(history.status, "The run has not reached its final evaluation")
        if reached is None or reached.best is None:
            return f"{state}, so nothing can be said yet about how good {model} is."
        return (
            f"{state}; on validation {model} has reached {percent(reached.best)} so far, and there is no test figure."
        )
    where = {
        "test": f"On {counted(facts.images, 'test image')}, looked at once at the end,",
        "validation": f"On {counted(facts.images, 'validation image')} (no test figure; choices were made on these)",
    }.get(facts.split, f"On {counted(facts.images, 'image')} ({plain(facts.split, 40)})")
    text = f"{where} {model} names the right class {percent(facts.accuracy)} of the time"
    if math.isfinite(facts.low):
        text += f" (95% interval {interval(facts.low, facts.high)})"
    baseline = max(facts.chance, facts.largest) if math.isfinite(facts.largest) else facts.chance
    if math.isfinite(baseline):
        even = abs(facts.largest - facts.chance) < 0.005
        name = plain(facts.largest_class, 60)
        known = f"guessing gives {percent(facts.chance)}"
        if not even and math.isfinite(facts.largest):
            known += f" and always answering “{name}” {percent(facts.largest)}"
        clear = not facts.low <= baseline
        text += f", where {known}" if clear else f", which is not clearly better than chance: {known}"
    balanced = number(history.evaluation.get("balanced_accuracy"))
    if abs(balanced - facts.accuracy) >= 0.02:
        text += f"; counting every class equally it is {percent(balanced)}"
    return text + "."


def _how_good_a_search(history: History) -> str:
    found = search(history)
    if found is None or found.best is None:
        return "No trial has finished yet." if history.status == "unfinished" else "No trial finished."
    done = "The search reached" if history.status == "done" else "So far the search has reached"
    trials = counted(len(found.trials), "trial")
    return (
        f"{done} {percent(found.best.accuracy)} on validation in {trials}, with {found.best.named}. A search hands "
        "over settings: a longer training with them should do better, and test images are still closed."
    )


def _how_sure(history: History, facts: Verdict) -> str:
    parts = []
    if history.is_search:
        found = search(history)
        error = next((number(t.get("error")) for t in history.trials if t.get("trial") == history.best.get("trial")), 0)
        if found is not None and found.best is not None and error > 0:
            parts.append(
                f"The score of a single trial is uncertain by about ± {100 * error:.1f} points, and the best of many "
                "is a little flattered by luck"
            )
    elif facts.measured:
        seed = history.run.get("seed")
        fitted = "training" if history.steps or not history.transfers else "classifier on frozen features"
        basis = f"one {fitted}{f' (seed {plain(seed, 20)})' if seed is not None else ''}"
        if len(rows(history.ensemble, "members")) > 1:
            basis = f"an ensemble of {len(rows(history.ensemble, 'members'))} networks"
        text = f"This rests on {counted(facts.images, 'image')} and {basis}"
        if math.isfinite(facts.low):
            half = 100 * (facts.high - facts.low) / 2
            text += f", so differences below about {half:.1f} points mean little"
        parts.append(text)
        calibration = reliability(history)
        if calibration is not None and math.isfinite(calibration.error):
            off = f"{100 * calibration.error:.1f} points on average"
            if calibration.error <= _CALIBRATED:
                parts.append(f"its stated probabilities can be taken at their word (off by {off})")
            else:
                way = "too sure of itself" if calibration.excess > 0 else "more often right than it claims"
                parts.append(f"it is {way}: stated probabilities are off by {off}")
    else:
        parts.append("Without an evaluation there is no interval and no calibration")
    outcomes = [check_outcome(check) for check in history.checks]
    if outcomes and set(outcomes) == {"passed"}:
        parts.append("every check before training passed")
    parts += [
        f"{outcomes.count(kind)} of {len(outcomes)} checks {words}"
        for kind, words in (("failed", "failed"), ("undecided", "ran out of time"))
        if kind in outcomes
    ]
    errors, warnings = (_of(history, severity) for severity in ("error", "warning"))
    if errors or warnings:
        counts = [counted(len(f), noun) for f, noun in ((errors, "error"), (warnings, "warning")) if f]
        parts.append(f"there {'is' if len(errors or warnings) == 1 else 'are'} {' and '.join(counts)} to read below")
    else:
        parts.append("nothing in the record speaks against it" if facts.measured else "there are no warnings")
    return "; ".join(parts) + "."


def _what_next(history: History, facts: Verdict) -> str:
    run = plain(history.folder.path, 200)
    errors, warnings = (_of(history, severity) for severity in ("error", "warning"))
    if errors:
        return _advice("Deal first with", errors[0])
    if history.empty:
        return "There is nothing to go on from: bring record.jsonl back from a copy, or run `wellfit fit` anew."
    if not facts.measured and history.status in ("interrupted", "unfinished"):
        return f"Go on where it stopped with `wellfit resume {run}`."
    if warnings:
        return _advice("The most useful next step answers", warnings[0])
    if history.is_search and history.best:
        data = mapping(history.run, "request").get("data")
        return f"Train with what was found: `wellfit train {plain(data or 'DATA', 200)} {run}/best.toml`."
    curve = accuracy_curve(history)
    if curve is not None and curve.gap is not None:
        train = float(curve.train[curve.steps == curve.gap_step][-1])
        if curve.gap >= _WIDE_GAP:
            return (
                f"Training accuracy is {100 * curve.gap:.0f} points ahead of validation, so more pictures, pretrained "
                "weights or stronger augmentation promise more than longer training."
            )
        if train < 0.9 and curve.gap < 0.05:
            return (
                f"Training accuracy itself is only {percent(train)} and hardly ahead of validation, so more time "
                "(a longer `--budget`) or a larger model is the next thing to try."
            )
    if facts.measured:
        return f"Nothing in the record asks for a change: try it on new pictures with `wellfit predict {run} FILES`."
    return "Run `wellfit fit` again to get a figure on test images."


def _advice(opening: str, finding: Line) -> str:
    known = explanations().get(str(finding.get("id")), {})
    action = plain(finding.get("action") or known.get("action") or finding.get("message"), 400).strip().rstrip(".")
    action = action[:1].upper() + action[1:]
    title = known.get("title") or plain(finding.get("id"), 60)
    return f"{opening} “{title}”: {action}."


def _of(history: History, severity: str) -> list[Line]:
    return [finding for finding in history.findings if finding.get("severity") == severity]


def state_sentences(history: History) -> list[str]:
    """What is missing or unusual about the run itself, for the top of the page; empty for a complete run."""
    run = plain(history.folder.path, 200)
    said = []
    if history.empty:
        said.append("Its record.jsonl holds no whole line: it was killed as it began, or the file is damaged.")
    elif history.status == "unfinished":
        said.append(f"The record has no end: the run is still going or was killed. `wellfit resume {run}` goes on.")
    elif history.status == "interrupted":
        kept = "all trials that were done" if history.is_search else "the best model that it had"
        said.append(f"The run was interrupted and kept {kept}. `wellfit resume {run}` goes on.")
    elif history.status == "failed":
        reason = plain(history.end.get("reason"), 400).rstrip(".")
        why = f"The run failed: {reason}." if reason else "The run failed; the findings say why it stopped."
        said.append(f"{why} What it wrote until then is shown.")
    missing = {
        "the audit of the data": not history.audit,
        "the plan": not history.plan,
        "config.toml": not history.config_text,
    }
    if history.is_search:
        missing |= {"trials": not history.trials}
    else:
        missing |= {
            "training steps": not history.steps and not history.transfers,
            "a test evaluation": "test" not in history.evaluations,
            "model.json": not history.card,
        }
    names = [name for name, absent in missing.items() if absent]
    if names:
        said.append(f"The run folder lacks {', '.join(names)}; what would be drawn from it is left out.")
    return said
