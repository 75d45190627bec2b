"""TensorBoard: event files in RUN/tensorboard; each trial of a search is a run of its own below it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.record import RunFolder
from wellfit.trackers.figures import Setting

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Tracker:
    """See `figures.Tracker`."""

    def begin(self, folder: RunFolder, settings: dict[str, Setting], about: dict[str, str], resumed: bool) -> str:
        self._place = folder.path / "tensorboard"
        self._resumed = resumed
        self._open: SummaryWriter | None = None
        for name, text in about.items():
            self._writer().add_text(name, _verbatim(text))
        return f"TensorBoard: tensorboard --logdir {self._place}"

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if self._resumed and self._open is not None:
            # What was logged after the checkpoint is repeated: TensorBoard drops it from `step` on.
            self._open.close()
            self._open = _new(self._place, purge_step=step)
            self._resumed = False
        for name, value in values.items():
            self._writer().add_scalar(name, value, step)

    def trial(self, number: int, settings: dict[str, Setting], values: dict[str, float], curve: list[Any]) -> None:
        with _new(self._place / "trials" / str(number)) as writer:
            for step, loss in curve:
                writer.add_scalar("loss", float(loss), int(step))
            writer.add_hparams(dict(settings), {f"trial/{k}": v for k, v in values.items()}, run_name=".")

    def text(self, name: str, text: str) -> None:
        self._writer().add_text(name, _verbatim(text))

    def end(self, status: str, settings: dict[str, Setting], values: dict[str, float]) -> None:
        self._writer().add_text("status", status)
        self._writer().add_hparams(dict(settings), {f"result/{k}": v for k, v in values.items()}, run_name=".")
        self._writer().close()
        self._open = None

    def _writer(self) -> SummaryWriter:
        if self._open is None:
            self._open = _new(self._place)
        return self._open


def _new(place: Path, **how: Any) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(place), **how)


def _verbatim(text: str) -> str:
    # TensorBoard reads text as Markdown; as a block of code every character stands for itself.
    return "\n".join(f"    {line}" for line in text.splitlines())
