r"""Bounds on the rounding errors of a convolution: derived, not chosen.

A sum of n products, in any order and with or without fused multiply-adds, computed with unit roundoff u is off by

    |computed − exact| ≤ γ_n · Σ|a||b|,    γ_n = n·u / (1 − n·u)

(N. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., §3.1). Every element of a convolution's result
is such a sum, and both n and Σ|a||b| are convolutions themselves: of ones, and of absolute values. The bound
therefore has the result's shape, knows that a border element has fewer terms, and grows with the data. It is the
worst case: no correct direct computation exceeds it, on any data. It does not apply to Winograd's and FFT methods,
which add numbers that are not terms of the sum. ``docs/error-bounds.md`` derives each part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refconv.groups import ChannelGroups
from refconv.integers import as_bool, as_int, is_sequence, padding_pairs, per_axis, shown
from refconv.testing.oracles.definition import Array, Weight
from refconv.testing.oracles.problems import PADDING_MODES, Lists, Operands, Problem, Results
from refconv.testing.oracles.trilinear import exact_results
from refconv.testing.regimes import axes_of

OF = {"forward": "y", "grad_x": "grad_x", "grad_weight": "grad_weight", "grad_bias": "grad_bias"}
"""Names of the four results, and their fields in :class:`~refconv.testing.oracles.problems.Results`."""


MOST = 2**40
"""Maximum number of elements of an output."""


@dataclass(frozen=True)
class Arithmetic:
    """The precision of a computation.

    ``operand``, ``sums`` and ``result`` are the unit roundoffs of operands, sums and results, 0 where nothing is
    rounded. ``tiny`` bounds the error of one underflow (a flush to zero included), and ``step`` is half the smallest
    step of the result's data type.
    """

    operand: float
    sums: float
    result: float
    tiny: float
    step: float


_SINGLE_TINY, _HALF_STEP = 2.0**-126, 2.0**-25
COMPUTE = {
    "float64": Arithmetic(0, 2.0**-53, 0, 2.0**-1022, 0),
    "float32": Arithmetic(0, 2.0**-24, 0, _SINGLE_TINY, 0),
    "tf32": Arithmetic(2.0**-11, 2.0**-24, 0, _SINGLE_TINY, 0),
    "bfloat16": Arithmetic(2.0**-8, 2.0**-24, 0, _SINGLE_TINY, 0),
    "float16": Arithmetic(0, 2.0**-24, 2.0**-11, _SINGLE_TINY, _HALF_STEP),
}
"""The values of `compute`. Products of tf32, bfloat16 and float16 operands are exact in float32."""

HALF_SUMS = Arithmetic(0, 2.0**-11, 2.0**-11, 2.0**-14, _HALF_STEP)
"""Sums in float16. No value of `compute`, because it is a mistake, but it is recognised."""

IN_HALF = Arithmetic(2.0**-8, 2.0**-24, 2.0**-10, 2.0**-14, _HALF_STEP)
"""Wider operands and bias, computed in float16. Such results are recognised by their digits, so this wide bound is
enough; the worst case of long sums in float16 would admit any result."""

_NARROWER = (("float16", IN_HALF), ("tf32", COMPUTE["tf32"]), ("bfloat16", COMPUTE["bfloat16"]))
PRECISIONS: dict[str, tuple[tuple[str, Arithmetic], ...]] = {
    "float64": (("float64", COMPUTE["float64"]), ("float32", COMPUTE["float32"]), *_NARROWER),
    "float32": (("float32", COMPUTE["float32"]), *_NARROWER),
    "float16": (("float16", COMPUTE["float16"]), ("float16 accumulation", HALF_SUMS)),
}
"""For each data type of the operands, the precisions with which a result may be consistent, in the order of trial."""

FLOATS = ("float16", "float32", "float64", "complex64", "complex128")
"""Data types of operands and results."""

_REAL = {"complex64": "float32", "complex128": "float64"}


def real_dtype(dtype: Any) -> str:
    """Return the name of the data type of the parts of a floating-point data type.

    >>> real_dtype("complex64"), real_dtype(np.float16)
    ('float32', 'float16')
    """
    name: str = np.dtype(dtype).name
    return _REAL.get(name, name)


@dataclass(frozen=True)
class Scale:
    """The parts of a bound, per element: the exact result, Σ|a||b|, the bias separately, and the number of terms."""

    exact: Array  # in float64 or complex128, with an error of at most `own`
    products: Array
    addend: Array
    terms: Array
    complex: bool

    @classmethod
    def joined(cls, scales: Sequence[Scale]) -> Scale:
        """Return the scale of the groups' results joined along their first axis."""
        exact, products, terms = (
            np.concatenate([getattr(s, name) for s in scales]) for name in ("exact", "products", "terms")
        )
        return cls(exact, products, scales[0].addend, terms, scales[0].complex)

    def bound(self, arithmetic: Arithmetic) -> Array:
        """Return the bound per element for one kind of arithmetic."""
        # The real and the imaginary part of n complex products are sums of 2n real ones each.
        n = self.terms * 2 if self.complex else self.terms
        both = np.sqrt(2.0) if self.complex else 1.0
        gamma = _gamma(n, arithmetic.sums)
        rounded = (1 + arithmetic.operand) ** 2  # both factors of a product
        error = (rounded * (1 + gamma) - 1) * self.products + gamma * self.addend
        error = both * (error + n * arithmetic.tiny)
        if arithmetic.result:
            error = error + arithmetic.result * (np.abs(self.exact) + error) + arithmetic.step * both
        return error * (1 + 2.0**-40)  # the bound is itself computed in float64

    def is_suspicious(self, actual: Array, arithmetic: Arithmetic) -> bool:
        """Return whether an error exceeds 6√n·u·Σ|a||b|, which errors that behave randomly hardly ever do.

        N. Higham, T. Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41 (2019).
        A correct result may exceed it: equal terms summed in order do.
        """
        n = np.maximum(self.terms, 1)
        likely = self.bound(arithmetic) * np.minimum(6 / np.sqrt(n), 1) + self.own
        return bool((np.abs(actual.astype(self.exact.dtype) - self.exact) > likely).any())

    @property
    def own(self) -> Array:
        """Maximum error of `exact` itself, computed in float64."""
        return self.bound(COMPUTE["float64"])


def _gamma(n: Array, unit: float) -> Array:
    with np.errstate(divide="ignore"):
        return np.where(n * unit < 1, n * unit / np.maximum(1 - n * unit, 0), np.inf)


def scales_of(problem: Problem, operands: Operands, part: str) -> list[Scale]:
    """Return the scales of one part (a field of Results): of one array, or of one array per group."""
    is_complex = operands.x.dtype.kind == "c"
    wide = np.complex128 if is_complex else np.float64

    def results(given: Operands, function: Callable[[Array], Array]) -> list[Array]:
        found = getattr(exact_results(problem, given.mapped(function), (part,)), part)
        return list(found) if isinstance(found, tuple) else [found]

    exact = results(operands, lambda a: a.astype(wide))
    bare = operands._replace(bias=None)
    products = results(bare, lambda a: np.abs(a.astype(wide)))
    terms = results(bare, lambda a: np.ones(a.shape))
    addend = np.zeros(1)
    if part == "y" and operands.bias is not None:
        axis = -1 if problem.channels_last else -1 - problem.spatial_dims
        addend = np.moveaxis(np.abs(operands.bias.astype(wide))[(..., *(None,) * (exact[0].ndim - 1))], 0, axis)
        terms = [terms[0] + 1]
    return [Scale(e, p, addend, n, is_complex) for e, p, n in zip(exact, products, terms, strict=True)]


def exact_and_bounds(problem: Problem, operands: Operands, arithmetic: Arithmetic) -> tuple[Results, Results]:
    """Return output and gradients, and the maximum error of each element if computed in this arithmetic."""
    exact, bounds = [], []
    for part in Results._fields:
        scales = scales_of(problem, operands, part)
        whole = not _per_group(problem, part)
        exact.append(scales[0].exact if whole else tuple(scale.exact for scale in scales))
        pairs = tuple(scale.bound(arithmetic) + scale.own for scale in scales)
        bounds.append(pairs[0] if whole else pairs)
    return Results(*exact), Results(*bounds)


# --- Public functions ------------------------------------------------------------------------------------------------


def error_bound(
    x: Array,
    weight: Weight,
    bias: Array | None = None,
    *,
    of: str = "forward",
    grad_output: Array | None = None,
    compute: str | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    output_padding: Any = 0,
    output_size: Any = None,
    channels_last: bool = False,
    output_dtype: Any = None,
    transposed: bool = False,
) -> Any:
    r"""Return, per element, the maximum error of any correct direct computation of a convolution.

    .. math:: |\mathrm{computed} - \mathrm{exact}| \le \bigl((1 + u_o)^2 (1 + \gamma_n) - 1\bigr)
              \sum |a|\,|b| + \gamma_n |\mathrm{bias}|, \qquad \gamma_n = \frac{n u}{1 - n u}

    where n is the number of terms of the element's sum (one more for a bias), u the unit roundoff of the sums and u_o
    that of operands that are rounded first. A result stored in float16 is rounded once more. Each underflow adds at
    most the smallest normal number, so flushing to zero is covered. The bound holds for every order of summation and
    for fused multiply-adds, as long as nothing overflows. It does not hold for Winograd's and FFT methods.

    Parameters
    ----------
    x : numpy.ndarray (N, C, D1, …, Dd), or (C, D1, …, Dd) if unbatched
        Input, with the values used in the computation. Floating-point, real or complex. With `channels_last`,
        (N, D1, …, Dd, C) or (D1, …, Dd, C).
    weight : numpy.ndarray (K, C/G, k1, …, kd), transposed (C, K/G, k1, …, kd), or a sequence of arrays
        With a `ChannelGroups`, one array per group, or all joined along the first axis if their shapes are equal.
    bias : numpy.ndarray (K,), optional
        Used by "forward".
    of : {"forward", "grad_x", "grad_weight", "grad_bias"}
        The result to bound.
    grad_output : numpy.ndarray
        The output's gradient, in the output's layout; required for the three gradients.
    compute : {"float64", "float32", "tf32", "bfloat16", "float16"}, optional
        "float64", "float32": products and sums in this precision. "tf32", "bfloat16": operands rounded to 10 and 7
        mantissa bits, products exact, sums in float32. "float16": operands as given, sums in float32, one rounding
        to float16 at the end. By default the operands' own data type, or that of the result if it is wider.
    stride, padding, dilation, groups, padding_mode, output_padding, output_size, channels_last
        As for :func:`refconv.conv` and :func:`refconv.conv_transpose`.
    output_dtype : dtype or str, optional
        Data type of the result; by default the operands'. If it is wider, sums are not rounded again.
    transposed : bool
        Whether the convolution is a transposed one.

    Returns
    -------
    numpy.ndarray of float64
        One bound per element of the result, in the result's layout. For the weight gradient it is a tuple of arrays if
        `weight` is a sequence. Infinite where n·u ≥ 1.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks a rule: shapes that do not fit, a number that is not finite, or an unknown name.

    References
    ----------
    N. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., SIAM 2002, §3.1.

    Examples
    --------
    Two terms in float32: γ₂ times their sizes.

    >>> import numpy as np
    >>> from refconv.testing import error_bound
    >>> x, w = np.array([[[1.0, 3.0]]], "float32"), np.array([[[2.0, -1.0]]], "float32")
    >>> error_bound(x, w) / 2**-24
    array([[[10.00000119]]])

    Where the border repeats the edge, every output has two terms. A padded zero is not a term:

    >>> x, w = np.ones((1, 3, 1), "float32"), np.ones((1, 1, 2), "float32")
    >>> bounds = [error_bound(x, w, padding=((1, 0),), padding_mode=mode, channels_last=True)
    ...           for mode in ("zeros", "replicate")]
    >>> [np.round(bound.ravel() / 2**-24).tolist() for bound in bounds]
    [[1.0, 4.0, 4.0], [4.0, 4.0, 4.0]]

    Products of float16 operands are exact in float32, and a float16 result is a rounded one:

    >>> x, w = np.ones((1, 1, 1), "float16"), np.ones((1, 1, 1), "float16")
    >>> [float(np.round(error_bound(x, w, output_dtype=dtype).item() / 2**-24)) for dtype in (None, "float32")]
    [8194.0, 1.0]
    """
    problem, operands, several = _describe(
        x, weight, bias, of, grad_output, stride, padding, dilation, groups,
        padding_mode, output_padding, output_size, channels_last, transposed,
    )  # fmt: skip
    arithmetic, _ = _arithmetic(compute, operands.x.dtype, output_dtype)
    with np.errstate(all="ignore"):  # numbers near the end of float64 have an infinite bound
        scales = _scales_of_result(problem, operands, of, several)
        bounds = tuple(np.nan_to_num(scale.bound(arithmetic), nan=np.inf, posinf=np.inf) for scale in scales)
    return bounds if several else bounds[0]


def assert_conv_close(
    actual: Any,
    x: Array,
    weight: Weight,
    bias: Array | None = None,
    *,
    of: str = "forward",
    grad_output: Array | None = None,
    compute: str | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    output_padding: Any = 0,
    output_size: Any = None,
    channels_last: bool = False,
    output_dtype: Any = None,
    transposed: bool = False,
) -> None:
    """Assert that a convolution's result is within :func:`error_bound` of the exact one, element by element.

    The exact result is computed here, in float64, by code that is independent of :func:`refconv.conv`.

    Parameters
    ----------
    actual : array
        The result to check: anything that ``numpy.asarray`` accepts, of the exact result's shape. The weight gradient
        is a sequence of arrays if `weight` is.
    x, weight, bias, of, grad_output, compute, stride, padding, dilation, groups, padding_mode, output_padding
        As for :func:`error_bound`.
    output_size, channels_last, output_dtype, transposed
        As for :func:`error_bound`.

    Raises
    ------
    AssertionError
        If the shape is wrong or an element is beyond its bound. The message names the element with the largest
        error in units of its bound, and the best precision that the whole result is consistent with.
    TypeError, ValueError
        As for :func:`error_bound`.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.testing import assert_conv_close
    >>> x, w = np.full((1, 1, 4), 0.1, "float32"), np.full((1, 1, 3), 0.7, "float32")
    >>> assert_conv_close(np.convolve(x[0, 0], w[0, 0], "valid")[None, None], x, w)
    >>> assert_conv_close(np.array([[[0.21, 0.21001]]], "float32"), x, w)
    Traceback (most recent call last):
        ...
    AssertionError: forward is beyond its float32 bound at 1 of 2 elements; the worst is (0, 0, 1), off by
    1.0e-05, 267 times its bound 3.8e-08: expected 0.21, got 0.210010007; consistent with tf32
    """
    problem, operands, several = _describe(
        x, weight, bias, of, grad_output, stride, padding, dilation, groups,
        padding_mode, output_padding, output_size, channels_last, transposed,
    )  # fmt: skip
    arithmetic, name = _arithmetic(compute, operands.x.dtype, output_dtype)
    digits = real_dtype(operands.x.dtype if output_dtype is None else output_dtype)
    with np.errstate(all="ignore"):
        scales = _scales_of_result(problem, operands, of, several)
    if not all(np.isfinite(scale.exact).all() for scale in scales):
        raise ValueError(f"the exact {of} is too large for float64; there is nothing to compare with")
    if several and not is_sequence(actual):
        raise AssertionError(f"{of} must be {len(scales)} arrays, one per group; got {type(actual).__name__}")
    results = list(actual) if several else [actual]
    if len(results) != len(scales):
        raise AssertionError(f"{of} must be {len(scales)} arrays, one per group; got {len(results)}")
    for g, (scale, result) in enumerate(zip(scales, results, strict=True)):
        complaint = judge(_array(result, "actual"), scale, arithmetic, name, digits)
        if complaint:
            raise AssertionError(f"{of}{f'[{g}]' if several else ''} {complaint}")


def judge(actual: Array, scale: Scale, arithmetic: Arithmetic, name: str, dtype: str) -> str | None:
    """Return None if a result is within its bound, otherwise the error as the rest of a sentence."""
    if actual.shape != scale.exact.shape:
        return f"must have shape {scale.exact.shape}; got {actual.shape}"
    if actual.dtype.kind not in "fciu" or (actual.dtype.kind == "c" and not scale.complex):
        return f"must be an array of numbers like its operands; got data type {actual.dtype}"
    bound = scale.bound(arithmetic) + scale.own
    ratio = _ratio(actual, scale, bound)
    if not (ratio > 1).any():
        return None
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(ratio), ratio.shape))
    error = abs(complex(actual[worst]) - complex(scale.exact[worst]))
    times = f"{ratio[worst]:.3g} times its bound {bound[worst]:.1e}" if np.isfinite(error) else "not finite"
    precision = precision_of(actual, scale, dtype)
    return (
        f"is beyond its {name} bound at {np.count_nonzero(ratio > 1)} of {ratio.size} elements; the worst is {worst}, "
        f"off by {error:.1e}, {times}: expected {scale.exact[worst]:.9g}, got {actual[worst]:.9g}; "
        + (f"consistent with {precision}" if precision else "consistent with no precision: this is no rounding error")
    )


def _ratio(actual: Array, scale: Scale, bound: Array) -> Array:
    """Return error / bound: 0 for no error, infinite for a result that is not finite."""
    with np.errstate(all="ignore"):
        error = np.abs(actual.astype(scale.exact.dtype) - scale.exact)
        error[~np.isfinite(error)] = np.inf
        return np.where(error == 0, 0, error / bound)


def precision_of(actual: Array, scale: Scale, dtype: str) -> str | None:
    """Return the first precision that a result is consistent with, or None."""
    for name, arithmetic in PRECISIONS[dtype]:
        if arithmetic is IN_HALF and not _is_half(actual):
            continue
        if not (_ratio(actual, scale, scale.bound(arithmetic) + scale.own) > 1).any():
            return name
    return None


def _is_half(array: Array) -> bool:
    """Return whether float16 can represent every element (of a complex array, both parts)."""
    with np.errstate(over="ignore"):
        return all(np.array_equal(part, part.astype(np.float16)) for part in (array.real, array.imag))


# --- Checking the arguments ------------------------------------------------------------------------------------------


def _per_group(problem: Problem, part: str) -> bool:
    return part == "grad_weight" and not isinstance(problem.groups, int)


def _scales_of_result(problem: Problem, operands: Operands, of: str, several: bool) -> list[Scale]:
    """Return the scale of each array of a result: one, or one per group."""
    scales = scales_of(problem, operands, OF[of])
    return scales if several or len(scales) == 1 else [Scale.joined(scales)]


def _arithmetic(compute: Any, dtype: np.dtype[Any], output_dtype: Any) -> tuple[Arithmetic, str]:
    """Return how a result is computed, and the name of its `compute`."""
    result = None if output_dtype is None else np.dtype(_output_dtype(output_dtype, dtype))
    if compute is None:
        compute = real_dtype(dtype if result is None else np.result_type(dtype, result))
    if not isinstance(compute, str):
        raise TypeError(f"compute must be a string; got {shown(compute)}")
    if compute not in COMPUTE:
        raise ValueError(f"compute must be one of {', '.join(COMPUTE)}; got {shown(compute)}")
    arithmetic = COMPUTE[compute]
    if result is None:
        return arithmetic, compute
    info = np.finfo(result)
    unit, step = float(info.eps) / 2, float(info.smallest_subnormal) / 2
    rounds = unit > arithmetic.sums
    return replace(arithmetic, result=unit if rounds else 0, step=step if rounds else 0), compute


def _output_dtype(output_dtype: Any, dtype: np.dtype[Any]) -> str:
    """Return the name of the result's data type, which must be of the operands' kind, real or complex."""
    try:
        name: str = np.dtype(output_dtype).name
    except TypeError:
        name = ""
    if name not in FLOATS:
        raise TypeError(f"output_dtype must be one of {', '.join(FLOATS)}; got {shown(output_dtype)}")
    if np.dtype(name).kind != dtype.kind:
        raise TypeError(f"output_dtype must be of the operands' kind, as {dtype} is; got {name}")
    return name


def _describe(
    x: Any,
    weight: Any,
    bias: Any,
    of: Any,
    grad_output: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    padding_mode: Any,
    output_padding: Any,
    output_size: Any,
    channels_last: Any,
    transposed: Any,
) -> tuple[Problem, Operands, bool]:
    """Check the arguments; return the convolution, its arrays, and whether the result is one array per group.

    If grad_output is not needed, it is replaced by zeros.
    """
    transposed, channels_last = as_bool(transposed, "transposed"), as_bool(channels_last, "channels_last")
    if not isinstance(of, str) or of not in OF:
        raise ValueError(f"of must be one of {', '.join(OF)}; got {shown(of)}")
    several = is_sequence(weight) and not hasattr(weight, "dtype")
    weights = tuple(_array(w, "weight") for w in (weight if several else [weight]))
    x = _array(x, "x")
    bias, grad_output = (None if a is None else _array(a, n) for a, n in ((bias, "bias"), (grad_output, "grad_output")))
    d = weights[0].ndim - 2 if weights else 0
    if d < 1 or x.ndim not in (d + 1, d + 2) or any(w.ndim != d + 2 for w in weights):
        listed = ", ".join(str(w.shape) for w in weights) or "none"
        raise ValueError(
            f"x and weight must have the same number of axes, at least 3, or x one fewer if unbatched; got shapes "
            f"{x.shape} and {listed}"
        )
    _check_values([("x", x), *(("weight", w) for w in weights), ("bias", bias), ("grad_output", grad_output)])
    inner = x.shape[-1 - d :]
    channels, size = (inner[-1], inner[:-1]) if channels_last else (inner[0], inner[1:])
    lists, c_out = _channels(channels, weights, groups, several, transposed)
    strides, dilations = per_axis(stride, "stride", d, 1), per_axis(dilation, "dilation", d, 1)
    problem = Problem(
        batch=len(x) if x.ndim == d + 2 else None,
        c_in=channels,
        c_out=c_out,
        size=size,
        kernel=tuple(weights[0].shape[2:]),
        stride=strides,
        dilation=dilations,
        padding=_padding(padding, padding_mode, d, transposed),
        groups=lists,
        padding_mode=padding_mode,
        output_padding=_output_padding(output_padding, strides, dilations, transposed),
        wanted_size=_wanted_size(output_size, output_padding, d, transposed),
        transposed=transposed,
        channels_last=channels_last,
        bias=bias is not None,
    )
    given = weights if several else _split(weights[0], problem)
    expected: Any = problem.weight_shape if isinstance(given, np.ndarray) else problem.weight_shapes
    shapes: Any = given.shape if isinstance(given, np.ndarray) else tuple(w.shape for w in given)
    if shapes != expected:
        raise ValueError(f"weight must have shape {expected} (x has shape {x.shape}); got {shapes}")
    _check_sizes(problem)
    if min(problem.output_size) < 1:
        raise ValueError(f"the output must have an element on every axis; its size would be {problem.output_size}")
    if math.prod(problem.output_shape) > MOST:
        raise ValueError(f"the output would have more than 2^40 elements; its shape is {problem.output_shape}")
    if bias is not None and bias.shape != (c_out,):
        raise ValueError(f"bias must have shape ({c_out},), one element per output channel; got {bias.shape}")
    if grad_output is None:
        if of != "forward":
            raise ValueError(f"of={of!r} needs grad_output")
        grad_output = np.zeros(problem.output_shape, x.dtype)
    if grad_output.shape != problem.output_shape:
        raise ValueError(f"grad_output must have shape {problem.output_shape}, the output's; got {grad_output.shape}")
    return problem, Operands(x, given, bias, grad_output), several and of == "grad_weight"


def _check_values(named: Sequence[tuple[str, Array | None]]) -> None:
    """Check that all arrays are of one kind, real or complex, and finite; x comes first."""
    x: Array = named[0][1]
    for name, array in named:
        if array is None:
            continue
        if array.dtype.kind not in "fc":
            raise TypeError(f"{name} must contain floating-point numbers; got {array.dtype}")
        if (array.dtype.kind == "c") != (x.dtype.kind == "c"):
            raise TypeError(f"operands must be all real or all complex; got x of {x.dtype}, {name} of {array.dtype}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite: a bound is about finite results")
    if x.dtype.name not in FLOATS:
        raise TypeError(f"x must be float16, float32, float64, complex64 or complex128; got {x.dtype}")


def _padding(padding: Any, mode: Any, d: int, transposed: bool) -> Any:
    """Check `padding` and `padding_mode`; return the padding in Problem's form."""
    if not isinstance(mode, str):
        raise TypeError(f"padding_mode must be a string; got {shown(mode)}")
    if mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {', '.join(PADDING_MODES)}; got {shown(mode)}")
    if transposed and mode != "zeros":
        raise ValueError(f"padding_mode must be 'zeros' with transposed=True; got {mode!r}")
    pads = padding_pairs(padding, d)
    if transposed and pads == "causal":
        raise ValueError("padding='causal' has no meaning for a transposed convolution; give numbers")
    return pads


def _wanted_size(value: Any, output_padding: Any, d: int, transposed: bool) -> tuple[int, ...]:
    """Check `output_size`; return it in Problem's form."""
    if value is None:
        return ()
    if not transposed:
        raise ValueError(f"output_size needs transposed=True; got {shown(value)}")
    if any(per_axis(output_padding, "output_padding", d)):
        raise ValueError(f"output_padding must be 0 with output_size; got {shown(output_padding)}")
    return per_axis(value, "output_size", d, 1)


def _check_sizes(problem: Problem) -> None:
    """Check that every padded axis has an element to repeat, and that a convolution maps the requested size to x's."""
    p = problem
    for axis, (n, pair) in enumerate(zip(p.size, p.pairs, strict=True)):
        if p.padding_mode != "zeros" and n == 0 and max(pair) > 0:
            raise ValueError(
                f"padding_mode={p.padding_mode!r} needs an element to repeat; got an input of size 0 and padding "
                f"{pair} on spatial axis {axis}"
            )
    if any(p.output_padding) and isinstance(p.padding, str):
        raise ValueError(f"output_padding must be 0 with padding={p.padding!r}; got {p.output_padding}")
    same = isinstance(p.padding, str)  # it reaches n by rounding up
    steps = zip(axes_of(p), p.output_size, p.stride, p.size, strict=True)
    if p.wanted_size and any(
        not axis.valid(transposed=True) or axis.rest < 0 or (same and -(-m // s) != n) for axis, m, s, n in steps
    ):
        raise ValueError(f"output_size must be a size that x of size {p.size} can have; got {p.wanted_size}")


def _output_padding(value: Any, stride: Sequence[int], dilation: Sequence[int], transposed: bool) -> tuple[int, ...]:
    """Check `output_padding`; return it in Problem's form."""
    extra = per_axis(value, "output_padding", len(stride), 0)
    if any(extra) and not transposed:
        raise ValueError(f"output_padding must be 0 without transposed=True; got {shown(value)}")
    if any(e >= max(s, dil) for e, s, dil in zip(extra, stride, dilation, strict=True) if e):
        raise ValueError(
            f"output_padding must be smaller than stride or dilation; got output_padding={extra}, "
            f"stride={tuple(stride)}, dilation={tuple(dilation)}"
        )
    return extra if transposed else ()


def _array(value: Any, name: str) -> Array:
    try:
        return np.asarray(value)
    except Exception as error:
        message = f"{name} must be a value that numpy.asarray accepts; got {shown(value)}"
        raise TypeError(message) from error


def _channels(
    c_in: int, weights: Sequence[Array], groups: Any, several: bool, transposed: bool
) -> tuple[int | Lists, int]:
    """Return the groups in Problem's form, and the number of output channels."""
    if isinstance(groups, ChannelGroups):
        if groups.c_in != c_in:
            raise ValueError(f"x must have the C={groups.c_in} input channels of its ChannelGroups; got C={c_in}")
        return tuple(zip(groups.in_channels, groups.out_channels, strict=True)), groups.c_out
    n = as_int(groups, "groups", 1)
    if several:
        raise TypeError(f"weight must be one array where groups={n} is an integer")
    first = weights[0].shape[0]
    for what, count in (("input channels C", c_in), ("weight.shape[0]", first)):
        if count % n:
            raise ValueError(f"groups={n} does not divide {what}={count}")
    return n, weights[0].shape[1] * n if transposed else first


def _split(weight: Array, problem: Problem) -> Weight:
    """Return one weight array, cut into one array per group if the groups are lists."""
    if isinstance(problem.groups, int):
        return weight
    shapes = problem.weight_shapes
    if len(set(shapes)) > 1:
        listed = ", ".join(map(str, dict.fromkeys(shapes)))
        raise ValueError(
            f"weight must be a sequence of {len(shapes)} arrays, one per group, because the groups' weights differ in "
            f"shape: {listed}; got one array of shape {weight.shape}"
        )
    if weight.shape != problem.weight_shape:
        raise ValueError(f"weight must have shape {problem.weight_shape} for its groups; got {weight.shape}")
    return tuple(np.split(weight, len(shapes)))
