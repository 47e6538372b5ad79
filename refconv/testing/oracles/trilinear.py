r"""The value oracle of the checking kit: one trilinear form, written with 0/1 tensors.

Along one axis, let S[o, t, i] be 1 where kernel tap t at output position o reads input position i, else 0:

    S[o, t, i] = [ the padded axis shows element i at o·stride + t·dilation − before ]

Then every pass of a convolution, transposed or not, is one of the three partial derivatives of

    F(y, w, x) = Σ  y[n, k, o] · w[k, c, t] · x[n, c, i] · S₁[o₁, t₁, i₁] · … · S_d[o_d, t_d, i_d]

that is, the same sum without one of its three arguments. Padding, stride, dilation and cropping are all in S: zeros
around the input are positions that show no i. This is fast enough to check hundreds of problems a second, and shares
neither code nor method with the implementation. The tests compare it with the loops of
:mod:`refconv.testing.oracles.definition`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refconv.testing.oracles.definition import Array, Index, Weight, source
from refconv.testing.oracles.problems import Operands, Problem, Results

Lists = Sequence[tuple[Sequence[int], Sequence[int]]]


@functools.lru_cache(maxsize=4096)
def reads(outputs: int, kernel: int, size: int, stride: int, dilation: int, before: int, mode: str) -> Array:
    """Return S[o, t, i] of one axis as a float64 array of zeros and ones.

    >>> reads(2, 2, 3, 1, 1, 0, "zeros")[1]
    array([[0., 1., 0.],
           [0., 0., 1.]])
    """
    o, t, i = np.ogrid[:outputs, :kernel, :size]
    shown = o * stride + t * dilation - before
    if mode != "zeros":
        shown = np.vectorize(lambda position: source(position, size, mode), otypes=[int])(shown)
    table = (shown == i).astype(np.float64)
    table.flags.writeable = False
    return table


@dataclass(frozen=True)
class Form:
    """F for one problem. The methods y, w and x leave out the argument of that name; x is given as its windows.

    For each group, ``lists`` has the channels of the image x that it reads and the channels of the positions y that it
    writes, and ``weights`` has one array (channels of y, channels of x, k1, …, kd).
    """

    size: Index  # of the image
    kernel: Index
    outputs: Index  # positions
    stride: Index
    dilation: Index
    before: Index
    mode: str
    lists: Lists
    c_image: int
    c_positions: int

    def _tables(self) -> list[Array]:
        axes = (self.outputs, self.kernel, self.size, self.stride, self.dilation, self.before)
        return [reads(*axis, self.mode) for axis in zip(*axes, strict=True)]

    def windows(self, x: Array) -> Array:
        """Return every window: (N, C, i1 … id) -> (N, C, t1 … td, o1 … od)."""
        d = len(self.size)
        for table in self._tables():
            x = np.tensordot(x, table.astype(x.dtype), axes=(2, 2))  # removes i1, appends (o, t)
        return x.transpose(0, 1, *range(3, 3 + 2 * d, 2), *range(2, 2 + 2 * d, 2))

    def _columns(self, windows: Array, channels: Sequence[int]) -> Array:
        """Windows (N, C, t…, o…) -> (N, channels·T, L)."""
        part = windows[:, list(channels)]
        return part.reshape(len(part), len(channels) * _product(self.kernel), _product(self.outputs))

    def y(self, weights: Sequence[Array], windows: Array) -> Array:
        """(N, K, o1 … od)."""
        total = np.zeros((len(windows), self.c_positions, *self.outputs), windows.dtype)
        for (ins, outs), w in zip(self.lists, weights, strict=True):
            matrix = w.reshape(len(outs), len(ins) * _product(self.kernel))
            part = matrix @ self._columns(windows, ins)
            total[:, list(outs)] += part.reshape(len(windows), len(outs), *self.outputs)
        return total

    def w(self, y: Array, windows: Array) -> list[Array]:
        """Return one array (K, C, k1 … kd) per group."""
        grads = []
        for ins, outs in self.lists:
            positions = y[:, list(outs)].reshape(len(y), len(outs), _product(self.outputs))
            product = np.tensordot(positions, self._columns(windows, ins), axes=((0, 2), (0, 2)))
            grads.append(product.reshape(len(outs), len(ins), *self.kernel))
        return grads

    def x(self, y: Array, weights: Sequence[Array]) -> Array:
        """(N, C, i1 … id)."""
        d = len(self.size)
        columns = np.zeros((len(y), self.c_image, *self.kernel, *self.outputs), y.dtype)
        for (ins, outs), w in zip(self.lists, weights, strict=True):
            positions = y[:, list(outs)].reshape(len(y), len(outs), _product(self.outputs))
            matrix = w.reshape(len(outs), len(ins) * _product(self.kernel))
            part = matrix.T @ positions
            columns[:, list(ins)] += part.reshape(len(y), len(ins), *self.kernel, *self.outputs)
        for table in self._tables():  # removes t1 and o1, appends i1
            columns = np.tensordot(columns, table.astype(y.dtype), axes=((2, 2 + d), (1, 0)))
            d -= 1
        return columns


def _product(numbers: Sequence[int]) -> int:
    return functools.reduce(lambda a, b: a * b, numbers, 1)


def form_of(problem: Problem) -> Form:
    """Return the trilinear form of a problem."""
    d = problem.spatial_dims
    lists = [(outs, ins) for ins, outs in problem.lists] if problem.transposed else problem.lists
    size, outputs = problem.size, problem.output_size
    c_image, c_positions = problem.c_in, problem.c_out
    if problem.transposed:  # it writes into the image
        size, outputs, c_image, c_positions = outputs, size, c_positions, c_image
    return Form(
        size=size,
        kernel=problem.kernel,
        outputs=outputs,
        stride=problem.stride[:d],
        dilation=problem.dilation[:d],
        before=tuple(before for before, _ in problem.pairs),
        mode=problem.padding_mode,
        lists=lists,
        c_image=c_image,
        c_positions=c_positions,
    )


def split_weight(problem: Problem, weight: Weight) -> list[Array]:
    """Return one weight array per group; a single array contains them in order along its first axis."""
    return np.split(weight, len(problem.lists)) if isinstance(weight, np.ndarray) else list(weight)


def exact_results(problem: Problem, operands: Operands, parts: Sequence[str] = Results._fields) -> Results:
    """Return output and gradients in the operands' data type, which must be wide enough; None if not in `parts`.

    Examples
    --------
    >>> problem = Problem(1, 1, 1, (3,), (2,), (1,), (1,), ((0, 0),), bias=False)
    >>> x, weight, g = np.array([[[1.0, 2, 3]]]), np.array([[[10.0, 1]]]), np.array([[[1.0, 1]]])
    >>> results = exact_results(problem, Operands(x, weight, None, g))
    >>> results.y, results.grad_x
    (array([[[12., 23.]]]), array([[[10., 11.,  1.]]]))
    """
    form = form_of(problem)
    x, g = problem.to_plain(operands.x), problem.to_plain(operands.grad_output)
    weights = split_weight(problem, operands.weight)
    windows: Any = None
    y = grad_x = grad_weight = grad_bias = None
    image = g if problem.transposed else x
    if "grad_weight" in parts or ("grad_x" if problem.transposed else "y") in parts:
        windows = form.windows(image)
    if "y" in parts:
        y = form.x(x, weights) if problem.transposed else form.y(weights, windows)
        if operands.bias is not None:
            y = y + operands.bias.reshape(-1, *(1,) * problem.spatial_dims)
        y = problem.from_plain(y)
    if "grad_x" in parts:
        conjugated = [w.conj() for w in weights]
        grad_x = problem.from_plain(form.y(conjugated, windows) if problem.transposed else form.x(g, conjugated))
    if "grad_weight" in parts:
        grads = form.w(x.conj(), windows) if problem.transposed else form.w(g, windows.conj())
        grad_weight = np.concatenate(grads) if isinstance(problem.groups, int) else tuple(grads)
    if "grad_bias" in parts:
        grad_bias = g.sum((0, *range(2, g.ndim)))
    return Results(y, grad_x, grad_weight, grad_bias)
