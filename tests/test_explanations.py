"""Every finding is explained in full: `wellfit explain ID` never prints half an entry."""

from __future__ import annotations

import re

import pytest

from wellfit.errors import UserError
from wellfit.findings import explain, explanations


def test_entries_are_complete() -> None:
    for name, entry in explanations().items():
        assert set(entry) == {"title", "text", "action", "reference"}, name
        assert all(value.strip() for value in entry.values()), name


def test_ids_are_kebab_case() -> None:
    assert [name for name in explanations() if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)] == []


def test_texts_are_a_paragraph_of_60_to_140_words() -> None:
    lengths = {name: len(entry["text"].split()) for name, entry in explanations().items()}
    assert {name: n for name, n in lengths.items() if not 60 <= n <= 140} == {}
    assert [name for name, entry in explanations().items() if "\n\n" in entry["text"]] == []


def test_actions_are_one_or_two_sentences() -> None:
    for name, entry in explanations().items():
        assert entry["action"].endswith("."), name
        assert len(re.findall(r"[.!?](?:\s|$)", entry["action"])) <= 2, name
        assert entry["action"].count("`") % 2 == 0, name


def test_texts_and_titles_are_not_shared() -> None:
    for field in ("title", "text"):
        values = [entry[field] for entry in explanations().values()]
        assert len(set(values)) == len(values)


def test_explain_prints_the_whole_entry() -> None:
    entry = explanations()["lr-too-high"]
    said = explain("lr-too-high")
    assert all(entry[field].strip() in said for field in entry)


def test_an_unknown_id_names_the_nearest() -> None:
    with pytest.raises(UserError, match="lr-too-high"):
        explain("lr-to-high")
