"""Columns of rows: both ways equal the definition, every tap finds its rows, and the cost decides between them."""

from __future__ import annotations

import itertools
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refconv
from refconv import layouts, rowwise
from refconv.shapes import describe, geometry


@given(st.data())
def test_each_tap_finds_its_rows(data: st.DataObject) -> None:
    """By the definition: row o·stride + t·dilation of the padded input, in the columns' order."""
    d = data.draw(st.integers(1, 3))
    few = st.lists(st.integers(1, 3), min_size=d, max_size=d).map(tuple)
    kernel, stride, dilation, more = (data.draw(few) for _ in range(4))
    size = tuple(step * (k - 1) + m + 1 for k, step, m in zip(kernel, dilation, more, strict=True))
    geo = geometry(size, kernel, stride=stride, padding=0, dilation=dilation)
    batch, groups, channels = (data.draw(st.integers(1, 3)) for _ in range(3))
    padded = np.arange(batch * groups * channels * np.prod(size)).reshape(batch, groups * channels, *size)
    apart = rowwise.gather_row_columns(np, padded, geo, groups)
    last = np.moveaxis(padded.reshape(batch, groups, channels, *size), (0, 2), (2, -1)).copy()  # (G, P1, N, …, C)
    windows = rowwise.gather_windows(np, last, geo)
    assert len(apart) == len(windows) == kernel[0]
    outputs = list(itertools.product(*map(range, geo.output)))
    for first, n, g in itertools.product(range(kernel[0]), range(batch), range(groups)):
        for row, (taps, c) in enumerate(itertools.product(itertools.product(*map(range, kernel[1:])), range(channels))):
            expected = [
                padded[(n, g * channels + c, *(o * s + t * step for o, s, t, step in zip(
                    at, stride, (first, *taps), dilation, strict=True)))]
                for at in outputs
            ]  # fmt: skip
            assert apart[first][n, g, row].tolist() == expected
            found = windows[first][g, :, row].reshape(geo.output[0], batch, -1)[:, n].ravel()
            assert found.tolist() == expected


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (0, 2, 1, 3, 4, 5)], ids=["as they are", "turned"])
@pytest.mark.parametrize("channels", [(3, 4), (1, 1), (1, 4), (3, 1)])
@pytest.mark.parametrize("transposed", [True, False])
def test_kernels_are_split_by_the_first_tap_and_joined_again(
    order: tuple[int, ...], channels: tuple[int, int], transposed: bool
) -> None:
    shape = (2, *channels, 5, 2, 3)
    kernels = np.arange(np.prod(shape)).reshape(shape).transpose(order)[..., ::-1, ::-1, ::-1]
    count, K, C = kernels.shape[:3]
    parts, to, source = rowwise.split_kernels(np, kernels, transposed=transposed)
    assert to.shape == source.shape
    to[...] = source
    for first, part in enumerate(parts):
        np.testing.assert_array_equal(part.reshape(count, K, 2, 3, C), np.moveaxis(kernels[:, :, :, first], 2, -1))
        assert min(part.strides) > 0  # BLAS takes no others
    joined = np.full((count, K, C, 30), -1)
    rowwise.write_by_tap(np, joined, np.stack(parts))
    np.testing.assert_array_equal(joined, kernels.reshape(count, K, C, 30))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [8, 64, 200])
@pytest.mark.parametrize("layout", [layouts.Taps, layouts.TapsOfBatch, layouts.Rows])
def test_no_product_of_a_weight_gradient_is_so_small_that_other_threads_wait(
    stride: int, groups: int, layout: Any
) -> None:
    """Integers, so that parts of a sum may be summed in any order."""
    rng = np.random.default_rng(0)
    x, g = (rng.integers(-4, 5, (2, groups, size, 12)).astype("f4") for size in (8 * stride, 8))
    made = []
    real = rowwise.matmul

    def matmul(xp: Any, a: Any, b: Any, **options: Any) -> Any:
        made.append(real(xp, a, b, **options))
        return made[-1]

    with mock.patch.object(rowwise, "matmul", matmul), mock.patch.object(layouts, "for_kernels", return_value=layout()):
        found = refconv.conv_weight_grad(g, x, (3, 1), stride=(stride, 1), padding=(1, 0), groups=groups)
    assert made
    assert all(product.size >= rowwise.LOCKED for product in made)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    for tap in range(3):
        rows = padded[:, :, tap : tap + 7 * stride + 1 : stride]
        np.testing.assert_array_equal(found[:, 0, tap, 0], (rows * g).sum(axis=(0, 2, 3)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_product_of_a_prime_number_of_columns_is_one(dtype: str) -> None:
    columns, positions = np.arange(2 * 3 * 1009).reshape(2, 3, 1009).astype(dtype), np.ones((2, 1, 1009), dtype)
    expected = np.arange(2 * 3 * 1009).reshape(2, 1, 3, 1009).sum(-1)
    np.testing.assert_array_equal(rowwise.outer_products(np, positions, columns // 1), expected)


def call(x: Any, w: Any, **options: Any) -> Any:
    given: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "channels_last": False}
    return describe(x, w, **(given | options))


@pytest.mark.parametrize(
    ("described", "images", "kernels"),
    [
        (call((8, 96, 27, 27), (256, 48, 5, 5), padding=2, groups=2), True, True),
        (
            call((8, 3, 227, 227), (96, 3, 11, 11), stride=4),
            False,
            False,
        ),  # 33 rows instead of 363, summed eleven times
        (call((8, 128, 28, 28), (128, 4, 3, 3), padding=1, groups=32), True, True),
        (call((8, 1, 28, 28), (64, 1, 3, 3)), False, False),  # more sums than copies
        (call((1, 1024, 28, 28), (1024, 1024, 3, 3)), False, True),  # a weight too large to be copied
        (call((8, 64, 28, 28), (64, 64, 1, 3)), False, False),  # one row of taps
        (call((8, 64, 28, 28), (64, 64, 3, 3), stride=3), False, False),  # windows that do not overlap
        (call((8, 16, 10, 5), (16, 64, 3, 3), transposed=True), True, True),
        (call((8, 16, 10, 5), (64, 16, 3, 3)), False, False),
    ],
)
def test_the_way_follows_the_cost(described: Any, images: bool, kernels: bool) -> None:
    assert rowwise.is_faster_for_images(described) is images
    assert rowwise.is_faster_for_kernels(described) is kernels
