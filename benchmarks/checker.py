"""Time refconv.testing.check_conv with its default arguments, forward and backward, on one core.

python benchmarks/checker.py

A right convolution is checked, and a wrong one, which is also diagnosed and explained. Each check runs in a separate
process, because the problems of a check are kept for the next one.
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
    """Print the number of cases, the seconds of one check, and the seconds in the checked functions alone."""
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
    """Print the medians of several runs: of the whole check, and of the checked functions alone."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for name in ("", WRONG):
        runs = []
        for _ in range(RUNS):
            command = [sys.executable, __file__, name]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        cases, whole, inside = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{name or 'right'}: {cases} problems, {whole:.2f} s, {inside:.2f} s of it in the checked functions")


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
