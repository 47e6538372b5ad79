"""Padding as index algebra: each mode is a list of runs, used in one direction forward and in the other backward.

Along one axis, a padded array reads its input through an index map: padded position p contains input
position i(p), or zero. Every mode's map consists of a few *runs*. Within a run, i(p) moves by +1 (the interior; a
wrapped border), −1 (a reflected border) or 0 (a replicated border). Then

    pad:   P[p] = x[i(p)]                       (zero where no run covers p)
    fold:  dx[i] = Σ { dP[p] : i(p) = i }       the adjoint: swap the two sides and sum

Think of the input as extended to infinity by the mode. Padding selects the window [−before, n + after) of it;
negative padding therefore crops. Runs describe at most one reflection or wrap on each side. Axes that need more are
*long*: an index array extends them before a pass (:func:`extend`), which then pads nothing there, and their gradients
are folded after it (:func:`reduce`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from refconv.arrays import Array, DType, Namespace, add_to, device, index_dtype, sum_axis


@dataclass(frozen=True, slots=True)
class Run:
    """Padded positions start … stop−1 read input positions source, source + step, …."""

    start: int
    stop: int
    source: int
    step: int

    def clip(self, start: int, stop: int) -> Run:
        """Return the part of the run within padded positions start … stop−1 (it may be empty)."""
        first = max(self.start, start)
        last = max(first, min(self.stop, stop))
        return Run(first, last, self.source + self.step * (first - self.start), self.step)

    def shift(self, origin: int, source_origin: int) -> Run:
        """Return the run with padded positions counted from `origin`, and input positions from `source_origin`."""
        return Run(self.start - origin, self.stop - origin, self.source - source_origin, self.step)

    @property
    def padded(self) -> slice:
        """The run as a slice of the padded axis."""
        return slice(self.start, self.stop)

    @property
    def input(self) -> slice:
        """The run as an ascending slice of the input axis (of one element if the step is 0)."""
        length = self.stop - self.start if self.step else 1
        first = self.source - length + 1 if self.step < 0 else self.source
        return slice(first, first + length)


@functools.lru_cache(maxsize=1024)
def runs(n: int, before: int, after: int, mode: str) -> tuple[Run, ...]:
    """Return the runs of one axis of n input positions.

    >>> runs(4, 2, 1, "reflect")
    (Run(start=2, stop=6, source=0, step=1), Run(start=0, stop=2, source=2, step=-1), \
Run(start=6, stop=7, source=2, step=-1))
    """
    end = before + n  # padded position just after the last input element
    if n == 1 and mode != "zeros":  # every mode then repeats the only element
        mode = "replicate"
    found = [Run(before, end, 0, 1)]
    if mode == "reflect":
        found += [Run(0, before, before, -1), Run(end, end + after, n - 2, -1)]
    elif mode == "replicate":
        found += [Run(0, before, 0, 0), Run(end, end + after, n - 1, 0)]
    elif mode == "circular":
        found += [Run(0, before, n - before, 1), Run(end, end + after, 0, 1)]
    return clip(found, 0, end + after)


def clip(found: Sequence[Run], start: int, stop: int) -> tuple[Run, ...]:
    """Return the non-empty parts of runs within padded positions start … stop−1."""
    clipped = (run.clip(start, stop) for run in found)
    return tuple(run for run in clipped if run.start < run.stop)


def pad(xp: Namespace, x: Array, axes: Sequence[Sequence[Run]], size: Sequence[int], dtype: DType) -> Array:
    """Pad (N, C, D1, …, Dd) to (N, C, *size) in `dtype`; a view of `x` where no copy is needed."""
    if all(len(a) == 1 and a[0].step == 1 and a[0].padded == slice(0, s) for a, s in zip(axes, size, strict=True)):
        return xp.astype(x[(..., *[a[0].input for a in axes])], dtype, copy=False)
    padded = xp.zeros((*x.shape[:2], *size), dtype=dtype, device=device(x))
    fill(xp, padded, x, axes)
    return padded


def fill(xp: Namespace, padded: Array, x: Array, axes: Sequence[Sequence[Run]]) -> None:
    """Write the elements of padded (…, *size) that come from x (…, D1, …, Dd)."""
    for combination in itertools.product(*axes):
        part = xp.astype(x[(..., *(run.input for run in combination))], padded.dtype, copy=False)
        padded[(..., *(run.padded for run in combination))] = _flip(xp, part, combination)


def fold(xp: Namespace, padded: Array, axes: Sequence[Sequence[Run]], size: Sequence[int]) -> Array:
    """Sum (N, C, *padded sizes) onto (N, C, *size): the adjoint of :func:`pad`."""
    if all(len(a) == 1 and a[0].step == 1 and a[0].input == slice(0, s) for a, s in zip(axes, size, strict=True)):
        return padded[(..., *(a[0].padded for a in axes))]
    x = xp.zeros((*padded.shape[:2], *size), dtype=padded.dtype, device=device(padded))
    for combination in itertools.product(*axes):
        part = padded[(..., *(run.padded for run in combination))]
        replicated = tuple(axis for axis, run in enumerate(combination, start=2) if run.step == 0)
        if replicated:
            part = sum_axis(xp, part, replicated, keepdims=True)
        add_to(xp, x, _flip(xp, part, combination), (..., *(run.input for run in combination)))
    return x


def _flip(xp: Namespace, array: Array, combination: Sequence[Run]) -> Array:
    reflected = tuple(axis for axis, run in enumerate(combination, start=array.ndim - len(combination)) if run.step < 0)
    return xp.flip(array, axis=reflected) if reflected else array


# --- More than one reflection or wrap ---


def extend(xp: Namespace, x: Array, axis: int, pad: tuple[int, int], mode: str) -> Array:
    """Return the window [−before, n + after) of an axis that its mode, "reflect" or "circular", extends."""
    n = x.shape[axis]
    period = _period(n, mode)
    shown = xp.remainder(xp.arange(-pad[0], n + pad[1], dtype=index_dtype(xp), device=device(x)), period)
    return xp.take(x, xp.where(shown < n, shown, period - shown), axis=axis)


def reduce(xp: Namespace, extended: Array, axis: int, n: int, pad: tuple[int, int], mode: str) -> Array:
    """Sum an extended axis onto its n elements: the adjoint of :func:`extend`."""
    period, shape = _period(n, mode), extended.shape
    first = -pad[0] % period  # the position in a period at which the axis begins
    periods = -(-(first + shape[axis]) // period)
    whole = xp.zeros(
        (*shape[:axis], periods * period, *shape[axis + 1 :]), dtype=extended.dtype, device=device(extended)
    )
    whole[(*(slice(None),) * axis, slice(first, first + shape[axis]), ...)] = extended
    x = sum_axis(xp, xp.reshape(whole, (*shape[:axis], periods, period, *shape[axis + 1 :])), (axis,))
    others = (slice(None),) * axis
    if period > n:  # elements 1 … n−2 occur once more, in reverse
        add_to(xp, x, xp.flip(x[(*others, slice(n, period), ...)], axis=axis), (*others, slice(1, n - 1), ...))
    return x[(*others, slice(0, n), ...)]


def _period(n: int, mode: str) -> int:
    return 2 * (n - 1) if mode == "reflect" else n
