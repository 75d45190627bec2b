"""What a network holds for alike: the step of a run that looks at its training images' features (SPEC T5).

The features are kept, training images whose nearest all carry one other label are named, and a few test images are
shown beside their nearest.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn

from wellfit.data.store import PixelStore
from wellfit.data.views import evaluation_view
from wellfit.errors import UserError
from wellfit.findings import Finding
from wellfit.inference.features import Features
from wellfit.inference.neighbours import Strangers, strangers
from wellfit.inference.thumbnails import save_thumbnail
from wellfit.recipe.feature_bank import FeatureBank, OutOfTime, build_bank
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.testing import open_test_split
from wellfit.record import RunFolder, read_record

K = 8
WORK = 5e10  # multiply-adds spent on looking for wrong labels: about a second or two on a laptop
LARGEST = 1_000_000_000  # bytes of features that a run keeps unasked
KEPT_SUSPECTS, SHOWN_SUSPECTS, SHOWN_BESIDE = 200, 24, 4
SHOWN_EXAMPLES, SHOWN_NEIGHBOURS = 8, 6
MANY = 0.05  # more suspects than this share of the images say more about the network than about labels


def look_around(job: Job, material: Material, module: nn.Module) -> None:
    """The recipe's step: keep the training images' features, name strangers, show test images' nearest."""
    data, plan = material.data, material.plan
    with job.step("neighbours") as outcome:
        begun = time.monotonic()
        train, later = data.split.train, f"wellfit neighbours {job.folder.path}"

        def in_time(done: int, width: int) -> None:
            if 2 * len(train) * width > LARGEST:
                size = 2e-9 * len(train) * width
                raise UserError(f"the features would take {size:.1f} GB; `{later}` keeps them all the same")
            each = (time.monotonic() - begun) / done
            work = min(WORK, len(train) ** 2 * width)
            missing = each * (len(train) - done) + 2e-11 * work - (job.budget.left - 1.0)
            if missing > 0:
                raise OutOfTime(missing)

        def progress(done: int) -> None:
            job.record.tell("progress", what="features", done=done, of=len(train))

        try:
            with Features(module, plan.engine, material.preprocessing) as features:
                bank, own = build_bank(
                    job.folder,
                    features,
                    material.evaluation(train),
                    [data.source.names[i] for i in train.tolist()],
                    data.classes,
                    progress=progress,
                    in_time=in_time,
                )
                found = find_strangers(bank, own, plan.engine.device)
                shown = _examples(job, material, features, bank)
        except OutOfTime as late:
            outcome.skip(f"no time left (about {late.seconds:.0f} s more are needed); `{later}` does it")
            return
        except UserError as error:
            outcome.skip(str(error))
            return
        line = record_line(job.folder, bank, found, data.store, data.rows(train), shown)
        job.record.write("neighbours", **line)
        job.report(*findings_of(line))
        outcome.reason = (
            f"{bank.features.shape[1]:,} features of {len(bank):,} training images kept; {line['suspects_in_all']:,} "
            "stand among images of one other class"
        )


def find_strangers(bank: FeatureBank, own: np.ndarray, device: str) -> tuple[Strangers, int]:
    """Images whose neighbours all carry one other label, the least likely labels first; and how many were looked at.

    Where all pairs are too many, only images whose label the network itself finds least likely are looked at.
    """
    n, width = bank.features.shape
    k = min(K, n - 1)
    if k < 1:
        empty = np.zeros(0, dtype=np.int64)
        return Strangers(empty, empty, np.zeros((0, 1), np.int64), np.zeros((0, 1), np.float32)), 0
    looked = min(n, max(1000, int(WORK / (n * width))))
    likely = np.argsort(own, kind="stable")[:looked]
    found = strangers(bank.features, bank.labels, k, candidates=likely, device=device)
    found.distances = found.distances / bank.scale
    return found, looked


def record_line(
    folder: RunFolder,
    bank: FeatureBank,
    found: tuple[Strangers, int],
    store: PixelStore,
    rows: np.ndarray,
    examples: list[dict[str, Any]],
) -> dict[str, Any]:
    """The record's line. rows: the store row of each training image. Thumbnails of what is shown are written."""
    suspects, looked = found
    written: dict[int, str] = {}

    def picture(position: int) -> str:
        if position not in written:
            written[position] = f"near-{position:06d}.jpg"
            save_thumbnail(store.image(int(rows[position])), folder.arrays / written[position])
        return written[position]

    listed = []
    for i, position in enumerate(suspects.positions[:KEPT_SUSPECTS].tolist()):
        row: dict[str, Any] = {
            "file": bank.files[position],
            "label": bank.classes[int(bank.labels[position])],
            "neighbours_label": bank.classes[int(suspects.labels[i])],
        }
        if i < SHOWN_SUSPECTS:
            row["thumbnail"] = picture(position)
            beside = suspects.neighbours[i, :SHOWN_BESIDE], suspects.distances[i, :SHOWN_BESIDE]
            row["neighbours"] = named(bank, *beside)
            for other, where in zip(row["neighbours"], beside[0].tolist(), strict=True):
                other["thumbnail"] = picture(where)
        listed.append(row)
    for example in examples:
        for other, where in zip(example["neighbours"], example.pop("positions"), strict=True):
            other["thumbnail"] = picture(where)
    return {
        "k": suspects.neighbours.shape[1],
        "metric": "L2",
        "layer": bank.layer,
        "features": int(bank.features.shape[1]),
        "images": len(bank),
        "looked_at": looked,
        "examples": examples,
        "suspects": listed,
        "suspects_in_all": len(suspects.positions),
    }


def _examples(job: Job, material: Material, features: Features, bank: FeatureBank) -> list[dict[str, Any]]:
    """Neighbours of a few test images, mistakes first: those whose thumbnails the evaluation kept."""
    judged = [line for line in read_record(job.folder.record) if line["kind"] == "evaluation"]
    shown = [*judged[-1]["mistakes"][: SHOWN_EXAMPLES // 2], *judged[-1]["samples"]] if judged else []
    chosen = list({row["file"]: row for row in shown}.values())[:SHOWN_EXAMPLES]
    if not chosen:
        return []
    data, preprocessing = material.data, material.preprocessing
    store, place = open_test_split(material), {name: i for i, name in enumerate(data.source.names)}
    rows = store.row_of[np.array([place[row["file"]] for row in chosen])]
    views = [evaluation_view(store.image(int(r)), preprocessing.resize, preprocessing.size) for r in rows]
    values, _ = features.of(torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2))
    positions, distances = bank.nearest(values, min(SHOWN_NEIGHBOURS, len(bank)))
    return [
        {**row, "neighbours": named(bank, positions[i], distances[i]), "positions": positions[i].tolist()}
        for i, row in enumerate(chosen)
    ]


def findings_of(line: dict[str, Any]) -> list[Finding]:
    """What the record's line gives occasion to say."""
    n, suspects = line["suspects_in_all"], line["suspects"]
    if not n:
        return []
    first = suspects[0]
    among = f"{line['images']:,} training images"
    if line["looked_at"] < line["images"]:
        among = f"the {line['looked_at']:,} training images with the least likely labels"
    message = (
        f"of {among}, {n:,} {'lies' if n == 1 else 'lie'} among images of one other class: the {line['k']} nearest in "
        f"the network's features all carry that label, as with '{first['file']}' (labelled '{first['label']}', its "
        f"neighbours '{first['neighbours_label']}')"
    )
    if n > MANY * line["images"]:
        message += "; so many say that the network confuses these classes, rather than that the labels are wrong"
    return [
        Finding(
            "perhaps-mislabelled",
            "info",
            message,
            {"images": n, "of": line["looked_at"], "k": line["k"], "files": suspects_named(suspects)},
            "look at them in the report's section on neighbours, and correct the labels that are wrong",
            "SPEC T5",
        )
    ]


def named(bank: FeatureBank, positions: np.ndarray, distances: np.ndarray) -> list[dict[str, Any]]:
    """{"file", "label", "distance"} of neighbours, in their order."""
    return [
        {"file": bank.files[p], "label": bank.classes[int(bank.labels[p])], "distance": float(f"{d:.6g}")}
        for p, d in zip(positions.tolist(), distances.tolist(), strict=True)
    ]


def suspects_named(suspects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without thumbnails and neighbours."""
    return [{key: row[key] for key in ("file", "label", "neighbours_label")} for row in suspects]
