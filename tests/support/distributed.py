# SPDX-License-Identifier: Apache-2.0
"""Trains a small network under a `tf.distribute` strategy: `distributed.py ROLE`, a process each.

The roles are mirrored, two replicas on this machine, and for a parameter server's cluster, with
the place there in TF_CONFIG, chief, worker and ps. The first two print their curves as JSON.
"""

import copy
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

import lowbit

STEPS, BATCH, CLASSES = 6, 16, 4
FIRST_CALLS = {  # where TTQ's variables are made: by default in the first step, on the replicas
    "replica": lambda network, x: None,
    "outside": lambda network, x: network(x),
    "outside, traced": lambda network, x: tf.function(network)(x),
    "outside, copied": lambda network, x: network.copy_quantizer()(network.kernels[0]),
}


class Network(tf.Module):
    """Two dense layers, one of TTQ's weights and one of binary ones, with 2-bit activations."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(0)
        self.kernels = [
            tf.Variable(random.normal(size=shape).astype(np.float32))
            for shape in [(8, 12), (12, CLASSES)]
        ]
        self.ttq = lowbit.ttq_weight_quantizer(initial="mean")
        self.activation = lowbit.linear_mid_tread_half_quantizer(2, 2.0)
        self.binary = lowbit.binary_channel_wise_mean_scaling_quantizer()

    def copy_quantizer(self):
        self.ttq = copy.deepcopy(self.ttq)
        return self.ttq

    def __call__(self, x):
        x = self.activation(x @ self.ttq(self.kernels[0]) / 4)
        return x @ self.binary(self.kernels[1])


def batches() -> tf.data.Dataset:
    """Random points, and the classes that a linear map gives them."""
    random = np.random.default_rng(1)
    x = random.normal(size=(STEPS * BATCH, 8)).astype(np.float32)
    labels = np.argmax(x @ random.normal(size=(8, CLASSES)), axis=1).astype(np.int32)
    return tf.data.Dataset.from_tensor_slices((x, labels)).batch(BATCH, drop_remainder=True)


def train(strategy: tf.distribute.Strategy, first_call: str = "replica") -> list[float]:
    """The loss of each step, and where TTQ's scales end."""
    with strategy.scope():
        network = Network()
        optimizer = tf.keras.optimizers.SGD(0.1)
    FIRST_CALLS[first_call](network, next(iter(batches()))[0])

    def replica_step(x, labels):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, network(x))
            loss = tf.reduce_sum(losses) / BATCH
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    @tf.function
    def step(*batch):
        return strategy.reduce("SUM", strategy.run(replica_step, args=batch), axis=None)

    losses = [float(loss) for loss in _run(strategy, step)]
    scales = network.ttq.positive, network.ttq.negative
    assert all(strategy.extended.variable_created_in_scope(scale) for scale in scales)
    return losses + [float(scale.numpy()) for scale in scales]


def _run(strategy, step):
    if not isinstance(strategy, tf.distribute.ParameterServerStrategy):
        return [step(*batch) for batch in strategy.experimental_distribute_dataset(batches())]
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    losses = []
    for batch in batches():
        losses.append(coordinator.schedule(step, args=batch))
        coordinator.join()  # else a step may read what another has not yet written
    return [loss.fetch() for loss in losses]


def mirrored() -> dict[str, list[float]]:
    """The curve for each place of the first call."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    assert strategy.num_replicas_in_sync == 2
    return {first_call: train(strategy, first_call) for first_call in FIRST_CALLS}


def chief() -> dict[str, list[float]]:
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    return {"replica": train(tf.distribute.ParameterServerStrategy(resolver))}


def serve() -> None:
    """What a worker and a parameter server do; for ever."""
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    server = tf.distribute.Server(
        resolver.cluster_spec(), resolver.task_type, resolver.task_id, protocol="grpc"
    )
    server.join()


if __name__ == "__main__":
    role = {"mirrored": mirrored, "chief": chief, "worker": serve, "ps": serve}[sys.argv[1]]
    print(json.dumps(role()), flush=True)
