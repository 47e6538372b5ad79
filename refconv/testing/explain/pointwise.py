"""Functions of the right result: clipped, rectified, scaled, rounded, wrapped around, or with numbers added.

They are found by comparing small and large results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refconv.testing.oracles.definition import Array

TOLERANCE = 1e-6
"""Of the results that are compared: they are whole numbers, or a seventh of them in at least single precision."""


FEWEST = 8
"""The fewest different right results for a sentence."""

FEWEST_WRAPPED = 3
"""The fewest wrong results that show multiples of a power of two."""

FEWEST_RESULTS = 3
"""The fewest different results that show a number added to all of them."""


@dataclass(frozen=True)
class Result:
    """A right result, and the one that was returned."""

    right: Array
    seen: Array


def function_of_right(results: Sequence[Result], name: str) -> str | None:
    """Return the function of the right result alone that gives all results, as a sentence, or None.

    Parameters
    ----------
    results : sequence of Result
        Small and large ones.
    name : str
        What the result is called: "The output", "grad_x".

    Returns
    -------
    str or None
        None if the results are right, or no function of those known here.

    Examples
    --------
    >>> right = np.arange(-300.0, 300)
    >>> function_of_right([Result(right, np.clip(right, -128, 127))], "The output")
    'The output is right but clipped: results below −128 become −128, and results above 127 become 127.'
    >>> function_of_right([Result(right, np.maximum(right, 0))], "The output")
    'The output is max(r, 0) of the right result r: negative results become 0, the others are right.'
    """
    if any(r.right.shape != r.seen.shape or not np.isfinite(r.seen).all() for r in results):
        return None
    right, seen = (np.concatenate([getattr(r, field).reshape(-1) for r in results]) for field in ("right", "seen"))
    if len(np.unique(right)) < FEWEST or seen.dtype.kind == "c" or not seen.any() or _close(right, seen):
        return None
    for values, text in _known(right, seen):
        if not np.array_equal(values, right) and _close(values, seen):
            return f"{name} is {text}.".replace(" -", " −")
    return wrapped(right, seen, name) or _added(results, name) or _scaled(results, name)


def wrapped(right: Array, seen: Array, name: str) -> str | None:
    """Return a sentence if all wrong results, at least three, differ by multiples of a power of two.

    A number that is added afterwards, such as the bias, does not hide this. Multiples of the right results, and one
    number added to all, do not count.

    >>> right = np.arange(0, 200_000, 777)
    >>> wrapped(right + 1000, right.astype(np.int16) + 1000, "The output")
    'Where the output is wrong, it differs by multiples of 2^16: operands, products or sums wrap around in 16 bits.'
    >>> wrapped(right, 257 * right, "The output"), wrapped(right, right + 256, "The output")
    (None, None)
    """
    wrong = seen != right
    error = seen[wrong] - right[wrong]
    if np.any(error % 2**8):
        return None
    with np.errstate(all="ignore"):
        ratios = np.unique(np.round(error / right[wrong], 9))
    if len(error) < FEWEST_WRAPPED or min(len(np.unique(error)), len(ratios)) < 2:
        return None
    for bits in (32, 16, 8):
        if not np.any(error % 2**bits):
            name = name[0].lower() + name[1:]
            text = f"Where {name} is wrong, it differs by multiples of 2^{bits}"
            return f"{text}: operands, products or sums wrap around in {bits} bits."
    return None


def saturated(right: Array, seen: Array, name: str, bits_of_result: int = 64) -> str | None:
    """Return a sentence if no result is beyond the limits of fewer bits, and at least three are at one of them.

    >>> right = np.arange(0, 200_000, 777)
    >>> saturated(right, np.minimum(right, 32767), "The output")
    'Beyond −32768 and 32767 the output is one of these: it saturates at 16 bits.'
    """
    wrong, name = seen != right, name[0].lower() + name[1:]
    for bits in (bits for bits in (32, 16, 8) if bits < bits_of_result):
        for low, high in ((-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), (0, 2**bits - 1)):
            at_limit = np.count_nonzero(wrong & ((seen == low) | (seen == high)) & (seen != 0))
            if at_limit < FEWEST_WRAPPED or seen.min() < low or seen.max() > high:
                continue
            limits = f"Beyond {low} and {high} {name} is one of these: it saturates at {bits} bits."
            if not np.array_equal(np.clip(right, low, high), seen):
                limits = (
                    f"No number of {name} is beyond {low} and {high}, and {at_limit} are one of these: sums saturate."
                )
            return limits.replace("-", "−")
    return None


def _added(results: Sequence[Result], name: str) -> str | None:
    """Describe numbers that are added to some elements, always the same."""
    error = results[0].seen - results[0].right
    if len({r.right.tobytes() for r in results}) < FEWEST_RESULTS or not all(
        _close(r.right + error, r.seen) for r in results
    ):
        return None
    where = np.argwhere(np.abs(error) > TOLERANCE)
    values = [f"{value:.6g}" for value in np.unique(error[np.abs(error) > TOLERANCE])]
    first = tuple(where[0].tolist())
    at = f"at {len(where)} of {error.size} elements, {'first ' * (len(where) > 1)}at {first}"
    number = values[0] if len(values) == 1 else f"a number from {values[0]} to {values[-1]}"
    if any(r.right[tuple(where.T)].any() for r in results):
        added = f"{number[0].upper()}{number[1:]} is added to {name[0].lower()}{name[1:]} {at}"
        return f"{added}, for all operands; the others are right.".replace("-", "−")
    return f"{name} is {number} {at}, where it should always be 0; the others are right.".replace("-", "−")


def _close(one: Array, other: Array) -> bool:
    tolerance = 0.0 if one.dtype.kind == "i" == other.dtype.kind else TOLERANCE
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance))


def _known(right: Array, seen: Array) -> Iterator[tuple[Array, str]]:
    """Yield functions of the right result, with their names."""
    negative = right < 0
    if negative.any() and np.any(right > 0):
        yield np.maximum(right, 0), "max(r, 0) of the right result r: negative results become 0, the others are right"
        yield np.minimum(right, 0), "min(r, 0) of the right result r: positive results become 0, the others are right"
        yield np.abs(right), "|r| of the right result r: it has lost its signs"
        if _close(right[~negative], seen[~negative]):
            slope = float(seen[negative] @ right[negative] / (right[negative] @ right[negative]))
            text = f"right but for negative results, which are multiplied by {slope:.4g}"
            yield np.where(negative, slope * right, right), text
    yield np.tanh(right), "tanh(r) of the right result r"
    low, high = seen.min(), seen.max()
    below, above = np.count_nonzero(right < low), np.count_nonzero(right > high)
    clauses = [f"results below {low:.6g} become {low:.6g}"] * bool(below > 1)
    clauses += [f"results above {high:.6g} become {high:.6g}"] * bool(above > 1)
    if clauses and low < high:
        yield np.clip(right, low, high), f"right but clipped: {', and '.join(clauses)}"
    for bits in (8, 16, 32):
        half = 2.0 ** (bits - 1)
        yield (right + half) % (2 * half) - half, f"right but wrapped around to {bits} bits"
        yield right % (2 * half), f"right but wrapped around to {bits} bits without a sign"
    for digits in (24, 11, 8):
        mantissa, exponent = np.frexp(right)
        rounded = np.ldexp(np.rint(mantissa * 2.0**digits), exponent - digits)
        if np.array_equal(rounded, seen) and np.any(rounded != right):
            yield (
                seen,
                f"right but rounded to {digits} significant bits: whole numbers beyond {2**digits} are not exact",
            )
    steps = np.diff(np.unique(seen))
    for step in np.unique(steps[steps > TOLERANCE])[:1]:
        for how, function in (("rounded", np.rint), ("rounded down", np.floor), ("cut", np.trunc)):
            yield step * function(right / step), f"{how} to a multiple of {step:.6g}"


def _scaled(results: Sequence[Result], name: str) -> str | None:
    """Describe results that are the right ones times one number each, such as a clipped norm."""
    kept = [r for r in results if np.count_nonzero(r.right) > 2 or (r is results[0] and r.right.any())]
    factors = [float(np.vdot(r.right, r.seen) / np.vdot(r.right, r.right)) for r in kept]
    if len(kept) < 3 or not all(_close(f * r.right, r.seen) for f, r in zip(factors, kept, strict=True)):
        return None
    if max(factors) - min(factors) < 1e-6:
        return None  # a number that is always the same: linear
    text = f"{name} is the right result times one number, which differs from call to call"
    norms: dict[str, Callable[[Array], float]] = {
        "norm": lambda r: float(np.linalg.norm(r)),
        "largest absolute value": lambda r: float(np.max(np.abs(r))),
        "sum of absolute values": lambda r: float(np.sum(np.abs(r))),
    }
    for what, norm in norms.items():
        changed = [r for r, f in zip(kept, factors, strict=True) if abs(f - 1) > 1e-6]
        sizes = [norm(r.seen) for r in changed]
        if max(sizes) - min(sizes) <= 1e-4 * max(sizes) and len(sizes) > 1:
            low = [norm(r.right) for r, f in zip(kept, factors, strict=True) if abs(f - 1) <= 1e-6]
            larger = " where it was larger" if all(norm(r.right) > sizes[0] for r in changed) and low else ""
            return f"{text}: its {what} becomes {sizes[0]:.4g}{larger}."
    return f"{text}: {factors[0]:.4g} and {factors[-1]:.4g}, for example.".replace(" -", " −")
