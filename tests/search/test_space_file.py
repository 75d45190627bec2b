"""A space as TOML: what is read, what is refused and in which words, and that it is written back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wellfit.errors import UserError
from wellfit.search.space import Choice, Fixed, Integer, Kind, LogUniform, Space, Uniform
from wellfit.search.space_file import read_space, space_from_dict, space_to_dict, space_to_toml


def written(folder: Path, text: str) -> Path:
    path = folder / "space.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_kind_and_a_condition_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [lr]
        log_uniform = [1e-6, 1e-3]
        [dropout]
        uniform = [0, 0.5]
        [freeze]
        integer = [0, 4]
        [optimizer]
        choice = ["sgd", "momentum", "nesterov", "adamw"]
        [momentum]
        uniform = [0.5, 0.99]
        only_with = {optimizer = ["momentum", "nesterov"]}
        [weight_decay]
        choice = [1e-4, 1e-5, 0]
        [schedule]
        fixed = "cosine"
        """,
    )
    assert read_space(path) == {
        "lr": LogUniform(1e-6, 1e-3),
        "dropout": Uniform(0.0, 0.5),
        "freeze": Integer(0, 4),
        "optimizer": Choice(("sgd", "momentum", "nesterov", "adamw")),
        "momentum": Uniform(0.5, 0.99, only_with={"optimizer": ("momentum", "nesterov")}),
        "weight_decay": Choice((1e-4, 1e-5, 0)),
        "schedule": Fixed("cosine"),
    }


MISTAKES = {
    "zero width": ("[lr]\nlog_uniform = [1e-3, 1e-3]", "'lr'.*0 < low < high, got 0.001 to 0.001"),
    "reversed": ("[dropout]\nuniform = [0.5, 0.1]", "'dropout'.*low < high, got 0.5 to 0.1"),
    "log through 0": ("[lr]\nlog_uniform = [0, 1e-3]", "'lr'.*0 < low < high, got 0 to 0.001"),
    "log below 0": ("[lr]\nlog_uniform = [-1e-3, 1e-3]", "'lr'.*0 < low < high"),
    "unknown key": ("[lrr]\nlog_uniform = [1e-4, 1e-3]", r"unknown setting 'lrr' \(did you mean 'lr'\?\)"),
    "unknown kind": ("[lr]\nloguniform = [1e-4, 1e-3]", r"'lr'.*'loguniform' \(did you mean 'log_uniform'\?\)"),
    "no kind": ("[lr]\n", "'lr' needs one of log_uniform, uniform, integer, choice, fixed, got none"),
    "two kinds": ("[lr]\nuniform = [0.1, 1]\nchoice = [1, 2]", "'lr' needs one of .* got uniform and choice"),
    "not in the space": (
        "[momentum]\nuniform = [0.1, 0.9]\nonly_with = {optimizer = 'sgd'}",
        "'momentum' is only_with 'optimizer', which is not in the space",
    ),
    "no such value": (
        "[optimizer]\nchoice = ['sgd', 'adam']\n[momentum]\nuniform = [0.1, 0.9]\nonly_with = {optimizer = 'sgdm'}",
        r"'momentum' is only_with optimizer = 'sgdm'.*did you mean 'sgd'",
    ),
    "condition on a range": (
        "[lr]\nuniform = [0.1, 1]\n[momentum]\nuniform = [0.1, 0.9]\nonly_with = {lr = [0.5]}",
        "'momentum' is only_with 'lr', which is a range",
    ),
    "circle": (
        "[model]\nchoice = ['a', 'b']\nonly_with = {balance = 'none'}\n"
        "[balance]\nchoice = ['none', 'weights']\nonly_with = {model = 'a'}",
        "conditions lead in a circle",
    ),
    "circle of itself": ("[model]\nchoice = ['a', 'b']\nonly_with = {model = 'a'}", "conditions lead in a circle"),
    "nan": ("[lr]\nlog_uniform = [nan, 1e-3]", "'lr' holds finite numbers, got nan"),
    "inf": ("[lr]\nlog_uniform = [1e-3, inf]", "'lr' holds finite numbers, got inf"),
    "empty": ("", "is empty; name at least one setting"),
    "no toml": ("lr between 0.1 and 1", "is no valid TOML"),
    "a value and no table": ("lr = 0.1", "'lr' is a table, got 0.1"),
    "one number": ("[lr]\nlog_uniform = 1e-3", "'lr' takes log_uniform as a list, got 0.001"),
    "three numbers": ("[lr]\nlog_uniform = [1e-4, 1e-3, 1e-2]", "'lr'.*two numbers, low and high"),
    "text in a range": ("[lr]\nuniform = ['a', 'b']", "'lr'.*two numbers, low and high"),
    "one choice": ("[optimizer]\nchoice = ['sgd']", "'optimizer'.*at least two values"),
    "twice": ("[optimizer]\nchoice = ['sgd', 'sgd']", "'optimizer'.*each value once"),
    "fraction": ("[freeze]\ninteger = [0.5, 3]", "'freeze'.*two whole numbers"),
    "optimizer": ("[optimizer]\nchoice = ['sdg', 'adam']", r"'optimizer'.*'sdg' \(did you mean 'sgd'\?\)"),
    "schedule": ("[schedule]\nchoice = ['cosin', 'step']", r"'schedule'.*'cosin' \(did you mean 'cosine'\?\)"),
    "balance": ("[balance]\nchoice = ['none', 'weight']", r"'balance'.*'weight' \(did you mean 'weights'\?\)"),
    "dropout of 1": ("[dropout]\nuniform = [0, 1]", "'dropout' is from 0 to below 1, got 1"),
    "momentum of 2": ("[momentum]\nchoice = [0.9, 2]", "'momentum' is from 0 to below 1, got 2"),
    "negative decay": ("[weight_decay]\nchoice = [0, -1e-4]", "'weight_decay' is at least 0, got -0.0001"),
    "lr of 0": ("[lr]\nchoice = [0, 1e-3]", "'lr' is above 0, got 0"),
    "half a batch": ("[batch_size]\nuniform = [16, 64]", "'batch_size' is a whole number.*use integer"),
    "optimizer as a number": ("[optimizer]\nchoice = [1, 2]", "'optimizer' is chosen by name, got 1"),
    "lr by name": ("[lr]\nchoice = ['low', 'high']", "'lr' is a number, got 'low'"),
    "true": ("[lr]\nchoice = [true, 1e-3]", "'lr' is a number, got True"),
    "a date": ("[lr]\nchoice = [1979-05-27, 1e-3]", "'lr' holds numbers and names"),
    "condition as text": ("[lr]\nchoice = [1, 2]\nonly_with = 'sgd'", "only_with of 'lr' is a table, got 'sgd'"),
    "condition on nothing": (
        "[model]\nchoice = ['a', 'b']\n[lr]\nchoice = [1, 2]\nonly_with = {model = []}",
        "'lr' is only_with no value of 'model'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_with_file_and_key(tmp_path: Path, mistake: str) -> None:
    text, said = MISTAKES[mistake]
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=said) as raised:
        read_space(path)
    sentence = str(raised.value)
    assert "space.toml" in sentence
    assert "\n" not in sentence or mistake == "no toml"


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read_space(tmp_path / "space.toml")
    (tmp_path / "space.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no valid TOML"):
        read_space(tmp_path / "space.toml")


NUMBERS = st.floats(1e-12, 1e6)
VALUES = st.one_of(
    st.integers(-(2**53), 2**53), st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8), NUMBERS
)


@st.composite
def spaces(draw: Any) -> Space:
    """Any space that can be built, conditions among them."""
    space: Space = {}
    parents: list[str] = []
    for i in range(draw(st.integers(1, 6))):
        condition = {}
        for parent in draw(st.lists(st.sampled_from(parents), max_size=2, unique=True)) if parents else []:
            kind = space[parent]
            held = kind.values if isinstance(kind, Choice) else (kind.value,) if isinstance(kind, Fixed) else ()
            condition[parent] = tuple(draw(st.lists(st.sampled_from(held), min_size=1, max_size=3, unique=True)))
        low, factor = draw(NUMBERS), draw(st.floats(1.001, 1e3))
        kinds: list[Kind] = [
            LogUniform(low, low * factor, only_with=condition),
            Uniform(-low, low * factor, only_with=condition),
            Integer(-int(low), int(low * factor) + 1, only_with=condition),
            Fixed(draw(VALUES), only_with=condition),
            Choice(
                tuple(draw(st.lists(VALUES, min_size=2, max_size=4, unique=True)))
                if draw(st.booleans())
                else ("a", "b"),
                only_with=condition,
            )
            if draw(st.booleans())
            else Choice(("x", "y", "z"), only_with=condition),
        ]
        name = f"setting {i}" if draw(st.booleans()) else f"s{i}"
        space[name] = draw(st.sampled_from(kinds))
        if isinstance(space[name], Choice | Fixed):
            parents.append(name)
    return space


@hypothesis_settings(max_examples=50, deadline=None)
@given(spaces())
def test_a_space_is_written_and_read_back_as_it_was(space: Space) -> None:
    import tomllib

    assert space_from_dict(tomllib.loads(space_to_toml(space))) == space
    assert space_from_dict(json.loads(json.dumps(space_to_dict(space)))) == space
