"""Columns of rows: both ways equal the definition, every tap finds its rows, and the cost decides between them."""

from __future__ import annotations

import itertools
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refconv
from refconv import rowwise
from refconv.shapes import describe, geometry
from refconv.testing.problems import definition_results
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import assert_results, cut_into, load, run

CHOICES = ("is_faster_for_images", "is_faster_for_kernels")


@pytest.fixture(params=[True, False], ids=["rows", "copies"])
def way(request: Any) -> Any:
    """Take one way for every kernel, whatever is faster."""
    with mock.patch.multiple(rowwise, **{name: lambda call: request.param for name in CHOICES}):
        yield request.param


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("tile", [1, 1 << 20])
def test_both_ways_equal_the_definition(way: bool, transposed: bool, tile: int) -> None:
    numpy, strides = load("numpy"), set()
    real = rowwise.gather_row_columns

    def gather(xp: Any, padded: Any, geo: Any, *arguments: Any, **options: Any) -> Any:
        strides.add(geo.stride[0])
        return real(xp, padded, geo, *arguments, **options)

    @settings(max_examples=200)
    @given(conv_problems(transposed=transposed))
    def check(case: ConvProblem) -> None:
        with cut_into(tile):
            assert_results(numpy, run(numpy, *case), definition_results(*case))

    with mock.patch.object(rowwise, "gather_row_columns", gather):
        check()
    assert strides >= {1, 2} if way else not strides


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
    joined = rowwise.gather_row_columns(np, padded, geo, groups, over_batch=True)
    assert len(apart) == len(joined) == kernel[0]
    outputs = list(itertools.product(*map(range, geo.output)))
    for first, n, g in itertools.product(range(kernel[0]), range(batch), range(groups)):
        for row, (taps, c) in enumerate(itertools.product(itertools.product(*map(range, kernel[1:])), range(channels))):
            expected = [
                padded[(n, g * channels + c, *(o * s + t * step for o, s, t, step in zip(
                    at, stride, (first, *taps), dilation, strict=True)))]
                for at in outputs
            ]  # fmt: skip
            assert apart[first][n, g, row].tolist() == expected
            found = joined[first][g, row].reshape(geo.output[0], batch, -1)[:, n].ravel()
            assert found.tolist() == expected


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (0, 2, 1, 3, 4, 5)], ids=["as they are", "turned"])
@pytest.mark.parametrize("channels", [(3, 4), (1, 1), (1, 4), (3, 1)])
def test_kernels_are_split_by_the_first_tap_and_joined_again(order: tuple[int, ...], channels: tuple[int, int]) -> None:
    shape = (2, *channels, 5, 2, 3)
    kernels = np.arange(np.prod(shape)).reshape(shape).transpose(order)[..., ::-1, ::-1, ::-1]
    count, K, C = kernels.shape[:3]
    parts, to, source = rowwise.split_kernels(np, kernels)
    assert to.shape == source.shape
    to[...] = source
    for first, part in enumerate(parts):
        np.testing.assert_array_equal(part.reshape(count, K, 2, 3, C), np.moveaxis(kernels[:, :, :, first], 2, -1))
        assert min(part.strides) > 0  # BLAS takes no others
    joined = np.full((count, K, C, 30), -1)
    rowwise.write_by_tap(np, joined, np.stack([np.swapaxes(part, 1, 2) for part in parts]))
    np.testing.assert_array_equal(joined, kernels.reshape(count, K, C, 30))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [8, 64, 200])
def test_no_product_of_a_weight_gradient_is_so_small_that_other_threads_wait(stride: int, groups: int) -> None:
    """Integers, so that parts of a sum may be summed in any order."""
    rng = np.random.default_rng(0)
    x, g = (rng.integers(-4, 5, (2, groups, size, 12)).astype("f4") for size in (8 * stride, 8))
    made = []
    real = rowwise.matmul

    def matmul(xp: Any, a: Any, b: Any, **options: Any) -> Any:
        made.append(real(xp, a, b, **options))
        return made[-1]

    with mock.patch.object(rowwise, "matmul", matmul), mock.patch.object(rowwise, CHOICES[1], return_value=True):
        found = refconv.conv_weight_grad(g, x, (3, 1), stride=(stride, 1), padding=(1, 0), groups=groups)
    assert made
    assert all(product.size >= rowwise.LOCKED for product in made)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    for tap in range(3):
        rows = padded[:, :, tap : tap + 7 * stride + 1 : stride]
        np.testing.assert_array_equal(found[:, 0, tap, 0], (rows * g).sum(axis=(0, 2, 3)))


def test_a_product_of_a_prime_number_of_columns_is_one() -> None:
    a, b = np.arange(2 * 3 * 1009.0).reshape(2, 3, 1009), np.ones((2, 1009, 1))
    np.testing.assert_array_equal(rowwise.products_by_tap(np, a, b), a.sum(-1, keepdims=True))


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


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_an_infinity_reaches_only_the_windows_that_read_it(way: bool, bad: float) -> None:
    x, w = np.ones((1, 2, 9, 8)), np.ones((3, 2, 3, 2))
    x[0, 1, 4, 3] = bad
    y = refconv.conv(x, w, stride=(2, 1), padding=1)
    expected = np.zeros(y.shape, bool)
    expected[:, :, 2, 3:5] = True  # rows 3…5 and columns 3, 4 of the padded input: 5 and 4 hold it
    np.testing.assert_array_equal(~np.isfinite(y), expected)


def test_opposite_infinities_warn_of_nothing(way: bool) -> None:
    x = np.zeros((1, 8, 9, 9), "f4")
    x[0, 0, 4, 4], x[0, 0, 5, 4] = np.inf, -np.inf
    with np.errstate(all="raise"):
        y = refconv.conv(x, np.ones((4, 8, 3, 3), "f4"), padding=1)
        refconv.conv_weight_grad(np.ones_like(y), x, 3, padding=1)
    assert np.isnan(y[0, 0, 4, 4])


def test_the_same_bits_for_any_number_of_workers_and_any_workspace(way: bool) -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(5, 8, 42, 60)), rng.normal(size=(6, 4, 5, 3)), rng.normal(size=6)
    options: dict[str, Any] = {"stride": (2, 1), "padding": (1, 2), "groups": 2}
    found = set()
    with cut_into(1 << 14):
        for workers in (1, 2, 3):
            for workspace in (1 << 12, 1 << 16, 1 << 26):
                with refconv.set_workers(workers), refconv.set_workspace(workspace):
                    y = refconv.conv(x, w, b, **options)
                    grads = refconv.conv_backward(y, x, w, **options)
                    found.add(b"".join(a.tobytes() for a in (y, *grads)))
    assert len(found) == 1


@pytest.mark.parametrize("channels", [4, 1024])
def test_an_empty_batch_has_a_weight_gradient_of_zeros(way: bool, channels: int) -> None:
    x, g = np.ones((0, channels, 5, 5), "f4"), np.ones((0, 64, 3, 3), "f4")
    np.testing.assert_array_equal(refconv.conv_weight_grad(g, x, 3), np.zeros((64, channels, 3, 3), "f4"))
