"""The three passes, fast on NumPy: the textbook's functions, tile by tile, on several threads.

    passes.py     correlate, scatter, outer, gradients: what each task computes
    plan.py       what a call is cut into: tiles
    threads.py    how tasks are spread over threads
    layouts.py    how im2col's columns are ordered in memory
    adjoint.py    scatter as a correlation with the reversed kernel
    choices.py    which method each call uses: costs and thresholds

docs/engine.md introduces them in four steps. In the package, only :mod:`refconv.engine` imports them, and they compute
NumPy arrays only.
"""

from refconv.cpu.passes import correlate, gradients, outer, scatter
from refconv.cpu.threads import Job, run, spread_rows

__all__ = ["Job", "correlate", "gradients", "outer", "run", "scatter", "spread_rows"]
