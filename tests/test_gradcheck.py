"""The gradient check passes right gradients and describes wrong ones, which are the main purpose of these tests."""

from __future__ import annotations

import functools
import re
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import refconv
from refconv.testing.gradcheck import GradcheckResult, gradcheck
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import arange

Function = Callable[..., Any]
RNG = np.random.default_rng(5)
REAL = RNG.standard_normal((4, 3))
COMPLEX = REAL + 1j * RNG.standard_normal((4, 3))
WHOLE = RNG.integers(-4, 5, (4, 3)).astype("float64")


def whole(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, shape).astype(dtype)
    return values + (1j * rng.integers(-3, 4, shape)).astype(dtype) if values.dtype.kind == "c" else values


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_vjp(g: Any, x: Any) -> Any:
    s = softmax(x)
    return s * (g - (g * s).sum(axis=-1, keepdims=True))


def divide_vjp(g: Any, a: Any, b: Any) -> Any:
    return g * np.conj(1 / b), -g * np.conj(a / b**2)


def matmul_vjp(g: Any, a: Any, b: Any) -> Any:
    return g @ np.conj(b.T), np.conj(a.T) @ g


def exp_vjp(g: Any, x: Any) -> Any:
    return g * np.conj(np.exp(x))


# --- Right gradients pass --------------------------------------------------------------------------------------------


@pytest.mark.thinned(3)
@pytest.mark.filterwarnings("ignore:inputs.* is constant")  # two small whole numbers are often equal
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("values", ["integers", "normal"])
def test_convolutions_pass_in_every_argument(values: str, transposed: bool) -> None:
    function = refconv.conv_transpose if transposed else refconv.conv
    backward = refconv.conv_transpose_backward if transposed else refconv.conv_backward

    @settings(max_examples=25)
    @given(
        conv_problems(
            dtypes=("float32", "float64", "complex64", "complex128"),
            values=values,
            transposed=transposed,
            groupings=("one", "uniform", "depthwise"),
        )
    )
    def check(case: ConvProblem) -> None:
        inputs = [case.x, case.weight] + ([] if case.bias is None else [case.bias])

        def vjp(g: Any, x: Any, weight: Any, bias: Any = None) -> Any:
            grads = backward(g, x, weight, **case.options)
            return grads if bias is not None else grads[:2]

        result = gradcheck(lambda *a: function(*a, **case.options), vjp, inputs, max_elements=12)
        if values == "integers":
            assert result == ((True,) * len(inputs), 0, sum(min(a.size, 12) for a in inputs))
        else:
            assert not any(result.exact)
            assert result.worst <= 1

    check()


def double_backward(case: ConvProblem, needs: Any) -> tuple[Function, Function, list[Any]]:
    """Return a backward pass as a function of g, x and the weights, its own backward pass, and their inputs."""
    transposed = case.problem.transposed
    backward = refconv.conv_transpose_backward if transposed else refconv.conv_backward
    double = refconv.conv_transpose_double_backward if transposed else refconv.conv_double_backward
    several = isinstance(case.weight, tuple)

    def function(g: Any, x: Any, *w: Any) -> Any:
        return backward(g, x, w if several else w[0], needs=needs, **case.options)

    def vjp(grad_grads: Any, g: Any, x: Any, *w: Any) -> Any:
        assert type(grad_grads).__name__ == "ConvGrads"
        assert [grad is not None for grad in grad_grads] == [name in needs for name in grad_grads._fields]
        grads = double(grad_grads, g, x, w if several else w[0], **case.options)
        return grads.grad_output, grads.x, *(grads.weight if several else [grads.weight])

    return function, vjp, [case.grad_output, case.x, *(case.weight if several else [case.weight])]


@pytest.mark.thinned(5)
@pytest.mark.filterwarnings("ignore:inputs.* is constant")
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("values", ["integers", "normal"])
@pytest.mark.parametrize("needs", [("x", "weight", "bias"), ("x",), ("weight", "bias")], ids=",".join)
def test_double_backwards_pass_in_every_argument(values: str, transposed: bool, needs: Any) -> None:
    @settings(max_examples=10)
    @given(conv_problems(dtypes=("float64", "complex64"), values=values, transposed=transposed))
    def check(case: ConvProblem) -> None:
        result = gradcheck(*double_backward(case, needs), max_elements=8)
        assert set(result.exact) == {values == "integers"}
        assert result.worst <= 1

    check()


def test_members_of_a_tuple_keep_their_types_and_are_judged_each() -> None:
    """The members are float32 and complex128, nested, with None between; a wrong gradient of the last is noticed."""
    x, y = WHOLE.astype("float32"), WHOLE * (1 + 2j)

    def function(x: Any, y: Any) -> Any:
        return 3 * x, None, (y.sum(axis=0), x[0, 0])

    def vjp(g: Any, x: Any, y: Any, factor: int = 1) -> Any:
        of_x, nothing, (of_y, of_first) = g
        assert (of_x.dtype, of_x.shape, of_y.dtype, of_y.shape) == (x.dtype, x.shape, y.dtype, y.shape[1:])
        assert nothing is None
        grad = 3 * of_x
        grad[0, 0] += factor * of_first
        return grad, np.broadcast_to(of_y, y.shape).copy()

    assert gradcheck(function, vjp, (x, y)).exact == (True, True)
    with pytest.raises(AssertionError, match=r"inputs\[0\] is wrong at element \(0, 0\)"):
        gradcheck(function, lambda *given: vjp(*given, factor=2), (x, y))
    with pytest.raises(AssertionError, match=r"at least one array; got \(None, None\)"):
        gradcheck(lambda x: (None, None), lambda g, x: x, (x,))
    with pytest.raises(AssertionError, match="vjp changes grad_output"):
        gradcheck(lambda x: (x, 2 * x), lambda g, x: np.add(g[0], g[1], out=g[1]), (x,))


def test_a_wrong_double_backward_is_caught() -> None:
    g, x, w = (whole(shape, "complex128", seed) for seed, shape in enumerate([(2, 2, 3), (2, 4, 5), (2, 2, 3)]))
    options: dict[str, Any] = {"groups": 2}
    right = functools.partial(refconv.conv_double_backward, **options)
    backward = functools.partial(refconv.conv_backward, **options)
    assert gradcheck(backward, right, (g, x, w)).exact == (True, True, True)
    for name, mistake in {
        "inputs[0]": lambda dot, g, x, w: right(dot._replace(bias=None), g, x, w),
        "inputs[1]": lambda dot, g, x, w: right(dot, g, x, w)._replace(x=right(dot, g.conj(), x, w).x),
        "inputs[2]": lambda dot, g, x, w: right(dot, g, x, w)._replace(weight=right(dot, g, x, 2 * w).weight * 2),
    }.items():
        with pytest.raises(AssertionError, match=f"gradient of {re.escape(name)} is wrong"):
            gradcheck(backward, mistake, (g, x, w))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_matmul_is_exact_on_whole_numbers_of_every_type(dtype: str) -> None:
    a, b = whole((4, 3), dtype), whole((3, 2), dtype, 1)
    assert gradcheck(np.matmul, matmul_vjp, (a, b)) == GradcheckResult((True, True), 0.0, 18)
    half = np.asarray(0.3, dtype)
    result = gradcheck(np.matmul, matmul_vjp, (a * half, b * half))
    assert result.exact == (False, False)


def test_exactness_is_judged_input_by_input() -> None:
    """A quotient is affine only in its numerator; and of two whole inputs only one may be squared."""
    a, b = np.array([8.0, -4.0, 12.0]), np.array([1.0, -1.0, 1.0])
    assert gradcheck(np.divide, divide_vjp, (a, b)).exact == (True, False)
    square = gradcheck(lambda a, b: a * b * b, lambda g, a, b: (g * b * b, 2 * g * a * b), (a, b))
    assert square.exact == (True, False)
    cubic = gradcheck(lambda x: x**3 - x, lambda g, x: g * (3 * x * x - 1), [np.zeros(1)])
    assert cubic.exact == (False,)  # it is 0 at −1, 0 and 1


@pytest.mark.parametrize(
    "x", [REAL, REAL.astype("float32"), REAL.astype("float16"), COMPLEX, WHOLE, REAL * 1e-9, REAL * 1e-15]
)
def test_exp_passes(x: Any) -> None:
    result = gradcheck(np.exp, exp_vjp, [x])
    assert (result.exact, result.elements) == ((False,), 12)
    assert result.worst <= 1


@pytest.mark.parametrize("scale", [1e-150, 1e-12, 1e-5, 1.0, 1e3, 1e150])
def test_elementwise_functions_of_every_size_pass(scale: float) -> None:
    x = RNG.uniform(0.1, 3, 7) * scale
    gradcheck(np.log, lambda g, x: g / x, [x])
    gradcheck(np.sqrt, lambda g, x: g / (2 * np.sqrt(x)), [x])
    gradcheck(lambda x: x**2, lambda g, x: 2 * g * x, [x])
    gradcheck(lambda x: x / (scale + x), lambda g, x: g * scale / (scale + x) ** 2, [x])


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_numbers_without_a_square_pass(scale: float) -> None:
    gradcheck(lambda x: x / 7, lambda g, x: g / 7, [np.array([0.0, 0.3, -2.0]) * scale])
    with pytest.raises(AssertionError, match="its sign is wrong"):
        gradcheck(lambda x: x / 7, lambda g, x: -g / 7, [np.array([0.0, 0.3, -2.0]) * scale])


@pytest.mark.parametrize("scale", [1e-200, 1e-12, 1e-3, 1.0])
def test_a_function_that_is_constant_but_for_rounding_passes(scale: float) -> None:
    gradcheck(lambda x: softmax(x).sum(), lambda g, x: softmax_vjp(g * np.ones_like(x), x), [REAL * scale])


def test_numbers_of_many_sizes_pass_together() -> None:
    x = np.array([-60.0, -40, -20, -1e-3, 0, 1e-8, 3.0, 12])
    gradcheck(np.exp, exp_vjp, [x])
    gradcheck(np.log, lambda g, x: g / x, [np.array([1e-12, 1e-8, 1e-3, 0.5, 20, 1e6])])
    gradcheck(np.divide, divide_vjp, (np.arange(1.0, 6), np.array([1e-6, -1e-3, 0.1, 1.0, 50])))


def test_details_that_a_long_step_jumps_over() -> None:
    x = np.array([1.0, 3e-4, -5e-4])

    def peak(x: Any) -> Any:
        return np.exp(-((1e3 * x) ** 2))

    gradcheck(peak, lambda g, x: g * peak(x) * -2e6 * x, [x])
    with pytest.raises(AssertionError, match=r"wrong at element \([12],\)"):
        gradcheck(peak, lambda g, x: g * peak(x) * -2.002e6 * x, [x])


def test_real_functions_of_complex_numbers_and_the_other_way_round() -> None:
    gradcheck(lambda z: np.abs(z) ** 2, lambda g, z: 2 * g * z, [COMPLEX])
    gradcheck(lambda z: z.real, lambda g, z: g + 0j, [np.round(COMPLEX * 4)])
    gradcheck(lambda x: np.exp(1j * x), lambda g, x: (np.conj(g) * 1j * np.exp(1j * x)).real, [REAL])


def test_more_shapes() -> None:
    assert gradcheck(np.sin, lambda g, x: g * np.cos(x), [0.7]).elements == 1
    assert gradcheck(np.negative, lambda g, x: [-g], [np.zeros((0, 3))]) == ((True,), 0.0, 0)
    assert gradcheck(lambda x: x[:0], lambda g, x: np.zeros_like(x), [REAL]).worst == 0
    result = gradcheck(np.divide, lambda g, a, b: (None, divide_vjp(g, a, b)[1]), (REAL, REAL + 9))
    assert result.elements == 12


def test_a_function_of_fixed_type_is_judged_in_it() -> None:
    weight = arange((2, 1, 3))

    def vjp(g: Any, x: Any) -> Any:
        return refconv.conv_input_grad(g, weight, x.shape)

    assert gradcheck(lambda x: refconv.conv(x, weight), vjp, [arange((1, 1, 6))]).exact == (True,)
    fraction = arange((1, 1, 6)) / np.float32(7)
    assert gradcheck(lambda x: refconv.conv(x, weight), vjp, [fraction]).exact == (False,)
    with pytest.raises(AssertionError, match="wrong at element"):
        gradcheck(lambda x: refconv.conv(x, weight), lambda g, x: vjp(g, x) * np.float32(1.01), [fraction])


def test_a_function_may_refuse_what_is_outside_of_its_domain() -> None:
    def log(x: Any) -> Any:
        if not (x > 0).all():
            raise ValueError("x must be positive")
        return np.log(x)

    gradcheck(log, lambda g, x: g / x, [np.array([1.0, 1e-9, 5.0])])


def test_the_same_seed_gives_the_same_result() -> None:
    one, two = (gradcheck(np.exp, exp_vjp, [REAL], seed=3, max_elements=5) for _ in range(2))
    assert one == two


def test_inputs_are_left_alone() -> None:
    x = REAL.copy()
    x.setflags(write=False)
    gradcheck(np.exp, exp_vjp, [x])
    np.testing.assert_array_equal(x, REAL)


# --- Wrong gradients are caught --------------------------------------------------------------------------------------

CORRECT: dict[str, tuple[Function, Function, tuple[Any, ...]]] = {
    "matmul, whole": (np.matmul, matmul_vjp, (whole((4, 3), "float64"), whole((3, 2), "float64", 1))),
    "matmul, whole float16": (np.matmul, matmul_vjp, (whole((4, 3), "float16"), whole((3, 2), "float16", 1))),
    "matmul, whole complex": (np.matmul, matmul_vjp, (whole((4, 3), "complex64"), whole((3, 2), "complex64", 1))),
    "matmul": (np.matmul, matmul_vjp, (COMPLEX, COMPLEX.T)),
    "exp": (np.exp, exp_vjp, (REAL,)),
    "exp, complex": (np.exp, exp_vjp, (COMPLEX.astype("complex64"),)),
    "softmax": (softmax, softmax_vjp, (REAL,)),
    "softmax, whole float32": (softmax, softmax_vjp, (WHOLE.astype("float32") * 6,)),
    "division": (np.divide, divide_vjp, (REAL.astype("float32"), REAL.astype("float32") + 5)),
    "division, complex": (np.divide, divide_vjp, (COMPLEX, COMPLEX[::-1])),
}


def dropped(gradient: Any) -> Any:
    """Drop the largest element, because the smallest may be 0."""
    changed = gradient.copy()
    changed[np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)] = 0
    return changed


def with_one(value: float) -> Function:
    return lambda v: np.where(np.arange(v.size).reshape(v.shape) == 4, v.dtype.type(value), v)


OTHER_TYPE = {"float16": "float32", "float32": "float64", "float64": "float32", "complex64": "complex128"}
OTHER_TYPE["complex128"] = "complex64"
WRONG: dict[str, tuple[str, Function]] = {
    "off by 1e-3": ("is wrong at element", lambda v: v * v.dtype.type(1 + 1e-3)),
    "wrong sign": ("is wrong at element .* its sign is wrong", lambda v: -v),
    "dropped element": ("is wrong at element", dropped),
    "one element off": ("is wrong at element", lambda v: v + np.eye(*v.shape, k=-1, dtype=v.dtype) / 128),
    "transposed": ("must have its shape", lambda v: v.T),
    "flattened": ("must have its shape", lambda v: v.reshape(-1)),
    "NaN": ("must be finite; it contains .*nan", with_one(np.nan)),
    "infinite": ("must be finite; it contains", with_one(np.inf)),
    "type": ("must have its data type", lambda v: v.astype(OTHER_TYPE[v.dtype.name])),
    "complex": ("must have its data type", lambda v: v + 0j if v.dtype.kind == "f" else v.real),
}


@pytest.mark.parametrize("mistake", WRONG)
@pytest.mark.parametrize("name", CORRECT)
def test_wrong_gradients_are_caught_in_every_input(name: str, mistake: str) -> None:
    function, vjp, inputs = CORRECT[name]
    message, spoil = WRONG[mistake]
    gradcheck(function, vjp, inputs)
    for j in range(len(inputs)):

        def wrong(g: Any, *a: Any, j: int = j) -> Any:
            found = vjp(g, *a)
            gradients = list(found) if isinstance(found, tuple) else [found]
            gradients[j] = spoil(gradients[j])
            return gradients

        with pytest.raises(AssertionError, match=rf"inputs\[{j}\] {message}"):
            gradcheck(function, wrong, inputs)


@pytest.mark.parametrize("function", ["matmul, whole complex", "matmul", "exp, complex"])
def test_a_missing_conjugate_is_caught(function: str) -> None:
    f, _, inputs = CORRECT[function]
    plain: Function = (lambda g, x: g * np.exp(x)) if len(inputs) == 1 else (lambda g, a, b: (g @ b.T, a.T @ g))
    with pytest.raises(AssertionError, match=r"inputs\[0\] is wrong at element"):
        gradcheck(f, plain, inputs)
    with pytest.raises(AssertionError, match="it is the conjugate of the right gradient"):
        gradcheck(np.exp, lambda g, x: np.conj(exp_vjp(g, x)), [COMPLEX])


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e-12, 1e-6])
def test_a_wrong_sign_on_small_values_is_caught(scale: float) -> None:
    """A comparison with an absolute floor would accept all of these."""
    for function, vjp, x in [
        (lambda x: scale * x**2, lambda g, x: 2 * scale * g * x, REAL),
        (lambda x: scale * np.exp(x), lambda g, x: scale * exp_vjp(g, x), REAL),
        (lambda x: 3 * x, lambda g, x: 3 * g, REAL),
    ]:
        gradcheck(function, vjp, [x])
        with pytest.raises(AssertionError, match="its sign is wrong"):
            gradcheck(function, lambda g, x, vjp=vjp: -vjp(g, x), [x])


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e-6, 1e3])
def test_inputs_of_every_size_are_really_judged(scale: float) -> None:
    """Near 0, a step relative to its input changes exp by less than its rounding."""
    x = REAL * scale
    with pytest.raises(AssertionError, match="wrong at 12 of 12"):
        gradcheck(lambda x: 1 + np.sin(x), lambda g, x: 1.001 * g * np.cos(x), [x])


def test_one_small_gradient_among_large_ones_is_caught() -> None:
    x = np.array([-80.0, 0.5, 2.0])

    def wrong(g: Any, x: Any) -> Any:
        return exp_vjp(g, x) * np.array([-1, 1, 1])

    with pytest.raises(AssertionError, match=r"wrong at element \(0,\): .*wrong at 1 of 3"):
        gradcheck(np.exp, wrong, [x])
    with pytest.raises(AssertionError, match=r"wrong at element \(0,\)"):  # 0 where it is 1e-35
        gradcheck(np.exp, lambda g, x: exp_vjp(g, x) * np.array([0, 1, 1]), [x])


def test_a_gradient_where_there_is_none_is_caught() -> None:
    def wrong(g: Any, x: Any) -> Any:
        gradient = np.zeros_like(x)
        gradient[0], gradient[1] = g * np.cos(x[0]), 1e-20
        return gradient

    with pytest.raises(AssertionError, match=r"wrong at element \(1,\): expected 0.0, got 1e-20"):
        gradcheck(lambda x: np.sin(x[0]), wrong, [REAL[:, 0]])


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_an_element_that_is_not_checked_alone_is_seen(exact: bool, dtype: str) -> None:
    x = whole((41, 37), dtype) * (np.asarray(1, dtype) if exact else np.asarray(0.3, dtype))
    function: Function = (lambda x: 2 * x) if exact else np.sin
    right: Function = (lambda g, x: 2 * g) if exact else (lambda g, x: g * np.conj(np.cos(x)))
    assert gradcheck(function, right, [x], max_elements=7) == ((exact,), pytest.approx(0, abs=1), 7)

    def wrong(g: Any, x: Any) -> Any:
        gradient = right(g, x)
        gradient[29, 31] = 0
        return gradient

    with pytest.raises(AssertionError, match=r"wrong at element \(29, 31\): expected .*, got 0"):
        gradcheck(function, wrong, [x], max_elements=7)


def test_a_gradient_that_is_wrong_in_a_narrow_type_only_is_caught() -> None:
    def wrong(g: Any, a: Any, b: Any) -> Any:
        first, second = matmul_vjp(g, a, b)
        return first, second if a.dtype == np.float64 else np.zeros_like(second)

    with pytest.raises(AssertionError, match=r"inputs\[1\] is wrong at element .*exact comparison"):
        gradcheck(np.matmul, wrong, CORRECT["matmul, whole float16"][2])
    big = (whole((41, 37), "float32"), whole((37, 2), "float32"))
    with pytest.raises(AssertionError, match=r"inputs\[1\] is wrong at element .*exact comparison"):
        gradcheck(np.matmul, wrong, big, max_elements=2)


def test_the_wrong_number_of_gradients_is_caught() -> None:
    a, b = REAL, REAL + 5
    with pytest.raises(AssertionError, match="vjp must return 2 gradients, one per input; got 1"):
        gradcheck(np.divide, lambda g, a, b: divide_vjp(g, a, b)[:1], (a, b))
    with pytest.raises(AssertionError, match="vjp must return 2 gradients, one per input; got 3"):
        gradcheck(np.divide, lambda g, a, b: (*divide_vjp(g, a, b), g), (a, b))
    with pytest.raises(AssertionError, match="a sequence of 2 gradients, one per input; got one ndarray"):
        gradcheck(np.divide, lambda g, a, b: np.stack(divide_vjp(g, a, b)), (a, b))
    with pytest.raises(AssertionError, match="at least one gradient to check; got only None"):
        gradcheck(np.exp, lambda g, x: None, [a])


@pytest.mark.parametrize(("which", "name"), [(0, "grad_output"), (1, r"inputs\[0\]"), (2, r"inputs\[1\]")])
def test_a_vjp_that_changes_its_arguments_is_caught(which: int, name: str) -> None:
    def wrong(*arguments: Any) -> Any:
        found = divide_vjp(*arguments)
        arguments[which][...] *= 2
        return found

    with pytest.raises(AssertionError, match=f"vjp changes {name}"):
        gradcheck(np.divide, wrong, (REAL, REAL + 5))


def test_a_function_that_changes_its_inputs_is_caught() -> None:
    def function(x: Any) -> Any:
        np.exp(x, out=x)
        return x

    with pytest.raises(AssertionError, match=r"function changes inputs\[0\]"):
        gradcheck(function, exp_vjp, [REAL])


def test_what_has_no_derivative_is_refused() -> None:
    def rough(x: Any) -> Any:
        return x + np.random.default_rng(zlib.crc32(x.tobytes())).standard_normal(x.shape)

    with pytest.raises(AssertionError, match=r"cannot be found at element .*random"):
        gradcheck(rough, lambda g, x: g, [REAL])
    with pytest.raises(AssertionError, match="function must be finite at its inputs"):
        gradcheck(np.log, lambda g, x: g, [np.zeros(3)])
    with pytest.raises(AssertionError, match=r"inputs\[0\]"):  # a kink
        gradcheck(np.abs, lambda g, x: g * np.sign(x + 1e-9), [np.zeros(3)])
    with pytest.raises(AssertionError, match="must return floating-point numbers; got data type int"):
        gradcheck(lambda x: np.argsort(x), lambda g, x: g, [REAL])
    with pytest.raises(AssertionError, match=r"must return a value that numpy\.asarray accepts"):
        gradcheck(lambda x: [[1.0], [1.0, 2.0]], lambda g, x: g, [REAL])
    with pytest.raises(AssertionError, match="must keep the shape of its result"):
        gradcheck(lambda x: x[x > 0.4], lambda g, x: np.zeros_like(x), [REAL])


@pytest.mark.parametrize("values", [REAL, WHOLE.astype("float32")])
def test_a_vjp_that_adds_to_its_buffers_is_caught(values: Any) -> None:
    """Its first result is right. The message names the gradient with the buffer, not the first input."""
    buffer = np.zeros((3, 4), values.dtype)

    def accumulating(g: Any, a: Any, b: Any) -> Any:
        grad_a, grad_b = matmul_vjp(g, a, b)
        buffer[...] += grad_b
        return grad_a, buffer

    with pytest.raises(
        AssertionError, match=r"vjp must return equal .* of the gradient of inputs\[1\] \(doubled every"
    ):
        gradcheck(np.matmul, accumulating, (values, values.T))


def test_results_that_differ_between_calls_are_caught() -> None:
    calls: list[Any] = []

    def step(g: Any, x: Any) -> Any:
        calls.append(x)
        gradient = exp_vjp(g, x)
        gradient[2, 1] += len(calls) - 1
        return gradient

    message = r"vjp must return equal results .* at element \(2, 1\) of the gradient of inputs\[0\] \(are there random"
    with pytest.raises(AssertionError, match=message):
        gradcheck(np.exp, step, [REAL])
    rng = np.random.default_rng(0)
    with pytest.raises(
        AssertionError, match=r"function must return equal results .* at element \(0, 0\) of the result"
    ):
        gradcheck(lambda x: x + rng.standard_normal(x.shape), lambda g, x: g, [REAL])
    sizes = iter((4, 3))
    with pytest.raises(AssertionError, match=r"function must keep the shape of its result; got \(4, 3\) and \(3, 3\)"):
        gradcheck(lambda x: x[: next(sizes)], lambda g, x: g, [REAL])
    answers = iter((None, REAL))
    with pytest.raises(AssertionError, match=r"vjp must return None for inputs\[0\] in every call or in none"):
        gradcheck(np.divide, lambda g, a, b: (next(answers), g), (REAL, REAL))


def test_a_layer_that_keeps_its_input_for_one_backward_pass_is_right() -> None:
    """Each backward pass follows a forward pass, as in training."""
    kept: list[Any] = []

    def forward(x: Any) -> Any:
        kept.append(x)
        return np.exp(x)

    assert gradcheck(forward, lambda g, x: g * np.exp(kept.pop()), [REAL]).elements == REAL.size


@pytest.mark.parametrize("j", [0, 1])
@pytest.mark.parametrize("value", [1.0, 0.0, -2.5])
def test_constant_inputs_are_warned_of(j: int, value: float) -> None:
    """A kernel of ones is its own mirror image, so a flip passes, and a warning says so."""
    x, weight = np.arange(5.0), np.array([2.0, -1, 3])
    inputs = [np.full_like(x, value), weight] if j == 0 else [x, np.full_like(weight, value)]

    def conv(x: Any, w: Any) -> Any:
        return np.correlate(x, w, "valid")

    def flipped(g: Any, x: Any, w: Any) -> Any:
        return np.convolve(g, w[::-1] if j == 1 else w, "full"), np.correlate(x, g, "valid")[:: 1 if j == 1 else -1]

    with pytest.warns(UserWarning, match=rf"inputs\[{j}\] is constant, {value} everywhere: a flipped kernel") as found:
        gradcheck(conv, flipped, inputs)
    assert [w.filename for w in found] == [__file__]
    with pytest.raises(AssertionError, match=r"is wrong at element"):
        gradcheck(conv, flipped, [x, weight])


def test_a_single_element_is_not_called_constant() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        gradcheck(np.exp, exp_vjp, [np.ones(1)])
        gradcheck(np.exp, exp_vjp, [np.array([1, np.nextafter(1, 2)])])
    assert found == []


# --- Arrays of other modules -----------------------------------------------------------------------------------------


def test_functions_receive_arrays_of_the_inputs_module_and_device() -> None:
    strict: Any = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    other = strict.Device("device1")
    a, b = strict.asarray(whole((4, 3), "float32")), strict.asarray(whole((3, 2), "float32", 1), device=other)
    seen: set[Any] = set()

    def matmul(a: Any, b: Any) -> Any:
        seen.add((type(a), a.device, type(b), b.device))
        return strict.matmul(a.to_device(other), b)

    def vjp(g: Any, a: Any, b: Any) -> Any:
        seen.add((type(g), g.device))
        return strict.matmul(g, b.T), strict.matmul(a.to_device(other).T, g)

    kind = type(a)
    assert gradcheck(matmul, vjp, (a, b)) == GradcheckResult((True, True), 0.0, 18)
    assert seen == {(kind, a.device, kind, other), (kind, other)}

    def accumulating(g: Any, a: Any, b: Any) -> Any:
        grad_a, grad_b = vjp(g, a, b)
        g *= 2
        return grad_a, grad_b

    with pytest.raises(AssertionError, match="vjp changes grad_output"):
        gradcheck(matmul, accumulating, (a, b))
    with pytest.raises(AssertionError, match=r"the gradient of inputs\[1\] is wrong at element"):
        gradcheck(matmul, lambda g, a, b: (vjp(g, a, b)[0], -vjp(g, a, b)[1]), (a, b))
    wide = strict.astype(a, strict.float64)  # a number becomes an array of the same module
    assert gradcheck(lambda a, s: a * s, lambda g, a, s: (g * s, strict.sum(g * a)), (wide, 3.0)).elements == 13
    with pytest.raises(
        TypeError, match=r"inputs\[0\] is an array of array_api_strict and inputs\[1\] is an array of n"
    ):
        gradcheck(matmul, vjp, (a, REAL))


def test_functions_of_pytorch_tensors() -> None:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: no tensors to hand on")
    x = torch.from_numpy(REAL.astype("float32"))
    weight = torch.from_numpy(WHOLE.astype("float32"))

    def product(x: Any, w: Any) -> Any:
        assert isinstance(x, torch.Tensor)
        return (x * w).sum(1)  # an ndarray would be refused

    def vjp(g: Any, x: Any, w: Any) -> Any:
        assert not g.requires_grad
        return w * g[:, None], x * g[:, None]

    assert gradcheck(product, vjp, (x, weight)).elements == 24
    # Leaves that require gradients still do, so that autograd can be the backward pass.
    leaves = x.requires_grad_(), torch.nn.Parameter(weight)
    auto = gradcheck(product, lambda g, x, w: torch.autograd.grad(product(x, w), (x, w), g), leaves)
    assert auto.elements == 24
    kept = torch.nn.Parameter(weight.detach().clone())

    def never_cleared(g: Any, x: Any, w: Any) -> Any:
        product(x, kept).backward(g)
        return w * g[:, None], kept.grad

    with pytest.raises(AssertionError, match=r"vjp must return equal .* gradient of inputs\[1\] \(doubled everywhere"):
        gradcheck(product, never_cleared, (x, weight))
    layer = torch.nn.Linear(3, 2)
    # A layer with float32 parameters refuses float64, so it is checked in float32.
    assert gradcheck(layer, lambda g, x: g @ layer.weight, [x]).elements == 12
    with pytest.raises(AssertionError, match=r"is wrong at element"):
        gradcheck(layer, lambda g, x: 1.01 * (g @ layer.weight), [x])
    with pytest.raises(TypeError, match=r"inputs\[0\] must be a value that numpy.asarray accepts"):
        gradcheck(product, vjp, (x.detach().bfloat16(), weight))


# --- Arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((None, exp_vjp, [REAL]), {}, TypeError, "function must be callable"),
        ((np.exp, 3, [REAL]), {}, TypeError, "vjp must be callable"),
        ((np.exp, exp_vjp, REAL), {}, TypeError, "inputs must be a list or tuple of arrays"),
        ((np.exp, exp_vjp, []), {}, ValueError, "inputs must contain at least one array"),
        ((np.exp, exp_vjp, [np.arange(3)]), {}, TypeError, r"inputs\[0\] must contain .*floating-point .*got int64"),
        ((np.exp, exp_vjp, [REAL, True]), {}, TypeError, r"inputs\[1\] must contain .*got bool"),
        ((np.exp, exp_vjp, ["a"]), {}, TypeError, r"inputs\[0\] must contain"),
        ((np.exp, exp_vjp, [[[1.0], [1.0, 2.0]]]), {}, TypeError, r"inputs\[0\] must be a value that numpy.asarray"),
        ((np.exp, exp_vjp, [np.array([1, np.nan])]), {}, ValueError, r"inputs\[0\] must be finite; it contains nan"),
        ((np.exp, exp_vjp, [REAL]), {"step": 0}, ValueError, "step must be finite and more than 0"),
        ((np.exp, exp_vjp, [REAL]), {"step": "a"}, TypeError, "step must be a number"),
        ((np.exp, exp_vjp, [REAL]), {"max_elements": 0}, ValueError, "max_elements must be at least 1"),
        ((np.exp, exp_vjp, [REAL]), {"max_elements": 1.5}, TypeError, "max_elements must be an integer"),
        ((np.exp, exp_vjp, [REAL]), {"seed": -1}, ValueError, "seed must be at least 0"),
    ],
)
def test_bad_arguments(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gradcheck(*arguments, **options)


def test_errors_of_the_functions_pass_through() -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        gradcheck(broken, exp_vjp, [REAL])
    with pytest.raises(KeyError, match="mine"):
        gradcheck(np.exp, broken, [REAL])
