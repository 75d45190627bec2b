"""Nets that others wrote: torchvision's and timm's classifiers by name, the user's own by dotted path."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn

from wellfit.dotted import load_dotted
from wellfit.errors import UserError
from wellfit.models.init import seeded


@cache
def torchvision_names() -> tuple[str, ...]:
    """Names of torchvision's image classifiers."""
    import torchvision

    return tuple(torchvision.models.list_models(module=torchvision.models))


@cache
def timm_names() -> tuple[str, ...]:
    """Names of timm's architectures, without the tags of their weights."""
    import timm

    return tuple(timm.list_models())


def is_timm(name: str) -> bool:
    """Whether timm knows `architecture` or `architecture.tag`."""
    import timm

    architecture, _, tag = name.partition(".")
    return timm.is_model(architecture) and (not tag or name in timm.list_models(f"{architecture}.*", pretrained=True))


def torchvision_net(name: str, classes: int, image_size: int, options: dict[str, Any]) -> nn.Module:
    """One of torchvision's classifiers, randomly initialised, auxiliary heads off."""
    import torchvision

    if options.get("channels", 3) != 3:
        raise UserError(f"torchvision's '{name}' takes 3 channels, got {options['channels']}; use a net of timm's")
    given = {key: value for key, value in options.items() if key != "channels"}
    if name in ("googlenet", "inception_v3"):
        given = {"aux_logits": False, "init_weights": True, **given}
    elif name.startswith("vit_"):
        given = {"image_size": image_size, **given}
    elif name.startswith("maxvit"):
        given = {"input_size": (image_size, image_size), **given}
    return torchvision.models.get_model(name, weights=None, num_classes=classes, **given)


def timm_net(name: str, classes: int, image_size: int, options: dict[str, Any]) -> nn.Module:
    """One of timm's nets, randomly initialised; nets bound to one image size are built for `image_size`."""
    import timm
    from timm.models import get_pretrained_cfg

    given = {"pretrained": False, **{("in_chans" if key == "channels" else key): v for key, v in options.items()}}
    cfg = get_pretrained_cfg(name)
    if cfg is not None and cfg.fixed_input_size and "img_size" not in given:
        try:
            return timm.create_model(name, num_classes=classes, img_size=image_size, **given)
        except TypeError:
            pass  # a few nets of fixed size have no such argument: the run on one image tells whether they fit
    return timm.create_model(name, num_classes=classes, **given)


def binds_size(namespace: str, name: str) -> bool:
    """Whether the image size goes into the net's construction, so that another size needs another net."""
    if namespace == "torchvision":
        return name.startswith(("vit_", "maxvit"))
    if namespace == "timm":
        from timm.models import get_pretrained_cfg

        cfg = get_pretrained_cfg(name)
        return cfg is not None and cfg.fixed_input_size
    return name in ("lenet5", "alexnet2012")


def users_net(path: str, classes: int, seed: int, options: dict[str, Any]) -> tuple[nn.Module, bool]:
    """Call the user's class or function with the number of classes; (the net, whether it was told the classes)."""
    make = load_dotted(path, "model")
    if isinstance(make, nn.Module):
        raise UserError(
            f"a model by path is a class or a function, which is called with the number of classes, but '{path}' is a "
            f"finished {type(make).__name__}; name its class instead"
        )
    arguments, keywords = _class_argument(make, classes, options)
    try:
        # Importing the module, which happens once a process, may have drawn numbers: start afresh here.
        with seeded(seed, "model", path):
            net = make(*arguments, **keywords, **options)
    except Exception as error:  # the user's code may fail in any way
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"model '{path}' could not be made for {classes} classes ({reason}); correct it") from error
    if not isinstance(net, nn.Module):
        raise UserError(f"a model is a torch.nn.Module, but '{path}' made a {type(net).__name__}; return a module")
    return net, bool(arguments or keywords)


def _class_argument(
    make: Callable[..., Any], classes: int, options: dict[str, Any]
) -> tuple[list[int], dict[str, int]]:
    """How to tell the number of classes: positional and keyword arguments, both empty where there is no way."""
    try:
        parameters = list(inspect.signature(make).parameters.values())
    except (TypeError, ValueError):
        return [classes], {}
    for name in ("num_classes", "classes", "n_classes"):
        if any(p.name == name and p.kind is not p.POSITIONAL_ONLY for p in parameters):
            return [], {} if name in options else {name: classes}
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    positional = [p for p in parameters if p.kind in kinds and p.name not in options]
    return ([classes] if positional else []), {}
