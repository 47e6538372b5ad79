"""The method of each call: the layout of its columns, and whether a scatter is computed as a correlation.

All methods give the same sums, so a wrong choice only costs time. Choices follow from a call's shape alone, since the
order of a sum depends on them. `benchmarks/thresholds.py` measures every constant: the costs directly, and each
threshold by timing both methods for a call on either side of it (docs/engine.md has the table).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from refconv.cpu.layouts import ChannelsLast, Rows, Taps, TapsOfBatch, rows_to_copy
from refconv.shapes import Convolution, Geometry

MULTIPLY = 0.012
"""Nanoseconds of one core for a multiply-add of a large matrix product.

Only the ratios of these costs matter. They are between the ratios measured on two machines of 2025, an AMD EPYC and an
Intel Xeon."""

NARROW = 25
"""A product of r rows takes 1 + NARROW / r times as long for each multiply-add."""

COPY = 0.25
"""Nanoseconds for an element that im2col copies."""

SUM = 0.12
"""Nanoseconds for an element of a product that is added to a sum."""

SCATTER, SCATTER_APART = 1.0, 1.8
"""Nanoseconds for an element that col2im adds, if the stride of the last axis is 1, or larger."""

CALL = 1300
"""Nanoseconds for one more product, however small."""

LARGEST = 2**22
"""Elements of the largest weight that is copied tap by tap."""

FEW, HEAVY = 400, 2**14
"""Samples share a product if each has at most FEW positions and a group has at least HEAVY weights: BLAS prepares the
weight again for every product, which matters where the weight is large and the columns are few."""

LONG = 64
"""Minimum run of numbers in a window with channels last that makes copying such windows faster."""

PAYS_OFF = 1024
"""Minimum positions in a batch that make transposing the weight pay off."""

SHARED_ELEMENTS = 2**20
"""Largest weight whose gradient is computed from the columns of the input gradient, in numbers of four bytes."""


# --- Layouts of columns ---


def for_images(call: Convolution) -> Taps:
    """Return the fastest layout for images: sums over taps and channels."""
    return _for_images(call)


def for_kernels(call: Convolution) -> Taps:
    """Return the fastest layout for kernels: sums over the batch."""
    if _suits_channels_last(call):
        return ChannelsLast()
    # Rows would add up a sum for each sample, which costs time where a sample has few columns.
    many = math.prod(call.geometry.output) > FEW
    return Rows() if many and rows_pay_for_kernels(call) else TapsOfBatch()


def for_both(call: Convolution) -> Taps:
    """Return the fastest layout for both from the same columns."""
    return ChannelsLast() if _suits_channels_last(call) else for_images(call)


@functools.lru_cache(maxsize=256)
def _for_images(call: Convolution) -> Taps:
    taps = math.prod(call.geometry.kernel)
    weights = max((C * K * taps for _, C, K in call.sides), default=0)
    if call.batch > 1 and math.prod(call.geometry.output) <= FEW and weights >= HEAVY:
        return TapsOfBatch()
    return Rows() if rows_pay_for_images(call) else Taps()


@functools.lru_cache(maxsize=256)
def _suits_channels_last(call: Convolution) -> bool:
    """Return whether windows with channels last are copied fast, and the weight is worth transposing."""
    geo = call.geometry
    if math.prod(geo.kernel) == 1 or 0 in geo.output:
        return False
    together = geo.kernel[-1] if len(geo.kernel) > 1 and geo.dilation[-1] == 1 else 1
    return (
        all(C * together >= LONG for _, C, _ in call.sides)
        and rows_to_copy(geo) <= geo.kernel[0] * geo.output[0]
        and call.batch * math.prod(geo.output) >= PAYS_OFF
        and call.groups.parameter_count(geo.kernel, bias=False) <= LARGEST
    )


@functools.lru_cache(maxsize=256)
def rows_pay_for_images(call: Convolution) -> bool:
    """Return whether row columns are faster for sums over all taps: one product per tap of the first axis, added up."""
    if call.groups.parameter_count(call.geometry.kernel, bias=False) > LARGEST:
        return False
    return _rows_pay(call, lambda C, K, taps: SUM * K * taps)


@functools.lru_cache(maxsize=256)
def rows_pay_for_kernels(call: Convolution) -> bool:
    """Return whether row columns are faster for a result per tap: k1 products of T'·C rows instead of one of T·C."""
    return _rows_pay(call, lambda C, K, taps: MULTIPLY * NARROW * K * (taps - 1))


def _rows_pay(call: Convolution, cost: Callable[[int, int, int], float]) -> bool:
    """Return whether fewer copies save more than cost(C, K, k1) for every position of each group."""
    geo = call.geometry
    if geo.kernel[0] == 1 or 0 in geo.output:
        return False
    saved = math.prod(geo.kernel) - math.prod(geo.kernel[1:]) * rows_to_copy(geo) / geo.output[0]
    gain = sum(count * (COPY * C * saved - cost(C, K, geo.kernel[0])) for count, C, K in call.sides)
    return gain * call.batch * math.prod(geo.output) > CALL * (geo.kernel[0] - 1)


# --- Scatter as a correlation ---


def correlation_pays(call: Convolution, reversed_: Geometry, phases: int) -> bool:
    """Return whether a scatter is faster as the correlation of another geometry, whose channels are the phases."""
    geo = call.geometry
    add = SCATTER if geo.stride[-1] == 1 else SCATTER_APART
    scatter = correlate = 0.0
    for count, C, K in call.sides:
        scatter += count * C * math.prod(geo.kernel) * math.prod(geo.output) * (MULTIPLY * K + add)
        columns = K * math.prod(reversed_.kernel) * math.prod(reversed_.output)
        correlate += count * columns * (MULTIPLY * C * phases + COPY)
    return correlate < scatter


def shares_columns(call: Convolution, item_bytes: int) -> bool:
    """Return whether computing both gradients from the columns of the output gradient is faster.

    Several partial sums of the weight's gradient exist together, so the weight must be small.
    """
    return call.groups.parameter_count(call.geometry.kernel, bias=False) * item_bytes <= 4 * SHARED_ELEMENTS
