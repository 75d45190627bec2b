from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import encoded, listed, noise, open_rows, scene
from wellfit.data.audit import Audit, audit, class_order
from wellfit.data.inspect import inspect
from wellfit.data.sources import LeftOut, Source, open_source
from wellfit.data.split import make_split
from wellfit.data.store import build_store
from wellfit.errors import UserError
from wellfit.findings import SEVERITIES, Finding


def files(count: int, start: int = 0) -> list[bytes]:
    return [encoded(noise(start + i)) for i in range(count)]


def audited(source: Source, short_side: int = 320) -> Audit:
    inspection = inspect(source)
    store = build_store(source, inspection, open_rows(source, inspection), short_side=short_side)
    return audit(source, inspection, store)


def finding(result: Audit, name: str) -> Finding:
    (found,) = [f for f in result.findings if f.id == name]
    return found


def ids(result: Audit) -> list[str]:
    return [f.id for f in result.findings]


def test_good_data_have_no_findings() -> None:
    result = audited(listed(files(40)))
    assert result.findings == []
    assert result.left_out == []
    assert (result.images, result.classes) == (40, {"a": 20, "b": 20})
    assert result.group_of.tolist() == list(range(40))
    assert result.usable.all()
    assert not result.copies.any()


def test_counts_hold_the_test_split_too_and_leave_out_what_is_unusable() -> None:
    items = files(40)
    items[0], items[2] = b"", encoded(scene(0))[:500]
    source = listed(items, splits=["train"] * 30 + ["test"] * 10)
    source.left_out = [LeftOut("gone.png", "file not found")]
    result = audited(source)
    assert (result.images, result.classes) == (38, {"a": 18, "b": 20})
    assert result.left_out == [
        LeftOut("gone.png", "file not found"),
        LeftOut("0.png", "empty file"),
        LeftOut("2.png", "truncated"),
    ]
    assert np.flatnonzero(~result.usable).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("bad", "good", "severity"), [(1, 400, "info"), (3, 400, "info"), (4, 900, "warning"), (1, 60, "warning")]
)
def test_left_out_files(bad: int, good: int, severity: str) -> None:
    found = finding(audited(listed([b""] * bad + files(good))), "unreadable-files")
    assert found.severity == severity
    assert f"{bad} of {good + bad} file" in found.message
    assert "'0.png' (empty file)" in found.message
    assert ("and 1 more" in found.message) == (bad == 4)
    assert "'3.png'" not in found.message
    assert len(found.evidence["first"]) == bad


def test_misnamed_images_are_used_and_said() -> None:
    items = files(40)
    items[1] = encoded(noise(1), "JPEG")
    result = audited(listed(items))
    assert result.images == 40
    found = finding(result, "unreadable-files")
    assert found.severity == "info"
    assert found.message.startswith(
        "1 image has another type than the name says, and is used all the same: '1.png' (is JPEG)"
    )


def test_label_spelling() -> None:
    labels = ["Cat", "cat ", "cat", "dog"] * 12
    found = finding(audited(listed(files(48), labels)), "label-spelling")
    assert found.severity == "warning"
    assert "'Cat' (12) and 'cat' (12) and 'cat ' (12)" in found.message
    assert found.evidence["classes"] == [["Cat", "cat", "cat "]]


def test_the_same_bytes_in_two_classes() -> None:
    items = files(40)
    items[7] = items[4]  # classes b and a
    items[8] = items[6]  # both a
    result = audited(listed(items))
    found = finding(result, "conflicting-labels")
    assert found.severity == "warning"
    assert found.message == (
        "1 picture stands in two classes, byte for byte or nearly so, such as '4.png' (a) and '7.png' (b)"
    )
    assert found.evidence["examples"] == [[{"file": "4.png", "label": "a"}, {"file": "7.png", "label": "b"}]]
    assert result.group_of[7] == result.group_of[4]
    assert result.group_of[8] == result.group_of[6]
    assert len(set(result.group_of.tolist())) == 38


def test_near_identical_images_are_one_group() -> None:
    items = [encoded(scene(i)) for i in range(24)]
    items[5] = encoded(scene(2), "JPEG", quality=60)
    result = audited(listed(items, names=[f"{i}" for i in range(24)]))
    assert result.group_of[5] == result.group_of[2]
    assert len(set(result.group_of.tolist())) == 23
    assert ids(result) == ["conflicting-labels", "near-duplicates"]
    found = finding(result, "near-duplicates")
    assert found.severity == "info"
    assert found.evidence["images"] == 2
    assert found.evidence["examples"] == [["2", "5"]]


def test_where_thumbnails_say_nothing_only_equal_pixels_count() -> None:
    white = np.full((40, 40, 3), 255, np.uint8)
    nearly = white.copy()
    nearly[0, 0] = 254
    items = [*files(30), encoded(white), encoded(white, "BMP"), encoded(nearly), encoded(noise(0), "BMP")]
    result = audited(listed(items, names=[f"{i}" for i in range(34)]))
    assert result.group_of[31] == result.group_of[30]  # white, in two formats
    assert result.group_of[33] == result.group_of[0]  # 8×8 pixels, in two formats
    assert len(set(result.group_of.tolist())) == 32


def test_the_users_groups_and_copies_are_joined() -> None:
    items = files(40)
    items[3] = items[0]
    groups = [f"nest {i // 4}" for i in range(40)]
    groups[39] = "nest 0"
    items[38] = items[20]
    result = audited(listed(items, groups=groups))
    groups_of = result.group_of.tolist()
    assert groups_of[0] == groups_of[1] == groups_of[39] != groups_of[36]
    assert groups_of[36] == groups_of[37] == groups_of[38] == groups_of[20] == groups_of[23]
    assert len(set(groups_of)) == 9


def test_leaks_between_given_splits() -> None:
    items = [encoded(scene(i)) for i in range(60)]
    splits = ["train"] * 40 + ["validation"] * 10 + ["test"] * 10
    items[0] = items[50]  # training copy of a test image
    items[3] = items[41]  # training copy of a validation image
    items[45] = items[57]  # validation copy of a test image
    items[5] = encoded(scene(43), "JPEG", quality=60)  # nearly a validation image
    items[6] = encoded(scene(52), "JPEG", quality=60)  # nearly a test image: its pixels are sealed
    source = listed(items, splits=splits)
    result = audited(source)
    assert np.flatnonzero(result.copies).tolist() == [0, 3, 45]
    found = finding(result, "train-val-leak")
    assert found.severity == "warning"
    assert found.evidence["pictures"] == 4
    assert found.message.startswith("4 pictures stand in two splits, such as '0.png' (train) and '50.png' (test)")
    assert "3 byte-identical copies of held-out images stay unused" in found.message
    assert "6.png" not in str(found.evidence)
    split = make_split(source, result, seed=0)
    assert not {0, 3} & set(split.train.tolist())
    assert 45 not in split.validation
    assert len(split.test) == 10
    assert 5 in split.train  # near copies are named, not taken away


def test_no_leak_where_wellfit_makes_the_split() -> None:
    items = files(40)
    items[4] = items[8]
    result = audited(listed(items))
    assert "train-val-leak" not in ids(result)
    assert not result.copies.any()


def test_a_group_in_two_given_splits() -> None:
    source = listed(
        files(40), splits=["train"] * 30 + ["test"] * 10, groups=["x" if i in (0, 35) else str(i) for i in range(40)]
    )
    found = finding(audited(source), "train-val-leak")
    assert found.message == "1 of the given groups stands in two splits"
    assert found.evidence["groups"] == 1


@pytest.mark.parametrize(
    ("sizes", "severity"), [((29, 10), None), ((30, 10), "info"), ((99, 10), "info"), ((100, 10), "warning")]
)
def test_imbalance(sizes: tuple[int, int], severity: str | None) -> None:
    result = audited(listed(files(sum(sizes)), ["a"] * sizes[0] + ["b"] * sizes[1]))
    if severity is None:
        assert result.findings == []
    else:
        found = finding(result, "imbalanced-classes")
        assert found.severity == severity
        assert found.evidence["ratio"] == sizes[0] / sizes[1]


def test_small_classes_count_without_the_test_split() -> None:
    labels, splits = [*"a" * 12, *"b" * 20], [*["train"] * 9, *["test"] * 3, *["train"] * 20]
    found = finding(audited(listed(files(32), labels, splits)), "small-classes")
    assert found.evidence["classes"] == {"a": 9}
    assert "'a' (9)" in found.message
    assert audited(listed(files(20), ["a", "b"] * 10)).findings == []


def test_too_few_images_of_a_class() -> None:
    items = files(12)
    items[11] = b""
    with pytest.raises(
        UserError, match=r"class 'b' of 'made up' has 1 \(1 of its 2 files cannot be used\); add images"
    ):
        audited(listed(items, [*"a" * 10, *"bb"]))
    with pytest.raises(UserError, match=r"class 'b' of 'made up' has 1; add"):  # test images do not count
        audited(listed(files(12), [*"a" * 9, *"bbb"], ["train"] * 10 + ["test"] * 2))
    with pytest.raises(UserError, match=r"'b'.* has 1 \(2 classes have too few\); add"):
        audited(listed(files(12), [*"a" * 10, *"bc"]))


def test_one_class_or_no_image() -> None:
    with pytest.raises(UserError, match="at least 2 classes, but 'made up' has only 'a'"):
        audited(listed(files(10), ["a"] * 10))
    with pytest.raises(UserError, match=r"not one of the 5 images .*'0\.png' \(empty file\).* and 2 more"):
        audited(listed([b""] * 5))


def test_findings_are_ordered_and_can_be_written_as_json() -> None:
    import json

    items = [b"", *files(60)]
    items[5] = items[8]
    labels = ["a", *["a"] * 45, *["A"] * 12, *"bbb"]
    result = audited(listed(items, labels))
    assert ids(result) == [
        "unreadable-files",
        "label-spelling",
        "near-duplicates",
        "small-classes",
        "imbalanced-classes",
    ]
    for found in result.findings:
        assert found.severity in SEVERITIES
        assert json.loads(json.dumps(found.as_dict())) == found.as_dict()


def test_class_order() -> None:
    assert class_order(["10", "9", "9", "1"]) == ["1", "9", "10"]
    assert class_order(["b", "a", "10"]) == ["10", "a", "b"]
    assert class_order([]) == []


def test_real_photos(real_data: Path) -> None:
    source = open_source(real_data / "ants-bees.tar")
    result = audited(source, short_side=48)
    assert result.images == 398
    assert result.classes == {"ants": 194, "bees": 204}
    assert ids(result) == []
    split = make_split(source, result, seed=0)
    assert len(split.test) == 153
    assert len(split.train) + len(split.validation) == 245
