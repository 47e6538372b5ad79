"""Layouts of columns: each equals the definition wherever it is taken, is cut by shape alone, and is chosen by cost."""

from __future__ import annotations

import warnings
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

    forget = layouts._for_images.cache_clear, layouts._suits_channels_last.cache_clear
    for clear in forget:
        clear()
    limits = {"REPAID": 5 * 7 * 9 + (not repaid), "HEAVY": 20 * 30 * 15}
    with mock.patch.object(np, "matmul", matmul), mock.patch.multiple(layouts, **limits):
        y = refconv.conv(x, weight, bias, **options)
    for clear in forget:
        clear()
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


def called(x: tuple[int, ...], w: tuple[int, ...], **options: Any) -> Any:
    """Return a convolution of these shapes."""
    given: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "channels_last": False}
    return describe(x, w, **given | options)


BATCH, ROWS, TAPS = "TapsOfBatch", "Rows", "Taps"


@pytest.mark.parametrize(
    ("call", "images", "kernels", "both"),
    [
        (shaped(4, 48, 20), "ChannelsLast", "ChannelsLast", "ChannelsLast"),  # 20736 weights, 400 columns of a sample
        (shaped(2, 48, 20), BATCH, BATCH, BATCH),  # 800 columns: too few to transpose a weight for
        (shaped(1, 48, 32), ROWS, "ChannelsLast", "ChannelsLast"),  # one sample
        (shaped(4, 32, 20), ROWS, "ChannelsLast", "ChannelsLast"),  # 9216 weights
        (shaped(4, 32, 21), ROWS, "ChannelsLast", "ChannelsLast"),  # 441 columns; 96 numbers together
        (shaped(4, 16, 21), ROWS, ROWS, ROWS),  # 48 numbers together
        (shaped(4, 96, 20, groups=2), "ChannelsLast", "ChannelsLast", "ChannelsLast"),
        (shaped(4, 96, 20, groups=8), ROWS, BATCH, ROWS),  # 12 channels a group
        (shaped(4, 1024, 20), BATCH, BATCH, BATCH),  # nine million weights
        (shaped(4, 128, 20, kernel=1), BATCH, BATCH, BATCH),  # no taps
        (shaped(4, 64, 30, kernel=1), TAPS, BATCH, TAPS),
        (called((64, 3, 18, 18), (768, 3, 3, 3)), BATCH, BATCH, BATCH),  # many more channels than numbers in a window
        (called((4, 32, 20, 20), (96, 32, 3, 3), padding=1), BATCH, "ChannelsLast", BATCH),  # 288 numbers, 96 channels
        (called((32, 1, 16000), (64, 1, 400), stride=160), BATCH, BATCH, BATCH),  # one axis: a number at a time
        (called((64, 64, 128), (64, 64, 9), padding=4), "ChannelsLast", "ChannelsLast", "ChannelsLast"),
        (called((64, 63, 128), (64, 63, 9), padding=4), BATCH, BATCH, BATCH),
        (called((8, 32, 14, 14), (64, 32, 3, 3), dilation=(1, 2), padding=2), BATCH, BATCH, BATCH),  # numbers apart
        (called((256, 64, 104), (64, 64, 4), dilation=33), BATCH, BATCH, BATCH),  # rows between that nothing reads
        (called((8, 256, 14, 14), (256, 3, 4, 4), stride=2, transposed=True), TAPS, BATCH, TAPS),  # 12 together
        (called((8, 16, 14, 14), (16, 64, 4, 4), transposed=True), "ChannelsLast", "ChannelsLast", "ChannelsLast"),
    ],
)
def test_the_layout_follows_the_shape(call: Any, images: str, kernels: str, both: str) -> None:
    found = [type(getattr(layouts, name)(np, call)).__name__ for name in CHOICES]
    assert found == [images, kernels, both]


def test_other_modules_have_the_textbook_s_columns() -> None:
    pytest.importorskip("array_api_strict")
    strict, call = load_backend("array_api_strict"), shaped(4, 48, 20)
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
    geo = describe((1, 8, 5, 5), (6, 4, 3, 2), stride=1, padding=0, dilation=1, groups=2, channels_last=False).geometry
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


def test_an_array_that_numpy_warns_of_writing_to_is_only_read() -> None:
    x, _ = np.broadcast_arrays(np.arange(20.0), np.zeros((1, 1, 20)))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        y = refconv.conv(x, np.ones((1, 1, 3)))
        refconv.im2col(x, 3)
    assert not seen
    np.testing.assert_array_equal(y[0, 0], np.arange(1, 19) * 3.0)


def test_gradients_of_opposite_infinities_warn_of_nothing() -> None:
    x, w, g = np.ones((1, 1, 6)), np.ones((1, 1, 3)), np.array([[[np.inf, 0, -np.inf, 0]]])
    with np.errstate(all="raise"):
        grads = refconv.conv_backward(g, x, w)
        assert np.isnan(grads.bias[0])
        np.testing.assert_array_equal(grads.x[0, 0], [np.inf, np.inf, np.nan, -np.inf, -np.inf, 0])
        folded = refconv.conv_backward(g, x[..., :4], w, padding=1, padding_mode="replicate")
        assert np.isnan(folded.x[0, 0]).any()
