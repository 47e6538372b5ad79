"""refconv's own convolutions through the checker that it ships: with both engines, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest

import refconv
from refconv.settings import ENGINES
from refconv.testing import check_conv
from refconv.testing.checker.cases import SUPPORTS
from refconv.testing.checker.examine import CHECKS

DTYPES = ("float16", "float32", "float64", "complex64", "int32")
KINDS = [(1, "float32"), (3, "float32"), *((2, dtype) for dtype in DTYPES)]


def pair(transposed: bool) -> tuple[Any, Any]:
    """Return forward and backward as the checker calls them."""
    conv = refconv.conv_transpose if transposed else refconv.conv
    conv_backward = refconv.conv_transpose_backward if transposed else refconv.conv_backward

    def forward(x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, groups: int, **more: Any) -> Any:
        return conv(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups, **more)

    def backward(g: Any, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int, **more: Any) -> Any:
        return conv_backward(g, x, w, stride=stride, padding=padding, dilation=dilation, groups=groups, **more)

    return forward, backward


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("spatial_dims", "dtype"), KINDS)
def test_refconv_passes_its_own_checker(engine: str, spatial_dims: int, transposed: bool, dtype: str) -> None:
    supports = [word for word in SUPPORTS if transposed or word != "output_padding"]
    report = check_conv(
        *pair(transposed),
        spatial_dims=spatial_dims,
        supports=supports,
        dtype=dtype,
        transposed=transposed,
        seed=ENGINES.index(engine),  # the same systematic problems for both engines, and other random ones
    )
    report.raise_if_failed()
    assert report.cases_run == 200
    skipped = {"int32": {"real values", "non-finite"}, "complex64": {"non-finite"}}.get(dtype, set())
    assert set(report.checks) == set(CHECKS) - skipped
