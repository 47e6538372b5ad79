"""The oracles themselves: the definition against numbers worked out by hand, SciPy, PyTorch and differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from refconv.testing.oracles.definition import (
    definition_conv,
    definition_conv_transpose,
    output_sizes,
    paddings,
    scipy_conv,
    source,
)
from refconv.testing.oracles.problems import Operands, Problem, definition_results, inner
from refconv.testing.oracles.trilinear import exact_results
from refconv.testing.strategies import ConvProblem, conv_problems

COMPUTED = ("float32", "float64", "complex64", "complex128")


def plain(problem: Problem, operands: Operands, function: Any) -> Any:
    """Call an oracle that supports only batches with channels first; return its result in the problem's layout."""
    options = {k: v for k, v in problem.options().items() if k not in ("channels_last", "groups")}
    x = problem.to_plain(operands.x)
    return problem.from_plain(function(x, operands.weight, operands.bias, groups=problem.groups, **options))


def test_by_hand() -> None:
    x, w = np.array([[[1, 2, 3, 4, 5]]]), np.array([[[100, 10, 1]]])
    assert definition_conv(x, w).tolist() == [[[123, 234, 345]]]
    assert definition_conv(x, w, stride=2).tolist() == [[[123, 345]]]
    assert definition_conv(x, w, dilation=2).tolist() == [[[135]]]
    assert definition_conv(x, w, padding=((1, 0),)).tolist() == [[[12, 123, 234, 345]]]
    assert definition_conv(x, w, padding=((-1, 1),)).tolist() == [[[234, 345, 450]]]
    assert definition_conv(x, w, padding=1, padding_mode="reflect").tolist() == [[[212, 123, 234, 345, 454]]]
    assert definition_conv(x, w, padding=1, padding_mode="replicate").tolist() == [[[112, 123, 234, 345, 455]]]
    assert definition_conv(x, w, padding=1, padding_mode="circular").tolist() == [[[512, 123, 234, 345, 451]]]
    assert definition_conv(x, np.array([[[10, 1]]]), padding="same").tolist() == [[[12, 23, 34, 45, 50]]]
    assert definition_conv(x, np.array([[[10, 1]]]), padding="same_lower").tolist() == [[[1, 12, 23, 34, 45]]]
    assert definition_conv(x, w, padding="causal").tolist() == [[[1, 12, 123, 234, 345]]]
    assert definition_conv(x, w, padding="causal", stride=2, dilation=2).tolist() == [[[1, 13, 135]]]
    beyond = definition_conv(x[..., :2], np.array([[[1]]]), padding=3, padding_mode="reflect")
    assert beyond.tolist() == [[[2, 1, 2, 1, 2, 1, 2, 1]]]
    assert definition_conv_transpose(np.array([[[1, 2]]]), w, stride=2).tolist() == [[[100, 10, 201, 20, 2]]]
    clipped = definition_conv_transpose(np.array([[[1, 2]]]), w, stride=2, padding=1, output_padding=1)
    assert clipped.tolist() == [[[10, 201, 20, 2]]]
    for word, size, right in (
        ("valid", None, [100, 10, 201, 20, 2]),
        ("valid", 6, [100, 10, 201, 20, 2, 0]),
        ("same", None, [100, 10, 201, 20]),
        ("same_lower", None, [10, 201, 20, 2]),
        ("same", 3, [10, 201, 20]),
    ):
        y = definition_conv_transpose(np.array([[[1, 2]]]), w, stride=2, padding=word, output_size=size)
        assert y.tolist() == [[right]]


def test_by_hand_groups() -> None:
    x = np.array([[[1], [2], [3]]])
    grouped = definition_conv(
        x, (np.array([[[10], [1]]]), np.array([[[5]], [[7]]])), groups=[([2, 0], [1]), ([1], [2, 0])]
    )
    assert grouped.tolist() == [[[14], [31], [10]]]
    w = np.array([[[1], [10]], [[100], [1000]]])
    assert definition_conv_transpose(x[:, :2], w, groups=2).tolist() == [[[1], [10], [200], [2000]]]


def test_extended_input_agrees_with_numpy_pad() -> None:
    x = np.arange(4)
    for mode, name in {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}.items():
        shown = [source(p, 4, mode) for p in range(-9, 15)]  # beyond one reflection: the infinite extension
        kind: Any = name
        np.testing.assert_array_equal(shown, np.pad(x, (9, 11), mode=kind))


def test_same_padding_gives_ceil_outputs_and_no_more_than_needed() -> None:
    for n in range(1, 9):
        for k, s, d in np.ndindex(4, 4, 3):
            kernel, stride, dilation = (k + 1,), (s + 1,), (d + 1,)
            steps = {"stride": stride, "dilation": dilation}
            for form, larger in (("same", 1), ("same_lower", 0)):
                (pair,) = paddings(form, (n,), kernel, stride, dilation)
                assert output_sizes((n,), kernel, padding=form, **steps) == (-(-n // stride[0]),)
                assert pair[larger] - pair[1 - larger] in (0, 1)
                if sum(pair):  # one element fewer would be one output fewer
                    fewer = ((pair[0], pair[1] - 1),)
                    assert output_sizes((n,), kernel, padding=fewer, **steps)[0] < -(-n // stride[0])


@given(conv_problems(dtypes=COMPUTED))
def test_definition_against_scipy(case: ConvProblem) -> None:
    pytest.importorskip("scipy", reason="SciPy is not installed: nothing to compare with")
    problem, operands = case
    expected = plain(problem, operands, scipy_conv)
    np.testing.assert_array_equal(plain(problem, operands, definition_conv), expected, strict=True)


@pytest.mark.parametrize("transposed", [False, True])
def test_definition_against_torch(transposed: bool) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    from tests.torch_reference import torch_results

    @given(conv_problems(dtypes=COMPUTED, transposed=transposed))
    def check(case: ConvProblem) -> None:
        ours, theirs = definition_results(*case), torch_results(*case)
        for mine, other in zip(flat(ours), flat(theirs), strict=True):
            np.testing.assert_array_equal(mine, other, strict=True)

    check()


@pytest.mark.parametrize("transposed", [False, True])
def test_the_trilinear_form_against_the_definition(transposed: bool) -> None:
    @given(conv_problems(dtypes=("float64", "complex128"), transposed=transposed, empty=True))
    def check(case: ConvProblem) -> None:
        for form, loops in zip(flat(exact_results(*case)), flat(definition_results(*case)), strict=True):
            np.testing.assert_array_equal(form, loops, strict=True)

    check()


def flat(results: Any) -> list[Any]:
    return [a for r in results for a in (r if isinstance(r, tuple) else (r,))]


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_are_adjoint_to_the_forward(transposed: bool) -> None:
    @given(conv_problems(dtypes=("float64", "complex128"), transposed=transposed))
    def check(case: ConvProblem) -> None:
        problem, operands = case
        operands = operands._replace(bias=None)
        r = definition_results(problem, operands)
        product = inner(operands.grad_output, r.y)
        assert inner(r.grad_x, operands.x) == product
        assert inner(r.grad_weight, operands.weight) == product
        assert r.grad_bias.shape == (problem.c_out,)

    check()


def test_integers_wrap_and_float16_rounds_once() -> None:
    big = np.full((1, 2, 1), 100, np.int8)
    assert definition_conv(big, np.ones((1, 2, 1), np.int8)).tolist() == [[[200 - 256]]]
    assert definition_conv(big, np.ones((1, 2, 1), np.int8), output_dtype="int32").tolist() == [[[200]]]
    assert definition_conv_transpose(big, big.reshape(2, 1, 1), output_dtype="int32").tolist() == [[[20000]]]
    assert definition_conv(np.full((1, 1, 1), 2**40), np.full((1, 1, 1), 3), output_dtype="int16").tolist() == [[[0]]]
    ones = np.ones((1, 4096, 1), np.float16)
    assert definition_conv(ones, ones).tolist() == [[[4096.0]]]
    ones = np.ones((1, 4097, 1), np.float16)
    assert definition_conv(ones, ones).tolist() == [[[4096.0]]]
    assert definition_conv(ones, ones, output_dtype="float32").tolist() == [[[4097.0]]]


def test_padded_zeros_are_multiplied() -> None:
    y = definition_conv(np.ones((1, 1, 1)), np.full((1, 1, 1), np.inf), padding=1)
    np.testing.assert_array_equal(y, [[[np.nan, np.inf, np.nan]]])
