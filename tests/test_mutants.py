"""The catalogue of mistakes: wrong code in various styles, as people write it, gets the name of its mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refconv.testing import check_conv
from refconv.testing.checker.witness import witness
from refconv.testing.mutants import CATALOGUE, FAMILIES, Conv, ConvTranspose, Mutant

BY_NAME = {mutant.name: mutant for mutant in CATALOGUE}
right, right_transpose = Conv(), ConvTranspose()
WRITTEN: list[Any] = []


def written(name: str, supports: tuple[str, ...] = (), **settings: Any) -> Callable[[Any], Any]:
    """Register a function that returns (forward, backward), and the name of its mistake."""

    def enter(make: Any) -> Any:
        WRITTEN.append(pytest.param(name, make, settings | {"supports": supports}, id=make.__name__))
        return make

    return enter


def output_size(n: int, k: int, s: int, p: int, d: int) -> int:
    return (n + 2 * p - d * (k - 1) - 1) // s + 1


# --- Forward passes --------------------------------------------------------------------------------------------------


@written("column padding reads the neighbouring row", ("padding",))
def flat_index() -> Any:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        (n, c, h, w), (k, _, a, b) = x.shape, weight.shape
        flat, (p, q) = x.reshape(-1), padding
        y = np.zeros((n, k, h + 2 * p - a + 1, w + 2 * q - b + 1), x.dtype)
        for i, f, r, s in np.ndindex(y.shape):
            for e, u, v in np.ndindex(c, a, b):
                row = r - p + u
                at = ((i * c + e) * h + row) * w + s - q + v
                if 0 <= row < h and 0 <= at < flat.size:
                    y[i, f, r, s] += flat[at] * weight[f, e, u, v]
        return y

    return forward, None


@written("depthwise multiplier reading channel k mod C", ("groups",))
def depthwise_path() -> Any:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        if weight.shape[1] > 1:
            return right.forward(x, weight, bias, stride, padding, dilation, groups)
        windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
        return np.stack(
            [np.einsum("nhwij,ij->nhw", windows[:, k % groups], weight[k, 0]) for k in range(len(weight))], 1
        )

    return forward, None


@written("grouped weight tiled over all channels", ("groups", "padding"))
def tiled_weight() -> Any:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        dense = np.tile(weight, (1, groups, 1, 1))
        return right.forward(x, dense, bias, stride, padding, dilation, 1)

    return forward, None


@written("dilation counted in the bounds test", ("padding", "dilation"))
def bounds_test() -> Any:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        sizes = [output_size(*n) for n in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)]
        y = np.zeros((len(x), len(weight), *sizes), x.dtype)
        for r, s in np.ndindex(*sizes):
            for u, v in np.ndindex(*weight.shape[2:]):
                i, j = r - padding[0] + u * dilation[0], s - padding[1] + v * dilation[1]
                if 0 <= i <= x.shape[2] - dilation[0] and 0 <= j <= x.shape[3] - dilation[1]:
                    y[:, :, r, s] += x[:, :, i, j] @ weight[:, :, u, v].T
        return y

    return forward, None


@written("loop stops before the last window", ("stride",))
def range_end() -> Any:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        a, b = weight.shape[2:]
        rows, columns = range(0, x.shape[2] - a, stride[0]), range(0, x.shape[3] - b, stride[1])
        y = np.zeros((len(x), len(weight), len(rows), len(columns)), x.dtype)
        for r, i in enumerate(rows):
            for s, j in enumerate(columns):
                y[:, :, r, s] = np.tensordot(x[:, :, i : i + a, j : j + b], weight, ((1, 2, 3), (1, 2, 3)))
        return y

    return forward, None


@written("input channels overwrite each other")
def assigned_per_channel() -> Any:
    def forward(x: Any, weight: Any, *integers: Any) -> Any:
        y = right.forward(x, weight, *integers)
        for c in range(x.shape[1]):
            y[...] = right.forward(x[:, c : c + 1], weight[:, c : c + 1], *integers)
        return y

    return forward, None


@written("result cached by shape", ("bias", "stride"))
def cached() -> Any:
    results: dict[Any, Any] = {}

    def forward(x: Any, weight: Any, bias: Any, stride: Any, *rest: Any) -> Any:
        key = (x.shape, weight.shape, bias is None, stride)
        if key not in results:
            results[key] = right.forward(x, weight, bias, stride, *rest)
        return results[key].copy()

    return forward, None


@written("transposed: output padding appended as zeros after the bias",
         ("bias", "stride", "output_padding"), transposed=True)  # fmt: skip
def appended() -> Any:
    def forward(x: Any, weight: Any, bias: Any, *integers: Any, output_padding: Any) -> Any:
        y = right_transpose.forward(x, weight, bias, *integers)
        larger = np.zeros((*y.shape[:2], *(n + e for n, e in zip(y.shape[2:], output_padding, strict=True))), y.dtype)
        larger[:, :, : y.shape[2], : y.shape[3]] = y
        return larger

    return forward, None


@written("transposed: input dilated with trailing zeros", ("stride",), transposed=True)
def kron() -> Any:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, *rest: Any) -> Any:
        one = np.zeros(stride, x.dtype)
        one[0, 0] = 1
        around = [k - 1 for k in weight.shape[2:]]
        return right.forward(np.kron(x, one), weight.swapaxes(0, 1)[..., ::-1, ::-1], bias, (1, 1), around, *rest[1:])

    return forward, None


def same_padding(n: int, k: int, s: int, d: int) -> tuple[int, int]:
    missing = ((n + s - 1) // s - 1) * s + (k - 1) * d + 1 - n
    return max(0, missing) // 2, max(0, missing) - max(0, missing) // 2


def word_for_another(amounts: Callable[[int, int, int, int], tuple[int, int]]) -> Any:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        if padding == "causal":
            x = np.pad(x, [(0, 0), (0, 0), amounts(x.shape[2], weight.shape[2], stride[0], dilation[0])])
            padding = (0,)
        return right.forward(x, weight, bias, stride, padding, dilation, groups)

    return forward, None


CAUSAL = ("bias", "stride", "padding", "dilation", "groups", "causal")


@written("causal padding taken for same", CAUSAL, spatial_dims=1)
def causal_same() -> Any:
    return word_for_another(same_padding)


@written("causal padding taken for same_lower", CAUSAL, spatial_dims=1)
def causal_same_lower() -> Any:
    return word_for_another(lambda *numbers: same_padding(*numbers)[::-1])


@written("causal padding of dilation·k", CAUSAL, spatial_dims=1)
def causal_kernel() -> Any:
    return word_for_another(lambda n, k, s, d: (k * d, 0))


# --- Backward passes -------------------------------------------------------------------------------------------------


@written("gradient dilated with trailing zeros", ("stride",))
def kron_of_gradient() -> Any:
    def backward(g: Any, x: Any, weight: Any, stride: Any, *rest: Any) -> Any:
        one = np.zeros(stride, g.dtype)
        one[0, 0] = 1
        around = [k - 1 for k in weight.shape[2:]]
        full = right.forward(np.kron(g, one), weight.swapaxes(0, 1)[..., ::-1, ::-1], None, (1, 1), around, (1, 1), 1)
        return (full, *right.backward(g, x, weight, stride, *rest)[1:])

    return right.forward, backward


@written("gradient not dilated by the stride", ("stride",))
def full_correlation() -> Any:
    def backward(g: Any, x: Any, weight: Any, stride: Any, *rest: Any) -> Any:
        around = [k - 1 for k in weight.shape[2:]]
        full = right.forward(g, weight.swapaxes(0, 1)[..., ::-1, ::-1], None, (1, 1), around, (1, 1), 1)
        return (full, *right.backward(g, x, weight, stride, *rest)[1:])

    return right.forward, backward


@written("full correlation padded by k − 1 without dilation", ("dilation",))
def undilated_padding() -> Any:
    def backward(g: Any, x: Any, weight: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        around = [k - 1 for k in weight.shape[2:]]
        grads = right.backward(g, x, weight, stride, padding, dilation, groups)
        full = right.forward(g, weight.swapaxes(0, 1)[..., ::-1, ::-1], None, stride, around, dilation, groups)
        return full, *grads[1:]

    return right.forward, backward


@written("weight gradient of the last position only", ("stride",))
def assigned_per_position() -> Any:
    def backward(g: Any, x: Any, weight: Any, stride: Any, *rest: Any) -> Any:
        grad_x, grad_w, grad_b = right.backward(g, x, weight, stride, *rest)
        a, b = weight.shape[2:]
        for r, s in np.ndindex(*g.shape[2:]):
            window = x[:, :, r * stride[0] : r * stride[0] + a, s * stride[1] : s * stride[1] + b]
            grad_w = np.tensordot(g[:, :, r, s], window, ((0,), (0,)))
        return grad_x, grad_w, grad_b

    return right.forward, backward


@written("top padding without stride in the weight gradient", ("stride", "padding"))
def late_start() -> Any:
    def backward(g: Any, x: Any, weight: Any, stride: Any, padding: Any, *rest: Any) -> Any:
        grad_x, grad_w, grad_b = right.backward(g, x, weight, stride, padding, *rest)
        grad_w[...] = 0
        for u, v in np.ndindex(*weight.shape[2:]):
            for r in range(max(0, padding[0] - u), g.shape[2]):
                for s in range(g.shape[3]):
                    i, j = r * stride[0] - padding[0] + u, s * stride[1] - padding[1] + v
                    if i < x.shape[2] and 0 <= j < x.shape[3]:
                        grad_w[:, :, u, v] += g[:, :, r, s].T @ x[:, :, i, j]
        return grad_x, grad_w, grad_b

    return right.forward, backward


@written("(x, weight, grad_output) taken for (grad_output, x, weight)")
def other_arguments() -> Any:
    def backward(x: Any, weight: Any, g: Any, stride: Any, *rest: Any) -> Any:
        a, b = weight.shape[2:]
        grad_x, grad_w = np.zeros_like(x), np.zeros_like(weight)
        for r, s in np.ndindex(*g.shape[2:]):
            window = (slice(None), slice(None), slice(r * stride[0], r * stride[0] + a),
                      slice(s * stride[1], s * stride[1] + b))  # fmt: skip
            grad_x[window] += np.tensordot(g[:, :, r, s], weight, 1)
            grad_w += np.tensordot(g[:, :, r, s], x[window], ((0,), (0,)))
        return grad_x, grad_w, g.sum((0, 2, 3))

    return right.forward, backward


@written("gradients returned as (grad_weight, grad_bias, grad_x)", ("bias", "stride"))
def other_order() -> Any:
    def backward(*arguments: Any) -> Any:
        grad_x, grad_w, grad_b = right.backward(*arguments)
        return grad_w, grad_b, grad_x

    return right.forward, backward


@written("transposed: stride and dilation exchanged in the input gradient", ("stride", "dilation"), transposed=True)
def exchanged() -> Any:
    def backward(g: Any, x: Any, weight: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        grads = right_transpose.backward(g, x, weight, stride, padding, dilation, groups)
        return right.forward(g, weight, None, dilation, padding, stride, groups), *grads[1:]

    return right_transpose.forward, backward


# --- Their names -----------------------------------------------------------------------------------------------------


@pytest.mark.thinned(10)
@pytest.mark.parametrize(("name", "make", "settings"), WRITTEN)
def test_wrong_code_as_people_write_it_gets_the_name_of_its_mistake(name: str, make: Any, settings: Any) -> None:
    forward, backward = make()
    report = check_conv(forward, backward, **settings)
    assert not report.passed
    for failure in report.failures:
        assert name in [d.name for d in failure.diagnoses if d.rank == 1], str(report)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("sums", ["float16", "float32"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float16_is_not_taken_for_another_precision(dtype: str, sums: str) -> None:
    """Float16 results exceed TF32's bound, and could be mistaken for bfloat16."""

    class Half(Conv):
        def work(self, dtype: Any) -> Any:
            return np.dtype(sums)

    def forward(x: Any, weight: Any, bias: Any, *integers: Any) -> Any:
        halves = (None if a is None else a.astype("float16") for a in (x, weight, bias))
        return Half().forward(*halves, *integers).astype(dtype)

    report = check_conv(forward, dtype=dtype, pairs=False)
    assert report.precisions == {"y": "float16"}
    failure = next(failure for failure in report.failures if failure.check == "real values")
    assert failure.message.endswith("consistent with float16")
    if (dtype, sums) == ("float32", "float16"):
        assert [d.name for d in failure.diagnoses] == ["float32 computed in float16"]


# --- The catalogue ---------------------------------------------------------------------------------------------------


def test_the_catalogue_goes_family_by_family() -> None:
    assert [family for family in FAMILIES for m in CATALOGUE if m.family == family] == [m.family for m in CATALOGUE]


@pytest.mark.thinned(4)
@pytest.mark.parametrize(
    "mutant",
    [BY_NAME[name] for name in ("loop stops before the last window", "input gradient divided by the batch size",
                                "transposed: output not cleared where no kernel lands", "returns float64")],
    ids=lambda mutant: mutant.name.replace(" ", "-"),
)  # fmt: skip
def test_a_witness_shows_the_mistake(mutant: Mutant) -> None:
    case = witness(mutant)
    assert case.x.size <= 2
    found = []
    for conv in (mutant.make(), ConvTranspose() if mutant.transposed else Conv()):
        y = conv.forward(case.x, case.weight, case.bias, *case.integers)
        found.append((y, *conv.backward(case.grad_output, case.x, case.weight, *case.integers)))
    assert any(a.dtype != b.dtype or not np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_what_is_not_wrong_has_no_witness() -> None:
    with pytest.raises(ValueError, match="no problem shows the mistake 'none'"):
        witness(Mutant("none", "stride", "None.", "None.", Conv))


def test_random_results_differ_from_call_to_call() -> None:
    wrong = BY_NAME["random results"].make()
    x, weight = np.ones((2, 2, 5, 5), "float32"), np.ones((2, 2, 3, 3), "float32")
    integers: Any = ((1, 1), (0, 0), (1, 1), 1)
    first, second, third = (wrong.forward(x, weight, None, *integers) for _ in range(3))
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
