r"""Check the gradient of any differentiable function against differences of the function itself.

Complex numbers follow PyTorch's conventions: ⟨a, b⟩ = Σ conj(a)·b, L = Re⟨g, f(x)⟩, and the gradient of an input is
∂L/∂Re x + i·∂L/∂Im x. So a change of x by a small v changes L by Re⟨gradient, v⟩.

One of two methods is chosen for each input:

- If f is affine in the input and all numbers are whole, (L(x + e) − L(x − e)) / 2 is the derivative without any
  error, and must equal the gradient exactly. Convolutions and matrix products are checked this way.
- Otherwise differences with steps h, h/2, h/4, … are extrapolated to h = 0 (Ridders), in float64. The table of
  extrapolations gives an estimate of its error. The tolerance is twice this estimate plus a bound on rounding, which
  is relative to the subtracted numbers. There is no absolute floor that could hide a wrong sign on a small gradient.

NumPy does the comparison. The two functions receive arrays of the inputs' own module, on the inputs' devices.

References
----------
- C. Ridders, "Accurate computation of F′(x) and F′(x)F″(x)", Advances in Engineering Software 4 (1982).
- N. Higham, T. Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41 (2019): the
  errors of n roundings hardly ever exceed 6√n·u.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from refconv.arrays import array_namespace, device, module_of, to_numpy
from refconv.integers import as_float, as_int, shown
from refconv.testing.oracles.definition import Array

DTYPES = ("float16", "float32", "float64", "complex64", "complex128")
DIRECTIONS = 6  # random directions, which cover the elements that are not checked one by one
LEVELS = 64  # maximum number of halvings of the step
COLUMNS = 6  # of the table of extrapolations: orders h², h⁴, …, h¹²


class GradcheckResult(NamedTuple):
    """Result of a successful :func:`gradcheck`.

    Attributes
    ----------
    exact : tuple of bool
        For each input, whether the comparison was exact; False also if the gradient was None.
    worst : float
        The largest error / tolerance; 0 if everything was equal.
    elements : int
        Number of elements checked one by one.
    """

    exact: tuple[bool, ...]
    worst: float
    elements: int


def gradcheck(
    function: Callable[..., Any],
    vjp: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    step: float = 0.05,
    max_elements: int = 200,
    seed: int = 0,
) -> GradcheckResult:
    r"""Assert that a backward pass computes the gradient of a differentiable function.

    .. math:: \bar x_j = \frac{\partial L}{\partial \mathrm{Re}\, x_j}
              + i \frac{\partial L}{\partial \mathrm{Im}\, x_j}, \qquad L = \mathrm{Re} \sum \overline{g} \cdot f(x)

    Each input is checked with the others fixed. If the function is affine in it and all values are whole numbers, the
    comparison is exact, so prefer small whole numbers where the function allows. Otherwise the gradient must agree
    with extrapolated differences of float64 (complex128) copies, within their error estimate and rounding. Gradients of
    a narrower type are compared in float64 and, if whole numbers are exact in the type, in the type itself.

    The first calls are function, vjp, function, vjp, all with equal arguments. Their results must be equal too: a `vjp`
    that adds to a buffer of an earlier call is wrong.

    Parameters
    ----------
    function : callable
        ``function(*inputs) -> array``: an array of NumPy, CuPy, PyTorch or array_api_strict, or anything that
        ``numpy.asarray`` accepts; or a tuple of these, of None and of such tuples. A function that refuses float64
        copies of its inputs with a TypeError or a RuntimeError is checked in the given type.
    vjp : callable
        ``vjp(grad_output, *inputs) -> gradients``, one per input, of the input's shape and data type, or None to omit
        the check of a gradient. For a single input it may return the gradient itself. If `function` returns a tuple,
        `grad_output` is a tuple of the same type and form.
    inputs : sequence of array
        Floating-point arrays, real or complex, with finite values; the function must be smooth around them. If they
        belong to CuPy, PyTorch or array_api_strict, both functions receive such arrays, `grad_output` included, on the
        same devices; PyTorch arrays keep ``requires_grad``. Other inputs become NumPy arrays. Prefer random numbers:
        constant ones hide mistakes.
    step : float
        First step of the differences that are extrapolated, relative to the size of the numbers of the input.
    max_elements : int
        Maximum number of elements of an input that are checked one by one. In a larger input they are drawn at random,
        and random directions cover the others.
    seed : int
        Chooses the output's gradient, the elements and the directions.

    Returns
    -------
    GradcheckResult
        Which comparisons were exact, the largest error / tolerance, and the number of elements.

    Raises
    ------
    AssertionError
        If a gradient is wrong, is not finite, has the wrong shape or type or is missing; if one of the two functions
        changes its arguments or returns another result for equal arguments; or if the derivative cannot be found (the
        function is not smooth, or rounding hides the change). The message names the input, the element, both values and
        whether the comparison was exact.
    TypeError, ValueError
        If an argument breaks a rule, for example if inputs contain integers or belong to two array modules.

    Warns
    -----
    UserWarning
        If the check passes with an input of several elements that are all equal. With ones, a flipped kernel or a
        missing factor changes nothing.

    Notes
    -----
    A derivative that vanishes in the rounding of the function's values, such as that of 1e20 + x, cannot be checked.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.testing.gradcheck import gradcheck
    >>> a, b = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([2.0, 5.0])
    >>> gradcheck(np.matmul, lambda g, a, b: (np.outer(g, b), a.T @ g), (a, b))
    GradcheckResult(exact=(True, True), worst=0.0, elements=6)
    >>> gradcheck(np.exp, lambda g, x: g * np.exp(x), (b,)).exact
    (False,)
    >>> gradcheck(np.matmul, lambda g, a, b: (np.outer(g, b), a @ g), (a, b))
    Traceback (most recent call last):
        ...
    AssertionError: the gradient of inputs[1] is wrong at element (1,): expected 13.0, got 18.0 (exact comparison;
    wrong at 2 of 2 elements checked)

    A double backward is the vjp of a backward pass, which returns a tuple:

    >>> from refconv import conv_backward, conv_double_backward
    >>> g, x, w = np.array([[[2.0, 1.0]]]), np.array([[[3.0, 1.0, 4.0]]]), np.array([[[5.0, -1.0]]])
    >>> gradcheck(conv_backward, conv_double_backward, (g, x, w)).exact
    (True, True, True)

    A backward pass that adds to its buffer is right only the first time:

    >>> total = np.zeros(2)
    >>> def accumulating(g, x):
    ...     total[:] += 2 * g
    ...     return total
    >>> gradcheck(lambda x: 2 * x, accumulating, (b,))
    Traceback (most recent call last):
        ...
    AssertionError: vjp must return equal results for equal arguments; got 10.0, then 20.0 at element (0,) of the
    gradient of inputs[0] (doubled everywhere: it adds to a buffer of the first call)
    """
    for name, value in (("function", function), ("vjp", vjp)):
        if not callable(value):
            raise TypeError(f"{name} must be callable; got {shown(value)}")
    arrays, kinds = _check_inputs(inputs)
    pair = _Pair(function, vjp, kinds)
    step = as_float(step, "step", above=0, below=1)
    count, seed = as_int(max_elements, "max_elements", 1), as_int(seed, "seed", 0)
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):  # steps may leave the function's domain; the result is then not finite
        given = _evaluate(pair, arrays, rng)
        _check_equal(given, _evaluate(pair, arrays, given.grad_output))
        wide = _widened(pair, arrays, given)
        exact, worst, elements = [], 0.0, 0
        for j, gradient in enumerate(wide.gradients):
            if gradient is None:
                exact.append(False)
                continue
            is_exact, ratio, number = _check_input(wide, given, j, step, count, rng)
            exact.append(is_exact)
            worst, elements = max(worst, ratio), elements + number
    for j, x in enumerate(arrays):
        if x.size > 1 and (x == x.flat[0]).all():
            warnings.warn(
                f"inputs[{j}] is constant, {x.flat[0]} everywhere: a flipped kernel or a missing factor may pass; use "
                "random numbers",
                stacklevel=2,
            )
    return GradcheckResult(tuple(exact), worst, elements)


# --- Calling the two functions ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """The module and the device of an array, and whether PyTorch records operations on it."""

    xp: Any = np
    device: Any = "cpu"
    requires_grad: bool = False

    @classmethod
    def of(cls, value: Any) -> _Kind | None:
        """Return the kind of an array, or None for anything else, such as a list."""
        try:
            return cls(array_namespace(value), device(value), getattr(value, "requires_grad", False))
        except TypeError:
            return None

    def make(self, array: Array) -> Any:
        """Return a new array of this kind with the values of a NumPy array."""
        made = self.xp.asarray(array.copy(), device=self.device)
        return made.requires_grad_() if self.requires_grad else made


@dataclass(frozen=True)
class _Pair:
    """The two functions, and the kind of each input."""

    function: Callable[..., Any]
    vjp: Callable[..., Any]
    kinds: tuple[_Kind, ...]

    def make(self, arrays: Sequence[Array]) -> list[Any]:
        """Return new inputs for a call."""
        return [kind.make(array) for kind, array in zip(self.kinds, arrays, strict=True)]

    def kind_of_gradient(self, y: Any) -> _Kind:
        """Return the kind of the output's gradient: the inputs' module, on the device of y."""
        kind = _Kind.of(y)
        first = self.kinds[0] if kind is None or kind.xp is not self.kinds[0].xp else kind
        return replace(first, requires_grad=False)


@dataclass(frozen=True)
class _Run:
    """One evaluation: the inputs, f of them, the output's gradient, and the gradients that vjp returned."""

    pair: _Pair
    inputs: tuple[Array, ...]
    y: Array
    grad_output: Array
    gradients: tuple[Array | None, ...]

    @property
    def unit(self) -> float:
        """Unit roundoff of the least precise type in use."""
        arrays = (*self.inputs, self.y, *(g for g in self.gradients if g is not None))
        return max(float(np.finfo(a.dtype).eps) for a in arrays) / 2

    @property
    def growth(self) -> float:
        """6√n: assumed maximum, in units, of the rounding errors of sums over all numbers."""
        return 6 * math.sqrt(sum(a.size for a in self.inputs) + self.y.size + 1)

    def value(self, j: int, x: Array) -> Array:
        """Return f with input j replaced, in float64 or complex128; NaN where f refuses it."""
        arrays = [x if i == j else a for i, a in enumerate(self.inputs)]
        try:
            y = _result(self.pair.function(*self.pair.make(arrays)))
        except (ValueError, ArithmeticError):  # a step has left the domain
            return np.full(self.y.shape, np.nan)
        _check_shape(self.y.shape, y.shape)
        return _wide(y)


def _check_shape(before: tuple[int, ...], now: tuple[int, ...]) -> None:
    if before != now:
        raise AssertionError(f"function must keep the shape of its result; got {before} and {now}")


def _numpy(value: Any) -> Array:
    """Return a new NumPy array from an array of any module, or from anything that NumPy understands."""
    return np.array(value if _Kind.of(value) is None else to_numpy(value))


def _array(value: Any, name: str) -> Array:
    """Return a copy of a result as an array of numbers."""
    try:
        array = _numpy(value)
    except Exception as error:
        message = f"{name} must return a value that numpy.asarray accepts; got {shown(value)}: {error}"
        raise AssertionError(message) from None
    if array.dtype.name not in DTYPES:
        raise AssertionError(f"{name} must return floating-point numbers; got data type {array.dtype}")
    return array


def _leaves(value: Any) -> list[Any]:
    """Return the members of a tuple and of the tuples in it, without None; for any other value, the value alone."""
    if isinstance(value, tuple):
        return [leaf for member in value for leaf in _leaves(member)]
    return [] if value is None else [value]


def _replaced(value: Any, leaves: Iterator[Any]) -> Any:
    """Return a value with its leaves replaced by others, in order."""
    if isinstance(value, tuple):
        members = [_replaced(member, leaves) for member in value]
        return type(value)(*members) if hasattr(value, "_fields") else tuple(members)
    return None if value is None else next(leaves)


def _result(returned: Any) -> Array:
    """Return a function's result as one array; the members of a tuple are flattened and joined."""
    if not isinstance(returned, tuple):
        return _array(returned, "function")
    arrays = [_array(leaf, "function").ravel() for leaf in _leaves(returned)]
    if not arrays:
        raise AssertionError(f"function must return at least one array; got {shown(returned)}")
    return np.concatenate(arrays)


def _split(joined: Array, returned: Any) -> list[Array]:
    """Split an array such as :func:`_result` returns into the shapes and data types of the function's result."""
    if not isinstance(returned, tuple):
        return [joined]
    leaves = [_numpy(leaf) for leaf in _leaves(returned)]
    parts = np.split(joined, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return [
        (part if leaf.dtype.kind == "c" else part.real).reshape(leaf.shape).astype(leaf.dtype)
        for part, leaf in zip(parts, leaves, strict=True)
    ]


def _wide(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _unchanged(name: str, before: Sequence[Array], after: Sequence[Any], names: Sequence[str]) -> None:
    for what, a, b in zip(names, before, map(_numpy, after), strict=True):
        if a.shape != b.shape or a.tobytes() != b.tobytes():
            raise AssertionError(f"{name} changes {what}; it must not change its arguments")


def _evaluate(pair: _Pair, arrays: tuple[Array, ...], gradient: np.random.Generator | Array) -> _Run:
    """Call both functions once; the output's gradient is drawn, or the given one, in the output's data type."""
    names = [f"inputs[{j}]" for j in range(len(arrays))]
    inputs = pair.make(arrays)
    returned = pair.function(*inputs)
    y = _result(returned)
    _unchanged("function", arrays, inputs, names)
    if not np.isfinite(y).all():
        raise AssertionError(f"function must be finite at its inputs; its result contains {_first_not_finite(y)}")
    if isinstance(gradient, np.random.Generator):
        grad_output = _whole(gradient, y.shape, y.dtype, (2, 3, 5))
    else:
        _check_shape(gradient.shape, y.shape)
        grad_output = gradient.astype(y.dtype)
    parts, inputs = _split(grad_output, returned), pair.make(arrays)
    given = [pair.kind_of_gradient(leaf).make(part) for leaf, part in zip(_leaves(returned), parts, strict=True)]
    gradients = _gradients(pair.vjp(_replaced(returned, iter(given)), *inputs), arrays)
    _unchanged("vjp", (*parts, *arrays), (*given, *inputs), [*["grad_output"] * len(parts), *names])
    return _Run(pair, arrays, y, grad_output, gradients)


def _check_equal(first: _Run, second: _Run) -> None:
    """Check that two calls with equal arguments returned equal results."""
    results = [("function", "the result", first.y, second.y)]
    for j, (a, b) in enumerate(zip(first.gradients, second.gradients, strict=True)):
        if (a is None) != (b is None):
            raise AssertionError(f"vjp must return None for inputs[{j}] in every call or in none")
        if a is not None:
            results.append(("vjp", f"the gradient of inputs[{j}]", a, b))
    for name, what, a, b in results:
        if np.array_equal(a, b):
            continue
        where = tuple(int(i) for i in np.argwhere(a != b)[0])
        doubled = "doubled everywhere: it adds to a buffer of the first call"
        hint = doubled if np.array_equal(2 * a, b) else "are there random numbers, or a buffer of earlier calls?"
        raise AssertionError(
            f"{name} must return equal results for equal arguments; got {a[where]}, then {b[where]} at element {where} "
            f"of {what} ({hint})"
        )


def _widened(pair: _Pair, arrays: tuple[Array, ...], given: _Run) -> _Run:
    """Evaluate in float64; return the given run if it is in float64 already, or if the function refuses float64."""
    for j, (a, gradient) in enumerate(zip(arrays, given.gradients, strict=True)):
        if gradient is not None and gradient.dtype != a.dtype:
            raise AssertionError(f"the gradient of inputs[{j}] must have its data type {a.dtype}; got {gradient.dtype}")
    wide = tuple(map(_wide, arrays))
    if all(a.dtype == w.dtype for a, w in zip(arrays, wide, strict=True)):
        return given
    try:
        return _evaluate(pair, wide, given.grad_output)
    except (TypeError, RuntimeError):  # PyTorch raises a RuntimeError for operands of two types
        return given


def _gradients(returned: Any, arrays: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """Check the gradients that vjp returned: their number and shapes, and that they are finite."""
    n = len(arrays)
    if not isinstance(returned, list | tuple):
        if n > 1:
            got = f"one {type(returned).__name__}"
            raise AssertionError(f"vjp must return a sequence of {n} gradients, one per input; got {got}")
        returned = (returned,)
    if len(returned) != n:
        raise AssertionError(f"vjp must return {n} gradients, one per input; got {len(returned)}")
    if all(value is None for value in returned):
        raise AssertionError("vjp must return at least one gradient to check; got only None")
    gradients = tuple(None if v is None else _array(v, f"vjp, for inputs[{j}],") for j, v in enumerate(returned))
    for j, (gradient, a) in enumerate(zip(gradients, arrays, strict=True)):
        if gradient is None:
            continue
        if gradient.shape != a.shape:
            raise AssertionError(f"the gradient of inputs[{j}] must have its shape {a.shape}; got {gradient.shape}")
        if not np.isfinite(gradient).all():
            bad = _first_not_finite(gradient)
            raise AssertionError(f"the gradient of inputs[{j}] must be finite; it contains {bad}")
    return gradients


def _first_not_finite(array: Array) -> str:
    where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    return f"{array[where]} at element {where}"


# --- Directions ------------------------------------------------------------------------------------------------------


def _whole(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, sizes: Sequence[int]) -> Array:
    """Return random whole numbers with these absolute values; complex numbers have two such parts."""
    values = np.asarray(rng.choice(sizes, shape) * rng.choice((-1, 1), shape)).astype(dtype)
    if values.dtype.kind == "c":
        values = values + np.asarray(1j * rng.choice(sizes, shape) * rng.choice((-1, 1), shape)).astype(dtype)
    return np.asarray(values, dtype)


def _are_whole(*arrays: Array) -> bool:
    """Return whether all numbers are whole, and small enough that large sums are exact."""
    parts = [part for a in arrays for part in (a.real, a.imag)]
    return all(bool(((part == np.rint(part)) & (np.abs(part) <= 2**30)).all()) for part in parts)


def _moved(x: Array, v: Array, t: float) -> Array:
    """Return x + t·v in the data type of x, a new array."""
    return np.asarray(x + np.asarray(t * v).astype(x.dtype), x.dtype)


def _is_affine(run: _Run, j: int, directions: Sequence[Array]) -> bool:
    """Return whether y(t) = f(x + t·v) is y(0) + t·(y(1) − y(0)) exactly, for whole and half t and some directions."""
    x, y = run.inputs[j], _wide(run.y)
    for v in directions:
        slope = run.value(j, _moved(x, v, 1)) - y
        if not _are_whole(slope):
            return False
        for t in (-1, 2, -2, 0.5, -0.5):  # ±1 alone would miss odd terms: hence ±2 and the halves
            if not np.array_equal(run.value(j, _moved(x, v, t)), y + t * slope):
                return False
    return True


class _Found(NamedTuple):
    """A derivative along a direction, with the parts of the tolerance for the gradient."""

    value: float
    error: float  # estimated error of the extrapolation
    rounding: float
    hidden: Array  # for each output that did not change, the change that rounding may have hidden
    size: float  # Σ|g||∂y|: the sum of the derivative's absolute terms

    @property
    def tolerance(self) -> float:
        return 2 * self.error + self.rounding

    @property
    def doubt(self) -> float:
        """The tolerance if all outputs, even unchanged ones, depended on the elements."""
        return self.tolerance + float(self.hidden.sum())


def _exact_derivative(run: _Run, j: int, v: Array) -> _Found | None:
    """Return the central difference with step 1; None if f is not affine along v after all."""
    x, y = run.inputs[j], _wide(run.y)
    plus, minus = run.value(j, _moved(x, v, 1)), run.value(j, _moved(x, v, -1))
    if not (_are_whole(plus, minus) and np.array_equal(plus - y, y - minus)):
        return None
    terms = np.conj(_wide(run.grad_output)) * (plus - y)
    return _Found(float(terms.real.sum()), 0, 0, np.zeros(y.shape), float(np.abs(terms).sum()))


def _derivative(run: _Run, j: int, v: Array, h: float) -> _Found | None:
    """Return the extrapolated derivative along v with its error estimate; None if f is not finite around x."""
    x, g, rate = run.inputs[j], _wide(run.grad_output), run.growth * run.unit
    far = float(np.abs(x[v != 0]).max(initial=0))
    best: _Found | None = None
    above: list[float] = []  # the previous row of Ridders' table
    for _ in range(LEVELS):
        plus, minus = _moved(x, v, h), _moved(x, v, -h)
        # The distance between the rounded points: exact along one element, otherwise by projection.
        width = float(np.vdot(v, _wide(plus) - _wide(minus)).real) / float(np.vdot(v, v).real)
        if not width > 0:
            break
        plus, minus = run.value(j, plus), run.value(j, minus)
        change = plus - minus
        difference = float((np.conj(g) * change).real.sum()) / width
        if math.isfinite(difference):
            values = np.abs(g) * (np.abs(plus) + np.abs(minus)) / width
            size = float((np.abs(g) * np.abs(change)).sum()) / width
            # Rounding of the subtracted values (doubled by extrapolation), of the sum, and of the points themselves.
            rounding = 2 * rate * float(values[change != 0].sum()) + rate * size * (1 + far / h * (v[v != 0].size > 1))
            hidden = 2 * run.unit * values * (change == 0)
            row = [difference]
            for order, previous in enumerate(above[:COLUMNS], 1):
                row.append(row[-1] + (row[-1] - previous) / (4**order - 1))
                error = max(abs(row[-1] - row[-2]), abs(row[-1] - previous))
                # Two differences may agree by chance.
                if len(above) > 1 and (best is None or error + rounding < best.error + best.rounding):
                    best = _Found(row[-1], error, rounding, hidden, size)
            above = row
            if best is not None and (best.error <= max(rounding, 1e-10 * abs(best.value)) or rounding > best.tolerance):
                break
        else:
            above = []
        h /= 2
    return best


# --- Checking one input ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Verdict:
    """The comparison of one element: expected and found values, and error / tolerance."""

    where: tuple[int, ...]
    expected: complex
    actual: complex
    tolerance: float

    @property
    def ratio(self) -> float:
        error = abs(self.expected - self.actual)
        return error / self.tolerance if self.tolerance else math.inf if error else 0.0


class _Judge:
    """Compares the gradient of one input with derivatives along directions."""

    def __init__(self, run: _Run, given: _Run, j: int, step: float, exact: bool) -> None:
        gradient = run.gradients[j]
        assert gradient is not None
        self.run, self.given, self.j, self.step, self.exact = run, given, j, step, exact
        self.x, self.gradient = run.inputs[j], _wide(gradient)
        sizes = np.abs(_wide(self.x))
        top = float(sizes.max(initial=0)) or 1.0  # squares of very large or small numbers overflow or underflow
        self.scale = top * float(np.sqrt(((sizes / top) ** 2).mean())) if sizes.any() else 1.0
        self.largest = float(np.abs(self.gradient).max(initial=0))
        self.level = float((np.abs(_wide(run.grad_output)) * np.abs(_wide(run.y))).sum())

    def claimed(self, v: Array) -> float:
        """Return Re⟨gradient, v⟩."""
        return float((np.conj(self.gradient) * v).real.sum())

    def derivative(self, v: Array) -> _Found | None:
        """Return the derivative along v; None if it should be exact but the function is not affine after all."""
        if self.exact:
            return _exact_derivative(self.run, self.j, v)
        scale = max(self.scale, float(np.abs(self.x[v != 0]).max(initial=0)))
        scale = 2.0 ** math.floor(math.log2(scale)) / float(np.abs(v).max())
        found, claimed = _derivative(self.run, self.j, v, self.step * scale), self.claimed(v)
        if found is None or found.doubt > 1e-6 * abs(found.value):
            # The numbers may be small only by chance, such as arguments of exp near 0.
            other = _derivative(self.run, self.j, v, self.step / float(np.abs(v).max()))
            found = min((f for f in (found, other) if f), key=lambda f: f.doubt, default=None)
        if found is not None and abs(found.value - claimed) > found.tolerance:
            found = self._reconsidered(v, found, claimed)
        if found is None or self._is_undecided(v, found, claimed):
            raise AssertionError(
                f"the derivative of function with respect to inputs[{self.j}] cannot be found {self._place(v)}: the "
                f"function is not smooth there, or is random, or rounding hides the change"
                + (f" ({found.value:.8g} ± {found.tolerance:.1e}; vjp gives {claimed:.8g})" if found else "")
            )
        return found

    def _reconsidered(self, v: Array, found: _Found, claimed: float) -> _Found:
        """Rule out that the step was too long, or that rounding hid the change, before calling a gradient wrong."""
        other = _derivative(self.run, self.j, v, self.step * self.scale / 100 / float(np.abs(v).max()))
        if other is not None and abs(other.value - found.value) > other.doubt + found.doubt:
            found = other  # they contradict each other, so the longer step skipped details
        if abs(found.value - claimed) > found.tolerance and found.hidden.any():
            # An output that did not change is independent of these elements, or changes by less than its rounding. NaN
            # distinguishes the two, because it reaches every output that depends on it.
            poisoned = self.run.value(self.j, _moved(self.x, np.where(v != 0, np.nan, 0), 1))
            found = found._replace(rounding=found.rounding + float(found.hidden[~np.isfinite(poisoned)].sum()))
        return found

    def _is_undecided(self, v: Array, found: _Found, claimed: float) -> bool:
        """Return whether the tolerance, relative to the largest gradient, would accept anything."""
        largest = max(self.largest * float(np.abs(v).max()), abs(found.value), abs(claimed))
        vanishing = max(largest, found.tolerance) <= 1e-8 * self.level / max(self.scale, 1)
        return found.tolerance > 1e-3 * largest and not vanishing

    def _place(self, v: Array) -> str:
        places = np.argwhere(v != 0)
        where = f"at element {tuple(int(i) for i in places[0])}"
        return where if len(places) == 1 else "along a random direction"

    def agrees(self, v: Array) -> bool | None:
        """Return whether the gradient agrees along v; None if the function is not affine after all."""
        found = self.derivative(v)
        if found is None:
            return None
        return abs(found.value - self.claimed(v)) <= found.tolerance and self._agrees_as_given(v, found) is None

    def _agrees_as_given(self, v: Array, found: _Found) -> float | None:
        """Return the derivative along v by the gradient in the inputs' own type, if it is exact there and wrong."""
        gradient = self.given.gradients[self.j]
        if gradient is None or not self.exact or found.size * 2 * self.given.unit > 1:
            return None
        claimed = float((np.conj(_wide(gradient)) * v).real.sum())
        return claimed if claimed != found.value else None

    def element(self, where: tuple[int, ...]) -> _Verdict | None:
        """Compare one element, or both parts of a complex one; None if the function is not affine after all."""
        expected, actual, tolerance = 0j, 0j, 0.0
        for unit in (1, 1j) if self.x.dtype.kind == "c" else (1,):
            v = np.zeros(self.x.shape, _wide(self.x).dtype)
            v[where] = unit
            found = self.derivative(v)
            if found is None:
                return None
            claimed = self._agrees_as_given(v, found)
            expected += unit * found.value
            actual += unit * (self.claimed(v) if claimed is None else claimed)
            tolerance = math.hypot(tolerance, found.tolerance)
        return _Verdict(where, expected, actual, tolerance)

    def located(self, v: Array) -> tuple[int, ...] | None:
        """Return an element that makes the gradient disagree along v, found by halving; None if no half does."""
        places = np.argwhere(v != 0)
        while len(places) > 1:
            middle = len(places) // 2
            for half in (places[:middle], places[middle:]):
                part = np.zeros_like(v)
                part[tuple(half.T)] = v[tuple(half.T)]
                if self.agrees(part) is False:
                    places = half
                    break
            else:
                return None
        return tuple(int(i) for i in places[0])


def _check_input(
    run: _Run, given: _Run, j: int, step: float, count: int, rng: np.random.Generator
) -> tuple[bool, float, int]:
    """Check one gradient; return whether it was exact, the largest error / tolerance, and the number of elements."""
    x = run.inputs[j]
    chosen = np.sort(rng.permutation(x.size)[:count])
    wheres = [tuple(int(i) for i in np.unravel_index(n, x.shape)) for n in chosen]
    directions = [_whole(rng, x.shape, _wide(x).dtype, (1, 2, 3)) for _ in range(DIRECTIONS)]
    # Whole numbers stay whole under these steps; two directions show whether f is affine.
    exact = _are_whole(*run.inputs, run.y) and _is_affine(run, j, directions[:2])
    judge = _Judge(run, given, j, step, exact)
    verdicts = [judge.element(where) for where in wheres]
    if None in verdicts:
        judge = _Judge(run, given, j, step, exact=False)
        verdicts = [judge.element(where) for where in wheres]
    compared = [verdict for verdict in verdicts if verdict is not None]
    _raise_if_wrong(judge, compared)
    for v in directions if x.size > count else ():
        agrees = judge.agrees(v)
        if agrees is None:
            judge = _Judge(run, given, j, step, exact=False)
            agrees = judge.agrees(v)
        if not agrees:
            where = judge.located(v)
            found = None if where is None else judge.element(where)
            _raise_if_wrong(judge, [] if found is None else [found])
            _raise_along(judge, v)
    return judge.exact, max((verdict.ratio for verdict in compared), default=0.0), len(wheres)


def _raise_if_wrong(judge: _Judge, verdicts: Sequence[_Verdict]) -> None:
    wrong = [verdict for verdict in verdicts if verdict.ratio > 1]
    if not wrong:
        return
    worst = max(wrong, key=lambda verdict: (verdict.ratio, abs(verdict.expected - verdict.actual)))
    is_complex = judge.x.dtype.kind == "c"
    expected, actual = (v if is_complex else v.real for v in (worst.expected, worst.actual))
    how = "exact comparison" if judge.exact else f"tolerance {worst.tolerance:.1e}, off by {worst.ratio:.3g} times that"
    raise AssertionError(
        f"the gradient of inputs[{judge.j}] is wrong at element {worst.where}: expected {expected}, got {actual} "
        f"({how}; wrong at {len(wrong)} of {len(verdicts)} elements checked){_hint(verdicts)}"
    )


def _raise_along(judge: _Judge, v: Array) -> None:
    found = judge.derivative(v)
    assert found is not None
    how = "exact comparison" if judge.exact else f"tolerance {found.tolerance:.1e}"
    raise AssertionError(
        f"the gradient of inputs[{judge.j}] is wrong along a random direction, but at no single element: "
        f"expected {found.value}, got {judge.claimed(v)} ({how})"
    )


def _hint(verdicts: Sequence[_Verdict]) -> str:
    """Return the common mistake whose correction would make every element right, or an empty string."""
    mistakes: dict[str, Callable[[complex], complex]] = {
        "its sign is wrong": lambda z: -z,
        "it is the conjugate of the right gradient": lambda z: z.conjugate(),
    }
    for name, repair in mistakes.items():
        if all(replace(verdict, actual=repair(verdict.actual)).ratio <= 1 for verdict in verdicts):
            return f"; {name}"
    return ""


# --- The arguments ---------------------------------------------------------------------------------------------------


def _check_inputs(inputs: Any) -> tuple[tuple[Array, ...], tuple[_Kind, ...]]:
    """Return copies of the inputs as NumPy arrays, and the kind of each input."""
    if not isinstance(inputs, list | tuple):
        raise TypeError(f"inputs must be a list or tuple of arrays; got {shown(inputs)}")
    if not inputs:
        raise ValueError("inputs must contain at least one array; got none")
    kinds = [_Kind.of(value) for value in inputs]
    given = {f"inputs[{j}]": value for j, value in enumerate(inputs) if kinds[j] is not None}
    if given:
        module_of(given)
    common = next((replace(kind, requires_grad=False) for kind in kinds if kind is not None), _Kind())
    arrays = []
    for j, value in enumerate(inputs):
        try:
            array = _numpy(value)
        except Exception as error:
            message = f"inputs[{j}] must be a value that numpy.asarray accepts; got {shown(value)}: {error}"
            raise TypeError(message) from None
        if array.dtype.name not in DTYPES:
            raise TypeError(
                f"inputs[{j}] must contain floating-point numbers, real or complex ({', '.join(DTYPES)}); got "
                f"{array.dtype}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"inputs[{j}] must be finite; it contains {_first_not_finite(array)}")
        arrays.append(array)
    return tuple(arrays), tuple(common if kind is None else kind for kind in kinds)
