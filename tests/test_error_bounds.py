"""The bounds on rounding errors: no correct computation exceeds them, and a dropped kernel tap does."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.lib.stride_tricks import sliding_window_view

import refconv
from refconv import ChannelGroups, uniform_groups
from refconv.testing import assert_conv_close, error_bound
from refconv.testing.mutants import rounded
from refconv.testing.oracles.bounds import COMPUTE
from refconv.testing.oracles.definition import (
    definition_bias_grad,
    definition_conv,
    definition_conv_transpose,
    definition_input_grad,
    definition_weight_grad,
)
from refconv.testing.oracles.problems import definition_results
from refconv.testing.strategies import ConvProblem, conv_problems

KINDS = ("random", "constant", "alternating", "sorted")


def numbers(rng: np.random.Generator, shape: tuple[int, ...], kind: str, dtype: str = "float32") -> Any:
    """Return difficult data for a sum: terms that cancel, that all round the same way, or of very different sizes."""
    values = rng.standard_normal(shape)
    if kind == "constant":
        values = np.full(shape, 0.1)
    elif kind == "alternating":
        decades = 0.5 if dtype == "float16" else 2.0
        values *= 10.0 ** (decades * (-1.0) ** np.arange(values.size)).reshape(shape)
    elif kind == "sorted":
        values = np.sort(values.ravel()).reshape(shape)
    return values.astype(dtype)


def summed(products: Any, order: str, dtype: Any, rng: np.random.Generator) -> Any:
    """Sum along the last axis in one order, rounding to `dtype` after every addition."""
    if order == "shuffled":
        products = products[..., rng.permutation(products.shape[-1])]
    if order == "pairwise":
        while products.shape[-1] > 1:
            if products.shape[-1] % 2:
                products = np.concatenate([products, np.zeros_like(products[..., :1])], -1)
            products = (products[..., ::2] + products[..., 1::2]).astype(dtype)
        return products[..., 0]
    step = -1 if order == "backwards" else 1
    total = np.zeros(products.shape[:-1], dtype)
    for i in range(products.shape[-1])[::step]:
        total = (total + products[..., i]).astype(dtype)
    return total


def terms(x: Any, weight: Any) -> Any:
    """Return the products (N, K, o…, C·T) of a two-dimensional convolution without options, before they are summed."""
    windows = sliding_window_view(x, weight.shape[2:], (2, 3))  # (N, C, o1, o2, k1, k2)
    windows = windows.transpose(0, 2, 3, 1, 4, 5)[:, None]  # (N, 1, o1, o2, C, k1, k2)
    products = windows * weight[None, :, None, None]
    return products.reshape(*products.shape[:4], -1)


ORDERS = ("forwards", "backwards", "shuffled", "pairwise")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("channels", [1, 16, 512])
@pytest.mark.parametrize("compute", ["float32", "float64", "tf32", "bfloat16", "float16"])
def test_no_order_of_summation_exceeds_the_bound(kind: str, order: str, channels: int, compute: str) -> None:
    rng = np.random.default_rng(channels)
    dtype = {"float64": "float64", "float16": "float16"}.get(compute, "float32")
    sums = "float64" if compute == "float64" else "float32"
    x, weight = numbers(rng, (1, channels, 4, 3), kind, dtype), numbers(rng, (2, channels, 3, 3), kind, dtype)
    bits = {"tf32": 10, "bfloat16": 7}.get(compute)
    used = [rounded(a, bits) if bits else a for a in (x, weight)]
    actual = summed(terms(*(a.astype(sums) for a in used)), order, sums, rng).astype(dtype)
    bound = error_bound(x, weight, compute=compute)
    exact = terms(x.astype("longdouble"), weight.astype("longdouble")).sum(-1)
    assert (np.abs(actual - exact) <= bound).all()
    assert_conv_close(actual, x, weight, compute=compute)


def test_the_bound_is_attained_up_to_a_factor() -> None:
    """Equal terms, whose additions all round the same way, come near the worst case."""
    x, weight = np.full((1, 4096, 1), 0.1, "float32"), np.ones((1, 4096, 1), "float32")
    actual = summed((x * weight).reshape(1, 1, 1, -1), "forwards", np.float32, np.random.default_rng(0))
    exact = 4096 * float(x[0, 0, 0])
    assert abs(float(actual[0, 0, 0]) - exact) > 0.01 * error_bound(x, weight)[0, 0, 0] > 0


@pytest.mark.thinned(4)
@pytest.mark.parametrize("channels", [16, 64, 256, 512])
def test_a_dropped_tap_is_beyond_the_bound(channels: int) -> None:
    """The tap is dropped at one input channel; in sums of 144 to 4608 terms, at least 95 % of 40 trials notice it."""
    caught = 0
    for trial in range(40):
        rng = np.random.default_rng(trial)
        x, weight = numbers(rng, (1, channels, 8, 8), "random"), numbers(rng, (8, channels, 3, 3), "random")
        dropped = weight.copy()
        dropped[:, rng.integers(channels), rng.integers(3), rng.integers(3)] = 0
        actual = terms(x, dropped).sum(-1, dtype=np.float32)
        right = terms(x, weight).sum(-1, dtype=np.float32)
        assert_conv_close(right, x, weight)
        try:
            assert_conv_close(actual, x, weight)
        except AssertionError:
            caught += 1
    assert caught >= 38


@pytest.mark.parametrize(("dtype", "result"), [("float16", "float32"), ("float32", "float64"), ("float64", "float32")])
def test_a_wider_result_is_not_rounded_again_and_a_narrower_one_once(dtype: str, result: str) -> None:
    rng = np.random.default_rng(3)
    x, weight = numbers(rng, (1, 16, 4, 3), "random", dtype), numbers(rng, (2, 16, 3, 3), "random", dtype)
    wide = np.result_type(dtype, result)
    products = terms(x.astype(wide), weight.astype(wide))
    actual = summed(products, "forwards", wide, rng).astype(result)
    assert_conv_close(actual, x, weight, output_dtype=result)
    bound, own = error_bound(x, weight, output_dtype=result), error_bound(x, weight)
    assert (bound < own).all() == (wide == result)
    if wide == result:
        np.testing.assert_array_equal(bound, error_bound(x, weight, compute=result))
        with pytest.raises(AssertionError, match=f"beyond its {result} bound .* consistent with {dtype}$"):
            assert_conv_close(actual.astype(dtype).astype(result), x, weight, output_dtype=result)
    else:  # the sums' bound alone is too narrow
        assert (np.abs(actual - products.astype("longdouble").sum(-1)) > error_bound(x, weight)).any()


OPTIONS: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2)}


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("groups", [1, 2])
def test_every_gradient_is_within_its_bound(dtype: str, groups: int) -> None:
    rng = np.random.default_rng(3)
    x, weight, bias = (
        numbers(rng, s, "random", dtype) for s in ((2, 4, 6, 5), (6, 4 // groups, 3, 2), (6,))
    )  # fmt: skip
    if np.iscomplexobj(x):
        x, weight = x + 1j * x[::-1].conj(), weight * dtype_of(dtype)(1 + 2j)
    more = OPTIONS | {"groups": groups}
    y = definition_conv(x, weight, bias, **more)
    g = numbers(rng, y.shape, "random", dtype)
    exact = {
        "forward": definition_conv(*(a.astype("clongdouble") for a in (x, weight, bias)), **more),
        "grad_x": definition_input_grad(g.astype("clongdouble"), weight.astype("clongdouble"), x.shape, **more),
        "grad_weight": definition_weight_grad(
            g.astype("clongdouble"), x.astype("clongdouble"), weight.shape[2:], **more
        ),
        "grad_bias": definition_bias_grad(g.astype("clongdouble")),
    }
    for of, value in exact.items():
        bound = error_bound(x, weight, bias, of=of, grad_output=g, **more)
        assert bound.shape == value.shape
        assert bound.dtype == np.float64
        actual = value.astype(dtype) if np.iscomplexobj(x) else value.real.astype(dtype)
        assert (np.abs(actual - value) <= bound).all()
        assert_conv_close(actual, x, weight, bias, of=of, grad_output=g, **more)
        spoilt = actual.copy()
        spoilt.flat[0] += 1
        with pytest.raises(AssertionError, match=rf"{of} is beyond .* at 1 of {value.size} elements; the worst is \(0"):
            assert_conv_close(spoilt, x, weight, bias, of=of, grad_output=g, **more)


def dtype_of(name: str) -> Any:
    return np.dtype(name).type


def test_the_bound_in_fractions() -> None:
    """γ_n·Σ|a||b| in exact arithmetic, at a border, in the middle, and with a bias."""
    x, weight, bias = (np.array(a, "float32") for a in ([[[3, -5, 7]]], [[[2, -1, 4]]], [-6]))
    u = Fraction(1, 2**24)

    def bound(n: int, products: int, addend: int) -> Fraction:
        return n * u / (1 - n * u) * (products + addend)

    expected = [bound(3, 3 + 20, 6), bound(4, 6 + 5 + 28, 6), bound(3, 10 + 7, 6)]
    found = error_bound(x, weight, bias, padding=1)[0, 0]
    for value, right in zip(found, expected, strict=True):
        assert 0 <= Fraction(float(value)) / right - 1 < Fraction(1, 10**10)
    assert error_bound(x, weight)[0, 0, 0] < found[1]
    assert (error_bound(x[:, :, :1], weight, padding=((2, 2),))[0, 0] > 0).all()
    assert error_bound(np.zeros((1, 0, 3), "f4"), np.zeros((1, 0, 2), "f4")).max() == 0


def test_rounding_the_operands_widens_the_bound() -> None:
    x, weight = np.ones((1, 2, 3), "float32"), np.ones((1, 2, 2), "float32")
    bounds = [error_bound(x, weight, compute=name)[0, 0, 0] for name in ("float64", "float32", "tf32", "bfloat16")]
    assert bounds == sorted(bounds)
    assert bounds[2] == pytest.approx(4 * 2 * 2**-11, rel=0.01)
    assert bounds[3] == pytest.approx(4 * 2 * 2**-8, rel=0.01)
    half = error_bound(x.astype("f2"), weight.astype("f2"))[0, 0, 0]
    assert half == pytest.approx(4 * 2**-11, rel=0.01)
    assert set(COMPUTE) == {"float64", "float32", "tf32", "bfloat16", "float16"}


def test_channel_groups_and_transposed() -> None:
    rng = np.random.default_rng(0)
    groups = ChannelGroups([[0, 2], [1, 0]], [[1], [0, 2]])
    x = numbers(rng, (2, 3, 5), "random")
    weight = [numbers(rng, shape, "random") for shape in groups.weight_shapes((2,))]
    lists = list(zip(groups.in_channels, groups.out_channels, strict=True))
    y = definition_conv(x, weight, groups=lists, padding=1)
    assert_conv_close(y, x, weight, groups=groups, padding=1)
    g = numbers(rng, y.shape, "random")
    grads = definition_weight_grad(g, x, (2,), groups=lists, padding=1)
    bounds = error_bound(x, weight, of="grad_weight", grad_output=g, groups=groups, padding=1)
    assert [b.shape for b in bounds] == [w.shape for w in weight]
    assert_conv_close(grads, x, weight, of="grad_weight", grad_output=g, groups=groups, padding=1)
    with pytest.raises(AssertionError, match=r"grad_weight\[1\] is beyond"):
        assert_conv_close(
            [grads[0], grads[1] + 1], x, weight, of="grad_weight", grad_output=g, groups=groups, padding=1
        )
    for found, got in ((grads[:1], "1"), (None, "NoneType")):
        with pytest.raises(AssertionError, match=f"grad_weight must be 2 arrays, one per group; got {got}"):
            assert_conv_close(found, x, weight, of="grad_weight", grad_output=g, groups=groups, padding=1)
    weight_t = numbers(rng, (3, 2, 3), "random")
    more: dict[str, Any] = {"stride": 2, "padding": 1, "output_padding": 1}
    assert_conv_close(definition_conv_transpose(x, weight_t, **more), x, weight_t, transposed=True, **more)


FIELDS = {"forward": "y", "grad_x": "grad_x", "grad_weight": "grad_weight", "grad_bias": "grad_bias"}


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


@pytest.mark.parametrize("transposed", [False, True])
def test_the_bound_is_that_of_the_loops_in_every_padding_mode_and_layout(transposed: bool) -> None:
    """It is γ_n·Σ|a||b|, with n and sums by the definition; refconv is within it, and 1 added to an element is not."""
    unit, tiny = 2.0**-24, 2.0**-126
    function = refconv.conv_transpose if transposed else refconv.conv
    backward = refconv.conv_transpose_backward if transposed else refconv.conv_backward

    @settings(max_examples=30)
    @given(conv_problems(values="normal", transposed=transposed))
    def check(case: ConvProblem) -> None:
        problem, operands = case
        bare = operands._replace(bias=None)
        sums = definition_results(problem, bare.mapped(lambda a: np.abs(a.astype("float64"))))
        counts = definition_results(problem, bare.mapped(lambda a: np.ones(a.shape)))
        actual = (function(case.x, case.weight, case.bias, **case.options), *backward(
            case.grad_output, case.x, case.weight, **case.options
        ))  # fmt: skip
        for (of, part), result in zip(FIELDS.items(), actual, strict=True):
            extra, addend = 0, np.zeros(1)
            if of == "forward" and case.bias is not None:
                extra, addend = 1, np.abs(case.bias.astype("float64"))
                if not problem.channels_last:
                    addend = addend.reshape(-1, *(1,) * problem.spatial_dims)
            options = {"of": of, "grad_output": case.grad_output, "transposed": transposed} | case.options
            found = error_bound(case.x, case.weight, case.bias, **options)
            assert isinstance(found, tuple) == isinstance(getattr(sums, part), tuple)
            lists = (as_list(found), as_list(getattr(sums, part)), as_list(getattr(counts, part)))
            for bound, total, terms_ in zip(*lists, strict=True):
                n = terms_ + extra
                right = n * unit / (1 - n * unit) * (total + addend) + n * tiny
                np.testing.assert_allclose(bound, right, rtol=1e-9, atol=0)
            assert_conv_close(result, case.x, case.weight, case.bias, **options)
            wrong = [r.copy() for r in as_list(result)]
            if wrong[-1].size == 0:
                continue
            wrong[-1].flat[-1] += 1
            with pytest.raises(AssertionError, match=f"{of}.* is beyond its float32 bound at 1 of"):
                assert_conv_close(
                    tuple(wrong) if isinstance(result, tuple) else wrong[0], case.x, case.weight, case.bias, **options
                )

    check()


def test_one_weight_array_for_channel_groups_of_equal_shapes() -> None:
    """As in refconv.conv, the groups' weights are joined along the first axis, and so is the weight gradient."""
    rng = np.random.default_rng(0)
    lists, number = ChannelGroups([[0, 2], [3, 1]], [[0], [1]]), uniform_groups(4, 2, 2)
    x, weight = numbers(rng, (2, 4, 5), "random"), numbers(rng, (2, 2, 3), "random")
    for groups in (lists, number):
        y = refconv.conv(x, weight, groups=groups)
        assert_conv_close(y, x, weight, groups=groups)
        grad = refconv.conv_backward(y, x, weight, groups=groups).weight
        more: dict[str, Any] = {"of": "grad_weight", "grad_output": y, "groups": groups}
        assert_conv_close(grad, x, weight, **more)
        joined = np.concatenate(error_bound(x, list(np.split(weight, 2)), **more))
        np.testing.assert_array_equal(error_bound(x, weight, **more), joined)
        grad[1] += 1
        with pytest.raises(AssertionError, match=r"grad_weight is beyond .* the worst is \(1, "):
            assert_conv_close(grad, x, weight, **more)
    np.testing.assert_array_equal(error_bound(x, weight, groups=number), error_bound(x, weight, groups=2))


def test_messages_name_the_precision() -> None:
    rng = np.random.default_rng(0)
    x, weight = numbers(rng, (2, 8, 5, 5), "random"), numbers(rng, (4, 8, 3, 3), "random")
    for bits, name in ((10, "tf32"), (7, "bfloat16")):
        actual = terms(rounded(x, bits), rounded(weight, bits)).sum(-1)
        with pytest.raises(AssertionError, match=rf"times its bound .* consistent with {name}$"):
            assert_conv_close(actual, x, weight)
    products = terms(x.astype("float16"), weight.astype("float16"))
    for actual in (products.sum(-1), products.astype("float32").sum(-1).astype("float16")):
        for dtype in ("float32", "float64", "complex64"):
            with pytest.raises(AssertionError, match=r"times its bound .* consistent with float16$"):
                assert_conv_close(*(a.astype(dtype) for a in (actual, x, weight)))
    for wrong in (np.zeros((2, 4, 3, 3)), np.full((2, 4, 3, 3), np.nan)):
        with pytest.raises(AssertionError, match="consistent with no precision: this is no rounding error"):
            assert_conv_close(wrong, x, weight)
    with pytest.raises(AssertionError, match=r"forward must have shape \(2, 4, 3, 3\); got \(1,\)"):
        assert_conv_close(np.zeros(1), x, weight)


UP: dict[str, Any] = {"stride": 2, "transposed": True, "groups": 1, "weight": np.ones((2, 1, 2), "float32")}
X, W = np.ones((1, 2, 4), "float32"), np.ones((3, 2, 2), "float32")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X[0, 0]}, ValueError, r"at least 3, or x one fewer if unbatched; got shapes \(4,\) and \(3, 2, 2\)"),
        ({"x": X[None]}, ValueError, "same number of axes"),
        ({"x": X.astype(int)}, TypeError, "x must contain floating-point numbers; got int64"),
        ({"weight": W[:, :1]}, ValueError, r"weight must have shape \(3, 2, 2\)"),
        ({"weight": [W]}, TypeError, "weight must be one array"),
        ({"groups": ChannelGroups([[0, 1], [0]], [[0, 1], [2]])}, ValueError,
         r"weight must be a sequence of 2 arrays, .* differ in shape: \(2, 2, 2\), \(1, 1, 2\); got one array"),
        ({"groups": ChannelGroups([[0], [1]], [[0], [1]])}, ValueError,
         r"weight must have shape \(2, 1, 2\) for its groups; got \(3, 2, 2\)"),
        ({"groups": ChannelGroups([[0], [2]], [[0], [1]])}, ValueError, "C=3 input channels of its .*; got C=2"),
        ({"groups": 2}, ValueError, "groups=2 does not divide"),
        ({"bias": np.ones(2, "float32")}, ValueError, r"bias must have shape \(3,\)"),
        ({"of": "backward"}, ValueError, "of must be one of forward, grad_x"),
        ({"of": "grad_x"}, ValueError, "of='grad_x' needs grad_output"),
        ({"of": "grad_x", "grad_output": X}, ValueError, r"grad_output must have shape \(1, 3, 3\)"),
        ({"compute": "float8"}, ValueError, "compute must be one of float64"),
        ({"compute": 32}, TypeError, "compute must be a string"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"stride": (1, 1)}, ValueError, "stride must be an integer or one integer per spatial axis"),
        ({"padding": "full"}, ValueError, "padding must be numbers"),
        ({"padding": -2}, ValueError, "output must have an element"),
        ({"dilation": 2.0}, TypeError, "dilation must be an integer"),
        ({"transposed": "yes"}, TypeError, "transposed"),
        ({"x": [[1], [1, 2]]}, TypeError, "^x must be a value that numpy.asarray accepts"),
        ({"weight": W.astype("complex64")}, TypeError, "all real or all complex; got x of float32, weight of comp"),
        ({"x": X * np.float32(np.nan)}, ValueError, "x must be finite"),
        ({"bias": np.full(3, np.inf, "float32")}, ValueError, "bias must be finite"),
        ({"padding": 2**50}, ValueError, r"more than 2\^40 elements"),
        ({"output_padding": 1}, ValueError, "output_padding must be 0 without transposed=True"),
        ({"output_padding": 2, "stride": 2, "transposed": True, "groups": 1, "weight": np.ones((2, 1, 2), "float32")},
         ValueError, "output_padding must be smaller than stride or dilation"),
        ({"padding": "causal", "transposed": True}, ValueError, "no meaning for a transposed convolution"),
        ({"output_size": 3}, ValueError, "output_size needs transposed=True; got 3"),
        ({"output_size": 7, **UP}, ValueError, r"size that x of size \(4,\) can have; got \(7,\)"),
        ({"output_size": 10, **UP}, ValueError, r"size that x of size \(4,\) can have; got \(10,\)"),
        ({"output_size": 9, "padding": "same", **UP}, ValueError, r"size that x of size \(4,\) can have; got \(9,\)"),
        ({"output_size": 5, "padding": "same", **UP, "stride": 1, "dilation": 3}, ValueError,
         r"size that x of size \(4,\) can have; got \(5,\)"),
        ({"output_size": 9, "output_padding": 1, **UP}, ValueError, "must be 0 with output_size; got 1"),
        ({"padding": "same", "output_padding": 1, **UP}, ValueError, "must be 0 with padding='same'"),
        ({"output_dtype": "int32"}, TypeError, "output_dtype must be one of float16, .*; got 'int32'"),
        ({"output_dtype": "wide"}, TypeError, "output_dtype must be one of float16, .*; got 'wide'"),
        ({"output_dtype": "complex64"}, TypeError, "of the operands' kind, as float32 is; got complex64"),
        ({"padding_mode": 3}, TypeError, "padding_mode must be a string; got 3"),
        ({"padding_mode": "constant"}, ValueError, "must be one of zeros, reflect, replicate, circular; got"),
        ({"padding_mode": "replicate", "padding": 1, "x": X[..., :0]}, ValueError,
         r"'replicate' needs an element to repeat; got an input of size 0 and padding \(1, 1\) on spatial axis 0"),
        ({"padding_mode": "reflect", "padding": 1, "transposed": True, "weight": np.ones((2, 1, 2), "float32")},
         ValueError, "padding_mode must be 'zeros' with transposed=True; got 'reflect'"),
        ({"channels_last": 1}, TypeError, "channels_last must be a bool; got 1"),
        ({"channels_last": True}, ValueError, r"weight must have shape \(3, 4, 2\) \(x has shape \(1, 2, 4\)\)"),
        ({"channels_last": True, "x": X.transpose(0, 2, 1), "of": "grad_x", "grad_output": np.ones((1, 3, 4), "f4")},
         ValueError, r"grad_output must have shape \(1, 3, 3\), the output's; got \(1, 3, 4\)"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"x": X, "weight": W} | change
    with pytest.raises(error, match=message):
        error_bound(**arguments)


def test_numbers_near_the_end_of_float64() -> None:
    x, weight = np.full((1, 1, 2), 1e200), np.full((1, 1, 1), 1e200)
    assert (error_bound(x, weight) == np.inf).all()
    with pytest.raises(ValueError, match="the exact forward is too large for float64"):
        assert_conv_close(np.ones((1, 1, 2)), x, weight)


def test_small_numbers_are_shown() -> None:
    x, weight = np.full((1, 1, 1), 3e-20, "float32"), np.ones((1, 1, 1), "float32")
    with pytest.raises(AssertionError, match=r"expected 2\.9999999e-20, got 5\.99999981e-20"):
        assert_conv_close(2 * x, x, weight)
