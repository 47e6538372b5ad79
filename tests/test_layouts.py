"""Layouts of columns: each equals the definition wherever it is taken, is cut by shape alone, and is chosen by cost."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings

import refconv
from refconv import ChannelGroups, layouts
from refconv.arrays import load_backend
from refconv.shapes import describe
from refconv.testing.definition import definition_conv
from refconv.testing.problems import definition_results
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import assert_results, cut_into, load, run

CHOICES = ("for_images", "for_kernels", "for_both")
ALL = [layouts.Taps, layouts.TapsOfBatch, layouts.Rows, layouts.ChannelsLast]


@pytest.fixture(params=ALL, ids=lambda layout: layout.__name__)
def layout(request: Any) -> Any:
    """Take one layout for everything, whatever is faster."""
    with mock.patch.multiple(layouts, **{name: lambda xp, call: request.param() for name in CHOICES}):
        yield request.param


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("tile", [1, 1 << 12, 1 << 20])
def test_equals_the_definition(layout: Any, transposed: bool, tile: int) -> None:
    numpy, strides, real = load("numpy"), set(), layout.gather

    def gather(self: Any, xp: Any, padded: Any, geo: Any, groups: int) -> Any:
        strides.add(geo.stride[0])
        return real(self, xp, padded, geo, groups)

    @settings(max_examples=150)
    @given(conv_problems(transposed=transposed))
    def check(case: ConvProblem) -> None:
        with cut_into(tile):
            assert_results(numpy, run(numpy, *case), definition_results(*case))

    with mock.patch.object(layout, "gather", gather):
        check()
    assert strides >= {1, 2}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex128", "int16"])
@pytest.mark.parametrize("repaid", [True, False], ids=["channels last", "taps"])
def test_several_samples_are_one_product(dtype: str, repaid: bool) -> None:
    """Of all five, for groups of channels in any order that share some."""
    rng, made = np.random.default_rng(0), []
    x = rng.integers(-3, 4, (5, 40, 7, 9)).astype(dtype)
    groups = ChannelGroups([[*range(20, 40)], [*range(25, 5, -1)]], [[*range(1, 60, 2)], [*range(0, 60, 2)]])
    weight = [rng.integers(-3, 4, shape).astype(dtype) for shape in groups.weight_shapes((3, 5))]
    bias = rng.integers(-3, 4, 60).astype(dtype)
    options: dict[str, Any] = {"padding": (1, 2), "groups": groups}
    real = np.matmul

    def matmul(a: Any, b: Any, **keywords: Any) -> Any:
        made.append(max(a.shape[-2], b.shape[-1]))
        return real(a, b, **keywords)

    layouts._for_images.cache_clear()
    with mock.patch.object(np, "matmul", matmul), mock.patch.object(layouts, "REPAID", 5 * 7 * 9 + (not repaid)):
        y = refconv.conv(x, weight, bias, **options)
    layouts._for_images.cache_clear()
    assert made == [5 * 7 * 9] * (3 if repaid else 1)  # one for each tap of the first axis, or for all
    expected = np.zeros_like(y) + bias[:, None, None]
    for inputs, outputs, w in zip(groups.in_channels, groups.out_channels, weight, strict=True):
        expected[:, list(outputs)] += definition_conv(x[:, list(inputs)], w, padding=(1, 2))
    np.testing.assert_array_equal(y, expected)


def shaped(batch: int, channels: int, size: int, groups: int = 1, kernel: int = 3) -> Any:
    """Return a convolution of which every sample has size² columns."""
    options: dict[str, Any] = {"stride": 1, "dilation": 1, "groups": groups, "channels_last": False}
    shapes = (batch, channels, size, size), (channels, channels // groups, kernel, kernel)
    return describe(*shapes, padding=kernel // 2, **options)


@pytest.mark.parametrize(
    ("call", "images", "kernels", "both"),
    [
        (shaped(2, 32, 20), "ChannelsLast", "ChannelsLast", "ChannelsLast"),  # 9216 weights, 400 columns of a sample
        (shaped(1, 32, 20), "Rows", "TapsOfBatch", "Rows"),  # one sample, and too few columns to transpose a weight for
        (shaped(2, 32, 21), "Rows", "ChannelsLast", "ChannelsLast"),  # 441 columns; rows of 96 numbers
        (shaped(2, 16, 21), "Rows", "Rows", "Rows"),  # rows of 48 numbers
        (shaped(2, 32, 20, groups=2), "Rows", "TapsOfBatch", "Rows"),  # 2304 weights
        (shaped(2, 32, 15), "TapsOfBatch", "TapsOfBatch", "TapsOfBatch"),  # 450 columns in all
        (shaped(2, 1024, 20), "TapsOfBatch", "TapsOfBatch", "TapsOfBatch"),  # nine million weights
        (shaped(2, 64, 30, kernel=1), "Taps", "TapsOfBatch", "Taps"),  # no taps, of rows however long
        (shaped(2, 128, 20, kernel=1), "ChannelsLast", "ChannelsLast", "ChannelsLast"),
    ],
)
def test_the_layout_follows_the_shape(call: Any, images: str, kernels: str, both: str) -> None:
    found = [type(getattr(layouts, name)(np, call)).__name__ for name in CHOICES]
    assert found == [images, kernels, both]


def test_other_modules_have_the_textbook_s_columns() -> None:
    pytest.importorskip("array_api_strict")
    strict, call = load_backend("array_api_strict"), shaped(2, 32, 20)
    assert type(layouts.for_images(strict, call)) is layouts.Taps
    assert type(layouts.for_kernels(strict, call)) is layouts.TapsOfBatch


def test_the_same_bits_for_any_number_of_workers_and_any_workspace(layout: Any) -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(9, 8, 12, 13)), rng.normal(size=(6, 4, 5, 3)), rng.normal(size=6)
    options: dict[str, Any] = {"padding": (1, 2), "groups": 2}
    found = set()
    with cut_into(1 << 14):
        for workers in (1, 2, 3):
            for workspace in (1, 1 << 16, 1 << 26):
                with refconv.set_workers(workers), refconv.set_workspace(workspace):
                    y = refconv.conv(x, w, b, **options)
                    grads = refconv.conv_backward(y, x, w, **options)
                    found.add(b"".join(a.tobytes() for a in (y, *grads)))
    assert len(found) == 1


def test_an_infinity_stays_in_its_sample(layout: Any) -> None:
    x, w = np.ones((3, 2, 6, 5), "f4"), np.ones((4, 2, 3, 3), "f4")
    x[1, 0, 2, 2] = np.inf
    y = refconv.conv(x, w, padding=1)
    assert np.isfinite(y[[0, 2]]).all()
    np.testing.assert_array_equal(np.argwhere(~np.isfinite(y[1, 0])), [(i, j) for i in (1, 2, 3) for j in (1, 2, 3)])
    grads = refconv.conv_backward(y, x, w, padding=1, needs=("x",))
    assert np.isfinite(grads.x[[0, 2]]).all()
    assert np.isfinite(grads.x[1, 0, 5]).all()


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_an_infinity_reaches_only_the_windows_that_read_it(layout: Any, bad: float) -> None:
    x, w = np.ones((1, 2, 9, 8)), np.ones((3, 2, 3, 2))
    x[0, 1, 4, 3] = bad
    y = refconv.conv(x, w, stride=(2, 1), padding=1)
    expected = np.zeros(y.shape, bool)
    expected[:, :, 2, 3:5] = True  # rows 3…5 and columns 3, 4 of the padded input: 5 and 4 hold it
    np.testing.assert_array_equal(~np.isfinite(y), expected)


def test_opposite_infinities_warn_of_nothing(layout: Any) -> None:
    x = np.zeros((1, 8, 9, 9), "f4")
    x[0, 0, 4, 4], x[0, 0, 5, 4] = np.inf, -np.inf
    with np.errstate(all="raise"):
        y = refconv.conv(x, np.ones((4, 8, 3, 3), "f4"), padding=1)
        refconv.conv_weight_grad(np.ones_like(y), x, 3, padding=1)
    assert np.isnan(y[0, 0, 4, 4])


@pytest.mark.parametrize("channels", [4, 1024])
def test_an_empty_batch_has_a_weight_gradient_of_zeros(layout: Any, channels: int) -> None:
    x, g = np.ones((0, channels, 5, 5), "f4"), np.ones((0, 64, 3, 3), "f4")
    np.testing.assert_array_equal(refconv.conv_weight_grad(g, x, 3), np.zeros((64, channels, 3, 3), "f4"))


@pytest.mark.parametrize("double", [True, False])
def test_what_is_laid_out_and_copied_is_contiguous_for_blas(double: bool) -> None:
    """A matrix with a negative or odd stride BLAS would copy once more."""
    kernels = np.arange(2 * 3 * 4 * 6.0).astype("f8" if double else "f4").reshape(2, 3, 4, 3, 2)[..., ::-1, ::-1]
    call = shaped(1, 8, 5, kernel=3)
    geo = describe((1, 8, 5, 5), (6, 4, 3, 2), stride=1, padding=0, dilation=1, groups=2, channels_last=False).geometry
    assert call.geometry.kernel != geo.kernel
    for kind in ALL:
        matrices, to, source = kind().kernels(np, kernels, geo)
        assert to.shape == source.shape
        to[...] = source
        assert len(matrices) == (3 if kind.by_rows else 1)
        for matrix in matrices:
            assert matrix.dtype == kernels.dtype
            assert (matrix if double or kind is not layouts.ChannelsLast else matrix.mT)[0].flags.c_contiguous
        total = sum(matrix.sum() for matrix in matrices)
        assert total == kernels.sum()
