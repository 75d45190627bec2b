"""`wellfit ensemble`: finished runs become one model, its members chosen on images that none has learnt from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wellfit.config import Config, config_to_toml, load_config
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine, engine_here
from wellfit.errors import UserError
from wellfit.inference.evaluate import logits_of
from wellfit.inference.gain import Gain, gain, judge
from wellfit.inference.selection import MOST_MEMBERS, Selection, Step, greedy, mean_answers
from wellfit.inference.views import VIEWS, preset
from wellfit.models.ensemble import Ensemble, entrance_of
from wellfit.models.saved import load_model, read_card
from wellfit.recipe.answers import HeldOut
from wellfit.recipe.budget import Budget
from wellfit.recipe.combining import Candidate, record_line
from wellfit.recipe.common_view import common_view
from wellfit.recipe.earlier import match_classes
from wellfit.recipe.fitting import Fitted
from wellfit.recipe.job import Job
from wellfit.recipe.joined_network import Part, joined
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.opening import Listener, forget_if_empty, job_of, new_folder, run_session
from wellfit.recipe.plan import EndingPlan, Plan, load_plan
from wellfit.recipe.run import Run
from wellfit.recipe.search_run import is_search
from wellfit.recipe.shared_images import Shared, shared_images
from wellfit.recipe.testing import evaluate, save
from wellfit.recipe.viewing import choose_views
from wellfit.record import RunFolder, write_atomically
from wellfit.report.page import write_report


@dataclass
class Joined:
    """A run that may become a member: its network in the first run's order of classes."""

    folder: RunFolder
    module: torch.nn.Module
    card: dict[str, Any]

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.from_dict(self.card["preprocessing"])


def ensemble(
    runs: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    data: Any = None,
    most: int = MOST_MEMBERS,
    equal: bool = False,
    views: str = "none",
    command: str = "wellfit.ensemble(…)",
    started: float | None = None,
    listener: Listener | None = None,
) -> Run:
    """Join finished runs of the same data to one model: their probabilities averaged (SPEC E1).

    runs: two or more run folders. Members and shares are chosen greedily on validation images that no run was trained
    on (Caruana et al. 2004), at most `most` of them; equal: all runs count alike and none is left out.
    data: the runs' own data, where they came from memory or have been moved. views: "auto" or a name of
    `inference.views.VIEWS`. out: the new run folder.

    Test images count only where no run has learnt from them. Raises UserError for runs of other classes or other data,
    and where no validation image is left that none was trained on.
    """
    started = time.monotonic() if started is None else started
    if views != "auto":
        preset(views)
    if most < 1:
        raise UserError(f"an ensemble has at least one member, got at most {most}; give a number from 1")
    members = opened(runs)
    config = load_config(members[0].folder.config)
    shared = shared_images([member.folder for member in members], [m.card for m in members], data, listener)
    folder = new_folder(out)
    write_atomically(folder.config, config_to_toml(config))
    place = shared.data.source.location if data is None else None
    request = {"ensemble": [str(m.folder.path.resolve()) for m in members], "data": place, "budget": None}
    job = job_of(folder, data, config, Budget(None, started), False, listener)
    try:
        run_session(
            job, lambda job: _join(job, members, shared, config, most, equal, views), request=request, command=command
        )
    except UserError:
        forget_if_empty(folder)
        raise
    return Run(folder)


def opened(runs: Sequence[str | Path]) -> list[Joined]:
    """The runs' networks, their classes in the order of the first's; UserError where they do not go together."""
    folders = [RunFolder.open(run) for run in runs]
    places = [folder.path.resolve() for folder in folders]
    if len(folders) < 2:
        raise UserError(f"an ensemble joins two runs or more, got {len(folders)}; give another run")
    for i, place in enumerate(places):
        if place in places[:i]:
            raise UserError(f"an ensemble joins different runs, got '{folders[i].path}' twice; leave one out")
    for folder in folders:
        if is_search(folder):
            raise UserError(
                f"members of an ensemble are trained models, but '{folder.path}' is a search, which hands over "
                f"settings; train with them: `wellfit train DATA {folder.best}`"
            )
    classes = list(read_card(folders[0])["classes"])
    for folder in folders[1:]:
        theirs = list(read_card(folder)["classes"])
        odd = [c for c in theirs if c not in classes] + [c for c in classes if c not in theirs]
        if odd:
            raise UserError(
                f"members of an ensemble know the same classes, but '{odd[0]}' is known to one alone of "
                f"'{folders[0].path}' and '{folder.path}'; join runs that were fitted on the same classes"
            )
    members = []
    for folder in folders:
        module, card = load_model(folder)
        if list(card["classes"]) != classes:
            match_classes(module, card["classes"], classes, 0, int(card["architecture"]["image_size"]))
        members.append(Joined(folder, module, card))
    return members


def _join(job: Job, members: list[Joined], shared: Shared, config: Config, most: int, equal: bool, views: str) -> None:
    data = shared.data
    job.record.write(
        "audit",
        images=data.audit.images,
        classes=data.audit.classes,
        left_out=[vars(item) for item in data.audit.left_out],
        splits={"train": len(data.split.train), "validation": len(data.split.validation), "test": len(data.split.test)},
        sentences=shared.sentences,
    )
    for sentence in shared.sentences:
        job.say(sentence)
    engine = engine_here(Engine(**members[0].card["engine"]))
    engine.activate()
    preprocessing, ways = common_view([member.preprocessing for member in members])
    plan = _plan(members, config, engine, preprocessing, views)
    material = Material(data, plan, preprocessing)
    with job.step("ensemble") as outcome:
        pool, seconds = _pool(material, members, ways, shared.held_out)
        targets = data.targets(data.split.validation)
        tables = [each.answers for each in pool]
        chosen = (
            _all_alike(tables, targets, plan.metric)
            if equal
            else greedy(tables, targets, plan.metric, most_members=most)
        )
        line = record_line(pool, chosen, 1000 * seconds / max(1, len(pool) * len(targets)), len(targets))
        job.record.write("ensemble", **line)
        mean = float(np.mean([each.judged.score for each in pool]))
        best = max(each.judged.score for each in pool)
        outcome.gain = round(chosen.judged.score - best, 4)
        outcome.reason = (
            f"{len(chosen.chosen)} of {len(pool)} runs, {chosen.judged.score:.4f} on {len(targets):,} validation "
            f"images; the best alone {best:.4f}, all on the average {mean:.4f}"
        )
        parts = [_part(members[i], ways[i]) for i in chosen.chosen]
        built = joined(parts, [float(chosen.weights[i]) for i in chosen.chosen], preprocessing.size, engine)
    fitted = Fitted(built, built.module, chosen.judged.score, 0, Settings.of(plan))
    if any(shared.held_out[i] is not None for i in chosen.chosen):  # what is saved has learnt from these images
        fitted.held_out = mean_answers(tables, chosen.weights), targets
    fitted = choose_views(job, material, fitted)
    save(job, material, fitted)
    module, _ = load_model(job.folder)  # what is judged is what was saved
    evaluate(job, material, engine.place(module), also_seen=shared.seen)
    with job.step("report"):
        job.record.write("end", status="done", seconds=job.budget.spent)
        write_report(job.folder)


def _pool(
    material: Material,
    members: Sequence[Joined],
    ways: Sequence[dict[str, Any]],
    held_out: Sequence[HeldOut | None],
) -> tuple[list[Candidate], float]:
    """Each run's answers as the ensemble will hear them, and the seconds that they took together.

    Of images that a run has learnt from, what it said of them held out.
    """
    plan, batches = material.plan, material.evaluation(material.data.split.validation)
    begun, pool = time.monotonic(), []
    for member, way, held in zip(members, ways, held_out, strict=True):
        entrance = entrance_of({"image_size": member.preprocessing.size, **way}, material.preprocessing.size)
        alone = plan.engine.place(Ensemble([member.module], [1.0], [entrance]).eval())
        answers = logits_of(alone, batches, plan.engine, material.preprocessing)
        if held is not None:
            _answer_as_held_out(answers, held, member.card["classes"], material)
        judged = judge(answers, batches.targets, plan.metric)
        pool.append(Candidate(str(member.folder.path), "run", member.module.state_dict, answers, judged))
    return pool, time.monotonic() - begun


def _answer_as_held_out(answers: np.ndarray, held: HeldOut, classes: Sequence[str], material: Material) -> None:
    """Put what a run said of images held out in the place of what it says of them now. classes: in its own order."""
    row_of = {image: row for row, image in enumerate(held.images)}
    hashes, validation = material.data.inspection.content_hash, material.data.split.validation
    order = [list(classes).index(name) for name in material.data.classes]
    for position, index in enumerate(validation.tolist()):
        row = row_of.get(hashes[index])
        if row is not None:
            answers[position] = held.answers[row, order]


def _all_alike(tables: list[np.ndarray], targets: np.ndarray, metric: str) -> Selection:
    """All members with equal shares; the steps go from the best alone to the mean of all."""
    judged = [judge(table, targets, metric) for table in tables]
    order = sorted(range(len(tables)), key=lambda i: (-judged[i].score, judged[i].loss))
    steps = [Step(order[0], judged[order[0]], Gain(0.0, 0.0, 0.0))]
    for count in range(2, len(order) + 1):
        mean = judge(mean_answers([tables[i] for i in order[:count]], [1.0] * count), targets, metric)
        steps.append(Step(order[count - 1], mean, gain(steps[-1].judged, mean)))
    return Selection(np.full(len(tables), 1 / len(tables)), steps)


def _part(member: Joined, way: dict[str, Any]) -> Part:
    made, origin = member.card["architecture"], member.card.get("weights", {})
    licence, source = origin.get("licence"), origin.get("source")
    return Part(member.module, made["name"], made["options"], made["image_size"], way, licence, source)


def _plan(members: Sequence[Joined], config: Config, engine: Engine, preprocessing: Preprocessing, views: str) -> Plan:
    """The first run's plan, with what the ensemble has of its own."""
    plan = load_plan(members[0].folder.plan)
    asked = () if views in ("auto", "none") else ("views",)
    tried = tuple(VIEWS)[1:] if views == "auto" else (views,)
    return plan.replace(
        engine=engine,
        metric=config.metric,
        model=replace(plan.model, name="ensemble", image_size=preprocessing.size, resize=preprocessing.resize),
        ending=EndingPlan(len(members), (), tried, asked),
        reasons=(f"{len(members)} runs joined",),
    )
