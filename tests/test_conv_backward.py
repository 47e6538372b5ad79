"""The backward pass: every gradient equals its own index sum, and is adjoint to the forward pass, exactly."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import refconv
from refconv import ChannelGroups, ConvGrads
from refconv.testing.oracles.definition import (
    definition_bias_grad,
    definition_conv,
    definition_input_grad,
    definition_weight_grad,
)
from refconv.testing.oracles.problems import Problem, definition_results, integer_arrays, random_problem
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import (
    Backend,
    arange,
    assert_results,
    backward,
    cut_into,
    large,
    run,
)


def grads(backend: Backend, grad_output: Any, x: Any, weight: Any, **options: Any) -> ConvGrads:
    return refconv.conv_backward(*map(backend.asarray, (grad_output, x, weight)), **options)


def assert_grads(backend: Backend, actual: ConvGrads, expected: Any) -> None:
    for name, a, e in zip(("x", "weight", "bias"), actual, expected, strict=True):
        assert getattr(actual, name) is a
        backend.assert_equal(a, e)


# --- Equal to the definition, bit for bit ------------------------------------------------------------------------


def test_gradients_of_their_own_functions(backend: Backend) -> None:
    """conv_input_grad needs no x and conv_weight_grad no weight; they agree with conv_backward."""

    @given(conv_problems())
    def check(case: ConvProblem) -> None:
        problem, operands = case
        expected = definition_results(problem, operands)
        x, weight, _, g = map(backend.asarray, operands)
        more = problem.options()
        backend.assert_equal(refconv.conv_input_grad(g, weight, problem.x_shape, **more), expected.grad_x)
        backend.assert_equal(refconv.conv_weight_grad(g, x, problem.kernel, **more), expected.grad_weight)

    check()


def test_by_hand(backend: Backend) -> None:
    x, w = np.array([[[1, 2, 3, 4, 5]]], "float32"), np.array([[[100, 10, 1]]], "float32")
    g = np.array([[[1, 2]]], "float32")
    expected = [[[[100, 10, 201, 20, 2]]], [[[7, 10, 13]]], [3]]
    assert_grads(backend, grads(backend, g, x, w, stride=2), [np.array(e, "float32") for e in expected])
    expected = [[[[10, 1, 200, 20, 2]]], [[[6, 9, 12]]], [3]]
    actual = grads(backend, g, x, w, stride=3, padding=((1, 0),))
    assert_grads(backend, actual, [np.array(e, "float32") for e in expected])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("zeros", [100, 10, 1]),
        ("reflect", [100, 1000 + 10 + 100000, 10000 + 1]),  # 1 2 3 becomes 3 2 | 1 2 3 | 2
        ("replicate", [10000 + 1000 + 100, 10, 1 + 100000]),  # 1 1 | 1 2 3 | 3
        ("circular", [100 + 100000, 10000 + 10, 1000 + 1]),  # 2 3 | 1 2 3 | 1
    ],
)
def test_padding_sends_gradients_back_to_where_it_read(backend: Backend, mode: str, expected: Any) -> None:
    """A kernel of one tap copies the padded input, so the gradient shows how padding is folded."""
    x, w = np.array([[[1, 2, 3]]], "float64"), np.ones((1, 1, 1))
    g = np.array([[[10000, 1000, 100, 10, 1, 100000]]], "float64")
    actual = grads(backend, g, x, w, padding=((2, 1),), padding_mode=mode)
    backend.assert_equal(actual.x, np.array([[expected]], "float64"))


def test_two_input_sizes_give_one_output_size(backend: Backend) -> None:
    g, w = np.array([[[1, 1, 1]]], "float32"), np.array([[[1, 10, 100]]], "float32")
    for n, tail in ((7, []), (8, [0])):
        grad = refconv.conv_input_grad(backend.asarray(g), backend.asarray(w), (1, 1, n), stride=2)
        backend.assert_equal(grad, np.array([[[1, 10, 101, 10, 101, 10, 100, *tail]]], "float32"))


def test_inputs_that_no_window_reads_have_no_gradient(backend: Backend) -> None:
    g, w = np.ones((1, 1, 2), "float32"), np.ones((1, 1, 1), "float32")
    grad = refconv.conv_input_grad(backend.asarray(g), backend.asarray(w), (1, 1, 6), stride=3)
    backend.assert_equal(grad, np.array([[[1, 0, 0, 1, 0, 0]]], "float32"))


@pytest.mark.parametrize("groups", [1, 2, (((3, 0), (1, 2)), ((0, 1), (3, 0)))])
@pytest.mark.parametrize("before", [3, 4, 8, -1])
def test_first_rows_that_no_window_reads_have_no_gradient(backend: Backend, before: int, groups: Any) -> None:
    """If the first window contains only padding, the rows before the second one are a separate tile."""
    problem = Problem(3, 4, 4, (14, 5), (2, 3), (5, 2), (1, 1), ((before, 1), (1, 0)), groups)
    operands = integer_arrays(problem, np.random.default_rng(8))
    for tile in (1, 500, 2**21):
        with cut_into(tile):
            assert_results(backend, run(backend, problem, operands), definition_results(problem, operands))


def test_complex_gradients_use_conjugates(backend: Backend) -> None:
    x, w, g = (np.array([[[v]]], "complex64") for v in (1 + 2j, 3 + 1j, 1j))
    expected = [np.array([[[(3 - 1j) * 1j]]]), np.array([[[(1 - 2j) * 1j]]]), np.array([1j])]
    assert_grads(backend, grads(backend, g, x, w), [e.astype("complex64") for e in expected])


def test_number_of_kernel_size(backend: Backend) -> None:
    g, x = arange((2, 3, 4, 5)), arange((2, 4, 5, 6))
    expected = definition_weight_grad(g[:, :2], x, (2, 2), groups=2)
    arrays = backend.asarray(g[:, :2]), backend.asarray(x)
    backend.assert_equal(refconv.conv_weight_grad(*arrays, 2, groups=2), expected)
    backend.assert_equal(refconv.conv_weight_grad(*arrays, [2, np.int64(2)], groups=2), expected)
    backend.assert_equal(
        refconv.conv_weight_grad(arrays[0][0, ...], arrays[1][0, ...], (2, 2), groups=2),
        definition_weight_grad(g[:1, :2], x[:1], (2, 2), groups=2),
    )


# --- Only the requested gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True])
def test_needs(backend: Backend, transposed: bool) -> None:
    rng = np.random.default_rng(8)
    subsets = [s for n in (1, 2, 3) for s in itertools.permutations(("x", "weight", "bias"), n)]
    for needs in (*subsets, ["weight"]):
        problem = random_problem(rng, transposed=transposed)
        operands = integer_arrays(problem, rng)
        actual = backward(backend, problem, operands, needs=needs)
        assert isinstance(actual, ConvGrads)
        assert actual._fields == ("x", "weight", "bias")
        expected = definition_results(problem, operands)[1:]
        for name, a, e in zip(actual._fields, actual, expected, strict=True):
            if name in needs:
                backend.assert_equal(a, e)
            else:
                assert a is None


# --- Layouts and memory ------------------------------------------------------------------------------------------


def test_channels_last_and_unbatched(backend: Backend) -> None:
    x, w, g = arange((1, 4, 5, 4)), arange((6, 2, 2, 3)), arange((1, 6, 2, 3), start=-9)
    steps = {"stride": (2, 1), "padding": ((0, 0), (1, 0)), "groups": 2}
    expected = (
        definition_input_grad(g, w, x.shape, **steps),
        definition_weight_grad(g, x, (2, 3), **steps),
        definition_bias_grad(g),
    )
    last = [np.moveaxis(a, 1, -1) for a in (g, x, expected[0])]
    actual = grads(backend, last[0], last[1], w, **steps, channels_last=True)
    assert_grads(backend, actual, (last[2], *expected[1:]))
    actual = grads(backend, last[0][0], last[1][0], w, **steps, channels_last=True)
    assert_grads(backend, actual, (last[2][0], *expected[1:]))
    assert_grads(backend, grads(backend, g[0], x[0], w, **steps), (expected[0][0], *expected[1:]))
    grad_x = refconv.conv_input_grad(*map(backend.asarray, (last[0][0], w)), (5, 4, 4), **steps, channels_last=True)
    backend.assert_equal(grad_x, last[2][0])


SHAPES: list[tuple[Any, Any, dict[str, Any]]] = [
    ((1, 1, 3), (1, 1, 1), {}),
    ((2, 2, 3, 4), (2, 2, 1, 1), {}),
    ((2, 2, 3, 4), (2, 1, 1, 1), {"groups": 2}),
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((2, 2, 3), (4, 1, 1), {"groups": 2, "padding": -1}),
    ((1, 2, 3), (2, 2, 3), {}),
    ((2, 3), (2, 2, 1), {}),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), SHAPES)
def test_inputs_are_not_changed_and_gradients_are_new(x_shape: Any, w_shape: Any, options: Any) -> None:
    x, w = np.ones(x_shape), np.ones(w_shape)
    g = np.ones_like(refconv.conv(x, w, **options))
    found = [
        *refconv.conv_backward(g, x, w, **options),
        refconv.conv_input_grad(g, w, x.shape, **options),
        refconv.conv_weight_grad(g, x, w.shape[2:], **options),
    ]
    for i, grad in enumerate(found):
        assert not any(np.shares_memory(grad, a) for a in (x, w, g))
        assert not any(np.shares_memory(grad, other) for other in found[:i])
        grad[...] = 7
    assert all((a == 1).all() for a in (x, w, g))


def test_gradients_of_groups_share_no_memory() -> None:
    groups = ChannelGroups([[0, 1], [1, 2]], [[0], [1]])
    x, g = np.ones((1, 3, 4)), np.ones((1, 2, 3))
    one, two = refconv.conv_weight_grad(g, x, 2, groups=groups)
    assert not np.shares_memory(one, two)


def test_grad_output_of_any_memory_layout() -> None:
    x, w, g = arange((2, 4, 6, 5)), arange((6, 2, 2, 3)), arange((2, 6, 5, 2), start=-30)
    steps: dict[str, Any] = {"groups": 2, "stride": (1, 2)}
    expected = (
        definition_input_grad(g, w, x.shape, **steps),
        definition_weight_grad(g, x, (2, 3), **steps),
        definition_bias_grad(g),
    )
    doubled = np.repeat(g, 2, axis=-1)
    for changed in (
        np.asfortranarray(g),
        np.flip(np.flip(g).copy()),
        doubled[..., ::2],
        np.moveaxis(np.moveaxis(g, 1, 3).copy(), 3, 1),
    ):
        for actual, e in zip(refconv.conv_backward(changed, x, w, **steps), expected, strict=True):
            np.testing.assert_array_equal(actual, e, strict=True)
    ones = np.broadcast_to(np.float32(1), g.shape)  # like an automatic gradient of a sum
    actual = refconv.conv_backward(ones, x, w, **steps)
    np.testing.assert_array_equal(actual.x, definition_input_grad(np.array(ones), w, x.shape, **steps))


# --- Channel groups ----------------------------------------------------------------------------------------------


def test_overlapping_groups_add_up_their_gradients(backend: Backend) -> None:
    groups = ChannelGroups([[1, 0], [1, 3]], [[1], [0]], c_in=5)
    x, g = arange((1, 5, 2)), np.array([[[1, 10], [100, 1000]]], "float32")
    weights = np.array([[[2], [3]]], "float32"), np.array([[[5], [7]]], "float32")
    actual = grads(backend, g, x, weights, groups=groups)
    grad_x = np.array([[[300, 3000], [205, 2050], [0, 0], [7, 70], [0, 0]]], "float32")
    grad_w = np.array([[[4300], [2100]]], "float32"), np.array([[[43], [87]]], "float32")
    assert_grads(backend, actual, (grad_x, grad_w, np.array([11, 1100], "float32")))


def test_gradient_has_the_form_of_the_weight(backend: Backend) -> None:
    """A sequence gives a tuple, and one array gives one array."""
    x, w, g = arange((2, 4, 3)), arange((6, 2, 2)), arange((2, 6, 2))
    groups = refconv.uniform_groups(4, 6, 2)
    expected = definition_weight_grad(g, x, (2,), groups=2)
    backend.assert_equal(grads(backend, g, x, w, groups=groups).weight, expected)
    parts = tuple(np.split(w, 2))
    backend.assert_equal(grads(backend, g, x, parts, groups=groups).weight, tuple(np.split(expected, 2)))
    arrays = backend.asarray(g), backend.asarray(x)
    actual = refconv.conv_weight_grad(*arrays, 2, groups=groups)
    backend.assert_equal(actual, tuple(np.split(expected, 2)))


# --- Data types --------------------------------------------------------------------------------------------------


def test_float16_accumulates_in_float32_and_rounds_once(backend: Backend) -> None:
    if not backend.supports("float16"):
        pytest.skip(f"{backend.name} has no float16")
    ones = np.ones((8, 1, 1024), "float16")
    actual = grads(backend, ones, ones, np.ones((1, 1, 1), "float16"))
    backend.assert_equal(actual.weight, np.full((1, 1, 1), 8192, "float16"))
    backend.assert_equal(actual.bias, np.full(1, 8192, "float16"))
    many = np.ones((1, 4096, 1), "float16")
    actual = grads(backend, many, ones[:1, :, :1], np.ones((4096, 1, 1), "float16"))
    backend.assert_equal(actual.x, np.full((1, 1, 1), 4096, "float16"))
    # 300·300 − 300·300 + 1: partial sums exceed float16
    one, g, w = (np.array(v, "float16") for v in ([[[1]]], [[[300], [-300], [1]]], [[[300]], [[300]], [[1]]]))
    backend.assert_equal(grads(backend, g, one, w).x, one)
    g, x = g.reshape(1, 1, 3), w.reshape(1, 1, 3)
    backend.assert_equal(grads(backend, g, x, one).weight, one)


def test_float16_padding_folds_before_rounding(backend: Backend) -> None:
    """Gradients of repeated elements are summed in float32 too."""
    if not backend.supports("float16"):
        pytest.skip(f"{backend.name} has no float16")
    rng = np.random.default_rng(19)
    for mode in ("reflect", "replicate", "circular"):
        g, w = rng.integers(-60, 60, (2, 3, 8)).astype("float16"), rng.integers(-60, 60, (3, 2, 3)).astype("float16")
        steps = {"padding": 3, "padding_mode": mode}
        wide = definition_input_grad(g.astype("float64"), w.astype("float64"), (2, 2, 4), **steps)
        actual = refconv.conv_input_grad(backend.asarray(g), backend.asarray(w), (2, 2, 4), **steps)
        backend.assert_equal(actual, wide.astype("float16"))


@pytest.mark.parametrize(("dtype", "wide"), [("float32", "float64"), ("complex64", "complex128"), ("int8", "int32")])
def test_accumulate_dtype(backend: Backend, dtype: str, wide: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(5):
        problem = random_problem(rng)
        operands = integer_arrays(problem, rng, dtype)
        actual = backward(backend, problem, operands, accumulate_dtype=wide)
        assert_grads(backend, actual, definition_results(problem, operands)[1:])
    if dtype == "float32":
        x, one = np.array([[[2**24]], [[1]], [[2]]], "float32"), np.ones((3, 1, 1), "float32")
        exact = grads(backend, one, x, one[:1], accumulate_dtype="float64").weight
        backend.assert_equal(exact, np.full((1, 1, 1), 2**24 + 4, "float32"))  # 2^24 + 3 rounds to even
        exact = grads(backend, x, one, one[:1], accumulate_dtype="float64").bias
        backend.assert_equal(exact, np.full(1, 2**24 + 4, "float32"))


# --- Corners -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("empty", ["batch", "channels", "both"])
def test_empty_batches_and_channels(backend: Backend, mode: str, empty: str) -> None:
    n, c = (0 if empty in ("batch", "both") else 2), (0 if empty in ("channels", "both") else 4)
    for groups in (1, 2):
        x, w = np.ones((n, c, 5, 4), "float32"), np.ones((6, c // groups, 2, 3), "float32")
        steps = {"stride": 2, "padding": ((1, 0), (1, 2)), "padding_mode": mode, "groups": groups}
        g = np.ones_like(definition_conv(x, w, **steps))
        expected = (
            definition_input_grad(g, w, x.shape, **steps),
            definition_weight_grad(g, x, (2, 3), **steps),
            definition_bias_grad(g),
        )
        assert_grads(backend, grads(backend, g, x, w, **steps), expected)


def test_not_a_number_reaches_what_it_is_multiplied_into(backend: Backend) -> None:
    rng = np.random.default_rng(23)
    for _ in range(15):
        problem = random_problem(rng)
        operands = integer_arrays(problem, rng)
        operands.grad_output.flat[rng.integers(operands.grad_output.size)] = np.nan
        expected = definition_results(problem, operands)
        actual = backward(backend, problem, operands)
        backend.assert_equal(actual.x, expected.grad_x)  # a strided window's gaps stay clean
        backend.assert_equal(actual.bias, expected.grad_bias)


def test_a_larger_problem_is_cut_into_pieces(backend: Backend) -> None:
    problem, operands, expected = large()
    for tile in (1, 1 << 12, 1 << 16):
        with refconv.set_workers(2), cut_into(tile):
            assert_grads(backend, backward(backend, problem, operands), expected[1:])
