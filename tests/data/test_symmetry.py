from __future__ import annotations

import numpy as np
import pytest

from wellfit.data.symmetry import mirror_agreement, mirror_is_safe


def thumbnails(mirrored_classes: bool, count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of noisy 16×16 pictures: a bright half left or right, or (safe) a bright half above or below."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, count)
    images = rng.integers(0, 80, (count, 16, 16, 3))
    for image, target in zip(images, targets, strict=True):
        half = slice(0, 8) if target else slice(8, 16)
        if mirrored_classes:
            image[:, half] += 120
        else:
            image[half] += 120
    return images.astype(np.uint8), targets


def test_pictures_whose_mirror_image_is_the_other_class_must_not_be_flipped() -> None:
    plain, mirrored = mirror_agreement(*thumbnails(True), seed=0)
    assert plain > 0.95
    assert mirrored < 0.05
    assert not mirror_is_safe(plain, mirrored, 2)


def test_pictures_that_keep_their_class_may_be() -> None:
    plain, mirrored = mirror_agreement(*thumbnails(False), seed=0)
    assert plain > 0.95
    assert mirrored > 0.95
    assert mirror_is_safe(plain, mirrored, 2)


def test_the_built_in_digits_are_not_flipped() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.repeat(np.kron(digits.images * 15, np.ones((2, 2))).astype(np.uint8)[..., None], 3, axis=3)
    plain, mirrored = mirror_agreement(images, digits.target, seed=0)
    assert not mirror_is_safe(plain, mirrored, 10)


def test_agreement_is_a_plain_nearest_neighbour_search() -> None:
    images, targets = thumbnails(False, 60)
    images = images // 3  # room for the noise to matter
    plain, mirrored = mirror_agreement(images, targets, seed=1)
    from wellfit.randomness import generator

    order = generator(1, "mirror-agreement").permutation(60)
    asked, known = order[:20], order[20:]

    def share(queries: np.ndarray) -> float:
        distances = [[((images[k].astype(int) - q.astype(int)) ** 2).sum() for k in known] for q in queries]
        return float((targets[known][np.argmin(distances, axis=1)] == targets[asked]).mean())

    assert plain == pytest.approx(share(images[asked]))
    assert mirrored == pytest.approx(share(images[asked][:, :, ::-1]))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_images_make_no_trouble(count: int) -> None:
    images, targets = thumbnails(True, max(count, 1))
    plain, mirrored = mirror_agreement(images[:count], targets[:count], seed=0)
    assert 0 <= plain <= 1
    assert 0 <= mirrored <= 1
