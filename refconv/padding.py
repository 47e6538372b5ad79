"""Padding as index algebra: each mode is a list of runs, used in one direction forward and in the other backward.

Along one axis, a padded array reads its input through an index map: padded position p contains input
position i(p), or zero. Every mode's map consists of *runs*. Within a run, i(p) moves by +1 (the interior; a
wrapped border), −1 (a reflected border) or 0 (a replicated border). Borders longer than the input take several. Then

    pad:   P[p] = x[i(p)]                       (zero where no run covers p)
    fold:  dx[i] = Σ { dP[p] : i(p) = i }       the adjoint: swap the two sides and sum

Think of the input as extended to infinity by the mode. Padding selects the window [−before, n + after) of it;
negative padding therefore crops.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from refconv.arrays import Array, DType, Namespace, add_to, device, sum_axis

FEW = 3
"""Runs of one axis, of which all combinations with those of other axes are formed; axes with more take their turns."""


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
    stop = end + after
    found = [Run(before, end, 0, 1)]
    if mode == "replicate" or (mode != "zeros" and n == 1):  # an element alone is all that its mode can show
        found += [Run(0, before, 0, 0), Run(end, stop, n - 1, 0)]
    elif mode == "circular":
        found += [Run(start - n, start, 0, 1) for start in range(before, 0, -n)]
        found += [Run(start, start + n, 0, 1) for start in range(end, stop, n)]
    elif mode == "reflect":  # back and forth between the ends, n − 1 steps each
        length = n - 1
        lefts, rights = itertools.cycle(((n - 1, -1), (0, 1))), itertools.cycle(((n - 2, -1), (1, 1)))
        found += [Run(p - length, p, *next(lefts)) for p in range(before, 0, -length)]
        found += [Run(p, p + length, *next(rights)) for p in range(end, stop, length)]
    return clip(found, 0, stop)


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
    axes, first = list(axes), x.ndim - len(axes)
    for axis, found in enumerate(axes):
        if len(found) > FEW:
            x, axes[axis] = _extended(xp, x, found, first + axis)
    for combination in itertools.product(*axes):
        part = xp.astype(x[(..., *(run.input for run in combination))], padded.dtype, copy=False)
        padded[(..., *(run.padded for run in combination))] = _flip(xp, part, combination, first)


def fold(xp: Namespace, padded: Array, axes: Sequence[Sequence[Run]], size: Sequence[int]) -> Array:
    """Sum (N, C, *padded sizes) onto (N, C, *size): the adjoint of :func:`pad`."""
    if all(len(a) == 1 and a[0].step == 1 and a[0].input == slice(0, s) for a, s in zip(axes, size, strict=True)):
        return padded[(..., *(a[0].padded for a in axes))]
    axes = list(axes)
    for axis, found in enumerate(axes):
        if len(found) > FEW:
            padded, axes[axis] = _folded(xp, padded, found, axis + 2, size[axis])
    x = xp.zeros((*padded.shape[:2], *size), dtype=padded.dtype, device=device(padded))
    for combination in itertools.product(*axes):
        part = padded[(..., *(run.padded for run in combination))]
        replicated = tuple(axis for axis, run in enumerate(combination, start=2) if run.step == 0)
        if replicated:
            part = sum_axis(xp, part, replicated, keepdims=True)
        add_to(xp, x, _flip(xp, part, combination, 2), (..., *(run.input for run in combination)))
    return x


def _extended(xp: Namespace, x: Array, found: Sequence[Run], axis: int) -> tuple[Array, tuple[Run, ...]]:
    """Return x extended along one axis, by all of its runs, and the run that is left of them."""
    ordered, others = sorted(found, key=lambda run: run.start), (slice(None),) * axis
    parts = [_flip(xp, x[(*others, run.input, ...)], (run,), axis) for run in ordered]
    return xp.concat(parts, axis=axis), (Run(ordered[0].start, ordered[-1].stop, 0, 1),)


def _folded(xp: Namespace, padded: Array, found: Sequence[Run], axis: int, n: int) -> tuple[Array, tuple[Run, ...]]:
    """Return the sum of one axis onto n elements, by all of its runs, and the run that is left of them."""
    others = (slice(None),) * axis
    total = xp.zeros((*padded.shape[:axis], n, *padded.shape[axis + 1 :]), dtype=padded.dtype, device=device(padded))
    for run in found:
        part = _flip(xp, padded[(*others, run.padded, ...)], (run,), axis)
        add_to(xp, total, part, (*others, run.input, ...))
    return total, (Run(0, n, 0, 1),)


def _flip(xp: Namespace, array: Array, combination: Sequence[Run], first: int) -> Array:
    """Reverse the axes, from the axis `first` on, on which runs go backwards."""
    reflected = tuple(axis for axis, run in enumerate(combination, start=first) if run.step < 0)
    return xp.flip(array, axis=reflected) if reflected else array
