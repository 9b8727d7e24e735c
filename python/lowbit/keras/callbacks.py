# SPDX-License-Identifier: Apache-2.0
"""Keras callbacks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lowbit import _arguments
from lowbit.keras import compat

compat.require()

import keras  # noqa: E402

from lowbit.keras.traversal import quantized_layers, trained_activations  # noqa: E402


class QuantizationMonitor(keras.callbacks.Callback):
    """Watches the quantized kernels: adds to the `logs` of each epoch, and warns of dead kernels.

    For each kernel with a quantizer there is, under the path of its layer within the model (and the
    name of the kernel, where a layer has two):

        PATH/sparsity    share of quantized weights that are 0
        PATH/flips       share of latent weights with another sign than after the last epoch; 0 in
                         the first one of a model that `fit` itself builds
        PATH/scale       mean of the absolute quantized weights that are not 0
        PATH/positive    TTQ's scales
        PATH/negative

    and for each quantizer of activations that is trained, under the path of the layer that has it

        PATH/max_value   PACT's maximum

    A kernel without elements, as of an input of size 0, is left out.

    Those are many in a network of many layers, and Keras prints all of them after each epoch. Its
    short form, `QuantizationMonitor("model")`, adds two, over all of these weights:

        quantized/sparsity
        quantized/flips

    `history` has the values of each layer in either form: a list of one value an epoch for each of
    the names above.

    It warns (`UserWarning`, once a kernel and reason) where a quantized kernel is all zero, has one
    sign only or is not finite, where a scale of TTQ is negative, and where PACT's maximum is not
    finite or not above 0.

    Keras hands the same `logs` to all callbacks, in the order of the list and last to its own
    History. Loggers such as CSVLogger and TensorBoard thus record these values if they come after
    this callback; put it first.

    Args:
        detail: What goes to the logs: "layers" for the values of each layer, or "model".

    Raises:
        ValueError: `detail` is neither.
    """

    def __init__(self, detail: str = "layers") -> None:
        super().__init__()
        self._detail = _arguments.choice(detail, "detail", ("layers", "model"))
        self.history: dict[str, list[float]] = {}
        self._signs: dict[str, npt.NDArray[Any]] = {}
        self._warned: set[tuple[str, str]] = set()

    def on_train_begin(self, logs: Any = None) -> None:
        """Notes the signs that the first epoch starts from."""
        self.history = {}
        self._signs = {path: latent >= 0 for path, latent, _, _ in self._kernels()}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the values to `logs` and `history`, and warns."""
        found: dict[str, float] = {}
        zeros = flips = count = 0
        for path, latent, quantized, quantizer in self._kernels():
            signs = latent >= 0
            # A model that is built by its first batch had no signs when training began.
            flipped = int(np.count_nonzero(signs != self._signs.get(path, signs)))
            nonzero = np.abs(quantized[quantized != 0])
            values = {
                "sparsity": 1 - nonzero.size / quantized.size,
                "flips": flipped / signs.size,
                "scale": nonzero.mean() if nonzero.size else 0.0,
            }
            names = getattr(quantizer, "scale_names", ())
            scales = {name: _array(getattr(quantizer, name)) for name in names}
            self._signs[path] = signs
            found.update({f"{path}/{k}": float(v) for k, v in {**values, **scales}.items()})
            zeros += quantized.size - nonzero.size
            flips += flipped
            count += quantized.size
            self._warn_of(path, quantized, scales)
        for path, quantizer in trained_activations(self.model).items():
            for name in quantizer.scale_names if quantizer.scales is not None else ():
                found[f"{path}/{name}"] = value = float(_array(getattr(quantizer, name)))
                if not 0 < value < np.inf:
                    self._warn(path, f"the trained {name} must be finite and > 0, got {value}")
        for name, value in found.items():
            self.history.setdefault(name, []).append(value)
        if logs is not None and self._detail == "layers":
            logs.update(found)
        elif logs is not None and count:
            logs.update({"quantized/sparsity": zeros / count, "quantized/flips": flips / count})

    def _kernels(self) -> Iterator[tuple[str, npt.NDArray[Any], npt.NDArray[Any], Any]]:
        """Path, latent weights, quantized weights and quantizer of each kernel."""
        for path, layer in quantized_layers(self.model).items():
            quantized = layer.quantized() if layer.built else {}
            for kernel in layer.quantized_kernels:
                latent = _array(kernel.latent(layer)) if kernel.name in quantized else None
                if latent is not None and latent.size:
                    both = len(layer.quantized_kernels) > 1
                    yield (
                        f"{path}/{kernel.name}" if both else path,
                        latent,
                        _array(quantized[kernel.name]),
                        getattr(layer, kernel.argument),
                    )

    def _warn_of(
        self, path: str, quantized: npt.NDArray[Any], scales: dict[str, npt.NDArray[Any]]
    ) -> None:
        if not np.isfinite(quantized).all():
            self._warn(path, "the quantized kernel is not finite")
        elif not quantized.any():
            self._warn(path, "the quantized kernel is all zero")
        elif (quantized >= 0).all() or (quantized <= 0).all():
            self._warn(path, "the quantized kernel has one sign only")
        for name, scale in scales.items():
            if scale < 0:
                self._warn(
                    path, f'the scale {name} is negative; scale_constraint="non_neg" prevents it'
                )

    def _warn(self, path: str, reason: str) -> None:
        if (path, reason) not in self._warned:
            self._warned.add((path, reason))
            warnings.warn(f"{path}: {reason}", UserWarning, stacklevel=2)


def _array(values: Any) -> npt.NDArray[Any]:
    """A tensor or weight as a NumPy array of a type that NumPy computes in."""
    return tf.cast(tf.convert_to_tensor(values), tf.float64).numpy()
