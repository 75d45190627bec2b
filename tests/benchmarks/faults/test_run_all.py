"""Several cases at once, in processes of their own, and what Ctrl-C leaves behind."""

import multiprocessing
import signal

import pytest
from faults.all_cases import all_cases
from faults.outcomes import load, run_all


@pytest.fixture
def names():
    """Trainings of a second."""
    return [
        name
        for name, case in all_cases().items()
        if not case.fault and case.ground == "training" and name.startswith("healthy: mlp on digits")
    ][:3]


@pytest.fixture(autouse=True)
def _signals():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_run_keeps_what_was_done_and_leaves_no_process(names, tmp_path):
    came = run_all(names, tmp_path, jobs=1)
    first = next(came)
    with pytest.raises(KeyboardInterrupt):
        came.throw(KeyboardInterrupt)
    assert not multiprocessing.active_children()
    assert [name for name in names if load(all_cases()[name], tmp_path)] == [first.name]
