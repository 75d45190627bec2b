"""What every command that makes a run begins with: its folder, its record's first line, names that are looked up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wellfit.allocator import keep_freed_memory
from wellfit.config import Config
from wellfit.errors import UserError
from wellfit.recipe.budget import Budget
from wellfit.recipe.interrupts import interrupts
from wellfit.recipe.job import Job
from wellfit.recipe.machine import machine
from wellfit.recipe.processes import processes
from wellfit.record import SCHEMA, Listener, Record, RunFolder, read_record
from wellfit.trackers import feeds

PACKAGES = ("wellfit", "torch", "torchvision", "timm", "numpy", "pillow", "optuna", "scikit-learn")


def new_folder(out: str | Path | None) -> RunFolder:
    """Make the run folder; UserError when it holds a run already or cannot be written."""
    path = Path(out) if out is not None else Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    if out is None and path.exists():
        path = path.with_name(f"{path.name}-{os.getpid()}")
    if path.exists() and not path.is_dir():
        raise UserError(f"--out names a folder, but '{path}' is a file; choose another name")
    if any(line["kind"] == "run" for line in read_record(path / "record.jsonl")):
        raise UserError(f"'{path}' holds a run already; go on with `wellfit resume {path}`, or choose another --out")
    left_over = (path / "record.jsonl").exists()  # of a run that was killed before its first line
    if path.is_dir() and not left_over and any(path.iterdir()):
        raise UserError(f"--out names a new or an empty folder, but '{path}' holds files; choose another name")
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "plan.toml").unlink(missing_ok=True)
        (path / "arrays").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"the run folder '{path}' cannot be made ({error.strerror}); choose another --out") from error
    return RunFolder(path)


def forget_if_empty(folder: RunFolder) -> None:
    """Remove a run that ended before its first step was done: corrected, the same command can use the folder."""
    if any(line["kind"] == "recipe_step" and line["status"] == "done" for line in read_record(folder.record)):
        return
    with suppress(OSError):
        for file in (folder.config, folder.plan, folder.report, folder.record):
            file.unlink(missing_ok=True)
        folder.arrays.rmdir()
        folder.path.rmdir()


def spent_before(folder: RunFolder) -> float:
    """Seconds that earlier sessions of a run took, by the record's own times."""
    sessions = [line for line in read_record(folder.record) if line["kind"] == "run"]
    last = sessions[-1]
    written = max(file.stat().st_mtime for file in (folder.record, *folder.worker_records()))
    return float(last["spent_before"]) + max(0.0, written - float(last["started"]))


def run_session(
    job: Job, work: Callable[[Job], None], *, request: dict[str, Any], command: str, spent: float = 0.0
) -> None:
    """Do the work under a record that says how it began and how it ended, also where it fails or is interrupted.

    request: what `resume` needs. spent: seconds that earlier sessions took, which the budget counts.
    """
    from wellfit.recipe.steps import end_early

    keep_freed_memory()
    job.record.write(
        "run",
        schema=SCHEMA,
        command=command,
        versions={package: version(package) for package in PACKAGES},
        machine=machine() | {"processes": processes()},
        seed=job.config.seed,
        started=time.time() - (job.budget.spent - spent),
        spent_before=spent,
        request=request,
    )
    try:
        with interrupts(job):
            work(job)
    except BaseException as error:
        end_early(job, error)
        raise
    finally:
        job.record.close()


def job_of(
    folder: RunFolder,
    data: Any,
    config: Config,
    budget: Budget,
    force: bool,
    listener: Listener | None,
    log: Iterable[str] = (),
) -> Job:
    """A job whose record is open. log: names of `trackers.TRACKERS` that its lines are handed to as well."""
    say = None if listener is None else lambda text: listener("say", {"text": text})
    return Job(data, config, folder, Record(folder.record, listener, feeds(log, folder, say)), budget, force)


def lasting(data: Any) -> str | None:
    """The data's name in the record: right from any working folder, so that a run can be resumed from another one."""
    if not isinstance(data, str | Path):
        return None
    return str(Path(data).resolve()) if Path(data).exists() else str(data)


def refuse_missing(data: Any) -> None:
    """UserError for a path that is not there, before a folder is made for it: a slip must leave nothing behind."""
    if isinstance(data, str | Path) and str(data) != "digits" and not Path(data).exists():
        from wellfit.data.sources import open_source

        open_source(data)


def refuse_unknown_names_of(config: Config) -> None:
    """As `names.refuse_unknown_names`, which is imported when it is needed."""
    from wellfit.recipe.names import refuse_unknown_names

    refuse_unknown_names(config)


def with_known_names(config: Config) -> Config:
    """The configuration as its optimizer needs it, its names looked up, its weights tried."""
    from wellfit.recipe.full_batch import settle
    from wellfit.recipe.names import refuse_unfit_weights

    refuse_unknown_names_of(config)
    refuse_unfit_weights(config)
    return settle(config)
