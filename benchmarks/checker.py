"""Seconds that refconv.testing.check_conv takes with its default arguments, forward and backward, on one core.

python benchmarks/checker.py

Each check runs in a process of its own, because the problems of a check are kept for the next one. A right convolution
and a wrong one, which is diagnosed and explained too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from refconv.testing import check_conv
from refconv.testing.mutants import CATALOGUE, Conv

WRONG = "kernel flipped everywhere"
RUNS = 7


def measure(name: str) -> None:
    """Print the cases, the seconds of one check, and those of the checked functions alone."""
    checked = next((mutant.make() for mutant in CATALOGUE if mutant.name == name), Conv())
    inside = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(a: Any, b: Any, c: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> Any:
            nonlocal inside
            start = time.perf_counter()
            result = function(a, b, c, stride, padding, dilation, groups)
            inside += time.perf_counter() - start
            return result

        return called

    start = time.perf_counter()
    report = check_conv(timed(checked.forward), timed(checked.backward))
    whole = time.perf_counter() - start
    assert report.passed == (not name)
    print(json.dumps([report.cases_run, whole, inside]))


def main() -> None:
    """Print the median of several runs: the whole, and what the checked functions themselves took."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for name in ("", WRONG):
        runs = []
        for _ in range(RUNS):
            command = [sys.executable, __file__, name]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        cases, whole, inside = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{name or 'right'}: {cases} problems, {whole:.2f} s, of which the checked functions {inside:.2f} s")


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
