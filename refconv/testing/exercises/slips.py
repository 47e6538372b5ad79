"""Slips of programming in exercises, which no wrong convolution of the catalogue shows.

Most cause a NumPy exception or a result of another shape, by which they are recognised.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterator

import numpy as np

from refconv.testing.checker.report import CheckReport, Diagnosis, Failure
from refconv.testing.mutants import Conv, ConvTranspose

DIVIDED = Diagnosis(
    "/ for //",
    "A size, or the end of a slice or a range, is a float: / returns one even where nothing is left over.",
    "Divide with //.",
)
EARLY = Diagnosis(
    "a slice ends too early",
    "It has fewer elements than the array that it meets.",
    "A slice excludes its end: let it end one element after the last one that it reads.",
)
LATE = Diagnosis(
    "a slice ends too late",
    "It has more elements than the array that it meets.",
    "Let it end one element after the last one that it reads: start + (count − 1)·step + 1.",
)
JOINED = Diagnosis(
    "groups joined along the wrong axis",
    "The parts of the groups are right, but they are joined along another axis.",
    "Join outputs and gradients of images along axis 1, the channels, and gradients of weight and bias along axis 0.",
)
SLIPS = (DIVIDED, EARLY, LATE, JOINED)


def slips_in(report: CheckReport) -> tuple[Diagnosis, ...]:
    """Return the slips that explain a failure of a report."""
    transposed = bool(report.settings["transposed"])
    found = [slip for failure in report.failures for slip in _slips(failure, transposed)]
    return tuple(slip for slip in SLIPS if slip in found)


def _slips(failure: Failure, transposed: bool) -> Iterator[Diagnosis]:
    if failure.check == "call":
        if re.search(
            r"float\d*' object cannot be interpreted as an integer|slice indices must be int", failure.message
        ):
            yield DIVIDED
        yield from _of_slices(failure, transposed)
    elif failure.check == "shape" and _joined(failure, transposed):
        yield JOINED


def _of_slices(failure: Failure, transposed: bool) -> Iterator[Diagnosis]:
    """Compare the two shapes in a NumPy message: one ends with the sizes of the kernel or of the positions."""
    message, case = failure.message, failure.case
    if "broadcast" not in message:
        return
    shapes = [tuple(map(int, re.findall(r"\d+", text))) for text in re.findall(r"\(([\d, ]+)\)", message)]
    # Two operands are a window and a kernel. Otherwise something is assigned, or added in place, at the positions.
    sizes = [case.weight_shape[2:], (case.x if transposed else case.grad_output).shape[2:]]
    d = len(case.stride)
    for right in sizes if "operands" in message and len(shapes) == 2 else reversed(sizes):
        for one, other in itertools.permutations(shapes, 2):
            end = other[-d:]
            if one[-d:] == right != end and len(one) == len(other) and one[:-d] == other[:-d]:
                if all(map(operator.le, end, right)):
                    yield EARLY
                elif all(map(operator.ge, end, right)):
                    yield LATE
                return


def _joined(failure: Failure, transposed: bool) -> bool:
    """Return whether the result's groups, joined along the right axis, are the right result."""
    case, actual = failure.case, failure.actual
    if actual is None or case.groups == 1 or actual.ndim == 0:
        return False
    model = ConvTranspose() if transposed else Conv()
    if failure.part == "y":
        right = model.forward(case.x, case.weight, case.bias, *case.integers, **case.options)
    else:
        grads = model.backward(case.grad_output, case.x, case.weight, *case.integers, **case.options)
        right = grads[("grad_x", "grad_weight", "grad_bias").index(failure.part)]
    axis = 1 if failure.part in ("y", "grad_x") else 0
    for other in range(actual.ndim):
        if other != axis and axis < actual.ndim and actual.shape[other] % case.groups == 0:
            parts = np.split(actual, case.groups, axis=other)
            if np.array_equal(np.concatenate(parts, axis=axis), right):
                return True
    return False
