"""The matrix product of linear layers: on NumPy in blocks that threads share."""

from __future__ import annotations

from refconv.arrays import Array, array_namespace, matmul, plain
from refconv.engine import is_fast, spread
from refconv.integers import cut

BLOCK_MULTIPLY_ADDS = 2**26
"""Target size of a block of a matrix product: milliseconds on one core, much more than starting a thread takes."""

SMALL_MULTIPLY_ADDS = 2**17
"""Up to this size BLAS starts no threads of its own, so its threads need no limit."""


def product(a: Array, b: Array) -> Array:
    """Return the matrix product a·b: (M, K), (K, N) -> (M, N), on NumPy in blocks spread over threads.

    The shape alone determines the blocks: blocks of rows if the result is taller than wide, else of columns. Each block
    is one product on one thread. So any number of workers gives the same bits.
    """
    xp = array_namespace(a, b)
    if not is_fast(xp):
        return matmul(xp, a, b)
    a, b = plain(a), plain(b)
    rows, columns = a.shape[0], b.shape[1]
    long, short = max(rows, columns), min(rows, columns)
    if long * short * a.shape[1] <= SMALL_MULTIPLY_ADDS:
        return matmul(xp, a, b)
    length = max(1, BLOCK_MULTIPLY_ADDS // (short * a.shape[1]))
    y = xp.empty((rows, columns), dtype=xp.result_type(a, b))

    def work(part: slice) -> None:
        if rows > columns:
            matmul(xp, a[part, :], b, out=y[part, :])
        else:
            matmul(xp, a, b[:, part], out=y[:, part])

    block_bytes = (min(length, long) * (short + a.shape[1]) + short * a.shape[1]) * a.dtype.itemsize
    spread(xp, work, cut(long, length), block_bytes)
    return y
