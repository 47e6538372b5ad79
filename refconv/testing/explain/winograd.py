"""Winograd's minimal filtering with one mistake in its matrices, found by comparing results.

An axis of 3 taps with stride 1 is computed in tiles of m outputs from m + 2 inputs: y = Aᵀ[(G·w) ⊙ (Bᵀ·x)]. Every wrong
entry mixes several products, so that no table of products shows it simply. (A. Lavin and S. Gray, 2015.)
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

CHANGES = {"has the wrong sign": -1, "is 0": 0, "is doubled": 2, "is halved": 0.5}


def winograd(session: Session) -> str | None:
    """Return which entry of which matrix is wrong, if one mistake gives the results of a forward pass.

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
    if problem.transposed or session.dtype.kind != "f" or any(axis != (3, 1, 1) for axis in axes):
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
