from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.conftest import listed
from wellfit.data.audit import Audit
from wellfit.data.sources import Source
from wellfit.data.split import FOLDS, Split, make_split
from wellfit.errors import UserError


def audited(source: Source, groups=None, usable=None, copies=None) -> Audit:
    count = len(source.names)
    return Audit(
        images=count,
        classes={},
        left_out=[],
        findings=[],
        group_of=np.arange(count) if groups is None else np.asarray(groups, dtype=np.int64),
        usable=np.ones(count, bool) if usable is None else np.asarray(usable, dtype=bool),
        copies=np.zeros(count, bool) if copies is None else np.asarray(copies, dtype=bool),
    )


def split_of(labels, splits=None, *, groups=None, usable=None, copies=None, seed=0, **shares) -> Split:
    source = listed([b""] * len(labels), labels, splits)
    return make_split(source, audited(source, groups, usable, copies), seed=seed, **shares)


def parts(split: Split) -> list[list[int]]:
    return [split.train.tolist(), split.validation.tolist(), split.test.tolist()]


def everything(split: Split) -> list[int]:
    return [index for part in parts(split) for index in part]


many_labels = st.lists(st.sampled_from("abcde"), min_size=0, max_size=120).map(lambda more: [*more, *"aaabbbcccdddeee"])


@settings(max_examples=60, deadline=None)
@given(many_labels, st.integers(0, 10), st.sampled_from([0.1, 0.15, 0.3]), st.sampled_from([0.0, 0.15, 0.4]))
def test_single_images(labels: list[str], seed: int, validation: float, test: float) -> None:
    split = split_of(labels, seed=seed, validation=validation, test=test)
    assert sorted(everything(split)) == list(range(len(labels)))  # disjoint, and all of them
    assert split.classes == list("abcde")
    for number, name in enumerate(split.classes):
        size = labels.count(name)
        counts = [int((split.targets[part] == number).sum()) for part in (split.train, split.validation, split.test)]
        assert counts[0] >= 1
        assert counts[1] >= 1
        assert abs(counts[1] - validation * size) <= 1
        assert abs(counts[2] - test * size) <= 1
    assert parts(split) == parts(split_of(labels, seed=seed, validation=validation, test=test))
    assert [labels[i] for i in split.train] == [split.classes[split.targets[i]] for i in split.train]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 25)), min_size=30, max_size=150), st.integers(0, 5))
def test_whole_groups(rows: list[tuple[str, int]], seed: int) -> None:
    labels, groups = [label for label, _ in rows] + list("abc"), [group for _, group in rows] + [30, 31, 32]
    split = split_of(labels, groups=groups, seed=seed)
    assert sorted(everything(split)) == list(range(len(labels)))
    sides = [{groups[i] for i in part} for part in parts(split)]
    assert sum(map(len, sides)) == len(set().union(*sides))
    for number in range(3):
        assert (split.targets[split.train] == number).any()
    if split.folds is not None:
        together = [i for fold in split.folds for i in fold.tolist()]
        assert len(together) == len(set(together))
        assert set(together) <= set(split.train.tolist() + split.validation.tolist())
        inside = [{groups[i] for i in fold} for fold in split.folds]
        assert sum(map(len, inside)) == len(set().union(*inside))
        for fold in split.folds:
            rest = np.setdiff1d(np.concatenate([split.train, split.validation]), fold)
            assert len(np.unique(split.targets[rest])) == 3  # every fold trains on every class


def test_another_seed_gives_another_split() -> None:
    labels = list("ab") * 100
    assert parts(split_of(labels, seed=0)) != parts(split_of(labels, seed=1))
    assert split_of(labels, seed=0).folds[0].tolist() != split_of(labels, seed=1).folds[0].tolist()


def test_folds_of_small_sets_only() -> None:
    small = split_of(list("ab") * 200)
    assert small.folds is not None
    assert len(small.folds) == FOLDS
    assert sorted(np.concatenate(small.folds)) == sorted([*small.train, *small.validation])
    for fold in small.folds:
        assert np.bincount(small.targets[fold]).tolist() == [34, 34]
    assert any("5 folds" in sentence for sentence in small.sentences)
    assert split_of(list("ab") * 400).folds is None
    # Where the user gave a validation split, it is the one that counts.
    assert split_of(list("ab") * 20, ["train"] * 30 + ["validation"] * 10).folds is None


def test_given_splits_are_kept() -> None:
    labels = list("ab") * 10
    given_splits = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4
    split = split_of(labels, given_splits)
    assert parts(split) == [list(range(12)), [12, 13, 14, 15], [16, 17, 18, 19]]
    assert split.sentences[0] == "12 training, 4 validation and 4 test images: as the data give them"


def test_only_what_is_missing_is_carved() -> None:
    labels = list("ab") * 50
    split = split_of(labels, ["train"] * 80 + ["test"] * 20)
    assert split.test.tolist() == list(range(80, 100))
    assert len(split.validation) == 12
    assert sorted([*split.train, *split.validation]) == list(range(80))
    split = split_of(labels, ["train"] * 80 + ["validation"] * 20)
    assert split.validation.tolist() == list(range(80, 100))
    assert len(split.test) == 12
    assert "the test images carved" in split.sentences[0]


def test_beside_stated_splits_an_image_without_one_is_for_training() -> None:
    split = split_of(list("ab") * 10, [""] * 16 + ["test"] * 4)
    assert split.test.tolist() == [16, 17, 18, 19]


def test_the_sealed_test_split_decides_nothing() -> None:
    draw = np.random.default_rng(0)
    labels, given_splits = list("abc") * 40, (["train"] * 5 + ["test"]) * 20
    groups = draw.integers(0, 50, 120)
    source = listed([b""] * 120, labels, given_splits)
    is_test = np.array(given_splits) == "test"
    before = make_split(source, audited(source, groups), seed=0)

    shuffled = np.array(labels)
    shuffled[is_test] = draw.permutation(shuffled[is_test])
    source.labels = shuffled.tolist()
    other_groups = groups.copy()
    other_groups[is_test] = 1000 + np.arange(is_test.sum())  # other pixels, so other copies
    usable = ~is_test | (np.arange(120) % 4 == 1)
    after = make_split(source, audited(source, other_groups, usable), seed=0)
    assert after.classes == before.classes
    assert after.train.tolist() == before.train.tolist()
    assert after.validation.tolist() == before.validation.tolist()
    assert (after.targets[~is_test] == before.targets[~is_test]).all()
    assert len(after.test) < len(before.test)


def test_unusable_images_and_copies_of_held_out_ones_are_in_no_part() -> None:
    labels, given_splits = list("ab") * 20, ["train"] * 30 + ["test"] * 10
    usable, copies = np.ones(40, bool), np.zeros(40, bool)
    usable[[0, 35]] = False
    copies[[3, 4]] = True
    split = split_of(labels, given_splits, usable=usable, copies=copies)
    assert sorted(everything(split)) == sorted(set(range(40)) - {0, 3, 4, 35})
    assert any(sentence.startswith("2 images are left unused") for sentence in split.sentences)


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["10", "9", "2"], ["2", "9", "10"]),
        (["-1", "007", "1"], ["-1", "1", "007"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["b", "B", "a"], ["B", "a", "b"]),
    ],
)
def test_class_order(labels: list[str], order: list[str]) -> None:
    split = split_of(labels * 4)
    assert split.classes == order
    assert split.targets[:3].tolist() == [order.index(label) for label in labels]


def test_two_images_of_each_class() -> None:
    split = split_of(list("aabb"))
    assert [len(part) for part in parts(split)] == [2, 2, 0]
    assert set(split.targets[split.validation]) == {0, 1}
    assert "no test split: the classes have too few images to spare any" in split.sentences
    mixed = split_of([*"aa", *"b" * 20])
    assert "1 class is not in test: too few images, or all of them in one group" in mixed.sentences
    assert {len(set(mixed.targets[part])) for part in (mixed.train, mixed.validation)} == {2}


def test_a_class_that_is_one_group_is_trained_on() -> None:
    labels = [*"a" * 10, *"b" * 40]
    split = split_of(labels, groups=[0] * 10 + list(range(1, 41)))
    assert set(range(10)) <= set(split.train.tolist())
    assert "1 class is not in validation: too few images, or all of them in one group" in split.sentences
    assert all(not set(range(10)) & set(fold.tolist()) for fold in split.folds)
    assert any(
        "10 images of a class that cannot be divided over folds stay in training in all of them" in sentence
        for sentence in split.sentences
    )


def test_no_test_split_on_request() -> None:
    split = split_of(list("ab") * 20, test=0.0)
    assert len(split.test) == 0
    assert "no test split was asked for" in split.sentences


@pytest.mark.parametrize(
    ("validation", "test"), [(0.0, 0.15), (0.5, 0.5), (-0.1, 0.1), (0.2, 1.0), (float("nan"), 0.1)]
)
def test_shares_that_leave_nothing(validation: float, test: float) -> None:
    with pytest.raises(UserError, match="fractions"):
        split_of(list("ab") * 20, validation=validation, test=test)


def test_a_given_split_without_a_usable_image() -> None:
    usable = [True] * 8 + [False] * 2
    with pytest.raises(UserError, match="test split of 'made up' has no usable image"):
        split_of(list("ab") * 5, ["train"] * 8 + ["test"] * 2, usable=usable)


def test_a_class_that_training_lacks() -> None:
    with pytest.raises(UserError, match=r"class 'b'.*has none"):
        split_of(list("aabb"), ["train", "train", "validation", "validation"])
