"""One namespace over our nets, torchvision's classifiers, timm's, and the user's own (SPEC T1).

A bare name is looked up in that order; "torchvision:NAME" and "timm:NAME" say which is meant, and
"package.module:Name" is the user's own class or function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from wellfit.errors import UserError, unknown_name
from wellfit.models import foreign, published
from wellfit.models.alexnet import alexnet2012
from wellfit.models.ensemble import Ensemble, entrance_of
from wellfit.models.head import classifiers_of, replace_classifier, scale_classifier
from wellfit.models.init import seeded
from wellfit.models.lenet import lenet5
from wellfit.models.pretrained import candidates, load_pretrained, of_word
from wellfit.models.probe_net import ProbeNet
from wellfit.models.resnet import CIFAR_NETS, PHOTOGRAPH_NETS, SMALL_IMAGE
from wellfit.models.sizes import check_size
from wellfit.models.stack import mlp, two_layer
from wellfit.models.vgg import SMALL_IMAGE as SMALL_VGG_IMAGE
from wellfit.models.vgg import VGG_NETS
from wellfit.models.whitened import whitened


@dataclass
class Built:
    """A net ready to train: N×channels×S×S float images → N×classes logits.

    name and options rebuild the net. mean, std (of pixels in 0..1), image_size (pixels), interpolation, crop_pct,
    licence, source and weights_classes (how many they tell apart) belong to the weights it starts from, None from
    scratch. notes are sentences for people.
    """

    module: nn.Module
    name: str
    options: dict[str, Any]
    weights: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    image_size: int | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    licence: str | None = None
    source: str | None = None
    weights_classes: int | None = None
    notes: list[str] = field(default_factory=list)


def build(
    name: str, classes: int, *, image_size: int, weights: str | Path | None = None, seed: int = 0, **options: Any
) -> Built:
    """A net for `classes` classes and square images of `image_size` pixels.

    weights: None starts from random numbers drawn from `seed` alone; "pretrained" (or "default", or "imagenet" where
    they were trained on it) takes the published ones, from the cache or the network; a path or an http(s) address
    names a file. options go to the net's constructor; `channels` is understood by ours and timm's. No global random
    state is changed.
    UserError: unknown name or option, weights that cannot be had or do not fit, an image size the net cannot take.
    """
    if classes < 2:
        raise UserError(f"a classifier needs at least 2 classes, got {classes}; give more classes")
    namespace, bare = resolve(name)
    notes: list[str] = []
    if namespace == "own" and bare in PHOTOGRAPH_NETS and options.get("small_stem") is None:
        options["small_stem"] = weights is None and image_size <= SMALL_IMAGE
        if options["small_stem"]:
            notes.append(f"{bare} starts with one 3×3 convolution, since images are {image_size} px: small_stem=True")
    if namespace == "own" and bare in VGG_NETS and options.get("small_head") is None:
        options["small_head"] = weights is None and image_size <= SMALL_VGG_IMAGE
        if options["small_head"]:
            notes.append(f"{bare} has a small classifier, since images are {image_size} px: small_head=True")
    if namespace == "torchvision" and bare in ("googlenet", "inception_v3") and weights is not None:
        options.setdefault("transform_input", True)  # the published weights expect [-1, 1] and convert on entry
    module = construct(name, classes, image_size=image_size, seed=seed, notes=notes, **options)
    again = partial(_another_size, name, classes, seed, options) if foreign.binds_size(namespace, bare) else None
    check_size(module, name, classes, image_size, again)
    if namespace in ("torchvision", "timm"):
        scale_classifier(module, seed, image_size)
    built = Built(module, name, options, None if weights is None else str(weights), notes=notes)
    if weights is not None:
        fields, said = load_pretrained(module, (namespace, bare), str(weights), image_size, options)
        built.notes += said
        for key, value in fields.items():
            setattr(built, key, value)
    return built


def construct(
    name: str, classes: int, *, image_size: int, seed: int = 0, notes: list[str] | None = None, **options: Any
) -> nn.Module:
    """The architecture alone, randomly initialised: the same arguments give the same tensors by name and shape."""
    namespace, bare = resolve(name)
    with seeded(seed, "model", name):
        if namespace == "own":
            check_options(bare, options)
            return OWN[bare](classes, image_size=image_size, seed=seed, **options)
        if namespace == "user":
            module, told = foreign.users_net(bare, classes, seed, options)
            if not told and classifiers_of(module, image_size)[0][1].weight.shape[0] != classes:
                replaced = replace_classifier(module, classes, seed, image_size)
                if notes is not None:
                    notes.append(f"{name} has a fixed number of classes: {', '.join(replaced)} was made anew")
            return module
        make = foreign.torchvision_net if namespace == "torchvision" else foreign.timm_net
        try:
            return make(bare, classes, image_size, options)
        except UserError:
            raise
        except Exception as error:  # constructors of a thousand nets fail in their own ways
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            asked = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"
            raise UserError(
                f"model '{name}' cannot be made for {image_size} px with {asked} ({reason}); "
                "change the image size or the options"
            ) from error


def names() -> list[str]:
    """Every name that `build` takes, ours first and bare, then "torchvision:…" and "timm:…"."""
    return [
        *OWN,
        *(f"torchvision:{name}" for name in foreign.torchvision_names()),
        *(f"timm:{name}" for name in foreign.timm_names()),
    ]


def resolve(name: str) -> tuple[str, str]:
    """(namespace, bare name): "own", "torchvision", "timm" or "user"; UserError naming the nearest known name."""
    if name in OWN:
        return "own", name
    prefix, colon, rest = name.partition(":")
    if not colon or prefix == "torchvision":
        if (rest or prefix) in foreign.torchvision_names():
            return "torchvision", rest or prefix
    elif prefix != "timm":
        return "user", name
    if prefix != "torchvision" and foreign.is_timm(rest or prefix):
        return "timm", rest or prefix
    pools = {"torchvision": foreign.torchvision_names(), "timm": foreign.timm_names()}
    known = pools.get(prefix, ()) if colon else {*OWN, *foreign.torchvision_names(), *foreign.timm_names()}
    raise unknown_name(f"{prefix} model" if colon else "model", rest if colon else name, known)


def weights_at_hand(name: str) -> Path | None:
    """The cached file that `weights="imagenet"` would use, or None; no network is touched."""
    for candidate in of_word("imagenet", candidates(*resolve(name))):
        if path := published.cached(candidate):
            return path
    return None


def _another_size(name: str, classes: int, seed: int, options: dict[str, Any], size: int) -> nn.Module:
    return construct(name, classes, image_size=size, seed=seed, **options)


def _ensemble(
    classes: int, *, image_size: int, seed: int, members: Sequence[dict[str, Any]] = (), shares: Sequence[float] = ()
) -> nn.Module:
    """The mean of several nets, each given by its name, options and image_size, and its entrance where that differs."""
    nets = [construct(m["name"], classes, image_size=m["image_size"], seed=seed, **m["options"]) for m in members]
    return Ensemble(nets, shares, [entrance_of(member, image_size) for member in members])


def check_options(name: str, options: Iterable[str]) -> None:
    """UserError for an option that our net of that name does not take, naming the nearest."""
    given = {"classes", "depth", "shortcut", "normalized", "image_size", "seed"}
    parameters = inspect.signature(OWN[name]).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option in options:
        if option not in parameters or option in given:
            raise unknown_name(f"option of model '{name}'", option, [p for p in parameters if p not in given])


def _probe_net(
    classes: int,
    *,
    image_size: int,
    seed: int,
    backbone: str,
    probe_layer: str = "",
    probe_pooling: str = "mean+max",
    **options: Any,
) -> nn.Module:
    """A linear classifier on a feature map of another net; the other options are the backbone's."""
    net = construct(backbone, classes, image_size=image_size, seed=seed, **options)
    return ProbeNet(net, classes, image_size, layer=probe_layer, pooling=probe_pooling)


OWN: dict[str, Callable[..., nn.Module]] = {
    "lenet5": lenet5,
    "mlp": mlp,
    "two_layer": two_layer,
    "whitened": whitened,
    **PHOTOGRAPH_NETS,
    **CIFAR_NETS,
    "alexnet2012": alexnet2012,
    **VGG_NETS,
    "probe_net": _probe_net,
    "ensemble": _ensemble,
}
