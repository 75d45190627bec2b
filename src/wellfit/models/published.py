"""Published weights: which exist for a net, where they are cached on this machine, how to fetch them.

torchvision's files lie in `torch.hub.get_dir()/checkpoints` (TORCH_HOME), timm's in the Hugging Face cache
(HF_HOME; HF_ENDPOINT names a mirror). Looking them up needs no network.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellfit.errors import UserError

CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Published:
    """One published set of weights and the preprocessing it was trained with.

    files: names under which it may lie in the cache, the preferred one first. repository: on the Hugging Face
    hub, "" for torchvision's. mean, std: per channel, of pixels in 0..1. image_size: pixels a side.
    crop_pct: side of the centre crop over the side after resizing. classes: of `dataset`, which it was trained on.
    parameters: None where the publisher's tables do not say.
    """

    label: str
    files: tuple[str, ...]
    repository: str
    url: str
    mean: list[float]
    std: list[float]
    image_size: int
    interpolation: str
    crop_pct: float
    licence: str | None
    classes: int
    dataset: str
    parameters: int | None = None


def torchvision_weights(name: str) -> list[Published]:
    """All weights that torchvision publishes for one of its classifiers, its default first."""
    import torchvision

    table = torchvision.models.get_model_weights(name)
    every = sorted(table, key=lambda weights: weights is not table.DEFAULT)
    found = []
    for weights in every:
        view = weights.transforms()
        found.append(
            Published(
                label=str(weights),
                files=(weights.url.rpartition("/")[2],),
                repository="",
                url=weights.url,
                mean=list(view.mean),
                std=list(view.std),
                image_size=view.crop_size[0],
                interpolation=view.interpolation.value,
                crop_pct=view.crop_size[0] / view.resize_size[0],
                licence=weights.meta.get("license", "BSD-3-Clause (torchvision)"),
                classes=len(weights.meta["categories"] or ()) or 1000,  # a few tables leave the names out
                dataset=next(iter(weights.meta["_metrics"])),
                parameters=weights.meta["num_params"],
            )
        )
    return found


def timm_weights(name: str) -> list[Published]:
    """The weights that timm names for a model, `architecture` or `architecture.tag`; empty when it names none."""
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        return []
    if cfg.hf_hub_id:
        ordinary = ("model.safetensors", "pytorch_model.bin")
        files: tuple[str, ...] = (cfg.hf_hub_filename,) if cfg.hf_hub_filename else ordinary
        url = f"https://huggingface.co/{cfg.hf_hub_id}"
    else:
        url = str(cfg.url or cfg.file)
        files = (url.rpartition("/")[2],)
    return [
        Published(
            label=f"{cfg.architecture or name.partition('.')[0]}.{cfg.tag}" if cfg.tag else name,
            files=files,
            repository=cfg.hf_hub_id or "",
            url=url,
            mean=list(cfg.mean),
            std=list(cfg.std),
            image_size=cfg.input_size[-1],
            interpolation=cfg.interpolation,
            crop_pct=cfg.crop_pct,
            licence=cfg.license,
            classes=cfg.num_classes,
            dataset=_timm_dataset(cfg.tag or "", cfg.num_classes),
        )
    ]


def _timm_dataset(tag: str, classes: int) -> str:
    """timm's tags end in what a model was last trained on; where none says so, the class count is all that is known."""
    for ending, name in (("in1k", "ImageNet-1K"), ("in12k", "ImageNet-12K"), ("in22k", "ImageNet-22K")):
        if tag.endswith(ending) or f"{ending}_" in tag.rpartition("_ft_")[2]:
            return name
    return "ImageNet-1K" if classes == 1000 else f"{classes:,} classes" if classes else "no classes"


# File and parameters of the residual nets that Yerlan Idelbayev trained on CIFAR-10, under BSD-2.
CIFAR_WEIGHTS = {
    "resnet20": ("resnet20-12fca82f.th", 269_722),
    "resnet32": ("resnet32-d509ac18.th", 464_154),
    "resnet44": ("resnet44-014dd654.th", 658_586),
    "resnet56": ("resnet56-4bfd9763.th", 853_018),
    "resnet110": ("resnet110-1d1ed7c2.th", 1_727_962),
}
CIFAR_SOURCE = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"


def cifar_weights(name: str) -> list[Published]:
    """The published CIFAR-10 weights of one of our small residual nets; empty where it has none."""
    if name not in CIFAR_WEIGHTS:
        return []
    file, parameters = CIFAR_WEIGHTS[name]
    return [
        Published(
            label=f"{name}.cifar10",
            files=(file,),
            repository="",
            url=CIFAR_SOURCE + file,
            mean=[0.485, 0.456, 0.406],
            std=[0.229, 0.224, 0.225],
            image_size=32,
            interpolation="bilinear",
            crop_pct=1.0,
            licence="BSD-2-Clause",
            classes=10,
            dataset="CIFAR-10",
            parameters=parameters,
        )
    ]


def cached(weights: Published) -> Path | None:
    """The file on this machine, or None. Touches no network."""
    if weights.repository:
        from huggingface_hub import try_to_load_from_cache

        for file in weights.files:
            path = try_to_load_from_cache(weights.repository, file)
            if isinstance(path, str):
                return Path(path)
    else:
        for file in weights.files:
            if (checkpoints() / file).is_file():
                return checkpoints() / file
    return None


def place_of(weights: Published) -> str:
    """Where the file is looked for, in words."""
    return f"the Hugging Face cache, as {weights.repository}" if weights.repository else f"'{checkpoints()}'"


def checkpoints() -> Path:
    """Torch's folder of downloaded weights; TORCH_HOME moves it."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def fetch(name: str, weights: Published) -> Path:
    """Download into the cache; UserError with the file, its place and the way around when that fails."""
    try:
        return _fetch_from_hub(weights) if weights.repository else fetch_url(weights.url)
    except Exception as error:  # whatever a network can do wrong, the user's way out is the same
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        place = place_of(weights)
        raise UserError(
            f"the weights of '{name}' ({weights.files[0]}) are not on this machine and could not be fetched from "
            f"{weights.url} ({reason}): put that file into {place}, or name a copy with --weights FILE, "
            "or leave --weights out to start from random weights"
        ) from error


def fetch_url(url: str) -> Path:
    """Download one file into torch's cache and return it; at once when it is there.

    A name such as resnet18-f37072fd.pth carries the first digits of its SHA-256, which a download must match.
    """
    target = checkpoints() / url.rpartition("/")[2]
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer:
            while block := answer.read(1 << 20):
                digest.update(block)
                file.write(block)
        promised = re.search(r"-([0-9a-f]{8,64})\.\w+$", target.name)
        if promised and not digest.hexdigest().startswith(promised.group(1)):
            raise OSError(f"the download of {url} is damaged: its SHA-256 does not begin with {promised.group(1)}")
        Path(aside).replace(target)
    finally:
        Path(aside).unlink(missing_ok=True)
    return target


def _fetch_from_hub(weights: Published) -> Path:
    from huggingface_hub import constants, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    _reach(hf_hub_url(weights.repository, weights.files[0]))
    for file in weights.files[:-1]:
        try:
            return Path(hf_hub_download(weights.repository, file, etag_timeout=CONNECT_SECONDS))
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(weights.repository, weights.files[-1], etag_timeout=CONNECT_SECONDS))


def _reach(url: str) -> None:
    # Without a network the hub's own client tries again for half a minute; one short request tells as much.
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_SECONDS).close()
    except urllib.error.HTTPError as answer:
        answer.close()


def describe(weights: Published) -> dict[str, Any]:
    """The preprocessing fields, by the names that `zoo.Built` gives them."""
    return {
        "mean": weights.mean,
        "std": weights.std,
        "image_size": weights.image_size,
        "interpolation": weights.interpolation,
        "crop_pct": weights.crop_pct,
        "licence": weights.licence,
        "source": weights.url,
        "weights_classes": weights.classes,
    }
