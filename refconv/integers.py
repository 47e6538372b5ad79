"""Read numbers, flags, steps and paddings, each defined once, and cut ranges into slices.

The oracles of :mod:`refconv.testing` also read their arguments here, but determine independently what the numbers mean,
such as how much "same" pads.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Pads = tuple[tuple[int, int], ...]
"""One (before, after) pair per spatial axis."""
PADDING_WORDS = ("valid", "same", "same_lower", "causal")


def as_int(value: Any, name: str, minimum: int | None = None, maximum: int | None = None) -> int:
    """Return `value` as an int: any integer type, but neither a bool nor a float.

    >>> as_int(np.int32(3), "stride", 1)
    3
    """
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        raise TypeError(f"{name} must be an integer; got the bool {shown(value)}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {shown(value)} of type {type(value).__name__}") from None
    # This check comes first, because Python refuses to print an integer with thousands of digits.
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{name} must fit a signed 64-bit integer; got one of {number.bit_length()} bits")
    if minimum is not None and number < minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {number}")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} must be at most {maximum}; got {number}")
    return number


def as_float(
    value: Any, name: str, minimum: float = -math.inf, below: float = math.inf, *, above: float = -math.inf
) -> float:
    """Return a real number as a finite float, at least `minimum`, less than `below` and more than `above`.

    >>> as_float(1, "lr", above=0)
    1.0
    """
    if isinstance(value, bool | np.bool_ | str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number; got {shown(value)}")
    number = float(value)
    if not (math.isfinite(number) and minimum <= number < below and number > above):
        least = f" and at least {minimum}" if minimum > -math.inf else ""
        more = f" and more than {above}" if above > -math.inf else ""
        less = f" and less than {below}" if below < math.inf else ""
        raise ValueError(f"{name} must be finite{least}{more}{less}; got {number}")
    return number


def is_sequence(value: Any) -> bool:
    """Return whether `value` is a sequence (not a string) or a one-dimensional NumPy array."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def members(value: Any, most: int = 64) -> list[Any]:
    """Return at most `most` + 1 members of a sequence, because a range can be too long to count."""
    return list(itertools.islice(value, most + 1))


def as_bytes(value: Any, name: str, minimum: int = 1) -> int:
    """Return a number of bytes, given as an integer or as a string such as "500MB", "1.5GiB" or "2048".

    >>> as_bytes("1.5GiB", "memory_limit"), as_bytes("500 MB", "memory_limit")
    (1610612736, 500000000)
    """
    if not isinstance(value, str):
        return as_int(value, name, minimum)
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([KMGT]?)(i?)B?", value, re.IGNORECASE)
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"{name} must be a number of bytes such as 500MiB or 1.5GiB; got {shown(value)}")
    thousand = 1024 if match[3] else 1000
    number = float(match[1]) * thousand ** " KMGT".index(match[2].upper() or " ")
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum} B; got {shown(value)}")
    return as_int(int(number), name)


def shown(value: Any) -> str:
    """Return a short representation of any value, on one line, for an error message."""
    try:
        return " ".join(reprlib.repr(value).split())
    except Exception:  # a foreign repr may fail; an integer with thousands of digits has none
        return f"<{type(value).__name__}>"


def as_bool(value: Any, name: str) -> bool:
    """Return `value` as a bool: True or False, not just any truthy or falsy value."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be a bool; got {shown(value)}")
    return bool(value)


def per_axis(value: Any, name: str, d: int, minimum: int | None = None) -> tuple[int, ...]:
    """Return one int per spatial axis from an int or a sequence of d ints.

    >>> per_axis(2, "stride", 3), per_axis((1, 2), "stride", 2)
    ((2, 2, 2), (1, 2))
    """
    if not is_sequence(value):
        return (as_int(value, name, minimum),) * d
    values = members(value)
    if len(values) != d:
        raise ValueError(f"{name} must be an integer or one integer per spatial axis ({d}); got {shown(value)}")
    return tuple(as_int(v, f"{name}[{axis}]", minimum) for axis, v in enumerate(values))


def padding_pairs(padding: Any, d: int, transposed: bool = False) -> Pads | str:
    """Return one (before, after) pair per spatial axis from any form of `padding`.

    "same", "same_lower" and "causal" are returned unchanged, because their amounts depend on sizes and steps.

    >>> padding_pairs(1, 2), padding_pairs((1, 2), 2), padding_pairs([(0, 1), (2, 3)], 2)
    (((1, 1), (1, 1)), ((1, 1), (2, 2)), ((0, 1), (2, 3)))
    >>> padding_pairs("valid", 1), padding_pairs("same", 1)
    (((0, 0),), 'same')
    """
    if isinstance(padding, str):
        if padding == "causal" and transposed:
            raise ValueError(
                "padding='causal' has no meaning for a transposed convolution; crop the end by [(0, crop)]"
            )
        if padding == "causal" and d != 1:
            raise ValueError(f"padding='causal' is for one spatial axis, that of time; got {d} axes")
        words = PADDING_WORDS if d == 1 and not transposed else PADDING_WORDS[:-1]
        if padding not in words:
            like = padding.lower().replace("same_upper", "same")
            spelling = f": write {like!r}" if like in words else ""
            listed = f"{', '.join(map(repr, words[:-1]))} or {words[-1]!r}"
            raise ValueError(f"padding must be numbers, {listed}; got {shown(padding)}{spelling}")
        return ((0, 0),) * d if padding == "valid" else padding
    if isinstance(padding, np.ndarray) and padding.ndim == 2:
        padding = tuple(padding)
    if not is_sequence(padding):
        amount = as_int(padding, "padding")
        return ((amount, amount),) * d
    values = members(padding)
    if len(values) != d:
        spelling = ""
        if len(values) == 2 * d and not any(map(is_sequence, values)):  # all before, then all after, as ONNX has them
            amounts = [as_int(value, f"padding[{i}]") for i, value in enumerate(values)]
            spelling = f": for pairs write {list(zip(amounts[:d], amounts[d:], strict=True))}"
        raise ValueError(
            f"padding must be an integer, one integer or one (before, after) pair per spatial axis ({d}), or a "
            f"string; got {shown(padding)}{spelling}"
        )
    paired = [is_sequence(p) for p in values]
    if any(paired) and not all(paired):
        raise TypeError(f"padding must contain either integers or (before, after) pairs, not both; got {shown(values)}")
    pairs = []
    for axis, p in enumerate(values):
        pair = members(p) if paired[axis] else [p, p]
        if len(pair) != 2:
            raise ValueError(f"padding[{axis}] must be one (before, after) pair; got {shown(p)}")
        before, after = pair
        pairs.append((as_int(before, f"padding[{axis}]"), as_int(after, f"padding[{axis}]")))
    return tuple(pairs)


def cut(length: int, size: int) -> tuple[slice, ...]:
    """Cut range(length) into slices of `size`.

    >>> cut(5, 2)
    (slice(0, 2, None), slice(2, 4, None), slice(4, 5, None))
    """
    return tuple(slice(start, min(start + size, length)) for start in range(0, length, size))


def even(length: int, most: int) -> int:
    """Return the slice size that cuts range(length) evenly into as few slices of at most `most` as possible.

    >>> cut(8, even(8, 6))
    (slice(0, 4, None), slice(4, 8, None))
    """
    return max(1, -(-length // max(1, -(-length // max(1, most)))))
