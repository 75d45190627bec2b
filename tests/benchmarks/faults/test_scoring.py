"""The figures, on outcomes written by hand."""

import pytest
from faults.case import Case, Watched
from faults.outcomes import Outcome
from faults.scoring import (
    ALL_IDS,
    Judged,
    alarms,
    alarms_on_the_way,
    bounds,
    counted,
    first_named,
    judge_outcome,
    named,
    rows,
    said_on_the_way,
)

from wellfit.diagnosis.history import History
from wellfit.findings import Finding, explanations


def finding(name, severity="warning"):
    return Finding(name, severity, "seen")


def sick(fault, number, hit, named_at=None, undecided=False, ground="training"):
    return Judged(f"{fault} {number}", fault, ground, "report", hit=hit, named_at=named_at, undecided=undecided)


def healthy(number, *said, ground="training", well=True):
    return Judged(f"healthy {number}", "", ground, "report", alarms=said, healthy=well)


def test_every_public_id_has_an_explanation():
    assert set(ALL_IDS) <= explanations().keys()
    assert len(ALL_IDS) == len(set(ALL_IDS))


def test_only_warnings_and_errors_take_places():
    said = [finding("nan", "error"), finding("plateau", "info"), finding("oscillating"), finding("loss-spike")]
    assert counted(said) == ["nan", "oscillating", "loss-spike"]
    assert named(said, "nan")
    assert named(said, "oscillating"), "the info before it takes no place"
    assert not named(said, "loss-spike"), "third"
    assert not named(said, "plateau"), "an info is no hit"


def test_still_improving_counts_as_an_info_and_takes_a_place_of_its_own():
    still = finding("still-improving", "info")
    assert named([finding("plateau"), still], "still-improving")
    assert not named([finding("plateau"), finding("underfitting"), still], "still-improving")
    assert counted([still, finding("plateau")], "plateau") == ["plateau"]


def judge_by_length(found):
    """A rule that names the fault at lengths in `found`."""

    def judge(history):
        return ([finding("nan", "error")] if len(history.losses) in found else []), {"oscillating": "too short"}

    return judge


def test_first_named_is_the_first_prefix_of_ten_steps_or_the_end():
    history = History(losses=[1.0] * 45, lrs=[0.1] * 45)
    assert first_named(history, "nan", judge_by_length({30, 40})) == pytest.approx(30 / 45)
    assert first_named(history, "nan", judge_by_length({35})) is None
    assert first_named(history, "nan", judge_by_length({45})) == 1
    assert first_named(History(losses=[1.0] * 40), "nan", judge_by_length({40})) == 1


def training(fault, accuracy=0.5, at_least=None, losses=50):
    case = Case("a case", fault, "training", run=lambda: [], at_least=at_least)
    watched = Watched(History(losses=[1.0] * losses, lrs=[0.1] * losses), accuracy, 1.0)
    return case, Outcome(case.name, fault, "training", 2.0, watched=watched)


def test_a_training_is_judged_at_its_end():
    got = judge_outcome(training("nan")[0], "report", training("nan")[1], judge_by_length({20, 50}))
    assert (got.hit, got.undecided, got.named_at, got.alarms) == (True, False, 0.4, ("nan",))
    # Named on the way and taken back: no hit at the end.
    case, outcome = training("nan")
    assert not judge_outcome(case, "report", outcome, judge_by_length({20})).hit
    case, outcome = training("oscillating")
    got = judge_outcome(case, "report", outcome, judge_by_length({50}))
    assert (got.hit, got.undecided, got.named_at) == (False, True, None)


@pytest.mark.parametrize(("accuracy", "well"), [(0.91, False), (0.92, True)])
def test_a_healthy_case_below_its_accuracy_is_not_healthy(accuracy, well):
    case, outcome = training("", accuracy, at_least=0.92)
    assert judge_outcome(case, "report", outcome, judge_by_length(set())).healthy is well


def test_checks_are_judged_by_what_they_found():
    case = Case("a check", "batch-leak", "check", run=lambda: [])
    outcome = Outcome(case.name, case.fault, "check", 1.0, findings=(finding("initial-loss"), finding("batch-leak")))
    got = judge_outcome(case, "calibrate", outcome, judge_by_length(set()))
    assert got.hit
    assert got.alarms == ("initial-loss", "batch-leak")
    assert got.named_at is None


def test_a_case_that_died_is_a_miss_and_not_well():
    case = Case("a case", "nan", "training", run=lambda: [])
    got = judge_outcome(case, "report", Outcome("a case", "nan", "training", 1.0, error="x\nKeyError: 3\n"), None)
    assert (got.hit, got.healthy, got.error) == (False, False, "KeyError: 3")
    assert not {b.text: b.met for b in bounds([got])}["cases that failed, or healthy ones that did not learn, 0"]


def test_rows_count_by_id_and_a_training_never_named_counts_as_its_whole():
    table = rows(
        [
            sick("oscillating", 0, True, 0.3),
            sick("oscillating", 1, False, None, undecided=True),
            sick("oscillating", 2, True, 0.1),
            sick("nan", 0, True, 0.1),
            sick("batch-leak", 0, True, ground="check"),
            healthy(0),
        ]
    )
    assert [row.fault for row in table] == ["nan", "oscillating", "batch-leak"]
    nan, oscillating, leak = table
    assert (oscillating.cases, oscillating.hits, oscillating.misses, oscillating.undecided) == (3, 2, 1, 1)
    assert oscillating.named_at == 0.3
    assert nan.named_at == 0.1
    assert leak.named_at is None
    # Wilson 1927 for 2 of 3, by hand: centre 0.5731, half 0.3655.
    assert oscillating.interval == pytest.approx((0.2077, 0.9385), abs=1e-4)


def test_false_alarms_are_counted_by_ground():
    found = alarms(
        [
            healthy(0, "nan", "plateau"),
            healthy(1, "plateau"),
            healthy(2),
            healthy(3, ground="audit"),
            sick("nan", 0, True),
        ]
    )
    assert [(a.ground, a.cases, a.alarmed) for a in found] == [("training", 3, 2), ("audit", 1, 0)]
    assert found[0].ids == {"plateau": 2, "nan": 1}


def test_what_a_healthy_training_was_told_on_the_way_counts_apart():
    history = History(losses=[1.0] * 100)
    assert said_on_the_way(history, judge_by_length({40, 100})) == ("nan",), "at 40 of 100 steps; the end is no look"
    assert said_on_the_way(history, judge_by_length({45, 100})) == ()
    early = Judged("healthy 9", "", "training", "report", on_the_way=("nan",))
    assert alarms([early])[0].alarmed == 0
    ever = alarms_on_the_way([early, healthy(1, "plateau"), healthy(2), healthy(3, "nan", ground="audit")])
    assert (ever.cases, ever.alarmed) == (3, 2)


def met(judged, whole=False):
    return {bound.text.split(",")[0]: bound.met for bound in bounds(judged, whole=whole)}


def test_bounds_of_a_good_doctor_are_met():
    good = [sick(fault, i, True, 0.1) for fault in ALL_IDS for i in range(4)]
    good += [healthy(i, *(["nan"] if i < 3 else [])) for i in range(100)]
    assert all(met(good, whole=True).values())


def test_each_bound_can_be_missed():
    good = [sick(fault, i, True, 0.1) for fault in ("nan", "oscillating") for i in range(30)]
    good += [healthy(i) for i in range(100)]
    assert all(met(good).values())
    assert not met(good, whole=True)["ids without a hit"]
    missed = [*good, *(sick("nan", 30 + i, False) for i in range(4))]
    assert [name for name, well in met(missed).items() if not well] == ["share of sick cases named"]
    silent = [*good, sick("plateau", 0, False)]
    assert [name for name, well in met(silent).items() if not well] == ["ids without a hit"]
    late = [sick("nan", i, True, 0.2) for i in range(3)]
    assert [name for name, well in met(late).items() if not well] == ["median share of a run until named"]
    alarmed = [*good, *(healthy(100 + i, "nan") for i in range(4))]
    assert [name for name, well in met(alarmed).items() if not well] == ["share of healthy trainings with an alarm"]
    weak = [*good, healthy(100, well=False)]
    assert [name for name, well in met(weak).items() if not well] == ["cases that failed"]


def test_audits_without_alarms_do_not_thin_those_of_trainings():
    judged = [healthy(i, "nan") for i in range(4)] + [healthy(i, ground="audit") for i in range(1000)]
    assert met(judged) == {
        "share of healthy trainings with an alarm": False,
        "share of healthy audits with an alarm": True,
        "cases that failed": True,
    }
