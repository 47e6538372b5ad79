"""Helpers for the tests of the CPU engine."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import pytest

from refconv import set_workers, set_workspace
from refconv.cpu import threads
from refconv.cpu.layouts import ChannelsLast, Rows, Taps, TapsOfBatch
from refconv.shapes import Convolution, describe
from tests.helpers import cut_into

LAYOUTS = (Taps, TapsOfBatch, Rows, ChannelsLast)


@pytest.fixture(autouse=True, scope="module")
def fast_engine() -> Iterator[None]:
    """Test the CPU engine regardless of the environment, also in threads and processes that the tests start."""
    with mock.patch.dict(os.environ, REFCONV_ENGINE="fast"):
        yield


def described(x_shape: tuple[int, ...], weight_shapes: Any, **options: Any) -> Convolution:
    """Return the description of a convolution of these shapes."""
    usual: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "channels_last": False}
    return describe(x_shape, weight_shapes, **usual | options)


def distinct_results(call: Callable[[], Iterable[Any]]) -> int:
    """Count the different results, bit by bit, of a call in small tiles with various workers and workspaces."""
    found = set()
    for workers, workspace in itertools.product((1, 2, 3), (1, 1 << 16, 1 << 26)):
        with cut_into(1 << 14), set_workers(workers), set_workspace(workspace):
            found.add(b"".join(array.tobytes() for array in call()))
    return len(found)


def blas_threads() -> list[int]:
    """Return the threads of NumPy's BLAS; SciPy may load another later."""
    return [library.num_threads for library in threads._blas_libraries()]


def wait_until(condition: Callable[[], object], seconds: float = 5) -> None:
    """Wait until a condition is true, or until the time is over."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
