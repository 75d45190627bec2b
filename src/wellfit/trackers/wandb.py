"""Weights & Biases: a run in the project "wellfit" (WANDB_PROJECT names another), offline where there is no login."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.record import RunFolder
from wellfit.trackers.figures import Setting
from wellfit.trackers.memory import remember, remembered

if TYPE_CHECKING:
    import wandb


class Tracker:
    """See `figures.Tracker`. Nothing is asked at the terminal, and nothing of its output is captured."""

    def begin(self, folder: RunFolder, settings: dict[str, Setting], about: dict[str, str], resumed: bool) -> str:
        import wandb

        mode = wandb.setup().settings.mode
        offline = mode in ("offline", "dryrun", "disabled")
        logged_in = offline or wandb.login(prompt=False, verify=False)
        kept = remembered(folder, "wandb").get("id")
        id_ = kept if resumed and isinstance(kept, str) else secrets.token_hex(4)
        remember(folder, "wandb", id=id_)
        self._run: wandb.Run = wandb.init(
            project=None if os.environ.get("WANDB_PROJECT") else "wellfit",
            name=folder.path.resolve().name,
            id=id_,
            resume="allow",
            dir=str(folder.path),
            config={**settings, "about": about},
            mode=None if logged_in else "offline",  # None: as the environment says
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_job_creation=True),
        )
        self._run.define_metric("*", step_metric="step")
        self._run.define_metric("trial/*", step_metric="trial/number")
        if logged_in and not offline:
            return f"Weights & Biases: {self._run.url}"
        why = "" if logged_in else " (there is no login; `wandb login` makes one)"
        return f"Weights & Biases: kept offline{why}; `wandb sync {Path(self._run.dir).parent}` uploads it"

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log({"step": step, **values})

    def trial(self, number: int, settings: dict[str, Setting], values: dict[str, float], curve: list[Any]) -> None:
        figures = {f"trial/{name}": value for name, value in {**settings, **values}.items()}
        self._run.log({"trial/number": number, **figures})

    def text(self, name: str, text: str) -> None:
        self._run.summary[name] = text

    def end(self, status: str, settings: dict[str, Setting], values: dict[str, float]) -> None:
        self._run.config.update(dict(settings), allow_val_change=True)
        self._run.summary.update({**values, "status": status})
        self._run.finish(exit_code=1 if status == "failed" else 0)
