# ruff: noqa: N801  (a mutant needs no name of its own: what is wrong with it stands above it)
"""Wrong implementations, and the checks that catch each of them.

`Plain` is a small correct implementation cut into pieces; a mutant replaces one. The battery below is made of the
same kinds of checks as the other tests. It must pass `Plain` and the functions under test, and for every mutant the
named check must fail. The numbers are those of the ten common mistakes: 1 output size, 2 kernel flip, 3 stride in
col2im, 4 dilation, 5 group order, 6 bias, 7 padding gradient, 8 weight layout, 9 view or copy, 10 precision.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import refconv
from refconv.testing.oracles.bounds import COMPUTE, exact_and_bounds
from refconv.testing.oracles.definition import definition_conv, definition_conv_transpose, definition_weight_grad
from refconv.testing.oracles.problems import (
    Operands,
    Problem,
    Results,
    definition_results,
    inner,
    integer_arrays,
    normal_arrays,
    random_problem,
)
from tests.helpers import arange, assert_within

Pairs = Sequence[tuple[int, int]]


# --- A correct implementation in replaceable pieces --------------------------------------------------------------


class Plain:
    """Forward, backward and transposed convolution by one slice of the padded input per kernel tap."""

    # Sizes and positions

    def count(self, padded: int, k: int, s: int, d: int) -> int:
        return (padded - d * (k - 1) - 1) // s + 1

    def counts(self, size: Any, kernel: Any, stride: Any, padding: Pairs, dilation: Any) -> tuple[int, ...]:
        axes = zip(size, kernel, stride, padding, dilation, strict=True)
        return tuple(self.count(n + b + a, k, s, d) for n, k, s, (b, a), d in axes)

    def where(self, t: Any, outputs: Any, stride: Any, dilation: Any) -> tuple[Any, ...]:
        """Return the slices of the padded input that tap t reads."""
        axes = zip(t, outputs, stride, dilation, strict=True)
        return (..., *(slice(tj * d, tj * d + (o - 1) * s + 1, s) for tj, o, s, d in axes))

    def forward_where(self, *arguments: Any) -> tuple[Any, ...]:
        return self.where(*arguments)

    def input_where(self, *arguments: Any) -> tuple[Any, ...]:
        return self.where(*arguments)

    def weight_where(self, *arguments: Any) -> tuple[Any, ...]:
        return self.where(*arguments)

    # Padding and its adjoint

    def region(self, size: Any, padding: Pairs) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the part of the input that padding keeps, and where it lies in the padded input."""
        kept = [(max(0, -b), n - max(0, -a)) for n, (b, a) in zip(size, padding, strict=True)]
        shifted = [(lo + b, hi + b) for (lo, hi), (b, _) in zip(kept, padding, strict=True)]
        return (..., *(slice(*r) for r in kept)), (..., *(slice(*r) for r in shifted))

    def pad(self, x: Any, padding: Pairs, value: float = 0) -> Any:
        sizes = [n + b + a for n, (b, a) in zip(x.shape[2:], padding, strict=True)]
        padded = np.full((*x.shape[:2], *sizes), value, x.dtype)
        kept, place = self.region(x.shape[2:], padding)
        padded[place] = x[kept]
        return padded

    def unpad(self, padded: Any, size: Any, padding: Pairs) -> Any:
        x = np.zeros((*padded.shape[:2], *size), padded.dtype)
        kept, place = self.region(size, padding)
        x[kept] = padded[place]
        return x

    # Groups, data types, kernels

    def blocks(self, groups: int, channels: int) -> list[slice]:
        n = channels // groups
        return [slice(g * n, g * n + n) for g in range(groups)]

    def pairs(self, groups: int, c_in: int, c_out: int) -> Iterator[tuple[Any, Any, slice]]:
        """Yield (channels read, channels written, rows of the weight) of every group."""
        outs = self.blocks(groups, c_out)
        yield from zip(self.blocks(groups, c_in), outs, outs, strict=True)

    def working(self, dtype: Any) -> Any:
        return np.float32 if dtype == np.float16 else dtype

    def kernel(self, weight: Any) -> Any:
        return weight

    def conj(self, array: Any) -> Any:
        return np.conj(array)

    # The passes

    def forward(
        self, x: Any, weight: Any, bias: Any, *, stride: Any, padding: Pairs, dilation: Any, groups: int
    ) -> Any:
        size, kernel, work = x.shape[2:], weight.shape[2:], self.working(x.dtype)
        outputs = self.counts(size, kernel, stride, padding, dilation)
        padded = self.pad(x.astype(work), padding)
        reach = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(outputs, stride, dilation, kernel, strict=True)]
        missing = [max(0, r - n) for r, n in zip(reach, padded.shape[2:], strict=True)]  # only if a mutant counts wrong
        padded = np.pad(padded, [(0, 0), (0, 0), *((0, m) for m in missing)])
        y = np.zeros((len(x), len(weight), *outputs), work)
        weight = self.kernel(weight.astype(work))
        for t in np.ndindex(*kernel):
            window = padded[self.forward_where(t, outputs, stride, dilation)]
            for ins, outs, rows in self.pairs(groups, x.shape[1], len(weight)):
                y[:, outs] += np.einsum("kc,nc...->nk...", weight[rows][(..., *t)], window[:, ins])
        return self.with_bias(y, bias, kernel).astype(x.dtype)

    def with_bias(self, y: Any, bias: Any, kernel: Any) -> Any:
        return y if bias is None else y + bias.astype(y.dtype).reshape(-1, *[1] * len(kernel))

    def input_grad(
        self, g: Any, weight: Any, shape: Any, *, stride: Any, padding: Pairs, dilation: Any, groups: int
    ) -> Any:
        work, outputs = self.working(g.dtype), g.shape[2:]
        sizes = [n + b + a for n, (b, a) in zip(shape[2:], padding, strict=True)]
        padded = np.zeros((*shape[:2], *sizes), work)
        weight = self.conj(self.kernel(weight.astype(work)))
        for t in np.ndindex(*weight.shape[2:]):
            where = self.input_where(t, outputs, stride, dilation)
            for ins, outs, rows in self.pairs(groups, shape[1], len(weight)):
                part = np.einsum("kc,nk...->nc...", weight[rows][(..., *t)], g[:, outs].astype(work))
                self.add(padded, (slice(None), ins, *where[1:]), part)
        return self.unpad(padded, shape[2:], padding).astype(g.dtype)

    def add(self, padded: Any, where: Any, part: Any) -> None:
        padded[where] += part

    def weight_grad(
        self, g: Any, x: Any, kernel: Any, *, stride: Any, padding: Pairs, dilation: Any, groups: int
    ) -> Any:
        work, c_out = self.working(g.dtype), g.shape[1]
        padded = self.pad(x.astype(work), padding)
        grad = np.zeros((c_out, x.shape[1] // groups, *kernel), work)
        for t in np.ndindex(*kernel):
            window = self.conj(padded[self.weight_where(t, g.shape[2:], stride, dilation)])
            for ins, outs, rows in self.pairs(groups, x.shape[1], c_out):
                axes = (0, *range(2, g.ndim))
                grad[rows][(..., *t)] += np.tensordot(g[:, outs].astype(work), window[:, ins], (axes, axes))
        return grad.astype(g.dtype)

    def bias_grad(self, g: Any) -> Any:
        return np.sum(g, axis=(0, *range(2, g.ndim)), dtype=self.working(g.dtype)).astype(g.dtype)

    def backward(self, g: Any, x: Any, weight: Any, **options: Any) -> tuple[Any, Any, Any]:
        return (
            self.input_grad(g, weight, x.shape, **options),
            self.weight_grad(g, x, weight.shape[2:], **options),
            self.bias_grad(g),
        )

    def transposed(
        self,
        x: Any,
        weight: Any,
        bias: Any,
        *,
        stride: Any,
        padding: Pairs,
        dilation: Any,
        output_padding: Any,
        groups: int,
    ) -> Any:
        work, kernel = self.working(x.dtype), weight.shape[2:]
        axes = zip(x.shape[2:], kernel, stride, dilation, output_padding, strict=True)
        full = [(n - 1) * s + d * (k - 1) + 1 + e for n, k, s, d, e in axes]
        y = np.zeros((len(x), weight.shape[1] * groups, *full), work)
        weight = self.kernel(weight.astype(work))
        for t in np.ndindex(*kernel):
            where = self.where(t, x.shape[2:], stride, dilation)
            for outs, ins, rows in self.pairs(groups, y.shape[1], x.shape[1]):
                part = np.einsum("ck,nc...->nk...", weight[rows][(..., *t)], x[:, ins].astype(work))
                y[(slice(None), outs, *where[1:])] += part
        y = self.pad(y, [(-b, -a) for b, a in padding])
        return self.with_bias(y, bias, kernel).astype(x.dtype)


class UnderTest(Plain):
    """The functions of this package behind the same three names."""

    def forward(self, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
        return refconv.conv(x, weight, bias, **options)

    def backward(self, g: Any, x: Any, weight: Any, **options: Any) -> tuple[Any, Any, Any]:
        return refconv.conv_backward(g, x, weight, **options)

    def transposed(self, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
        return refconv.conv_transpose(x, weight, bias, **options)


# --- The battery -------------------------------------------------------------------------------------------------


@functools.cache
def drawn(transposed: bool, dtype: str = "float32") -> list[tuple[Problem, Operands, Results]]:
    rng = np.random.default_rng(20)
    found = []
    for _ in range(40 if dtype == "float32" else 10):
        problem = random_problem(
            rng,
            spatial_dims=(1, 2),
            transposed=transposed,
            groupings=("one", "uniform", "depthwise"),
            padding_forms=("pairs",),
            padding_modes=("zeros",),
            layouts=False,
        )
        operands = integer_arrays(problem, rng, dtype)
        found.append((problem, operands, definition_results(problem, operands)))
    return found


def arguments(problem: Problem) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups", *(["output_padding"] if problem.transposed else []))
    return {name: getattr(problem, name) for name in names}


def same(actual: Any, expected: Any) -> None:
    np.testing.assert_array_equal(actual, expected, strict=True)


def check_output(f: Plain) -> None:
    for problem, (x, weight, bias, _), expected in drawn(False):
        same(f.forward(x, weight, bias, **arguments(problem)), expected.y)


def gradients(f: Plain, dtype: str = "float32") -> Iterator[tuple[tuple[Any, ...], Results]]:
    for problem, (x, weight, _, g), expected in drawn(False, dtype):
        yield f.backward(g, x, weight, **arguments(problem)), expected


def check_grad_x(f: Plain) -> None:
    for grads, expected in gradients(f):
        same(grads[0], expected.grad_x)


def check_grad_weight(f: Plain) -> None:
    for grads, expected in gradients(f):
        same(grads[1], expected.grad_weight)


def check_grad_bias(f: Plain) -> None:
    for grads, expected in gradients(f):
        same(grads[2], expected.grad_bias)


def check_adjoint(f: Plain) -> None:
    """⟨g, y⟩ = ⟨grad_x, x⟩ = ⟨grad_w, w⟩: it needs no expected value, and cannot see a mistake made on both sides."""
    for problem, (x, weight, _, g), _ in drawn(False):
        product = inner(g, f.forward(x, weight, None, **arguments(problem)))
        grad_x, grad_w, _ = f.backward(g, x, weight, **arguments(problem))
        assert inner(grad_x, x) == product == inner(grad_w, weight)


def check_complex(f: Plain) -> None:
    for problem, (x, weight, bias, g), expected in drawn(False, "complex64"):
        same(f.forward(x, weight, bias, **arguments(problem)), expected.y)
        same(f.backward(g, x, weight, **arguments(problem))[0], expected.grad_x)
        same(f.backward(g, x, weight, **arguments(problem))[1], expected.grad_weight)


def check_transposed(f: Plain) -> None:
    for problem, (x, weight, bias, _), expected in drawn(True):
        same(f.transposed(x, weight, bias, **arguments(problem)), expected.y)


SIMPLE: dict[str, Any] = {"stride": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": 1}


def check_memory(f: Plain) -> None:
    """No argument is changed, no result shares memory with one, and a later call leaves earlier results alone."""
    x, w, b, g = arange((2, 2, 3)), arange((2, 2, 1)), arange((2,)), arange((2, 2, 3), start=-4)
    one = np.ones((1, 1, 1), "float32")
    calls: list[Callable[[], Any]] = [
        lambda: (f.forward(x, w, b, **SIMPLE),),
        lambda: (f.forward(x[:1, :1], one, None, **SIMPLE),),
        lambda: f.backward(g, x, w, **SIMPLE),
        lambda: (f.transposed(x, w, b, output_padding=(0,), **SIMPLE),),
    ]
    arrays = (x, w, b, g)
    before = [a.copy() for a in arrays]
    for call in calls:
        first = call()
        copies = [a.copy() for a in first]
        assert not any(np.shares_memory(r, a) for r in first for a in arrays)
        x += 1  # other data, and the results of the first call must stay as they are
        call()
        x -= 1
        for result, copy in zip(first, copies, strict=True):
            same(result, copy)
        for array, copy in zip(arrays, before, strict=True):
            same(array, copy)


def check_dtypes(f: Plain) -> None:
    """The operands' data type comes back; float16 is summed in float32 and rounded once."""
    ones = np.ones((1, 4096, 1), "float16")
    same(f.forward(ones, ones, None, **SIMPLE), np.full((1, 1, 1), 4096, "float16"))
    rng = np.random.default_rng(1)
    x, w, b, g = (rng.integers(-60, 60, s).astype("float16") for s in ((2, 3, 8), (4, 3, 3), (4,), (2, 4, 6)))
    wide = [a.astype("float64") for a in (x, w, b, g)]
    same(f.forward(x, w, b, **SIMPLE), definition_conv(*wide[:3]).astype("float16"))
    same(f.backward(g, x, w, **SIMPLE)[1], definition_weight_grad(wide[3], wide[0], (3,)).astype("float16"))
    long = np.ones((8, 1, 1024), "float16")
    same(f.backward(long, long, ones[:, :1], **SIMPLE)[2], np.full(1, 8192, "float16"))
    for dtype in ("float32", "float64", "int16"):
        assert f.forward(*(a.astype(dtype) for a in (x, w, b)), **SIMPLE).dtype == dtype
        assert {a.dtype.name for a in f.backward(*(a.astype(dtype) for a in (g, x, w)), **SIMPLE)} == {dtype}


def check_not_finite(f: Plain) -> None:
    x, w = np.array([[[1, np.nan, 2, np.inf, 3]]], "float32"), np.ones((1, 1, 3), "float32")
    same(f.forward(x, w, None, **{**SIMPLE, "dilation": (2,)}), np.array([[[6]]], "float32"))
    edge = np.array([[[np.inf, 1]]], "float32")
    y = f.forward(np.ones((1, 1, 1), "float32"), edge, None, **{**SIMPLE, "padding": ((1, 0),)})
    same(y, np.full((1, 1, 1), np.nan, "float32"))


def check_empty(f: Plain) -> None:
    for n, c in ((0, 3), (2, 0), (0, 0)):
        x, w, b = np.ones((n, c, 5), "float32"), np.ones((4, c, 3), "float32"), arange((4,))
        y = definition_conv(x, w, b)
        same(f.forward(x, w, b, **SIMPLE), y)
        grads = f.backward(y, x, w, **SIMPLE)
        assert [g.shape for g in grads] == [x.shape, w.shape, b.shape]


@functools.cache
def real() -> tuple[Problem, Operands, Results, Results]:
    problem = Problem(2, 32, 3, (6, 5), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)))
    operands = normal_arrays(problem, np.random.default_rng(2))
    return problem, operands, *exact_and_bounds(problem, operands, COMPUTE["float32"])


def check_bounds(f: Plain) -> None:
    problem, (x, weight, bias, g), exact, bounds = real()
    results = f.forward(x, weight, bias, **arguments(problem)), *f.backward(g, x, weight, **arguments(problem))
    for actual, e, b in zip(results, exact, bounds, strict=True):
        assert_within(actual, e, b)


BATTERY: dict[str, Callable[[Plain], None]] = {
    "output": check_output,
    "grad_x": check_grad_x,
    "grad_weight": check_grad_weight,
    "grad_bias": check_grad_bias,
    "adjoint": check_adjoint,
    "complex": check_complex,
    "transposed": check_transposed,
    "memory": check_memory,
    "dtypes": check_dtypes,
    "not finite": check_not_finite,
    "empty": check_empty,
    "bounds": check_bounds,
}


def failed_checks(f: Plain) -> dict[str, Exception]:
    """Run the battery; return what failed and how."""
    failed: dict[str, Exception] = {}
    for name, check in BATTERY.items():
        try:
            with np.errstate(all="ignore"):
                check(f)
        except Exception as error:
            failed[name] = error
    return failed


# --- The mutants -------------------------------------------------------------------------------------------------

MUTANTS: dict[str, tuple[type[Plain], frozenset[str]]] = {}


def mutant(family: int, name: str, *caught_by: str) -> Callable[[type[Plain]], type[Plain]]:
    """Register a wrong implementation, its family of mistakes and the checks that must catch it."""

    def register(cls: type[Plain]) -> type[Plain]:
        assert name not in MUTANTS
        MUTANTS[f"{family}: {name}"] = cls, frozenset(caught_by)
        return cls

    return register


@mutant(1, "ceil for floor", "output")
class _(Plain):
    def count(self, padded, k, s, d):
        return -(-(padded - d * (k - 1) - 1) // s) + 1


@mutant(1, "one is missing", "output")
class _(Plain):
    def count(self, padded, k, s, d):
        return max(1, (padded - d * (k - 1) - 1) // s)


@mutant(1, "width computed from height", "output")
class _(Plain):
    def counts(self, size, kernel, stride, padding, dilation):
        return (super().counts(size, kernel, stride, padding, dilation)[0],) * len(size)


@mutant(1, "padding counted once instead of twice", "output")
class _(Plain):
    def counts(self, size, kernel, stride, padding, dilation):
        return super().counts(size, kernel, stride, [(before, 0) for before, _ in padding], dilation)


def flipped(weight):
    return np.flip(weight, tuple(range(2, weight.ndim)))


@mutant(2, "kernel flipped in forward and backward", "output", "grad_x", "transposed")
class _(Plain):
    def kernel(self, weight):
        return flipped(weight)


@mutant(2, "kernel flipped everywhere: adjoint to itself", "output", "grad_weight")
class _(Plain):
    def kernel(self, weight):
        return flipped(weight)

    def weight_grad(self, *args, **options):
        return flipped(super().weight_grad(*args, **options))


@mutant(2, "kernel flipped along the last axis only", "output")
class _(Plain):
    def kernel(self, weight):
        return weight[..., ::-1] if weight.ndim > 3 else weight


@mutant(2, "weight gradient flipped", "grad_weight", "adjoint")
class _(Plain):
    def weight_grad(self, *args, **options):
        return flipped(super().weight_grad(*args, **options))


@mutant(2, "flip missing in the input gradient", "grad_x", "adjoint")
class _(Plain):
    def input_grad(self, g, weight, *args, **options):
        return super().input_grad(g, flipped(weight), *args, **options)


@mutant(3, "stride forgotten in the input gradient", "grad_x", "adjoint")
class _(Plain):
    def input_where(self, t, outputs, stride, dilation):
        return self.where(t, outputs, [1] * len(stride), dilation)


@mutant(3, "overlapping windows overwrite each other", "grad_x", "adjoint")
class _(Plain):
    def add(self, padded, where, part):
        padded[where] = part


@mutant(3, "tail that stride leaves over is dropped", "grad_x")
class _(Plain):
    def input_grad(self, g, weight, shape, *, stride, padding, dilation, groups):
        axes = zip(shape[2:], g.shape[2:], weight.shape[2:], stride, dilation, padding, strict=True)
        shorter = [min(n, (o - 1) * s + d * (k - 1) + 1 - b - a) for n, o, k, s, d, (b, a) in axes]
        steps = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return super().input_grad(g, weight, (*shape[:2], *shorter), **steps)


@mutant(3, "stride of the first axis used for all", "output")
class _(Plain):
    def counts(self, size, kernel, stride, padding, dilation):
        return super().counts(size, kernel, [stride[0]] * len(stride), padding, dilation)

    def where(self, t, outputs, stride, dilation):
        return super().where(t, outputs, [stride[0]] * len(stride), dilation)


@mutant(4, "d·k for d·(k−1)+1", "output")
class _(Plain):
    def count(self, padded, k, s, d):
        return max(1, (padded - d * k) // s + 1)


@mutant(4, "counted from zero", "output", "grad_x", "transposed")
class _(Plain):
    def where(self, t, outputs, stride, dilation):
        return super().where(t, outputs, stride, [d - 1 for d in dilation])


@mutant(4, "left out of the input gradient", "grad_x", "adjoint")
class _(Plain):
    def input_where(self, t, outputs, stride, dilation):
        return self.where(t, outputs, stride, [1] * len(dilation))


@mutant(4, "left out of the weight gradient", "grad_weight", "adjoint")
class _(Plain):
    def weight_where(self, t, outputs, stride, dilation):
        return self.where(t, outputs, stride, [1] * len(dilation))


@mutant(4, "dilated kernel inflated with zeros", "not finite")
class _(Plain):
    def forward(self, x, weight, bias, *, dilation, **options):
        spans = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        inflated = np.zeros((*weight.shape[:2], *spans), weight.dtype)
        inflated[(..., *(slice(None, None, d) for d in dilation))] = weight
        return super().forward(x, inflated, bias, dilation=[1] * len(dilation), **options)


@mutant(5, "ignored: every group reads the first channels", "output", "grad_x", "grad_weight")
class _(Plain):
    def pairs(self, groups, c_in, c_out):
        for _, outs, rows in super().pairs(groups, c_in, c_out):
            yield slice(0, c_in // groups), outs, rows


@mutant(5, "reversed", "output", "grad_x", "grad_weight")
class _(Plain):
    def pairs(self, groups, c_in, c_out):
        whole = list(super().pairs(groups, c_in, c_out))
        for (ins, _, _), (_, outs, rows) in zip(whole[::-1], whole, strict=True):
            yield ins, outs, rows


@mutant(5, "input channels interleaved", "output", "grad_x", "grad_weight")
class _(Plain):
    def pairs(self, groups, c_in, c_out):
        for g, (_, outs, rows) in enumerate(super().pairs(groups, c_in, c_out)):
            yield slice(g, None, groups), outs, rows


@mutant(5, "output channels interleaved", "output", "grad_x", "grad_weight")
class _(Plain):
    def pairs(self, groups, c_in, c_out):
        for g, (ins, _, rows) in enumerate(super().pairs(groups, c_in, c_out)):
            yield ins, slice(g, None, groups), rows


@mutant(5, "only the first group computed", "output", "grad_x", "grad_weight")
class _(Plain):
    def pairs(self, groups, c_in, c_out):
        yield next(super().pairs(groups, c_in, c_out))


@mutant(5, "only in the weight gradient: groups reversed", "grad_weight", "adjoint")
class _(Plain):
    def weight_grad(self, g, x, kernel, *, groups, **options):
        grad = super().weight_grad(g, x, kernel, groups=groups, **options)
        return np.concatenate(np.split(grad, groups)[::-1])


@mutant(6, "added once per kernel tap", "output")
class _(Plain):
    def with_bias(self, y, bias, kernel):
        return y if bias is None else super().with_bias(y, bias * int(np.prod(kernel)), kernel)


@mutant(6, "gradient is a mean over the batch", "grad_bias")
class _(Plain):
    def bias_grad(self, g):
        return np.mean(g, axis=0).sum(axis=tuple(range(1, g.ndim - 1))).astype(g.dtype)


@mutant(6, "gradient of the first position only", "grad_bias")
class _(Plain):
    def bias_grad(self, g):
        return g[(..., *[0] * (g.ndim - 2))].sum(0)


@mutant(6, "gradient of the first sample only", "grad_bias")
class _(Plain):
    def bias_grad(self, g):
        return super().bias_grad(g[:1])


@mutant(6, "first group's bias for every group", "output")
class _(Plain):
    def forward(self, x, weight, bias, *, groups, **options):
        if bias is not None:
            bias = np.tile(bias[: len(bias) // groups], groups)
        return super().forward(x, weight, bias, groups=groups, **options)


@mutant(7, "[p:-p] is empty where p is zero", "grad_x")
class _(Plain):
    def unpad(self, padded, size, padding):
        cropped = padded[(..., *(slice(before, -after) for before, after in padding))]
        grad = np.zeros((*padded.shape[:2], *size), padded.dtype)
        grad[tuple(slice(0, n) for n in cropped.shape)] = cropped
        return grad


@mutant(7, "crops what comes after before", "grad_x", "adjoint")
class _(Plain):
    def unpad(self, padded, size, padding):
        return super().unpad(padded, size, [(after, before) for before, after in padding])


@mutant(7, "before and after exchanged everywhere", "output", "grad_x", "grad_weight")
class _(Plain):
    def region(self, size, padding):
        return super().region(size, [(after, before) for before, after in padding])


@mutant(7, "the axes' paddings exchanged", "output")
class _(Plain):
    def forward(self, *args, padding, **options):
        return super().forward(*args, padding=padding[::-1], **options)


@mutant(7, "an infinite weight is not multiplied with padded zeros", "not finite")
class _(Plain):
    def forward(self, x, weight, bias, **options):
        if np.isfinite(weight).all():
            return super().forward(x, weight, bias, **options)
        finite = np.where(np.isfinite(weight), weight, 0)
        return super().forward(x, finite, bias, **options)


@mutant(8, "weight reshaped where it should be transposed", "grad_x", "adjoint")
class _(Plain):
    def input_grad(self, g, weight, shape, *, groups, **options):
        k, c = len(weight) // groups, weight.shape[1]
        mixed = [w.reshape(c, k, *w.shape[2:]).swapaxes(0, 1) for w in np.split(weight, groups)]
        return super().input_grad(g, np.concatenate(mixed), shape, groups=groups, **options)


@mutant(8, "batch and channels mixed by a reshape", "output")
class _(Plain):
    def forward(self, *args, **options):
        y = super().forward(*args, **options)
        return np.ascontiguousarray(y.swapaxes(0, 1)).reshape(y.shape)


@mutant(8, "kernel axes exchanged", "output", "grad_x")
class _(Plain):
    def kernel(self, weight):
        return weight.swapaxes(-1, -2) if weight.ndim > 3 and weight.shape[-1] == weight.shape[-2] else weight


@mutant(8, "transposed: group slices run over output channels", "transposed")
class _(Plain):
    def transposed(self, x, weight, bias, *, groups, **options):
        c, k = weight.shape[:2]
        mixed = weight.reshape(k, c, *weight.shape[2:]).swapaxes(0, 1) if groups > 1 else weight
        return super().transposed(x, mixed, bias, groups=groups, **options)


@mutant(8, "transposed: one output channel per group", "transposed")
class _(Plain):
    def transposed(self, x, weight, bias, *, groups, **options):
        y = super().transposed(x, weight, bias, groups=groups, **options)
        if groups > 1:
            y[:, groups:] = 0
        return y


@mutant(8, "transposed: output padding appends zeros", "transposed")
class _(Plain):
    def transposed(self, x, weight, bias, *, output_padding, **options):
        y = super().transposed(x, weight, bias, output_padding=[0] * len(output_padding), **options)
        return np.pad(y, [(0, 0), (0, 0), *((0, e) for e in output_padding)])


@mutant(9, "writes into the input", "memory")
class _(Plain):
    def forward(self, x, weight, bias, **options):
        y = super().forward(x, weight, bias, **options)
        x[...] = np.maximum(x, 0) + 1
        return y


@mutant(9, "scales the upstream gradient in place", "memory")
class _(Plain):
    def backward(self, g, x, weight, **options):
        grads = super().backward(g, x, weight, **options)
        g *= 2
        return grads


@mutant(9, "returns a view of the input for the identity", "memory")
class _(Plain):
    def forward(self, x, weight, bias, **options):
        identity = bias is None and weight.size == 1 and weight.flat[0] == 1 and not np.any(options["padding"])
        return x if identity and max(options["stride"]) == 1 else super().forward(x, weight, bias, **options)


@mutant(9, "returns the same buffer at every call", "memory")
class _(Plain):
    def __init__(self):
        self.buffers = {}

    def forward(self, *args, **options):
        y = super().forward(*args, **options)
        buffer = self.buffers.setdefault((y.shape, y.dtype), np.empty_like(y))
        buffer[...] = y
        return buffer


@mutant(10, "accumulates float16 in float16", "dtypes")
class _(Plain):
    def working(self, dtype):
        return dtype


@mutant(10, "returns float64", "dtypes")
class _(Plain):
    def forward(self, x, weight, bias, **options):
        return super().forward(x, weight, bias, **options).astype("float64")


@mutant(10, "gradient by finite differences in float32", "grad_weight")
class _(Plain):
    def backward(self, g, x, weight, **options):
        grad_x, _, grad_b = super().backward(g, x, weight, **options)
        grad_w, base = np.zeros_like(weight), self.forward(x, weight, None, **options)
        for index in np.ndindex(weight.shape):
            moved = weight.copy()
            moved[index] += 1e-3
            difference = (self.forward(x, moved, None, **options) - base) / np.asarray(1e-3, weight.dtype)
            grad_w[index] = np.sum(g * difference)
        return grad_x, grad_w, grad_b


@mutant(10, "rounds its operands to 10 bits", "bounds")
class _(Plain):
    def kernel(self, weight):
        if weight.dtype.kind == "c":
            return weight
        with np.errstate(over="ignore"):
            return weight.astype("float16").astype(weight.dtype)


@mutant(0, "only the first sample", "output", "grad_weight")
class _(Plain):
    def pad(self, x, padding, value=0):
        padded = super().pad(x, padding, value)
        padded[1:] = 0
        return padded


@mutant(0, "weight gradient is a mean over the batch", "grad_weight", "adjoint")
class _(Plain):
    def weight_grad(self, g, *args, **options):
        return super().weight_grad(g, *args, **options) / np.asarray(max(1, len(g)), g.dtype)


@mutant(0, "pads with ones", "output")
class _(Plain):
    def pad(self, x, padding, value=0):
        return super().pad(x, padding, 1)


@mutant(0, "kernel conjugated", "complex")
class _(Plain):
    def forward(self, x, weight, bias, **options):
        return super().forward(x, np.conj(weight), bias, **options)


@mutant(0, "gradients not conjugated", "complex")
class _(Plain):
    def conj(self, array):
        return array


@mutant(0, "an empty result has the input's shape", "empty")
class _(Plain):
    def forward(self, x, weight, bias, **options):
        return np.zeros_like(x) if x.size == 0 else super().forward(x, weight, bias, **options)


# --- The tests ---------------------------------------------------------------------------------------------------


def raise_first(failed: dict[str, Exception]) -> None:
    for name, error in failed.items():
        raise AssertionError(f"the check {name!r} fails") from error


def test_the_battery_passes_a_correct_implementation() -> None:
    raise_first(failed_checks(Plain()))


def test_the_battery_passes_the_functions_under_test() -> None:
    raise_first(failed_checks(UnderTest()))


def test_the_transposed_oracle_agrees_with_plain() -> None:
    for problem, (x, weight, bias, _), _ in drawn(True):
        same(
            definition_conv_transpose(x, weight, bias, **arguments(problem)),
            Plain().transposed(x, weight, bias, **arguments(problem)),
        )


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_caught(name: str) -> None:
    cls, expected = MUTANTS[name]
    failed = failed_checks(cls())
    missed = expected - set(failed)
    assert not missed, f"not caught by {sorted(missed)}, but by {sorted(failed)}"
    crashed = {check for check in expected if not isinstance(failed[check], AssertionError)}
    assert not crashed, f"the checks {sorted(crashed)} fail only because the mutant raises"


def test_every_family_of_mistakes_has_mutants() -> None:
    families = [int(name.split(":")[0]) for name in MUTANTS]
    assert set(families) == set(range(11))  # 0 is everything else
    assert len(families) >= 50


def test_an_adjoint_identity_alone_does_not_see_a_wrong_forward() -> None:
    """Why the value oracle stands beside it: a kernel flipped everywhere is adjoint to itself."""
    failed = failed_checks(MUTANTS["2: kernel flipped everywhere: adjoint to itself"][0]())
    assert "output" in failed
    assert "adjoint" not in failed
