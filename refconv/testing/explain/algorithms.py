"""Fast algorithms with one mistake, found by comparing results: it mixes products, so that no table shows it simply.

Winograd's minimal filtering computes an axis of 3 taps with stride 1 in tiles of m outputs from m + 2 inputs:
y = Aᵀ[(G·w) ⊙ (Bᵀ·x)] (A. Lavin and S. Gray, 2015). A real Fourier transform has to be inverted with its own length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refconv.testing.explain.blocks import subsets
from refconv.testing.explain.linearity import draw
from refconv.testing.explain.session import Session
from refconv.testing.explain.table import line_triples
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Operands
from refconv.testing.oracles.trilinear import exact_results

MATRICES: dict[int, dict[str, Array]] = {
    2: {
        "Aᵀ": np.array([[1, 1, 1, 0], [0, 1, -1, -1]], float),
        "G": np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
        "Bᵀ": np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], float),
    },
    4: {
        "Aᵀ": np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], float),
        "G": np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
        "Bᵀ": np.array(
            [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
             [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]], float,
        ),
    },
}  # fmt: skip
"""By the number of outputs of a tile."""

FEWEST = 4
"""The fewest elements of an axis whose results show such a transform."""
CHANGES = {"has the wrong sign": -1, "is 0": 0, "is doubled": 2, "is halved": 0.5}


def fast_algorithm(session: Session, part: str) -> str | None:
    """Return the mistake of a fast algorithm that gives the results of a part, as a sentence, or None."""
    if session.asked.problem.transposed or session.dtype.kind != "f":
        return None
    rng = np.random.default_rng(20)
    x, weight, g = (draw(rng, array.shape, session.dtype) for array in (session.x, session.weight, session.g))
    seen = session.y(x, weight, session.bias) if part == "forward" else session.gradient(part, g, x, weight)
    operands = Operands(x, weight, None, g)
    return winograd(session, part, operands, seen) or inverse_of_another_length(session, part, operands, seen)


def inverse_of_another_length(session: Session, part: str, operands: Operands, seen: Array) -> str | None:
    """Return the sentence on a real transform of odd length whose inverse is one element shorter.

    Without a length, ``numpy.fft.irfft`` returns an even number of elements.
    """
    problem = session.asked.problem
    if problem.size[-1] < FEWEST or part == "grad_weight":
        return None
    span, (before, after) = problem.dilation[-1] * (problem.kernel[-1] - 1), problem.pairs[-1]
    padded = problem.size[-1] + before + after
    computed = _shorter if part == "forward" else _shorter_gradient
    for length in (padded, padded + span):
        if length % 2 and _agree(computed(session, operands, length), seen):
            return (
                f"Along the last axis it is computed by a real Fourier transform of the odd length {length}, whose "
                f"inverse is taken without that length: it has {length - 1} elements of a stretched signal."
            )
    return None


def _agree(due: Array, seen: Array) -> bool:
    return due.shape == seen.shape and np.allclose(due, seen, rtol=1e-4, atol=1e-3)


def _shorter_gradient(session: Session, operands: Operands, length: int) -> Array:
    """Return the gradient of x whose last axis is transformed with one length, and back with one less."""
    problem = session.asked.problem
    size = tuple(n + before + after for n, (before, after) in zip(problem.size, problem.pairs, strict=True))
    whole = replace(problem, size=size, padding=((0, 0),) * len(size), bias=False)
    wide = operands._replace(x=np.zeros(whole.x_shape)).mapped(lambda array: array.astype(float))
    gradient = exact_results(whole, wide, ("grad_x",)).grad_x
    longer = np.pad(gradient, [(0, 0)] * (gradient.ndim - 1) + [(0, length - size[-1])])
    stretched = np.zeros(longer.shape)
    stretched[..., : length - 1] = np.fft.irfft(np.fft.rfft(longer))
    inside: Any = [slice(before, before + n) for n, (before, _) in zip(problem.size, problem.pairs, strict=True)]
    result: Array = stretched[(..., *inside)]
    return result


def _shorter(session: Session, operands: Operands, length: int) -> Array:
    """Return the convolution whose last axis is transformed with one length, and back with one less."""
    problem, x, weight = session.asked.problem, np.asarray(operands.x), np.asarray(operands.weight)
    pads = [(0, 0), (0, 0), *problem.pairs]
    pads[-1] = pads[-1][0], length - problem.size[-1] - pads[-1][0]
    padded, stride = np.pad(x, pads), problem.stride[-1]
    shape = problem.output_shape
    if (shape[-1] - 1) * stride >= length - 1:
        return np.full(shape, np.nan)
    whole = np.zeros((*shape[:-1], length))
    blocks = weight.reshape(problem.n_groups, -1, *weight.shape[1:])
    for tap in np.ndindex(*problem.kernel):
        shifted = np.roll(padded, -tap[-1] * problem.dilation[-1], axis=-1)
        rows = zip(tap[:-1], problem.dilation, problem.stride, shape[2:-1], strict=False)
        at = tuple(slice(t * dil, t * dil + (count - 1) * s + 1, s) for t, dil, s, count in rows)
        part = shifted[(slice(None), slice(None), *at)]
        grouped = part.reshape(part.shape[0], problem.n_groups, -1, *part.shape[2:])
        whole += np.einsum("ngc...,gkc->ngk...", grouped, blocks[(..., *tap)]).reshape(whole.shape)
    return np.fft.irfft(np.fft.rfft(whole))[..., : (shape[-1] - 1) * stride + 1 : stride]


def winograd(session: Session, part: str, operands: Operands, seen: Array) -> str | None:
    """Return the mistake in a matrix that gives the results of a part.

    Parameters
    ----------
    session : Session
        The functions and their problem.
    part : str
        "forward", "grad_x" or "grad_weight".
    operands : Operands
        The arrays of a call.
    seen : numpy.ndarray
        Its result.

    Returns
    -------
    str or None
        A sentence; None on a problem that Winograd's filtering does not compute.
    """
    problem = session.asked.problem
    steps = zip(problem.kernel, problem.stride, problem.dilation, strict=True)
    fitting = {axis for axis, numbers in enumerate(steps) if numbers == (3, 1, 1)}
    for axes in subsets(problem.spatial_dims)[::-1]:
        for tile, matrices in MATRICES.items() if fitting.issuperset(axes) else ():
            for mistake, wrong in _mistakes(matrices):
                if _agree(_convolved(session, part, operands, axes, tile, wrong), seen):
                    sizes = f"F({'×'.join([str(tile)] * len(axes))}, {'×'.join(['3'] * len(axes))})"
                    adjoint = "" if part == "forward" else "the adjoint of "
                    one = f" along ax{'e' if len(axes) > 1 else 'i'}s {' and '.join(map(str, axes))}"
                    along = one if len(axes) < problem.spatial_dims else ""
                    return (
                        f"It is {adjoint}Winograd's {sizes}{along}, y = Aᵀ[(G·w) ⊙ (Bᵀ·x)], with one mistake: "
                        f"{mistake}."
                    )
    return None


def _mistakes(matrices: dict[str, Array]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield the matrices with one mistake, in an entry or in the middle rows of G, and the mistake in words."""
    halves = np.array([[1], [2], [2], [1]])
    if len(matrices["G"]) == len(halves):
        yield "the middle rows of G lack their factor 1/2", matrices | {"G": matrices["G"] * halves}
    for name, matrix in matrices.items():
        for row, column in np.argwhere(matrix):
            for how, factor in CHANGES.items():
                wrong = matrix.copy()
                wrong[row, column] *= factor
                yield f"entry ({row}, {column}) of {name} {how}", matrices | {name: wrong}


def _convolved(
    session: Session, part: str, operands: Operands, axes: Sequence[int], tile: int, matrices: dict[str, Array]
) -> Array:
    """Return a part in which some axes are computed by these matrices."""
    problem = session.asked.problem
    groups, d = problem.n_groups, problem.spatial_dims
    x, weight, _, g = map(np.asarray, operands)
    letters = ["ijl"[:d], "stu"[:d], "opq"[:d]]  # image, taps, positions
    blocks = {
        f"ngc{letters[0]}": x.reshape(x.shape[0], groups, -1, *x.shape[2:]),
        f"gkc{letters[1]}": weight.reshape(groups, -1, *weight.shape[1:]),
        f"ngk{letters[2]}": g.reshape(g.shape[0], groups, -1, *g.shape[2:]),
    }
    out = list(blocks)[("grad_x", "grad_weight", "forward").index(part)]
    blocks.pop(out)
    terms = [*blocks, *(o + t + i for i, t, o in zip(*letters, strict=True))]
    each = np.einsum("oe,et,ej->otj", *(matrices[name] for name in ("Aᵀ", "G", "Bᵀ")))
    of_axes = []
    sizes = zip(problem.size, problem.output_size, problem.pairs, strict=True)
    for axis, (size, count, (before, after)) in enumerate(sizes):
        if axis not in axes:
            right = np.zeros((count, problem.kernel[axis], size))
            right[tuple(line_triples(session.asked.lines[axis], *right.shape).T)] = 1
            of_axes.append(right)
            continue
        whole = np.zeros((-(-count // tile) * tile, 3, before + size + after + tile + 2))
        for start in range(0, count, tile):
            whole[start : start + tile, :, start : start + tile + 2] = each
        of_axes.append(whole[:count, :, before : before + size])
    result: Array = np.einsum(f"{','.join(terms)}->{out}", *blocks.values(), *of_axes, optimize=True)
    return result.reshape({"forward": problem.output_shape, "grad_x": x.shape}.get(part, weight.shape))
