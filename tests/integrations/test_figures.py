"""Epoch figures among logged ones, and labels among what a batch may be."""

import logging
import subprocess
import sys

import pytest
import torch

from wellfit.errors import UserError
from wellfit.integrations.batches import RunningAccuracy, fits, labels_of, mean_of
from wellfit.integrations.doctor import Doctor
from wellfit.integrations.figures import EpochFigures

BOTH = {"train", "val"}


def read(logged, names=None, sides=BOTH):
    return EpochFigures(names, logging.getLogger("wellfit.doctor")).read(logged, sides)


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("val_loss", "val_loss"),
        ("valid/loss", "val_loss"),
        ("validation.loss", "val_loss"),
        ("eval_loss", "val_loss"),
        ("val_loss/dataloader_idx_0", "val_loss"),
        ("val_acc", "val_accuracy"),
        ("eval_accuracy", "val_accuracy"),
        ("val_MulticlassAccuracy", "val_accuracy"),
        ("val/acc_top1", "val_accuracy"),
        ("train_loss_epoch", "train_loss"),
        ("training accuracy", "train_accuracy"),
        ("loss", None),
        ("accuracy", None),
        ("train_loss_step", None),
        ("val_loss_class3", None),
        ("val_acc_top5", None),
        ("val_loss/dataloader_idx_1", None),
        ("test_loss", None),
    ],
)
def test_a_name_says_the_side_and_the_kind_or_is_passed_over(name, figure):
    assert read({name: torch.tensor(0.5)}) == ({figure: 0.5} if figure else {})


def test_only_the_side_that_is_over_is_read():
    logged = {"train_loss": 1.0, "val_loss": 2.0}
    assert read(logged, sides={"val"}) == {"val_loss": 2.0}
    assert read(logged, sides={"train"}) == {"train_loss": 1.0}


def test_a_given_name_goes_before_a_guess_and_one_that_is_not_logged_is_told_once(caplog):
    figures = EpochFigures({"val_loss": "mine"}, logging.getLogger("wellfit.doctor"))
    assert figures.read({"mine": 3.0, "val_loss": 4.0}, BOTH) == {"val_loss": 3.0}
    for _ in range(3):
        assert figures.read({"val_loss": 4.0}, BOTH) == {}
    assert len(caplog.messages) == 1
    assert "'mine'" in caplog.messages[0]


def test_an_accuracy_in_percent_is_told_and_left_out(caplog):
    assert read({"val_acc": 91.5, "val_loss": 1.0}) == {"val_loss": 1.0}
    assert "91.5" in caplog.messages[0]
    assert read({"val_acc": float("nan")}) == {}
    assert len(caplog.messages) == 1


def test_labels_in_batches_of_any_form():
    x, y = torch.zeros(3, 2), torch.tensor([0, 1, 1])
    for batch in ((x, y), [x, y], {"x": x, "labels": y}, {"target": y, "image": x}):
        assert torch.equal(labels_of(batch), y)
    for batch in (x, (x,), (x, y, y), {"x": x}, {"labels": None}, (x, "text"), None):
        assert labels_of(batch) is None
    answers = torch.zeros(3, 5)
    assert fits(y, answers)
    assert fits(torch.zeros(3, 5), answers)
    assert not fits(torch.zeros(3, 7, 7), answers)
    assert not fits(y[:2], answers)
    assert not fits(y, None)
    assert not fits(None, answers)


def test_running_accuracy_is_that_of_all_images_since_it_was_taken():
    running = RunningAccuracy()
    assert running.take() is None
    running.add(torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, 0, 1]))
    running.add(torch.eye(3)[[2, 2]], torch.tensor([2, 2]))
    running.add(torch.zeros(4, 3), torch.zeros(4, 3))  # shares are no class numbers
    assert running.take() == pytest.approx(4 / 6)
    assert running.take() is None


def test_the_mean_of_losses_of_any_kind():
    assert mean_of([2.0]) == 2.0
    assert float(mean_of([torch.tensor(1.0), torch.tensor([2.0])])) == 1.5
    assert mean_of([1.0, torch.tensor(3.0)]) == 2.0


def test_a_doctor_that_saw_nothing_says_nothing():
    doctor = Doctor(report="never.html")
    doctor.note(1.0, None)
    assert doctor.step() is False
    doctor.end_epoch({}, BOTH)
    doctor.look()
    doctor.end()
    assert (doctor.findings, doctor.unjudged, doctor.state_dict()) == ([], {}, {})
    with pytest.raises(UserError, match="stop_on"):
        Doctor(stop_on="panic")


def test_the_adapters_are_imported_only_when_asked_for():
    code = (
        "import sys, wellfit, wellfit.integrations; print('torch' in sys.modules); "
        "import wellfit.integrations.doctor; "
        "print(any(name in sys.modules for name in ('lightning', 'pytorch_lightning', 'transformers', 'matplotlib')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_labels_that_are_no_class_do_not_count_for_the_accuracy():
    right = RunningAccuracy()
    right.add(torch.eye(4)[[0, 1, 2, 3]], torch.tensor([0, 1, 3, -1]))
    right.add(torch.eye(4)[[0, 1]], torch.tensor([-100, 255]))
    assert right.take() == pytest.approx(2 / 3)
    right.add(torch.eye(4)[[0]], torch.tensor([-100]))
    assert right.take() is None
    assert right.take() is None
