"""Seconds that refconv.testing.check_conv takes for its default 200 problems, forward and backward, on one core.

python benchmarks/checker.py
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from refconv.testing import check_conv
from refconv.testing.mutants import Conv


def main() -> None:
    """Print the median of several runs: the whole, and what the checked functions themselves took."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    inside = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(a: Any, b: Any, c: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> Any:
            nonlocal inside
            start = time.perf_counter()
            result = function(a, b, c, stride, padding, dilation, groups)
            inside += time.perf_counter() - start
            return result

        return called

    plain = Conv()
    forward, backward = timed(plain.forward), timed(plain.backward)
    whole, own = [], []
    for _ in range(7):
        inside, start = 0.0, time.perf_counter()
        check_conv(forward, backward).raise_if_failed()
        whole.append(time.perf_counter() - start)
        own.append(whole[-1] - inside)
    print(f"check_conv, plain NumPy 2-d convolution, 200 problems, one core: {statistics.median(whole):.2f} s")
    print(f"of which the checker's own: {statistics.median(own):.2f} s")


if __name__ == "__main__":
    main()
