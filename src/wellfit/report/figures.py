"""A run's figures for a notebook: `run.figures.loss()` and its like, drawn by Plotly from the report's figure data."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from wellfit.errors import UserError, unknown_name
from wellfit.record import RunFolder
from wellfit.report import curves
from wellfit.report.curves_filters import read_filters
from wellfit.report.curves_search import Search, search
from wellfit.report.curves_transfer import probe_curve
from wellfit.report.history import History, read_history

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Data = TypeVar("Data")


class Figures:
    """Each method returns a `plotly.graph_objects.Figure`, which a notebook shows and which can be changed further.

    Every call reads the run's record anew, so that a run which is still going shows how far it is. UserError where the
    record holds nothing to draw, and where Plotly is not installed (`pip install 'wellfit[notebook]'`).
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def loss(self) -> Figure:
        """The loss of each step as dots, with its moving average (SPEC C10)."""
        from wellfit.report import interactive

        return interactive.draw_loss(self._had(curves.loss_curve(self._history()), "training steps"))

    def rates(self) -> Figure:
        """The learning rate of each step."""
        from wellfit.report import interactive

        curve = self._had(curves.loss_curve(self._history()), "training steps")
        if not (curve.lr > 0).any():
            raise self._nothing("learning rates above 0")
        return interactive.draw_rates(curve)

    def accuracy(self) -> Figure:
        """Train and validation accuracy together, the gap named (SPEC C10)."""
        from wellfit.report import interactive

        return interactive.draw_accuracy(self._had(curves.accuracy_curve(self._history()), "evaluations in training"))

    def updates(self) -> Figure:
        """The size of each update beside that of its weights, by parameter; about 1e-3 is healthy (SPEC C8)."""
        from wellfit.report import interactive

        return interactive.draw_updates(self._had(curves.update_ratios(self._history()), "update ratios"))

    def confusion(self) -> Figure:
        """Which class is taken for which, on the test images (on validation where there are none)."""
        from wellfit.report import interactive

        return interactive.draw_confusion(self._had(curves.confusion(self._history()), "confusion matrix"))

    def reliability(self) -> Figure:
        """Stated confidence against measured accuracy."""
        from wellfit.report import interactive

        return interactive.draw_reliability(
            self._had(curves.reliability(self._history()), "evaluation with confidences")
        )

    def filters(self) -> Figure:
        """The first convolution's filters as pictures (SPEC C11)."""
        from wellfit.report import interactive

        return interactive.draw_filters(self._had(read_filters(self._folder), "first-layer filters"))

    def probe(self) -> Figure:
        """The score of linear classifiers on frozen features against their strength (SPEC T2)."""
        from wellfit.report import interactive

        return interactive.draw_probe(self._had(probe_curve(self._history()), "classifiers on frozen features"))

    def search(self, across: str = "lr", up: str = "weight_decay") -> Figure:
        """Trials over two settings, coloured by their accuracy; boxes are the stages' ranges (SPEC S2-S5)."""
        from wellfit.report import interactive_search

        found = self._search()
        for name in (across, up):
            _refuse_unknown(found, name)
        return interactive_search.draw_search_map(found, across, up)

    def setting(self, name: str) -> Figure:
        """Validation accuracy against one setting, such as "lr"."""
        from wellfit.report import interactive_search

        found = self._search()
        _refuse_unknown(found, name)
        return interactive_search.draw_setting(found, name)

    def trials(self) -> Figure:
        """The loss of every trial, step by step."""
        from wellfit.report import interactive_search

        return interactive_search.draw_trials(self._search())

    def parallel(self) -> Figure:
        """All settings of all trials at once; drag along an axis to keep the trials within that stretch."""
        from wellfit.report import interactive_search

        return interactive_search.draw_parallel(self._search())

    def importance(self) -> Figure:
        """The share of the spread of scores that each setting explains."""
        from wellfit.report import interactive_search

        found = self._search()
        if not found.importance:
            raise self._nothing("importance of settings (a search of enough trials has it)")
        return interactive_search.draw_importance(found)

    def _history(self) -> History:
        return read_history(self._folder)

    def _search(self) -> Search:
        return self._had(search(self._history()), "trials")

    def _had(self, data: Data | None, what: str) -> Data:
        if data is None:
            raise self._nothing(what)
        return data

    def _nothing(self, what: str) -> UserError:
        return UserError(
            f"a figure is drawn from what the record holds, but that of '{self._folder.path}' has no {what}; "
            "`wellfit show` tells what there is"
        )

    def __repr__(self) -> str:
        names = ", ".join(f"{name}()" for name in vars(type(self)) if not name.startswith("_"))
        return f"figures of '{self._folder.path}': {names}"


def _refuse_unknown(found: Search, name: str) -> None:
    known = {setting for trial in found.trials for setting in trial.settings}
    if name not in known:
        raise unknown_name("numeric setting of this search", name, known)
