"""Pooling: values by loops over windows, gradients by differences, and PyTorch where installed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refconv.nn import AvgPool, Layer, MaxPool
from tests.helpers import Backend
from tests.nn_helpers import apart, check_gradients, check_tiles_and_layouts, integers, rng

# shape, kernel_size, stride, options
POOLS: list[tuple[tuple[int, ...], Any, Any, dict[str, Any]]] = [
    ((2, 3, 6, 5), 2, None, {}),
    ((2, 2, 7, 5), 3, 2, {}),  # AlexNet's: windows overlap
    ((1, 2, 6, 7), (2, 3), (3, 1), {}),
    ((2, 2, 9), 4, 1, {}),
    ((1, 2, 4, 3, 5), (2, 1, 3), 2, {}),
    ((2, 1, 5, 6), (3, 4), (2, 3), {"padding": (1, 2)}),
    ((1, 2, 6, 8), 3, 2, {"ceil_mode": True}),
    ((1, 2, 5, 4), (2, 3), (3, 4), {"padding": 1, "ceil_mode": True}),
    ((2, 1, 4), 2, 5, {"padding": 1, "ceil_mode": True}),
    ((1, 1, 2, 3), 5, 3, {"padding": 2, "ceil_mode": True}),
]


def windows(
    shape: tuple[int, ...], kernel: Any, stride: Any, padding: Any = 0, ceil_mode: bool = False
) -> tuple[tuple[int, ...], dict[tuple[int, ...], tuple[tuple[slice, ...], int]]]:
    """Return by counting the output size and, per window, its slices of the input and its size with padding.

    Along one axis they are windows of the list −p, …, n−1+p. With ceil_mode, the last one may extend past the end by
    less than a step, if it begins before the padding at the end.
    """
    d = len(shape) - 2
    kernel, padding = ((v,) * d if isinstance(v, int) else v for v in (kernel, padding))
    stride = kernel if stride is None else (stride,) * d if isinstance(stride, int) else stride
    axes = []
    for n, k, s, p in zip(shape[2:], kernel, stride, padding, strict=True):
        line = list(range(-p, n + p))
        found = [
            line[first : first + k]
            for first in range(0, len(line), s)
            if first + k <= len(line) or (ceil_mode and line[first] < n and first + k - len(line) < s)
        ]
        axes.append([([i for i in window if 0 <= i < n], len(window)) for window in found])
    result = {}
    for position in itertools.product(*(range(len(axis)) for axis in axes)):
        parts = [axis[o] for axis, o in zip(axes, position, strict=True)]
        where = tuple(slice(inside[0], inside[-1] + 1) for inside, _ in parts)
        result[position] = where, math.prod(size for _, size in parts)
    return tuple(map(len, axes)), result


def pooled(x: Any, kernel: Any, stride: Any, *, count: str = "max", **options: Any) -> Any:
    """Return, by the definition, the maxima, or the means over all or only the real elements of each window."""
    output, where = windows(x.shape, kernel, stride, **options)
    y = np.zeros((*x.shape[:2], *output), x.dtype)
    for position, (slices, size) in where.items():
        seen = x[(..., *slices)].reshape(*x.shape[:2], -1)
        size = {"pad": size, "real": seen.shape[2], "max": 1}[count]
        y[(..., *position)] = seen.max(axis=2) if count == "max" else seen.sum(axis=2) / size
    return y


@pytest.mark.parametrize(("shape", "kernel", "stride", "options"), POOLS)
def test_max_pool(backend: Backend, shape: Any, kernel: Any, stride: Any, options: Any) -> None:
    layer, x = MaxPool(kernel, stride, **options), apart(shape)
    backend.assert_equal(layer.forward(backend.asarray(x)), pooled(x, kernel, stride, **options))
    check_gradients(backend, layer, x)


@pytest.mark.parametrize("include", [True, False], ids=["with padding", "without padding"])
@pytest.mark.parametrize(("shape", "kernel", "stride", "options"), POOLS)
def test_avg_pool(backend: Backend, shape: Any, kernel: Any, stride: Any, options: Any, include: bool) -> None:
    layer = AvgPool(kernel, stride, count_include_pad=include, **options)
    x = integers(shape)
    expected = pooled(x, kernel, stride, count="pad" if include else "real", **options)
    backend.assert_equal(layer.forward(backend.asarray(x)), expected)
    check_gradients(backend, layer, x, exact=False)


@pytest.mark.parametrize("name", ["float16", "float32", "float64", "int8", "int64", "uint8"])
def test_max_pool_of_every_data_type(backend: Backend, name: str) -> None:
    if not backend.supports(name):
        pytest.skip(f"{backend} has no {name}")
    x = (np.abs(integers((2, 3, 7, 6))) if name == "uint8" else integers((2, 3, 7, 6)) - 5).astype(name)
    layer = MaxPool(3, 2, padding=1, ceil_mode=True)
    y = layer.forward(backend.asarray(x))
    backend.assert_equal(y, pooled(x, 3, 2, padding=1, ceil_mode=True))
    grad = backend.to_numpy(layer.backward(backend.asarray(np.ones(tuple(y.shape), name))))
    assert grad.dtype == np.dtype(name)
    assert grad.sum() == math.prod(y.shape)


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_avg_pool_of_every_data_type(backend: Backend, name: str) -> None:
    if not backend.supports(name):
        pytest.skip(f"{backend} has no {name}")
    x = (4 * integers((2, 3, 7, 6))).astype(name)
    layer = AvgPool(2, 1)  # quarters of whole numbers: exact in every data type
    y = layer.forward(backend.asarray(x))
    backend.assert_equal(y, pooled(x, 2, 1, count="real"))
    backend.assert_equal(layer.backward(backend.asarray(np.full(tuple(y.shape), 4, name)))[0, 0, :2, :2],
                         np.array([[1, 2], [2, 4]], name))  # fmt: skip


def test_max_pool_gives_a_tie_to_the_first(backend: Backend) -> None:
    layer = MaxPool((2, 2), stride=1)
    layer.forward(backend.asarray(np.array([[[[1.0, 7, 7], [7, 7, 0]]]])))
    grad = layer.backward(backend.asarray(np.array([[[[1.0, 10]]]])))
    backend.assert_equal(grad, np.array([[[[0.0, 11, 0], [0, 0, 0]]]]))


def test_max_pool_of_many_taps(backend: Backend) -> None:
    """There are more taps than a byte can number."""
    x = apart((1, 2, 400))
    layer = MaxPool(300, 50)
    backend.assert_equal(layer.forward(backend.asarray(x)), pooled(x, 300, 50))
    x = np.where(np.arange(400) == 290, 1.0, np.zeros((1, 1, 400)))
    layer.forward(backend.asarray(x))
    backend.assert_equal(layer.backward(backend.asarray(np.array([[[1.0, 2, 4]]]))), 7 * x)


def test_max_pool_passes_nan_and_infinities_on(backend: Backend) -> None:
    nan, inf = np.nan, np.inf
    layer = MaxPool(3, 2, padding=1)
    x = np.array([[[-inf, -inf, 2, nan, 1, inf, 0]]])
    backend.assert_equal(layer.forward(backend.asarray(x)), np.array([[[-inf, nan, nan, inf]]]))
    # the maximum of the first window is −∞ itself, not the padding before it
    grad = layer.backward(backend.asarray(np.array([[[1.0, 2, 4, 8]]])))
    backend.assert_equal(grad, np.array([[[1.0, 0, 0, 6, 0, 8, 0]]]))
    layer.forward(backend.asarray(np.array([[[1.0, 2, 3]]])))
    backend.assert_equal(layer.backward(backend.asarray(np.array([[[inf, nan]]]))), np.array([[[0.0, inf, nan]]]))


@pytest.mark.parametrize("layer", [MaxPool(2), AvgPool(2)])
def test_pooling_of_an_empty_batch(backend: Backend, layer: Layer) -> None:
    for shape, pooled_shape in (((0, 3, 4, 6), (0, 3, 2, 3)), ((2, 0, 4, 6), (2, 0, 2, 3))):
        y = layer.forward(backend.asarray(np.zeros(shape)))
        assert tuple(y.shape) == pooled_shape
        assert tuple(layer.backward(y).shape) == shape


@pytest.mark.parametrize("make", [MaxPool, AvgPool])
def test_pooling_in_tiles_and_of_other_layouts(make: Callable[..., Layer]) -> None:
    x = rng(3).permutation(5 * 4 * 7 * 6).reshape(5, 4, 7, 6).astype("float32")
    check_tiles_and_layouts(make(3, 2, padding=1), x, 2000)


@st.composite
def poolings(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    d = draw(st.integers(1, 3))
    sizes = [draw(st.integers(1, 9 if d < 3 else 5)) for _ in range(d)]
    kernel = tuple(draw(st.integers(1, 5)) for _ in range(d))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    stride = tuple(draw(st.integers(1, 6)) for _ in range(d))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *sizes)
    x = np.random.default_rng(draw(st.integers(0, 99))).integers(-3, 4, shape).astype("float64")
    options = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": draw(st.booleans())}
    return x, options


@pytest.mark.parametrize("kind", ["max", "mean with padding", "mean without padding"])
@given(problem=poolings())
def test_pooling_agrees_with_torch(kind: str, problem: tuple[Any, dict[str, Any]]) -> None:
    """Values, gradients (including ties), and refused arguments agree."""
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    x, options = problem
    d = x.ndim - 2
    more = {} if kind == "max" else {"count_include_pad": kind == "mean with padding"}
    theirs = getattr(torch.nn, f"{'Max' if kind == 'max' else 'Avg'}Pool{d}d")(**options, **more)
    layer = (MaxPool if kind == "max" else AvgPool)(**options, **more)  # type: ignore[operator]
    leaf = torch.tensor(x, requires_grad=True)
    try:
        expected = theirs(leaf)
    except RuntimeError as error:
        if "smaller than kernel size" in str(error):  # a rule of its avg_pool3d alone; the loops check these cases
            return
        with pytest.raises(ValueError, match="must fit"):
            layer.forward(x)
        return
    y = layer.forward(x)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-14, atol=1e-15, strict=True)
    g = integers(y.shape)
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(layer.backward(g), leaf.grad.numpy(), rtol=1e-13, atol=1e-13, strict=True)


@given(problem=poolings())
def test_pooling_agrees_with_the_loops(problem: tuple[Any, dict[str, Any]]) -> None:
    x, options = problem
    kernel, stride = options.pop("kernel_size"), options.pop("stride")
    output, _ = windows(x.shape, kernel, stride, **options)
    if 0 in output:
        with pytest.raises(ValueError, match="must fit"):
            MaxPool(kernel, stride, **options).forward(x)
        return
    np.testing.assert_array_equal(MaxPool(kernel, stride, **options).forward(x), pooled(x, kernel, stride, **options))
    for include, count in ((True, "pad"), (False, "real")):
        layer = AvgPool(kernel, stride, count_include_pad=include, **options)
        y = layer.forward(x)
        np.testing.assert_array_equal(y, pooled(x, kernel, stride, count=count, **options))
        g = integers(y.shape)
        np.testing.assert_allclose(np.vdot(g, y), np.vdot(layer.backward(g), x), rtol=0, atol=1e-9)  # adjoint


BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (TypeError, "x must be real", lambda: MaxPool(1).forward(np.zeros((1, 1, 2)) + 0j)),
    (TypeError, "float64 for AvgPool; got int64", lambda: AvgPool(1).forward(np.zeros((1, 1, 2), "int64"))),
    (ValueError, r"\(N, C, D1, …, Dd\)", lambda: MaxPool(1).forward(np.zeros((1, 1)))),
    (ValueError, "kernel_size", lambda: MaxPool((2, 2)).forward(np.zeros((1, 1, 4)))),
    (ValueError, "must fit", lambda: MaxPool(5).forward(np.zeros((1, 1, 4, 9)))),
    (ValueError, "must fit", lambda: MaxPool(2, padding=1).forward(np.zeros((1, 1, 0)))),
    (ValueError, "stride must be at least 1", lambda: MaxPool(2, stride=0)),
    (ValueError, r"stride.*\(2\)", lambda: MaxPool((2, 2), stride=(1,))),
    (ValueError, "stride must be an integer or one", lambda: AvgPool(2, range(1, 10**12)).forward(np.zeros((1, 1, 2)))),
    (ValueError, r"half of kernel_size.*padding=\(2,\) and kernel_size=\(3,\)", lambda: MaxPool(3, padding=2)),
    (ValueError, r"padding\[1\] must be at least 0", lambda: AvgPool(3, padding=(0, -1))),
    (TypeError, "ceil_mode", lambda: MaxPool(3, ceil_mode=1)),  # type: ignore[arg-type]
    (TypeError, "count_include_pad", lambda: AvgPool(3, count_include_pad=None)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("error", "message", "call"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_pooling_is_refused(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        call()
