"""Bad input in every argument of every public function gives one clear message before any array work."""

import collections
import re
import reprlib

import numpy as np
import pytest

import refconv
from refconv import ChannelGroups, uniform_groups

X = np.zeros((2, 4, 6, 7))
W = np.zeros((6, 2, 3, 2))
G = np.zeros((2, 6, 4, 6))
WT = np.zeros((4, 3, 3, 2))
GT = np.zeros((2, 6, 8, 8))
COLUMNS = np.zeros((2, 24, 24))

CALLS = {
    "conv": (refconv.conv, {"x": X, "weight": W, "bias": np.zeros(6), "groups": 2}),
    "conv2d": (refconv.conv2d, {"x": X, "weight": W, "bias": np.zeros(6), "groups": 2}),
    "conv_backward": (refconv.conv_backward, {"grad_output": G, "x": X, "weight": W, "groups": 2}),
    "conv_input_grad": (
        refconv.conv_input_grad,
        {"grad_output": G, "weight": W, "input_shape": (2, 4, 6, 7), "groups": 2},
    ),
    "conv_weight_grad": (
        refconv.conv_weight_grad,
        {"grad_output": G, "x": X, "kernel_size": (3, 2), "groups": 2},
    ),
    "conv_transpose": (refconv.conv_transpose, {"x": X, "weight": WT, "bias": np.zeros(6), "groups": 2}),
    "conv_transpose_backward": (
        refconv.conv_transpose_backward,
        {"grad_output": GT, "x": X, "weight": WT, "groups": 2},
    ),
    "im2col": (refconv.im2col, {"x": X, "kernel_size": (3, 2)}),
    "col2im": (refconv.col2im, {"columns": COLUMNS, "input_shape": (2, 4, 6, 7), "kernel_size": (3, 2)}),
    "conv_output_shape": (
        refconv.conv_output_shape,
        {"input_shape": (2, 4, 6, 7), "weight_shape": (6, 2, 3, 2), "groups": 2},
    ),
}


class Unprintable:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


NAN = float("nan")
HUGE = 2**63
INTEGERS = [NAN, True, np.bool_(True), "2", None, 1.5, b"1", HUGE, 10**30, {1, 2}, (1,), (1, 2, 3), (1, NAN), (1, None)]
BAD = {
    "array": [None, 3, "x", [[1.0]], NAN, True, object(), X.astype(bool), X.astype(object), X.astype("U1"),
              np.ma.masked_array(X), X[0, 0], np.zeros((1,) * 6), np.zeros(()), X.astype("f4"), memoryview(X)],
    "weight": [[], [W], (W, W), [None], [W, None]],
    "stride": [*INTEGERS, 0, -1, (1, 0), (1, -1)],
    "dilation": [*INTEGERS, 0, -1, (0, 1), 10**6, 2**40],
    "kernel_size": [*INTEGERS, 0, -1, (0, 1), 9],
    "groups": [NAN, True, "2", None, 2.0, HUGE, 0, -1, 3, 4, (2,), uniform_groups(6, 6, 2),
               ChannelGroups.from_sizes([1, 3], [3, 3])],
    "padding": [*INTEGERS[:12], "SAME", "full", -3, (0, -6), ((1, 2), 1), ((1, 2, 3), (1, 1)), ((1,), (1,)), 2**21,
                ((1, 2),), [[NAN, 1], [1, 1]], np.zeros((2, 2))],
    "padding_mode": [None, 3, True, "Zeros", "constant", ("zeros",)],
    "output_padding": [*INTEGERS, -1, 1, (0, 5)],
    "channels_last": [None, 1, "True", NAN, HUGE],
    "accumulate_dtype": ["float99", "bool", int, "int64", "complex128", np.bool_, 7, True, NAN, "object"],
    "output_dtype": ["float99", "bool", int, "int64", "complex128", np.bool_, 7, True, NAN, "object"],
    "output_size": [NAN, True, np.bool_(True), "2", 1.5, b"1", HUGE, 0, -1, 1, (8,), (8, 99), (8, 8, 8), (8, None)],
    "needs": ["x", None, ("y",), (None,), 3, [1]],
    "shape": [None, 3, "2467", (2, 4, 6), (2, 4, 6, 8), (2, 4, 6, NAN), (2, 4, 6, True), (2, 4, 6, -7), (2, 4, 6, None),
              (HUGE, 4, 6, 7), (2, 4, 6, 7, 1), (), "x"],
}  # fmt: skip
KIND = {
    "x": "array", "grad_output": "array", "bias": "array", "columns": "array", "weight": "array",
    "input_shape": "shape", "weight_shape": "shape",
}  # fmt: skip
OPTIONS = {
    "im2col": ("stride", "padding", "dilation"),
    "col2im": ("stride", "padding", "dilation"),
    "conv_output_shape": ("stride", "padding", "dilation", "padding_mode", "channels_last"),
    "conv_transpose": ("stride", "padding", "dilation", "output_padding", "output_size", "channels_last",
                       "accumulate_dtype", "output_dtype"),
    "conv_transpose_backward": (
        "stride", "padding", "dilation", "output_padding", "channels_last", "accumulate_dtype", "needs"),
    "conv_backward": (
        "stride", "padding", "dilation", "padding_mode", "channels_last", "accumulate_dtype", "needs"),
}  # fmt: skip
COMMON = ("stride", "padding", "dilation", "padding_mode", "channels_last", "accumulate_dtype")
OPTIONS |= dict.fromkeys(("conv", "conv2d"), (*COMMON, "output_dtype"))

GOOD = {  # values that are bad for other functions but good here
    ("im2col", "x", 14),  # float32, the only operand
    ("im2col", "kernel_size", 11),  # (1, 2, 3) makes x unbatched, with three spatial axes
    ("conv_weight_grad", "groups", 12),  # there is no weight to disagree with
    ("conv_transpose", "padding", 14),  # negative padding extends the output
    ("conv_transpose", "padding", 15),
    ("conv_output_shape", "input_shape", 4),  # (2, 4, 6, 8)
}


def arguments():
    return [
        pytest.param(function, argument, id=f"{function}-{argument}")
        for function, (_, required) in CALLS.items()
        for argument in (*required, *OPTIONS.get(function, COMMON))
    ]


def bad_values(function: str, argument: str) -> list:
    values = [*BAD[KIND.get(argument, argument)], *(BAD["weight"] if argument == "weight" else ()), Unprintable()]
    return [
        value
        for i, value in enumerate(values)
        if (function, argument, i) not in GOOD and not (argument == "bias" and value is None)
    ]


# Messages of NumPy, PyTorch or the interpreter if the validator missed a bad argument.
FOREIGN = re.compile(
    r"broadcast|einsum|matmul|object has no|not subscriptable|out of bounds|reshape|as_strided|unpack|"
    r"positional argument|iterable|index out|invalid literal"
)


@pytest.mark.parametrize(("function", "argument"), arguments())
def test_each_bad_argument_is_one_clear_error(function, argument):
    call, good = CALLS[function]
    call(**good)  # the rest of the call is good
    wrong = []
    for value in bad_values(function, argument):
        try:
            result = call(**(good | {argument: value}))
        except (TypeError, ValueError) as error:
            message = str(error)
            one_line = "\n" not in message or isinstance(value, np.ndarray)
            if len(message) <= 20 or FOREIGN.search(message) or not one_line:
                wrong.append(f"{reprlib.repr(value)}: {message}")
        else:
            wrong.append(f"{reprlib.repr(value)} is accepted: {type(result)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 2**39},
        {"padding": 2**39, "dilation": 2**38},
        {"padding": 2**62, "dilation": 2**61},
        {"padding": ((2**45, 2**45), (0, 0)), "stride": 2**50},
    ],
)
def test_absurd_memory_is_refused_before_allocation(options):
    for call in (
        lambda: refconv.conv(X, W, groups=2, **options),
        lambda: refconv.im2col(X, (3, 2), **options),
        lambda: refconv.conv_output_shape(X.shape, W.shape, groups=2, **options),
    ):
        with pytest.raises(ValueError, match="2\\^40"):
            call()


def test_absurd_transposed_output_is_refused():
    for options in ({"stride": 2**41}, {"dilation": 2**41}, {"padding": -(2**41)}):
        with pytest.raises(ValueError, match="2\\^40"):
            refconv.conv_transpose(X, WT, groups=2, **options)


def test_the_largest_of_everything_is_allowed():
    # 2^40 elements of one unbatched sample, and 31 spatial axes
    assert refconv.conv_output_shape((2**20, 2**20), (1, 2**20, 1)) == (1, 2**20)
    assert refconv.conv_output_shape((1, *(2,) * 32), (3, 2, *(1,) * 31)) == (1, 3, *(2,) * 31)


def test_huge_but_meaningless_steps_are_good_input():
    # With a single window the stride has no effect, and with a single tap the dilation has none.
    one_window = refconv.conv(X, np.ones((1, 4, 6, 7)), stride=2**62)
    assert one_window.shape == (2, 1, 1, 1)
    one_tap = refconv.conv(X, np.ones((1, 4, 1, 1)), dilation=2**62)
    assert one_tap.shape == (2, 1, 6, 7)


@pytest.mark.parametrize("reads", [[[]], [[], [2]], [[2, 0], []]])
def test_groups_that_read_nothing_give_the_bias_and_no_gradient(reads):
    groups = ChannelGroups(reads, [[g] for g in range(len(reads))], c_in=3)
    weight = [np.ones(shape) for shape in groups.weight_shapes((2,))]
    x, bias = np.ones((2, 3, 4)), np.arange(5.0, 5.0 + groups.c_out)
    y = refconv.conv(x, weight, bias, groups=groups)
    grads = refconv.conv_backward(np.ones_like(y), x, weight, groups=groups)
    for g, channels in enumerate(reads):
        assert np.all(y[:, g] == bias[g] + 2 * len(channels))
    for c in range(3):
        readers = sum(c in channels for channels in reads)
        assert np.array_equal(grads.x[0, c], np.array([1, 2, 2, 1]) * readers)
    back = [np.ones(shape) for shape in groups.weight_shapes((2,), transposed=True)]
    assert refconv.conv_transpose(x, back, bias, groups=groups).shape == (2, groups.c_out, 5)


def test_unknown_option_is_a_type_error():
    for call in (refconv.conv, refconv.conv2d):
        with pytest.raises(TypeError, match="strides"):
            call(X, W, groups=2, strides=2)


def test_sequences_too_long_to_count_are_refused() -> None:
    x, w = np.ones((1, 1, 4)), np.ones((1, 1, 2))
    endless = range(2**64)
    for call in (
        lambda: refconv.conv(x, w, stride=endless),
        lambda: refconv.conv(x, w, padding=endless),
        lambda: refconv.im2col(x, endless),
        lambda: refconv.conv_output_shape(endless, (1, 1, 1)),
        lambda: refconv.conv_output_shape((1, 1, 1), endless),
    ):
        with pytest.raises(ValueError, match=r"stride|padding|kernel_size|shape"):
            call()


def test_odd_values_are_named() -> None:
    x, w = np.ones((1, 1, 4)), np.ones((1, 1, 2))
    for dtype in (3.5, np.ones((2, 2))):
        with pytest.raises(TypeError, match=r"accumulate_dtype must be one of .* got [^\n]*$"):
            refconv.conv(x, w, accumulate_dtype=dtype)
    with pytest.raises(ValueError, match="needs may contain only"):
        refconv.conv_backward(np.ones((1, 1, 3)), x, w, needs=(np.array([1, 2]),))


def test_any_sequence_of_weights_and_any_bool_will_do() -> None:
    x, w = np.ones((2, 6, 7, 6)), np.ones((8, 6, 3, 3))
    expected = refconv.conv(x, w)
    np.testing.assert_array_equal(
        refconv.conv(x, collections.deque([w]), groups=refconv.uniform_groups(6, 8, 1)), expected
    )
    grad, last = np.ones((2, 5, 4, 8)), np.ones((2, 7, 6, 6))
    assert refconv.conv_weight_grad(grad, last, 3, channels_last=np.True_).shape == w.shape


def test_an_empty_batch_of_many_taps_takes_no_time() -> None:
    assert refconv.col2im(np.zeros((0, 2**30, 1)), (0, 1, 2**30), 2**30).shape == (0, 1, 2**30)
