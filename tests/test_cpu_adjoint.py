"""Scatter as a correlation, and both gradients from the same columns: every way equals the definition."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings

import refconv
from refconv.cpu import adjoint, choices, passes
from refconv.cpu.adjoint import as_correlation
from refconv.testing.oracles.problems import Operands, Problem, definition_results
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.cpu_helpers import LAYOUTS, described, distinct_results, fast_engine  # noqa: F401
from tests.helpers import assert_results, cut_into, load, run


@pytest.fixture(params=[True, False], ids=["correlation", "scatter"])
def way(request: Any) -> Any:
    """Use one way wherever possible, even if it is slower."""
    as_correlation.cache_clear()
    with mock.patch.object(adjoint, "correlation_pays", return_value=request.param):
        yield request.param
    as_correlation.cache_clear()


@pytest.fixture(params=[True, False], ids=["shared", "separate"])
def shared(request: Any) -> Any:
    """Let both gradients use the same columns, or separate columns."""
    with mock.patch.object(choices, "shares_columns", return_value=request.param):
        yield request.param


@pytest.mark.thinned(3)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("tile", [1, 1 << 20])
def test_both_ways_equal_the_definition(way: bool, transposed: bool, tile: int) -> None:
    numpy, taken = load("numpy"), []
    real = adjoint.Adjoint.kernels

    def kernels(self: Any, *arguments: Any) -> Any:
        taken.append(max(self.stride))
        return real(self, *arguments)

    @settings(max_examples=150)
    @given(conv_problems(transposed=transposed, dtypes=("float32", "complex64", "int16")))
    def check(case: ConvProblem) -> None:
        with cut_into(tile):
            assert_results(numpy, run(numpy, *case), definition_results(*case))

    with mock.patch.object(adjoint.Adjoint, "kernels", kernels):
        check()
    assert bool(taken) is way
    if way:
        assert min(taken) == 1 < max(taken)  # also with phases of a stride


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_an_infinity_reaches_only_what_reads_it(way: bool, bad: float) -> None:
    """By the definition, it is multiplied neither by zeros of the padding nor by missing taps of a phase."""
    x, w = np.ones((1, 1, 7, 6)), np.arange(1.0, 7).reshape(1, 1, 3, 2)
    g = np.zeros((1, 1, 4, 3))
    g[0, 0, 1, 1] = bad
    grad = refconv.conv_backward(g, x, w, stride=2, padding=((1, 1), (0, 0))).x
    expected = np.zeros((1, 1, 7, 6), bool)
    expected[0, 0, 1:4, 2:4] = True
    np.testing.assert_array_equal(~np.isfinite(grad), expected)
    w[0, 0, 0, 0] = bad  # reaches the first row and column of every window
    grad = refconv.conv_backward(np.ones((1, 1, 5, 5)), x, w).x
    expected = np.zeros((1, 1, 7, 6), bool)
    expected[0, 0, :5, :5] = True
    np.testing.assert_array_equal(~np.isfinite(grad), expected)
    y = refconv.conv_transpose(np.ones((1, 1, 2, 2)), w, stride=3)
    expected = np.zeros((1, 1, 6, 5), bool)
    expected[0, 0, ::3, ::3] = True
    np.testing.assert_array_equal(~np.isfinite(y), expected)


@pytest.mark.thinned(5)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tile", [1, 1 << 12, 1 << 20])
def test_gradients_from_the_same_columns_equal_the_definition(way: bool, shared: bool, layout: Any, tile: int) -> None:
    numpy, taken, real = load("numpy"), [], passes._shared

    def spy(*arguments: Any) -> Any:
        work = real(*arguments)
        taken.append(work is not None)
        return work

    @settings(max_examples=80)
    @given(conv_problems(dtypes=("float16", "float32", "complex64", "int16")))
    def check(case: ConvProblem) -> None:
        with cut_into(tile):
            assert_results(numpy, run(numpy, *case), definition_results(*case))

    with mock.patch.object(passes, "_shared", spy), mock.patch.object(choices, "for_both", return_value=layout()):
        check()
    assert any(taken) is (way and shared)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("of", ["x", "weight", "grad_output"])
@pytest.mark.parametrize("after", [1, 2])  # with two columns of padding, a window reads nothing else
def test_both_gradients_have_infinities_where_the_definition_has(
    way: bool, shared: bool, after: int, of: str, bad: float
) -> None:
    x, w = np.ones((2, 2, 6, 5)), np.ones((2, 1, 3, 2))  # the first column of x is cropped
    options: dict[str, Any] = {"padding": ((1, 0), (-1, after)), "groups": 2}
    g = np.ones((2, 2, 5, 3 + after))
    problem = Problem(
        batch=2, c_in=2, c_out=2, size=(6, 5), kernel=(3, 2), stride=(1, 1), dilation=(1, 1),
        padding=options["padding"], groups=2, padding_mode="zeros", output_padding=(), transposed=False,
        channels_last=False, bias=False,
    )  # fmt: skip
    for place in [(0, 0, 0, 0), (1, 1, 0, 1), (1, 0, 2, 1), (0, 1, -1, -1)]:
        arrays = {"x": x.copy(), "weight": w.copy(), "grad_output": g.copy()}
        where = tuple(i % n for i, n in zip(place, arrays[of].shape, strict=True))
        arrays[of][where] = bad
        found = refconv.conv_backward(**arrays, **options)
        expected = definition_results(problem, Operands(arrays["x"], arrays["weight"], None, arrays["grad_output"]))
        np.testing.assert_array_equal(found.x, expected.grad_x)
        np.testing.assert_array_equal(found.weight, expected.grad_weight)


@pytest.mark.parametrize("shape", [(2, 3, 0, 5), (0, 3, 4, 5), (2, 3, 5, 0)])
def test_gradients_of_an_empty_input(way: bool, shared: bool, shape: tuple[int, ...]) -> None:
    x, w = np.ones(shape, "f4"), np.ones((4, 3, 3, 3), "f4")
    g = np.ones_like(refconv.conv(x, w, padding=2))
    grads = refconv.conv_backward(g, x, w, padding=2)
    assert grads.x is not None
    assert grads.x.shape == shape
    np.testing.assert_array_equal(grads.weight, np.zeros_like(w))
    np.testing.assert_array_equal(grads.bias, np.full(4, g.size / 4, "f4"))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_from_the_same_columns_have_the_same_bits(way: bool, shared: bool, layout: Any) -> None:
    rng = np.random.default_rng(0)
    x, w, g = rng.normal(size=(7, 8, 21, 20)), rng.normal(size=(6, 4, 3, 5)), rng.normal(size=(7, 6, 21, 20))
    options: dict[str, Any] = {"padding": (1, 2), "groups": 2}
    with mock.patch.object(choices, "for_both", return_value=layout()):
        assert distinct_results(lambda: refconv.conv_backward(g, x, w, **options)) == 1


@pytest.mark.parametrize(
    ("c_in", "c_out", "size", "bytes_each", "shares"),
    [
        (32, 32, 3, 4, True),
        (1024, 512, 2, 2, True),  # 4 MiB of weights
        (1024, 513, 2, 2, False),
    ],
)
def test_columns_are_shared_for_weights_of_up_to_4_mib(
    c_in: int, c_out: int, size: int, bytes_each: int, shares: bool
) -> None:
    assert choices.shares_columns(described((8, c_in, 9, 9), (c_out, c_in, size, size)), bytes_each) is shares


def test_calls_that_cannot_be_a_correlation() -> None:
    shared = refconv.ChannelGroups([(0, 1), (1, 2)], [(0,), (1,)])
    for call in (
        described((1, 2, 9, 9), (3, 2, 3, 3), stride=2, dilation=2),
        described((1, 2, 9, 9), (3, 2, 3, 3), padding=1, padding_mode="reflect"),
        described((1, 3, 9), ((1, 2, 3), (1, 2, 3)), groups=shared),
        described((1, 0, 9), (3, 0, 3)),
    ):
        assert as_correlation(call) is None


def test_a_correlation_is_used_where_it_costs_less() -> None:
    def pays(*shapes: Any, **options: Any) -> bool:
        return as_correlation(described(*shapes, **options)) is not None

    assert pays((8, 3, 227, 227), (96, 3, 11, 11), stride=4)  # much overlap
    assert pays((8, 256, 13, 13), (384, 256, 3, 3), padding=1)
    assert not pays((8, 256, 28, 28), (512, 256, 1, 1), stride=2)  # three phases of four are zeros
    assert not pays((8, 4, 28, 28), (512, 4, 3, 3), padding=1)  # far more columns


def test_the_same_bits_for_any_number_of_workers_and_any_workspace(way: bool) -> None:
    rng = np.random.default_rng(0)
    g, w = rng.normal(size=(5, 6, 21, 20)), rng.normal(size=(6, 4, 3, 5))
    options: dict[str, Any] = {"stride": (2, 3), "padding": (1, 2), "groups": 2}
    assert distinct_results(lambda: [refconv.conv_input_grad(g, w, (5, 8, 42, 60), **options)]) == 1
