"""The transposed convolution: its own definition, adjoint to the convolution, with all kinds of groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from

import refconv
from refconv import ChannelGroups
from refconv.testing.oracles.definition import (
    definition_bias_grad,
    definition_conv,
    definition_conv_transpose,
    definition_input_grad,
    definition_transpose_input_grad,
    definition_transpose_weight_grad,
    definition_weight_grad,
    output_sizes,
)
from refconv.testing.oracles.problems import Problem, definition_results, integer_arrays, random_problem
from tests.helpers import Backend, arange, assert_results, cut_into, run
from tests.test_conv_forward import C3


def conv_transpose(backend: Backend, x: Any, weight: Any, bias: Any = None, **options: Any) -> Any:
    return refconv.conv_transpose(*map(backend.asarray, (x, weight, bias)), **options)


# --- Equal to the definition, bit for bit ------------------------------------------------------------------------


def test_is_the_input_gradient_of_a_convolution(backend: Backend) -> None:
    """The weight of a transposed convolution is the weight of a convolution from y to x."""
    rng = np.random.default_rng(31)
    for _ in range(20):
        problem = random_problem(rng, transposed=True, groupings=("one", "uniform", "depthwise"))
        steps: dict[str, Any] = {"stride": problem.stride, "padding": problem.padding, "dilation": problem.dilation}
        if output_sizes(problem.output_size, problem.kernel, **steps) != problem.size:
            continue  # from an output so large the convolution would give more positions than x has
        x, weight, _, _ = map(backend.asarray, integer_arrays(problem, rng))
        y = refconv.conv_transpose(x, weight, **problem.options())
        layout = {"groups": problem.groups, "channels_last": problem.channels_last}
        grad = refconv.conv_input_grad(x, weight, problem.output_shape, **steps, **layout)
        backend.assert_equal(y, backend.to_numpy(grad))


# --- Worked out by hand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [100, 210, 21, 2]),
        ({"stride": 2}, [100, 10, 201, 20, 2]),
        ({"stride": 4}, [100, 10, 1, 0, 200, 20, 2]),  # no kernel reaches the gap
        ({"dilation": 2}, [100, 200, 10, 20, 1, 2]),
        ({"stride": 2, "padding": 1}, [10, 201, 20]),
        ({"stride": 2, "padding": 1, "output_padding": 1}, [10, 201, 20, 2]),  # a kernel reaches it, so it is not zero
        ({"stride": 2, "padding": ((0, 2),)}, [100, 10, 201]),
        ({"stride": 2, "padding": ((0, 2),), "output_padding": (1,)}, [100, 10, 201, 20]),
        ({"stride": 2, "output_padding": 1}, [100, 10, 201, 20, 2, 0]),
        ({"dilation": 3, "output_padding": 2, "padding": 1}, [200, 0, 10, 20, 0, 1, 2, 0]),
        ({"stride": 2, "padding": [2]}, [201]),
        ({"padding": "valid"}, [100, 210, 21, 2]),
        ({"stride": 2, "padding": "valid", "output_padding": 1}, [100, 10, 201, 20, 2, 0]),
        ({"stride": 2, "output_size": 6}, [100, 10, 201, 20, 2, 0]),
        ({"stride": 2, "padding": 1, "output_size": [3]}, [10, 201, 20]),
        ({"padding": "same"}, [210, 21]),
        ({"stride": 2, "padding": "same"}, [100, 10, 201, 20]),  # the odd element is cropped at the end
        ({"stride": 2, "padding": "same_lower"}, [10, 201, 20, 2]),
        ({"stride": 4, "padding": "same"}, [100, 10, 1, 0, 200, 20, 2, 0]),
        ({"dilation": 2, "padding": "same_lower"}, [10, 20]),
        ({"stride": 2, "padding": "same", "output_size": 3}, [10, 201, 20]),
    ],
)
def test_by_hand(backend: Backend, options: Any, expected: Any) -> None:
    x, w = np.array([[[1, 2]]], "float64"), np.array([[[100, 10, 1]]], "float64")
    backend.assert_equal(conv_transpose(backend, x, w, **options), np.array([[expected]], "float64"))
    shifted = conv_transpose(backend, x, w, np.array([0.5]), **options)
    backend.assert_equal(shifted, np.array([[expected]], "float64") + 0.5)


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_rows_that_nothing_lands_in_hold_the_bias(backend: Backend, dtype: str) -> None:
    """If the first window contains only padding, the rows before the second one are a separate tile."""
    problem = Problem(3, 4, 4, (3, 4), (2, 3), (5, 2), (1, 2), ((3, 0), (1, 1)), 2, "zeros", (0, 1), transposed=True)
    operands = integer_arrays(problem, np.random.default_rng(7), dtype)
    expected = definition_results(problem, operands)
    bias = operands.bias.reshape(4, 1, 1)
    assert np.array_equal(expected.y[:, :, :2], np.broadcast_to(bias, (3, 4, *expected.y.shape[2:]))[:, :, :2])
    if dtype == "int64":
        assert np.any(bias.astype("float64").astype("int64") != bias)
    for tile in (1, 500, 2**21):
        with cut_into(tile):
            assert_results(backend, run(backend, problem, operands), expected)


def test_weight_layout_and_group_order(backend: Backend) -> None:
    """(C, K/G, …): the groups' slices run over input channels, the bias over all output channels."""
    x = np.array([[[1], [10]]], "float32")
    w = np.array([[[1], [2], [3]], [[4], [5], [6]]], "float32")
    bias = np.arange(6, dtype="float32") / 8
    expected = np.array([[1, 2, 3, 40, 50, 60]], "float32").reshape(1, 6, 1) + bias.reshape(6, 1)
    backend.assert_equal(conv_transpose(backend, x, w, bias, groups=2), expected)
    dense = np.array([[41, 52, 63]], "float32").reshape(1, 3, 1)
    backend.assert_equal(conv_transpose(backend, x, w), dense)


def test_complex_kernel_is_not_conjugated(backend: Backend) -> None:
    x, w, g = (np.array([[[v]]], "complex64") for v in (1 + 2j, 3 + 1j, 1j))
    backend.assert_equal(conv_transpose(backend, x, w), x * w)
    actual = refconv.conv_transpose_backward(*map(backend.asarray, (g, x, w)))
    backend.assert_equal(actual.x, g * w.conj())
    backend.assert_equal(actual.weight, g * x.conj())
    backend.assert_equal(actual.bias, g[0, 0])


def test_ranked_names_are_the_same_function(backend: Backend) -> None:
    names = (refconv.conv_transpose1d, refconv.conv_transpose2d, refconv.conv_transpose3d)
    for d, function in enumerate(names, start=1):
        x, w = (backend.asarray(arange(s)) for s in ((2, 4, *(3, 4, 2)[:d]), (4, 3, *(2, 3, 1)[:d])))
        steps = {"stride": 2, "output_padding": 1, "groups": 2}
        expected = refconv.conv_transpose(x, w, **steps)
        backend.assert_equal(function(x, w, **steps), backend.to_numpy(expected))


@pytest.mark.parametrize("dims", [4])
def test_has_no_upper_limit_of_spatial_axes(backend: Backend, dims: int) -> None:
    x, w = arange((2, 4, 2, 1, 2, 3)[: dims + 2]), arange((4, 3, 2, 2, 1, 2)[: dims + 2])
    steps = {"stride": (1, 2, 3, 1), "padding": (1, 0, 0, 2), "dilation": (2, 1, 1, 3), "groups": 2}
    extra = {"output_padding": (1, 1, 2, 0)}
    backend.assert_equal(
        conv_transpose(backend, x, w, **steps, **extra), definition_conv_transpose(x, w, **steps, **extra)
    )


@settings(max_examples=100)
@given(integers(1, 7), integers(1, 5), integers(1, 4), integers(1, 3), sampled_from(["valid", "same", "same_lower"]))
def test_a_size_and_a_word_are_those_of_the_convolution_it_transposes(
    n: int, k: int, s: int, dil: int, word: str
) -> None:
    """For every input size that a convolution maps to n: its transpose with output_size, and with none the largest."""
    steps: dict[str, Any] = {"stride": s, "dilation": dil, "padding": word}
    sizes = [m for m in range(1, n * s + dil * k + 1) if output_sizes((m,), (k,), **steps) == (n,)]
    x, w = arange((1, 1, n), "int64"), arange((1, 1, k), "int64", 3)
    for m in sizes:
        y = refconv.conv_transpose(x, w, output_size=m, **steps)
        assert y.shape == (1, 1, m)
        np.testing.assert_array_equal(y, definition_input_grad(x, w, (1, 1, m), **steps))
        g = arange((1, 1, m), "int64", 2)
        grads = refconv.conv_transpose_backward(g, x, w, output_size=(m,), **steps)
        np.testing.assert_array_equal(grads.x, definition_conv(g, w, **steps))
        np.testing.assert_array_equal(grads.weight, definition_weight_grad(x, g, (k,), **steps))
    if word != "valid" and sizes:
        np.testing.assert_array_equal(
            refconv.conv_transpose(x, w, **steps), refconv.conv_transpose(x, w, output_size=n * s, **steps)
        )
        assert sizes[-1] == n * s


# --- Channel groups ----------------------------------------------------------------------------------------------


def test_lenet_c3_table(backend: Backend) -> None:
    """Groups of unequal size that share input channels, in the transposed direction."""
    groups = ChannelGroups(C3, [[k] for k in range(16)])
    problem = Problem(
        2, 6, 16, (3, 4), (3, 2), (2, 1), (1, 2), ((1, 0), (0, 2)),
        tuple((maps, (k,)) for k, maps in enumerate(C3)), output_padding=(1, 1), transposed=True,
    )  # fmt: skip
    operands = integer_arrays(problem, np.random.default_rng(6))
    assert_results(backend, run(backend, problem, operands), definition_results(problem, operands))
    assert [len(maps) for maps in C3] == list(groups.in_sizes)


def test_one_array_for_lists_of_one_shape(backend: Backend) -> None:
    x, w, g = arange((2, 4, 3)), arange((4, 2, 2)), arange((2, 4, 4))
    lists = [([3, 0], [1, 2]), ([0, 1], [3, 0])]
    groups = ChannelGroups(*zip(*lists, strict=True), c_in=4)
    y = conv_transpose(backend, x, w, groups=groups)
    backend.assert_equal(y, definition_conv_transpose(x, np.split(w, 2), groups=lists))
    actual = refconv.conv_transpose_backward(*map(backend.asarray, (g, x, w)), groups=groups)
    backend.assert_equal(actual.x, definition_transpose_input_grad(g, np.split(w, 2), x.shape, groups=lists))
    parts = definition_transpose_weight_grad(g, x, (2,), groups=lists)
    backend.assert_equal(actual.weight, np.concatenate(parts))


def test_an_unread_channel_does_not_reach_the_output(backend: Backend) -> None:
    groups = ChannelGroups([[0], [2]], [[1], [0]], c_in=4)
    x = np.full((1, 4, 2), np.nan, "float32")
    x[:, [0, 2]] = [[1, 2], [3, 4]]
    weights = np.ones((1, 1, 1), "float32"), np.full((1, 1, 1), 2, "float32")
    y = conv_transpose(backend, x, weights, groups=groups)
    backend.assert_equal(y, np.array([[[6, 8], [1, 2]]], "float32"))


# --- Layouts, memory, data types ---------------------------------------------------------------------------------


def test_channels_last_and_unbatched(backend: Backend) -> None:
    x, w, b = arange((1, 4, 3, 2)), arange((4, 3, 2, 3)), arange((6,))
    steps = {"stride": (2, 1), "padding": ((0, 1), (1, 0)), "output_padding": (1, 0), "groups": 2}
    expected = definition_conv_transpose(x, w, b, **steps)
    y = conv_transpose(backend, np.moveaxis(x, 1, -1), w, b, **steps, channels_last=True)
    backend.assert_equal(y, np.moveaxis(expected, 1, -1))
    backend.assert_equal(conv_transpose(backend, x[0], w, b, **steps), expected[0])


SHAPES: list[tuple[Any, Any, dict[str, Any]]] = [
    ((1, 1, 3), (1, 1, 1), {}),
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((2, 2, 3), (2, 2, 1), {"groups": 2}),
    ((2, 3), (2, 2, 1), {}),
    ((2, 2, 3), (2, 2, 1), {"padding": -1}),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), SHAPES)
def test_inputs_are_not_changed_and_results_are_new(x_shape: Any, w_shape: Any, options: Any) -> None:
    x, w = np.ones(x_shape), np.ones(w_shape)
    y = refconv.conv_transpose(x, w, **options)
    g = np.ones_like(y)
    found = [y, *refconv.conv_transpose_backward(g, x, w, **options)]
    for i, result in enumerate(found):
        assert not any(np.shares_memory(result, a) for a in (x, w, g))
        assert not any(np.shares_memory(result, other) for other in found[:i])
        result[...] = 7
    assert all((a == 1).all() for a in (x, w, g))


def test_any_memory_layout() -> None:
    x, w = arange((2, 4, 3, 5)), arange((4, 3, 2, 3))
    expected = definition_conv_transpose(x, w, stride=2, groups=2)
    doubled = np.repeat(x, 2, axis=2)
    for changed in (np.asfortranarray(x), np.flip(np.flip(x).copy()), doubled[:, :, ::2], x.astype(">f4")):
        weight = w.astype(changed.dtype)
        np.testing.assert_array_equal(refconv.conv_transpose(changed, weight, stride=2, groups=2), expected)


def test_float16_accumulates_in_float32_and_rounds_once(backend: Backend) -> None:
    if not backend.supports("float16"):
        pytest.skip(f"{backend.name} has no float16")
    ones = np.ones((1, 4096, 1), "float16")
    y = conv_transpose(backend, ones, np.ones((4096, 1, 1), "float16"))
    backend.assert_equal(y, np.full((1, 1, 1), 4096, "float16"))
    rng = np.random.default_rng(12)  # overlapping taps are summed in float32 too
    x, w, b = (rng.integers(-60, 60, s).astype("float16") for s in ((3, 4, 9), (4, 5, 4), (5,)))
    wide = definition_conv_transpose(*(a.astype("float64") for a in (x, w, b)))
    backend.assert_equal(conv_transpose(backend, x, w, b), wide.astype("float16"))


def test_accumulate_dtype(backend: Backend) -> None:
    x, w = np.array([[[2**24], [1], [2]]], "float32"), np.ones((3, 1, 1), "float32")
    y = conv_transpose(backend, x, w, accumulate_dtype="float64")
    backend.assert_equal(y, np.full((1, 1, 1), 2**24 + 4, "float32"))  # 2^24 + 3 rounds to even
    actual = refconv.conv_transpose_backward(
        *map(backend.asarray, (x, x[:, :1], w[:1].reshape(1, 1, 1).repeat(3, axis=1))), accumulate_dtype="float64"
    )
    backend.assert_equal(actual.x, np.full((1, 1, 1), 2**24 + 4, "float32"))


@pytest.mark.parametrize("empty", ["batch", "channels", "both"])
def test_empty_batches_and_channels(backend: Backend, empty: str) -> None:
    n, c = (0 if empty in ("batch", "both") else 2), (0 if empty in ("channels", "both") else 4)
    x, w, b = np.ones((n, c, 3, 4), "float32"), np.ones((c, 3, 2, 3), "float32"), arange((3,))
    expected = definition_conv_transpose(x, w, b, stride=2)
    backend.assert_equal(conv_transpose(backend, x, w, b, stride=2), expected)
    g = np.ones_like(expected)
    actual = refconv.conv_transpose_backward(*map(backend.asarray, (g, x, w)), stride=2)
    backend.assert_equal(actual.x, definition_transpose_input_grad(g, w, x.shape, stride=2))
    backend.assert_equal(actual.weight, definition_transpose_weight_grad(g, x, (2, 3), stride=2))
    backend.assert_equal(actual.bias, definition_bias_grad(g))


def test_not_a_number_reaches_exactly_what_it_is_added_to(backend: Backend) -> None:
    x, w = np.array([[[1, np.nan, 3]]], "float32"), np.array([[[1, 1]]], "float32")
    y = conv_transpose(backend, x, w, stride=1, dilation=3)
    backend.assert_equal(y, np.array([[[1, np.nan, 3, 1, np.nan, 3]]], "float32"))


def test_a_larger_problem_is_cut_into_pieces(backend: Backend) -> None:
    steps = (3, 2), (2, 1)  # stride and dilation
    padding, extra = ((2, 1), (0, 3)), (2, 1)
    problem = Problem(3, 12, 18, (11, 9), (4, 3), *steps, padding, 3, output_padding=extra, transposed=True)
    operands = integer_arrays(problem, np.random.default_rng(17))
    expected = definition_results(problem, operands)
    for tile in (1, 1 << 12, 1 << 16):
        with refconv.set_workers(2), cut_into(tile):
            assert_results(backend, run(backend, problem, operands), expected)
