"""The two halves: what is calibrated on is never what is reported on."""

from collections import Counter

import pytest
from faults.all_cases import all_cases, half, split
from faults.case import Case

from wellfit.findings import explanations


def case(name, fault="", ground="training"):
    return Case(name, fault, ground, run=lambda: [])


CASES = [
    *(case(f"healthy {i}") for i in range(21)),
    *(case(f"nan {i}", "nan") for i in range(6)),
    *(case(f"mismatch {i}", "train-val-mismatch", ("audit", "training")[i % 2]) for i in range(10)),
]


def test_each_fault_and_the_healthy_are_halved():
    halves = split(CASES)
    assert halves.keys() == {c.name for c in CASES}
    for fault in ("", "nan", "train-val-mismatch"):
        counts = Counter(halves[c.name] for c in CASES if c.fault == fault)
        assert abs(counts["calibrate"] - counts["report"]) <= 1
    for ground in ("audit", "training"):
        counts = Counter(halves[c.name] for c in CASES if c.fault == "train-val-mismatch" and c.ground == ground)
        assert sorted(counts.values()) == [2, 3]


def test_the_halves_depend_on_names_alone():
    halves = split(CASES)
    assert split(reversed(CASES)) == halves
    without = split(c for c in CASES if c.fault != "nan")
    assert without == {name: part for name, part in halves.items() if not name.startswith("nan")}
    # Written down: a change of the hash would mix what was calibrated on with what is reported.
    assert split(case(n, "nan") for n in "abcdef") == {
        "d": "calibrate",
        "f": "report",
        "c": "calibrate",
        "b": "report",
        "e": "calibrate",
        "a": "report",
    }


def test_the_cases_are_what_the_measure_asks_for():
    cases = all_cases()
    healthy = [c for c in cases.values() if not c.fault and c.ground == "training"]
    assert len(healthy) >= 220
    assert all(c.at_least is not None and 0 < c.at_least < 1 for c in healthy)
    by_half = Counter(half(c) for c in healthy)
    assert min(by_half.values()) >= 110
    planted = {c.fault for c in cases.values() if c.fault}
    assert planted <= explanations().keys()
    for fault in planted:
        counts = Counter(half(c) for c in cases.values() if c.fault == fault)
        assert min(counts.values()) >= 2
    assert all(c.module for c in cases.values())


def test_two_cases_of_one_name_are_refused(monkeypatch):
    from faults import healthy

    all_cases.cache_clear()
    monkeypatch.setattr(healthy, "cases", lambda: [case("twice"), case("twice")])
    try:
        with pytest.raises(ValueError, match="twice"):
            all_cases()
    finally:
        all_cases.cache_clear()
