# SPDX-License-Identifier: Apache-2.0
"""A Keras model of quantized layers on scikit-learn's digits: fit, save, load.

    pip install scikit-learn
    python keras_digits.py

Weights are ternary or binary, activations have 2 bits. The first and the last layer stay in float.
"""

import argparse
import pathlib
import tempfile

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lowbit


def network():
    """Three 3x3 convolutions and a dense layer for 8x8 images of ten digits."""
    return keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            keras.layers.Conv2D(16, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            lowbit.layers.Quantize("linear"),  # activations: 2 bits from 0 to 2
            lowbit.layers.QuantConv2D(
                32, 3, 2, "same", kernel_quantizer="ttq", use_bias=False, name="ternary"
            ),
            keras.layers.BatchNormalization(momentum=0.9),
            lowbit.layers.Quantize("linear"),
            # With arguments of its own: a configuration, or what one of lowbit's factories made.
            lowbit.layers.QuantConv2D(
                64,
                3,
                2,
                "same",
                kernel_quantizer={"class_name": "binary", "config": {"backward": "clipped"}},
                name="binary",
            ),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )


def digits():
    """Training and test images in [0, 1], [count, 8, 8, 1], and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    return train_test_split(images, labels, test_size=0.25, random_state=0)


def main():
    """Trains, saves, loads and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)

    train_x, test_x, train_y, test_y = digits()
    model = network()
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    monitor = lowbit.callbacks.QuantizationMonitor()
    history = model.fit(
        train_x, train_y, 64, arguments.epochs, verbose=0, callbacks=[monitor]
    ).history
    for epoch, (loss, flips) in enumerate(
        zip(history["loss"], history["binary/flips"], strict=True), start=1
    ):
        print(f"epoch {epoch}: loss {loss:.4f}, {100 * flips:.1f} % of the binary weights flipped")

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "digits.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)  # in any program that imports lowbit
    _, accuracy = loaded.evaluate(test_x, test_y, verbose=0)
    print(f"test accuracy {100 * accuracy:.1f} %")
    print(lowbit.summary(loaded))


if __name__ == "__main__":
    main()
