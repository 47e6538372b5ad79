"""Reading numbers: 64-bit integers, finite numbers within bounds, and values that are neither."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from refconv.integers import as_bytes, as_float, as_int, padding_pairs, per_axis, shown


@pytest.mark.parametrize("value", [-(2**63), 1 - 2**63, -1, 0, 2**63 - 1])
def test_integers_of_64_bits(value: int) -> None:
    assert as_int(value, "n") == value


@pytest.mark.parametrize(("value", "bits"), [(-(2**63) - 1, 64), (2**63, 64), (-(2**64), 65), (-(3**62), 99)])
def test_integers_beyond(value: int, bits: int) -> None:
    with pytest.raises(ValueError, match="64") as caught:
        as_int(value, "n")
    assert str(caught.value) == f"n must fit a signed 64-bit integer; got one of {bits} bits"


@pytest.mark.parametrize(
    ("value", "minimum", "below"),
    [
        (0.0, 0, math.inf),
        (0, 0, 1),
        (0.5, 0.5, 1),
        (np.float32(0.25), 0, 1),
        (np.int8(3), 0, math.inf),
        (1e300, 0, math.inf),
    ],
)
def test_numbers_within_bounds(value: Any, minimum: float, below: float) -> None:
    number = as_float(value, "lr", minimum, below)
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize(
    ("value", "below", "kind", "message"),
    [
        (-0.5, math.inf, ValueError, "lr must be finite and at least 0; got -0.5"),
        (math.nan, math.inf, ValueError, "lr must be finite and at least 0; got nan"),
        (math.inf, math.inf, ValueError, "lr must be finite and at least 0; got inf"),
        (1, 1, ValueError, "lr must be finite and at least 0 and less than 1; got 1.0"),
        (-1, 1, ValueError, "lr must be finite and at least 0 and less than 1; got -1.0"),
        ("0.5", math.inf, TypeError, "lr must be a number; got '0.5'"),
        (True, math.inf, TypeError, "lr must be a number; got True"),
        (np.True_, math.inf, TypeError, "lr must be a number; got np.True_"),
        (None, math.inf, TypeError, "lr must be a number; got None"),
        (1j, math.inf, TypeError, "lr must be a number; got 1j"),
    ],
)
def test_numbers_refused(value: Any, below: float, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        as_float(value, "lr", 0, below)
    assert str(caught.value) == message


def test_numbers_above_a_bound() -> None:
    assert as_float(5e-324, "lr", above=0) > 0
    with pytest.raises(ValueError, match=r"^lr must be finite and more than 0 and less than 1; got 0\.0$"):
        as_float(0, "lr", above=0, below=1)


def test_anything_is_shown_on_one_line() -> None:
    assert shown(np.zeros((2, 2))) == "array([[0., 0... [0., 0.]])"
    assert shown(list(range(99))) == "[0, 1, 2, 3, 4, 5, ...]"
    assert shown(10**5000) == "<int>"


@pytest.mark.parametrize("value", [3, np.uint8(3), [3, 3], (np.int64(3), 3), np.array([3, 3])])
def test_an_int_or_one_per_axis(value: Any) -> None:
    assert per_axis(value, "stride", 2, 3) == (3, 3)


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [
        (2, ((2, 2), (2, 2))),
        (np.int8(-1), ((-1, -1), (-1, -1))),
        ((0, 3), ((0, 0), (3, 3))),
        (np.array([0, 3]), ((0, 0), (3, 3))),
        ([(0, 3), [-1, 2]], ((0, 3), (-1, 2))),
        (np.array([[0, 3], [-1, 2]]), ((0, 3), (-1, 2))),
        ("valid", ((0, 0), (0, 0))),
        ("same", "same"),
        ("same_lower", "same_lower"),
    ],
)
def test_paddings(padding: Any, pairs: Any) -> None:
    assert padding_pairs(padding, 2) == pairs


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        ("2048", 2048),
        ("1KiB", 1024),
        ("1.5GiB", 3 * 2**29),
        ("2 MB", 2 * 10**6),
        ("3gib", 3 * 2**30),
        ("5B", 5),
    ],
)
def test_bytes(value: Any, expected: int) -> None:
    assert as_bytes(value, "limit") == expected


@pytest.mark.parametrize("value", ["", "GiB", "many", "1e400", "nan", "-1GiB", "1iB", "1.GiB", "1GiBs", "1  GB"])
def test_bytes_that_are_none(value: str) -> None:
    got = repr(value).replace("  ", " ")
    message = re.escape(f"limit must be a number of bytes such as 500MiB or 1.5GiB; got {got}")
    with pytest.raises(ValueError, match=f"^{message}$"):
        as_bytes(value, "limit")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "limit must be at least 1; got 0"),
        ("0GiB", "limit must be at least 1 B; got '0GiB'"),
        ("99999999999999TiB", "limit must fit a signed 64-bit integer; got one of 87 bits"),
    ],
)
def test_bytes_out_of_range(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match="limit") as caught:
        as_bytes(value, "limit")
    assert str(caught.value) == message
