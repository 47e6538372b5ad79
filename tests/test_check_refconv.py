"""refconv's own convolutions through the checker that it ships: with both engines, forward and backward."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import refconv
from refconv.settings import ENGINES
from refconv.testing import check_conv
from refconv.testing.checker.examine import CHECKS
from refconv.testing.checker.plan import SUPPORTS, plan

DTYPES = ("float16", "float32", "float64", "complex64", "int32")
WORDS = {False: SUPPORTS[:6], True: SUPPORTS[:7]}  # words that add features, not words that restrict the problems
NEEDS = [subset for n in (1, 2) for subset in itertools.combinations(("x", "weight", "bias"), n)]


def pair(transposed: bool) -> tuple[Any, Any]:
    """Return forward and backward with the checker's signatures."""
    conv = refconv.conv_transpose if transposed else refconv.conv
    conv_backward = refconv.conv_transpose_backward if transposed else refconv.conv_backward

    def forward(x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, groups: int, **more: Any) -> Any:
        return conv(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups, **more)

    def backward(g: Any, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int, **more: Any) -> Any:
        return conv_backward(g, x, w, stride=stride, padding=padding, dilation=dilation, groups=groups, **more)

    return forward, backward


@pytest.mark.thinned(14)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_refconv_passes_its_own_checker(engine: str, dtype: str, transposed: bool) -> None:
    """Each engine runs each data type once, plain and transposed. The number of axes, 1 to 3, rotates among these."""
    number = ENGINES.index(engine)
    d = 1 + (DTYPES.index(dtype) + number + transposed) % 3
    report = check_conv(
        *pair(transposed),
        spatial_dims=d,
        supports=WORDS[transposed],
        dtype=dtype,
        transposed=transposed,
        cases=40,
        backward_needs=NEEDS if dtype == "float32" else (),
    )
    report.raise_if_failed()
    assert report.unsupported == {}
    assert report.notes == ()
    assert report.cases_run == len(plan(d, WORDS[transposed], transposed, dtype, 40, 0))
    skipped = {"int32": {"real values", "non-finite"}, "complex64": {"non-finite"}}.get(dtype, set())
    skipped |= {"large numbers"} if dtype != "int32" else set()
    assert set(report.checks) == set(CHECKS) - skipped - (set() if dtype == "float32" else {"needs"})
