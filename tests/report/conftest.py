"""Synthetic run folders: the record of a training that never was, with the shape of a real one."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wellfit.findings import explanations
from wellfit.randomness import generator
from wellfit.record import Record, RunFolder, read_record

TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
RunMaker = Callable[..., RunFolder]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A warning while a report is written is a fault of the report, such as a figure that could not be laid out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("error"))


@pytest.fixture
def make_run(tmp_path: Path) -> RunMaker:
    """`make_run(name, classes=…, steps=…, until=…)` writes a run folder under the test's temporary folder."""

    def make(name: str = "run", **how: Any) -> RunFolder:
        return write_run(tmp_path / name, **how)

    return make


def write_run(
    path: Path,
    *,
    classes: list[str] | None = None,
    steps: int = 200,
    trials: int = 12,
    parameters: int = 20,
    test_images: int = 1000,
    findings: tuple[str, ...] = ("overfitting", "imbalanced-classes", "still-improving"),
    status: str = "done",
    until: str = "",
    thumbnails: bool = True,
) -> RunFolder:
    """Write a run of `steps` steps; `until` names the kind of line before which the record breaks off."""
    names = TEN if classes is None else classes
    folder = RunFolder(path)
    record = Record(folder.record)
    draw = generator(0, "report-tests")
    lines = _lines(names, steps, trials, parameters, test_images, findings, status, draw)
    for line in lines:
        if line["kind"] == until:
            break
        record.write(**line)
    record.close()
    folder.config.write_text(
        'seed = 0\nmetric = "accuracy"\n\n[model]\nweights = "none"\n\n[model.options]\nwidths = [64, 128]\n\n'
        '[optimizer]\nname = "sgd"\nlr = 0.021\nweight_decay = 0.0\n\n[training]\nbalance = "sampler"\n',
        encoding="utf-8",
    )
    folder.plan.write_text(f"steps = {steps}\ntrials = {trials}\n", encoding="utf-8")
    architecture = {"name": "resnet18", "options": {}, "image_size": 40}
    card = {"architecture": architecture, "classes": names, "preprocessing": {"mean": [0.49, 0.48, 0.45]}}
    if not until:
        folder.model_card.write_text(json.dumps(card), encoding="utf-8")
        folder.model_weights.write_bytes(b"weights")
    if thumbnails:
        folder.arrays.mkdir(exist_ok=True)
        for i in range(24):
            (folder.arrays / f"thumbnail-{i}.png").write_bytes(_picture(draw))
    return folder


def write_transfer_run(path: Path, *, sizes: tuple[int, ...] = (224, 288), fine_tuned: bool = False) -> RunFolder:
    """A run that fits linear classifiers on frozen features; the best is that of the last size at strength 0.03."""
    folder = write_run(path, steps=20 if fine_tuned else 0, trials=0, findings=(), classes=["ants", "bees"])
    fitted = []
    for size in sizes:
        for strength in (1e-4, 1e-3, 0.03, 1.0):
            distance = abs(math.log10(strength / 0.03)) + (size != sizes[-1])
            figures = {"loss": 0.2 + 0.1 * distance, "accuracy": 0.9125 - 0.01 * distance}
            figures |= {"balanced_accuracy": 0.8 - 0.01 * distance, "macro_f1": 0.7}
            taken = size == sizes[-1] and strength == 0.03
            fitted.append({"kind": "probe", "image_size": size, "strength": strength, "chosen": taken, **figures})
    reason = (
        f"1,024 features of squeezenet1_1 at {sizes[-1]} px, strength 0.03, chosen among 8 by 5-fold cross-validation"
    )
    probe = {"name": "probe", "status": "done", "seconds": 9.2, "reason": reason, "gain": 0.0163}
    if fine_tuned:
        tuned = {"name": "fine-tune", "status": "done", "seconds": 60.0, "reason": "9.0 epochs", "gain": 0.02}
    else:
        why = "no fine-tuning: with 209 images, fewer than 2,000, a linear classifier is advised"
        tuned = {"name": "fine-tune", "status": "skipped", "seconds": 0.0, "reason": why, "gain": None}
    steps = [{"kind": "recipe_step", **step} for step in (probe, tuned)]
    old = [line for line in read_record(folder.record) if line.get("name") not in ("search", "train")]
    at = next(i for i, line in enumerate(old) if line["kind"] in ("step", "recipe_step"))
    folder.record.unlink()
    record = Record(folder.record)
    for line in [*old[:at], *fitted, *steps, *old[at:]]:
        record.write(**line)
    record.close()
    card = json.loads(folder.model_card.read_text(encoding="utf-8"))
    options = {"backbone": "squeezenet1_1"}
    card["architecture"] = {"name": "probe_net", "options": options, "image_size": sizes[-1]}
    card["parameters"] = 725_572
    folder.model_card.write_text(json.dumps(card), encoding="utf-8")
    folder.config.write_text(
        'metric = "accuracy"\n[model]\nweights = "imagenet"\n[optimizer]\nname = "adamw"\nlr = 2.5e-05\n'
        'weight_decay = 0.01\n[training]\nbalance = "none"\n',
        encoding="utf-8",
    )
    return folder


def _lines(
    names: list[str],
    steps: int,
    trials: int,
    parameters: int,
    test_images: int,
    findings: tuple[str, ...],
    status: str,
    draw: np.random.Generator,
) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [
        {
            "kind": "run",
            "schema": 1,
            "command": "wellfit fit photos/ --budget 10m --seed 0",
            "seed": 0,
            "versions": {"wellfit": "0.1.0", "python": "3.11.7", "torch": "2.15.0"},
            "machine": {"system": "Linux", "processor": "x86_64", "cores": 2, "memory_gib": 15.6},
            "started": "2025-01-07T10:21:33",
        },
        {
            "kind": "audit",
            "images": 60 * test_images // 10,
            "classes": {n: 600 - 7 * i for i, n in enumerate(names)},
            "left_out": [
                {"file": "cat/broken.jpg", "reason": "cut off after 812 bytes"},
                {"file": "dog/.lfs.png", "reason": "a Git-LFS pointer"},
            ],
            "splits": {"train": 48000, "validation": 5000, "test": test_images},
            "sentences": [
                "10% of the training images were set aside for validation.",
                "The test split came with the data and stays sealed.",
            ],
        },
        {
            "kind": "engine",
            "device": "cpu",
            "dtype": "bfloat16",
            "layout": "channels_last",
            "threads": 2,
            "line": "cpu, bfloat16, channels_last, 2 threads: 412 images/s (float32: 121)",
            "candidates": [
                {"dtype": "float32", "layout": "contiguous", "threads": 2, "images_per_second": 121.0},
                {"dtype": "bfloat16", "layout": "channels_last", "threads": 2, "images_per_second": 412.3},
            ],
        },
        {
            "kind": "plan",
            "model": "resnet18",
            "image_size": 32,
            "epochs": 5,
            "steps": steps,
            "batch_size": 128,
            "trials": trials,
            "parameters": 11_173_962,
            "reason": "the largest network that sees every image five times",
        },
    ]
    for check, value, expected, message in (
        ("initial-loss", 2.31, math.log(max(2, len(names))), "The first loss is log C within 3%."),
        ("cannot-overfit-small-sample", 1.0, 1.0, "Twenty images were learnt by heart in 64 steps."),
        ("no-good-lr", 0.03, None, "With lr 0.03 the loss fell by 41% in 100 steps."),
    ):
        lines.append(
            {
                "kind": "check",
                "check": check,
                "passed": True,
                "value": value,
                "expected": expected,
                "message": message,
                "seconds": 2.4,
            }
        )
    lines += _search_lines(trials, draw)
    for step in range(1, steps + 1):
        progress = step / steps
        line: dict[str, Any] = {
            "kind": "step",
            "step": step,
            "epoch": 5 * progress,
            "loss": 0.35 + 1.95 * math.exp(-5 * progress) + 0.16 * draw.standard_normal() * math.exp(-progress),
            "lr": 0.02 * min(1.0, 10 * progress) * 0.5 * (1 + math.cos(math.pi * progress)),
            "images_per_second": 410.0,
            "wait": 0.01,
        }
        if step % max(1, steps // 100) == 0:
            line["update_ratio"] = {
                f"layer{i // 4}.{i % 4}.{'weight' if i % 2 == 0 else 'bias'}": 10
                ** (-3 + 0.05 * i - 1.4 * progress + 0.2 * draw.standard_normal())
                for i in range(parameters)
            }
        lines.append(line)
        if step % max(1, steps // 10) == 0:
            lines.append(
                {
                    "kind": "epoch",
                    "epoch": 5 * progress,
                    "step": step,
                    "train_loss": 0.4,
                    "train_accuracy": 0.97 - 0.7 * math.exp(-4 * progress),
                    "validation_loss": 0.5,
                    "validation_accuracy": 0.84 - 0.5 * math.exp(-4 * progress),
                    "averaged_validation_accuracy": 0.85 - 0.4 * math.exp(-4 * progress) if progress > 0.5 else None,
                    "seconds": 300 * progress,
                }
            )
    for i, name in enumerate(findings):
        lines.append(
            {
                "kind": "finding",
                "id": name,
                "severity": ("warning", "info", "warning")[i % 3],
                "step": steps,
                "message": f"Example of {explanations()[name]['title'].lower()}: 0.97 against 0.84.",
                "evidence": {"train": 0.97, "validation": 0.84},
                "action": explanations()[name]["action"],
                "reference": explanations()[name]["reference"],
            }
        )
    for name, state, seconds, reason, gain in (
        ("audit", "done", 3.1, "", None),
        ("search", "done", 142.0, "40 short trials in two stages", 0.031),
        ("train", "done", 401.0, "the rest of the budget", 0.214),
        ("views", "skipped", 0.0, "the budget leaves no time for several views", None),
    ):
        lines.append(
            {"kind": "recipe_step", "name": name, "status": state, "seconds": seconds, "reason": reason, "gain": gain}
        )
    lines.append(_evaluation_line(names, test_images, draw))
    lines.append({"kind": "end", "status": status, "seconds": 583.4})
    return lines


def _search_lines(trials: int, draw: np.random.Generator) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    stages = (("coarse", (1e-4, 1.0), (0.0, 1e-2)), ("fine", (5e-3, 0.1), (1e-5, 1e-3)))
    for s, (stage, lr_range, decay_range) in enumerate(stages if trials else ()):
        reason = "a wide range in powers of ten" if s == 0 else "the three best trials lie between 0.008 and 0.06"
        lines.append(
            {"kind": "stage", "name": stage, "ranges": {"lr": lr_range, "weight_decay": decay_range}, "reason": reason}
        )
        for trial in range(s * (trials // 2), trials // 2 if s == 0 else trials):
            lr = 10 ** draw.uniform(math.log10(lr_range[0]), math.log10(lr_range[1]))
            decay = float(draw.choice([0.0, 1e-5, 1e-4, 1e-3]))
            accuracy = 0.66 - 0.09 * abs(math.log10(lr / 0.02)) ** 1.6 + 0.02 * draw.standard_normal()
            pruned = lr > 0.25
            end = 9.0 if pruned else 2.3 - 1.7 * accuracy
            curve = [[step, 2.3 + (end - 2.3) * (step / 100) ** 0.5] for step in range(0, 101, 5)]
            lines.append(
                {
                    "kind": "trial",
                    "stage": stage,
                    "trial": trial,
                    "settings": {"lr": lr, "weight_decay": decay},
                    "state": "pruned" if pruned else "finished",
                    "validation_accuracy": None if pruned else accuracy,
                    "validation_loss": end,
                    "curve": curve,
                    "seconds": 3.2,
                }
            )
    return lines


def _evaluation_line(names: list[str], n: int, draw: np.random.Generator) -> dict[str, Any]:
    c = len(names)
    true = np.arange(n) % c
    neighbour = (true + draw.choice([1, 2, c - 1], n)) % c
    said = np.where(draw.random(n) < 0.86, true, neighbour)
    counts = np.bincount(true * c + said, minlength=c * c).reshape(c, c)
    hits = counts.diagonal()
    accuracy = float(hits.sum() / n)
    pictures = [
        {
            "file": f"test/{names[i % c]}/{i:05d}.png",
            "label": names[i % c],
            "predicted": names[(i + i % 2) % c],
            "probability": 0.97 - 0.01 * i,
            "thumbnail": f"thumbnail-{i}.png",
        }
        for i in range(24)
    ]
    confidence = (np.arange(15) + 0.5) / 15
    spread = 1.96 * math.sqrt(accuracy * (1 - accuracy) / n)
    return {
        "kind": "evaluation",
        "split": "test",
        "images": n,
        "accuracy": accuracy,
        "interval": [accuracy - spread, accuracy + spread],
        "balanced_accuracy": accuracy - 0.001,
        "macro_f1": accuracy - 0.002,
        "loss": 0.51,
        "per_class": [
            {
                "class": name,
                "images": int(counts[i].sum()),
                "precision": float(hits[i] / max(1, counts[:, i].sum())),
                "recall": float(hits[i] / max(1, counts[i].sum())),
                "f1": float(2 * hits[i] / max(1, counts[i].sum() + counts[:, i].sum())),
            }
            for i, name in enumerate(names)
        ],
        "confusion": counts.tolist() if c <= 100 else None,
        "calibration_error": 0.041,
        "reliability": [
            {"confidence": float(x), "accuracy": float(max(0, x - 0.05)), "images": int(n * x**6 / 4) + 1}
            for x in confidence
        ],
        "temperature": 1.3,
        "mistakes": [p for p in pictures if p["label"] != p["predicted"]],
        "samples": pictures[:12],
    }


def _picture(draw: np.random.Generator) -> bytes:
    pixels = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((48, 48)).save(out, "PNG")
    return out.getvalue()
