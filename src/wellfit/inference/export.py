"""A run's model as one file for other programs: ONNX, TorchScript, or its weights alone (`wellfit export`).

ONNX and TorchScript files hold the preprocessing too: they take the pixels of RGB images and answer with probabilities.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from wellfit import __version__
from wellfit.data.preprocess import Preprocessing
from wellfit.errors import UserError, unknown_name
from wellfit.inference.image_graph import ImageGraph
from wellfit.inference.predict import SHORT_SIDE
from wellfit.models.saved import load_model
from wellfit.randomness import generator
from wellfit.record import RunFolder, write_atomically

OPSET = 20
AGREEMENT = 1e-4  # the largest difference of a probability between the file and the network
FREE_SIZES = ((40, 52), (330, 401))  # of the images that a file is tried on: one smaller and one larger than 320
IN_FIXED = ("none", "flip")  # test-time views that a file of the network's own size can hold
INPUT, OUTPUT = "images", "probabilities"


def export_model(
    run: str | Path | RunFolder, to: str, out: str | Path | None = None, *, fixed: bool = False
) -> dict[str, Any]:
    """Write the model of a run as one file, and try the file on a few images.

    to: "onnx", "torchscript" or "safetensors". out: the file; by default RUN/export/model.onnx, .pt or .safetensors.
    fixed: the file takes images of the network's own size and holds no resize; by default it takes images of any size.

    Returns {"run", "to", "file", "bytes", "input", "output", "classes", "views", "checked", "notes"}; views: the
    test-time views that the file holds, a name of `inference.views.VIEWS`; checked: {"against", "images",
    "difference"}, or None for weights alone. Raises UserError where a package is missing, where the file
    cannot be written, and for a network that cannot be exported, naming the operation that stands in the way.
    """
    if to not in FORMATS:
        raise unknown_name("export format", to, FORMATS)
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    suffix, write = FORMATS[to]
    path = Path(out) if out is not None else folder.path / "export" / f"model{suffix}"
    if path.is_dir():
        raise UserError(
            f"--out names a file, but '{path}' is a folder; add a name, such as '{path / ('model' + suffix)}'"
        )
    if path.resolve() in (folder.model_weights.resolve(), folder.model_card.resolve()):
        raise UserError(f"'{path}' is the run's own model, which an export must not replace; choose another --out")
    module, card = load_model(folder)
    preprocessing, views = Preprocessing.from_dict(card["preprocessing"]), str(card.get("views", "none"))
    inside = views if to != "safetensors" and (not fixed or views in IN_FIXED) else "none"
    graph = ImageGraph(
        module,
        preprocessing,
        short_side=max(preprocessing.resize, SHORT_SIDE),
        temperature=float(card.get("temperature", 1.0)),
        fixed=fixed,
        views=inside,
    ).eval()
    about = _about(card, preprocessing, fixed, inside)
    checked, notes = write(graph, card, about, path, _images(preprocessing, fixed))
    if views != inside:
        notes.append(
            f"wellfit itself averages this model's answers over the views '{views}'; the file answers from the centre "
            "view alone, so its probabilities differ from those of `wellfit predict`"
        )
    return {
        "run": str(folder.path),
        "to": to,
        "file": str(path),
        "bytes": path.stat().st_size,
        "input": about["input"],
        "output": about["output"],
        "classes": len(card["classes"]),
        "views": inside,
        "checked": checked,
        "notes": notes,
    }


def _about(card: dict[str, Any], preprocessing: Preprocessing, fixed: bool, views: str) -> dict[str, str]:
    """What is written into the file for whoever meets it later; all values are text. views: those that it holds."""
    size, short = preprocessing.size, max(preprocessing.resize, SHORT_SIDE)
    if fixed:
        taken = f"uint8 N×3×{size}×{size}, RGB, 0-255: centre views of the images, already at this size"
        inside = "scale, mean and deviation"
    else:
        taken = "uint8 N×3×H×W, RGB, 0-255: whole images upright, N, H and W free"
        inside = f"reduction to a short side of {short}, centre view of {size}×{size}, scale, mean and deviation"
    return {
        "producer": f"wellfit {__version__}",
        "model": str(card["architecture"]["name"]),
        "input": f"{INPUT}: {taken}",
        "output": f"{OUTPUT}: float32 N×{len(card['classes'])}, one column a class, rows sum to 1",
        "inside": inside,
        "classes": json.dumps(card["classes"], ensure_ascii=False),
        "preprocessing": json.dumps({**card["preprocessing"], "mean_image": None}),
        "temperature": str(card.get("temperature", 1.0)),
        "views": views,
        "views_of_the_model": str(card.get("views", "none")),
    }


def _images(preprocessing: Preprocessing, fixed: bool) -> list[torch.Tensor]:
    """Batches of made-up images to try a file on: noise, and noise in large patches."""
    draw = generator(0, "export")
    shapes = ((preprocessing.size, preprocessing.size),) * 2 if fixed else FREE_SIZES
    batches = []
    for number, (height, width) in zip((3, 1), shapes, strict=True):
        fine = draw.integers(0, 256, (number, 3, height, width), dtype=np.uint8)
        coarse = draw.integers(0, 256, (number, 3, height // 8 + 1, width // 8 + 1), dtype=np.uint8)
        coarse = coarse.repeat(8, 2).repeat(8, 3)[:, :, :height, :width]
        batches.append(torch.from_numpy(np.where(np.arange(number)[:, None, None, None] % 2, fine, coarse)))
    return batches


Checked = tuple[dict[str, Any] | None, list[str]]


def _to_onnx(
    graph: ImageGraph, card: dict[str, Any], about: dict[str, str], path: Path, images: list[torch.Tensor]
) -> Checked:
    lacking = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if lacking:
        raise UserError(f"--to onnx needs {', '.join(lacking)}, which is not installed; pip install 'wellfit[onnx]'")
    import onnx
    import onnxruntime

    batch = torch.export.Dim("batch")
    free: dict[int, Any] = {0: batch}
    if not isinstance(graph.cuts[0], nn.Identity):
        free |= {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    program = None
    try:
        with _quiet():
            program = torch.onnx.export(
                graph,
                (images[0],),
                dynamo=True,
                dynamic_shapes={"images": free},
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # exporters fail in their own ways; the cause is looked for in the chain
        raise _cannot("ONNX", card, error) from error
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, about)
    model.producer_name, model.producer_version = "wellfit", __version__
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    checked = _check(graph, images, lambda x: session.run([OUTPUT], {INPUT: x.numpy()})[0], "onnxruntime", card)
    _write(path, content)
    return checked, []


def _to_torchscript(
    graph: ImageGraph, card: dict[str, Any], about: dict[str, str], path: Path, images: list[torch.Tensor]
) -> Checked:
    buffer = io.BytesIO()
    try:
        with _quiet(), torch.no_grad():
            traced = torch.jit.trace(graph, (images[0],), check_trace=False)
            torch.jit.save(traced, buffer, _extra_files={"wellfit.json": json.dumps(about, ensure_ascii=False)})
            buffer.seek(0)
            loaded = torch.jit.load(buffer)
    except Exception as error:
        raise _cannot("TorchScript", card, error) from error

    @torch.no_grad()
    def run(x: torch.Tensor) -> np.ndarray:
        return np.asarray(loaded(x).numpy())

    checked = _check(graph, images, run, "torch.jit.load", card)
    _write(path, buffer.getvalue())
    note = (
        "PyTorch calls TorchScript deprecated and develops it no further: such files still load, and --to onnx is the "
        "form with a future"
    )
    return checked, [note]


def _to_safetensors(
    graph: ImageGraph, card: dict[str, Any], about: dict[str, str], path: Path, images: list[torch.Tensor]
) -> Checked:
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in graph.network.state_dict().items()}
    # One entry: the writer keeps several in no fixed order.
    kept = {
        key: card[key] for key in ("architecture", "classes", "preprocessing", "temperature", "views") if key in card
    }
    text = json.dumps({**kept, "producer": about["producer"]}, ensure_ascii=False)
    _write(path, safetensors.torch.save(tensors, metadata={"wellfit": text}))
    about["input"] = "weights alone: what they expect stands in the file's metadata, key 'wellfit'"
    about["output"] = f"logits of {len(card['classes'])} classes, from the architecture named there"
    return None, []


# Suffix and writer of each format.
FORMATS: dict[str, tuple[str, Callable[..., Checked]]] = {
    "onnx": (".onnx", _to_onnx),
    "torchscript": (".pt", _to_torchscript),
    "safetensors": (".safetensors", _to_safetensors),
}


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"'{path}' cannot be written ({error.strerror}); choose another --out") from error


@torch.no_grad()
def _check(
    graph: ImageGraph,
    images: list[torch.Tensor],
    run: Callable[[torch.Tensor], np.ndarray],
    against: str,
    card: dict[str, Any],
) -> dict[str, Any]:
    """Run the file on batches of other lengths and sizes than the one it was made with; UserError where it differs."""
    largest = 0.0
    for batch in images:
        try:
            answers = run(batch)
        except Exception as error:
            raise _cannot(against, card, error) from error
        largest = max(largest, float(np.abs(answers - graph(batch).numpy()).max()))
    if not largest <= AGREEMENT:
        raise UserError(
            f"the exported file of '{card['architecture']['name']}' answers otherwise than the network (probabilities "
            f"differ by up to {largest:.2g}), so it was not written; the network's path depends on its input, or one "
            "of its operations draws at random"
        )
    return {"against": against, "images": sum(map(len, images)), "difference": largest}


def _cannot(form: str, card: dict[str, Any], error: Exception) -> UserError:
    """One sentence that names the operation in the way, as far as the chain of errors tells."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    text = "\n".join(f"{type(link).__name__}: {link}" for link in chain)
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", text) or re.search(
        r"(?:operator|op|operation|node)\W+'?((?:aten|torchvision|prims|\w+)(?:\.|::)\w+)", text, re.IGNORECASE
    )
    name = card["architecture"]["name"]
    if found:
        why = f"the operation {found[1].replace('::', '.')} stands in the way"
    elif re.search(r"data-dependent|GuardOnDataDependent|Could not guard|control flow", text, re.IGNORECASE):
        why = (
            "its forward chooses its path by the values of the images (a branch or loop on a tensor stands in the way)"
        )
    elif re.search(r"ConstraintViolation|specialized|not dynamic", text, re.IGNORECASE):
        why = (
            "its forward holds the number of images as a constant (a reshape or loop over the batch stands in the way)"
        )
    else:
        last = str(chain[-1]).strip().partition("\n")[0][:200]
        why = f"{type(chain[-1]).__name__} in its forward: {last}"
    other = "--to safetensors writes its weights" if form == "TorchScript" else "--to torchscript may take it"
    return UserError(f"'{name}' cannot be exported to {form}: {why}; {other}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk: what matters of it is in the error."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
