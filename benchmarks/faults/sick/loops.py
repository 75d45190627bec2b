"""Lines of the loop that are missing, misplaced or about another variable: `not-learning`, `gradients-accumulate`."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from faults.case import Case
from faults.loop import Loop
from faults.sick import settings as s
from faults.sick.plant import plant, rows_of
from wellfit.diagnosis.monitor import Monitor
from wellfit.randomness import generator

# ---- not-learning ------------------------------------------------------------------------------------------


def labels_permuted(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """What is left of mixup after the mixing was deleted."""
    return x, y[torch.randperm(len(y))]


def labels_sorted(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A collate function that sorts labels, for a reason long forgotten."""
    return x, y.sort().values


def dummy_labels(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """From the smoke test."""
    return x, torch.randint_like(y, 10)


def dummy_images(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """From the timing run."""
    return torch.randn_like(x), y


def noise_in_pixel_units(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Noise of 25 grey levels added after the pixels were standardised."""
    return x + 25 * torch.randn_like(x), y


def pixels_of_all_images(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """view() where a permute was meant: each image is made of all images' pixels."""
    return x.flatten(1).T.reshape(x.shape), y


def channels_into_images(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """transpose(0, 1) and a reshape back: the channels of other images."""
    return x.transpose(0, 1).reshape(x.shape), y


class StaleLabels(Loop):
    """The loss gets the labels of the batch before."""

    def prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        before = getattr(self, "before", y)
        self.before = y
        return x, before if len(before) == len(y) else y


class ImagesShuffledAlone(Loop):
    """Each epoch the images are shuffled, and the labels are not."""

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.from_numpy(generator(self.seed, "faults/order", epoch).permutation(len(self.data.train)))
        pairs = zip(order.split(self.batch_size), self.data.train_labels.split(self.batch_size), strict=True)
        for rows, y in pairs:
            yield self.data.train[rows], y


class OtherAnswers(Loop):
    """The loss is that of a second batch's answers: a variable of the validation was used."""

    def loss_of(self, answers: Tensor, targets: Tensor) -> Tensor:
        rows = torch.randint(len(self.data.validation), (len(targets),))
        return super().loss_of(self.model(self.data.validation[rows]), targets)


def cases_of_not_learning() -> list[Case]:
    def still(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("not-learning", title, setting, **mistake)

    return [
        still("labels permuted in every batch", s.LENET_SGD, augment=labels_permuted),
        still("labels permuted in every batch", s.RESNET_ADAMW, augment=labels_permuted, train=1000, epochs=6),
        still("labels sorted within the batch", s.FUNCTIONAL_NESTEROV, augment=labels_sorted),
        still("labels of the batch before", s.VGG_ADAM, loop=StaleLabels),
        still("images shuffled without their labels", s.LENET_MOMENTUM, loop=ImagesShuffledAlone),
        still("images shuffled without their labels", s.MLP_SGD, loop=ImagesShuffledAlone),
        still("labels of the smoke test", s.GELU_ADAMW, augment=dummy_labels),
        still("images of the timing run", s.TANH_MOMENTUM, augment=dummy_images),
        still("noise in units of pixels", s.VGG_BN_ADAM, augment=noise_in_pixel_units),
        still("view where a permute was meant", s.PLAIN_NESTEROV, augment=pixels_of_all_images),
        still("channels of other images", s.FUNCTIONAL_RMSPROP, augment=channels_into_images),
        still("loss of another batch's answers", s.MLP_RMSPROP, loop=OtherAnswers),
    ]


# ---- gradients-accumulate ----------------------------------------------------------------------------------


class NeverReset(Loop):
    """optimizer.zero_grad() is not there, or stands without its parentheses."""

    def zero_grad(self) -> None:
        pass


class ResetBeforeTheLoop(Loop):
    """zero_grad() stands one level too far out: once an epoch."""

    def begin_training(self) -> None:
        super().begin_training()
        self.optimizer.zero_grad()

    def zero_grad(self) -> None:
        pass


class ResetOfACopy(Loop):
    """zero_grad() of the averaged copy of the model."""

    def zero_grad(self) -> None:
        if not hasattr(self, "average"):
            self.average = copy.deepcopy(self.model)
        self.average.zero_grad()


class ResetNowAndThen(Loop):
    """zero_grad() came to stand under `if step % 100 == 0`, beside the printing."""

    def zero_grad(self) -> None:
        if self.step % 100 == 0:
            self.optimizer.zero_grad()


class ResetOnlyIfBad(Loop):
    """zero_grad() stands in the branch that skips losses which are no number."""

    def backward(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            self.optimizer.zero_grad()
        super().backward(loss)

    def zero_grad(self) -> None:
        pass


class ResetOfTheHead(Loop):
    """Two optimizers, and only that of the head is reset."""

    def make_monitor(self) -> Monitor:
        head = list(rows_of(self.model, nn.Linear)[-1].parameters())
        mine = {id(p) for p in head}
        body = [p for p in self.model.parameters() if id(p) not in mine]
        kind, lr = type(self.optimizer), self.optimizer.param_groups[0]["lr"]
        self.optimizer, self.body = kind(head, lr), kind(body, lr)
        return Monitor(self.model, [self.optimizer, self.body])

    def update(self) -> None:
        self.body.step()
        super().update()


class ResetOfOneLayer(Loop):
    """model[0].zero_grad() for model.zero_grad()."""

    def zero_grad(self) -> None:
        next(self.model.children()).zero_grad()


class ZeroedInACopy(Loop):
    """grad * 0 makes a new tensor and changes nothing."""

    def zero_grad(self) -> None:
        for p in self.model.parameters():
            if p.grad is not None:
                p.grad * 0


def cases_of_accumulating() -> list[Case]:
    def growing(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("gradients-accumulate", title, setting, **mistake)

    return [
        growing("zero_grad forgotten", s.LENET_SGD, loop=NeverReset),
        growing("zero_grad forgotten", s.MLP_ADAM, loop=NeverReset),
        growing("zero_grad without parentheses", s.VGG_MOMENTUM, loop=NeverReset),
        growing("zero_grad once an epoch", s.FUNCTIONAL_NESTEROV, loop=ResetBeforeTheLoop),
        growing("zero_grad once an epoch", s.VGG_BN_ADAM, loop=ResetBeforeTheLoop),
        growing("zero_grad of the averaged copy", s.RESNET_ADAMW, loop=ResetOfACopy),
        growing("zero_grad every hundredth step", s.TANH_MLP_SGD, loop=ResetNowAndThen),
        growing("zero_grad only after a bad loss", s.FUNCTIONAL_RMSPROP, loop=ResetOnlyIfBad),
        growing("zero_grad of the head's optimizer alone", s.LENET_ADAM, loop=ResetOfTheHead),
        growing("zero_grad of the first layer", s.VGG_BN_SGD, loop=ResetOfOneLayer),
        growing("gradients zeroed in a copy", s.PLAIN_NESTEROV, loop=ZeroedInACopy),
        growing("zero_grad forgotten in fine-tuning", s.SQUEEZENET_MOMENTUM, loop=NeverReset),
    ]


def cases() -> list[Case]:
    return cases_of_not_learning() + cases_of_accumulating()
