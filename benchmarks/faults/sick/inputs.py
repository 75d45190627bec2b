"""What enters the network: `unnormalised-input` and `train-val-mismatch`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from faults.case import Case
from faults.data import Images, Tensors, channels_first, standardise
from faults.sick import settings as s
from faults.sick.plant import plant

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def figures(x: Tensor) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and deviation, or for grey images those of the first channel, N×C×H×W."""
    channels = x.shape[1]
    return MEAN[:channels].view(1, -1, 1, 1), STD[:channels].view(1, -1, 1, 1)


def both(images: Images, change: Callable[[Tensor], Tensor]) -> Tensors:
    """Training and validation pixels (float, 0 to 255) through the same steps."""
    data = standardise(images)
    return replace(
        data, train=change(channels_first(images.train)), validation=change(channels_first(images.validation))
    )


# ---- unnormalised-input ------------------------------------------------------------------------------------


def raw(images: Images) -> Tensors:
    """0 to 255."""
    return both(images, lambda x: x)


def brightened(images: Images) -> Tensors:
    """0 to 16, as digits come, times 16 to look at them."""
    return both(images, lambda x: 16 * x)


def divided_twice(images: Images) -> Tensors:
    """ToTensor() had divided by 255 already."""
    return both(images, lambda x: x / 255 / 255)


def imagenet_without_division(images: Images) -> Tensors:
    """Normalize() on pixels that nobody divided by 255."""
    return both(images, lambda x: (x - figures(x)[0]) / figures(x)[1])


def mean_in_the_other_scale(images: Images) -> Tensors:
    """Mean and deviation of 0 to 255, taken off pixels of 0 to 1."""
    return both(images, lambda x: (x / 255 - 255 * figures(x)[0]) / (255 * figures(x)[1]))


def normalised_often(images: Images) -> Tensors:
    """Normalize() in the data set, in its subset and in the loop."""

    def often(x: Tensor) -> Tensor:
        mean, std = figures(x)
        x = x / 255
        for _ in range(3):
            x = (x - mean) / std
        return x

    return both(images, often)


def mean_only(images: Images) -> Tensors:
    """The mean image is taken off, and no division follows."""
    return both(images, lambda x: x - x.mean(0))


def times_deviation(images: Images) -> Tensors:
    """Multiplied by the deviation of 0.2 where a division was meant, after / 255."""
    return both(images, lambda x: (x / 255 - 0.47) * 0.02)


def sixteen_bits(images: Images) -> Tensors:
    """Divided by 65535: the scanner's files had been of sixteen bits."""
    return both(images, lambda x: x / 65535)


def from_below(images: Images) -> Tensors:
    """255 taken off, for an inverted print."""
    return both(images, lambda x: x - 255)


def squared(images: Images) -> Tensors:
    """Divided by the variance of the pixels over 255, not by the deviation, and a mean of one channel alone."""
    return both(images, lambda x: (x / 255 - 0.1) / 0.25**2 + 4)


def cases_of_unnormalised() -> list[Case]:
    def unscaled(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("unnormalised-input", title, setting, **mistake)

    return [
        unscaled("0 to 255", s.FUNCTIONAL_NESTEROV, tensors=raw),
        unscaled("0 to 255", s.MLP_ADAM, tensors=raw),
        unscaled("0 to 255", s.SQUEEZENET_MOMENTUM, tensors=raw),
        unscaled("0 to 256", s.TANH_MLP_SGD, tensors=brightened),
        unscaled("divided by 255 twice", s.VGG_MOMENTUM, tensors=divided_twice),
        unscaled("divided by 255 twice", s.LENET_SGD, tensors=divided_twice),
        unscaled("Normalize without / 255", s.GELU_ADAMW, tensors=imagenet_without_division),
        unscaled("mean and deviation in the other scale", s.LENET_MOMENTUM, tensors=mean_in_the_other_scale),
        unscaled("Normalize three times", s.FUNCTIONAL_NESTEROV, tensors=normalised_often),
        unscaled("mean taken off alone", s.TANH_MOMENTUM, tensors=mean_only),
        unscaled("multiplied by the deviation", s.VGG_SGD, tensors=times_deviation),
        unscaled("divided by 65535", s.GELU_MLP_ADAMW, tensors=sixteen_bits),
        unscaled("255 taken off", s.VGG_ADAM, tensors=from_below),
        unscaled("divided by the variance", s.TANH_ADAM, tensors=squared),
    ]


# ---- train-val-mismatch ------------------------------------------------------------------------------------


def validation(images: Images, change: Callable[[Tensor], Tensor]) -> Tensors:
    """Standardised as it should be, and the validation images changed afterwards."""
    data = standardise(images)
    return replace(data, validation=change(data.validation))


def validation_pixels(images: Images, change: Callable[[Tensor], Tensor]) -> Tensors:
    """Training images standardised; validation pixels (float, 0 to 255) prepared by steps of their own."""
    return replace(standardise(images), validation=change(channels_first(images.validation)))


def validation_raw(images: Images) -> Tensors:
    return validation_pixels(images, lambda x: x)


def validation_divided(images: Images) -> Tensors:
    return validation_pixels(images, lambda x: x / 255)


def validation_blue_first(images: Images) -> Tensors:
    return validation(images, lambda x: x.flip(1))


def validation_twice(images: Images) -> Tensors:
    return validation(images, lambda x: (x - 0.47) / 0.23)


def validation_inverted(images: Images) -> Tensors:
    return validation_pixels(images, lambda x: (255 - x - x.mean()) / x.std())


def validation_grey(images: Images) -> Tensors:
    """convert("L") and back, and only there."""
    return validation(images, lambda x: x.mean(1, keepdim=True).expand_as(x).contiguous())


def validation_enlarged(images: Images) -> Tensors:
    """Reduced to six pixels and enlarged again, by thumbnails that served as files."""

    def through_thumbnails(x: Tensor) -> Tensor:
        return F.interpolate(F.interpolate(x, (4, 4), mode="area"), x.shape[2:], mode="bilinear")

    return validation(images, through_thumbnails)


def validation_centred(images: Images) -> Tensors:
    """Each validation image by its own mean and deviation of each channel, and a padding of zeros around half of it."""

    def cropped(x: Tensor) -> Tensor:
        height = x.shape[2]
        small = F.interpolate(x, (height // 2, height // 2), mode="area")
        rest = height - height // 2
        return F.pad(small, (rest // 2, rest - rest // 2) * 2, value=float(x.min()))

    return validation(images, cropped)


def validation_minus_one_to_one(images: Images) -> Tensors:
    """x / 127.5 - 1 beside a training set by its own mean and deviation, of 0 to 16 here."""
    return validation_pixels(images, lambda x: x / 127.5 - 1)


def validation_dark(images: Images) -> Tensors:
    """Linear light: the gamma was applied to one side only."""

    def linear(x: Tensor) -> Tensor:
        return 255 * (x / 255) ** 2.2

    train = channels_first(images.train)
    mean, std = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True)
    return validation_pixels(images, lambda x: (linear(x) - mean) / std)


def cases_of_mismatch() -> list[Case]:
    def other(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("train-val-mismatch", title, setting, **mistake)

    return [
        other("validation in 0 to 255", s.LENET_SGD, tensors=validation_raw),
        other("validation in 0 to 255", s.VGG_BN_ADAM, tensors=validation_raw),
        other("validation divided by 255 only", s.TANH_MOMENTUM, tensors=validation_divided),
        other("validation divided by 255 only", s.SQUEEZENET_ADAM, tensors=validation_divided),
        other("validation normalised twice", s.VGG_BN_SGD, tensors=validation_twice),
        other("validation normalised twice", s.RESNET_MOMENTUM, tensors=validation_twice),
        other("validation blue first", s.GELU_ADAMW, tensors=validation_blue_first),
        other("validation blue first", s.FUNCTIONAL_RMSPROP, tensors=validation_blue_first),
        other("validation inverted", s.GELU_MLP_ADAMW, tensors=validation_inverted),
        other("validation in grey", s.VGG_BN_ADAM, tensors=validation_grey),
        other("validation from thumbnails", s.FUNCTIONAL_NESTEROV, tensors=validation_enlarged),
        other("validation shrunk and padded", s.MLP_ADAM, tensors=validation_centred),
        other("validation in -1 to 1", s.RESNET_ADAMW, tensors=validation_minus_one_to_one),
        other("validation in -1 to 1", s.MLP_SGD, tensors=validation_minus_one_to_one),
        other("validation in linear light", s.VGG_ADAM, tensors=validation_dark),
    ]


def cases() -> list[Case]:
    return cases_of_unnormalised() + cases_of_mismatch()
