"""What is kept of a case, and when it is run anew."""

import pickle

import pytest
from faults import outcomes
from faults.case import Case, Watched
from faults.outcomes import Outcome, keep, kept_at, load, run_case, sources_of

from wellfit.diagnosis.history import History
from wellfit.findings import Finding


@pytest.fixture(autouse=True)
def _no_remembered_keys():
    outcomes._benchmark_key.cache_clear()
    outcomes._library_key.cache_clear()
    yield
    outcomes._benchmark_key.cache_clear()
    outcomes._library_key.cache_clear()


def a_case(tmp_path, text="x = 1\n", name="a case", ground="training", run=lambda: []):
    module = tmp_path / "some.py"
    module.write_text(text, encoding="utf-8")
    return Case(name, "nan", ground, run, module=str(module))


def test_an_outcome_comes_back_as_it_was(tmp_path):
    case = a_case(tmp_path)
    history = History(losses=[1.0, 2.0])
    keep(case, Outcome(case.name, "nan", "training", 1.5, watched=Watched(history, 0.5, 1.0)), tmp_path / "kept")
    back = load(case, tmp_path / "kept")
    assert back.watched.history == history
    assert (back.seconds, back.watched.validation_accuracy) == (1.5, 0.5)


def test_a_change_of_the_code_asks_for_a_new_run_and_a_comment_does_not(tmp_path):
    def kept(text):
        outcomes._benchmark_key.cache_clear()
        return kept_at(a_case(tmp_path, text), tmp_path)

    assert kept("x = 1\n") == kept("x  =  1  # why\n")
    assert kept("x = 1\n") != kept("x = 2\n")
    assert kept_at(a_case(tmp_path), tmp_path) != kept_at(a_case(tmp_path, name="A case"), tmp_path)


def test_rules_are_no_part_of_a_training_and_checks_are_of_a_check(tmp_path, monkeypatch):
    for room in ("diagnosis/rules", "checks", "data", "recipe"):
        (tmp_path / room).mkdir(parents=True)
        (tmp_path / room / "file.py").write_text("a = 1\n", encoding="utf-8")
    (tmp_path / "diagnosis" / "monitor.py").write_text("a = 1\n", encoding="utf-8")
    monkeypatch.setattr(outcomes, "LIBRARY", tmp_path)

    def keys():
        outcomes._library_key.cache_clear()
        return outcomes._library_key("training"), outcomes._library_key("check"), outcomes._library_key("audit")

    before = keys()
    (tmp_path / "diagnosis" / "rules" / "file.py").write_text("a = 2\n", encoding="utf-8")
    assert keys() == before
    (tmp_path / "checks" / "file.py").write_text("a = 2\n", encoding="utf-8")
    assert [a == b for a, b in zip(keys(), before, strict=True)] == [True, False, False]
    before = keys()
    (tmp_path / "diagnosis" / "monitor.py").write_text("a = 2\n", encoding="utf-8")
    assert [a == b for a, b in zip(keys(), before, strict=True)] == [False, True, True]


def test_older_outcomes_of_a_case_go_and_those_of_others_stay(tmp_path):
    folder = tmp_path / "kept"
    outcome = Outcome("a case", "nan", "training", 1.0)
    other = a_case(tmp_path, name="another")
    keep(other, outcome, folder)
    keep(a_case(tmp_path), outcome, folder)
    outcomes._benchmark_key.cache_clear()
    changed = a_case(tmp_path, "x = 2\n")
    keep(changed, outcome, folder)
    assert sorted(p.name for p in folder.glob("a-case-*.pickle")) == [kept_at(changed, folder).name]
    assert len(list(folder.glob("another-*.pickle"))) == 1


@pytest.mark.parametrize("content", [b"", b"torn", pickle.dumps("something else")])
def test_an_unreadable_outcome_is_none(tmp_path, content):
    case = a_case(tmp_path)
    kept_at(case, tmp_path).write_bytes(content)
    assert load(case, tmp_path) is None


def test_sources_are_followed_through_imports():
    names = {file.name for file in sources_of(outcomes.BENCHMARK / "healthy.py")}
    assert {"healthy.py", "lengths.py", "plant.py", "loop.py", "networks.py", "data.py"} <= names
    assert not names & {"case.py", "scoring.py", "run.py", "__init__.py", "healthy_apart.py"}


def test_an_exception_is_an_outcome(tmp_path):
    def broken():
        raise KeyError("oh")

    outcome = run_case(a_case(tmp_path, run=broken))
    assert outcome.error.strip().endswith("KeyError: 'oh'")
    assert outcome.watched is None


def test_findings_of_a_check_are_kept(tmp_path):
    found = Finding("nan", "error", "seen")
    outcome = run_case(a_case(tmp_path, ground="check", run=lambda: [found]))
    assert outcome.findings == (found,)
    assert not outcome.error
