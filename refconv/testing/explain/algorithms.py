"""Fast algorithms with one mistake, found by comparing results: it mixes products, so that no table shows it simply.

Winograd's minimal filtering computes an axis of 3 taps with stride 1 in tiles of m outputs from m + 2 inputs:
y = Aᵀ[(G·w) ⊙ (Bᵀ·x)] (A. Lavin and S. Gray, 2015). A real Fourier transform has to be inverted with its own length.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refconv.testing.explain.linearity import draw
from refconv.testing.explain.session import Session
from refconv.testing.oracles.definition import Array

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


def fast_algorithm(session: Session) -> str | None:
    """Return the mistake of a fast algorithm that gives the results of a forward pass, as a sentence, or None."""
    if session.asked.problem.transposed or session.dtype.kind != "f":
        return None
    return winograd(session) or inverse_of_another_length(session)


def inverse_of_another_length(session: Session) -> str | None:
    """Return the sentence on a real transform of odd length whose inverse is one element shorter.

    Without a length, ``numpy.fft.irfft`` returns an even number of elements.
    """
    problem = session.asked.problem
    if problem.size[-1] < FEWEST:
        return None
    span, (before, after) = problem.dilation[-1] * (problem.kernel[-1] - 1), problem.pairs[-1]
    padded = problem.size[-1] + before + after
    rng = np.random.default_rng(21)
    x, weight = (draw(rng, array.shape, session.dtype) for array in (session.x, session.weight))
    seen = session.y(x, weight, session.bias)
    for length in (padded, padded + span):
        if length % 2 and np.allclose(_shorter(session, x, weight, length), seen, rtol=1e-4, atol=1e-3):
            return (
                f"Along the last axis it is computed by a real Fourier transform of the odd length {length}, whose "
                f"inverse is taken without that length: it has {length - 1} elements of a stretched signal."
            )
    return None


def _shorter(session: Session, x: Array, weight: Array, length: int) -> Array:
    """Return the convolution whose last axis is transformed with one length, and back with one less."""
    problem = session.asked.problem
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


def winograd(session: Session) -> str | None:
    """Return the wrong entry of a matrix that gives the results of a forward pass.

    Parameters
    ----------
    session : Session
        The functions and their problem.

    Returns
    -------
    str or None
        A sentence; None on a problem that Winograd's filtering does not compute.
    """
    problem = session.asked.problem
    axes = zip(problem.kernel, problem.stride, problem.dilation, strict=True)
    if any(axis != (3, 1, 1) for axis in axes):
        return None
    rng = np.random.default_rng(20)
    x, weight = (draw(rng, array.shape, session.dtype) for array in (session.x, session.weight))
    seen = session.y(x, weight, session.bias)
    for tile, matrices in MATRICES.items():
        for mistake, wrong in _mistakes(matrices):
            if np.allclose(_convolved(session, x, weight, tile, wrong), seen, rtol=1e-4, atol=1e-3):
                sizes = f"F({'×'.join([str(tile)] * len(problem.kernel))}, {'×'.join(['3'] * len(problem.kernel))})"
                return f"It is Winograd's {sizes}, y = Aᵀ[(G·w) ⊙ (Bᵀ·x)], with one mistake: {mistake}."
    return None


def _mistakes(matrices: dict[str, Array]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield the matrices with one mistake, and the mistake in words."""
    for name, matrix in matrices.items():
        for row, column in np.argwhere(matrix):
            for how, factor in CHANGES.items():
                wrong = matrix.copy()
                wrong[row, column] *= factor
                yield f"entry ({row}, {column}) of {name} {how}", matrices | {name: wrong}


def _convolved(session: Session, x: Array, weight: Array, tile: int, matrices: dict[str, Array]) -> Array:
    """Return the convolution in which every axis is computed by these matrices."""
    problem = session.asked.problem
    groups, d = problem.n_groups, problem.spatial_dims
    blocks = [x.reshape(x.shape[0], groups, -1, *x.shape[2:]), weight.reshape(groups, -1, *weight.shape[1:])]
    letters = ["ijl"[:d], "stu"[:d], "opq"[:d]]  # image, taps, positions
    terms = [f"ngc{letters[0]}", f"gkc{letters[1]}", *(o + t + i for i, t, o in zip(*letters, strict=True))]
    each = np.einsum("oe,et,ej->otj", *(matrices[name] for name in ("Aᵀ", "G", "Bᵀ")))
    of_axes = []
    for size, count, (before, after) in zip(problem.size, problem.output_size, problem.pairs, strict=True):
        whole = np.zeros((-(-count // tile) * tile, 3, before + size + after + tile + 2))
        for start in range(0, count, tile):
            whole[start : start + tile, :, start : start + tile + 2] = each
        of_axes.append(whole[:count, :, before : before + size])
    y: Array = np.einsum(f"{','.join(terms)}->ngk{letters[2]}", *blocks, *of_axes, optimize=True)
    return y.reshape(problem.output_shape)
