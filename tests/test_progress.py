"""Progress on a terminal and elsewhere: bars move and disappear, lines stay."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from refconv.progress import ConsoleCompareObserver, ConsoleObserver, ConsoleReporter

EPOCH = {
    "epoch": 1, "train_loss": 0.5, "train_accuracy": 0.25, "test_accuracy": 0.75, "images_per_second": 1000.0,
}  # fmt: skip
TRAINING = {"data": "cifar10:folder", "budget": 3600, "groups": "log:3", "seed": 7, "seconds": 1.5}


def tour(console: Console) -> None:
    reporter = ConsoleReporter(console, 4)
    with reporter.step("Verify", 2) as advance:
        advance(1, "comparing numpy")
        reporter.say("nothing is wrong")


def training(console: Console) -> None:
    with ConsoleObserver(console) as observer:
        observer.begin(1, 20, 10)
        step: Any = SimpleNamespace(images=4, number=2, epoch=1, loss=0.5, accuracy=0.25)
        observer.after(step)
        observer.epoch(EPOCH)


def comparison(console: Console) -> None:
    with ConsoleCompareObserver(console) as observer:
        observer.begin(1, 10)
        observer.after(TRAINING)


@pytest.mark.parametrize(
    ("work", "lines", "bar"),
    [
        (tour, ["[1/4] Verify", "    nothing is wrong", "    (0.0 s)"], ["    comparing numpy", " 1/2 "]),
        (
            training,
            [
                "resuming after step 1 of 20",
                "epoch 1/2  loss 0.5000  accuracy: training 25.00 %, test 75.00 %  1000 images/s",
            ],
            ["epoch 1/2 ", " 2/20  loss 0.500  accuracy 25.0 %  ", "left"],
        ),
        (
            comparison,
            ["resuming after 1 of 10 trainings", " 2/10  cifar10, 3,600 parameters, log:3, seed 7  1.5 s"],
            ["cifar10, 3,600 parameters, log:3, seed 7 ", "━━━━", "left"],
        ),
    ],
)
def test_lines_everywhere_and_a_bar_on_a_terminal(work: Any, lines: list[str], bar: list[str]) -> None:
    printed = {}
    for terminal in (False, True):
        stream = io.StringIO()
        work(Console(file=stream, width=140, force_terminal=terminal, color_system=None))
        printed[terminal] = stream.getvalue()
    assert printed[False].splitlines() == lines
    for text in (*bar, lines[0]):
        assert text in printed[True]
    assert not any(text in printed[False] for text in bar[1:])
