# SPDX-License-Identifier: Apache-2.0
"""Networks whose training steps are timed, in a process of its own; see train_step.py.

Needs TensorFlow and one library of quantized layers, nothing else, so that it runs in environments
where lowbit is not: some of these libraries are for Keras 2.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from timer import in_rounds, turn

keras = tf.keras  # Keras 3, or 2 where TF_USE_LEGACY_KERAS is set
tf.get_logger().setLevel("ERROR")  # It takes a tf.function for every network for retracing.
FLOAT = "float"
# Relative, of the loss and of the norm of its gradient: where an activation is within a rounding of
# 0, its gradient may be there or not.
TOLERANCES = (1e-5, 2e-3)


class Layers(NamedTuple):
    """The layers that a network is made of.

    Attributes:
        convolution: Takes filters, size and strides.
        depthwise: Takes size and strides.
        activation: What follows the batch normalisation.
    """

    convolution: Callable[..., Any]
    depthwise: Callable[..., Any]
    activation: Callable[[], Any]


def _float() -> Layers:
    return Layers(keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.ReLU)


def _quantized(module: Any, kernel: Callable[[int], Any], activation: Callable[[], Any]) -> Layers:
    """Returns the layers of a module that has those of lowbit's and larq's names.

    Args:
        module: It.
        kernel: Returns the quantizer of a kernel with that axis of channels.
        activation: Returns the quantizer of activations, as a layer.
    """

    def convolution(*args: Any, **options: Any) -> Any:
        return module.QuantConv2D(*args, kernel_quantizer=kernel(-1), **options)

    def depthwise(*args: Any, **options: Any) -> Any:
        name = "depthwise_quantizer" if hasattr(module, "QuantizerBase") else "kernel_quantizer"
        return module.QuantDepthwiseConv2D(*args, **{name: kernel(-2)}, **options)

    return Layers(convolution, depthwise, activation)


def _lowbit(scheme: str, stock: bool) -> Layers:
    """The same layers, with the ops of lowbit or with stock ones."""
    import lowbit.stock
    from lowbit import layers

    module = lowbit.stock if stock else lowbit
    kernels = {
        "twn": lambda axis: module.twn_weight_quantizer(),
        "binary": lambda axis: module.binary_channel_wise_mean_scaling_quantizer(axis=axis),
        "absmean": lambda axis: module.absmean_weight_quantizer(),
    }
    kernel, _, weights_only = scheme.partition(" ")
    if weights_only:
        return _quantized(layers, kernels[kernel], keras.layers.ReLU)
    linear = module.linear_mid_tread_half_quantizer
    return _quantized(layers, kernels[kernel], lambda: layers.Quantize(linear(2, 2.0)))


def _larq(scheme: str) -> Layers:
    import larq

    names = {"twn": larq.quantizers.SteTern, "binary": larq.quantizers.MagnitudeAwareSign}
    inputs = larq.quantizers.DoReFa(2, mode="activations")
    return _quantized(
        larq.layers, lambda axis: names[scheme](), lambda: keras.layers.Activation(inputs)
    )


def _qkeras(scheme: str) -> Layers:
    import qkeras

    kernel = {"twn": qkeras.ternary, "binary": qkeras.binary}[scheme]

    def convolution(*args: Any, **options: Any) -> Any:
        return qkeras.QConv2D(*args, kernel_quantizer=kernel(alpha="auto"), **options)

    def depthwise(*args: Any, **options: Any) -> Any:
        return qkeras.QDepthwiseConv2D(*args, depthwise_quantizer=kernel(alpha=1.0), **options)

    return Layers(convolution, depthwise, lambda: qkeras.QActivation(qkeras.quantized_relu(2)))


def _hgq2(scheme: str) -> Layers:
    """Learned bits of each weight, as it does by default; inputs are quantized by the layers."""
    from hgq import layers

    def depthwise(*args: Any, **options: Any) -> Any:
        return layers.QDepthwiseConv2D(*args, **options)  # which some versions lack

    return Layers(layers.QConv2D, depthwise, keras.layers.ReLU)


# By library: its schemes, and who is timed in a scheme besides the float network.
LIBRARIES: dict[str, tuple[tuple[str, ...], dict[str, Callable[[str], Layers]]]] = {
    "lowbit": (
        ("twn", "binary", "absmean", "absmean weights"),
        {"stock": lambda s: _lowbit(s, stock=True), "lowbit": lambda s: _lowbit(s, stock=False)},
    ),
    "larq": (("twn", "binary"), {"larq": _larq}),
    "qkeras": (("twn", "binary"), {"qkeras": _qkeras}),
    "hgq2": (("learned bits",), {"hgq2": _hgq2}),
}


class Scale(NamedTuple):
    """How large networks and images are."""

    batch: int = 32
    image: int = 32
    width: float = 1.0
    depth: int = 3


TINY = Scale(batch=4, image=16, width=0.25, depth=1)


def resnet(layers: Layers, scale: Scale) -> Any:
    """A ResNet-20: the first convolution and the last layer stay float, as is customary."""
    x = image = keras.Input([scale.image, scale.image, 3])
    x = _normalized(keras.layers.Conv2D, x, int(16 * scale.width), 3)
    for stage in range(3):
        for block in range(scale.depth):
            filters, strides = int(16 * 2**stage * scale.width), 1 + (stage > 0 and block == 0)
            shortcut = x
            if strides > 1:
                shortcut = _normalized(layers.convolution, x, filters, 1, strides=strides)
            x = layers.activation()(_normalized(layers.convolution, x, filters, 3, strides=strides))
            x = _normalized(layers.convolution, x, filters, 3)
            x = layers.activation()(keras.layers.Add()([x, shortcut]))
    return _classified(image, x)


def mobilenet(layers: Layers, scale: Scale) -> Any:
    """A MobileNet for small images: depthwise convolutions with pointwise ones."""
    x = image = keras.Input([scale.image, scale.image, 3])
    x = _normalized(keras.layers.Conv2D, x, int(32 * scale.width), 3)
    x = layers.activation()(x)
    for stage in range(4):
        for block in range(max(1, scale.depth - 1)):
            filters, strides = int(64 * 2**stage * scale.width), 1 + (stage > 0 and block == 0)
            x = layers.activation()(_normalized(layers.depthwise, x, 3, strides=strides))
            x = layers.activation()(_normalized(layers.convolution, x, filters, 1))
    return _classified(image, x)


def _normalized(layer: Callable[..., Any], x: Any, *args: Any, **options: Any) -> Any:
    x = layer(*args, padding="same", use_bias=False, **options)(x)
    return keras.layers.BatchNormalization()(x)


def _classified(image: Any, x: Any) -> Any:
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10)(x))


NETWORKS = {"resnet": resnet, "mobilenet": mobilenet}


class Training:
    """A network in training.

    Args:
        network: Of NETWORKS.
        library: Of LIBRARIES.
        scheme: Of the library's.
        who: FLOAT, or who is timed in that scheme.
        scale: How large it is.
    """

    def __init__(self, network: str, library: str, scheme: str, who: str, scale: Scale):
        keras.utils.set_random_seed(0)  # The same weights, whoever it is.
        layers = _float() if who == FLOAT else LIBRARIES[library][1][who](scheme)
        self.model = NETWORKS[network](layers, scale)
        self._optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
        random = np.random.default_rng(0)
        shape = [scale.batch, scale.image, scale.image, 3]
        self._images = tf.constant(random.normal(size=shape), tf.float32)
        self._labels = tf.constant(random.integers(10, size=scale.batch), tf.int32)

    def step(self, jit_compile: bool) -> Callable[[], tf.Tensor]:
        """Returns what trains on a batch, and returns its loss."""
        function = tf.function(self._step, jit_compile=jit_compile)
        self._optimizer.build(self.model.trainable_variables)
        return lambda: function(self._images, self._labels).numpy()

    def loss(self) -> list[float]:
        """Returns the loss on the batch, and the norm of its gradient."""
        loss, gradients = tf.function(self._gradients)(self._images, self._labels)
        norm = tf.linalg.global_norm([g for g in gradients if g is not None])
        return [float(loss), float(norm)]

    def _step(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        loss, gradients = self._gradients(images, labels)
        trained = self.model.trainable_variables
        self._optimizer.apply_gradients(zip(gradients, trained, strict=True))
        return loss

    def _gradients(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, list[Any]]:
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses) + sum(self.model.losses, 0.0)
        return loss, tape.gradient(loss, self.model.trainable_variables)


def times(
    network: str, library: str, schemes: list[str], modes: list[str], rounds: int, scale: Scale
) -> list[dict[str, Any]]:
    """Returns, for each scheme and mode, the seconds of a step by name, all in the same rounds.

    Where a library has two ways, their results are compared first; `mistake` says what differs.
    """
    everyone = LIBRARIES[library][1]
    float_net = Training(network, library, "", FLOAT, scale)
    steps = {("", FLOAT, mode): float_net.step(mode == "xla") for mode in modes}
    mistakes = dict.fromkeys(schemes)
    for scheme in schemes:
        nets = {who: Training(network, library, scheme, who, scale) for who in everyone}
        mistakes[scheme] = _difference({who: net.loss() for who, net in nets.items()})
        steps |= {(scheme, w, m): nets[w].step(m == "xla") for w in everyone for m in modes}
    named = {json.dumps(key): turn(step) for key, step in steps.items()}
    seconds = {tuple(json.loads(key)): s for key, s in in_rounds(named, rounds).items()}
    return [
        {
            "scheme": scheme,
            "mode": mode,
            "mistake": mistakes[scheme],
            "seconds": {
                FLOAT: seconds["", FLOAT, mode],
                **{who: seconds[scheme, who, mode] for who in everyone},
            },
        }
        for scheme in schemes
        for mode in modes
    ]


def _difference(losses: dict[str, list[float]]) -> str | None:
    first, *others = losses.items()
    for name, values in losses.items():
        if not np.all(np.isfinite(values)):
            return f"loss and norm of the gradient of {name} are {values}"
    for name, values in others:
        if np.any(np.abs(np.subtract(values, first[1])) > np.multiply(TOLERANCES, values)):
            return f"loss and norm of the gradient are {first[1]} of {first[0]}, {values} of {name}"
    return None


def peak_memory(training: Training, mode: str) -> float:
    """Returns the MiB that a step takes beyond what lies in memory between two steps."""
    step = training.step(mode == "xla")
    for _ in range(2):
        step()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # The peak starts anew.
    before = _memory("VmRSS")
    for _ in range(3):
        step()
    return (_memory("VmHWM") - before) / 1024


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Prints what was asked for in JSON: times or, if someone is named, the peak memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    parser.add_argument("--schemes", nargs="+", required=True)
    parser.add_argument("--modes", nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--who", help="whose memory is measured, of the first scheme and mode")
    o = parser.parse_args()
    scale = TINY if o.tiny else Scale()
    if o.who is None:
        result: Any = times(o.network, o.library, o.schemes, o.modes, o.rounds, scale)
    else:
        training = Training(o.network, o.library, o.schemes[0], o.who, scale)
        result = peak_memory(training, o.modes[0])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
