# SPDX-License-Identifier: Apache-2.0
"""A training loop of one's own: a quantized convolutional network on scikit-learn's digits.

    pip install scikit-learn
    python custom_loop.py

Weights are ternary or binary, activations have 2 bits. The first and the last layer keep float
weights, as usual in the field: they are small, and quantizing them costs the most accuracy.
"""

import argparse

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lowbit

BATCH = 64


class Network(tf.Module):
    """Three 3x3 convolutions and a dense layer for 8x8 images of ten digits."""

    def __init__(self):
        super().__init__()
        self.kernels = [
            tf.Variable(tf.random.normal([3, 3, fan_in, fan_out]) / (9 * fan_in) ** 0.5)
            for fan_in, fan_out in [(1, 16), (16, 32), (32, 64)]
        ]
        self.dense = tf.Variable(tf.random.normal([64, 10]) / 8)
        self.biases = [tf.Variable(tf.zeros([n])) for n in (16, 32, 64, 10)]
        # A quantizer is a function of the latent float weights, which the optimizer trains. A TTQ
        # quantizer has two variables besides, so each layer needs one of its own. It is a
        # tf.Module: they are among the trainable_variables of this one.
        self.quantizers = [
            tf.identity,
            lowbit.ttq_weight_quantizer(initial="mean"),
            lowbit.binary_channel_wise_mean_scaling_quantizer(),
        ]
        self.activation = lowbit.linear_mid_tread_half_quantizer(bit=2, max_value=2.0)

    def __call__(self, x):
        """The logits [count, 10] of images [count, 8, 8, 1]."""
        layers = zip(self.kernels, self.quantizers, self.biases, (1, 2, 2), strict=False)
        for kernel, quantize, bias, stride in layers:
            x = tf.nn.conv2d(x, quantize(kernel), stride, "SAME") + bias
            x = self.activation(x)
        return tf.reduce_mean(x, [1, 2]) @ self.dense + self.biases[-1]


def digits():
    """Training and test images in [0, 1], [count, 8, 8, 1], and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    return train_test_split(images, labels.astype(np.int32), test_size=0.25, random_state=0)


def main():
    """Trains and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    tf.keras.utils.set_random_seed(0)

    train_x, test_x, train_y, test_y = digits()
    batches = tf.data.Dataset.from_tensor_slices((train_x, train_y))
    batches = batches.shuffle(len(train_x)).batch(BATCH, drop_remainder=True)
    network = Network()
    network(train_x[:1])  # The first call makes TTQ's variables, for the optimizer to find.
    optimizer = tf.keras.optimizers.Adam(0.01)
    variables = network.trainable_variables

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, network(x))
            loss = tf.reduce_mean(losses)
        # Straight through the rounding: the gradient reaches the latent weights.
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    for epoch in range(arguments.epochs):
        loss = np.mean([step(x, y) for x, y in batches])
        print(f"epoch {epoch + 1}: loss {loss:.4f}")
    accuracy = np.mean(np.argmax(network(test_x), axis=1) == test_y)
    print(f"test accuracy {100 * accuracy:.1f} %")

    ttq = network.quantizers[1]
    values = np.unique(ttq(network.kernels[1]))
    print(f"the ternary layer holds {', '.join(f'{v:.3f}' for v in values)}")


if __name__ == "__main__":
    main()
