"""The trainings of a comparison, in this process or several: from a task to a line of the results."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import refconv
from refconv.experiments.widths import Network
from refconv.nn import Recipe, Split, Trainer, accuracy, residual_network
from refconv.nn.data import load_dataset
from refconv.nn.training import to_model
from refconv.settings import engine


class CompareError(Exception):
    """A comparison cannot start or resume; the message says what to do."""


@dataclass(frozen=True)
class CompareSettings:
    """Settings of a comparison.

    Attributes
    ----------
    data : sequence of str
        Data sets: see :func:`refconv.nn.data.load_dataset`.
    groups : sequence of str
        Groupings: see :func:`refconv.cost.parse_groups`; the others are compared with the first.
    budgets : sequence of int
        Numbers of parameters, met by choosing the number of channels.
    seeds : int
        Number of seeds; they count from 0.
    blocks : int
        Residual modules per stage.
    backend : str
        Array module.
    recipe : Recipe
        Settings for training every network.
    """

    data: Sequence[str]
    groups: Sequence[str]
    budgets: Sequence[int]
    seeds: int
    blocks: int
    backend: str = "numpy"
    recipe: Recipe = field(default_factory=Recipe)


Task = tuple[CompareSettings, Network, int]
"""The settings of the comparison, one of its networks, and one seed."""


def image_shape(data: Split) -> dict[str, Any]:
    """Return channels, classes and side of a data set's images, as arguments of a network."""
    return {"c_in": data.train_images.shape[1], "classes": len(data.classes), "side": data.train_images.shape[2]}


def trainer_of(task: Task, data: Split) -> Trainer:
    """Return the trainer of one network, at its first step."""
    settings, network, seed = task
    rng, order = np.random.default_rng(seed).spawn(2)  # so that every grouping sees the images in the same order
    model = residual_network(
        network.groups,
        channels=network.channels,
        blocks=settings.blocks,
        **image_shape(data),
        rng=rng,
        xp=refconv.load_backend(settings.backend),
    )
    return settings.recipe.trainer(model, data.train_images, data.train_labels, rng=order)


def train_one(task: Task, data: Split, stopping: Callable[[], bool]) -> dict[str, Any] | None:
    """Train and test one network; return a line of the results, or None if it was stopped."""
    from threadpoolctl import threadpool_limits

    started, (_, network, seed) = time.perf_counter(), task
    # Layers this small take less time to compute than to distribute to threads.
    with refconv.set_workers(1), threadpool_limits(1):
        trainer = trainer_of(task, data)
        for step in trainer:
            if not math.isfinite(step.loss):
                raise CompareError(
                    f"the loss is {step.loss} at step {step.number} of {network.groups}, {network.budget:,} "
                    f"parameters, seed {seed}: the training diverged; start again with a smaller --lr and another --out"
                )
            if stopping():
                return None
        share = accuracy(trainer.model, *to_model(trainer.model, data.test_images, data.test_labels))
    return {
        "data": network.data,
        "budget": network.budget,
        "groups": network.groups,
        "seed": seed,
        "right": round(share * len(data.test_labels)),
        "seconds": round(time.perf_counter() - started, 3),
    }


def result_rows(
    tasks: list[Task], sets: Mapping[str, Split], jobs: int, stopping: Callable[[], bool]
) -> Generator[dict[str, Any]]:
    """Yield a line of the results for each training, in the order they end; stop early if `stopping` is true."""
    if jobs > 1 and len(tasks) > 1:
        yield from _rows_of_processes(tasks, list(sets), min(jobs, len(tasks)), stopping)
        return
    for task in tasks:
        row = None if stopping() else train_one(task, sets[task[1].data], stopping)
        if row is None:
            return
        yield row


def _rows_of_processes(
    tasks: list[Task], names: list[str], jobs: int, stopping: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
    stop = context.Event()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_process, initargs=(stop, engine(), names))
    try:
        with _without_interruption():
            waiting = {pool.submit(_train_in_process, task) for task in tasks}
        while waiting and not stopping():
            finished, waiting = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED)
            for future in finished:
                row = future.result()
                assert row is not None  # it was not asked to stop
                yield row
    except BrokenProcessPool as error:
        if not stopping():
            raise CompareError(
                "a training process died (was it killed, or out of memory?): --resume continues; use fewer --jobs "
                "if memory was short"
            ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _without_interruption() -> Iterator[None]:
    """Start processes in this block that ignore Ctrl-C on the terminal; this process receives it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_process: dict[str, Any] = {}
"""In a training process: its data sets, and whether to stop."""


def _begin_process(stop: Any, engine_name: str, names: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on systems where it could not be blocked
    warnings.simplefilter("ignore", RuntimeWarning)  # overflow in a diverging training, which raises an error anyway
    os.environ["REFCONV_ENGINE"] = engine_name
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    _process.update(sets={name: load_dataset(name) for name in names}, stopping=stop.is_set)


def _train_in_process(task: Task) -> dict[str, Any] | None:
    return train_one(task, _process["sets"][task[1].data], _process["stopping"])
