from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.data.assign import TEST, TRAIN, VALIDATION, assign, fold_quotas, held_out_quotas, members_of, spread
from wellfit.randomness import generator

DRAW = (0, "test of assign")


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=20),
    st.floats(0.01, 0.45),
    st.floats(0.0, 0.45),
)
def test_held_out_quotas(sizes: list[int], validation: float, test: float) -> None:
    array = np.array(sizes)
    quotas = held_out_quotas(array, validation, test)
    assert (quotas >= 0).all()
    assert (quotas.sum(axis=1) == array).all()
    assert (quotas[array >= 1, TRAIN] >= 1).all()
    assert (quotas[array >= 2, VALIDATION] >= 1).all()
    if test > 0:
        assert (quotas[array >= 3, TEST] >= 1).all()
        assert (np.abs(quotas[:, TEST] - array * test) <= 1)[array >= 3].all()
    else:
        assert not quotas[:, TEST].any()
    assert (np.abs(quotas[:, VALIDATION] - array * validation) <= 1).all()


def test_held_out_quotas_by_hand() -> None:
    sizes = np.array([0, 1, 2, 3, 10, 100])
    assert held_out_quotas(sizes, 0.15, 0.15).tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [1, 1, 0],
        [1, 1, 1],
        [6, 2, 2],
        [70, 15, 15],
    ]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=30))
def test_fold_quotas(sizes: list[int]) -> None:
    array = np.array(sizes)
    quotas = fold_quotas(array, 5)
    assert (quotas.sum(axis=1) == array).all()
    assert (quotas.max(axis=1) - quotas.min(axis=1) <= 1).all()
    assert np.ptp(quotas.sum(axis=0)) <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=80), st.integers(0, 5))
def test_groups_stay_whole_and_every_image_has_a_part(rows: list[tuple[int, int]], seed: int) -> None:
    classes, groups = np.array(rows).T
    quotas = held_out_quotas(np.bincount(classes, minlength=5), 0.2, 0.2)
    part = assign(classes, groups, quotas, generator(seed, "x"))
    assert set(part.tolist()) <= {TRAIN, VALIDATION, TEST}
    for group in np.unique(groups):
        assert len(np.unique(part[groups == group])) == 1


def test_single_images_meet_every_quota_exactly() -> None:
    classes = np.repeat(np.arange(4), [10, 25, 7, 58])
    quotas = held_out_quotas(np.bincount(classes), 0.15, 0.15)
    part = assign(classes, np.arange(100), quotas, generator(*DRAW))
    table = np.zeros((4, 3), int)
    np.add.at(table, (classes, part), 1)
    assert (table == quotas).all()


def test_groups_are_dealt_in_proportion() -> None:
    groups = np.repeat(np.arange(100), 6)
    quotas = held_out_quotas(np.array([600]), 0.15, 0.15)
    part = assign(np.zeros(600, np.int64), groups, quotas, generator(*DRAW))
    assert np.abs(np.bincount(part) - quotas[0]).max() <= 6


def test_single_images_make_up_for_uneven_groups() -> None:
    classes = np.zeros(300, np.int64)
    groups = np.concatenate([np.zeros(40, np.int64), np.repeat(np.arange(1, 11), 6), np.arange(100, 300)])
    quotas = held_out_quotas(np.array([300]), 0.15, 0.15)
    part = assign(classes, groups, quotas, generator(*DRAW))
    assert np.bincount(part).tolist() == quotas[0].tolist()


def test_the_numbers_of_the_groups_do_not_matter() -> None:
    draw = np.random.default_rng(0)
    classes, groups = draw.integers(0, 3, 200), draw.integers(0, 60, 200)
    other_numbers = draw.permutation(1000)[groups]
    quotas = held_out_quotas(np.bincount(classes), 0.2, 0.1)
    first = assign(classes, groups, quotas, generator(*DRAW))
    assert first.tolist() == assign(classes, other_numbers, quotas, generator(*DRAW)).tolist()


def test_every_group_has_the_same_chance() -> None:
    groups = np.repeat(np.arange(20), 5)
    quotas = held_out_quotas(np.array([100]), 0.2, 0.0)
    chosen = np.zeros(20)
    for seed in range(200):
        part = assign(np.zeros(100, np.int64), groups, quotas, generator(seed, "x"))
        chosen[np.unique(groups[part == VALIDATION])] += 1
    assert chosen.sum() == 200 * 4
    assert chosen.min() > 15  # 40 expected, deviation 5.7
    assert chosen.max() < 65


def test_members_of() -> None:
    assert [rows.tolist() for rows in members_of(np.array([7, 2, 7, 9, 2]))] == [[0, 2], [1, 4], [3]]
    assert members_of(np.zeros(0, np.int64)) == []


@pytest.mark.parametrize(
    ("part", "groups", "expected"),
    [
        ([1, 1, 1, 1], [0, 1, 2, 2], [0, 1, 1, 1]),  # training first, by the smallest group
        ([0, 0, 0, 0], [0, 0, 1, 2], [0, 0, 1, 2]),  # then the others, as long as training keeps some
        ([0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]),  # one group cannot be divided
        ([0, 0, 1, 2], [0, 1, 2, 3], [0, 0, 1, 2]),  # nothing to do
    ],
)
def test_spread(part: list[int], groups: list[int], expected: list[int]) -> None:
    array = np.array(part)
    spread(array, np.zeros(4, np.int64), np.array(groups), [TRAIN, VALIDATION, TEST])
    assert array.tolist() == expected


def test_spread_does_not_take_the_last_image_of_another_class() -> None:
    # Class 1 lacks validation; its smaller group holds the only training image of class 0 too.
    part, classes, groups = np.array([0, 0, 0, 0, 1]), np.array([0, 1, 1, 1, 0]), np.array([0, 0, 1, 1, 2])
    spread(part, classes, groups, [TRAIN, VALIDATION])
    assert part.tolist() == [0, 0, 1, 1, 1]
