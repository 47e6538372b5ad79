"""Whether a function of two operands is linear in each, and the same at every call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from refconv.testing.oracles.definition import Array

Measure = Callable[[Array, Array], Array]
"""``measure(a, b)`` calls the function and returns its result as a new array; it may raise :class:`Refused`."""


class Refused(Exception):  # noqa: N818  (not an error of ours)
    """The function cannot be read out; the message is a sentence about it."""

    def __init__(self, text: str, linear: bool | None = None, inputs: tuple[Array, ...] = ()) -> None:
        super().__init__(text)
        self.text, self.linear, self.inputs = text, linear, inputs


def linearity(
    measure: Measure,
    a_shape: Sequence[int],
    b_shape: Sequence[int],
    names: tuple[str, str, str],
    dtype: np.dtype[np.generic],
) -> bool:
    """Try whether f is the same at every call and linear in both operands.

    Parameters
    ----------
    measure : callable
        ``measure(a, b) -> result``.
    a_shape, b_shape : sequence of int
        Shapes of the operands.
    names : tuple of str
        Of a, of b and of the result, for messages.
    dtype : numpy.dtype
        Data type of the operands.

    Returns
    -------
    bool
        Whether f(a, 0) is not zero, so that f is affine in b.

    Raises
    ------
    Refused
        If f is not linear in a, or not affine in b, or gives something else at the second call.

    Examples
    --------
    >>> shapes, names, dtype = ((1,), (1,)), ("w", "x", "y"), np.dtype("float64")
    >>> linearity(lambda a, b: a * b, *shapes, names, dtype), linearity(lambda a, b: a * (b + 1), *shapes, names, dtype)
    (False, True)
    """
    rng = np.random.default_rng(5)
    a, b = draw(rng, a_shape, dtype), [draw(rng, b_shape, dtype) for _ in range(2)]
    first, again = measure(a, b[0]), measure(a, b[0])
    if not same(first, again, dtype):
        raise Refused(
            unsteady(first, again, lambda: measure(a, b[0]), lambda: measure(2 * a, b[0])), False, (b[0], b[0])
        )
    other = measure(a, b[1])
    if first.any() and same(first, other, dtype) and same(first, measure(a, 2 * b[0]), dtype):
        raise Refused(constant(names[1]), None, (b[0], b[1]))
    zero_b = measure(a, 0 * b[0])
    measure(a, b[1])
    check_memory(zero_b, measure(a, 0 * b[0]), names[1], names[2])
    large = draw(rng, b_shape, dtype, largest(dtype))
    for u in (b[1], large, *([] if dtype.kind == "u" else [-b[0]])):
        check_linear(lambda v: measure(a, v), b[0], u, zero_b, (names[1], names[0], names[2]), dtype)
    a2, large = draw(rng, a_shape, dtype), draw(rng, a_shape, dtype, largest(dtype))
    zero_a = measure(0 * a, b[0])
    if zero_a.any():
        other = measure(a2, b[0])
        if same(zero_a, first, dtype) and same(zero_a, other, dtype):
            raise Refused(constant(names[0]), None, (a, 0 * a))
        check_memory(zero_a, measure(0 * a, b[0]), names[0], names[2])
        where, got, _ = differ(zero_a, 0 * zero_a)
        raise Refused(f"With {names[0]} all zero, {names[2]} is {got} at {where}: it is not a product of "
                      f"{names[0]} and {names[1]}.", False, (0 * a, b[0]))  # fmt: skip
    for u in (a2, large, *([] if dtype.kind == "u" else [-a])):
        check_linear(lambda v: measure(v, b[0]), a, u, zero_a, (names[0], names[1], names[2]), dtype)
    return bool(zero_b.any())


def constant(name: str) -> str:
    """Return the sentence on an operand that changes nothing."""
    text = f"Calls with three different {name} gave the same result"
    return f"{text}: it does not read {name}, or uses one of an earlier call."


def check_memory(first: Array, second: Array, name: str, result: str) -> None:
    """Raise Refused if two results for an operand of zeros differ."""
    if not np.array_equal(first, second):
        where, one, two = differ(first, second)
        text = f"With {name} all zero, {result} at {where} is {one} after some calls and {two} after others"
        raise Refused(f"{text}: it keeps values of earlier calls.", False)


def unsteady(first: Array, second: Array, again: Callable[[], Array], twice: Callable[[], Array]) -> str:
    """Describe two different results of the same call.

    Parameters
    ----------
    first, second : numpy.ndarray
        The results of two calls with the same arguments, one after the other.
    again : callable
        Makes this call a third time.
    twice : callable
        Makes it with an operand twice as large.

    Returns
    -------
    str
        Whether every call adds its result to the earlier ones, or else that the reason is unknown.
    """
    where, one, two = differ(first, second)
    text = f"Two calls with the same arguments gave different results: {one} and {two} at {where}."
    if first.shape == second.shape:
        more, third, fourth = second - first, again(), twice()
        if np.allclose(third - second, more) and np.allclose(fourth - third, 2 * more):
            twofold = " The second is twice the first:" if np.allclose(second, 2 * first) else ""
            return f"{text}{twofold or ' Each call adds the same amount:'} it adds to an earlier result."
    return f"{text} It is random, or depends on earlier calls."


def draw(rng: np.random.Generator, shape: Sequence[int], dtype: np.dtype[np.generic], most: int = 3) -> Array:
    """Return whole numbers from 1 to `most`, with both signs where the data type has them."""
    values = rng.integers(1, most, tuple(shape), endpoint=True)
    return (values if dtype.kind == "u" else values * rng.choice([-1, 1], tuple(shape))).astype(dtype)


def check_linear(f: Callable[[Array], Array], v: Array, u: Array, zero: Array, names: tuple[str, str, str],
            dtype: np.dtype[np.generic]) -> None:  # fmt: skip
    """Raise Refused unless f − f(0) is additive."""
    of_v, of_u, seen = f(v), f(u), f(v + u)
    due = of_v + of_u - zero
    if not same(seen, due, dtype, scale=float(np.max(np.abs([of_v, of_u]), initial=1))):
        _witness(f, v, zero, names, dtype)
        where, one, two = differ(seen, due)
        sums = f"f({names[0]}1 + {names[0]}2) is {one} at {where}, but f({names[0]}1) + f({names[0]}2) is {two}"
        raise Refused(f"It is not linear in {names[0]}: with {names[1]} fixed, {sums}.", False, (v, u))


def _witness(f: Callable[[Array], Array], v: Array, zero: Array, names: tuple[str, str, str],
             dtype: np.dtype[np.generic]) -> None:  # fmt: skip
    """Raise Refused with one number as the example, if one of the first 24 elements alone shows it."""
    for index in itertools.islice(np.ndindex(v.shape), 24):
        one = np.zeros_like(v)
        one[index] = 1
        at_one = f(one)
        for factor in (2,) if dtype.kind == "u" else (-1, 2):
            got, want = f(one * np.asarray(factor, dtype)), factor * (at_one - zero) + zero
            if not same(got, want, dtype):
                where, seen, due = differ(got, want)
                element = f"{names[0]}[{','.join(map(str, index))}]"
                text = (
                    f"It is not linear in {names[0]}: where {names[0]} is zero except {element}, {names[2]} at {where} "
                    f"is {_number(at_one[where])} for {element} = 1 and {seen} for {factor}; "
                    f"a linear function would give {due}."
                )
                raise Refused(text.replace(" -", " −"), False, (one, 0 + factor * one))


def same(one: Array, other: Array, dtype: np.dtype[np.generic], units: int = 16, scale: float = 1.0) -> bool:
    """Compare within that many units of rounding of numbers up to `scale` or more, and integers as they wrap around."""
    if one.shape != other.shape:
        return False
    if dtype.kind in "iu":
        return bool(np.array_equal(one.astype(dtype), other.astype(dtype)))
    scale = max(scale, float(np.max(np.abs(one), initial=0)))
    return bool(np.all(np.abs(one - other) <= units * float(np.finfo(dtype.char).eps) * scale))


def largest(dtype: np.dtype[np.generic]) -> int:
    """Return the largest whole number whose sums of products with small ones are exact."""
    return {"f2": 8, "f4": 100, "i1": 11, "u1": 11}.get(dtype.str[1:], 1000)


def differ(one: Array, other: Array) -> tuple[tuple[int, ...], str, str]:
    """Return where two results differ first, and the two numbers."""
    if one.shape != other.shape:
        return (), f"shape {one.shape}", f"shape {other.shape}"
    where = tuple(int(i) for i in np.argwhere(one != other)[0])
    pair = one[where], other[where]
    shown = (tuple(_number(value, digits) for value in pair) for digits in (6, 9, 12, 17))
    first, second = next((texts for texts in shown if texts[0] != texts[1]), map(repr, pair))
    return where, first, second


def _number(value: Array, digits: int = 6) -> str:
    return f"{value:.{digits}g}".replace("-", "−")
