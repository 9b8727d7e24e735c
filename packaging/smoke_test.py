# SPDX-License-Identifier: Apache-2.0
"""Uses an installed lowbit as its users do: the doctor, a few steps of training, NumPy.

Also sees that an op library for another TensorFlow is refused with an error that helps.

Run it with the Python that lowbit is installed for, from a folder that is not its source.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig


def examine() -> dict:
    """What the doctor finds: it runs every op on every device, and checks the results."""
    command = [sys.executable, "-m", "lowbit", "doctor", "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        subprocess.run([sys.executable, "-m", "lowbit", "doctor"])
        sys.exit("The doctor found something wrong: see above")
    return json.loads(result.stdout)


def train() -> list[float]:
    """The losses of a network whose weights have three values and whose activations have four."""
    import tensorflow as tf

    import lowbit

    activate = lowbit.linear_mid_tread_half_quantizer(bit=2, max_value=1.0)
    quantize = lowbit.ttq_weight_quantizer(initial="mean")
    tf.random.set_seed(1)
    weights = tf.Variable(tf.random.normal([16, 4], stddev=0.3))
    x = tf.random.uniform([64, 16])
    target = tf.random.uniform([64, 4])
    quantize(weights)  # makes its variables

    @tf.function
    def step() -> tf.Tensor:
        variables = [weights, *quantize.trainable_variables]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((activate(x) @ quantize(weights) - target) ** 2)
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.01 * gradient)
        return loss

    return [float(step()) for _ in range(100)]


def refused(package: pathlib.Path) -> list[str]:
    """The op libraries for other minor versions that do not load, with the error that helps.

    TensorFlows that were built with the same Abseil may load each other's; 2.18 and 2.19 do.
    """
    import tensorflow as tf

    running = "tf{}_{}.so".format(*tf.__version__.split(".")[:2])
    names = [path.name for path in package.glob("_ops/*")]
    found = []
    for name in sorted(n for n in names if re.fullmatch(r"tf\d+_\d+\.so", n) and n != running):
        environment = {**os.environ, "LOWBIT_LIBRARY": str(package / "_ops" / name)}
        command = [sys.executable, "-c", "import lowbit"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode == 0:
            continue
        error = f"ImportError: lowbit has no op library that fits TensorFlow {tf.__version__}: "
        if result.returncode != 1 or error not in result.stderr:
            sys.exit(f"{name} was to be refused, but this happened:\n{result.stderr}")
        found.append(name)
    return found


def check_numpy() -> None:
    """Compares an op with the same kernel on NumPy arrays."""
    import numpy as np
    import tensorflow as tf

    import lowbit
    import lowbit_numpy

    x = np.random.default_rng(1).standard_normal((300, 70)).astype(np.float32)
    expected = lowbit.ops.binary_channel_wise_mean_scaling_quantizer(tf.constant(x)).numpy()
    np.testing.assert_array_equal(
        lowbit_numpy.binary_channel_wise_mean_scaling_quantizer(x), expected
    )


def main() -> None:
    """Ends with an error where anything is wrong."""
    import lowbit

    package = pathlib.Path(lowbit.__file__).resolve().parent
    if not package.is_relative_to(pathlib.Path(sysconfig.get_path("platlib")).resolve()):
        sys.exit(f"{package} is not an installed lowbit: run this from another folder")
    found = examine()
    losses = train()
    if not losses[-1] < 0.5 * losses[0]:
        sys.exit(f"training does not work: the loss went from {losses[0]} to {losses[-1]}")
    check_numpy()
    others = refused(package)
    print(
        f"lowbit {lowbit.__version__} on TensorFlow {found['tensorflow']}, "
        f"Python {sys.version.split()[0]}: loss {losses[0]:.3f} to {losses[-1]:.3f}, "
        f"refused {', '.join(others) or 'nothing'}, all OK"
    )


if __name__ == "__main__":
    main()
