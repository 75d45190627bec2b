"""The doctor within the Hugging Face Trainer, and beside accelerate's own wrappers, on digits."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.integrations.conftest import TRAIN, bytes_of, digits, net, warnings_of
from wellfit.diagnosis.monitor import Monitor
from wellfit.errors import UserError

adapter = pytest.importorskip("wellfit.integrations.transformers", exc_type=ImportError)
hugging, accelerate = pytest.importorskip("transformers"), pytest.importorskip("accelerate")
STATE, DoctorCallback = adapter.STATE, adapter.DoctorCallback

pytestmark = [pytest.mark.filterwarnings("ignore")]


class Digits(nn.Module):
    """A model as the Trainer wants it: labels in, loss and logits out."""

    def __init__(self, make=net):
        super().__init__()
        torch.manual_seed(0)
        self.net = make()

    def forward(self, pixel_values, labels=None):
        logits = self.net(pixel_values)
        found = {"logits": logits}
        if labels is not None:
            found = {"loss": F.cross_entropy(logits, labels), **found}
        return found


def vit():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = hugging.ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, num_labels=10)
    return hugging.ViTForImageClassification(config)


def rows(start=0, end=TRAIN):
    x, y = digits()
    return [{"pixel_values": a, "labels": int(b)} for a, b in zip(x[start:end], y[start:end], strict=True)]


def accuracy(found):
    return {"accuracy": float((np.argmax(found.predictions, 1) == found.label_ids).mean())}


def trainer_of(model, doctor, folder, *, kind=None, data=None, extra=None, **options):
    settings = {
        "num_train_epochs": 5,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 256,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "logging_strategy": "no",
        "use_cpu": True,
        "seed": 0,
        **options,
    }
    trainer = (kind or hugging.Trainer)(
        model=model,
        args=hugging.TrainingArguments(output_dir=str(folder), **settings),
        train_dataset=data or rows(),
        eval_dataset=rows(TRAIN, TRAIN + 300) if settings["eval_strategy"] != "no" else None,
        callbacks=[doctor] if doctor else [],
        compute_metrics=accuracy if settings["eval_strategy"] != "no" else None,
        **(extra or {}),
    )
    trainer.remove_callback(hugging.PrinterCallback)
    return trainer


def test_a_healthy_training_has_no_warning_and_the_trainers_figures(tmp_path, said):
    doctor = DoctorCallback(report=tmp_path / "doctor.html", every=1)
    model = Digits()
    trainer = trainer_of(model, doctor, tmp_path, logging_strategy="steps", logging_steps=1)
    trainer.train()
    history = doctor.monitor.history
    logged = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert list(history.losses) == pytest.approx(logged, abs=1e-3)
    assert [e.step for e in history.epochs] == [12, 24, 36, 48, 60]
    assert [e.val_accuracy for e in history.epochs] == pytest.approx(
        [line["eval_accuracy"] for line in trainer.state.log_history if "eval_accuracy" in line]
    )
    assert history.epochs[-1].train_accuracy > 0.9
    assert len(history.samples) == 60
    assert history.samples[-1].output.targets.sum() == 32
    assert len(history.samples[-1].layers) == 2
    assert (history.samples[-1].update_norm > 0).sum() >= 7
    assert not any(s.carried for s in history.samples)
    assert history.lrs[-1] == 5e-3
    assert warnings_of(doctor.findings) == []
    assert (tmp_path / "doctor.html").stat().st_size > 1000
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("options", [{}, {"bf16": True}, {"gradient_accumulation_steps": 5, "max_grad_norm": 0.5}])
def test_watching_changes_no_bit(options, tmp_path):
    def weights(doctor):
        model = Digits()
        trainer_of(model, doctor, tmp_path, num_train_epochs=2, **options).train()
        return bytes_of(model)

    doctor = DoctorCallback(every=1)
    assert weights(doctor) == weights(None)
    assert len(doctor.monitor.history.losses) == (6 if options.get("gradient_accumulation_steps") else 24)
    assert doctor.monitor.history.losses[0] == pytest.approx(math.log(10), abs=0.5)


class Evaluating(hugging.Trainer):
    """Forgets that the network is in evaluation mode."""

    def compute_loss(self, model, inputs, **rest):
        model.eval()
        return super().compute_loss(model, inputs, **rest)


def detached():
    class Cut(nn.Module):
        def forward(self, x):
            return x.detach()

    whole = net()
    return nn.Sequential(whole[:4], Cut(), whole[4:])


@pytest.mark.parametrize(
    ("make", "options", "faults"),
    [
        (Digits, {"learning_rate": 30.0, "optim": "sgd", "max_grad_norm": 0.0}, ("exploding", "lr-too-high", "nan")),
        (Digits, {"learning_rate": 1e-8}, ("lr-too-low", "updates-too-small")),
        (lambda: Digits(detached), {}, ("frozen-parameters",)),
        (Digits, {"kind": Evaluating}, ("wrong-batchnorm-mode",)),
    ],
)
def test_a_planted_fault_is_named_while_the_training_runs(make, options, faults, tmp_path, said):
    doctor = DoctorCallback()
    trainer_of(make(), doctor, tmp_path, num_train_epochs=10, **options).train()
    assert set(faults) & set(warnings_of(doctor.findings)[:2])
    assert any(f"] {name}:" in line for line in said() for name in faults)


def test_a_finding_may_stop_the_training(tmp_path):
    doctor = DoctorCallback(stop_on="error")
    sick = {"learning_rate": 30.0, "optim": "sgd", "max_grad_norm": 0.0}
    trainer = trainer_of(Digits(), doctor, tmp_path, num_train_epochs=50, **sick)
    trainer.train()
    assert trainer.state.global_step < 100


class Weighted(hugging.Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs["logits"], labels, weight=torch.linspace(0.5, 1.5, 10))
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize(
    ("make", "kind", "options", "extra"),
    [
        (Digits, Weighted, {}, {}),
        (vit, None, {"label_smoothing_factor": 0.1}, {}),
        (
            Digits,
            None,
            {},
            {"compute_loss_func": lambda out, y, num_items_in_batch=None: F.cross_entropy(out["logits"], y)},
        ),
    ],
)
def test_a_loss_made_outside_the_model_is_seen_by_following_the_trainer(make, kind, options, extra, tmp_path):
    doctor = DoctorCallback(every=1)
    model = make()
    options = {"num_train_epochs": 3, "kind": kind, "extra": extra, **options}
    trainer = trainer_of(model, doctor, tmp_path, logging_strategy="steps", logging_steps=1, **options)
    doctor.follow(trainer)
    trainer.train()
    logged = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    history = doctor.monitor.history
    assert list(history.losses) == pytest.approx(logged, abs=1e-3)
    assert history.samples[-1].output.targets.sum() == 32
    assert history.epochs[-1].train_accuracy > history.epochs[0].train_accuracy
    assert "compute_loss" not in vars(trainer)
    unwatched = make()
    trainer_of(unwatched, None, tmp_path, logging_strategy="steps", logging_steps=1, **options).train()
    assert bytes_of(model) == bytes_of(unwatched)


def test_a_loss_that_is_not_seen_is_one_clear_sentence(tmp_path):
    doctor = DoctorCallback()
    with pytest.raises(UserError, match=r"call doctor.follow\(trainer\) before"):
        trainer_of(Digits(), doctor, tmp_path, kind=Weighted).train()
    with pytest.raises(UserError, match="pass the Trainer"):
        doctor.follow("trainer")


def test_beside_checkpoints_and_early_stopping_and_through_a_resume(tmp_path):
    def run(doctor, epochs, folder, resume=None):
        trainer = trainer_of(
            Digits(),
            doctor,
            folder,
            num_train_epochs=epochs,
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
        )
        trainer.add_callback(hugging.EarlyStoppingCallback(early_stopping_patience=50))
        trainer.train(resume_from_checkpoint=resume)
        return doctor.monitor.history

    whole = run(DoctorCallback(), 4, tmp_path / "whole")
    first = DoctorCallback()
    run(first, 2, tmp_path / "parts")
    assert (tmp_path / "parts" / "checkpoint-24" / STATE).is_file()
    second = run(DoctorCallback(), 4, tmp_path / "parts", resume=True)
    assert len(second.losses) == len(whole.losses) == 48
    assert list(second.losses[:24]) == list(first.monitor.history.losses)
    assert [s.step for s in second.samples] == [s.step for s in whole.samples]
    assert [e.step for e in second.epochs] == [12, 24, 36, 48]
    assert [e.val_accuracy for e in second.epochs] == pytest.approx([e.val_accuracy for e in whole.epochs], abs=0.1)


def test_an_interrupted_training_leaves_its_findings_and_its_report(tmp_path):
    class Stopping(hugging.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 15:
                raise KeyboardInterrupt

    model = Digits()
    with DoctorCallback(report=tmp_path / "doctor.html") as doctor:
        trainer = trainer_of(model, doctor, tmp_path, num_train_epochs=2)
        trainer.add_callback(Stopping())
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        assert len(doctor.monitor.history.losses) == 15
        assert not (tmp_path / "doctor.html").exists()
    assert isinstance(doctor.findings, list)
    assert (tmp_path / "doctor.html").is_file()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    # and a later training is watched anew
    trainer.pop_callback(Stopping)
    trainer.train()
    assert len(doctor.monitor.history.losses) == 24


def test_an_evaluation_alone_is_not_watched(tmp_path):
    doctor = DoctorCallback()
    trainer = trainer_of(Digits(), doctor, tmp_path, num_train_epochs=1)
    trainer.evaluate()
    assert (doctor.findings, doctor.unjudged, doctor.monitor) == ([], {}, None)
    trainer.train()
    epochs = len(doctor.monitor.history.epochs)
    trainer.evaluate()
    trainer.predict(rows(0, 32))
    assert len(doctor.monitor.history.epochs) == epochs


def test_a_compiled_model_is_judged_by_following(tmp_path):
    torch._dynamo.reset()
    doctor = DoctorCallback(every=1)
    trainer = trainer_of(
        Digits(), doctor, tmp_path, num_train_epochs=2, torch_compile=True, torch_compile_backend="eager"
    )
    doctor.follow(trainer)
    trainer.train()
    assert len(doctor.monitor.history.losses) == 24
    assert doctor.monitor.history.samples[-1].output.images == 32
    assert "compiled" in doctor.unjudged["dead-relu"]


def test_a_model_of_transformers_own(tmp_path):
    doctor = DoctorCallback(every=1)
    options = {"gradient_accumulation_steps": 2, "gradient_checkpointing": True, "num_train_epochs": 4}
    trainer_of(vit(), doctor, tmp_path, **options).train()
    history = doctor.monitor.history
    assert len(history.losses) == 24
    assert history.samples[-1].output.width == 10
    assert history.samples[-1].output.targets.sum() == 32
    assert history.losses[-1] < history.losses[0]
    assert warnings_of(doctor.findings) == []


def test_a_language_model_is_judged_by_its_loss_and_its_weights(tmp_path):
    config = hugging.GPT2Config(vocab_size=20, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    torch.manual_seed(0)
    texts = torch.arange(64 * 8).reshape(64, 8) % 20
    data = [{"input_ids": t, "labels": t} for t in texts]
    doctor = DoctorCallback(every=1)
    options = {"num_train_epochs": 12, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 8}
    model = hugging.GPT2LMHeadModel(config)
    trainer_of(model, doctor, tmp_path, data=data, eval_strategy="no", **options).train()
    history = doctor.monitor.history
    assert len(history.losses) == 48
    # the Trainer divides by all eight labels, and the model by shifting has seven answers
    assert history.losses[0] == pytest.approx(7 / 8 * math.log(20), abs=0.3)
    assert history.samples[-1].output is None
    for name in ("double-softmax", "constant-output", "class-collapsed"):
        assert "(8, 8, 20)" in doctor.unjudged[name]
    assert "updates-too-small" not in doctor.unjudged
    assert warnings_of(doctor.findings) == []


@pytest.mark.parametrize("parts", [1, 3])
def test_accelerates_wrappers_in_a_loop_of_ones_own(parts):
    def run(watched):
        torch.manual_seed(0)
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=parts)
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        model, optimizer = accelerator.prepare(model, optimizer)
        monitor = Monitor(model, optimizer, every=1) if watched else None
        x, y = digits()
        for step in range(12):
            with accelerator.accumulate(model):
                loss = F.cross_entropy(model(x[32 * step :][:32]), y[32 * step :][:32])
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                if monitor:
                    monitor.step(loss, targets=y[32 * step :][:32])
        return monitor, bytes_of(model)

    (monitor, watched), (_, plain) = run(True), run(False)
    assert watched == plain
    assert len(monitor.history.losses) == len(monitor.history.samples) == 12 // parts
    assert list(monitor.history.lrs) == [0.05] * (12 // parts)
    assert not any(s.carried for s in monitor.history.samples)


def test_a_missing_library_is_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(adapter, "find_spec", lambda name: None if name == "accelerate" else name)
    with pytest.raises(ImportError, match=r"pip install 'wellfit\[transformers\]'"):
        adapter._callback()


class Kinds(Digits):
    """Its labels go by a name of its own."""

    def forward(self, pixel_values, kind=None):
        return super().forward(pixel_values, kind)


@pytest.mark.parametrize("followed", [False, True])
def test_labels_of_another_name_are_found_by_a_function(followed, tmp_path):
    data = [{"pixel_values": row["pixel_values"], "kind": row["labels"]} for row in rows(0, 96)]

    def doctored(**options):
        doctor = DoctorCallback(**options)
        settings = {"eval_strategy": "no", "num_train_epochs": 1, "remove_unused_columns": False}
        trainer = trainer_of(Kinds(), doctor, tmp_path, data=data, **settings)
        if followed:
            doctor.follow(trainer)
        trainer.train()
        return doctor

    told, without = doctored(targets=lambda inputs: inputs["kind"]), doctored()
    assert told.monitor.history.samples[0].output.targets.sum() == 32
    assert told.monitor.history.classes == 10
    assert without.monitor.history.samples[0].output is None
    assert "scores of classes" in without.unjudged["class-collapsed"]
    with pytest.raises(UserError, match="function of a batch"):
        DoctorCallback(targets="kind")
