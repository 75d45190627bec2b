"""What is known of the nets by name: costs, published accuracy, licence; and who won ILSVRC (SPEC N9, N10).

The figures of our nets and torchvision's are kept in `catalogue.toml`, so that listing them imports neither torch nor
the nets; `scripts/catalogue.py` measures them anew. Those of timm's nets are computed when they are asked for.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from wellfit.models.complexity import Complexity


@dataclass(frozen=True)
class Entry:
    """One net: what a forward pass of one image costs, and what its published weights reach.

    name: as `build` takes it. classes, channels, input_size (pixels a side): of the net that was measured. flops: 2 ×
    multiply-adds. accuracy: top-1 in [0, 1] on the test or validation images of `dataset`. licence: of the weights.
    None is not known, or not computed.
    """

    name: str
    input_size: int
    classes: int = 1000
    channels: int = 3
    parameters: int | None = None
    flops: int | None = None
    activations: int | None = None
    accuracy: float | None = None
    dataset: str | None = None
    accuracy_from: str | None = None
    licence: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Winner:
    """A net of the ImageNet challenge; top5_error in percent; layers with weights, None for a shallow method."""

    year: int
    name: str
    top5_error: float
    layers: int | None
    here: str | None
    what: str


WINNERS: tuple[Winner, ...] = (
    Winner(2010, "Lin et al.", 28.2, None, None, "local features, coded and given to a linear SVM"),
    Winner(2011, "Sánchez & Perronnin", 25.8, None, None, "Fisher vectors"),
    Winner(2012, "AlexNet", 16.4, 8, "alexnet2012", "ReLU, dropout, two graphics cards"),
    Winner(2013, "ZFNet", 11.7, 8, None, "AlexNet with 7×7 first filters of stride 2 and more filters behind"),
    Winner(2014, "VGG", 7.3, 19, "vgg19", "3×3 convolutions alone; second in 2014"),
    Winner(2014, "GoogLeNet", 6.7, 22, "googlenet", "inception modules, no large FC layers"),
    Winner(2015, "ResNet-152", 3.57, 152, "resnet152", "residual blocks"),
    Winner(2016, "Trimps-Soushen", 2.99, 152, None, "an ensemble of residual and inception nets"),
    Winner(2017, "SENet", 2.25, 154, "timm:legacy_senet154", "squeeze and excitation of the channels"),
)
HUMAN_TOP5_ERROR = 5.1  # one trained annotator; Russakovsky et al. 2015

_HE = "He et al. 2015"
# One crop each: the plain nets of 18 and 34 layers have figures of 10 crops alone, which these do not stand beside.
_OWN_ACCURACY: dict[str, tuple[float, str, str]] = {
    "lenet5": (0.9905, "MNIST", "LeCun et al. 1998, without distortions"),
    "alexnet2012": (0.593, "ImageNet-1K", "Krizhevsky et al. 2012, one net"),
    "resnet20": (0.9125, "CIFAR-10", _HE),
    "resnet32": (0.9249, "CIFAR-10", _HE),
    "resnet44": (0.9283, "CIFAR-10", _HE),
    "resnet56": (0.9303, "CIFAR-10", _HE),
    "resnet110": (0.9357, "CIFAR-10", f"{_HE}, the best of five"),
}
# Nets of ours that stand for no single architecture: they are built from another net, or from a list of layers.
UNLISTED = ("probe_net", "ensemble", "stack")
_SMALL = (
    "lenet5",
    "mlp",
    "two_layer",
    "whitened",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "plain20",
    "plain56",
)


@cache
def kept() -> tuple[Entry, ...]:
    """Our nets and torchvision's, with their figures, in the order of `zoo.names`. Imports no torch."""
    text = resources.files("wellfit").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return tuple(Entry(name=name, **fields) for name, fields in tomllib.loads(text).items())


def entry_of(name: str) -> Entry:
    """All that is known of a net without building it: published figures, and the size and classes it is measured at.

    UserError for an unknown name, which names the nearest.
    """
    from wellfit.models import published, zoo

    namespace, bare = zoo.resolve(name)
    if namespace == "user":
        return Entry(name, 224)
    size, classes, channels = (32, 10, 3) if namespace == "own" and bare in _SMALL else (224, 1000, 3)
    if namespace == "own" and bare == "lenet5":
        channels = 1
    if namespace == "own" and bare == "alexnet2012":
        size = 227
    known: dict[str, Any] = {}
    if namespace == "own" and bare in _OWN_ACCURACY:
        known = dict(zip(("accuracy", "dataset", "accuracy_from"), _OWN_ACCURACY[bare], strict=True))
    elif namespace in ("own", "torchvision") and (weights := _torchvision_default(bare)) is not None:
        (dataset, scores), *_ = weights.meta["_metrics"].items()
        known = {"accuracy": round(scores["acc@1"] / 100, 5), "dataset": dataset, "accuracy_from": str(weights)}
        known["licence"] = published.torchvision_weights(bare)[0].licence
        size = weights.transforms().crop_size[0]
    elif namespace == "timm" and (found := published.timm_weights(bare)):
        known, size = {"licence": found[0].licence}, found[0].image_size
    elif namespace == "timm":
        size = _timm_size(bare)
    return Entry(name=name, input_size=size, classes=classes, channels=channels, **known)


def hollow_net(name: str, *, image_size: int, classes: int = 1000, **options: Any) -> nn.Module:
    """The net of that name with parameters that hold no values: for shapes alone."""
    from wellfit.models import zoo
    from wellfit.models.tracing import hollow

    if zoo.resolve(name)[0] != "own":
        options = {key: value for key, value in options.items() if (key, value) != ("channels", 3)}
    with hollow():
        return zoo.construct(name, classes, image_size=image_size, **options)


def measure(name: str, *, image_size: int | None = None, classes: int | None = None) -> tuple[Entry, Complexity]:
    """The entry with its costs, and the layer table; image_size in pixels, None takes the entry's own.

    UserError for an unknown name, or a size that the net does not take.
    """
    from dataclasses import replace

    from wellfit.models.complexity import complexity

    entry = entry_of(name)
    entry = replace(entry, input_size=image_size or entry.input_size, classes=classes or entry.classes)
    net = hollow_net(name, image_size=entry.input_size, classes=entry.classes, channels=entry.channels)
    table = complexity(net, (entry.channels, entry.input_size, entry.input_size))
    costs: dict[str, Any] = {"parameters": table.parameters, "flops": table.flops, "activations": table.activations}
    return replace(entry, **costs), table


def _torchvision_default(bare: str) -> Any:
    import torchvision

    from wellfit.models import foreign

    return torchvision.models.get_model_weights(bare).DEFAULT if bare in foreign.torchvision_names() else None


def _timm_size(bare: str) -> int:
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(bare)
    return cfg.input_size[-1] if cfg is not None else 224
