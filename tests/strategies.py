"""Hypothesis strategies: valid convolution problems drawn jointly, and problems with their arrays.

They shrink towards one sample, one channel, one element, a kernel of one tap, stride 1, dilation 1, no padding and
one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from refconv.testing.problems import Operands, Problem, draw_problem, integer_arrays, normal_arrays


class Case(NamedTuple):
    """A problem with NumPy arrays of one data type."""

    problem: Problem
    operands: Operands


@st.composite
def problems(draw: st.DrawFn, **choices: Any) -> Problem:
    """Return valid problems; `choices` are those of :func:`refconv.testing.problems.draw_problem`."""
    return draw_problem(lambda low, high: draw(st.integers(low, high)), **choices)


@st.composite
def cases(draw: st.DrawFn, dtypes: Sequence[str] = ("float32",), values: str = "integers", **choices: Any) -> Case:
    """Return problems with whole numbers ("integers") or normally distributed ones ("normal")."""
    problem = draw(problems(**choices))
    dtype = draw(st.sampled_from(list(dtypes)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    arrays = integer_arrays if values == "integers" else normal_arrays
    return Case(problem, arrays(problem, rng, dtype))
