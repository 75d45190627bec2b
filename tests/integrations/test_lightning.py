"""The doctor within Lightning's own Trainer, on digits."""

import importlib
import logging
import signal
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.integrations.conftest import TRAIN, bytes_of, digits, net, warnings_of
from wellfit.errors import UserError

adapter = pytest.importorskip("wellfit.integrations.lightning", exc_type=ImportError)
L = pytest.importorskip("lightning.pytorch")
DoctorCallback = adapter.DoctorCallback

pytestmark = [pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _quiet():
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def loaders(batch=32):
    x, y = digits()
    draw = torch.Generator().manual_seed(0)
    return (
        DataLoader(TensorDataset(x[:TRAIN], y[:TRAIN]), batch, shuffle=True, generator=draw),
        DataLoader(TensorDataset(x[TRAIN:], y[TRAIN:]), 256),
    )


def module_of(base):
    """The same module for either package's LightningModule."""

    class Digits(base):
        def __init__(self, lr=0.05, log=True, optimizer=torch.optim.SGD):
            super().__init__()
            torch.manual_seed(0)
            self.net, self.lr, self.to_log, self.optimizer = net(), lr, log, optimizer
            self.criterion = torch.nn.CrossEntropyLoss()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            x, y = batch
            return self.criterion(self.net(x), y)

        def validation_step(self, batch, index):
            x, y = batch
            answers = self(x)
            if self.to_log:
                self.log("val_loss", self.criterion(answers, y))
                self.log("val_acc", (answers.argmax(1) == y).float().mean())

        def configure_optimizers(self):
            return self.optimizer(self.parameters(), lr=self.lr)

    return Digits


Digits = module_of(L.LightningModule)


def fit(module, doctor=None, *, data=None, trainer=None, resume=None, epochs=6, others=(), **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"enable_checkpointing": any(isinstance(c, L.callbacks.ModelCheckpoint) for c in others)}
    options = {"max_epochs": epochs, **quiet, **options}
    callbacks = [*([doctor] if doctor else []), *others]
    trainer = (trainer or L.Trainer)(callbacks=callbacks, **options)
    trainer.fit(module, *(data or loaders()), ckpt_path=resume)
    return trainer


def test_a_healthy_training_has_no_warning_and_its_figures_are_those_of_lightning(tmp_path, said):
    doctor = DoctorCallback(report=tmp_path / "doctor.html")
    module = Digits()
    fit(module, doctor)
    history = doctor.monitor.history
    assert len(history.losses) == 6 * TRAIN // 32
    assert warnings_of(doctor.findings) == []
    assert [e.step for e in history.epochs] == [12, 24, 36, 48, 60, 72]
    x, y = digits()
    with torch.no_grad():
        answers = module.eval()(x[TRAIN:])
    assert history.epochs[-1].val_accuracy == pytest.approx(float((answers.argmax(1) == y[TRAIN:]).float().mean()))
    assert history.epochs[-1].val_loss == pytest.approx(float(F.cross_entropy(answers, y[TRAIN:])), rel=1e-4)
    assert history.epochs[-1].train_accuracy > 0.9
    assert history.epochs[-1].train_loss == pytest.approx(np.mean(history.losses[-12:]), rel=1e-5)
    assert history.samples[-1].output.targets.sum() == 32
    assert len(history.samples[-1].layers) == 2
    assert not any(s.carried for s in history.samples)
    assert "<html" in (tmp_path / "doctor.html").read_text(encoding="utf-8")
    assert any("doctor.html" in line for line in said())
    # nothing is left on the network
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_gradients_and_updates_are_those_of_the_step():
    """Lightning's forward and backward passes run inside optimizer.step, as a closure."""
    seen = []

    class Noting(L.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            self.before = [p.detach().clone() for p in module.parameters()]
            seen.append([float(p.grad.norm()) for p in module.parameters()])

        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            pairs = zip(module.parameters(), self.before, strict=True)
            seen[-1] = (seen[-1], [float((p.detach() - b).norm()) for p, b in pairs], float(outputs["loss"]))

    doctor = DoctorCallback(every=1)
    module = Digits()
    fit(module, doctor, others=[Noting()], epochs=1)
    assert len(doctor.monitor.history.samples) == len(seen) == 12
    for sample, loss, (gradients, updates, told) in zip(
        doctor.monitor.history.samples, doctor.monitor.history.losses, seen, strict=True
    ):
        assert sample.gradient_norm == pytest.approx(gradients, rel=0.1, abs=1e-6)
        assert sample.update_norm == pytest.approx(updates, rel=0.1, abs=1e-7)
        assert loss == pytest.approx(told)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("accumulate", [1, 5])
def test_watching_changes_no_bit(precision, accumulate):
    def weights(doctor):
        module = Digits(optimizer=torch.optim.AdamW, lr=2e-3)
        fit(module, doctor, epochs=2, precision=precision, accumulate_grad_batches=accumulate, gradient_clip_val=1.0)
        return bytes_of(module)

    doctor = DoctorCallback(every=1)
    assert weights(doctor) == weights(None)
    steps = 2 * {1: 12, 5: 3}[accumulate]  # 5 + 5 + 2 batches
    # the scaler's first steps overflow and are no steps
    low = steps - 8 if precision == "16-mixed" else steps
    assert low <= len(doctor.monitor.history.losses) <= steps
    assert len(doctor.monitor.history.samples) > 0
    assert all(0.1 < loss < 5 for loss in doctor.monitor.history.losses)
    assert warnings_of(doctor.findings) == []


class Rough(Digits):
    """Validation leaves the network in evaluation mode behind, as a forgotten train() does."""

    def on_train_batch_start(self, batch, index):
        self.net.eval()


class Detached(Digits):
    def training_step(self, batch, index):
        x, y = batch
        features = self.net[:4](x).detach()
        return self.criterion(self.net[4:](features), y)


class Doubled(Digits):
    def training_step(self, batch, index):
        x, y = batch
        return self.criterion(self(x), y)

    def forward(self, x):
        return super().forward(x).softmax(1)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: Digits(lr=30.0), ("exploding", "lr-too-high", "nan")),
        (lambda: Digits(lr=1e-7), ("lr-too-low", "updates-too-small")),
        (Rough, ("wrong-batchnorm-mode",)),
        (Detached, ("frozen-parameters",)),
        (Doubled, ("double-softmax",)),
    ],
)
def test_a_planted_fault_is_named_while_the_training_runs(make, fault, said):
    doctor = DoctorCallback()
    fit(make(), doctor, epochs=12)
    assert set(fault) & set(warnings_of(doctor.findings)[:2])
    named = [line for line in said() if any(f"] {name}:" in line for name in fault)]
    assert named
    assert len(named) == len(set(named))


def test_a_finding_may_stop_the_training():
    doctor = DoctorCallback(stop_on="error")
    trainer = fit(Digits(lr=30.0), doctor, epochs=50)
    assert trainer.global_step < 100
    assert [f for f in doctor.findings if f.severity == "error"]
    healthy = DoctorCallback(stop_on="warning")
    assert fit(Digits(), healthy, epochs=3).global_step == 36


class Manual(Digits):
    """Two optimizers, stepped by hand at every second batch; training_step returns nothing."""

    def __init__(self, **options):
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch, index):
        x, y = batch
        loss = self.criterion(self.net(x), y)
        self.manual_backward(loss / 2)
        self.manual_backward(0.5 * self.criterion(self.net(x), y))
        if index % 2:
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.net[:4].parameters(), 0.02), torch.optim.SGD(self.net[4:].parameters(), 0.03)]


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_manual_optimization_with_two_optimizers(precision):
    def run(doctor):
        module = Manual()
        fit(module, doctor, epochs=5, precision=precision)
        return bytes_of(module)

    doctor = DoctorCallback(every=1)
    assert run(doctor) == run(None)
    history = doctor.monitor.history
    assert len(history.losses) == pytest.approx(5 * 6, abs=8)
    assert history.lrs[-1] == 0.02
    assert 1.5 < history.losses[0] < 3.5
    moved = {p.name for p, u in zip(history.parameters, history.samples[-1].update_norm, strict=True) if u > 0}
    assert {"net.0.weight", "net.5.weight", "net.7.bias"} <= moved
    assert warnings_of(doctor.findings) == []


def test_beside_checkpoints_and_early_stopping_and_through_a_resume(tmp_path):
    def data():
        x, y = digits()
        return DataLoader(TensorDataset(x[:TRAIN], y[:TRAIN]), 32), loaders()[1]

    def others(folder):
        saver = L.callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, monitor="val_loss")
        return [L.callbacks.EarlyStopping("val_loss", patience=50), saver]

    whole = DoctorCallback()
    fit(Digits(), whole, data=data(), others=others(tmp_path / "whole"), epochs=6)

    first = DoctorCallback()
    fit(Digits(), first, data=data(), others=others(tmp_path / "first"), epochs=3)
    second, module = DoctorCallback(), Digits()
    path = tmp_path / "first" / "epoch=2.ckpt"
    held = torch.load(path, weights_only=True)["callbacks"]
    assert any("DoctorCallback" in key for key in held)
    fit(module, second, data=data(), others=others(tmp_path / "second"), resume=path, epochs=6)

    ours, theirs = second.monitor.history, whole.monitor.history
    assert list(ours.losses) == pytest.approx(list(theirs.losses))
    assert [s.step for s in ours.samples] == [s.step for s in theirs.samples]
    assert [e.step for e in ours.epochs] == [e.step for e in theirs.epochs]
    for a, b in zip(ours.epochs, theirs.epochs, strict=True):
        assert (a.val_loss, a.val_accuracy) == pytest.approx((b.val_loss, b.val_accuracy))
    assert [f.id for f in second.findings] == [f.id for f in whole.findings]


def test_a_checkpoint_of_another_network_begins_anew_with_a_word(said):
    doctor, other = DoctorCallback(), DoctorCallback()
    fit(Digits(), doctor, epochs=1)
    module = Digits()
    module.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    other.load_state_dict(doctor.state_dict())
    fit(module, other, epochs=1)
    assert len(other.monitor.history.losses) == 12
    assert any("begins anew" in line for line in said())
    # a new training begins anew without a word
    before = len(said())
    fit(Digits(), other, epochs=1)
    assert len(other.monitor.history.losses) == 12
    assert not any("anew" in line for line in said()[before:])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_training_leaves_its_findings_and_its_report(error, tmp_path):
    class Stopping(Digits):
        def training_step(self, batch, index):
            if self.global_step == 20:
                raise error("stop")
            return super().training_step(batch, index)

    doctor = DoctorCallback(report=tmp_path / "doctor.html")
    module, handler = Stopping(), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises((SystemExit, RuntimeError)):
            fit(module, doctor)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(doctor.monitor.history.losses) == 20
    assert isinstance(doctor.findings, list)
    assert (tmp_path / "doctor.html").stat().st_size > 1000
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_a_fast_dev_run_and_a_validation_alone(said):
    doctor = DoctorCallback()
    assert (doctor.findings, doctor.unjudged, doctor.monitor) == ([], {}, None)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(callbacks=[doctor], enable_checkpointing=False, **quiet)
    module = Digits()
    trainer.validate(module, loaders()[1], verbose=False)
    assert (doctor.findings, doctor.monitor) == ([], None)
    fit(module, doctor, fast_dev_run=True)
    assert len(doctor.monitor.history.losses) == 1
    assert doctor.findings == []
    trainer.validate(module, loaders()[1], verbose=False)
    assert len(doctor.monitor.history.epochs) == 1
    assert said() == []


def test_the_sanity_check_is_not_the_trainings():
    doctor = DoctorCallback(every=1)
    fit(Digits(), doctor, epochs=1, num_sanity_val_steps=2)
    assert len(doctor.monitor.history.epochs) == 1
    assert doctor.monitor.history.samples[0].output.images == 32


def test_validations_within_an_epoch_each_have_their_figures():
    doctor = DoctorCallback()
    fit(Digits(), doctor, epochs=2, val_check_interval=0.5)
    epochs = doctor.monitor.history.epochs
    assert [e.step for e in epochs] == [6, 12, 18, 24]
    assert all(e.val_loss is not None for e in epochs)
    rare = DoctorCallback()
    fit(Digits(), rare, epochs=4, check_val_every_n_epoch=2)
    assert [e.val_loss is not None for e in rare.monitor.history.epochs] == [False, True, False, True]


class Named(Digits):
    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        self.log("cost", loss, on_epoch=True, on_step=False)
        return loss

    def on_train_epoch_end(self):
        self.log("train_acc", 0.25)
        self.log("percent", 93.0)

    def validation_step(self, batch, index):
        self.log("valid/f1", 0.5)


def test_figures_are_read_by_their_names_also_those_logged_last(said):
    names = {"train_loss": "cost", "val_accuracy": "valid/f1", "val_loss": "missing"}
    doctor = DoctorCallback(figures=names)
    fit(Named(), doctor, epochs=2)
    epoch = doctor.monitor.history.epochs[-1]
    assert (epoch.train_accuracy, epoch.val_accuracy, epoch.val_loss) == (0.25, 0.5, None)
    assert epoch.train_loss == pytest.approx(np.mean(doctor.monitor.history.losses[12:]), rel=1e-5)
    assert sum("'missing'" in line for line in said()) == 1
    percent = DoctorCallback(figures={"train_accuracy": "percent"})
    fit(Named(), percent, epochs=2)
    assert sum("no share" in line for line in said()) == 1
    assert percent.monitor.history.epochs[-1].train_accuracy != 93.0


def test_a_batch_of_any_form_gives_its_labels():
    class Mapped(Digits):
        def training_step(self, batch, index):
            return super().training_step((batch["image"], batch["kind"]), index)

        def validation_step(self, batch, index):
            pass

    x, y = digits()
    rows = [{"image": a, "kind": b} for a, b in zip(x[:TRAIN], y[:TRAIN], strict=True)]
    data = DataLoader(rows, 32), DataLoader(rows[:64], 64)
    doctor = DoctorCallback(targets=lambda batch: batch["kind"])
    fit(Mapped(), doctor, data=data, epochs=1)
    assert doctor.monitor.history.samples[0].output.targets.sum() == 32
    without = DoctorCallback()
    fit(Mapped(), without, data=data, epochs=1)
    assert without.monitor.history.samples[0].output is None
    assert "targets=y" in without.unjudged["class-collapsed"]


@pytest.mark.parametrize("targets", [None, lambda batch: batch[1]])
def test_labels_that_cannot_be_are_left_out_with_a_word(targets, said):
    class Shifted(Digits):
        def training_step(self, batch, index):
            return super().training_step((batch[0], batch[1] - 5), index)

        def validation_step(self, batch, index):
            pass

    x, y = digits()
    data = DataLoader(TensorDataset(x[:TRAIN], y[:TRAIN] + 5), 32), loaders()[1]
    doctor = DoctorCallback(targets=targets)
    fit(Shifted(), doctor, data=data, epochs=1)
    assert len(doctor.monitor.history.losses) == 12
    assert sum("labels are left out" in line for line in said()) == 1
    assert doctor.monitor.history.epochs[0].train_accuracy is None
    assert "class numbers from 0 to 9" in doctor.unjudged["class-collapsed"]
    assert doctor.monitor.history.class_counts is None


def test_a_lost_loss_under_a_gradient_scaler_is_named():
    class Lost(Digits):
        def training_step(self, batch, index):
            return super().training_step(batch, index) * float("nan")

    doctor = DoctorCallback()
    fit(Lost(), doctor, epochs=3, precision="16-mixed")
    assert warnings_of(doctor.findings)[:1] == ["nan"]


def test_a_closure_optimizer():
    doctor = DoctorCallback(every=1)
    fit(Digits(optimizer=partial(torch.optim.LBFGS, max_iter=2), lr=0.01), doctor, epochs=1)
    assert len(doctor.monitor.history.samples) == 12
    assert all(s.promised > 0 for s in doctor.monitor.history.samples)
    assert not any(s.carried for s in doctor.monitor.history.samples)


def test_the_other_import_name():
    other = pytest.importorskip("pytorch_lightning")
    doctor = DoctorCallback()
    assert isinstance(doctor, other.Callback)
    assert isinstance(doctor, L.Callback)
    fit(module_of(other.LightningModule)(), doctor, trainer=other.Trainer, epochs=2)
    assert len(doctor.monitor.history.losses) == 24
    assert doctor.monitor.history.epochs[-1].val_accuracy > 0.5


def test_a_training_without_an_optimizer_is_one_clear_sentence():
    class Still(Digits):
        def configure_optimizers(self):
            return None

    with pytest.raises(UserError, match="optimizer"):
        fit(Still(), DoctorCallback(), epochs=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stop_on": "info"}, "stop_on is 'warning' or 'error'"),
        ({"targets": 1}, "targets is a function"),
        ({"figures": {"val_acc": "x"}}, "did you mean 'val_accuracy'"),
        ({"figures": {"val_loss": 3}}, "give names"),
        ({"report": "."}, "is a folder"),
    ],
)
def test_settings_that_cannot_be_are_one_clear_sentence(options, words):
    with pytest.raises(UserError, match=words) as error:
        DoctorCallback(**options)
    assert "\n" not in str(error.value)


def test_a_missing_library_is_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(adapter, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'wellfit\[lightning\]'") as error:
        adapter._callback()
    assert isinstance(error.value, UserError)
    with warnings.catch_warnings():
        importlib.import_module("wellfit.integrations")
