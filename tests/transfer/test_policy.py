"""The taught table, from measured numbers (SPEC T4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wellfit.transfer.policy import (
    ALL,
    EARLIER,
    FEW_EPOCHS,
    LITTLE,
    PROBE,
    SCRATCH,
    STRATEGIES,
    TOP,
    Evidence,
    Stage,
    decide,
    handed_over,
)


def evidence(images: int, early: float, late: float, **more: object) -> Evidence:
    stages = [Stage("low", "grid4", early, 1 - early), Stage("high", "mean+max", late, 1 - late)]
    return replace(Evidence(images, 10, 400, "accuracy", stages), **more)


@pytest.mark.parametrize(
    ("images", "early", "late", "cell", "strategies"),
    [
        (LITTLE - 1, 0.7, 0.9, ("little", "similar"), (PROBE,)),
        (LITTLE - 1, 0.9, 0.7, ("little", "different"), (EARLIER,)),
        (LITTLE, 0.7, 0.9, ("lot", "similar"), (PROBE, ALL)),
        (LITTLE, 0.9, 0.7, ("lot", "different"), (EARLIER, ALL, SCRATCH)),
    ],
)
def test_the_four_cells(
    images: int, early: float, late: float, cell: tuple[str, str], strategies: tuple[str, ...]
) -> None:
    decision = decide(evidence(images, early, late))
    assert decision.cell == cell
    assert decision.strategies == strategies
    assert set(strategies) <= set(STRATEGIES)
    marked = [line for line in decision.table.splitlines() if ">" in line]
    assert 1 <= len(marked) <= 2
    column = 0 if cell[1] == "similar" else 1
    for line in marked:
        cells = line.split("|")[1:]
        assert ">" in cells[column]
        assert ">" not in cells[1 - column]


def test_where_the_time_is_short_less_is_fine_tuned() -> None:
    similar, different = (evidence(LITTLE, *scores) for scores in ((0.7, 0.9), (0.9, 0.7)))
    for epochs, of_similar, of_different in (
        (FEW_EPOCHS, ALL, (ALL, SCRATCH)),
        (1.0, TOP, (ALL, SCRATCH)),
        (0.9, TOP, (TOP, SCRATCH)),
    ):
        decision = decide(replace(similar, epochs=epochs))
        assert decision.strategies == (PROBE, of_similar)
        assert any(f"holds {epochs:.1f} epochs" in reason for reason in decision.reasons) == (of_similar == TOP)
        assert decide(replace(different, epochs=epochs)).strategies == (EARLIER, *of_different)
    assert decide(replace(similar, images=LITTLE - 1, epochs=0.9)).strategies == (PROBE,)


def test_the_table_holds_the_users_own_numbers() -> None:
    given = evidence(1234, 0.612, 0.834, control=(0.75, 0.31), control_images=100)
    table = decide(given).table
    for text in (
        "1,234 training images of 10 classes",
        "low (grid4)  61.2%",
        "high (mean+max)  83.4%",
        "31.0%",
        "75.0%",
    ):
        assert text in table


def test_an_earlier_stage_that_leads_by_chance_alone_does_not_make_data_different() -> None:
    assert decide(evidence(500, 0.90, 0.89)).cell[1] == "different"  # on 400 images; its loss is lower too
    close = [Stage("low", "mean", 0.90, 0.50), Stage("high", "mean", 0.89, 0.30)]
    assert decide(replace(evidence(500, 0.9, 0.89), stages=close)).cell[1] == "similar"
    far = [Stage("low", "mean", 0.95, 0.50), Stage("high", "mean", 0.85, 0.30)]
    assert decide(replace(evidence(500, 0.9, 0.89), stages=far)).cell[1] == "different"


def test_weights_no_better_than_random_ones_are_those_of_different_data() -> None:
    decision = decide(evidence(500, 0.6, 0.7, control=(0.61, 0.60), control_images=100))
    assert (decision.cell[1], decision.helps) == ("different", False)
    assert any("do not clearly help" in reason for reason in decision.reasons)
    helped = decide(evidence(500, 0.6, 0.7, control=(0.8, 0.5), control_images=100))
    assert (helped.cell[1], helped.helps) == ("similar", True)


def test_a_last_stage_that_serves_best_keeps_its_classifier_whatever_else_speaks_against_the_weights() -> None:
    """152 images of which 40 were compared: 82.5% against 77.5% tells little, 83.6% against 80.3% a little more."""
    decision = decide(evidence(124, 0.803, 0.836, control=(0.825, 0.775), control_images=40))
    assert decision.cell == ("little", "different")
    assert decision.strategies == (PROBE,)
    assert any("sits on the last one all the same" in reason for reason in decision.reasons)
    early = decide(evidence(124, 0.836, 0.803, control=(0.825, 0.775), control_images=40))
    assert early.strategies == (EARLIER,)


def test_a_small_net_from_scratch_that_does_better_makes_data_different() -> None:
    worse = decide(evidence(500, 0.7, 0.9, scratch=(0.55, 0.9), scratch_images=400))
    assert worse.cell == ("little", "similar")
    assert "small net from scratch  55.0%" in worse.table
    by_chance = decide(evidence(500, 0.7, 0.9, scratch=(0.905, 0.9), scratch_images=400))
    assert by_chance.cell == ("little", "similar")
    better = decide(evidence(500, 0.7, 0.9, scratch=(0.95, 0.9), scratch_images=400))
    assert better.cell == ("little", "different")
    assert better.strategies == (PROBE,)  # the last stage still serves better than the earlier one
    assert any("reaches 95.0% of 400" in reason and "different data set" in reason for reason in better.reasons)


def test_a_network_of_one_stage_has_no_earlier_one() -> None:
    one = Evidence(100, 2, 100, "accuracy", [Stage("only", "mean", 0.6, 0.7)], control=(0.5, 0.5), control_images=50)
    assert decide(one).strategies == (PROBE,)


def test_validation_decides_and_a_tie_goes_to_the_simpler() -> None:
    order = (EARLIER, ALL, SCRATCH)
    assert handed_over(order, {EARLIER: 0.8, ALL: 0.8, SCRATCH: 0.7}) == EARLIER
    assert handed_over(order, {EARLIER: 0.8, ALL: 0.82, SCRATCH: 0.82}) == ALL
    assert handed_over(order, {EARLIER: 0.8, SCRATCH: 0.9, PROBE: 1.0}) == SCRATCH
