"""The forward pass: exact on whole numbers, in every layout, data type and corner of the contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import refconv
from refconv import ChannelGroups
from refconv.conv import _of_rank
from refconv.testing.oracles.definition import definition_conv
from refconv.testing.oracles.problems import Problem, definition_results, integer_arrays, random_problem
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import Backend, arange, assert_results, cut_into, forward, large, run

# LeNet-5's table: the maps of S2, of 6, that each of the 16 maps of C3 reads (LeCun et al. 1998, table 1)
C3 = [
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
]  # fmt: skip


def conv(backend: Backend, x: Any, weight: Any, bias: Any = None, **options: Any) -> Any:
    return refconv.conv(*map(backend.asarray, (x, weight, bias)), **options)


# --- Equal to the definition, bit for bit ------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [4, 5])
def test_has_no_upper_limit_of_spatial_axes(backend: Backend, dims: int) -> None:
    x, w = arange((2, 2, *range(3, 3 + dims))[: dims + 2]), arange((3, 1, *(2, 1, 2, 1, 2)[:dims]), start=-3)
    w, groups = np.concatenate([w, w[:1]]), 2
    steps = {"stride": (1, 2, 1, 2, 3)[:dims], "padding": (1, 0, 0, 2, 1)[:dims], "dilation": (2, 1, 1, 3, 2)[:dims]}
    expected = definition_conv(x, w, groups=groups, **steps)
    backend.assert_equal(conv(backend, x, w, groups=groups, **steps), expected)


# --- Worked out by hand: what each argument means ----------------------------------------------------------------


def values(backend: Backend, x: Any, weight: Any, bias: Any = None, **options: Any) -> list[Any]:
    """Return the output of a one-dimensional convolution of one sample and one channel as a list."""
    make = lambda a: np.array([[a]], "float64")  # noqa: E731
    bias = None if bias is None else np.array([bias], "float64")
    y = backend.to_numpy(conv(backend, make(x), make(weight), bias, **options))
    assert y.shape[:2] == (1, 1)
    return list(y[0, 0])


X = [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("weight", "options", "expected"),
    [
        ([100, 10, 1], {}, [123, 234, 345]),  # correlated, not convolved: the kernel is not flipped
        ([100, 10, 1], {"stride": 2}, [123, 345]),
        ([100, 10, 1], {"stride": 3}, [123]),  # floor of 2/3
        ([10, 1], {"stride": 3}, [12, 45]),
        ([1], {"stride": 3}, [1, 4]),
        ([100, 10, 1], {"dilation": 2}, [135]),
        ([10, 1], {"dilation": 3}, [14, 25]),
        ([10, 1], {"dilation": 3, "stride": 2, "padding": 1}, [3, 25]),
        ([100, 10, 1], {"padding": 1}, [12, 123, 234, 345, 450]),
        ([100, 10, 1], {"padding": [1]}, [12, 123, 234, 345, 450]),
        ([100, 10, 1], {"padding": ((2, 0),)}, [1, 12, 123, 234, 345]),
        ([100, 10, 1], {"padding": ((0, 2),), "stride": 2}, [123, 345, 500]),
        ([10, 1], {"padding": -1}, [23, 34]),
        ([10, 1], {"padding": ((-2, 1),)}, [34, 45, 50]),
        ([10, 1], {"padding": "valid"}, [12, 23, 34, 45]),
        ([10, 1], {"padding": "same"}, [12, 23, 34, 45, 50]),  # the odd element goes after
        ([10, 1], {"padding": "same_lower"}, [1, 12, 23, 34, 45]),
        ([100, 10, 1], {"padding": "same", "stride": 2}, [12, 234, 450]),
        ([10, 1], {"padding": "same", "stride": 2}, [12, 34, 50]),
        ([10, 1], {"padding": "same_lower", "stride": 2}, [1, 23, 45]),
        ([1], {"padding": "same", "stride": 3}, [1, 4]),
        ([10, 1], {"padding": "same", "dilation": 3}, [3, 14, 25, 30, 40]),
        ([100, 10, 1], {"padding": 1, "padding_mode": "reflect"}, [212, 123, 234, 345, 454]),
        ([100, 10, 1], {"padding": 1, "padding_mode": "replicate"}, [112, 123, 234, 345, 455]),
        ([100, 10, 1], {"padding": 1, "padding_mode": "circular"}, [512, 123, 234, 345, 451]),
        ([1], {"padding": ((4, -3),), "padding_mode": "reflect"}, [5, 4, 3, 2, 1, 2]),
        ([1], {"padding": ((-3, 4),), "padding_mode": "reflect"}, [4, 5, 4, 3, 2, 1]),
        ([1], {"padding": 5, "padding_mode": "circular", "stride": 4}, [1, 5, 4, 3]),
        ([1], {"padding": ((-4, 5),), "padding_mode": "circular"}, [5, 1, 2, 3, 4, 5]),
        ([1], {"padding": ((-1, 7),), "padding_mode": "replicate"}, [2, 3, 4, 5, 5, 5, 5, 5, 5, 5, 5]),
        ([1], {"padding": ((9, 0),), "padding_mode": "reflect"}, [2, 1, 2, 3, 4, 5, 4, 3, 2, 1, 2, 3, 4, 5]),
        ([1], {"padding": ((-9, 11),), "padding_mode": "reflect"}, [2, 3, 4, 5, 4, 3, 2]),
        ([1], {"padding": ((7, 6),), "padding_mode": "circular"}, [4, 5, *[1, 2, 3, 4, 5] * 3, 1]),
        ([10, 1], {"padding": "causal"}, [1, 12, 23, 34, 45]),
        ([100, 10, 1], {"padding": "causal", "dilation": 2}, [1, 2, 13, 24, 135]),
        ([10, 1], {"padding": "causal", "stride": 2, "padding_mode": "replicate"}, [11, 23, 45]),
    ],
)  # fmt: skip
def test_by_hand(backend: Backend, weight: Any, options: Any, expected: Any) -> None:
    assert values(backend, X, weight, **options) == expected
    assert values(backend, X, weight, 1000, **options) == [1000 + v for v in expected]


def test_input_cropped_away_leaves_padding(backend: Backend) -> None:
    assert values(backend, [7, 8], [1], 5, padding=((-3, 4),)) == [5, 5, 5]
    assert values(backend, [7, 8], [1], padding=((-1, 9),), stride=9) == [8, 0]


def test_smallest_witnesses(backend: Backend) -> None:
    """The smallest cases that reveal ten common mistakes (output size, flip, groups, layout, …)."""
    image = lambda *rows: np.array([[rows]], "float32")  # noqa: E731
    one = np.ones((1, 1, 1, 1), "float32")
    assert conv(backend, image([1, 2]), one, stride=2).shape == (1, 1, 1, 1)
    assert float(conv(backend, image([1, 2]), image([3, 5]))[0, 0, 0, 0]) == 13
    spread = conv(backend, image([7]), image([3, 5]), padding=1, dilation=2)  # only one tap meets the image
    backend.assert_equal(spread, np.array([[[[0], [0], [0]]]], "float32"))
    x, w = arange((1, 2, 1, 1)), arange((4, 1, 1, 1), start=3)
    expected = np.array([3, 4, 10, 12], "float32").reshape(1, 4, 1, 1)
    backend.assert_equal(conv(backend, x, w, groups=2), expected)
    x, w = arange((2, 2, 1, 1)), arange((2, 2, 1, 1))
    expected = np.array([5, 11, 11, 25], "float32").reshape(2, 2, 1, 1)
    backend.assert_equal(conv(backend, x, w), expected)


def test_bias_is_added_once_per_channel(backend: Backend) -> None:
    x, w = np.zeros((2, 3, 4, 5), "float32"), arange((6, 1, 2, 3))
    y = conv(backend, x, w, arange((6,)), groups=3)
    backend.assert_equal(y, np.broadcast_to(arange((6, 1, 1)), (2, 6, 3, 3)))


def test_kernel_is_not_conjugated(backend: Backend) -> None:
    x, w = np.array([[[1j, 2]]], "complex64"), np.array([[[1j, 1 + 1j]]], "complex64")
    backend.assert_equal(conv(backend, x, w), np.array([[[1 + 2j]]], "complex64"))


def test_one_number_stands_for_every_axis(backend: Backend) -> None:
    x, w = arange((1, 2, 9, 8)), arange((3, 2, 2, 3))
    short = conv(backend, x, w, stride=2, padding=1, dilation=3)
    for two, pairs in ((np.array([2, 2]), [[1, 1], [1, 1]]), ((2, np.int8(2)), ((1, np.uint8(1)), (1, 1)))):
        long = conv(backend, x, w, stride=two, padding=pairs, dilation=[3, 3])
        backend.assert_equal(long, backend.to_numpy(short))
    backend.assert_equal(conv(backend, x, w, stride=np.int64(2), padding=(1, 1), dilation=3), backend.to_numpy(short))


@pytest.mark.parametrize("padding", [((1, 2), (0, 3)), [[1, 2], [0, 3]], ((0, 2), (1, 1))])
def test_padding_may_be_an_array_of_pairs(padding: Any) -> None:
    x, w = arange((1, 2, 5, 4)), arange((3, 2, 2, 3))
    expected = definition_conv(x, w, padding=tuple(map(tuple, padding)))
    np.testing.assert_array_equal(refconv.conv(x, w, padding=np.array(padding)), expected, strict=True)
    per_axis = definition_conv(x, w, padding=((2, 2), (1, 1)))
    np.testing.assert_array_equal(refconv.conv(x, w, padding=np.array([2, 1])), per_axis, strict=True)


@pytest.mark.parametrize("general", [refconv.conv, refconv.conv_transpose])
def test_ranked_names_say_what_they_are(general: Any) -> None:
    for d, ranked in ((d, _of_rank(d, general)) for d in (1, 2, 3)):
        assert ranked.__name__ == ranked.__qualname__ == f"{general.__name__}{d}d"
        assert ranked.__doc__ == (
            f"{d}-d :func:`{general.__name__}`: the same function, with the number of spatial axes checked."
        )
        assert getattr(refconv, ranked.__name__).__doc__ == ranked.__doc__


def test_ranked_names_are_the_same_function(backend: Backend) -> None:
    for d, function in enumerate((refconv.conv1d, refconv.conv2d, refconv.conv3d), start=1):
        x, w, b = (backend.asarray(arange(s)) for s in ((2, 4, *(5, 4, 3)[:d]), (6, 2, *(2, 3, 1)[:d]), (6,)))
        steps = {"stride": 2, "padding": 1, "groups": 2}
        backend.assert_equal(function(x, w, b, **steps), backend.to_numpy(refconv.conv(x, w, b, **steps)))


@settings(max_examples=30)
@given(conv_problems())
def test_output_shape_is_known_without_arrays(case: ConvProblem) -> None:
    problem, _ = case
    shapes = problem.weight_shape if isinstance(problem.groups, int) else problem.weight_shapes
    shape = refconv.conv_output_shape(problem.x_shape, shapes, **problem.options())
    assert isinstance(shape, tuple)
    assert shape == problem.output_shape


# --- Layouts -----------------------------------------------------------------------------------------------------


def test_channels_last_moves_an_axis_and_nothing_else(backend: Backend) -> None:
    x, w, b = arange((2, 4, 5, 7)), arange((6, 2, 3, 2)), arange((6,))
    expected = definition_conv(x, w, b, groups=2, padding=((1, 0), (0, 2)))
    y = conv(backend, np.moveaxis(x, 1, -1), w, b, groups=2, padding=((1, 0), (0, 2)), channels_last=True)
    backend.assert_equal(y, np.moveaxis(expected, 1, -1))


@pytest.mark.parametrize("channels_last", [False, True])
def test_unbatched_input_gives_unbatched_output(backend: Backend, channels_last: bool) -> None:
    x, w = arange((1, 3, 5, 4)), arange((2, 3, 2, 2))
    expected = definition_conv(x, w, stride=(1, 2))[0]
    if channels_last:
        x, expected = np.moveaxis(x, 1, -1), np.moveaxis(expected, 0, -1)
    backend.assert_equal(conv(backend, x[0], w, stride=(1, 2), channels_last=channels_last), expected)


def layouts(array: Any) -> dict[str, Any]:
    """Return arrays with the same values in other memory layouts."""
    flipped = np.flip(np.ascontiguousarray(np.flip(array)))
    padded = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    padded[..., ::2] = array
    return {
        "fortran": np.asfortranarray(array),
        "negative strides": flipped,
        "every second element": padded[..., ::2],
        "channels last in memory": np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1),
        "big-endian": array.astype(array.dtype.newbyteorder(">")),
        "unaligned": np.frombuffer(b"x" + array.tobytes(), array.dtype, offset=1).reshape(array.shape),
    }


@pytest.mark.parametrize("layout", ["fortran", "negative strides", "every second element", "channels last in memory",
                                    "big-endian", "unaligned"])  # fmt: skip
@pytest.mark.parametrize("padding", [0, 1, -1])
def test_numpy_arrays_of_any_memory_layout(layout: str, padding: int) -> None:
    x, w = arange((2, 4, 6, 5)), arange((6, 2, 2, 3), start=-9)
    options: dict[str, Any] = {"groups": 2, "padding": padding, "stride": (1, 2)}
    expected = definition_conv(x, w, **options)
    for changed_x, changed_w in ((layouts(x)[layout], w), (x, layouts(w)[layout])):
        if layout == "big-endian":  # both, because operands share one data type
            changed_x, changed_w = layouts(x)[layout], layouts(w)[layout]
        before = changed_x.copy(), changed_w.copy()
        np.testing.assert_array_equal(refconv.conv(changed_x, changed_w, **options), expected)
        np.testing.assert_array_equal(changed_x, before[0], strict=True)
        np.testing.assert_array_equal(changed_w, before[1], strict=True)


def test_broadcast_input(backend: Backend) -> None:
    """An array with a stride of zero (every sample in the same memory) is read like any other."""
    x, w = np.broadcast_to(arange((1, 2, 5)), (3, 2, 5)), arange((2, 2, 2))
    expected = definition_conv(np.array(x), w, padding=1)
    one, kernel = backend.asarray(x[:1]), backend.asarray(w)
    wide = backend.xp.broadcast_to(one, (3, 2, 5))
    backend.assert_equal(refconv.conv(wide, kernel, padding=1), expected)


def test_transposed_torch_tensors() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, w = arange((2, 3, 5, 4)), arange((2, 3, 2, 2))
    y = refconv.conv(torch.from_numpy(x.T.copy()).permute(3, 2, 1, 0), torch.from_numpy(w))
    np.testing.assert_array_equal(y.numpy(), definition_conv(x, w))


# --- Inputs are not changed, outputs are new ---------------------------------------------------------------------

PLAIN: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 1, 3), (1, 1, 1), {}),
    ((2, 2, 3, 4), (2, 2, 1, 1), {}),
    ((2, 2, 3, 4), (2, 1, 1, 1), {"groups": 2}),
    ((2, 2, 3, 4), (2, 2, 2, 1), {"padding": "same", "stride": 2}),
    ((2, 5, 2), (3, 2, 2), {"channels_last": True}),
    ((2, 5), (2, 2, 1), {}),
    ((1, 2, 3), (4, 1, 1), {"groups": 2, "padding": -1}),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), PLAIN)
@pytest.mark.parametrize("with_bias", [False, True])
def test_inputs_are_not_changed_and_the_output_is_new(
    x_shape: Any, w_shape: Any, options: Any, with_bias: bool
) -> None:
    x, w = np.ones(x_shape), np.ones(w_shape)
    arrays = [x, w, np.ones(w_shape[0])][: 2 + with_bias]
    before = [a.copy() for a in arrays]
    y = refconv.conv(*arrays, **options)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old, strict=True)
        assert not np.shares_memory(array, y)
    y[...] = 7  # the caller may write to the output
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old, strict=True)


def test_inputs_are_not_changed(backend: Backend) -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        problem = random_problem(rng)
        operands = integer_arrays(problem, rng)
        x, weight, bias, _ = (backend.asarray(a) for a in operands)
        first = refconv.conv(x, weight, bias, **problem.options())
        for array, old in zip((x, weight, bias), operands, strict=False):
            for one, other in zip(*(a if isinstance(a, tuple) else (a,) for a in (array, old)), strict=True):
                if one is not None:
                    np.testing.assert_array_equal(backend.to_numpy(one), other)
        backend.assert_equal(first, definition_results(problem, operands).y)


# --- Channel groups ----------------------------------------------------------------------------------------------


def test_lenet_c3(backend: Backend) -> None:
    groups = ChannelGroups(C3, [[k] for k in range(16)])
    assert (groups.c_in, groups.c_out, groups.n) == (6, 16, 16)
    assert groups.parameter_count((5, 5)) == 1516
    x = arange((2, 6, 14, 14), start=-500) % 7
    weights = tuple(arange(s, start=i) % 5 - 2 for i, s in enumerate(groups.weight_shapes((5, 5))))
    bias = arange((16,))
    y = conv(backend, x, weights, bias, groups=groups)
    dense = np.zeros((16, 6, 5, 5), "float32")
    for k, maps in enumerate(C3):
        for place, c in enumerate(maps):
            dense[k, c] = weights[k][0, place]
    np.testing.assert_array_equal(groups.connectivity(), np.any(dense != 0, axis=(2, 3)))
    backend.assert_equal(y, definition_conv(x, dense, bias))


def test_weights_follow_the_order_of_their_lists_and_bias_that_of_the_channels(backend: Backend) -> None:
    x = np.array([[[1], [10], [100]]], "float32")
    groups = ChannelGroups([[2, 0], [1, 2]], [[2, 0], [1]])
    weights = np.array([[[2], [3]], [[4], [5]]], "float32"), np.array([[[6], [7]]], "float32")
    y = conv(backend, x, weights, np.array([0.5, 0.25, 0.125], "float32"), groups=groups)
    backend.assert_equal(y, np.array([[[405.5], [760.25], [203.125]]], "float32"))


def test_uniform_channel_groups_equal_a_number(backend: Backend) -> None:
    x, w = arange((2, 6, 4)), arange((9, 2, 3), start=-20)
    expected = definition_conv(x, w, groups=3)
    parts = tuple(np.split(w, 3))
    for groups in (refconv.uniform_groups(6, 9, 3), ChannelGroups.from_sizes([2, 2, 2], [3, 3, 3])):
        backend.assert_equal(conv(backend, x, parts, groups=groups), expected)
        backend.assert_equal(conv(backend, x, w, groups=groups), expected)
        asarrays = [backend.asarray(p) for p in parts]  # a list is as good as a tuple
        backend.assert_equal(refconv.conv(backend.asarray(x), asarrays, groups=groups), expected)


def test_one_array_for_lists_of_one_shape(backend: Backend) -> None:
    """The groups' weights, joined along the first axis in the order of the groups."""
    x, w = arange((2, 4, 5)), arange((4, 2, 2))
    lists = [([3, 0], [1, 2]), ([0, 1], [3, 0])]
    groups = ChannelGroups(*zip(*lists, strict=True), c_in=4)
    backend.assert_equal(conv(backend, x, w, groups=groups), definition_conv(x, np.split(w, 2), groups=lists))


def test_depthwise_and_logarithmic_groups(backend: Backend) -> None:
    x = arange((1, 8, 6), start=-20)
    for groups in (refconv.depthwise_groups(8, 2), refconv.logarithmic_groups(8, 16, 3)):
        weights = tuple(arange(s, start=-5) % 6 for s in groups.weight_shapes((3,)))
        starts = [(np.cumsum((0, *sizes)), sizes) for sizes in (groups.in_sizes, groups.out_sizes)]
        lists = [tuple(list(range(start[g], start[g] + sizes[g])) for start, sizes in starts) for g in range(groups.n)]
        expected = definition_conv(x, weights, groups=lists, padding=1)
        backend.assert_equal(conv(backend, x, weights, groups=groups, padding=1), expected)
    assert refconv.logarithmic_groups(8, 16, 3).in_sizes == (4, 2, 2)


def test_an_unread_channel_does_not_reach_the_output(backend: Backend) -> None:
    groups = ChannelGroups([[0], [2]], [[0], [1]], c_in=5)
    x = np.full((1, 5, 3), np.nan, "float32")
    x[:, [0, 2]] = arange((1, 2, 3))
    weights = tuple(np.ones((1, 1, 2), "float32") for _ in range(2))
    backend.assert_equal(conv(backend, x, weights, groups=groups), np.array([[[3, 5], [9, 11]]], "float32"))


def test_groups_that_read_nothing_give_the_bias(backend: Backend) -> None:
    lists: Any = (((), (1,)), ((2, 0), (3, 0)), ((1,), (2,)))
    for transposed in (False, True):
        more = {"output_padding": (0,), "transposed": True} if transposed else {}
        problem = Problem(2, 4, 4, (5,), (3,), (2,), (1,), ((1, 0),), lists, **more)
        operands = integer_arrays(problem, np.random.default_rng(21))
        assert_results(backend, run(backend, problem, operands), definition_results(problem, operands))


# --- Data types --------------------------------------------------------------------------------------------------


def test_integers_wrap(backend: Backend) -> None:
    y = conv(backend, np.full((1, 2, 1), 100, "int8"), np.ones((1, 2, 1), "int8"))
    backend.assert_equal(y, np.full((1, 1, 1), -56, "int8"))
    y = conv(backend, np.full((1, 1, 1), 2**62, "int64"), np.full((1, 1, 1), 4, "int64"), np.array([3], "int64"))
    backend.assert_equal(y, np.full((1, 1, 1), 3, "int64"))


def test_float16_accumulates_in_float32_and_rounds_once(backend: Backend) -> None:
    if not backend.supports("float16"):
        pytest.skip(f"{backend.name} has no float16")
    ones = np.ones((1, 4096, 1), "float16")
    backend.assert_equal(conv(backend, ones, ones), np.full((1, 1, 1), 4096, "float16"))
    x = np.array([[[300], [300], [-300]]], "float16")  # the partial sum 90,000 exceeds float16
    w = np.array([[[300], [300], [300]]], "float16")
    bias = np.array([-30000], "float16")
    backend.assert_equal(conv(backend, x, w, bias), np.full((1, 1, 1), 60000, "float16"))
    rng = np.random.default_rng(11)  # sums exact in float32, not in float16; the bias is added before rounding
    x, w, b = (rng.integers(-60, 60, s).astype("float16") for s in ((3, 4, 9), (5, 4, 3), (5,)))
    backend.assert_equal(
        conv(backend, x, w, b), definition_conv(*(a.astype("float32") for a in (x, w, b))).astype("float16")
    )


@pytest.mark.parametrize(("dtype", "wide"), [("float32", "float64"), ("complex64", "complex128"), ("int8", "int32"),
                                             ("float16", "float64"), ("int16", "int64")])  # fmt: skip
def test_accumulate_dtype(backend: Backend, dtype: str, wide: str) -> None:
    if not (backend.supports(dtype) and backend.supports(wide)):
        pytest.skip(f"{backend.name} has no {dtype} or {wide}")
    rng = np.random.default_rng(1)
    for _ in range(5):
        problem = random_problem(rng)
        operands = integer_arrays(problem, rng, dtype)
        for name in (wide, np.dtype(wide)) if backend.is_numpy else (wide, getattr(backend.xp, wide)):
            y = forward(backend, problem, operands, accumulate_dtype=name)
            backend.assert_equal(y, definition_results(problem, operands).y)


def test_accumulate_dtype_is_cast_back_once(backend: Backend) -> None:
    """2^24 + 1 + 1 loses the ones in float32; float64 keeps them, and the result is rounded once at the end."""
    x, w = np.array([[[2**24], [1], [1], [-2]]], "float32"), np.ones((1, 4, 1), "float32")
    y = conv(backend, x, w, np.array([1], "float32"), accumulate_dtype="float64")
    backend.assert_equal(y, np.full((1, 1, 1), 2**24, "float32"))  # 2^24 + 1 rounds to even
    y = conv(backend, x, w, np.array([3], "float32"), accumulate_dtype="float64")
    backend.assert_equal(y, np.full((1, 1, 1), 2**24 + 4, "float32"))  # 2^24 + 3 rounds to even


@pytest.mark.parametrize(("dtype", "wide"), [("int8", "int32"), ("uint8", "int32"), ("uint8", "uint16"),
                                             ("float16", "float32"), ("float32", "float64"), ("float64", "float16"),
                                             ("complex64", "complex128"), ("int32", "int8"), ("int64", "uint64"),
                                             ("uint64", "int64"), ("uint64", "int8"), ("int8", "uint64")])  # fmt: skip
def test_output_dtype(backend: Backend, dtype: str, wide: str) -> None:
    """The result equals sums in the wider of the two data types, rounded once; integers keep the low bits."""
    if not (backend.supports(dtype) and backend.supports(wide)):
        pytest.skip(f"{backend.name} has no {dtype} or {wide}")
    rng = np.random.default_rng(4)
    exactly = np.int64 if np.dtype(dtype).kind in "iu" else np.result_type(dtype, wide)
    for transposed in (False, True) * 4:
        problem = random_problem(rng, transposed=transposed)
        operands = integer_arrays(problem, rng, dtype)
        exact = definition_results(problem, operands.mapped(lambda array: array.astype(exactly))).y
        for name in (wide, getattr(backend.xp, wide)):
            backend.assert_equal(forward(backend, problem, operands, output_dtype=name), exact.astype(wide))


def test_wide_sums_of_bytes_do_not_wrap(backend: Backend) -> None:
    x, w = np.full((1, 600, 1), -128, "int8"), np.full((1, 600, 1), -128, "int8")
    y = conv(backend, x, w, np.array([7], "int8"), accumulate_dtype="int32", output_dtype="int32")
    backend.assert_equal(y, np.full((1, 1, 1), 600 * 128 * 128 + 7, "int32"))
    x, w = np.full((1, 600, 1), 255, "uint8"), np.full((1, 600, 1), 255, "uint8")
    backend.assert_equal(conv(backend, x, w, output_dtype="int32"), np.full((1, 1, 1), 600 * 255 * 255, "int32"))
    narrow = conv(backend, x, w, accumulate_dtype="uint8", output_dtype="int32")
    backend.assert_equal(narrow, np.full((1, 1, 1), 600 * 255 * 255 % 256, "int32"))


# --- Padding of any amount ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_any_amount_of_padding(backend: Backend, mode: str) -> None:
    """The mode extends the input to infinity: padded by NumPy forward, by loops backward, in tiles of any size."""
    names: Any = {"zeros": "constant", "replicate": "edge", "circular": "wrap", "reflect": "reflect"}
    rng = np.random.default_rng(5)
    for size in ((1, 3), (2, 1), (3, 4)):
        pads = tuple((int(b), int(a)) for b, a in rng.integers(0, 12, (2, 2)))
        problem = Problem(2, 4, 6, size, (2, 2), (1, 2), (1, 1), pads, 2, padding_mode=mode, bias=False)
        operands = integer_arrays(problem, rng)
        expected = definition_results(problem, operands)
        padded = np.pad(operands.x, [(0, 0), (0, 0), *pads], mode=names[mode])
        np.testing.assert_array_equal(expected.y, definition_conv(padded, operands.weight, stride=(1, 2), groups=2))
        for tile in (1, 2**21):
            with cut_into(tile):
                assert_results(backend, run(backend, problem, operands), expected)


def test_causal_outputs_read_no_later_input(backend: Backend) -> None:
    x, w = arange((2, 4, 9)), arange((6, 2, 3))
    steps: dict[str, Any] = {"padding": "causal", "dilation": 2, "groups": 2}
    y = backend.to_numpy(conv(backend, x, w, **steps))
    assert y.shape[2] == 9
    for time in range(1, 9):
        later = x.copy()
        later[..., time:] = 0
        changed = backend.to_numpy(conv(backend, later, w, **steps))
        np.testing.assert_array_equal(changed[..., :time], y[..., :time])
        assert np.all(changed[..., time] != y[..., time])


# --- Not a number, infinity --------------------------------------------------------------------------------------


def test_a_dilated_kernel_does_not_read_between_its_taps(backend: Backend) -> None:
    x = np.array([[[1, np.nan, 2, np.inf, 3]]], "float32")
    y = conv(backend, x, np.array([[[1, 1, 1]]], "float32"), dilation=2)
    backend.assert_equal(y, np.array([[[6]]], "float32"))


def test_a_strided_kernel_does_not_read_between_its_windows(backend: Backend) -> None:
    x = np.array([[[1, np.nan, 2, np.inf, 3]]], "float32")
    y = conv(backend, x, np.array([[[1]]], "float32"), stride=2)
    backend.assert_equal(y, np.array([[[1, 2, 3]]], "float32"))


def test_infinite_weight_over_zero_padding_is_nan(backend: Backend) -> None:
    x, w = np.ones((1, 1, 2), "float32"), np.array([[[np.inf, 1, 1]]], "float32")
    with np.errstate(invalid="ignore"):  # NumPy warns of ∞ · 0
        y = conv(backend, x, w, padding=1)
    backend.assert_equal(y, np.array([[[np.nan, np.inf]]], "float32"))


@pytest.mark.parametrize("workers", [1, 2])
def test_error_state_reaches_the_workers(workers: int) -> None:
    """numpy.errstate applies to every thread of a call."""
    x, w = np.full((8, 4, 40, 40), 300, "float16"), np.full((4, 4, 3, 3), 300, "float16")
    with refconv.set_workers(workers), refconv.set_workspace(1 << 22):
        with np.errstate(over="ignore"):
            assert np.isposinf(refconv.conv(x, w)).all()
        with np.errstate(over="raise"), pytest.raises(FloatingPointError):
            refconv.conv(x, w)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number_reaches_exactly_the_outputs_that_read_it(backend: Backend, bad: float) -> None:
    rng = np.random.default_rng(13)
    for _ in range(15):
        problem = random_problem(rng)
        operands = integer_arrays(problem, rng)
        operands.x.flat[rng.integers(operands.x.size)] = bad
        with np.errstate(invalid="ignore"):
            y = forward(backend, problem, operands)
        backend.assert_equal(y, definition_results(problem, operands).y)


# --- Empty inputs and outputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_no_input_channels_give_the_bias(backend: Backend, channels_last: bool, with_bias: bool) -> None:
    x, w = np.zeros((2, 0, 8, 8), "float32"), np.zeros((4, 0, 3, 3), "float32")
    bias = arange((4,)) if with_bias else None
    expected = np.zeros((2, 4, 6, 6), "float32") + (bias.reshape(4, 1, 1) if with_bias else 0)
    if channels_last:
        x, expected = np.moveaxis(x, 1, -1), np.moveaxis(expected, 1, -1)
    backend.assert_equal(conv(backend, x, w, bias, channels_last=channels_last), expected)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("empty", ["batch", "channels", "both"])
def test_empty_batches_and_channels(backend: Backend, mode: str, empty: str) -> None:
    n, c = (0 if empty in ("batch", "both") else 2), (0 if empty in ("channels", "both") else 4)
    for groups in (1, 2):
        x, w = np.ones((n, c, 5, 4), "float32"), np.ones((6, c // groups, 2, 3), "float32")
        steps = {"stride": 2, "padding": ((1, 0), (1, 2)), "padding_mode": mode, "groups": groups}
        backend.assert_equal(conv(backend, x, w, arange((6,)), **steps), definition_conv(x, w, arange((6,)), **steps))


def test_steps_that_are_never_taken_may_be_huge(backend: Backend) -> None:
    x, w = arange((1, 2, 3, 4)), arange((2, 2, 1, 3))
    expected = definition_conv(x, w, stride=(3, 2))
    y = conv(backend, x, w, stride=(2**62, 2), dilation=(2**62, 1))
    backend.assert_equal(y, expected)


def test_padding_alone_can_fill_a_window(backend: Backend) -> None:
    x, w = arange((1, 1, 2)), arange((1, 1, 2))
    backend.assert_equal(conv(backend, x, w, padding=3), definition_conv(x, w, padding=3))


def test_a_larger_problem_is_cut_into_pieces(backend: Backend) -> None:
    """It is large enough to be tiled and spread over threads; whole numbers stay exact."""
    problem, operands, expected = large()
    for tile in (1, 1 << 12, 1 << 16):
        with refconv.set_workers(2), cut_into(tile):
            backend.assert_equal(forward(backend, problem, operands), expected.y)
