"""Hypothesis strategies: valid convolution problems, drawn jointly, with or without their arrays.

Errors in convolutions need a combination: grouped *and* strided, strided *and* asymmetrically padded. So groups,
stride, dilation, padding, output padding, sizes and layout are drawn together. Everything shrinks towards one sample,
one channel, one element, a kernel of one tap, stride 1, dilation 1, no padding and one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from refconv.integers import as_bool, as_int, is_sequence, shown
from refconv.testing.oracles.bounds import FLOATS
from refconv.testing.oracles.definition import Array, Weight
from refconv.testing.oracles.problems import (
    GROUPINGS,
    PADDING_FORMS,
    PADDING_MODES,
    Operands,
    Problem,
    draw_problem,
    integer_arrays,
    normal_arrays,
)

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("refconv.testing.strategies needs Hypothesis: pip install hypothesis") from error

DTYPES = (*FLOATS, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


class ConvProblem(NamedTuple):
    """A valid convolution with NumPy arrays of one data type.

    Attributes
    ----------
    problem : refconv.testing.oracles.problems.Problem
        Sizes and options: ``problem.stride``, ``problem.output_shape``, …
    operands : refconv.testing.oracles.problems.Operands
        The arrays x, weight, bias (or None) and grad_output.
    """

    problem: Problem
    operands: Operands

    @property
    def x(self) -> Array:
        """Input, in the problem's layout."""
        return self.operands.x

    @property
    def weight(self) -> Weight:
        """One array, or one array per group if the groups are a `ChannelGroups`."""
        return self.operands.weight

    @property
    def bias(self) -> Array | None:
        """One number per output channel, or None."""
        return self.operands.bias

    @property
    def grad_output(self) -> Array:
        """Gradient of the output."""
        return self.operands.grad_output

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for :func:`refconv.conv`, or :func:`refconv.conv_transpose` if transposed."""
        return self.problem.options()


def problems(
    *,
    spatial_dims: int | Sequence[int] = (1, 2, 3),
    transposed: bool = False,
    groupings: Sequence[str] = GROUPINGS,
    padding_forms: Sequence[str] = PADDING_FORMS,
    padding_modes: Sequence[str] = PADDING_MODES,
    layouts: bool = True,
    crops: bool = True,
    empty: bool = False,
) -> st.SearchStrategy[Problem]:
    """Return a strategy for valid convolution problems without arrays; arguments as for :func:`conv_problems`.

    Examples
    --------
    >>> import refconv
    >>> from hypothesis import given
    >>> from refconv.testing.strategies import problems
    >>> @given(problems(spatial_dims=2, groupings=("one", "uniform"), padding_forms=("pairs",), layouts=False))
    ... def test_output_shape(p):
    ...     assert refconv.conv_output_shape(p.x_shape, p.weight_shape, **p.options()) == p.output_shape
    >>> test_output_shape()
    """
    choices: dict[str, Any] = {
        "spatial_dims": _axes(spatial_dims),
        "transposed": as_bool(transposed, "transposed"),
        "groupings": _words(groupings, "groupings", GROUPINGS),
        "padding_forms": _words(padding_forms, "padding_forms", PADDING_FORMS),
        "padding_modes": _words(padding_modes, "padding_modes", PADDING_MODES),
        "layouts": as_bool(layouts, "layouts"),
        "crops": as_bool(crops, "crops"),
    }
    if choices["padding_forms"] == ("causal",) and (transposed or set(choices["spatial_dims"]) != {1}):
        raise ValueError("padding_forms=('causal',) needs spatial_dims=1 and transposed=False")
    return _problems(choices, as_bool(empty, "empty"))


def conv_problems(
    *,
    spatial_dims: int | Sequence[int] = (1, 2, 3),
    transposed: bool = False,
    groupings: Sequence[str] = GROUPINGS,
    padding_forms: Sequence[str] = PADDING_FORMS,
    padding_modes: Sequence[str] = PADDING_MODES,
    layouts: bool = True,
    crops: bool = True,
    empty: bool = False,
    dtypes: str | Sequence[str] = ("float32",),
    values: str = "integers",
) -> st.SearchStrategy[ConvProblem]:
    """Return a strategy for valid convolution problems with their arrays.

    It shrinks towards the first of each choice, and towards one sample, one channel, one element, a kernel of one
    tap, stride 1, dilation 1, no padding, one group, channels first and no bias. Values do not shrink.

    Parameters
    ----------
    spatial_dims : int or sequence of int
        Number of spatial axes, or numbers to choose from.
    transposed : bool
        Whether the convolutions are transposed. They pad with zeros only, never "causal", and have an output padding
        or an output size.
    groupings : sequence of str
        Kinds of groups: "one"; "uniform", equal blocks; "depthwise"; "unequal", blocks of different sizes; "lists", any
        lists of channels, shared and unread ones included. The last two make a `ChannelGroups`.
    padding_forms : sequence of str
        "pairs", one (before, after) per axis, "valid", "same", "same_lower", and for one axis "causal".
    padding_modes : sequence of str
        "zeros", "reflect", "replicate", "circular"; also with more padding than the input has elements.
    layouts : bool
        Whether to draw unbatched and channels-last arrays too.
    crops : bool
        Whether to draw negative padding too.
    empty : bool
        Whether to draw empty batches, groups that read no channel and groups that write none too.
    dtypes : str or sequence of str
        Data type of all arrays, or types to choose from.
    values : {"integers", "normal"}
        "integers": whole numbers −3 … 3, on which any correct implementation is exact (for integer data types, all
        numbers of the type, so that sums wrap around). "normal": numbers from N(0, 1).

    Returns
    -------
    strategy of ConvProblem
        A named tuple (problem, operands) with x, weight, bias, grad_output and the keyword arguments `options`.

    Examples
    --------
    The gradient is the adjoint: ⟨g, conv(x, w)⟩ = ⟨grad_x, x⟩, exactly on whole numbers.

    >>> import numpy as np
    >>> import refconv
    >>> from hypothesis import given
    >>> from refconv.testing.strategies import conv_problems
    >>> @given(conv_problems(dtypes="float64"))
    ... def test_adjoint(case):
    ...     y = refconv.conv(case.x, case.weight, **case.options)
    ...     grad_x = refconv.conv_backward(case.grad_output, case.x, case.weight, **case.options).x
    ...     assert np.vdot(case.grad_output, y) == np.vdot(grad_x, case.x)
    >>> test_adjoint()
    """
    drawn = problems(
        spatial_dims=spatial_dims,
        transposed=transposed,
        groupings=groupings,
        padding_forms=padding_forms,
        padding_modes=padding_modes,
        layouts=layouts,
        crops=crops,
        empty=empty,
    )
    names = _words([dtypes] if isinstance(dtypes, str) else dtypes, "dtypes", DTYPES)
    if not isinstance(values, str) or values not in ("integers", "normal"):
        raise ValueError(f"values must be 'integers' or 'normal'; got {shown(values)}")
    if values == "normal" and not set(names) <= set(FLOATS):
        raise ValueError(f"values='normal' needs floating-point dtypes; got {', '.join(names)}")
    return _with_arrays(drawn, names, values)


@st.composite
def _problems(draw: st.DrawFn, choices: dict[str, Any], empty: bool) -> Problem:
    problem = draw_problem(lambda low, high: draw(st.integers(low, high)), **choices)
    if not empty:
        return problem
    if problem.batch is not None and draw(st.integers(0, 3)) == 3:
        problem = replace(problem, batch=0)
    if not isinstance(problem.groups, int):
        # The group that reads nothing keeps its outputs, so that all are still written.
        emptied = draw(st.integers(0, len(problem.groups)))
        groups = tuple(((), outs) if g + 1 == emptied else (ins, outs) for g, (ins, outs) in enumerate(problem.groups))
        silent = ((((0,), ()),), (((), ()),))
        more = draw(st.integers(0, 2))
        problem = replace(problem, groups=groups + silent[more - 1] if more else groups)
    return problem


@st.composite
def _with_arrays(
    draw: st.DrawFn, drawn: st.SearchStrategy[Problem], dtypes: tuple[str, ...], values: str
) -> ConvProblem:
    problem = draw(drawn)
    dtype = draw(st.sampled_from(dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    arrays = integer_arrays if values == "integers" else normal_arrays
    return ConvProblem(problem, arrays(problem, rng, dtype))


# --- The arguments ---------------------------------------------------------------------------------------------------


def _axes(value: Any) -> tuple[int, ...]:
    if not is_sequence(value):
        return (as_int(value, "spatial_dims", 1),)
    if not len(value):
        raise ValueError("spatial_dims must contain at least one number; got none")
    return tuple(as_int(d, "spatial_dims", 1) for d in value)


def _words(value: Any, name: str, known: Sequence[str]) -> tuple[str, ...]:
    if not is_sequence(value):
        raise TypeError(f"{name} must be a sequence of strings; got {shown(value)}")
    words = tuple(value)
    if not words or any(not isinstance(word, str) or word not in known for word in words):
        raise ValueError(f"{name} must contain one or more of {', '.join(known)}; got {shown(value)}")
    return words
