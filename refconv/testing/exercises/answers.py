"""Checks of a learner's other functions, by their results in a few cases."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refconv.testing.exercises.verdict import attempt, listed, name_of, raised


def check_answer(
    function: Callable[..., Any],
    right: Callable[..., bool] | None = None,
    cases: Sequence[tuple[Any, ...]] = ((),),
    *,
    expected: Callable[..., Any] | None = None,
    hint: str | Callable[..., str] = "",
) -> str:
    """Check any function by its results for the arguments of each case.

    Parameters
    ----------
    function : callable
        The learner's function.
    right : callable, optional
        ``right(result, *arguments)``: whether a result is right. A result that it cannot judge, because it raises an
        exception, is not right. Without it, the result must equal ``expected(*arguments)``.
    cases : sequence of tuples
        Arguments of the calls, the simplest first.
    expected : callable, optional
        ``expected(*arguments)``, the right result, which is shown with a wrong answer. Omit it where that would give
        the answer away.
    hint : str or callable, optional
        Shown below a wrong answer; if callable, ``hint(result, *arguments)``.

    Returns
    -------
    str
        "passed: …", or "FAILED: …" with the first case whose result is not right.

    Examples
    --------
    >>> def double(n):
    ...     return n * n
    >>> check_answer(double, lambda result, n: result == n + n, [(0,), (2,), (3,)])
    'FAILED: double(3) returned 9, which is not right'
    >>> check_answer(double, cases=[(0,), (2,), (3,)], expected=lambda n: n + n)
    'FAILED: double(3) returned 9, not 6'
    >>> print(check_answer(double, cases=[(3,)], expected=lambda n: n + n, hint="Add n to itself."))
    FAILED: double(3) returned 9, not 6
    hint: Add n to itself.
    >>> check_answer(lambda n: n / 2, cases=[(6,)], expected=lambda n: n // 2)
    'FAILED: <lambda>(6) returned 3.0, a float: use //'
    >>> check_answer(lambda: (2, 1), lambda result: result == (1, 2))
    'FAILED: <lambda>() returned (2, 1): these are the right values in the wrong order'
    >>> check_answer(lambda: None, lambda result: sum(result) == 3)
    "FAILED: <lambda>() returned None, which is not right (TypeError: 'NoneType' object is not iterable)"
    """
    name = name_of(function)
    for arguments in cases:
        call = f"{name}({listed(arguments)})"
        try:
            result, error = attempt(function, *arguments)
        except NotImplementedError:
            return f"FAILED: {name} is not written yet"
        if error:
            return f"FAILED: {call} {error}"
        fine, why = _judge(right, expected, result, arguments)
        if not fine:
            wrong = _wrong(right, expected, result, arguments, why)
            joint = "\n" if "\n" in wrong else " "
            text = hint(result, *arguments) if callable(hint) else hint
            return f"FAILED: {call}{joint}{wrong}" + f"\nhint: {text}" * bool(text)
    return f"passed: {name} is right"


def _judge(right: Any, expected: Any, result: Any, arguments: Sequence[Any]) -> tuple[bool, str]:
    """Return whether a result is right, and the exception that prevented a judgement."""
    try:
        if right is not None:
            return bool(right(result, *arguments)), ""
        return same(result, expected(*arguments)), ""
    except Exception as error:  # a result of an unexpected kind
        return False, raised(error)


def _wrong(right: Any, expected: Any, result: Any, arguments: Sequence[Any], why: str) -> str:
    """Describe the fault of a result: its type, its order, or its value."""

    def fine(value: Any) -> bool:
        return _judge(right, expected, value, arguments)[0]

    if isinstance(result, float | np.floating) and math.isfinite(result) and fine(math.floor(result)):
        return f"returned {result}, a float: use //"
    if isinstance(result, tuple | list) and 2 <= len(result) <= 4:
        orders = list(itertools.permutations(result))[1:]
        if any(fine(type(result)(values)) for values in orders):
            return f"returned {result}: these are the right values in the wrong order"
    if expected is None:
        return f"returned {result}, which is not right" + f" ({why})" * bool(why)
    wanted = expected(*arguments)
    shapes = [np.shape(value) if isinstance(value, np.ndarray) else () for value in (result, wanted)]
    if any(shapes) and shapes[0] != shapes[1]:
        return f"returned {type(result).__name__} of shape {shapes[0]}, not {shapes[1]}"
    if shapes[1]:
        return f"returned\n{result}\nand should return\n{wanted}"
    return f"returned {result}, not {wanted}"


def same(result: Any, wanted: Any) -> bool:
    """Return whether a result equals the wanted one, by elements for arrays and sequences; an int must be an int."""
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        return not isinstance(result, float | np.floating) and operator.index(result) == wanted
    if isinstance(wanted, np.ndarray):
        return isinstance(result, np.ndarray) and np.array_equal(result, wanted)
    return bool(result == wanted)
