"""What the training's section says of its speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from wellfit.record import RunFolder
from wellfit.report import panels
from wellfit.report.history import History


def history(*steps: tuple[float, float]) -> History:
    """steps: images a second, and the share that was waited."""
    made = History(RunFolder(Path("run")))
    for i, (speed, wait) in enumerate(steps, 1):
        made.steps.append({"kind": "step", "step": i, "loss": 2.0, "lr": 0.1, "images_per_second": speed, "wait": wait})
    return made


@pytest.mark.parametrize(
    ("steps", "said", "held_up"),
    [
        ([(1000.0, 0.0), (2000.0, 0.0), (4000.0, 0.0)], "2,000 images a second; 0.0%", False),
        # A step of half the speed takes twice the time: (0.3 · 2 + 0 · 1) / 3.
        ([(500.0, 0.3), (1000.0, 0.0)], "750 images a second; 20.0%", True),
    ],
)
def test_waiting_is_a_share_of_the_time_not_of_the_steps(
    steps: list[tuple[float, float]], said: str, held_up: bool
) -> None:
    text = str(panels.training(history(*steps)))
    assert said in text
    assert ("holds the network up" in text) == held_up


def test_a_record_without_speeds_says_nothing_of_them() -> None:
    made = history((1000.0, 0.0))
    del made.steps[0]["wait"]
    assert "waiting for data" not in str(panels.training(made))
