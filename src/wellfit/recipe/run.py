"""The Run that a user holds: the figures, the model and the folder of a finished or stopped run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.findings import Finding, root_cause_first
from wellfit.record import RunFolder, read_record

if TYPE_CHECKING:
    from torch import nn

    from wellfit.models.backbone import Backbone
    from wellfit.report.figures import Figures


class Run:
    """A finished (or stopped) run: its figures, its model, its folder."""

    def __init__(self, folder: str | Path | RunFolder) -> None:
        self.folder = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
        self._lines = list(read_record(self.folder.record))
        self._model: nn.Module | None = None

    def _last(self, kind: str) -> dict[str, Any]:
        return next((line for line in reversed(self._lines) if line["kind"] == kind), {})

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def test_accuracy(self) -> float | None:
        """Share of the sealed test images that the model names rightly; None where the run did not get there."""
        value = self._last("evaluation").get("accuracy")
        return None if value is None else float(value)

    @property
    def test_images(self) -> int | None:
        return self._last("evaluation").get("images")

    @property
    def ensemble(self) -> dict[str, Any] | None:
        """Of an ensemble: its members, each step's gain on validation, and its cost an image; None for one network.

        {"members": [{"name", "kind", "share", "score", "loss"}], "steps": [{"name", "score", "gain", …}], "tried",
        "images", "single", "score", "gain", "milliseconds": [of one network, of all]}.
        """
        line = self._last("ensemble")
        return {key: value for key, value in line.items() if key != "kind"} if line else None

    @property
    def validation_accuracy(self) -> float | None:
        from wellfit.models.saved import read_card

        value = read_card(self.folder).get("validation_accuracy") if self.folder.model_card.exists() else None
        return None if value is None else float(value)

    @property
    def classes(self) -> list[str]:
        from wellfit.models.saved import read_card

        return list(read_card(self.folder)["classes"])

    @property
    def findings(self) -> list[Finding]:
        """All findings, root cause first."""
        names = ("id", "severity", "message", "evidence", "action", "reference")
        seen: dict[tuple[str, str], Finding] = {}
        for line in self._lines:
            if line["kind"] == "finding":
                finding = Finding(**{name: line[name] for name in names})
                seen[finding.id, finding.message] = finding
        return root_cause_first(seen.values())

    @property
    def figures(self) -> Figures:
        """The run's figures, drawn by Plotly: `run.figures.loss()`, `.accuracy()`, `.updates()`, `.confusion()`, …"""
        from wellfit.report.figures import Figures

        return Figures(self.folder)

    @property
    def model(self) -> nn.Module:
        """The trained network in evaluation mode: a plain nn.Module, normalised N×3×S×S in, logits N×C out."""
        if self._model is None:
            from wellfit.models.saved import load_model

            self._model = load_model(self.folder)[0]
        return self._model

    def predict(
        self, images: Sequence[Any], abstain: float | None = None, *, views: str | None = None
    ) -> list[dict[str, Any]]:
        """One dict an image (file names, arrays H×W×3 or PIL images): label and probabilities, or error.

        views: a name of `inference.views.VIEWS`; by default those that the run kept on validation.
        """
        from wellfit.inference.predict import predict

        if isinstance(images, str | Path):  # its letters are no images
            images = [images]
        return list(predict(self.folder, images, abstain=abstain, views=views))

    def neighbours(self, image: Any, k: int = 8, *, data: Any = None) -> list[dict[str, Any]]:
        """The k training images nearest to an image, nearest first: {"file", "label", "distance"}.

        image: a file name, an H×W or H×W×3 uint8 array, or a PIL image. Distances are L2, of what enters the network's
        final classifier (SPEC T5). data: the run's own data, where they were given from memory or have been moved and
        the run does not keep their features. UserError for an image that cannot be read.
        """
        from wellfit.errors import UserError
        from wellfit.recipe.neighbours import neighbours_of

        answer = neighbours_of(self.folder, [image], k, data=data)["images"][0]
        if "error" in answer:
            raise UserError(f"neighbours are those of a readable image, but {answer['file']}: {answer['error']}")
        return list(answer["neighbours"])

    def backbone(self, levels: Sequence[int] = (2, 3, 4, 5)) -> Backbone:
        """The trained network without its classifier, as a plain nn.Module for other tasks (SPEC T6).

        Takes normalised N×3×H×W, gives {"2": N×C×H/4×W/4, …}: the last feature map at 1/2ˡ of the resolution for each
        level l; `.channels`, `.strides` and `.levels` stand beside it. UserError for levels that the network lacks,
        and for a network that cannot be taken apart.
        """
        from wellfit.errors import UserError
        from wellfit.models.backbone import backbone
        from wellfit.models.saved import load_model

        module, card = load_model(self.folder)
        made = card["architecture"]
        if made["name"] == "ensemble":
            raise UserError(
                f"a backbone is that of one network, but '{self.path}' is an ensemble; take one of its members: "
                "run.model.members[0], or the run that it came from"
            )
        name = made["options"].get("backbone", made["name"])
        return backbone(module, name, int(made["image_size"]), levels)

    def export(self, to: str = "onnx", out: str | Path | None = None, *, fixed: bool = False) -> Path:
        """Write the model as one file ("onnx", "torchscript", "safetensors") and return its path; see `wellfit export`.

        fixed: the file takes images of the network's own size, with no resize in it. UserError where it cannot be done.
        """
        from wellfit.inference.export import export_model

        return Path(export_model(self.folder, to, out, fixed=fixed)["file"])

    def as_dict(self) -> dict[str, Any]:
        """What `wellfit fit --json` prints."""
        plan = self._last("plan")
        return {
            "schema": 1,
            "run": str(self.path),
            "model": plan.get("model"),
            "validation_accuracy": self.validation_accuracy,
            "test_accuracy": self.test_accuracy,
            "test_images": self.test_images,
            "seconds": self._last("end").get("seconds"),
            "plan": [
                {k: line[k] for k in ("name", "status", "seconds", "reason", "gain")}
                for line in self._lines
                if line["kind"] == "recipe_step"
            ],
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def _repr_html_(self) -> str:
        from wellfit.report.notebook import card

        return card(self.folder)

    def __repr__(self) -> str:
        accuracy = "not evaluated" if self.test_accuracy is None else f"test accuracy {self.test_accuracy:.4f}"
        return f"Run('{self.path}', {accuracy})"
