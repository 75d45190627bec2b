"""The guide's table of what each finding needs, and from when it is judged, is the one that the rules have."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wellfit.diagnosis.history import (
    BatchNorm,
    Epoch,
    History,
    InputFigures,
    Layer,
    Modes,
    Output,
    Parameter,
    Passes,
    Sample,
)
from wellfit.diagnosis.rules import RULES, lacking
from wellfit.findings import explanations

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "doctor_rules.md"
STEPS = 130
# One watched step of every ten after the first three, each at the middle of its stretch.
WATCHED = [0, 1, 2, *range(10, STEPS, 10)]
# What may be lacking, in words, and the history without it.
FIGURES = ("train_accuracy", "train_loss", "val_accuracy", "val_loss")


def images(count=32):
    return InputFigures((1, 8, 8), count, 1, np.ones(5), np.zeros((5, 5)), np.zeros((5, 5)), 0.0, 1.0)


def sample(step):
    ones, counts = np.ones(2), np.full(10, 3)
    return Sample(
        step,
        ones,
        1e-3 * ones,
        ones,
        0.01,
        layers=[Layer("1", "relu", 0.5, 0.5), Layer("3", "bounded", 0.0, 0.5)],
        output=Output(30, 10, 0.1, predicted=counts, targets=counts, correct=10),
        carried=False,
        input=(0.0, 1.0),
        inputs=images(),
        modes=Modes(True, np.array([False]), np.zeros(1), np.zeros(1)),
        received=(0.0, 1.0),
        moved=np.ones(2, bool),
    )


def full(steps=STEPS, epochs=0):
    """A history in which nothing is lacking, after so many steps and epochs."""
    return History(
        losses=[2.3] * steps,
        lrs=[0.1] * steps,
        samples=[sample(step) for step in WATCHED if step < steps],
        epochs=[Epoch(10 * k + 10, 1.0, 0.5, 1.0, 0.5, Passes(1, inputs=(images(),))) for k in range(epochs)],
        parameters=[Parameter("0.weight", 9), Parameter("2.weight", 9)],
        batchnorms=[BatchNorm("1")],
        classes=10,
        class_counts=np.full(10, 3),
    )


def without_outputs(h, **change):
    samples = [replace(s, output=None if not change else replace(s.output, **change)) for s in h.samples]
    return replace(h, samples=samples)


WITHOUT = {
    "`targets=`": lambda h: without_outputs(h, targets=None, correct=None),
    "outputs (images, classes)": lambda h: without_outputs(h),
    "a ReLU": lambda h: replace(h, samples=[replace(s, layers=[s.layers[1]]) for s in h.samples]),
    "a tanh or sigmoid": lambda h: replace(h, samples=[replace(s, layers=[s.layers[0]]) for s in h.samples]),
    "calls of the model": lambda h: replace(
        h, samples=[replace(s, modes=None, input=None, received=None, inputs=None) for s in h.samples]
    ),
    "the number of classes": lambda h: replace(h, classes=None),
    **{
        f"`{name}`": lambda h, name=name: replace(h, epochs=[replace(e, **{name: None}) for e in h.epochs])
        for name in FIGURES
    },
}


def judged(name, history):
    return name not in lacking(history)


def rows():
    """(id, from when, needs) of each rule, in the order of root causes."""
    found = []
    for name in [n for n in explanations() if n in RULES]:
        epochs = next(k for k in range(20) if judged(name, full(epochs=k)))
        step = next(k for k in range(1, STEPS + 1) if judged(name, full(k, epochs)))
        begin = f"epoch {epochs}" if epochs else f"step {step}"
        whole = full(epochs=max(1, epochs))
        found.append((name, begin, [said for said, take in WITHOUT.items() if not judged(name, take(whole))]))
    return found


def as_text(table):
    lines = ["| id | judged from | needs beside the loss |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {begin} | {', '.join(needs)} |" for name, begin, needs in table)])


def test_the_guide_has_the_table_that_the_rules_have():
    assert as_text(rows()) in GUIDE.read_text(encoding="utf-8")


def test_every_rule_is_in_it_once():
    names = [name for name, _, _ in rows()]
    assert sorted(names) == sorted(RULES)


@pytest.mark.parametrize("name", RULES)
def test_nothing_is_lacking_in_a_full_history(name):
    assert judged(name, full(epochs=12))
    assert not judged(name, History())
