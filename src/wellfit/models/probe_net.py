"""A pretrained network's last feature map, pooled, with a linear classifier on top (SPEC T2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from wellfit.errors import UserError


class ProbeNet(nn.Module):
    """backbone → its last feature map → mean and max over place → `fc`.

    backbone: any image classifier. It is run as it is and its feature map is caught on the way, so
    that every architecture works; what comes after the map is computed and not used.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, image_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.layer = last_feature_map(backbone, image_size)
        self._caught: list[torch.Tensor] = []
        dict(backbone.named_modules())[self.layer].register_forward_hook(self._catch)
        with torch.no_grad():
            backbone.eval()
            width = self.features(torch.zeros(1, 3, image_size, image_size)).shape[1]
        self.fc = nn.Linear(width, num_classes)

    def _catch(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self._caught.append(output)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """N×3×S×S → N×F: channel means, then channel maxima."""
        self._caught.clear()
        self.backbone(x)
        feature_map = self._caught.pop()
        return torch.cat([feature_map.mean((2, 3)), feature_map.amax((2, 3))], dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x))


def last_feature_map(backbone: nn.Module, image_size: int) -> str:
    """Name of the last part to finish with N×C×H×W of more than one place, the classifier's own left out.

    Parts are looked at as wholes, so that a part which joins branches counts with all of them. Raises UserError for
    a network without feature maps (a vision transformer, say).
    """
    seen: list[tuple[str, torch.Size]] = []
    handles = [
        layer.register_forward_hook(lambda m, i, o, name=name: seen.append((name, o.shape)) if _is_map(o) else None)
        for name, layer in backbone.named_modules()
        if name
    ]
    training = backbone.training
    try:
        backbone.eval()
        with torch.no_grad():
            backbone(torch.zeros(1, 3, image_size, image_size))
    finally:
        backbone.train(training)
        for handle in handles:
            handle.remove()
    # A convolutional classifier (SqueezeNet's) is no feature: everything in a part of that name is left out.
    features = [name for name, _ in seen if name.split(".")[0] not in ("classifier", "head", "fc")]
    if not features:
        raise UserError(
            "a linear probe needs a network with feature maps of more than one place, and this one has none at "
            f"{image_size} pixels; use a convolutional network or fine-tune instead"
        )
    return features[-1]


def _is_map(output: Any) -> bool:
    return isinstance(output, torch.Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1
