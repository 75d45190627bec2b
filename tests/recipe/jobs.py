"""A job on the built-in digits, for tests of single steps."""

from __future__ import annotations

import time
from pathlib import Path

from wellfit.config import Config
from wellfit.recipe.budget import Budget
from wellfit.recipe.job import Job
from wellfit.record import Record, RunFolder


def job_in(path: Path) -> Job:
    """In a folder that is made for it; whoever asks closes its record."""
    folder = RunFolder(path)
    folder.path.mkdir(parents=True)
    return Job("digits", Config(), folder, Record(folder.record), Budget(None, time.monotonic()))
