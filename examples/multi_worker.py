# SPDX-License-Identifier: Apache-2.0
"""Data-parallel training by several processes, on one machine or on many.

    pip install scikit-learn
    python multi_worker.py                 # starts two workers on this machine

On several machines start it once on each, with the cluster and its own place there in TF_CONFIG:

    export TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
                       "task": {"type": "worker", "index": 0}}'
    python multi_worker.py

Every worker computes the gradients of its share of a batch, and all apply the same sum. So the
losses are those of a single process, but for the order of additions: see --workers 1.
"""

import argparse
import json
import os
import socket
import subprocess
import sys

BATCH = 96  # of all workers together


def main():
    """Is a worker where TF_CONFIG says so, else starts some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="processes to start (default: 2)")
    parser.add_argument("--epochs", type=int, default=10, help="default: 10")
    arguments = parser.parse_args()
    if "TF_CONFIG" in os.environ:
        train(arguments.epochs)
    else:
        sys.exit(start_workers(arguments.workers))


def start_workers(count):
    """Runs this program `count` times; the status is 0 if all succeed. What a scheduler does."""
    cluster = {"worker": free_addresses(count)}
    workers = []
    for index in range(count):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
        workers.append(subprocess.Popen([sys.executable, *sys.argv], env=environment))
    return max(abs(worker.wait()) for worker in workers)


def free_addresses(count):
    """Addresses on this machine whose ports nothing else uses."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return addresses


def train(epochs):
    """What each worker does; the first one reports."""
    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_digits

    import lowbit

    # First: it connects the workers. All wait here until every one has come.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    random = np.random.default_rng(0)  # the same start everywhere
    images, labels = load_digits(return_X_y=True)
    data = images.astype(np.float32) / 16, labels.astype(np.int32)

    # Variables, quantizers and the optimizer belong to the strategy, so they are made in its scope:
    # TTQ's two scales are variables as well.
    with strategy.scope():
        kernels = [
            tf.Variable(random.normal(scale=n**-0.5, size=(n, m)).astype(np.float32))
            for n, m in [(64, 64), (64, 64), (64, 10)]
        ]
        activation = lowbit.linear_mid_tread_half_quantizer(bit=2, max_value=2.0)
        ternary = lowbit.ttq_weight_quantizer(initial="mean")
        binary = lowbit.binary_channel_wise_mean_scaling_quantizer()
        optimizer = tf.keras.optimizers.SGD(0.1)

    def network(x):
        x = activation(x @ kernels[0])
        x = activation(x @ ternary(kernels[1]))
        return x @ binary(kernels[2])

    def replica_step(x, y):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, network(x))
            loss = tf.reduce_sum(losses) / BATCH  # this replica's part of the mean
        variables = [*kernels, *ternary.trainable_variables]
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    @tf.function
    def step(x, y):
        return strategy.reduce("SUM", strategy.run(replica_step, args=(x, y)), axis=None)

    # Each worker gets its share of every batch.
    batches = tf.data.Dataset.from_tensor_slices(data).shuffle(len(data[0]), seed=0)
    batches = strategy.experimental_distribute_dataset(batches.batch(BATCH, drop_remainder=True))
    first = strategy.cluster_resolver.task_id == 0
    for epoch in range(epochs):
        loss = np.mean([step(x, y) for x, y in batches])
        if first:
            print(f"epoch {epoch + 1}: loss {loss:.6f}", flush=True)
    if first:
        count = strategy.num_replicas_in_sync
        print(f"trained on {count} replica{'s' if count > 1 else ''}", flush=True)


if __name__ == "__main__":
    main()
