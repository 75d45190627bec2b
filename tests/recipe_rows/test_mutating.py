"""The machinery behind tests/mutations.toml: what is replaced, what comes back, and what counts as noticed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.recipe_rows.judging import Verdict, ending
from tests.recipe_rows.mutating import NOTHING, Mutation, applied, found, read_mutations

MAKER, USER = "tests.recipe_rows.made_for_this", "tests.recipe_rows.uses_it"


def double(x: float) -> float:
    return 2 * x


class Layer:
    def forward(self, x: float) -> float:
        return 3 * x


class Narrow(Layer):
    pass


@cache
def remembered(x: float) -> float:
    return sys.modules[MAKER].double(x)


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """A module with parts, and one that imported them under other names."""
    maker, user = ModuleType(MAKER), ModuleType(USER)
    maker.double, maker.Layer, maker.Narrow, maker.SCALE, maker.PAIR = double, Layer, Narrow, 5.0, (1, 2)
    maker.TABLE, maker.DEPTHS = {"double": double, "abs": abs}, {16: (2, 2, 3)}
    user.twice, user.PAIR, user.NAMES, user.remembered = double, maker.PAIR, {"a": double}, remembered
    monkeypatch.setitem(sys.modules, MAKER, maker)
    monkeypatch.setitem(sys.modules, USER, user)
    return maker, user


def of(target: str, kind: str, **options: object) -> Mutation:
    return Mutation("X1", f"{MAKER}:{target}", kind, "nowhere", **options)


def test_a_function_is_replaced_under_all_its_names_and_comes_back(modules: tuple[ModuleType, ModuleType]) -> None:
    maker, user = modules
    tables = [{"layer": double, "other": 3}]
    with applied(of("double", "identity"), tables):
        assert maker.double(7) == user.twice(7) == user.NAMES["a"](7) == maker.TABLE["double"](7) == 7
        assert tables[0]["layer"](x=7) == 7
        assert tables[0]["other"] == 3
    assert maker.double is user.twice is user.NAMES["a"] is maker.TABLE["double"] is tables[0]["layer"] is double


def test_a_method_is_replaced_where_it_is_named_and_inherited_ones_come_back_by_going_away() -> None:
    with applied(of("Layer.forward", "identity")):
        assert Layer().forward(7) == Narrow().forward(7) == 7
    with applied(of("Narrow.forward", "constant", value=1.5)):
        assert Layer().forward(7) == 21
        assert Narrow().forward(7) == 1.5
    assert "forward" not in vars(Narrow)
    assert Narrow().forward(7) == 21


def test_entries_of_tables_and_plain_values(modules: tuple[ModuleType, ModuleType]) -> None:
    maker, user = modules
    with applied(of("TABLE[abs]", "plain", with_=f"{MAKER}:double")):
        assert maker.TABLE["abs"] is double
    assert maker.TABLE["abs"] is abs
    with applied(of("DEPTHS[16]", "value", value=[2, 2, 2])):
        assert maker.DEPTHS == {16: (2, 2, 2)}
    with applied(of("PAIR", "value", value=[3])):
        assert maker.PAIR == user.PAIR == (3,)
    with applied(of("SCALE", "value", value=6.0)):
        assert maker.SCALE == 6.0
    assert (maker.DEPTHS, maker.PAIR, user.PAIR, maker.SCALE) == ({16: (2, 2, 3)}, (1, 2), (1, 2), 5.0)


@pytest.mark.parametrize("array", [torch.ones(2, 3), np.ones((2, 3))])
def test_a_constant_without_a_value_is_zeros_like_the_first_array(
    array: torch.Tensor | np.ndarray, modules: tuple[ModuleType, ModuleType]
) -> None:
    with applied(of("double", "constant")):
        made = modules[0].double("name", array)
    assert type(made) is type(array)
    assert made.shape == array.shape
    assert not made.any()


def test_what_was_remembered_is_forgotten_on_both_ways(modules: tuple[ModuleType, ModuleType]) -> None:
    assert remembered(4.0) == 8.0
    with applied(of("double", "identity")):
        assert remembered(4.0) == 4.0
    assert remembered(4.0) == 8.0


def test_an_error_inside_still_puts_the_part_back(modules: tuple[ModuleType, ModuleType]) -> None:
    with pytest.raises(KeyError), applied(of("double", "identity")):
        raise KeyError
    assert modules[0].double is double


@pytest.mark.parametrize("target", ["halve", "TABLE[none]", "Layer.backward"])
def test_a_target_that_is_not_there_is_an_error(target: str) -> None:
    with pytest.raises((AttributeError, KeyError)), applied(of(target, "identity")):
        pass


def test_a_mutation_that_says_too_little_or_too_much_is_an_error() -> None:
    for kind, options in (("plain", {}), ("identity", {"with_": "a:b"}), ("gone", {})):
        with pytest.raises(ValueError, match="X1"):
            of("double", kind, **options)


def test_every_mutation_of_the_file_puts_the_very_same_part_back() -> None:
    for mutation in read_mutations():
        before = found(mutation.target)
        with applied(mutation):
            changed = found(mutation.target)
        after = found(mutation.target)
        assert after is before or after == before, mutation
        assert changed is not before, mutation
        assert mutation.value is NOTHING or mutation.replacement in ("constant", "value")


@dataclass
class Item:
    stash: dict


@dataclass
class Report:
    outcome: str
    when: str = "call"
    longrepr: object = "why"


@pytest.mark.parametrize(
    ("reports", "raised", "outcome"),
    [
        ([Report("passed", "setup"), Report("passed"), Report("passed", "teardown")], None, "passed"),
        ([Report("passed", "setup"), Report("failed")], AssertionError, "failed"),
        ([Report("passed", "setup"), Report("failed")], pytest.fail.Exception, "failed"),
        ([Report("passed", "setup"), Report("failed")], TypeError, "crashed"),
        ([Report("failed", "setup")], None, "broken"),
        ([Report("passed", "setup"), Report("skipped")], None, "skipped"),
        ([Report("skipped", "setup")], None, "skipped"),
    ],
)
def test_only_an_assertion_of_the_test_itself_counts_as_noticed(
    reports: list[Report], raised: type[BaseException] | None, outcome: str
) -> None:
    from tests.recipe_rows.judging import RAISED

    assert ending(Item({RAISED: raised}), reports)[0] == outcome


def test_one_failure_among_many_items_decides() -> None:
    verdict = Verdict()
    for outcome in ("passed", "skipped", "passed", "failed", "crashed"):
        verdict.add(0.5, outcome, outcome)
    assert (verdict.outcome, verdict.items, verdict.seconds, verdict.reason) == ("failed", 5, 2.5, "failed")
    assert Verdict().outcome == "absent"
