"""im2col and col2im: the columns by definition, and one the adjoint of the other."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import refconv
from refconv.testing.oracles.definition import output_sizes, paddings, source
from refconv.testing.oracles.problems import Problem, inner
from refconv.testing.strategies import problems
from tests.helpers import DTYPES, Backend, arange


def columns_of(x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """Return the columns (N, C·T, L) of (N, C, …): channel and tap down, position across."""
    size, channels = x.shape[2:], x.shape[1]
    pads = paddings(padding, size, kernel, stride, dilation)
    positions = list(np.ndindex(output_sizes(size, kernel, stride=stride, padding=padding, dilation=dilation)))
    taps = list(np.ndindex(*kernel))
    columns = np.zeros((len(x), channels * len(taps), len(positions)), x.dtype)
    for row, (c, t) in enumerate(itertools.product(range(channels), taps)):
        for column, o in enumerate(positions):
            axes = zip(o, t, stride, dilation, pads, size, strict=True)
            i = tuple(source(oj * s + tj * dil - b, n, "zeros") for oj, tj, s, dil, (b, _), n in axes)
            if None not in i:
                columns[:, row, column] = x[(slice(None), c, *i)]
    return columns


def arguments(problem: Problem) -> dict[str, Any]:
    return {"stride": problem.stride, "padding": problem.padding, "dilation": problem.dilation}


def whole(shape: Any, dtype: str, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).integers(-3, 4, shape)
    return (values * (1 - 2j) if dtype.startswith("complex") else values).astype(dtype)


def test_columns_by_definition(backend: Backend) -> None:
    @given(problems(padding_modes=("zeros",)))
    def check(problem: Problem) -> None:
        x = arange((problem.batch or 1, problem.c_in, *problem.size))
        expected = columns_of(x, problem.kernel, problem.stride, problem.padding, problem.dilation)
        if problem.batch is None:
            x, expected = x[0], expected[0]
        actual = refconv.im2col(backend.asarray(x), problem.kernel, **arguments(problem))
        backend.assert_equal(actual, expected)

    check()


def test_col2im_is_adjoint_to_im2col(backend: Backend) -> None:
    """⟨im2col(x), c⟩ = ⟨x, col2im(c)⟩, and, by definition, every entry returns to the element that it was read from."""

    @given(problems(padding_modes=("zeros",)))
    def check(problem: Problem) -> None:
        shape = (problem.batch or 1, problem.c_in, *problem.size)
        x = whole(shape, "float32")
        expected = columns_of(x, problem.kernel, problem.stride, problem.padding, problem.dilation)
        c = whole(expected.shape, "float32", 1)
        names = columns_of(arange(shape, "float64"), problem.kernel, problem.stride, problem.padding, problem.dilation)
        back = np.bincount(names.astype(int).ravel(), c.ravel(), int(np.prod(shape)) + 1)[1:].reshape(shape)
        if problem.batch is None:
            shape, c, x, back = shape[1:], c[0], x[0], back[0]
        actual = refconv.col2im(backend.asarray(c), shape, problem.kernel, **arguments(problem))
        backend.assert_equal(actual, back.astype("float32"))
        columns = refconv.im2col(backend.asarray(x), problem.kernel, **arguments(problem))
        assert inner(backend.to_numpy(columns), c) == inner(x, backend.to_numpy(actual))

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(backend: Backend, dtype: str) -> None:
    if not backend.supports(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    x = np.abs(whole((2, 3, 4, 5), dtype)).astype(dtype)
    expected = columns_of(x, (2, 3), (1, 2), 1, (2, 1))
    steps = {"stride": (1, 2), "padding": 1, "dilation": (2, 1)}
    backend.assert_equal(refconv.im2col(backend.asarray(x), (2, 3), **steps), expected)
    back = refconv.col2im(backend.asarray(expected), x.shape, (2, 3), **steps)
    assert backend.to_numpy(back).dtype == dtype


def test_by_hand(backend: Backend) -> None:
    x = np.array([[[[1, 2, 3], [4, 5, 6]]]], "float32")
    columns = np.array([[[1, 2], [2, 3], [4, 5], [5, 6]]], "float32")
    backend.assert_equal(refconv.im2col(backend.asarray(x), 2), columns)
    back = np.array([[[[1, 4, 3], [4, 10, 6]]]], "float32")
    backend.assert_equal(refconv.col2im(backend.asarray(columns), (1, 1, 2, 3), 2), back)


def test_rows_run_over_channels_first(backend: Backend) -> None:
    columns = refconv.im2col(backend.asarray(np.array([[[1, 2], [10, 20]]], "float32")), (2,))
    backend.assert_equal(columns, np.array([[[1], [2], [10], [20]]], "float32"))


def test_unbatched(backend: Backend) -> None:
    x = arange((1, 2, 3, 4))
    columns = columns_of(x, (2, 2), (1, 1), 0, (1, 1))
    backend.assert_equal(refconv.im2col(backend.asarray(x[0]), (2, 2)), columns[0])
    back = refconv.col2im(backend.asarray(columns[0]), (2, 3, 4), (2, 2))
    assert tuple(back.shape) == (2, 3, 4)
    whole_batch = refconv.col2im(backend.asarray(columns), (1, 2, 3, 4), (2, 2))
    backend.assert_equal(back, backend.to_numpy(whole_batch)[0])


def test_convolution_is_one_matrix_product(backend: Backend) -> None:
    x, w = whole((2, 3, 5, 4), "float32"), whole((4, 3, 2, 2), "float32", 1)
    columns = backend.to_numpy(refconv.im2col(backend.asarray(x), (2, 2), stride=2, padding=1))
    y = refconv.conv(backend.asarray(x), backend.asarray(w), stride=2, padding=1)
    backend.assert_equal(y, (w.reshape(4, -1) @ columns).reshape(2, 4, 3, 3))


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4)])
def test_empty(backend: Backend, shape: Any) -> None:
    x = np.zeros(shape, "float32")
    columns = refconv.im2col(backend.asarray(x), (2, 2))
    backend.assert_equal(columns, np.zeros((shape[0], shape[1] * 4, 6), "float32"))
    backend.assert_equal(refconv.col2im(columns, shape, (2, 2)), x)


def test_no_channels_and_no_batch_axis(backend: Backend) -> None:
    columns = refconv.im2col(backend.asarray(np.zeros((0, 3, 4), "float32")), (2, 2))
    backend.assert_equal(columns, np.zeros((0, 6), "float32"))


@pytest.mark.parametrize("kernel", [1, (1, 1), (3, 4)])
def test_inputs_are_not_changed_and_results_are_new(kernel: Any) -> None:
    x = arange((1, 2, 3, 4))
    columns = refconv.im2col(x, kernel)
    back = refconv.col2im(columns, x.shape, kernel)
    assert not np.shares_memory(x, columns)
    assert not np.shares_memory(columns, back)
    columns[...] = back[...] = 0
    np.testing.assert_array_equal(x, arange((1, 2, 3, 4)))


def test_any_memory_layout() -> None:
    x = arange((2, 3, 4, 5))
    expected = columns_of(x, (2, 2), (1, 2), 0, (1, 1))
    doubled = np.repeat(x, 2, axis=2)
    for changed in (np.asfortranarray(x), np.flip(np.flip(x).copy()), doubled[:, :, ::2], x.astype(">f4")):
        np.testing.assert_array_equal(refconv.im2col(changed, 2, stride=(1, 2)), expected)
    for changed in (np.asfortranarray(expected), expected[:, ::-1][:, ::-1], expected.astype(">f4")):
        np.testing.assert_array_equal(
            refconv.col2im(changed, x.shape, 2, stride=(1, 2)), refconv.col2im(expected, x.shape, 2, stride=(1, 2))
        )


def test_col2im_sums_float16_in_float32() -> None:
    columns = np.zeros((1, 3, 3), "float16")
    columns[0, 2, 0] = columns[0, 1, 1] = 1
    columns[0, 0, 2] = 2048  # 2048 + 1 is 2048 in float16
    assert refconv.col2im(columns, (1, 1, 5), 3)[0, 0, 2] == 2050
