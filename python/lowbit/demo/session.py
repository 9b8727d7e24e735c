# SPDX-License-Identifier: Apache-2.0
"""One run of the demo: train and time every network, then report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import lowbit
from lowbit import stock
from lowbit.demo import data, networks, report
from lowbit.demo.training import Trainer, step_times


@dataclass(frozen=True)
class Settings:
    """What the options of the command line come to."""

    dataset: str
    epochs: int
    seeds: int
    timed_steps: int
    output: Path


def run(settings: Settings) -> None:
    """Trains, times, prints the table and writes the figure.

    Raises:
        OSError: the images could not be downloaded, or the figure not written.
    """
    start = time.perf_counter()
    console = Console(highlight=False)
    images = data.load(settings.dataset)
    console.print(_heading(settings, images))
    results = _train_all(settings, images, console)
    console.print(report.table(results))
    console.print(report.verdict(results))
    title = f"lowbit demo: {settings.dataset}, {settings.seeds} x {settings.epochs} epochs"
    report.figure(results, title, settings.output)
    taken = time.perf_counter() - start
    console.print(f"Figure: {settings.output.resolve()}  ({taken:.0f} s in all)", soft_wrap=True)


def _heading(settings: Settings, images: data.Dataset) -> str:
    return (
        f"{settings.dataset}: {len(images.train_images)} images to train on, "
        f"{len(images.test_images)} to test, {settings.seeds} x {settings.epochs} epochs\n"
        f"network: 3x3 convolutions to {', '.join(map(str, networks.CHANNELS))} channels, mean, "
        "dense\n"
        "quantized: weights of all layers but the first and the last; all activations\n"
    )


def _train_all(settings: Settings, images: data.Dataset, console: Console) -> list[report.Result]:
    """Trains and times every scheme, under a progress bar where there is a terminal."""

    def made(scheme: networks.Scheme, factories: ModuleType) -> Trainer:
        network = scheme.network(factories, images.image_shape, images.classes)
        return Trainer(network, images, settings.epochs)

    results, pairs = [], []
    with _progress(console) as progress, _without_warnings():
        total = len(networks.SCHEMES) * settings.seeds * settings.epochs
        task = progress.add_task("", total=total, unit="epochs")
        for scheme in networks.SCHEMES:
            progress.update(task, description=scheme.name)
            trainer = made(scheme, lowbit)
            result = _train(scheme, trainer, settings.seeds, lambda: progress.advance(task))
            console.print(f"{scheme.name:24} {result.accuracy:5.1f} %")
            results.append(result)
            pairs.append([trainer] if scheme is networks.FLOAT else [trainer, made(scheme, stock)])
        steps = settings.timed_steps
        progress.reset(task, total=steps, description="step times", unit="steps")
        times = step_times(pairs, images, steps, lambda: progress.advance(task))
    for result, seconds in zip(results, times, strict=True):
        result.step_seconds = seconds
    return results


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """TensorFlow warns of a function that is traced often: here once for each of many networks."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}, left:"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _train(
    scheme: networks.Scheme, trainer: Trainer, seeds: int, after_epoch: Callable[[], None]
) -> report.Result:
    curves = [trainer.run(seed, after_epoch) for seed in range(seeds)]
    last = trainer.network.convolutions[-1]
    latent = last.kernel.numpy()
    quantized = last.quantized().get("kernel", latent)
    return report.Result(scheme, curves, latent, np.asarray(quantized))
