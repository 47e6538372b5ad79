"""What the smallest failing case shows by itself: rounded operands, earlier calls, NaN that counts as a number."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from refconv.testing.checker.calls import Caller, with_array, with_arrays
from refconv.testing.checker.examine import PARTS, TRAIT_CHECKS
from refconv.testing.checker.report import Failure
from refconv.testing.explain.replaced import READ
from refconv.testing.explain.session import REPEATS
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Operands
from refconv.testing.oracles.trilinear import exact_results

PART_OF = {"y": "forward", "grad_x": "grad_x", "grad_weight": "grad_weight", "grad_bias": "grad_bias"}

NO_EXPLANATION = (
    *TRAIT_CHECKS,
    "time",
    "type",
    "real values",
    "non-finite",
    "empty",
    "repeat",
    "layout",
    "needs",
    "large numbers",
)
"""Checks that whole numbers do not explain."""


def at_the_case(
    failure: Failure, forward: Callable[..., Any], backward: Callable[..., Any] | None, call: Caller
) -> str | None:
    """Explain a failure by what shows at its smallest case: another call, or numbers that are not finite."""
    case, due = failure.case, failure.expected
    if due is None or failure.actual is None or failure.actual.shape != due.shape:
        return None
    if failure.check == "non-finite":
        return _replaced(failure)
    if failure.check == "real values":
        return _of_rounded_operands(failure) or _in_few_digits(failure)
    if failure.check in NO_EXPLANATION:
        return None

    def result() -> Array | None:
        x, weight, bias, g = case.operands.mapped(np.copy)
        if failure.part == "y":
            found = call(with_array(forward), x, weight, bias, *case.integers, **case.options).value
            return found[1] if found else None
        found = call(with_arrays(backward or forward), g, x, weight, *case.integers, **case.options).value
        return found[1][PARTS.index(failure.part) - 1] if found and found[1] else None

    def is_right() -> bool:
        array = result()
        return isinstance(array, np.ndarray) and np.array_equal(array, due)

    result()
    if not all(is_right() for _ in range(2)):
        return None
    if all(is_right() for _ in range(REPEATS)):
        return "Called again with the same arguments, it is right: it depends on earlier calls."
    return "Calls with the same arguments gave different results, right ones and wrong ones: it is random."


ROUNDED: dict[str, Callable[[Array], Array]] = {
    "cut to whole numbers": np.trunc,
    "rounded to whole numbers": np.rint,
    "rounded down to whole numbers": np.floor,
    "rounded to bfloat16": lambda v: _to_digits(v, 8, np.rint),
    "cut to bfloat16": lambda v: _to_digits(v, 8, np.trunc),
    "rounded to the digits of float16 or TF32": lambda v: _to_digits(v, 11, np.rint),
    "rounded to float16": lambda v: v.astype(np.float16).astype(v.dtype),
    "cut to the digits of float16 or TF32": lambda v: _to_digits(v, 11, np.trunc),
}
"""What an operand may have lost before it is used."""


def _to_digits(values: Array, digits: int, function: Callable[[Array], Array]) -> Array:
    mantissa, exponent = np.frexp(values)
    return np.ldexp(function(np.ldexp(mantissa, digits)), exponent - digits)


def _of_rounded_operands(failure: Failure) -> str | None:
    """Return which operands have lost digits, if that gives the same result."""
    actual, due = failure.actual, failure.expected
    if actual is None or actual.dtype.kind != "f" or due is None:
        return None
    size = float(np.max(np.abs(actual), initial=0))

    def error(right: Array) -> float:
        return float(np.max(np.abs(actual - right), initial=0)) / size if size else 0.0

    least = min(1e-3, error(due) / 16)  # of the errors that are explained
    for how, operands in _rounded(failure):
        if error(getattr(exact_results(failure.case.problem, operands, (failure.part,)), failure.part)) < least:
            return f"It is right for {how}."
    return None


def _rounded(failure: Failure) -> Iterator[tuple[str, Operands]]:
    """Yield the operands with some of them rounded, and how."""
    operands, read = failure.case.operands, READ[PART_OF[failure.part]]
    subsets = [names for count in range(1, len(read) + 1) for names in itertools.combinations(read, count)]
    for (how, function), names in itertools.product(ROUNDED.items(), subsets):
        with np.errstate(over="ignore"):
            values = {name: function(getattr(operands, name).astype(np.float64)) for name in names}
        if not any(np.array_equal(values[name], getattr(operands, name)) for name in names):
            yield f"{' and '.join(names)} {how}", operands._replace(**values).mapped(lambda a: a.astype(np.float64))


def _in_few_digits(failure: Failure) -> str | None:
    """Return the sentence on results of wider operands that are float16 or bfloat16 numbers."""
    actual = failure.actual
    if actual is None or actual.dtype.kind != "f" or failure.case.operands.x.dtype.itemsize < 4:
        return None
    element = "output" if failure.part == "y" else f"element of {failure.part}"
    with np.errstate(over="ignore"):
        stored = {"float16": actual.astype(np.float16), "bfloat16": _to_digits(actual, 8, np.rint)}
    several = len(np.unique(np.abs(actual[actual != 0]))) > 1
    if "no precision" in failure.message:
        step = next((2.0**-k for k in range(9) if not np.any(np.mod(actual, 2.0**-k))), None)
        text = f"In this case every {element} is a multiple of {step}: summands or sums are in fixed point."
        return text if several and step else None
    for name, values in stored.items():
        if several and np.array_equal(values, actual):
            return f"In this case every {element} is a {name} number: sums are kept, or stored, in {name}."
    if failure.part == "y" and failure.message.endswith("consistent with float16"):
        return (
            "In this case every output, before its bias is added, is a float16 number: sums are kept, or stored, in "
            "float16."
        )
    return None


def _replaced(failure: Failure) -> str | None:
    """Return which number of an operand that is not finite counts as another, if that gives the same result."""
    operands = failure.case.operands
    for name in operands._fields:
        values = getattr(operands, name)
        if values is None or np.isfinite(values).all():
            continue
        bad = values[~np.isfinite(values)][0]
        for other in (0, 1, np.finfo(values.dtype).max, np.finfo(values.dtype).min):
            changed = operands._replace(**{name: np.where(np.isfinite(values), values, values.dtype.type(other))})
            right = getattr(exact_results(failure.case.problem, changed, (failure.part,)), failure.part)
            if failure.actual is not None and np.array_equal(right, failure.actual):
                shown = "NaN" if np.isnan(bad) else "∞" if bad > 0 else "−∞"
                return f"{shown} in {name} counts as {other:.4g}.".replace(" -", " −")
    return None
