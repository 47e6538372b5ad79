r"""Scattering as a correlation, so that an input gradient adds nothing up in memory.

Letters: as in :mod:`refconv.passes`; s stride, κ = ⌈k/s⌉, and on each axis the padded position p = s·m + r, 0 ≤ r < s.

The scatter pass puts P[n, c, p] = Σ { w[k, c, t] · y[n, k, l] : l·s + t·dilation = p }. With stride 1 that is a
correlation of y with the kernel turned round. With a larger stride, l·s + t = s·m + r leaves only the taps t = s·τ + r,
for which l = m − τ:

    P[n, c, s·m + r] = Σ_τ  w[k, c, s·τ + r] · y[n, k, m − τ]           0 ≤ τ < κ

which are s correlations with stride 1 of the same windows of y: one, whose channels are the (c, r), if kernels that run
out of taps get a zero. Its outputs, laid between one another, are P. im2col only copies, where col2im reads, adds and
writes for every tap, so this is the faster way unless it multiplies by many zeros.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator

from refconv.arrays import Array, Namespace
from refconv.groups import ChannelGroups, ChannelSide
from refconv.shapes import Convolution, Geometry, Shape

MULTIPLY, COPY, ADD, ADD_APART = 0.01, 0.35, 1.0, 3.0
"""Nanoseconds for a multiply-add of a matrix product, and for an element that im2col copies, or that col2im adds where
neighbours are next to one another or apart: about so on one core of 2025, and only their ratios matter."""


@dataclasses.dataclass(frozen=True)
class Adjoint:
    """The scatter pass of a call, described as the correlation of another."""

    call: Convolution
    stride: Shape
    kernel: Shape
    first: Shape  # the image position of the first output, before cropping: s·m − before
    size: Shape  # of the image
    side: ChannelSide  # of the image

    def kernels(self, xp: Namespace, kernels: Array) -> Array:
        """Turn kernels (G, K, C·T) round: (G, C·s1·…·sd, K, κ1, …, κd), a view with negative strides if one will do."""
        count, K, _ = kernels.shape
        d, taps = len(self.kernel), self.call.geometry.kernel
        whole = tuple(t * s for t, s in zip(taps, self.stride, strict=True))  # κ·s taps, of which κ·s − k are zero
        kernels = xp.reshape(kernels, (count, K, -1, *self.kernel))
        if whole != self.kernel:
            padded = xp.zeros((*kernels.shape[:3], *whole), dtype=kernels.dtype)
            padded[(..., *map(slice, self.kernel))] = kernels
            kernels = padded
        split = [n for pair in zip(taps, self.stride, strict=True) for n in pair]
        kernels = xp.reshape(kernels, (*kernels.shape[:3], *split))  # (G, K, C, κ1, s1, …, κd, sd)
        kernels = xp.flip(kernels, axis=tuple(range(3, 3 + 2 * d, 2)))
        order = (0, 2, *range(4, 4 + 2 * d, 2), 1, *range(3, 3 + 2 * d, 2))  # (G, C, s1, …, sd, K, κ1, …, κd)
        kernels = xp.permute_dims(kernels, order)
        return xp.reshape(kernels, (count, -1, K, *taps))

    def place(
        self, xp: Namespace, rows: tuple[int, int], parts: Iterable[tuple[slice, Array]]
    ) -> tuple[tuple[int, int], Iterable[tuple[slice, Array]]]:
        """Turn some rows of outputs into rows of the image, and their channels into the image's."""
        if max(self.stride) == 1:
            return rows, parts
        starts = (self.first[0] + rows[0] * self.stride[0], *self.first[1:])
        top = max(0, starts[0])
        bottom = max(top, min(self.first[0] + rows[1] * self.stride[0], self.size[0]))
        ends = (bottom, *self.size[1:])
        crop = tuple(slice(max(0, start) - start, end - start) for start, end in zip(starts, ends, strict=True))
        return (top, bottom), self._between(xp, crop, parts)

    def _between(
        self, xp: Namespace, crop: tuple[slice, ...], parts: Iterable[tuple[slice, Array]]
    ) -> Iterator[tuple[slice, Array]]:
        phases, d = math.prod(self.stride), len(self.stride)
        order = (0, 1, *(axis for pair in zip(range(2 + d, 2 + 2 * d), range(2, 2 + d), strict=True) for axis in pair))
        for channels, part in parts:
            where = slice(channels.start // phases, channels.stop // phases)
            part = xp.reshape(part, (part.shape[0], where.stop - where.start, *self.stride, *part.shape[2:]))
            part = xp.permute_dims(part, order)  # (N, G·C, M1, s1, …, Md, sd)
            sizes = [m * s for m, s in zip(part.shape[2::2], self.stride, strict=True)]
            yield where, xp.reshape(part, (*part.shape[:2], *sizes))[(..., *crop)]


@functools.lru_cache(maxsize=256)
def as_correlation(call: Convolution) -> Adjoint | None:
    """Describe the scatter pass of a call as a correlation; None if it has no such form, or a slower one."""
    geo, d = call.geometry, len(call.geometry.size)
    images, positions = (
        (call.groups.outputs, call.groups.inputs) if call.transposed else (call.groups.inputs, call.groups.outputs)
    )
    apart = any(s > 1 and step > 1 for s, step in zip(geo.stride, geo.dilation, strict=True))
    if geo.padding_mode != "zeros" or not call.groups.is_contiguous or apart or 0 in (*images.sizes, *positions.sizes):
        return None
    taps = tuple(-(-k // s) for k, s in zip(geo.kernel, geo.stride, strict=True))
    before = [pair[0] for pair in geo.pads]
    first = [b // s for b, s in zip(before, geo.stride, strict=True)]
    last = [(b + n - 1) // s for b, n, s in zip(before, geo.size, geo.stride, strict=True)]
    spans = [(t - 1) * step + 1 for t, step in zip(taps, geo.dilation, strict=True)]
    turned = Geometry(
        size=geo.output,
        kernel=taps,
        stride=(1,) * d,
        dilation=geo.dilation,
        pads=tuple(
            (span - 1 - low, high - (o - 1)) for span, low, high, o in zip(spans, first, last, geo.output, strict=True)
        ),
        padding_mode="zeros",
        output=tuple(high - low + 1 for low, high in zip(first, last, strict=True)),
    )
    phases = math.prod(geo.stride)
    if not _is_faster(call, turned, phases):
        return None
    groups = ChannelGroups.from_sizes(positions.sizes, [size * phases for size in images.sizes])
    return Adjoint(
        call=dataclasses.replace(call, geometry=turned, groups=groups, transposed=False),
        stride=geo.stride,
        kernel=geo.kernel,
        first=tuple(s * low - b for s, low, b in zip(geo.stride, first, before, strict=True)),
        size=geo.size,
        side=images,
    )


def _is_faster(call: Convolution, turned: Geometry, phases: int) -> bool:
    geo = call.geometry
    taps, places = math.prod(geo.kernel), math.prod(geo.output)
    turned_taps, turned_places = math.prod(turned.kernel), math.prod(turned.output)
    scatter = correlate = 0.0
    for count, image, positions in call.sides:
        columns, turned_columns = image * taps * places, positions * turned_taps * turned_places
        scatter += count * columns * (MULTIPLY * positions + (ADD if geo.stride[-1] == 1 else ADD_APART))
        correlate += count * turned_columns * (MULTIPLY * image * phases + COPY)
    return correlate < scatter
