"""Layouts of columns: each equals the definition, is cut by shape alone, and is chosen by its cost."""

from __future__ import annotations

import itertools
import warnings
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refconv
from refconv import ChannelGroups
from refconv.cpu import choices, layouts
from refconv.cpu.layouts import ChannelsLast, Rows, Taps, TapsOfBatch
from refconv.shapes import Convolution, geometry
from refconv.testing.oracles.definition import definition_conv
from refconv.testing.oracles.problems import definition_results
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.cpu_helpers import LAYOUTS, described, distinct_results, fast_engine  # noqa: F401
from tests.helpers import assert_results, cut_into, load, run

CHOICES = ("for_images", "for_kernels", "for_both")


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.__name__)
def layout(request: Any) -> Any:
    """Use one layout for everything, even if it is slower."""
    with mock.patch.multiple(choices, **{name: lambda call: request.param() for name in CHOICES}):
        yield request.param


@pytest.mark.thinned(5)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("tile", [1, 1 << 12, 1 << 20])
def test_equals_the_definition(layout: Any, transposed: bool, tile: int) -> None:
    numpy, strides, real = load("numpy"), set(), layout.gather

    def gather(self: Any, padded: Any, geo: Any, groups: int) -> Any:
        strides.add(geo.stride[0])
        return real(self, padded, geo, groups)

    @settings(max_examples=150)
    @given(conv_problems(transposed=transposed))
    def check(case: ConvProblem) -> None:
        with cut_into(tile):
            assert_results(numpy, run(numpy, *case), definition_results(*case))

    with mock.patch.object(layout, "gather", gather):
        check()
    assert strides >= {1, 2}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex128", "int16"])
def test_several_samples_are_one_product(dtype: str) -> None:
    """All five samples, for groups that share channels in any order."""
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

    uncached = {"_for_images": choices._for_images.__wrapped__}
    with mock.patch.object(np, "matmul", matmul), mock.patch.multiple(choices, HEAVY=20 * 30 * 15, **uncached):
        y = refconv.conv(x, weight, bias, **options)
    assert made == [5 * 7 * 9]
    expected = np.zeros_like(y) + bias[:, None, None]
    for inputs, outputs, w in zip(groups.in_channels, groups.out_channels, weight, strict=True):
        expected[:, list(outputs)] += definition_conv(x[:, list(inputs)], w, padding=(1, 2))
    np.testing.assert_array_equal(y, expected)


def shaped(batch: int, channels: int, size: int, groups: int = 1, kernel: int = 3) -> Convolution:
    """Return a convolution with size² columns per sample."""
    shapes = (batch, channels, size, size), (channels, channels // groups, kernel, kernel)
    return described(*shapes, padding=kernel // 2, groups=groups)


BATCH, ROWS, TAPS, LAST = TapsOfBatch, Rows, Taps, ChannelsLast


@pytest.mark.parametrize(
    ("call", "images", "kernels", "both"),
    [
        (shaped(4, 48, 20), BATCH, LAST, LAST),  # 20736 weights, 400 columns of a sample
        (shaped(2, 48, 20), BATCH, BATCH, BATCH),  # 800 columns: too few to transpose the weight
        (shaped(1, 48, 32), ROWS, LAST, LAST),  # one sample
        (shaped(1, 48, 20), ROWS, BATCH, ROWS),
        (shaped(4, 32, 20), ROWS, LAST, LAST),  # 9216 weights
        (shaped(4, 32, 21), ROWS, LAST, LAST),  # 441 columns; runs of 96 numbers
        (shaped(4, 16, 21), ROWS, ROWS, ROWS),  # runs of 48 numbers
        (shaped(4, 96, 20, groups=2), BATCH, LAST, LAST),
        (shaped(4, 96, 20, groups=8), ROWS, BATCH, ROWS),  # 12 channels per group
        (shaped(4, 1024, 20), BATCH, BATCH, BATCH),  # nine million weights
        (shaped(4, 128, 20, kernel=1), BATCH, BATCH, BATCH),  # one tap
        (shaped(4, 64, 30, kernel=1), TAPS, BATCH, TAPS),
        (described((64, 3, 18, 18), (768, 3, 3, 3)), BATCH, BATCH, BATCH),  # far more channels than numbers in a window
        (described((4, 32, 20, 20), (96, 32, 3, 3), padding=1), BATCH, LAST, LAST),
        (described((32, 1, 16000), (64, 1, 400), stride=160), BATCH, BATCH, BATCH),  # one axis: runs of one number
        (described((64, 64, 128), (64, 64, 9), padding=4), BATCH, LAST, LAST),
        (described((64, 63, 128), (64, 63, 9), padding=4), BATCH, BATCH, BATCH),
        (
            described((8, 32, 14, 14), (64, 32, 3, 3), dilation=(1, 2), padding=2),
            BATCH,
            BATCH,
            BATCH,
        ),  # numbers are not adjacent
        (
            described((256, 64, 104), (64, 64, 4), dilation=33),
            BATCH,
            BATCH,
            BATCH,
        ),  # rows between the taps that no window reads
        (
            described((8, 256, 14, 14), (256, 3, 4, 4), stride=2, transposed=True),
            TAPS,
            BATCH,
            TAPS,
        ),  # runs of 12 numbers
        (described((8, 16, 14, 14), (16, 64, 4, 4), transposed=True), BATCH, LAST, LAST),
    ],
)
def test_the_layout_follows_the_shape(call: Convolution, images: Any, kernels: Any, both: Any) -> None:
    assert [type(getattr(choices, name)(call)) for name in CHOICES] == [images, kernels, both]


def test_the_same_bits_for_any_number_of_workers_and_any_workspace(layout: Any) -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(9, 8, 12, 13)), rng.normal(size=(6, 4, 5, 3)), rng.normal(size=6)
    options: dict[str, Any] = {"padding": (1, 2), "groups": 2}

    def call() -> Any:
        y = refconv.conv(x, w, b, **options)
        return (y, *refconv.conv_backward(y, x, w, **options))

    assert distinct_results(call) == 1


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
    expected[:, :, 2, 3:5] = True  # row 5 and column 4 of the padded input
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
def test_matrices_of_kernels_are_contiguous(double: bool) -> None:
    """BLAS would copy a matrix with a negative stride again."""
    kernels = np.arange(2 * 3 * 4 * 6.0).astype("f8" if double else "f4").reshape(2, 3, 4, 3, 2)[..., ::-1, ::-1]
    geo = described((1, 8, 5, 5), (6, 4, 3, 2), groups=2).geometry
    for kind in LAYOUTS:
        matrices, to, source = kind().kernels(kernels, geo)
        assert to.shape == source.shape
        to[...] = source
        assert len(matrices) == (3 if kind.by_rows else 1)
        for matrix in matrices:
            assert matrix.dtype == kernels.dtype
            assert (matrix if double or kind is not ChannelsLast else matrix.mT)[0].flags.c_contiguous
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


# --- Columns and kernels by tap of the first axis ---


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
    columns = Rows().gather(padded, geo, groups)
    last = np.moveaxis(padded.reshape(batch, groups, channels, *size), (0, 2), (2, -1)).copy()  # (G, P1, N, …, C)
    windows = ChannelsLast().gather(last, geo, groups)
    assert len(columns) == len(windows) == kernel[0]
    outputs = list(itertools.product(*map(range, geo.output)))
    for first, n, g in itertools.product(range(kernel[0]), range(batch), range(groups)):
        for row, (taps, c) in enumerate(itertools.product(itertools.product(*map(range, kernel[1:])), range(channels))):
            expected = [
                padded[(n, g * channels + c, *(o * s + t * step for o, s, t, step in zip(
                    at, stride, (first, *taps), dilation, strict=True)))]
                for at in outputs
            ]  # fmt: skip
            assert columns[first][n, g, row].tolist() == expected
            found = windows[first][g, :, row].reshape(geo.output[0], batch, -1)[:, n].ravel()
            assert found.tolist() == expected


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (0, 2, 1, 3, 4, 5)], ids=["in order", "swapped"])
@pytest.mark.parametrize("channels", [(3, 4), (1, 1), (1, 4), (3, 1)])
@pytest.mark.parametrize("transposed", [True, False])
def test_kernels_are_split_by_the_first_tap_and_joined_again(
    order: tuple[int, ...], channels: tuple[int, int], transposed: bool
) -> None:
    shape = (2, *channels, 5, 2, 3)
    kernels = np.arange(np.prod(shape)).reshape(shape).transpose(order)[..., ::-1, ::-1, ::-1]
    count, K, C = kernels.shape[:3]
    parts, to, source = layouts.split_kernels(kernels, transposed=transposed)
    assert to.shape == source.shape
    to[...] = source
    for first, part in enumerate(parts):
        np.testing.assert_array_equal(part.reshape(count, K, 2, 3, C), np.moveaxis(kernels[:, :, :, first], 2, -1))
        assert min(part.strides) > 0  # BLAS takes no negative ones
    joined = np.full((count, K, C, 30), -1)
    Rows().write(joined, np.stack(parts))
    np.testing.assert_array_equal(joined, kernels.reshape(count, K, C, 30))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [8, 64, 200])
@pytest.mark.parametrize("kind", [Taps, TapsOfBatch, Rows])
def test_no_product_of_a_weight_gradient_is_so_small_that_other_threads_wait(
    stride: int, groups: int, kind: Any
) -> None:
    """The numbers are whole, so that parts of a sum may be added in any order."""
    rng = np.random.default_rng(0)
    x, g = (rng.integers(-4, 5, (2, groups, size, 12)).astype("f4") for size in (8 * stride, 8))
    made = []
    real = layouts._outer

    def product(a: Any, b: Any) -> Any:
        made.append(real(a, b))
        return made[-1]

    with mock.patch.object(layouts, "_outer", product), mock.patch.object(choices, "for_kernels", return_value=kind()):
        found = refconv.conv_weight_grad(g, x, (3, 1), stride=(stride, 1), padding=(1, 0), groups=groups)
    assert made
    assert all(found.size >= layouts.LOCKED for found in made)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    for tap in range(3):
        rows = padded[:, :, tap : tap + 7 * stride + 1 : stride]
        np.testing.assert_array_equal(found[:, 0, tap, 0], (rows * g).sum(axis=(0, 2, 3)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_product_of_a_prime_number_of_columns_is_not_split(dtype: str) -> None:
    columns, positions = np.arange(2 * 3 * 1009).reshape(2, 3, 1009).astype(dtype), np.ones((2, 1, 1009), dtype)
    expected = np.arange(2 * 3 * 1009).reshape(2, 1, 3, 1009).sum(-1)
    np.testing.assert_array_equal(layouts.outer_products(positions, columns), expected)


@pytest.mark.parametrize(
    ("call", "images", "kernels"),
    [
        (described((8, 96, 27, 27), (256, 48, 5, 5), padding=2, groups=2), True, True),
        # 33 rows are copied instead of 363, but summed eleven times
        (described((8, 3, 227, 227), (96, 3, 11, 11), stride=4), False, False),
        (described((8, 128, 28, 28), (128, 4, 3, 3), padding=1, groups=32), True, True),
        (described((8, 1, 28, 28), (64, 1, 3, 3)), False, False),  # more sums than copies
        (described((1, 1024, 28, 28), (1024, 1024, 3, 3)), False, True),  # a weight too large to copy
        (described((8, 64, 28, 28), (64, 64, 1, 3)), False, False),  # one row of taps
        (described((8, 64, 28, 28), (64, 64, 3, 3), stride=3), False, False),  # windows that do not overlap
        (described((8, 16, 10, 5), (16, 64, 3, 3), transposed=True), True, True),
        (described((8, 16, 10, 5), (64, 16, 3, 3)), False, False),
    ],
)
def test_rows_are_used_where_they_cost_less(call: Convolution, images: bool, kernels: bool) -> None:
    assert choices.rows_pay_for_images(call) is images
    assert choices.rows_pay_for_kernels(call) is kernels
