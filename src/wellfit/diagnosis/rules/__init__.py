"""The rules: pure functions, each judges one finding from a `History`.

`judge` runs them all. A rule answers only when its needs are met; the others are named with what they
lack. To add one: write it in the file of its family and list it in that file's table.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from wellfit.diagnosis.history import History
from wellfit.diagnosis.rules import epochs, inputs, layers, long_steps, loss, modes, outputs, rates, swings, updates
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import cut_off_behind, never_learned
from wellfit.diagnosis.rules.step_lengths import cause_of_long_steps
from wellfit.findings import Finding, Findings, root_cause_first

FAMILIES = (inputs, modes, loss, swings, rates, long_steps, updates, layers, outputs, epochs)
RULES: dict[str, Rule] = {name: rule for family in FAMILIES for name, rule in family.RULES.items()}


# An info of these ids, which says that units are idle, is a warning beside another one.
HARMLESS_ALONE = {"dead-relu", "saturated"}
# How the reason begins where a rule is broken: watching must not end the training that it watches.
DEFECT = "nothing: the rule itself failed, a defect of wellfit to be reported"


def judge(history: History) -> tuple[list[Finding], dict[str, str]]:
    """All findings, root cause first, and by id what each rule lacked that could not judge. Never raises."""
    unjudged = lacking(history)
    found: list[Finding | None] = []
    for name in RULES.keys() - unjudged.keys():
        try:
            # A training may be as broken as it likes: overflows and empty stretches are what is looked for.
            with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore", category=RuntimeWarning):
                found.append(RULES[name].judge(history))
        except Exception as error:
            unjudged[name] = f"{DEFECT} ({type(error).__name__}: {error})"
    said = [f for f in found if f is not None]
    with np.errstate(all="ignore"):
        said = said if never_learned(history) else _beside(said)
        return _cause_first(history, root_cause_first(said)), unjudged


def _beside(findings: list[Finding]) -> list[Finding]:
    """What is a waste only in a net that learns counts where something else is wrong as well."""
    sick = any(f.severity != "info" for f in findings)
    return [replace(f, severity="warning") if sick and f.id in HARMLESS_ALONE else f for f in findings]


def _cause_first(h: History, findings: Findings) -> Findings:
    """What the order of causes in general does not know.

    A rate that is too high and updates that are too large have one remedy: where it is clear which of them is the
    cause, the other is said last. Where the answers are cut off from the images, what else is seen comes of that.
    """
    ids = [f.id for f in findings if f.severity != "info"]
    first = last = ""
    if {"lr-too-high", "updates-too-large"} <= set(ids):
        cause = cause_of_long_steps(h)
        last = {"lr-too-high": "updates-too-large", "updates-too-large": "lr-too-high"}.get(cause, "")
    if "constant-output" in ids and cut_off_behind(h) is not None:
        first = "constant-output"
    return Findings(sorted(findings, key=lambda f: (f.id == last) - (f.id == first)))


def lacking(history: History) -> dict[str, str]:
    """By id, what each rule lacks that cannot judge yet."""
    reasons = {name: next((r for need in rule.needs if (r := need(history))), "") for name, rule in RULES.items()}
    return {name: reason for name, reason in reasons.items() if reason}
