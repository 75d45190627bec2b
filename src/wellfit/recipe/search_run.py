"""The search that a user holds: the best settings, all trials and stages, the folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.config import Config, load_config
from wellfit.errors import UserError
from wellfit.findings import Finding
from wellfit.recipe.run import Run
from wellfit.record import RunFolder, read_record

if TYPE_CHECKING:
    from wellfit.report.figures import Figures


class SearchRun:
    """A finished (or stopped) search. Trials and stages are the lines of its record, see docs/design/contracts.md."""

    def __init__(self, folder: str | Path | RunFolder) -> None:
        self.folder = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
        own = list(read_record(self.folder.record))
        self._lines = own
        trials: dict[int, dict[str, Any]] = {}
        for file in self.folder.worker_records():
            trials |= {line["trial"]: line for line in read_record(file) if line["kind"] == "trial"}
        trials |= {line["trial"]: line for line in own if line["kind"] == "trial" and "trial" in line}
        self.trials = [trials[number] for number in sorted(trials)]

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def best(self) -> dict[str, Any] | None:
        """{"settings", "validation_accuracy", "trial", …}; None where no trial finished."""
        line = self._last("best")
        return {key: value for key, value in line.items() if key != "kind"} if line else None

    @property
    def settings(self) -> dict[str, Any]:
        """The best settings; {} where no trial finished."""
        return dict(self.best["settings"]) if self.best else {}

    @property
    def validation_accuracy(self) -> float | None:
        """What the best trial scored on validation, by the search's metric."""
        value = self._last("best").get("validation_accuracy")
        return None if value is None else float(value)

    @property
    def config(self) -> Config:
        """The best settings as a configuration, for `wellfit.train(data, run.config)`."""
        if not self.folder.best.exists():
            raise UserError(f"the search in '{self.path}' has no best settings: no trial finished; see its findings")
        return load_config(self.folder.best)

    @property
    def stages(self) -> list[dict[str, Any]]:
        """[{"name", "ranges", "reason", "importance"}], a stage each, with the reasons of its rungs.

        importance: as of all trials, by those up to the end of the stage.
        """
        stages: dict[str, dict[str, Any]] = {}
        # A worker that joined late writes down at the end what began without it.
        for line in sorted(
            (line for line in self._lines if line["kind"] == "stage"), key=lambda line: line.get("first", 0)
        ):
            known = stages.get(line["name"])
            if known is None:
                stages[line["name"]] = {key: line[key] for key in ("name", "ranges", "reason")}
            elif line["reason"] not in known["reason"]:
                known["reason"] += f"; then {line['reason']}"
        shares = {line.get("stage"): line["shares"] for line in self._lines if line["kind"] == "importance"}
        return [{**stage, "importance": shares.get(name)} for name, stage in stages.items()]

    @property
    def importance(self) -> dict[str, float] | None:
        """Share of the spread of scores that each setting explains; None where the trials were too few."""
        return self._last("importance").get("shares")

    @property
    def findings(self) -> list[Finding]:
        """All findings, root cause first."""
        return Run(self.folder).findings

    @property
    def figures(self) -> Figures:
        """The search's figures, drawn by Plotly: `run.figures.search()`, `.parallel()`, `.setting("lr")`, …"""
        from wellfit.report.figures import Figures

        return Figures(self.folder)

    def as_dict(self) -> dict[str, Any]:
        """What `wellfit search --json` prints."""
        states = [trial["state"] for trial in self.trials]
        best = self.best
        return {
            "schema": 1,
            "run": str(self.path),
            "best": None if best is None else {key: best[key] for key in ("settings", "validation_accuracy")},
            "trials": len(states),
            **{state: states.count(state) for state in ("finished", "pruned", "failed")},
            "stages": self.stages,
            "importance": self.importance,
            "seconds": self._last("end").get("seconds"),
            "train_seconds": round(sum(float(trial["seconds"]) for trial in self.trials), 2),
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def _last(self, kind: str) -> dict[str, Any]:
        return next((line for line in reversed(self._lines) if line["kind"] == kind), {})

    def _repr_html_(self) -> str:
        from wellfit.report.notebook import card

        return card(self.folder)

    def __repr__(self) -> str:
        score = self.validation_accuracy
        found = "nothing found" if score is None else f"validation accuracy {score:.4f}"
        return f"SearchRun('{self.path}', {len(self.trials)} trials, {found})"


def is_search(folder: RunFolder) -> bool:
    """Whether the run in the folder is a search."""
    begun = next((line for line in read_record(folder.record) if line["kind"] == "run"), {})
    request = begun.get("request")
    return isinstance(request, dict) and "search" in request
