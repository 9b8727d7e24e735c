# SPDX-License-Identifier: Apache-2.0
"""Training runs and step times of the demo's networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from lowbit.demo.data import Dataset
from lowbit.demo.networks import Network

BATCH = 64
LEARNING_RATE = 0.01


class Curves(NamedTuple):
    """Training loss and test accuracy (0 to 1) after each epoch of one run."""

    loss: list[float]
    accuracy: list[float]


class Trainer:
    """Trains one network with Keras: Adam with cosine decay on the cross entropy.

    Args:
        network: What is trained.
        data: The images.
        epochs: Of each run.
    """

    def __init__(self, network: Network, data: Dataset, epochs: int) -> None:
        self.network = network
        self._data = data
        self._epochs = epochs
        self._steps = len(data.train_images) // BATCH
        schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * self._steps)
        network.model.compile(
            keras.optimizers.Adam(schedule),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            steps_per_execution=self._steps,  # of steps so short, calls one by one would be half
        )
        network.model.optimizer.build(network.model.trainable_variables)

    def reset(self, seed: int) -> None:
        """Returns network and optimizer to the start, with the random weights of `seed`."""
        self.network.reset(seed)
        for variable in self.network.model.optimizer.variables:
            variable.assign(keras.ops.zeros_like(variable))

    def run(self, seed: int, after_epoch: Callable[[], None]) -> Curves:
        """Trains from the start; `seed` fixes the weights and the order of the images."""
        self.reset(seed)
        images = tf.data.Dataset.from_tensor_slices(self._data[:2])
        images = images.shuffle(len(images), seed).batch(BATCH, drop_remainder=True).repeat()
        history = self.network.model.fit(
            images,
            epochs=self._epochs,
            steps_per_epoch=self._steps,
            callbacks=[_AfterEpoch(self._data, after_epoch)],
            shuffle=False,  # the images are
            verbose=0,
        ).history
        return Curves(history["loss"], history["val_accuracy"])

    def step(self, images: tf.Tensor, labels: tf.Tensor) -> float:
        """Trains on one batch; returns the mean loss since Keras reset its metrics."""
        return float(self.network.model.train_step((images, labels))["loss"])


class _AfterEpoch(keras.callbacks.Callback):
    """Adds the test accuracy to the logs, and says that an epoch is over.

    Not by `validation_data`, whose iterators take longer than the networks for sets this small.
    """

    def __init__(self, data: Dataset, after_epoch: Callable[[], None]) -> None:
        super().__init__()
        self._data = data
        self._after_epoch = after_epoch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        images, labels = self._data.test_images, self._data.test_labels
        parts = [images[start : start + 1000] for start in range(0, len(images), 1000)]
        found = np.concatenate([np.argmax(self.model.logits(x), -1) for x in parts])
        logs["val_accuracy"] = float(np.mean(found == labels))
        self._after_epoch()


def step_times(
    pairs: Sequence[Sequence[Trainer]], data: Dataset, steps: int, after_step: Callable[[], None]
) -> list[list[float]]:
    """The median time in seconds of a training step of each trainer.

    All take turns, step by step, so that whatever else the machine does hits all alike.

    Args:
        pairs: Trainers that differ in nothing but who computes their quantizers.
        data: Where the one batch comes from.
        steps: How many steps of each are timed.
        after_step: Called when all have taken a step.

    Raises:
        RuntimeError: the first losses of a pair differ, so the two do not compute the same.
    """
    batch = [tf.constant(array[:BATCH]) for array in data[:2]]
    trainers = [trainer for pair in pairs for trainer in pair]
    for trainer in trainers:
        trainer.reset(seed=0)
        trainer.network.model.reset_metrics()
    for pair in pairs:
        losses = [trainer.step(*batch) for trainer in pair]
        if not np.allclose(losses, losses[0], rtol=1e-3):
            raise RuntimeError(f"networks to be timed must have the same loss, got {losses}")
    seconds: dict[Trainer, list[float]] = {trainer: [] for trainer in trainers}
    for _ in range(steps):
        for trainer in trainers:
            start = time.perf_counter()
            trainer.step(*batch)
            seconds[trainer].append(time.perf_counter() - start)
        after_step()
    return [[median(seconds[trainer]) for trainer in pair] for pair in pairs]
