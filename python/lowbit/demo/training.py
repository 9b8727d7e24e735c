# SPDX-License-Identifier: Apache-2.0
"""Training runs and step times of the demo's networks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from lowbit.demo.data import Dataset
from lowbit.demo.networks import Network

BATCH = 64
LEARNING_RATE = 0.01
_BETA1, _BETA2 = 0.9, 0.999


class Curves(NamedTuple):
    """Training loss and test accuracy (0 to 1) after each epoch of one run."""

    loss: list[float]
    accuracy: list[float]


class Trainer:
    """Adam with cosine decay on the cross entropy of one network.

    `step(images, labels)`, a traced function, trains on one batch and returns its loss.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._trained = network.trainable_variables
        self._first = [tf.Variable(tf.zeros_like(v)) for v in self._trained]
        self._second = [tf.Variable(tf.zeros_like(v)) for v in self._trained]
        self._step = tf.Variable(0.0)
        self._steps = tf.Variable(1.0)
        self.step = tf.function(self._train_step).get_concrete_function(
            tf.TensorSpec([BATCH, *network.image_shape], tf.float32),
            tf.TensorSpec([BATCH], tf.int32),
        )

    def reset(self, seed: int, steps: int) -> None:
        """Prepares a run of `steps` steps from the random weights of `seed`."""
        self.network.reset(seed)
        for zeros in (*self._first, *self._second, self._step):
            zeros.assign(tf.zeros_like(zeros))
        self._steps.assign(steps)

    def _train_step(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = self.network(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        self._adam(tape.gradient(loss, self._trained))
        return loss

    def _adam(self, gradients: list[tf.Tensor]) -> None:
        progress = self._step / self._steps
        step = self._step.assign_add(1.0)
        for variable, first, second, gradient in zip(
            self._trained, self._first, self._second, gradients, strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=_BETA1**step,
                beta2_power=_BETA2**step,
                lr=LEARNING_RATE * 0.5 * (1.0 + tf.cos(math.pi * progress)),
                beta1=_BETA1,
                beta2=_BETA2,
                epsilon=1e-7,
                grad=gradient,
            )

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """The share of images recognised, 0 to 1; eager, which spares a second trace."""
        hits = 0
        for start in range(0, len(images), 1000):
            logits = self.network(images[start : start + 1000], training=False)
            hits += np.sum(np.argmax(logits, -1) == labels[start : start + 1000])
        return float(hits / len(images))

    def run(self, data: Dataset, seed: int, epochs: int, after_epoch: Callable[[], None]) -> Curves:
        """Trains from the start for `epochs` epochs; `seed` fixes the weights and the order."""
        random = np.random.default_rng(seed)
        self.reset(seed, epochs * (len(data.train_images) // BATCH))
        curves = Curves([], [])
        for _ in range(epochs):
            losses = [self.step(*batch) for batch in batches(data, random)]
            curves.loss.append(float(np.mean(losses)))
            curves.accuracy.append(self.accuracy(data.test_images, data.test_labels))
            after_epoch()
        return curves


def batches(data: Dataset, random: np.random.Generator) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """One epoch of the training images in random order, in full batches."""
    order = random.permutation(len(data.train_images))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        rows = order[start : start + BATCH]
        yield tf.constant(data.train_images[rows]), tf.constant(data.train_labels[rows])


def step_times(
    pairs: Sequence[Sequence[Trainer]],
    data: Dataset,
    steps: int,
    after_step: Callable[[], None],
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
    batch = next(batches(data, np.random.default_rng(0)))
    trainers = [trainer for pair in pairs for trainer in pair]
    for trainer in trainers:
        trainer.reset(seed=0, steps=steps + 1)
    for pair in pairs:
        losses = [float(trainer.step(*batch)) for trainer in pair]
        if not np.allclose(losses, losses[0], rtol=1e-3):
            raise RuntimeError(f"networks to be timed must have the same loss, got {losses}")
    seconds: dict[Trainer, list[float]] = {trainer: [] for trainer in trainers}
    for _ in range(steps):
        for trainer in trainers:
            start = time.perf_counter()
            float(trainer.step(*batch))
            seconds[trainer].append(time.perf_counter() - start)
        after_step()
    return [[median(seconds[trainer]) for trainer in pair] for pair in pairs]
