"""The command, on results written by hand, and two real cases from end to end."""

import pytest
from faults import run
from faults.all_cases import all_cases, half
from faults.case import Case
from faults.outcomes import keep, run_case
from faults.scoring import Judged, judge_outcome

from wellfit.errors import UserError


def judged(name, fault, part, **fields):
    return Judged(name, fault, "training", part, **fields)


def well(part):
    return [
        *(judged(f"ill {i}", "nan", part, hit=True, named_at=0.1, alarms=("nan",)) for i in range(20)),
        *(judged(f"sound {i}", "", part) for i in range(40)),
    ]


def test_the_table_says_whether_the_bounds_are_met(capsys):
    assert run.report(well("report"), "report", whole=False)
    out = capsys.readouterr().out
    assert "reporting half: 20 sick, 40 healthy" in out
    assert "MISSED" not in out
    assert not run.report(well("report"), "report", whole=True), "other ids have no case"


@pytest.mark.parametrize("part", ["calibrate", "report"])
def test_cases_are_named_for_the_calibration_half_alone(part, capsys):
    bad = [
        judged("the missed one", "nan", part, alarms=("plateau",)),
        judged("the alarmed one", "", part, alarms=("nan",)),
    ]
    run.report([*well(part), *bad], part, whole=False)
    out = capsys.readouterr().out
    assert ("the missed one: said plateau" in out) is (part == "calibrate")
    assert ("the alarmed one: said nan" in out) is (part == "calibrate")
    assert "1 of 41 with a false alarm" in out


def test_a_case_that_is_not_healthy_is_named_in_either_half(capsys):
    assert not run.report([*well("report"), judged("weak", "", "report", healthy=False)], "report", whole=False)
    assert "not healthy:\n  weak\n" in capsys.readouterr().out


def test_an_unknown_id_is_one_sentence():
    with pytest.raises(UserError, match="no case plants 'nam'"):
        run.choose(["nam"], "both")


def test_choosing_by_id_and_half():
    chosen = run.choose(["nan", "healthy"], "report")
    assert {c.fault for c in chosen} == {"nan", ""}
    assert {half(c) for c in chosen} == {"report"}
    assert len(run.choose(["nan"], "both")) == len(run.choose(["nan"], "report")) + len(
        run.choose(["nan"], "calibrate")
    )


def test_the_reporting_half_is_not_shown(tmp_path):
    name = next(c.name for c in all_cases().values() if half(c) == "report")
    with pytest.raises(UserError, match="reporting half"):
        run.show(name, tmp_path)


def quick(sick: bool) -> Case:
    """A training of the calibration half on digits that takes a second or two."""
    return next(
        c
        for c in all_cases().values()
        if bool(c.fault) is sick
        and half(c) == "calibrate"
        and c.ground == "training"
        and "mlp on digits" in c.name
        and "epochs" not in c.name
    )


@pytest.mark.parametrize("sick", [False, True])
def test_a_case_from_end_to_end(sick, tmp_path, capsys):
    case = quick(sick)
    outcome = run_case(case)
    assert not outcome.error
    assert outcome.watched.history.epochs
    keep(case, outcome, tmp_path)
    got = judge_outcome(case, half(case), outcome, run._rules)
    assert got.healthy
    assert run.show(case.name, tmp_path) == 0
    out = capsys.readouterr().out
    assert case.name in out
    assert f"planted: {case.fault or 'nothing'}" in out
    assert f"{len(outcome.watched.history.losses)} steps" in out
    assert ("of the run" in out or "never named" in out) is sick
