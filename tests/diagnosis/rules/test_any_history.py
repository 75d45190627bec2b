"""Whatever a loop does, judging its history raises nothing, and every id is judged or named with what it lacked."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from wellfit.diagnosis.rules import DEFECT, RULES, judge, lacking
from wellfit.findings import Finding, explanations

# Numbers as broken trainings make them.
ODD = st.sampled_from(
    [0.0, -0.0, 1e-300, 1e-9, 1e-3, 0.5, 1.0, 2.3, 40.0, 1e12, 1e300, -1.0, math.nan, math.inf, -math.inf]
)
NUMBER = st.one_of(ODD, st.floats(0, 10))
SHARE = st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.5, 0.93, 1.0]))


@st.composite
def outputs(draw):
    width, images = draw(st.integers(2, 4)), draw(st.integers(1, 40))
    counts = st.lists(st.integers(0, 30), min_size=width, max_size=width).map(np.array)
    with_targets = draw(st.booleans())
    maybe = st.one_of(st.none(), NUMBER)
    return Output(
        images,
        width,
        draw(NUMBER),
        probabilities=draw(st.booleans()),
        top=draw(NUMBER),
        as_logits=draw(maybe) if with_targets else None,
        as_probabilities=draw(maybe) if with_targets else None,
        predicted=draw(counts),
        targets=draw(counts) if with_targets else None,
        correct=draw(st.integers(0, images)) if with_targets else None,
    )


@st.composite
def figures(draw):
    channels = draw(st.sampled_from([1, 3]))
    k = 2 * channels + 3
    values = np.array(draw(st.lists(NUMBER, min_size=k, max_size=k)))
    spread = np.diag(np.full(k, draw(NUMBER)))
    return InputFigures(
        (channels, 8, 8), draw(st.integers(1, 500)), draw(st.integers(1, 9)), values, spread, spread, 0, 1
    )


@st.composite
def histories(draw):
    # Long runs come from a few drawn values: what matters is which rules wake up.
    steps = draw(st.sampled_from([0, 1, 2, 5, 19, 60, 150, 400]))
    basis = np.array(draw(st.lists(NUMBER, min_size=3, max_size=6)))
    losses = np.resize(basis, steps) if draw(st.booleans()) else np.sort(np.resize(basis, steps))[::-1]
    lrs = np.resize(np.array(draw(st.lists(st.one_of(ODD, st.floats(0, 1)), min_size=1, max_size=4))), steps)
    names = draw(st.integers(1, 6))
    layers = draw(st.integers(0, 5))
    kinds = st.sampled_from(["relu", "bounded", "other"])
    watched = []
    for step in range(0, steps, draw(st.sampled_from([1, 10]))) if draw(st.booleans()) else []:
        if len(watched) >= 30:
            break
        norms = [np.resize(draw(st.lists(NUMBER, min_size=1, max_size=3)), names) for _ in range(3)]
        watched.append(
            Sample(
                step,
                *norms,
                promised=draw(NUMBER),
                layers=[
                    Layer(str(i), draw(kinds), draw(NUMBER), draw(NUMBER), draw(NUMBER), draw(SHARE), draw(SHARE))
                    for i in range(layers)
                ],
                output=draw(st.one_of(st.none(), outputs())),
                carried=draw(st.sampled_from([None, True, False])),
                input=draw(st.one_of(st.none(), st.tuples(NUMBER, NUMBER))),
                inputs=draw(st.one_of(st.none(), figures())),
                modes=Modes(draw(st.booleans()), np.array([draw(st.booleans())] * 2), *np.full((2, 2), draw(NUMBER))),
            )
        )
        if len(watched) > 2 and draw(st.booleans()):
            watched += [
                Sample(**{**vars(watched[-1]), "step": step}) for step in range(watched[-1].step + 1, steps, 10)
            ][:20]
            break
    epochs = [
        Epoch(
            steps,
            draw(st.one_of(st.none(), NUMBER)),
            draw(SHARE),
            draw(st.one_of(st.none(), NUMBER)),
            draw(SHARE),
            draw(
                st.one_of(
                    st.none(),
                    st.builds(
                        Passes,
                        st.integers(1, 5),
                        st.integers(0, 5),
                        st.integers(0, 5),
                        st.integers(1, 64),
                        st.tuples(figures()),
                    ),
                )
            ),
        )
        for _ in range(draw(st.sampled_from([0, 1, 3, 9])))
    ]
    classes = draw(st.sampled_from([None, 2, 3, 10]))
    return History(
        losses=losses.tolist(),
        lrs=lrs.tolist() if draw(st.booleans()) else [],
        samples=watched,
        epochs=epochs,
        parameters=[
            Parameter(f"{i}.weight", 10, draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))
            for i in range(names)
        ],
        batchnorms=[BatchNorm("a", draw(st.booleans()), draw(st.sampled_from([None, 0.0, 1e-4, 0.1, 0.99, 1.0])))] * 2,
        classes=classes,
        class_counts=draw(st.sampled_from([None, np.zeros(3, np.int64), np.array([5, 0, 1])])),
    )


@settings(max_examples=150, deadline=None)
@given(histories())
def test_no_history_breaks_a_rule(history):
    with warnings.catch_warnings(action="error"):
        findings, unjudged = judge(history)
    assert not {name: why for name, why in unjudged.items() if why.startswith(DEFECT)}
    assert all(why.strip() for why in unjudged.values())
    ids = [f.id for f in findings]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & set(unjudged)
    order = list(explanations())
    assert [order.index(name) for name in ids] == sorted(order.index(name) for name in ids)
    for finding in findings:
        assert isinstance(finding, Finding)
        assert finding.message
        assert finding.action
        json.dumps(finding.evidence)


def test_without_a_step_every_id_is_unjudged():
    assert set(lacking(History())) == set(RULES)


def test_a_broken_rule_is_named_and_the_others_judge_on(monkeypatch):
    broken = RULES["exploding"].__class__(lambda h: 1 / 0)
    monkeypatch.setitem(RULES, "exploding", broken)
    findings, unjudged = judge(History(losses=[2.3] * 20 + [math.nan]))
    assert [f.id for f in findings] == ["nan"]
    assert unjudged["exploding"].startswith(DEFECT)
    assert "ZeroDivisionError" in unjudged["exploding"]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_an_explanation(name):
    assert explanations()[name]["text"]
