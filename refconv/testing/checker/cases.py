"""A problem with its arrays: whole numbers, real numbers, or one number that is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Operands, Problem
from refconv.testing.oracles.trilinear import exact_results


@dataclass(frozen=True, eq=False)
class Case:
    """One problem with the arrays that a checked function receives.

    Attributes
    ----------
    x, weight, bias, grad_output : numpy.ndarray
        The operands; bias may be None.
    stride, padding, dilation : tuple
        One int per spatial axis; padding contains (before, after) pairs if "asymmetric_padding" is claimed, and is
        the word "causal" in some problems if "causal" is claimed.
    groups : int
        Number of groups.
    output_padding : tuple of int or None
        For a transposed convolution that claims it.
    kind : str
        Purpose of the case: "integers", "real", "not finite", "large", "layout", "empty" or "repeat".
    output_dtype : str or None
        Data type of the output, if it differs from the operands' data type.
    """

    problem: Problem
    x: Array
    weight: Array
    bias: Array | None
    grad_output: Array
    stride: tuple[int, ...]
    padding: tuple[Any, ...] | str
    dilation: tuple[int, ...]
    groups: int
    output_padding: tuple[int, ...] | None
    kind: str
    output_dtype: str | None = None

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of x."""
        return tuple(self.x.shape)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return tuple(self.weight.shape)

    @property
    def operands(self) -> Operands:
        """The four arrays."""
        return Operands(self.x, self.weight, self.bias, self.grad_output)

    @property
    def integers(self) -> tuple[Any, ...]:
        """(stride, padding, dilation, groups)."""
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of a call."""
        return {} if self.output_padding is None else {"output_padding": self.output_padding}

    def dtype_of(self, part: str) -> np.dtype[Any]:
        """Return the data type that a result must have: for gradients always the operands' data type."""
        own: np.dtype[Any] = self.x.dtype
        return own if self.output_dtype is None or part != "y" else np.dtype(self.output_dtype)

    @property
    def size(self) -> tuple[int, ...]:
        """Sort key of cases: see ``size_of``."""
        return size_of(self.problem)

    def __str__(self) -> str:
        extra = "" if self.output_padding is None else f" output_padding={self.output_padding}"
        bias = "" if self.bias is None else f" bias{self.bias.shape}"
        return (
            f"x{self.x_shape} weight{self.weight_shape}{bias} stride={self.stride} padding={self.padding} "
            f"dilation={self.dilation} groups={self.groups}{extra}"
        )


def size_of(problem: Problem) -> tuple[int, ...]:
    """Return the sort key of cases: elements of x, then of the weight, then of the output, then the steps."""
    shapes = problem.x_shape, problem.weight_shape, problem.output_shape
    # An empty batch counts as one sample; otherwise the emptiest problem would count as the simplest.
    counts = (math.prod(max(n, 1) for n in shape) for shape in shapes)
    return (*counts, sum(problem.stride) + sum(problem.dilation))


# --- Arrays ----------------------------------------------------------------------------------------------------------


def whole_numbers(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, most: int = 4, positive: bool = False
) -> Array:
    """Return small whole numbers without 0, neighbours mostly different, so that a mistake changes the result.

    >>> whole_numbers(np.random.default_rng(0), (6,), "float32")
    array([-1.,  2.,  1.,  4.,  3., -3.], dtype=float32)
    """
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    # One more positive number than negative ones; otherwise every whole round would have the sum 0.
    pool = np.array([v for v in range(-most + (most > 1), most + 1) if v])
    if positive or dtype.kind == "u":
        pool = np.arange(1, (most if positive else 2 * most) + 1)

    def draw() -> Array:
        rounds = np.tile(pool, (-(-count // len(pool)), 1))
        return rng.permuted(rounds, axis=1).reshape(-1)[:count].reshape(shape)

    values = draw().astype(dtype)
    if dtype.kind == "c":
        values.imag = draw()
    return values


def terms(problem: Problem) -> int:
    """Return the number of terms in the longest sum of a problem's results."""
    windows = math.prod(problem.size if problem.transposed else problem.output_size)
    taps, groups = math.prod(problem.kernel), problem.n_groups
    return max(1, (problem.batch or 1) * windows, max(problem.c_in, problem.c_out) // groups * taps)


def largest(problem: Problem, dtype: Any) -> int:
    """Return the largest whole number for operands, so that every result of a problem is exact in a data type."""
    if np.dtype(dtype) != np.float16:
        return 4
    return (
        4 if terms(problem) <= 100 else 2 if terms(problem) <= 400 else 1
    )  # float16 has all whole numbers up to 2,048


def real_numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, positive: bool) -> Array:
    """Return normally distributed numbers, or numbers from 1 to 2."""

    def draw() -> Array:
        return 1 + rng.random(shape) if positive else rng.standard_normal(shape)

    values = draw().astype(dtype)
    if values.dtype.kind == "c":
        values.imag = draw()
    return values


def passed_padding(problem: Problem, supports: Sequence[str]) -> tuple[Any, ...] | str:
    """Return the padding in the form that a function with this support receives: a word, pairs or numbers.

    >>> problem = Problem(1, 1, 1, (3,), (2,), (1,), (1,), ((1, 1),))
    >>> passed_padding(problem, ("padding",)), passed_padding(problem, ("asymmetric_padding",))
    ((1,), ((1, 1),))
    """
    if isinstance(problem.padding, str):
        return problem.padding
    return problem.pairs if "asymmetric_padding" in supports else tuple(before for before, _ in problem.pairs)


def make_case(
    problem: Problem,
    kind: str,
    rng: np.random.Generator,
    dtype: Any,
    supports: Sequence[str],
    output_dtype: str | None = None,
) -> Case:
    """Fill a problem with arrays."""
    most, step = largest(problem, dtype), 1
    if output_dtype is not None and np.dtype(dtype).kind in "iu":
        # Products then exceed the operands' type. Gradients wrap around there, but an odd factor loses no information.
        step = 2 * math.isqrt(np.iinfo(dtype).max) + 1

    def draw(shape: tuple[int, ...]) -> Array:
        if kind in ("real", "long sum"):
            return real_numbers(rng, shape, dtype, positive=kind == "long sum")
        if kind == "large" and np.dtype(dtype).itemsize < 4:  # the whole range, often its ends; long sums exceed 2^24
            ends = np.iinfo(dtype)
            low = ends.min if terms(problem) < 1000 else 3 * (ends.max // 4)
            values = rng.integers(low, ends.max, shape, dtype, endpoint=True)
            return np.where(rng.random(shape) < 0.5, values, rng.choice(np.array([low, ends.max], dtype), shape))
        if kind == "large":  # odd numbers whose products are not exact in floating point of the same size
            half = math.isqrt(np.iinfo(dtype).max // (terms(problem) + 1)) // 2
            return (2 * rng.integers(half // 2, half, shape) + 1).astype(dtype)
        return whole_numbers(rng, shape, dtype, most) * np.dtype(dtype).type(step)

    x = draw(problem.x_shape)
    if kind == "not finite":
        # One element only, so that no ∞ meets another, and one that is read. The number of windows selects its value.
        ones = Operands(np.ones(problem.x_shape), np.ones(problem.weight_shape), None, np.ones(problem.output_shape))
        read = np.flatnonzero(exact_results(problem, ones, ("grad_x",)).grad_x)
        windows = (problem.size if problem.transposed else problem.output_size)[-1]
        x.reshape(-1)[rng.choice(read)] = (np.nan, np.inf, -np.inf)[windows % 3]
    return Case(
        problem=problem,
        x=x,
        weight=draw(problem.weight_shape),
        bias=draw((problem.c_out,)) if problem.bias else None,
        grad_output=draw(problem.output_shape),
        stride=problem.stride,
        padding=passed_padding(problem, supports),
        dilation=problem.dilation,
        groups=problem.n_groups,
        output_padding=problem.output_padding if "output_padding" in supports else None,
        kind="real" if kind == "long sum" else kind,
        output_dtype=output_dtype,
    )
