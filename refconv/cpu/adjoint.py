r"""Scatter as a correlation with the reversed kernel, which accumulates nothing in memory.

Letters as in :mod:`refconv.textbook`; s stride, κ = ⌈k/s⌉, and on each axis the padded position p = s·m + r, 0 ≤ r < s.

The scatter pass computes P[n, c, p] = Σ { w[k, c, t] · y[n, k, l] : l·s + t·dilation = p }. With stride 1 that is a
correlation of y with the reversed kernel. With a larger stride, l·s + t = s·m + r leaves only the taps t = s·τ + r,
for which l = m − τ:

    P[n, c, s·m + r] = Σ_τ  w[k, c, s·τ + r] · y[n, k, m − τ]           0 ≤ τ < κ

These are s correlations with stride 1 of the same windows of y. They become one correlation, whose channels are the
pairs (c, r), if kernels that run out of taps are extended with zeros; its outputs, interleaved, are P. im2col only
copies, where col2im reads, adds and writes for every tap, so this is faster unless it multiplies by many zeros.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator

import numpy as np

from refconv.arrays import Array
from refconv.cpu.choices import correlation_pays
from refconv.groups import ChannelGroups, ChannelSide
from refconv.shapes import Convolution, Geometry, Shape


@dataclasses.dataclass(frozen=True)
class Adjoint:
    """The scatter pass of one call, described as the correlation of another."""

    call: Convolution
    stride: Shape
    kernel: Shape
    first: Shape  # the image position of the first output, before cropping: s·m − before
    size: Shape  # of the image
    side: ChannelSide  # of the image

    def kernels(self, kernels: Array) -> Array:
        """Reverse kernels (G, K, C·T): (G, C·s1·…·sd, K, κ1, …, κd), as a view with negative strides where possible."""
        count, K, _ = kernels.shape
        d, taps = len(self.kernel), self.call.geometry.kernel
        whole = tuple(t * s for t, s in zip(taps, self.stride, strict=True))  # κ·s taps, of which κ·s − k are zero
        kernels = kernels.reshape(count, K, kernels.shape[2] // math.prod(self.kernel), *self.kernel)
        if whole != self.kernel:
            extended = np.zeros((*kernels.shape[:3], *whole), kernels.dtype)
            extended[..., *map(slice, self.kernel)] = kernels  # type: ignore[index]
            kernels = extended
        split = [n for pair in zip(taps, self.stride, strict=True) for n in pair]
        kernels = kernels.reshape(*kernels.shape[:3], *split)  # (G, K, C, κ1, s1, …, κd, sd)
        kernels = np.flip(kernels, axis=tuple(range(3, 3 + 2 * d, 2)))
        kernels = kernels.transpose(0, 2, *range(4, 4 + 2 * d, 2), 1, *range(3, 3 + 2 * d, 2))
        return kernels.reshape(count, -1, K, *taps)  # from (G, C, s1, …, sd, K, κ1, …, κd)

    def place(
        self, rows: tuple[int, int], parts: Iterable[tuple[slice, Array]]
    ) -> tuple[tuple[int, int], Iterable[tuple[slice, Array]]]:
        """Return the image rows of output rows, and parts (channels, array) of the output as parts of the image."""
        if max(self.stride) == 1:
            return rows, parts
        starts = (self.first[0] + rows[0] * self.stride[0], *self.first[1:])
        top = max(0, starts[0])
        bottom = max(top, min(self.first[0] + rows[1] * self.stride[0], self.size[0]))
        ends = (bottom, *self.size[1:])
        crop = tuple(slice(max(0, start) - start, end - start) for start, end in zip(starts, ends, strict=True))
        return (top, bottom), self._interleaved(crop, parts)

    def _interleaved(
        self, crop: tuple[slice, ...], parts: Iterable[tuple[slice, Array]]
    ) -> Iterator[tuple[slice, Array]]:
        phases, d = math.prod(self.stride), len(self.stride)
        order = (0, 1, *(axis for pair in zip(range(2 + d, 2 + 2 * d), range(2, 2 + d), strict=True) for axis in pair))
        for channels, part in parts:
            where = slice(channels.start // phases, channels.stop // phases)
            part = part.reshape(part.shape[0], where.stop - where.start, *self.stride, *part.shape[2:])
            part = part.transpose(order)  # (N, G·C, M1, s1, …, Md, sd)
            sizes = [m * s for m, s in zip(part.shape[2::2], self.stride, strict=True)]
            yield where, part.reshape(*part.shape[:2], *sizes)[(..., *crop)]


@functools.lru_cache(maxsize=256)
def as_correlation(call: Convolution) -> Adjoint | None:
    """Describe the scatter pass of a call as a correlation; return None if that is impossible or slower."""
    geo, d = call.geometry, len(call.geometry.size)
    images, positions = call.image_side, call.position_side
    dilated = any(s > 1 and step > 1 for s, step in zip(geo.stride, geo.dilation, strict=True))
    if (
        geo.padding_mode != "zeros"
        or not call.groups.is_contiguous
        or dilated
        or 0 in (*images.sizes, *positions.sizes)
    ):
        return None
    taps = tuple(-(-k // s) for k, s in zip(geo.kernel, geo.stride, strict=True))
    before = [pair[0] for pair in geo.pads]
    first = [b // s for b, s in zip(before, geo.stride, strict=True)]
    last = [(b + n - 1) // s for b, n, s in zip(before, geo.size, geo.stride, strict=True)]
    spans = [(t - 1) * step + 1 for t, step in zip(taps, geo.dilation, strict=True)]
    limits = zip(spans, first, last, geo.output, strict=True)
    geometry = Geometry(
        size=geo.output,
        kernel=taps,
        stride=(1,) * d,
        dilation=geo.dilation,
        pads=tuple((span - 1 - low, high - (o - 1)) for span, low, high, o in limits),
        padding_mode="zeros",
        output=tuple(high - low + 1 for low, high in zip(first, last, strict=True)),
    )
    phases = math.prod(geo.stride)
    if not correlation_pays(call, geometry, phases):
        return None
    groups = ChannelGroups.from_sizes(positions.sizes, [size * phases for size in images.sizes])
    return Adjoint(
        call=dataclasses.replace(call, geometry=geometry, groups=groups, transposed=False),
        stride=geo.stride,
        kernel=geo.kernel,
        first=tuple(s * low - b for s, low, b in zip(geo.stride, first, before, strict=True)),
        size=geo.size,
        side=images,
    )
