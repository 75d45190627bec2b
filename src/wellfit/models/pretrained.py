"""From what the user wrote behind --weights to a loaded net and the preprocessing that it expects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models import foreign, published
from wellfit.models.head import classifiers_of
from wellfit.models.weights import load_state, read_state

PUBLISHED_WORDS = ("imagenet", "pretrained", "default")


def candidates(namespace: str, bare: str) -> list[published.Published]:
    """Published weights of a resolved name, the preferred ones first; our photograph nets take torchvision's."""
    if namespace == "own" and (ours := published.cifar_weights(bare)):
        return ours
    if namespace == "torchvision" or (namespace == "own" and bare in foreign.torchvision_names()):
        return published.torchvision_weights(bare)
    return published.timm_weights(bare) if namespace == "timm" else []


def load_pretrained(
    module: nn.Module, resolved: tuple[str, str], weights: str, image_size: int, options: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Load `weights` into `module`; returns (fields of `zoo.Built`: mean, std, …, source; notes).

    UserError when the weights cannot be had, read, or do not fit: never a silent random start.
    """
    namespace, bare = resolved
    known = candidates(namespace, bare)
    if weights in PUBLISHED_WORDS:
        path, expected, notes = _published_file(bare, weights, known)
        what, fields = f"'{path.name}'", published.describe(expected)
        state: Mapping[str, torch.Tensor] = _converted(path, namespace, bare, image_size, options)
    else:
        path = _given_file(weights)
        what, state = f"'{path}'", read_state(path)
        fields, notes = _fields_of_file(path, weights, known)
        notes += getattr(state, "_notes", [])
    if namespace == "torchvision" and bare.startswith("vit_"):
        state = _positions_resized(module, state, image_size)
    names = [name for name, _ in classifiers_of(module, image_size)]
    fields["weights_classes"] = _classes_in(state, names) or fields.get("weights_classes")
    try:
        return fields, notes + load_state(module, state, names, what)
    except UserError as error:
        # A copy of a published file may need the conversions that timm makes: older names, another image size.
        converted = None
        if namespace == "timm" and weights not in PUBLISHED_WORDS and known:
            converted = _converted_or_none(path, namespace, bare, image_size, options)
        if converted is None:
            raise _with_the_file_expected(error, bare, known) from error
        return fields, notes + load_state(module, converted, names, what)


def _classes_in(state: Mapping[str, torch.Tensor], classifiers: list[str]) -> int | None:
    """How many classes the weights tell apart; None where they have no classifier."""
    rows = [state[f"{name}.weight"].shape[0] for name in classifiers if f"{name}.weight" in state]
    return rows[0] if rows else None


def _with_the_file_expected(error: UserError, bare: str, known: list[published.Published]) -> UserError:
    if not known:
        return error
    first = known[0]
    return UserError(
        f"{error}; or take the published weights of '{bare}', {' or '.join(first.files)} in "
        f"{published.place_of(first)}, with --weights pretrained"
    )


def of_word(word: str, known: list[published.Published]) -> list[published.Published]:
    """Those that a word asks for: "imagenet" means none that were trained on small images of ten classes."""
    return [one for one in known if word != "imagenet" or one.dataset != "CIFAR-10"]


def _published_file(
    bare: str, word: str, every: list[published.Published]
) -> tuple[Path, published.Published, list[str]]:
    known = of_word(word, every)
    if every and not known:
        raise UserError(
            f"the published weights of '{bare}' were trained on {every[0].dataset}, not on ImageNet: ask for them with "
            "--weights pretrained, or leave --weights out to start from random weights"
        )
    if not known:
        raise UserError(
            f"there are no published weights for '{bare}': name a file with --weights FILE, "
            "or leave --weights out to start from random weights"
        )
    for candidate in known:
        if path := published.cached(candidate):
            other = candidate is not known[0]
            note = f"{candidate.label} is used: the newer {known[0].label} is not on this machine"
            return path, candidate, [note] if other else []
    return published.fetch(bare, known[0]), known[0], []


def _given_file(weights: str) -> Path:
    if not weights.startswith(("http://", "https://")):
        return Path(weights).expanduser()
    try:
        return published.fetch_url(weights)
    except (OSError, ValueError) as error:
        raise UserError(
            f"weights could not be fetched from {weights} ({error}); check the address, or name a file on this machine"
        ) from error


def _fields_of_file(path: Path, weights: str, known: list[published.Published]) -> tuple[dict[str, Any], list[str]]:
    """A file under its published name is taken for what it says; others borrow the preprocessing, with a note."""
    for candidate in known:
        if path.name in candidate.files and not candidate.repository:
            return published.describe(candidate), []
    if not known:
        return {"source": weights}, []
    fields = {**published.describe(known[0]), "licence": None, "source": weights}
    return fields, [f"'{path}' does not say how its images were normalised: as for {known[0].label}, it is assumed"]


def _converted(
    path: Path, namespace: str, bare: str, image_size: int, options: dict[str, Any]
) -> OrderedDict[str, torch.Tensor]:
    """The published file as the net of today names its tensors; timm converts its older files itself."""
    if namespace != "timm":
        return read_state(path)
    from timm.models import get_pretrained_cfg

    cfg: Any = get_pretrained_cfg(bare)
    overlay = {"file": str(path)} if cfg.custom_load else {"state_dict": dict(read_state(path))}
    given = {**options, "pretrained": True, "pretrained_cfg_overlay": overlay}
    try:
        twin = foreign.timm_net(bare, cfg.num_classes, image_size, given)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"'{path}' does not fit model '{bare}' ({reason}); delete the file to have it fetched again, "
            "or leave out options that change the net"
        ) from error
    return OrderedDict(twin.state_dict())


def _converted_or_none(path: Path, *arguments: Any) -> OrderedDict[str, torch.Tensor] | None:
    try:
        return _converted(path, *arguments)
    except UserError:
        return None


def _positions_resized(
    module: nn.Module, state: Mapping[str, torch.Tensor], image_size: int
) -> Mapping[str, torch.Tensor]:
    """Position embeddings of torchvision's vision transformers, interpolated to another image size."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    own = module.state_dict().get("encoder.pos_embedding")
    given = state.get("encoder.pos_embedding")
    if own is None or given is None or own.shape == given.shape or own.shape[2:] != given.shape[2:]:
        return state
    return interpolate_embeddings(image_size, module.patch_size, OrderedDict(state))
