r"""im2col of rows: along the first spatial axis columns are sliced, not copied.

Letters: as in :mod:`refconv.passes`; T' = k2·…·kd and L' = o2·…·od leave out the first axis, whose stride is s1 and
dilation d1.

im2col copies an element once for each of its T taps. Copied for the T' taps of the other axes alone,

    R[(t', c), p, l'] = P[c, p, l'·stride + t'·dilation]

already holds the columns of every tap t1 of the first axis: they are the rows o1·s1 + t1·d1 of R. With stride 1 these
lie next to one another, so a matrix product reads them where they are,

    y = Σ_{t1}  w[:, t1] · R[:, t1·d1 : t1·d1 + o1, :]                     [k,t'c] [t'c,l] -> [k,l]

and with a larger stride they do too once R holds its rows phase by phase, p = s1·m + r. So im2col copies k1 times less,
for k1 products to be summed instead of one. Both R and its transpose, whose channels come last, are made here.

M. Cho, D. Brand, "MEC: Memory-efficient Convolution for Deep Neural Network", ICML 2017.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from refconv.arrays import Array, Namespace, add_to, dtype_of, matmul, runs_on_cpu_threads, strided, sum_axis, windows
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
    if call.groups.parameter_count(call.geometry.kernel, bias=False) > LARGEST:
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
    saved = math.prod(geo.kernel) - math.prod(geo.kernel[1:]) * rows_to_copy(geo) / geo.output[0]
    gain = 0.0
    for count, image, positions in call.sides:
        gain += count * (COPY * image * saved - cost(image, positions, geo.kernel[0]))
    return gain * call.batch * math.prod(geo.output) > CALL * (geo.kernel[0] - 1)


def rows_to_copy(geo: Geometry) -> int:
    """Return how many rows of windows are copied for all taps of the first axis together."""
    return sum(_phase_rows(geo))


def split_kernels(xp: Namespace, kernels: Array, *, transposed: bool) -> tuple[list[Array], Array, Array]:
    """Turn kernels (G, K, C, k1, …, kd) into one array (G, K, T'·C) for each tap of the first axis, still to be filled.

    With `transposed` they are views of (G, T'·C, K). Returned after them are where, and with what: two views of one
    shape (k1, G, …).
    """
    count, K, C, k1, *k = kernels.shape
    others, rows = range(4, kernels.ndim), math.prod(k) * C
    # A copy, since BLAS takes no negative strides.
    if transposed:
        ordered = xp.permute_dims(kernels, (3, 0, *others, 2, 1))
        by_tap = xp.empty(ordered.shape, dtype=kernels.dtype)
        matrices = xp.matrix_transpose(xp.reshape(by_tap, (k1, count, rows, K)))
    else:
        ordered = xp.permute_dims(kernels, (3, 0, 1, *others, 2))
        by_tap = xp.empty(ordered.shape, dtype=kernels.dtype)
        matrices = xp.reshape(by_tap, (k1, count, K, rows))
    return list(matrices), by_tap, ordered


def write_by_tap(xp: Namespace, kernels: Array, sums: Array) -> None:
    """Write sums (k1, G, K, T'·C), one for each tap of the first axis, to kernels (G, K, C, T)."""
    count, K, C, taps = kernels.shape
    k1 = sums.shape[0]
    by_tap = xp.permute_dims(xp.reshape(sums, (k1, count, K, taps // k1, C)), (1, 2, 4, 0, 3))
    xp.reshape(kernels, by_tap.shape, copy=False)[...] = by_tap


def gather_row_columns(xp: Namespace, padded: Array, geo: Geometry, groups: int = 1) -> Array | list[Array]:
    """Turn padded input (N, G·C, P1, …, Pd) into columns (N, G, T'·C, L) for each tap of the first axis.

    They are one array if the stride is 1. For NumPy alone.
    """
    d = len(geo.kernel)
    batch, channels = padded.shape[0], padded.shape[1] // groups
    phases = []
    for phase, rows in enumerate(_phase_rows(geo)):
        view = windows(
            xp,
            padded[:, :, phase :: geo.stride[0], ...],
            (1, *geo.kernel[1:]),
            (1, *geo.stride[1:]),
            (1, *geo.dilation[1:]),
            (rows, *geo.output[1:]),
        )  # (N, G·C, 1, k2…kd, rows, o2…od)
        view = xp.reshape(view, (batch, groups, channels, *geo.kernel[1:], rows, *geo.output[1:]))
        view = xp.permute_dims(view, (0, 1, *range(3, d + 2), 2, *range(d + 2, 2 * d + 2)))
        length = rows * math.prod(geo.output[1:])
        phases.append(xp.reshape(view, (batch, groups, math.prod(geo.kernel[1:]) * channels, length)))
    return _by_tap(phases, geo, math.prod(geo.output[1:]), axis=3)


def gather_windows(xp: Namespace, padded: Array, geo: Geometry) -> Array | list[Array]:
    """Turn padded input (G, P1, N, P2, …, Pd, C) into windows (G, o1·N·L', T'·C) for each tap of the first axis.

    They are one array if the stride is 1. For NumPy alone.
    """
    groups, _, batch, *_, channels = padded.shape
    group, row, sample, *steps, channel = padded.strides
    places = zip(steps, geo.stride[1:], strict=True)
    taps = zip(steps, geo.dilation[1:], strict=True)
    strides = (
        group,
        row * geo.stride[0],
        sample,
        *(step * s for step, s in places),
        *(step * s for step, s in taps),
        channel,
    )
    row_length = batch * math.prod(geo.output[1:])
    phases = []
    for phase, rows in enumerate(_phase_rows(geo)):
        shape = (groups, rows, batch, *geo.output[1:], *geo.kernel[1:], channels)
        view = strided(padded[:, phase:, ...] if phase else padded, shape, strides)
        phases.append(xp.reshape(view, (groups, rows * row_length, math.prod(geo.kernel[1:]) * channels)))
    return _by_tap(phases, geo, row_length, axis=1)


def _by_tap(phases: list[Array], geo: Geometry, row: int, axis: int) -> Array | list[Array]:
    """Slice columns of all rows, rows·`row` of each phase along an axis, into o1·`row` columns of each tap."""
    length = geo.output[0] * row
    if len(phases) > 1:
        taps = (divmod(tap * geo.dilation[0], geo.stride[0]) for tap in range(geo.kernel[0]))
        before = (slice(None),) * axis
        return [phases[phase][(*before, slice(first * row, first * row + length))] for first, phase in taps]
    columns = phases[0]
    shape = (geo.kernel[0], *columns.shape[:axis], length, *columns.shape[axis + 1 :])
    return strided(columns, shape, (columns.strides[axis] * geo.dilation[0] * row, *columns.strides))


def is_double(array: Array) -> bool:
    """Tell whether an array has double precision, for which BLAS is faster at other orders than for single."""
    return dtype_of(array) in ("float64", "complex128")


def outer_products(xp: Namespace, positions: Array, columns: Array | list[Array]) -> Array:
    """Return positions (…, K, L) times the transposed columns (…, R, L) of each tap in turn: (k1, …, K, R)."""
    if isinstance(columns, list):
        return xp.stack([_outer_product(xp, positions, column) for column in columns])
    return _outer_product(xp, positions, columns)


def _outer_product(xp: Namespace, a: Array, b: Array) -> Array:
    """Return a·bᵀ; if it has few elements as a sum of several products, for which NumPy lets other threads work."""
    few, length = math.prod(b.shape[:-1]) * a.shape[-2], a.shape[-1]
    parts = next((n for n in range(1, LOCKED + 1) if n * few >= LOCKED and length % n == 0), 1)
    if parts > 1 and runs_on_cpu_threads(xp):
        split = (parts, length // parts)
        a, b = (xp.moveaxis(xp.reshape(array, (*array.shape[:-1], *split)), -2, -3) for array in (a, b))
        return sum_axis(xp, _outer(xp, a, b), -3)
    return _outer(xp, a, b)


def _outer(xp: Namespace, a: Array, b: Array) -> Array:
    if is_double(a):
        return matmul(xp, a, xp.matrix_transpose(b))
    return xp.matrix_transpose(matmul(xp, b, xp.matrix_transpose(a)))


def sum_of_products(
    xp: Namespace, left: Array | Sequence[Array], right: Array | Sequence[Array], into: Array | None = None
) -> Array:
    """Return Σ_i left[i] · right[i]; written to `into`, on NumPy alone."""
    pairs = zip(_each(left), _each(right), strict=True)
    total = matmul(xp, *next(pairs), out=into)
    product: Array | None = None
    for pair in pairs:
        product = matmul(xp, *pair, out=product)
        add_to(xp, total, product)
    return total


def _each(arrays: Array) -> list[Array]:
    """Return the arrays along the first axis of one; a list as it is."""
    return arrays if isinstance(arrays, list) else [arrays[i, ...] for i in range(arrays.shape[0])]


def _phase_rows(geo: Geometry) -> list[int]:
    """Return how many rows of each phase of the first axis are read."""
    rows = [0] * geo.stride[0]
    for tap in range(geo.kernel[0]):
        first, phase = divmod(tap * geo.dilation[0], geo.stride[0])
        rows[phase] = max(rows[phase], first + geo.output[0])
    return rows
