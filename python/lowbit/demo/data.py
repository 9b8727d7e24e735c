# SPDX-License-Identifier: Apache-2.0
"""The image sets that the demo trains on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10")


class Dataset(NamedTuple):
    """Images scaled to [0, 1], float32 [count, height, width, channels], and int32 labels."""

    train_images: npt.NDArray[Any]
    train_labels: npt.NDArray[Any]
    test_images: npt.NDArray[Any]
    test_labels: npt.NDArray[Any]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        _, height, width, channels = self.train_images.shape
        return height, width, channels

    @property
    def classes(self) -> int:
        """How many classes the labels 0, 1, ... name."""
        return int(self.train_labels.max()) + 1


def load(name: str) -> Dataset:
    """Loads one of `DATASETS`; all but the digits are downloaded at their first use.

    Raises:
        OSError: the download failed.
    """
    if name == "digits":
        return _digits()
    try:
        (train_x, train_y), (test_x, test_y) = getattr(tf.keras.datasets, name).load_data()
    except Exception as error:  # Keras wraps a failed download in a bare Exception.
        raise OSError(
            f"{name} could not be loaded ({error}); --dataset digits needs no network"
        ) from error
    return Dataset(_scaled(train_x, 255), _flat(train_y), _scaled(test_x, 255), _flat(test_y))


def _digits() -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        digits.images, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    return Dataset(_scaled(train_x, 16), _flat(train_y), _scaled(test_x, 16), _flat(test_y))


def _scaled(images: npt.NDArray[Any], largest: int) -> npt.NDArray[Any]:
    images = images.astype(np.float32) / largest
    return images if images.ndim == 4 else images[..., np.newaxis]


def _flat(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return labels.reshape(-1).astype(np.int32)
