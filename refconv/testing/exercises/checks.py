"""Checks of exercises: combine a learner's piece of a convolution with right pieces, and pass it to `check_conv`.

The other pieces come from the small correct convolution behind the catalogue of mistakes. So a wrong piece gives the
same results as the catalogue's mistake in that piece, and gets its name. `slips` names other mistakes.

Exercises need not handle a batch of no images, which :func:`refconv.testing.check_conv` also tries: a right
convolution then replaces them.
"""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refconv.testing.checker.cases import Case
from refconv.testing.checker.check import check_conv
from refconv.testing.checker.report import CheckReport, Diagnosis, Failure
from refconv.testing.exercises.logarithmic_sizes import (
    DIVISIONS,
    Division,
    Sizes,
    as_sizes,
    broken_rule,
    diagnoses,
    right_sizes,
)
from refconv.testing.exercises.slips import slips_in
from refconv.testing.exercises.verdict import Verdict, attempt, called, cut, listed, name_of, named, raised
from refconv.testing.mutants import Conv, ConvTranspose, Steps, steps
from refconv.testing.oracles.definition import Array

AXES = ("stride", "padding", "dilation")
"""Features that a piece supports by default."""


def check_out_size(
    out_size: Callable[..., Any], supports: Sequence[str] = AXES, *, transposed: bool = False
) -> Verdict:
    """Check ``out_size(n, k, stride, padding, dilation) -> int``, the number of windows along one axis.

    Parameters
    ----------
    out_size : callable
        Takes the size of the input and of the kernel, and padding as zeros on each end.
    supports : sequence of str
        Features that it claims, as in :func:`refconv.testing.check_conv`; the others stay at 1, the padding at 0.
    transposed : bool
        Whether it is the size of a transposed convolution's output. It then takes one more argument,
        ``output_padding``, which is 0 unless `supports` contains that word.

    Examples
    --------
    >>> def out_size(n, k, stride, padding, dilation):
    ...     return (n + 2 * padding - dilation * (k - 1) - 1) // stride
    >>> verdict = check_out_size(out_size)
    >>> verdict.passed, verdict.diagnoses[0].name, verdict.call
    (False, '+1 missing in the output size', 'out_size(1, 1, 1, 0, 1) returned 0, not 1')
    >>> print(check_out_size(lambda n, k, s, p, d: (n + 2 * p - d * (k - 1) - 1) / s + 1))
    FAILED: out_size
    out_size(1, 1, 1, 0, 1) returned 1.0, a float: use //
    >>> print(check_out_size(lambda n, k, s, p, d: (n + 2 * p - d * (k - 1) - 1) // s + 1))
    passed: out_size is right in all ... cases
    """

    class Own(Conv):
        def outputs(self, size: Any, kernel: Any, p: Steps) -> tuple[int, ...]:
            return tuple(operator.index(out_size(*axis)) for axis in _axes(size, kernel, p))

    class OwnTransposed(ConvTranspose):
        def full(self, size: Any, kernel: Any, p: Steps) -> list[int]:
            axes = zip(_axes(size, kernel, p), p.output_padding, p.padding, strict=True)
            return [operator.index(out_size(*axis, extra)) + before + after for axis, extra, (before, after) in axes]

    def call(failure: Failure) -> str:
        case = failure.case
        own = _axes(case.x_shape[2:], case.weight_shape[2:], _steps(case))
        extra = [(n,) for n in case.output_padding or (0,) * len(own)] if transposed else [()] * len(own)
        right = {
            (*axis, *more): n for axis, more, n in zip(own, extra, case.grad_output.shape[2:], strict=True)
        }  # y and its gradient have the same shape
        found = {axis: _size_of(*attempt(out_size, *axis), size) for axis, size in right.items()}
        return "\n".join(f"out_size({listed(axis)}) {text}" for axis, text in found.items() if text)

    own = OwnTransposed() if transposed else Own()
    return _verdict("out_size", _report(own.forward, None, supports, transposed), call)


def _size_of(value: Any, error: str, right: int) -> str:
    """Describe the fault of a size, or return ""."""
    if error:
        return error
    if isinstance(value, float | np.floating):
        return f"returned {value}, a float: use //"
    try:
        return "" if operator.index(value) == right else f"returned {value}, not {right}"
    except TypeError:
        return f"returned {reprlib.repr(value)}, which is not an int"


def check_im2col(im2col: Callable[..., Any], supports: Sequence[str] = AXES) -> Verdict:
    """Check ``im2col(x, kernel, stride, padding, dilation) -> (N, C·k1·k2, L)`` of images x.

    Parameters
    ----------
    im2col : callable
        Takes x (N, C, H, W) and four pairs of ints, one int per axis; padding as zeros on each end of an axis.
    supports : sequence of str
        Features that it claims, as in :func:`refconv.testing.check_conv`.

    Examples
    --------
    >>> def im2col(x, kernel, stride, padding, dilation):
    ...     windows = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))
    ...     return windows.transpose(0, 4, 5, 1, 2, 3).reshape(len(x), -1, windows[0, 0, ..., 0, 0].size)
    >>> check_im2col(im2col, supports=()).diagnoses[0].name
    'weight rows taken taps first'
    """

    def forward(x: Array, weight: Array, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Array:
        outputs = Conv().outputs(x.shape[2:], weight.shape[2:], steps(stride, padding, dilation, groups))
        want = (len(x), weight[0].size, math.prod(outputs))
        columns = np.asarray(im2col(x, weight.shape[2:], stride, padding, dilation))
        if columns.shape != want:
            raise ValueError(f"im2col must return (N, C·k1·k2, L) = {want}; it returned shape {columns.shape}")
        y: Array = weight.reshape(len(weight), -1) @ columns
        return y.reshape(len(x), len(weight), *outputs)

    def call(failure: Failure) -> str:
        case = failure.case
        arguments = (case.weight_shape[2:], case.stride, case.padding, case.dilation)
        # A kernel for each row of the columns, 1 at its tap and 0 elsewhere, makes a convolution write the columns.
        taps = np.eye(case.weight[0].size, dtype=case.x.dtype).reshape(-1, *case.weight_shape[1:])
        right = Conv().forward(case.x, taps, None, case.stride, case.padding, case.dilation, 1)
        right = right.reshape(*right.shape[:2], -1)
        found = attempt(im2col, case.x.copy(), *arguments)
        return called(f"im2col(x, {listed(arguments)})", {"x": case.x}, found, right, "(N, C·k1·k2, L)")

    return _verdict("im2col", _report(forward, None, supports), call)


def check_col2im(col2im: Callable[..., Any], supports: Sequence[str] = AXES) -> Verdict:
    """Check ``col2im(columns, shape, kernel, stride, padding, dilation) -> (N, C, H, W)``, the adjoint of im2col.

    Parameters
    ----------
    col2im : callable
        Takes columns (N, C·k1·k2, L), the shape (N, C, H, W) and four pairs of ints as in :func:`check_im2col`.
    supports : sequence of str
        Features that it claims, as in :func:`refconv.testing.check_conv`.

    Examples
    --------
    >>> def col2im(columns, shape, kernel, stride, padding, dilation):
    ...     x, outputs = np.zeros(shape, columns.dtype), [n - k + 1 for n, k in zip(shape[2:], kernel)]
    ...     columns = columns.reshape(*shape[:2], *kernel, *outputs)
    ...     for i, j in np.ndindex(*kernel):
    ...         x[:, :, i : i + outputs[0], j : j + outputs[1]] = columns[:, :, i, j]
    ...     return x
    >>> check_col2im(col2im, supports=()).diagnoses[0].name
    'overlapping windows overwrite each other'
    """

    class Own(Conv):
        def grad_x(self, g: Array, weight: Array, shape: Any, p: Steps) -> Any:
            columns = weight.reshape(len(weight), -1).T @ g.reshape(*g.shape[:2], -1)
            return col2im(columns, shape, weight.shape[2:], p.stride, tuple(b for b, _ in p.padding), p.dilation)

    def call(failure: Failure) -> str:
        case = failure.case
        g = case.grad_output.reshape(*case.grad_output.shape[:2], -1)
        columns = case.weight.reshape(len(case.weight), -1).T @ g
        arguments = (case.x_shape, case.weight_shape[2:], case.stride, case.padding, case.dilation)
        right = Conv().grad_x(case.grad_output, case.weight, case.x_shape, _steps(case))
        found = attempt(col2im, columns.copy(), *arguments)
        return called(f"col2im(columns, {listed(arguments)})", {"columns": columns}, found, right, "shape")

    return _verdict("col2im", _report(Own().forward, Own().backward, supports), call)


def check_input_grad(input_grad: Callable[..., Any], supports: Sequence[str] = ("padding", "dilation")) -> Verdict:
    """Check ``input_grad(grad_output, weight, padding, dilation) -> grad_x`` of a convolution with stride 1.

    Parameters
    ----------
    input_grad : callable
        Takes the gradient (N, K, H', W') of the output, the weight (K, C, k1, k2) and two pairs of ints, one int per
        axis; padding as zeros on each end of an axis. With stride 1 these determine the shape of grad_x.
    supports : sequence of str
        Features that it claims, of "padding" and "dilation"; the others stay at 0 and 1.

    Examples
    --------
    >>> def input_grad(grad_output, weight, padding, dilation):
    ...     around = [k - 1 for k in weight.shape[2:]]
    ...     return Conv().forward(grad_output, weight.swapaxes(0, 1), None, (1, 1), around, dilation, 1)
    >>> check_input_grad(input_grad, supports=()).diagnoses[0].name
    'kernel flipped in the input gradient'
    """

    class Own(Conv):
        def grad_x(self, g: Array, weight: Array, shape: Any, p: Steps) -> Any:
            return input_grad(g, weight, tuple(before for before, _ in p.padding), p.dilation)

    def call(failure: Failure) -> str:
        case = failure.case
        arguments = (case.padding, case.dilation)
        right = Conv().grad_x(case.grad_output, case.weight, case.x_shape, _steps(case))
        found = attempt(input_grad, case.grad_output.copy(), case.weight.copy(), *arguments)
        arrays = {"grad_output": case.grad_output, "weight": case.weight}
        return called(f"input_grad(grad_output, weight, {listed(arguments)})", arrays, found, right)

    return _verdict("input_grad", _report(Own().forward, Own().backward, supports), call)


def check_forward(forward: Callable[..., Any], supports: Sequence[str] = (), *, transposed: bool = False) -> Verdict:
    """Check a whole forward pass with :func:`refconv.testing.check_conv`, and show only the first failure.

    Parameters
    ----------
    forward : callable
        ``forward(x, weight, bias, stride, padding, dilation, groups) -> y``.
    supports : sequence of str
        Features that it claims; none by default.
    transposed : bool
        Whether it is a transposed convolution. If `supports` contains "output_padding", it takes that argument too.

    Examples
    --------
    >>> def broken(x, weight, bias, stride, padding, dilation, groups):
    ...     return 1 / 0
    >>> print(check_forward(broken))
    FAILED: broken
    broken(x, weight, None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    raised ZeroDivisionError: division by zero (line 2, in broken)
    ...
    """
    return _pass(forward, _report(forward, None, supports, transposed))


def check_backward(backward: Callable[..., Any], supports: Sequence[str] = (), *, transposed: bool = False) -> Verdict:
    """Check a whole backward pass together with a right forward pass, and show only the first failure.

    Parameters
    ----------
    backward : callable
        ``backward(grad_output, x, weight, stride, padding, dilation, groups) -> (grad_x, grad_weight, grad_bias)``.
    supports, transposed
        See :func:`check_forward`.

    Examples
    --------
    >>> def backward(g, x, weight, stride, padding, dilation, groups):
    ...     grad_x, grad_weight, grad_bias = Conv().backward(g, x, weight, stride, padding, dilation, groups)
    ...     return -grad_x, grad_weight, grad_bias
    >>> check_backward(backward).diagnoses[0].name
    'sign of the input gradient wrong'
    """
    right = ConvTranspose() if transposed else Conv()
    return _pass(backward, _report(right.forward, backward, supports, transposed))


@dataclass(frozen=True)
class SizesVerdict:
    """The result of :func:`check_logarithmic_sizes`; print it.

    Attributes
    ----------
    name : str
        The function that was checked.
    call : str
        The smallest case of the simplest kind that failed, and its outcome; empty if none failed.
    message : str
        The part of the rule that the answer breaks, and sizes that obey the rule.
    diagnoses : tuple of Diagnosis
        Known mistakes that explain the answers.
    """

    name: str
    call: str = ""
    message: str = ""
    diagnoses: tuple[Diagnosis, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no case failed."""
        return not self.call

    def __str__(self) -> str:
        if self.passed:
            return f"passed: {self.name} is right in all {len(DIVISIONS)} cases"
        if self.call.partition(" raised ")[2].startswith("NotImplementedError: "):
            return f"FAILED: {self.name} is not written yet"
        return "\n".join([f"FAILED: {self.name}", self.call, self.message, *named(self.diagnoses)])


def check_logarithmic_sizes(logarithmic_sizes: Callable[..., Any]) -> SizesVerdict:
    """Check ``logarithmic_sizes(c, n, base)``, which divides c channels into n sizes that shrink by the factor `base`.

    With base b they are near c·(b−1)/b^i for i = 1 … n−1, then c/b^(n−1): equal to these where b^(n−1) divides c, and
    otherwise at most one channel away. They sum to c, none is 0, and none is larger than the previous one. All sizes
    that obey this rule are right.

    Parameters
    ----------
    logarithmic_sizes : callable
        Returns n ints. It is called with base ≥ 2 and base^(n−1) ≤ c only.

    Examples
    --------
    >>> def logarithmic_sizes(c, n, base):
    ...     return [c * (base - 1) // base**i for i in range(1, n + 1)]
    >>> print(check_logarithmic_sizes(logarithmic_sizes))
    FAILED: logarithmic_sizes
    logarithmic_sizes(2, 2, 2) returned [1, 0]
    the sizes do not add up: their sum is 1, not 2 (1 left over); right is (1, 1)
    consistent with: divided on to the end. The sizes c·(b−1)/b^i for i = 1 … n do not add up: c/b^n channels are
        left over. The last size is c/b^(n−1), all that is left: for b = 2 the last size must come twice.
    >>> def logarithmic_sizes(c, n, base):
    ...     return [c * (base - 1) // base**i for i in range(1, n)] + [c // base ** (n - 1)]
    >>> verdict = check_logarithmic_sizes(logarithmic_sizes)
    >>> verdict.call, verdict.diagnoses[0].name
    ('logarithmic_sizes(3, 2, 2) returned [1, 1]', 'each size rounded for itself')

    Divisions without rounding come first, starting with those in base 2. The call shown is therefore the smallest of
    the simplest kind that fails.
    """
    name = name_of(logarithmic_sizes)
    answers: dict[Division, Sizes | None] = {}
    call, message = "", ""
    for division in DIVISIONS:
        sizes, happened, broken = _sizes_of(logarithmic_sizes, division)
        answers[division] = sizes
        if broken and not call:
            call = f"{name}({listed(division)}) {happened}"
            message = f"{broken}; right is {right_sizes(division)}"
    return SizesVerdict(name, call, message, diagnoses(answers) if call else ())


def _sizes_of(function: Callable[..., Any], division: Division) -> tuple[Sizes | None, str, str]:
    """Call a function; return its sizes, or None if there are none, the outcome in words, and the broken rule."""
    try:
        answer = function(*division)
    except Exception as error:  # any exception is for the answer's author to read
        return None, f"raised {raised(error)}", "it must return sizes"
    try:
        happened = f"returned {reprlib.repr(answer)}"
    except Exception:  # ints of thousands of digits cannot be written
        happened = f"returned a {type(answer).__name__} that cannot be printed"
    try:
        sizes = as_sizes(answer, most=division.n + 2)
    except OverflowError:
        return None, happened, "it must return a sequence of ints, and none absurdly large"
    except Exception:  # including exceptions of an answer's own iteration
        return None, happened, "it must return a sequence of ints"
    return sizes, happened, broken_rule(sizes, division)


def _report(
    forward: Callable[..., Any], backward: Callable[..., Any] | None, supports: Sequence[str], transposed: bool = False
) -> CheckReport:
    """Check the written functions, except on batches of no images, where a right convolution replaces them."""
    right = ConvTranspose() if transposed else Conv()
    checked = None if backward is None else _with_stand_in(backward, right.backward, 1)
    own = _with_stand_in(forward, right.forward, 0)
    return check_conv(own, checked, supports=supports, cases=60, pairs=False, transposed=transposed)


def _with_stand_in(written: Callable[..., Any], right: Callable[..., Any], where: int) -> Callable[..., Any]:
    """Return a function that calls the right one if x, the argument in that place, is empty.

    The traceback of an exception then ends in the written function, not in a library.
    """

    def function(*arguments: Any, **options: Any) -> Any:
        try:
            return (written if len(arguments[where]) else right)(*arguments, **options)
        except Exception as error:
            cut(error)
            raise

    return function


def _verdict(name: str, report: CheckReport, call: Callable[[Failure], str]) -> Verdict:
    """Return the verdict on a piece, with its own call in the smallest failing case."""
    shown = ""
    if report.failures:
        try:
            shown = call(report.failures[0])
        except NotImplementedError:  # the verdict says that it is not written yet
            shown = ""
    # A wrong size makes the right pieces fail, which is not a slip by the learner.
    slips = () if name == "out_size" else slips_in(report)
    return Verdict(name, report, shown, slips, piece=True)


def _pass(function: Callable[..., Any], report: CheckReport) -> Verdict:
    """Return the verdict on a whole pass, with its call in the smallest failing case."""
    name, call = name_of(function), ""
    if report.failures:
        failure = report.failures[0]
        case = failure.case
        arrays = "x, weight, " + ("None" if case.bias is None else "bias")
        arrays = arrays if failure.part == "y" else "grad_output, x, weight"
        integers = dict(zip(("stride", "padding", "dilation", "groups"), case.integers, strict=True)) | case.options
        call = f"{name}({arrays}, {', '.join(f'{key}={value}' for key, value in integers.items())})"
    return Verdict(name, report, call, slips_in(report))


def _axes(size: Any, kernel: Any, p: Steps) -> list[tuple[int, ...]]:
    """Return (n, k, stride, padding, dilation) of each axis."""
    pads = [before for before, _ in p.padding]
    return list(zip(size, kernel, p.stride, pads, p.dilation, strict=True))


def _steps(case: Case) -> Steps:
    return steps(*case.integers)
