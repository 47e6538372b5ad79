"""Repeated measurements of one call, by the wall clock or another."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[], Any]
Clock = Callable[[Call], float]
"""A function that calls its argument and returns the seconds that it took."""

LEAST, MOST = 5, 2000
"""Minimum and maximum number of repetitions of a measurement."""


def wall_seconds(call: Call) -> float:
    """Return the wall time of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def repeated(call: Call, seconds: float, clock: Clock = wall_seconds) -> list[float]:
    """Return the times of a call, repeated for about `seconds` after two calls to warm up."""
    call()
    call()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < LEAST or (time.perf_counter() < until and len(times) < MOST):
        times.append(clock(call))
    return times


def median_seconds(call: Call, seconds: float, clock: Clock = wall_seconds) -> float:
    """Return the median of the times of a call; see :func:`repeated`."""
    return statistics.median(repeated(call, seconds, clock))
