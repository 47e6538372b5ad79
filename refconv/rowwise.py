r"""im2col of rows: along the first spatial axis columns are sliced, not copied.

Letters: as in :mod:`refconv.conv`; T' = k2·…·kd and L' = o2·…·od leave out the first axis, whose stride is s1 and
dilation d1.

im2col copies an element once for each of its T taps. Copied for the T' taps of the other axes alone,

    R[(t', c), p, l'] = P[c, p, l'·stride + t'·dilation]

already holds the columns of every tap t1 of the first axis: they are the rows o1·s1 + t1·d1 of R. With stride 1 these
lie next to one another, so a matrix product reads them where they are,

    y = Σ_{t1}  w[:, t1] · R[:, t1·d1 : t1·d1 + o1, :]                     [k,t'c] [t'c,l] -> [k,l]

and with a larger stride they do too once R holds its rows phase by phase, p = s1·m + r. So im2col copies k1 times less,
for k1 products to be summed instead of one.

M. Cho, D. Brand, "MEC: Memory-efficient Convolution for Deep Neural Network", ICML 2017.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from refconv.arrays import Array, Namespace, add_to, matmul, runs_on_cpu_threads, sum_axis, windows
from refconv.shapes import Convolution, Geometry

COPY, ADD, MULTIPLY, NARROW, CALL = 2.0, 1.0, 0.075, 30, 10_000
"""Relative times for an element that im2col copies, for one of a product that is added to a sum, and for a
multiply-add, which takes 1 + NARROW / rows times as long if the product has few rows; and for a product apart, however
small: about so on one core of 2025."""


LARGEST = 2**22
"""Elements of a weight that is copied by its taps; a larger one stays as it is."""


LOCKED = 500
"""NumPy holds the interpreter's lock, on which other threads wait, in a call that gives fewer elements than this."""


@functools.lru_cache(maxsize=256)
def is_faster_for_images(call: Convolution) -> bool:
    """Tell whether columns of rows are the faster ones where the sum over all taps is wanted."""
    weights = sum(block.count * block.in_size * block.out_size for block in call.groups.blocks)
    if weights * math.prod(call.geometry.kernel) > LARGEST:
        return False
    return _gain(call, lambda image, positions, taps: ADD * positions * taps)


@functools.lru_cache(maxsize=256)
def is_faster_for_kernels(call: Convolution) -> bool:
    """Tell whether columns of rows are the faster ones where a product is wanted for each tap, with fewer rows."""
    # C·T·K multiply-adds, in products of T'·C instead of T·C rows: NARROW·(1 / (T'·C) − 1 / (T·C)) times as long more.
    return _gain(call, lambda image, positions, taps: MULTIPLY * NARROW * positions * (taps - 1))


def _gain(call: Convolution, cost: Callable[[int, int, int], float]) -> bool:
    """Tell whether fewer copies gain more than cost(C, K, k1) for every output position of each group."""
    geo = call.geometry
    if geo.kernel[0] == 1 or 0 in geo.output:
        return False
    saved = math.prod(geo.kernel) - math.prod(geo.kernel[1:]) * sum(_phase_rows(geo)) / geo.output[0]
    gain = 0.0
    for block in call.groups.blocks:
        image, positions = (block.out_size, block.in_size) if call.transposed else (block.in_size, block.out_size)
        gain += block.count * (COPY * image * saved - cost(image, positions, geo.kernel[0]))
    return gain * call.batch * math.prod(geo.output) > CALL * (geo.kernel[0] - 1)


def split_kernels(xp: Namespace, kernels: Array) -> tuple[list[Array], Array, Array]:
    """Turn kernels (G, K, C, k1, …, kd) into one array (G, K, T'·C) for each tap of the first axis, still to be filled.

    Returned after them are where, and with what: two views of one shape (k1, G, …).
    """
    count, K, C, k1, *k = kernels.shape
    others, rows = range(4, kernels.ndim), math.prod(k) * C
    # A copy, since BLAS takes no negative strides, in the order of what lies close together: BLAS transposes it.
    if 1 in (K, C) or kernels.strides[2] <= kernels.strides[1]:
        ordered = xp.permute_dims(kernels, (3, 0, 1, *others, 2))
        by_tap = xp.empty(ordered.shape, dtype=kernels.dtype)
        matrices = xp.reshape(by_tap, (k1, count, K, rows))
    else:
        ordered = xp.permute_dims(kernels, (3, 0, *others, 2, 1))
        by_tap = xp.empty(ordered.shape, dtype=kernels.dtype)
        matrices = xp.matrix_transpose(xp.reshape(by_tap, (k1, count, rows, K)))
    return list(matrices), by_tap, ordered


def write_by_tap(xp: Namespace, kernels: Array, products: Array) -> None:
    """Write products (k1, G, T'·C, K), one for each tap of the first axis, to kernels (G, K, C, T)."""
    count, K, C, taps = kernels.shape
    k1 = products.shape[0]
    by_tap = xp.permute_dims(xp.reshape(products, (k1, count, taps // k1, C, K)), (1, 4, 3, 0, 2))
    xp.reshape(kernels, by_tap.shape, copy=False)[...] = by_tap


def gather_row_columns(
    xp: Namespace, padded: Array, geo: Geometry, groups: int = 1, *, over_batch: bool = False
) -> Array | list[Array]:
    """Turn padded input (N, G·C, P1, …, Pd) into columns (N, G, T'·C, L) for each tap of the first axis.

    With `over_batch` they are (G, T'·C, o1·N·L'): the batch is more columns. They are one array if the stride is 1.
    """
    d, step = len(geo.kernel), geo.stride[0]
    batch, channels = padded.shape[0], padded.shape[1] // groups
    lead = (groups,) if over_batch else (batch, groups)
    row = math.prod(geo.output[1:]) * (batch if over_batch else 1)
    phases = []
    for phase, rows in enumerate(_phase_rows(geo)):
        view = windows(
            xp,
            padded[:, :, phase::step, ...],
            (1, *geo.kernel[1:]),
            (1, *geo.stride[1:]),
            (1, *geo.dilation[1:]),
            (rows, *geo.output[1:]),
        )  # (N, G·C, 1, k2…kd, rows, o2…od)
        view = xp.reshape(view, (batch, groups, channels, *geo.kernel[1:], rows, *geo.output[1:]))
        taps, places = range(3, d + 2), range(d + 3, 2 * d + 2)
        order = (1, *taps, 2, d + 2, 0, *places) if over_batch else (0, 1, *taps, 2, d + 2, *places)
        shape = (math.prod(lead), math.prod(geo.kernel[1:]) * channels, rows * row)
        phases.append(xp.reshape(xp.permute_dims(view, order), shape))
    shape = (*lead, phases[0].shape[1], geo.output[0] * row)
    if step == 1:
        view = windows(xp, phases[0], geo.kernel[:1], (1,), (geo.dilation[0] * row,), shape[-1:])
        return xp.reshape(xp.moveaxis(view, 2, 0), (geo.kernel[0], *shape))
    columns = []
    for tap in range(geo.kernel[0]):
        first, phase = divmod(tap * geo.dilation[0], step)
        columns.append(xp.reshape(phases[phase][..., first * row : (first + geo.output[0]) * row], shape))
    return columns


def products_by_tap(xp: Namespace, columns: Array | list[Array], other: Array) -> Array:
    """Return the products of columns (G, R, L), of each tap in turn, with another matrix (G, L, K): (k1, G, R, K)."""
    if isinstance(columns, list):
        return xp.stack([_product(xp, column, other) for column in columns])
    return _product(xp, columns, other)


def _product(xp: Namespace, a: Array, b: Array) -> Array:
    """Return a·b; if it has few elements as a sum of several products, for which NumPy lets other threads work."""
    few, length = math.prod(a.shape[:-1]) * b.shape[-1], a.shape[-1]
    parts = next((n for n in range(1, LOCKED + 1) if n * few >= LOCKED and length % n == 0), 1)
    if parts == 1 or not runs_on_cpu_threads(xp):
        return matmul(xp, a, b)
    length //= parts
    a = xp.moveaxis(xp.reshape(a, (*a.shape[:-1], parts, length)), -2, -3)
    b = xp.reshape(b, (*b.shape[:-2], parts, length, b.shape[-1]))
    return sum_axis(xp, matmul(xp, a, b), -3)


def sum_of_products(
    xp: Namespace, kernels: Sequence[Array], columns: Array | list[Array], into: Array | None = None
) -> Array:
    """Return Σ_i kernels[i] · columns[i]; written to `into`, on NumPy alone."""
    if not isinstance(columns, list):
        columns = [columns[tap, ...] for tap in range(columns.shape[0])]
    total = matmul(xp, kernels[0], columns[0], out=into)
    product: Array | None = None
    for kernel, column in zip(kernels[1:], columns[1:], strict=True):
        product = matmul(xp, kernel, column, out=product)
        add_to(xp, total, product)
    return total


def _phase_rows(geo: Geometry) -> list[int]:
    """Return how many rows of each phase of the first axis are read."""
    rows = [0] * geo.stride[0]
    for tap in range(geo.kernel[0]):
        first, phase = divmod(tap * geo.dilation[0], geo.stride[0])
        rows[phase] = max(rows[phase], first + geo.output[0])
    return rows
