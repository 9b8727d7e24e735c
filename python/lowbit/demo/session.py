# SPDX-License-Identifier: Apache-2.0
"""One run of the demo: train and time every network, then report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import lowbit
from lowbit import reference
from lowbit.demo import data, networks, report
from lowbit.demo.training import Curves, Trainer, step_times


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
        f"network: {networks.ARCHITECTURE}\n"
        "first and last layer float; batch normalisation; 2-bit activations up to 2.0\n"
    )


def _train_all(settings: Settings, images: data.Dataset, console: Console) -> list[report.Result]:
    """Trains every recipe under a progress bar, or with a line each where there is no terminal."""
    progress = Progress(
        TextColumn("{task.description:28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs, left:"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    results = []
    with progress:
        total = len(networks.RECIPES) * settings.seeds * settings.epochs
        task = progress.add_task("", total=total)
        for recipe in networks.RECIPES:
            progress.update(task, description=recipe.name)
            start = time.perf_counter()
            result = _train(recipe, settings, images, lambda: progress.advance(task))
            taken = time.perf_counter() - start
            console.print(f"{recipe.name:24} {result.accuracy:5.1f} %  {taken:5.1f} s")
            results.append(result)
    return results


def _train(
    recipe: networks.Recipe,
    settings: Settings,
    images: data.Dataset,
    after_epoch: Callable[[], None],
) -> report.Result:
    shape = (images.image_shape, images.classes)
    trainer = Trainer(recipe.network(lowbit, *shape))
    curves: list[Curves] = [
        trainer.run(images, seed, settings.epochs, after_epoch) for seed in range(settings.seeds)
    ]
    last = len(networks.CHANNELS) - 1
    latent, quantized = trainer.network.kernels[last].numpy(), trainer.network.weights(last).numpy()
    timed = [trainer]
    if recipe is not networks.FLOAT:
        timed.append(Trainer(recipe.network(reference, *shape)))
    seconds = step_times(timed, images, settings.timed_steps)
    return report.Result(recipe, curves, latent, quantized, *seconds)
