"""What the person who waits sees: a live line in a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from wellfit.recipe.budget import in_words
from wellfit.report.words import plain

EPOCH_SECONDS = 2.0  # between lines of epochs: a small set has several a second
BESIDE_NOTE = 20  # columns of a live line that its beginning and a short bar take
QUIET_SECONDS = 10.0  # between plain lines of a training when stderr is no terminal
TITLES = {
    "audit": "looking at the data",
    "split": "splitting",
    "plan": "measuring the machine and planning",
    "checks": "checking before training",
    "workers": "measuring how many workers are fastest",
    "search": "searching for settings",
    "probe": "fitting a linear classifier on pretrained features",
    "fine-tune": "fine-tuning",
    "averages": "judging averages of the weights",
    "snapshots": "judging snapshots of the training",
    "ensemble": "training and joining further networks",
    "views": "judging views at test time",
    "train": "training",
    "save": "saving the model",
    "evaluate": "opening the test images, once",
    "neighbours": "looking for neighbours among the training images",
    "report": "writing the report",
}


_ENDS = {"pruned": "broken off", "failed": "failed"}


class ProgressDisplay:
    """Listens to a run's record; `with ProgressDisplay(...) as display: fit(..., listener=display)`."""

    def __init__(self, *, deadline: float | None = None, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.deadline = deadline
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._spoken = self._epoch_spoken = 0.0
        self._accuracy: float | None = None
        self._loss: float | None = None
        self._step = ""
        self._round, self._trials = "trials", [0, 1]  # done and in all, of the open round

    def __enter__(self) -> ProgressDisplay:
        if self.console.is_terminal:
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[note]}"),
                console=self.console,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        handler = getattr(self, f"_on_{kind}", None)
        if handler is not None:
            handler(fields)

    def line(self, text: str, style: str = "") -> None:
        # A class or a file may be called anything, control sequences of terminals included.
        self.console.print(
            escape("\n".join(plain(part, 2000) for part in text.splitlines())), style=style, soft_wrap=True
        )

    def _on_begin(self, fields: dict[str, Any]) -> None:
        self._step = TITLES.get(fields["name"], fields["name"])
        self._bar(self._step, 0, None, "")

    def _on_recipe_step(self, fields: dict[str, Any]) -> None:
        self._clear()
        mark = {"done": "✓", "skipped": "–", "failed": "✗"}[fields["status"]]
        gain = f", gain {fields['gain']:+.4f}" if fields.get("gain") else ""
        reason = f"  {fields['reason']}{gain}" if fields["reason"] else ""
        self.line(f"{mark} {fields['name']:<10} {fields['seconds']:6.1f} s{reason}")

    def _on_say(self, fields: dict[str, Any]) -> None:
        self.line(fields["text"], "bold")

    def _on_engine(self, fields: dict[str, Any]) -> None:
        self.line(f"  engine: {fields['line']}")

    def _on_check(self, fields: dict[str, Any]) -> None:
        undecided = not fields["passed"] and fields.get("finished") is False
        mark = "✓" if fields["passed"] else "?" if undecided else "✗"
        self.line(f"  {mark} {fields['check']}: {fields['message']}")

    def _on_finding(self, fields: dict[str, Any]) -> None:
        style = {"warning": "yellow", "error": "red"}.get(fields["severity"], "")
        action = f" → {fields['action']}" if fields["action"] else ""
        self.line(f"  {fields['severity']}: {fields['id']}: {fields['message']}{action}", style)

    def _on_alarm(self, fields: dict[str, Any]) -> None:
        self.line(f"  at step {fields['step']:,}, {fields['severity']}: {fields['id']}: {fields['message']}", "yellow")

    def _on_stage(self, fields: dict[str, Any]) -> None:
        self.line(f"  {fields['name']} stage: {fields['reason']}")
        if fields.get("tasks"):
            self._round = f"{fields['name']} stage"
            self._trials = [0, fields["tasks"]]

    def _on_importance(self, fields: dict[str, Any]) -> None:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in fields["shares"].items())
        self.line(f"  importance by the {fields['trials']} trials up to the {fields['stage']} stage: {shares}")

    def _on_trial(self, fields: dict[str, Any]) -> None:
        settings = ", ".join(
            f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in fields["settings"].items()
        )
        score, reason = fields["validation_accuracy"], fields.get("reason") or ""
        result = f"validation {score:.3f}" if score is not None else f"{_ENDS[fields['state']]}: {reason}"
        if score is not None and reason:
            result += f" ({reason})"
        epochs = fields.get("epochs")
        length = f", {epochs:.3g} epoch{'' if epochs == 1 else 's'}" if epochs else ""
        self.line(
            f"  trial {fields['stage']} {fields['trial']}{length}: {settings} → {result} ({fields['seconds']:.1f} s)"
        )
        self._trials[0] += 1
        if self._live is not None:
            done, of = self._trials
            self._bar(self._round, done, of, f"{done} of {of} trials")

    def _on_progress(self, fields: dict[str, Any]) -> None:
        if self._live is not None or time.monotonic() - self._spoken > QUIET_SECONDS:
            self._bar(
                f"{self._step}: {fields['what']}",
                fields["done"],
                fields["of"],
                f"{fields['done']:,} of {fields['of']:,}",
            )

    def _on_step(self, fields: dict[str, Any]) -> None:
        loss = fields["loss"]
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        note = self._step_note(float(fields["images_per_second"]))
        if self._live is not None or time.monotonic() - self._spoken > QUIET_SECONDS:
            self._bar(f"epoch {fields['epoch']:.1f}", fields["step"], fields["of"], note)

    def _step_note(self, speed: float) -> str:
        """Loss, accuracy, speed and the time left; on a narrow terminal speed and accuracy give way."""
        loss = f"loss {self._loss:.3f}"
        accuracy = f"validation {self._accuracy:.3f}" if self._accuracy is not None else ""
        left = f"{in_words(max(0.0, self.deadline - time.monotonic()))} left" if self.deadline is not None else ""
        whole = (loss, accuracy, f"{speed:,.0f} images/s", left)
        room = self.console.width - BESIDE_NOTE if self._live is not None else 200
        notes = (", ".join(filter(None, parts)) for parts in (whole, (loss, accuracy, left), (loss, left)))
        return next((note for note in notes if len(note) <= room), loss)

    def _on_epoch(self, fields: dict[str, Any]) -> None:
        self._accuracy = fields.get("averaged_validation_accuracy", fields["validation_accuracy"])
        averaged = fields.get("averaged_validation_accuracy")
        if time.monotonic() - self._epoch_spoken < EPOCH_SECONDS:
            return
        self._epoch_spoken = time.monotonic()
        also = f" (averaged weights {averaged:.4f})" if averaged is not None else ""
        self.line(
            f"  epoch {fields['epoch']:.1f}: "
            f"train loss {fields['train_loss']:.3f} accuracy {fields['train_accuracy']:.3f}; "
            f"validation loss {fields['validation_loss']:.3f} accuracy {fields['validation_accuracy']:.4f}{also}"
        )

    def _bar(self, text: str, done: int, of: int | None, note: str) -> None:
        if self._live is None:
            if of:
                self.line(f"  {text}: {note}")
                self._spoken = time.monotonic()
            return
        if self._task is None:
            self._task = self._live.add_task(text, total=of, note=note)
        self._live.update(self._task, description=escape(text), completed=done, total=of, note=escape(note))

    def _clear(self) -> None:
        if self._live is not None and self._task is not None:
            self._live.remove_task(self._task)
            self._task = None
