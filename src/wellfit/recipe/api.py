"""The ways in: fit, resume, train, check, audit, evaluate. The command line calls these and prints."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.config import Config, config_to_toml, load_config
from wellfit.errors import UserError
from wellfit.recipe.budget import Budget, parse_budget
from wellfit.recipe.following import follow
from wellfit.recipe.opening import (
    Listener,
    forget_if_empty,
    job_of,
    lasting,
    new_folder,
    refuse_missing,
    refuse_unknown_names_of,
    run_session,
    spent_before,
    with_known_names,
)
from wellfit.recipe.plan import Plan, load_plan, save_plan
from wellfit.recipe.processes import follows, refuse_several
from wellfit.recipe.run import Run
from wellfit.recipe.sharing import refuse_full_batch, shared
from wellfit.record import RunFolder, read_record, write_atomically
from wellfit.trackers import check_trackers

if TYPE_CHECKING:
    from wellfit.recipe.search_run import SearchRun

DEFAULT_BUDGET = "10m"


def fit(
    data: Any,
    *,
    budget: str | float = DEFAULT_BUDGET,
    out: str | Path | None = None,
    config: Config | None = None,
    plan: str | Path | None = None,
    start_from: str | Path | None = None,
    force: bool = False,
    log: str | Iterable[str] = (),
    command: str = "wellfit.fit(…)",
    started: float | None = None,
    listener: Listener | None = None,
) -> Run:
    """Run the whole recipe on labelled images.

    data: a folder, archive, manifest or array file; or (images, labels) arrays, a Dataset of (image, label),
        a DataFrame, a list of (PIL image, label).
    budget: "90s", "10m", "2h" or seconds for the whole command.
    out: the run folder, new or empty; by default a new one under `runs/`.
    plan: a plan.toml to repeat, with no deadline; neither the budget counts then, nor of `config` more than its `data`.
    start_from: an earlier run whose network is gone on from.
    force: go on where a check fails.
    log: "tensorboard", "wandb" or "mlflow", or several: tools that the run is shown in besides.
    started: time.monotonic() when the command began; the budget counts from there.

    Raises UserError for bad input, GateFailed where a check fails, Interrupted when stopped.
    """
    if follows():
        return Run(follow(data))
    started = time.monotonic() if started is None else started
    config, log = config or Config(), check_trackers(log)
    seconds = None if plan is not None else parse_budget(budget)
    given = load_plan(plan) if plan is not None else None
    if given is not None:
        config = replace(config, seed=given.seed, metric=given.metric)
    if start_from is not None:
        from wellfit.recipe.earlier import going_on

        config = going_on(config, start_from)
    refuse_missing(data)
    config = with_known_names(config)
    if given is not None:
        refuse_unknown_names_of(replace(config, loss=given.loss, augment=given.augment))
    config = config.replace(**{"data.test": lasting(config.data.test)})
    refuse_full_batch(given.optimizer.name if given is not None else config.optimizer.name)
    folder = new_folder(out)
    write_atomically(folder.config, config_to_toml(config))
    if given is not None:
        save_plan(folder.plan, given)
    request = {"data": lasting(data), "budget": seconds, "force": force, "log": list(log)}
    try:
        return _run(folder, data, config, Budget(seconds, started), request, command, listener)
    except UserError:
        forget_if_empty(folder)
        raise


def resume(
    run: str | Path,
    *,
    data: Any = None,
    storage: str | None = None,
    started: float | None = None,
    listener: Listener | None = None,
) -> Run | SearchRun:
    """Take up a killed or stopped run or search where it stood, with what is left of its budget.

    Of a search that is finished, what it came to.

    data: only for a run that was given arrays or a Dataset, which a folder cannot name.
    storage: only for a search whose study has an address with a password, which is not written down.
    """
    if follows():
        return Run(follow(data))
    started = time.monotonic() if started is None else started
    folder = RunFolder.open(run)
    lines = list(read_record(folder.record))
    begun = next((line for line in lines if line["kind"] == "run"), None)
    if begun is None:
        raise UserError(f"'{run}' has no beginning in its record and cannot be resumed; start again with `wellfit fit`")
    request = begun["request"]
    done = any(line["kind"] == "end" and line["status"] == "done" for line in lines)
    if "ensemble" in request:
        raise UserError(
            f"'{run}' is an ensemble, which is made in one go and cannot be taken up; "
            f"make it anew: `wellfit ensemble {' '.join(request['ensemble'])}`"
        )
    if done and "search" in request:
        from wellfit.recipe.search_run import SearchRun

        return SearchRun(folder)
    if done and folder.model_weights.exists():
        raise UserError(
            f"the run in '{run}' is finished, so there is nothing to take up; "
            f"go on from it with `wellfit fit DATA --from {run}`"
        )
    data = data if data is not None else request["data"]
    if data is None:
        raise UserError(f"the run in '{run}' was given data from Python's memory; call wellfit.resume('{run}', data=…)")
    refuse_missing(data)
    if "search" in request:
        refuse_several("a search")
        from wellfit.recipe.searching import resume_search

        return resume_search(folder, request, data, storage=storage, started=started, listener=listener)
    spent = spent_before(folder)
    budget, config = Budget(request["budget"], started - spent), load_config(folder.config)
    return _run(folder, data, config, budget, request, f"wellfit resume {run}", listener, spent)


def train(
    data: Any,
    config: Config,
    *,
    out: str | Path | None = None,
    budget: str | float = DEFAULT_BUDGET,
    force: bool = False,
    log: str | Iterable[str] = (),
    command: str = "wellfit.train(…)",
    started: float | None = None,
    listener: Listener | None = None,
) -> Run:
    """Train as a configuration says, without a search; a run's own config.toml repeats that run's training.

    What the configuration leaves to wellfit ("auto", 0) is settled by the plan and its defaults.
    """
    if config.optimizer.name != "lbfgs" and (not config.optimizer.lr or config.optimizer.weight_decay < 0):
        decay = 5e-4 if config.optimizer.weight_decay < 0 else config.optimizer.weight_decay
        lr = config.optimizer.lr or (1e-3 if config.optimizer.name in ("adam", "adamw") else 0.1)
        config = config.replace(**{"optimizer.lr": lr, "optimizer.weight_decay": decay})
    return fit(
        data,
        budget=budget,
        out=out,
        config=config,
        force=force,
        log=log,
        command=command,
        started=started,
        listener=listener,
    )


def plan_only(
    data: Any,
    *,
    budget: str | float,
    config: Config,
    started: float,
    listener: Listener | None,
    start_from: str | Path | None = None,
) -> tuple[Plan, dict[str, float]]:
    """What `--dry-run` shows: the plan, and the seconds that each part of it is expected to take.

    Data are read and the machine is measured; nothing is trained or kept.
    """
    from wellfit.recipe.earlier import going_on
    from wellfit.recipe.planning import expected_seconds, make_plan
    from wellfit.recipe.prepare import prepare

    if start_from is not None:
        config = going_on(config, start_from)
    refuse_missing(data)
    config = with_known_names(config)
    with tempfile.TemporaryDirectory(prefix="wellfit-") as path:
        job = job_of(RunFolder(Path(path)), data, config, Budget(parse_budget(budget), started), False, listener)
        try:
            data_read = prepare(job)
            plan = make_plan(job, data_read)
            speed = [line for line in read_record(job.folder.record) if line["kind"] == "engine"][-1]
            return plan, expected_seconds(plan, data_read, float(speed["images_per_second"]))
        finally:
            job.record.close()


def check(
    data: Any,
    model: Any = None,
    *,
    loss: Any = None,
    optimizer: Any = None,
    validation: Any = None,
    penalty: Any = None,
    classes: int | None = None,
    config: Config | None = None,
    budget: str | float = "2m",
    listener: Listener | None = None,
) -> dict[str, Any]:
    """The gates alone, on data and a model; nothing is trained or kept.

    model: a name, "package.module:Name", or your own torch.nn.Module, which is left as it is, bit for bit.

    With a module of your own:

    data: what your training loop holds: one batch (images, targets) of tensors, a DataLoader, a Dataset or a list of
        (tensor, label); or whatever `fit` takes, which wellfit then prepares.
    loss: called with (outputs, targets): a criterion or a function; cross-entropy by default.
    optimizer: one that was made on the model, a function from parameters to one, or a name; AdamW by default. Its
        class, groups and settings are built anew on copies.
    validation: the other split in the same form; both are compared.
    penalty: a function of the model whose value you add to the loss.
    classes: how many there are; by default as many as the model has outputs.

    Returns {"passed", "checks", "findings"}. Raises UserError for parts that do not fit together.
    """
    if not isinstance(model, str | None):
        return _check_module(
            data,
            model,
            config or Config(),
            budget,
            loss=loss,
            optimizer=optimizer,
            validation=validation,
            penalty=penalty,
            classes=classes,
            listener=listener,
        )
    given = {"loss": loss, "optimizer": optimizer, "validation": validation, "penalty": penalty, "classes": classes}
    for name, value in given.items():
        if value is not None and not (name in ("loss", "optimizer") and isinstance(value, str)):
            raise UserError(
                f"check takes {name}= of type {type(value).__name__} beside a torch.nn.Module, but the model is given "
                f"by its name ({model!r}); give the module itself"
            )
    from wellfit.recipe.gates import gate_results
    from wellfit.recipe.material import Material
    from wellfit.recipe.planning import make_plan
    from wellfit.recipe.prepare import prepare

    config = config or Config()
    if model is not None:
        config = config.replace(**{"model.name": model})
    if loss is not None:
        config = config.replace(loss=loss)
    if optimizer is not None:
        config = config.replace(**{"optimizer.name": optimizer})
    refuse_missing(data)
    config = with_known_names(config)
    with tempfile.TemporaryDirectory(prefix="wellfit-") as path:
        budget_ = Budget(parse_budget(budget), time.monotonic())
        job = job_of(RunFolder(Path(path)), data, config, budget_, True, listener)
        try:
            prepared = prepare(job)
            results = gate_results(job, Material.of(prepared, make_plan(job, prepared)), share=1.0)
        finally:
            job.record.close()
    return {
        "passed": all(result.passed for result in results),
        "checks": [result.as_dict() for result in results],
        "findings": [finding.as_dict() for finding in job.findings],
    }


def _check_module(data: Any, model: Any, config: Config, budget: str | float, **parts: Any) -> dict[str, Any]:
    from torch import nn

    if not isinstance(model, nn.Module):
        held = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise UserError(f"a model is a torch.nn.Module or the name of one, got {held}; give the network itself")
    from wellfit.recipe.user_check import check_module

    refuse_missing(data)
    return check_module(data, model, config=config, seconds=parse_budget(budget), **parts)


def audit(data: Any, *, config: Config | None = None, listener: Listener | None = None) -> dict[str, Any]:
    """Look at the data alone: {"images", "classes", "left_out": [{"file", "reason"}], "findings"}."""
    from wellfit.recipe.prepare import look_at_data

    refuse_missing(data)

    def progress(done: int, total: int) -> None:
        if listener is not None:
            listener("progress", {"what": "decoding", "done": done, "of": total})

    source, _, _, audited = look_at_data(data, (config or Config()).data, progress, open_test=True)
    return {
        "images": audited.images,
        "classes": audited.classes,
        "left_out": [vars(item) for item in audited.left_out],
        "findings": [finding.as_dict() for finding in (*source.findings, *audited.findings)],
    }


def _run(
    folder: RunFolder,
    data: Any,
    config: Config,
    budget: Budget,
    request: dict[str, Any],
    command: str,
    listener: Listener | None,
    spent: float = 0.0,
) -> Run:
    from wellfit.recipe.steps import run_recipe

    job = job_of(folder, data, config, budget, bool(request["force"]), listener, request.get("log", ()))
    with shared(job, lasting(job.data)):
        run_session(job, run_recipe, request=request, command=command, spent=spent)
    return Run(folder)
