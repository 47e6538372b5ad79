"""Cut a call into tiles that fit the workspace.

A tile is a slice of the batch, a range of output rows (positions along the first spatial axis) and a piece: whole
groups of a block, or some image channels of one group. The call's shape alone decides how a sum is cut, never the
workspace or the number of workers, so that neither changes a bit of the result.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

from refconv.integers import cut, even
from refconv.settings import workspace
from refconv.shapes import Convolution, Geometry, ListedBlock

TILE_BYTES = 2**22
"""Tiles are cut by rows or channels beyond this size, and small samples and groups gathered up to it. Products of
smaller tiles are slower; larger tiles leave the cache between im2col and the product (benchmarks/thresholds.py)."""

CHANNELS = 64
"""Image channels that a tile of a gradient takes together where possible: products of fewer rows are slower
(benchmarks/thresholds.py)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a block of equal groups: some of its groups whole, or some image channels of one group."""

    block: int
    groups: slice  # of the block's groups
    channels: slice  # of the image channels within each group
    image: slice  # of the listed image channels
    positions: slice  # of the listed position channels

    @property
    def count(self) -> int:
        """Number of groups."""
        return int(self.groups.stop - self.groups.start)


class Tile(NamedTuple):
    """One slice of the batch, one range of output rows (first, end) and one piece."""

    batch: slice
    rows: tuple[int, int]
    piece: Piece

    @property
    def samples(self) -> int:
        """Number of samples."""
        return int(self.batch.stop - self.batch.start)


@dataclass(frozen=True, slots=True)
class Plan:
    """The cuts of one pass: every combination of a batch slice, a row range and a piece is one tile."""

    batches: tuple[slice, ...]
    rows: tuple[tuple[int, int], ...]
    pieces: tuple[Piece, ...]
    tile_bytes: int
    parts: int  # of the batch, whose sums are added up last


class Cuts(NamedTuple):
    """How a pass may be cut, and how its columns are made."""

    split_channels: bool  # image channels are independent: a large group is cut by channels, otherwise by rows
    sums_batch: bool  # the result is a sum over samples
    cut_rows: bool = True  # rows of the image are independent
    joins_samples: bool = False  # one product takes the columns of several samples
    by_rows: bool = False  # columns are sliced along the first axis, not copied (refconv.cpu.layouts.Rows)


def make_plan(call: Convolution, item_bytes: int, cuts: Cuts) -> Plan:
    """Cut a pass into tiles that fit the workspace, such that no workspace changes the result.

    Where samples and groups are separate products, the workspace decides how many of them a tile takes. Everything
    else is cut by shape alone, into tiles of at most TILE_BYTES.
    """
    tile = TILE_BYTES if cuts.cut_rows else 8 * TILE_BYTES
    separate = not cuts.sums_batch and not cuts.joins_samples
    budget = TILE_BYTES if separate else tile
    # Threads with many small products wait for each other's interpreter lock; larger tiles need fewer products.
    many_small = all(count >= 16 and max(C, K) <= 16 for count, C, K in call.sides)
    if many_small or (cuts.joins_samples and not cuts.sums_batch):
        budget = 2 * TILE_BYTES
    if separate:
        budget = min(budget, workspace.get())
    return _plan(call, item_bytes, cuts, tile, TILE_BYTES, budget)


@functools.lru_cache(maxsize=256)
def _plan(call: Convolution, item_bytes: int, cuts: Cuts, tile: int, task: int, budget: int) -> Plan:
    scratch = _Scratch(call.geometry, item_bytes, cuts.by_rows)
    rows = _rows_of_a_tile(call, cuts, scratch, tile)
    sums = sum(count * C * K for count, C, K in call.sides) * scratch.taps * item_bytes
    # Threads share a sum over the batch: each takes some channels if the sum is large, otherwise part of the batch.
    share_channels = cuts.sums_batch and cuts.split_channels and sums > tile
    shares = []
    for count, C, K in call.sides:
        channels = _channels_of_a_tile(scratch, C, K, rows, tile) if cuts.split_channels else C
        at_once = count
        if share_channels:  # at least four pieces, if there are as many channels
            per_channel, most = max(1, scratch.taps * K * item_bytes), min(sums, tile) // 4
            channels = max(1, min(channels, most // per_channel))
            at_once = max(1, min(count, most // max(1, C * per_channel)))
        shares.append((1, even(C, channels)) if channels < C else (at_once, C))
    taken = zip(call.sides, shares, strict=True)
    largest = max((n * scratch.tile(c, K, rows) for (_, _, K), (n, c) in taken), default=1)
    samples = max(1, min(call.batch, budget // largest))
    if not share_channels and call.batch * largest > task:
        slices = 4 if len(shares) == 1 else 2  # at least, for threads to share; every block has tasks of its own
        samples = min(samples, -(-call.batch // slices))
    samples = even(call.batch, samples)
    pieces = []
    for index, (block, (_, C, K), (at_once, channels)) in enumerate(zip(call.blocks, call.sides, shares, strict=True)):
        fits = budget // (scratch.tile(C, K, rows) * samples)
        pieces += _pieces(index, block, C, K, even(block.count, max(1, min(at_once, fits))), channels)

    def tile_bytes(piece: Piece) -> int:
        image, positions = piece.image.stop - piece.image.start, piece.positions.stop - piece.positions.start
        partial = 0
        if cuts.sums_batch:  # partial sums, to be added to others
            partial = (2 if cuts.joins_samples else samples + 1) * image * scratch.taps * call.sides[piece.block][2]
        return samples * scratch.tile(image, positions, rows) + partial * item_bytes

    return Plan(
        batches=cut(call.batch, samples),
        rows=tuple((part.start, part.stop) for part in cut(call.geometry.output[0], rows)),
        pieces=tuple(pieces),
        tile_bytes=max(map(tile_bytes, pieces), default=1),
        parts=4 if cuts.sums_batch and not share_channels and len(pieces) < 4 else 1,
    )


@dataclass(frozen=True, slots=True)
class _Scratch:
    """Scratch bytes of a tile of one sample."""

    geo: Geometry
    item_bytes: int
    by_rows: bool

    @property
    def taps(self) -> int:
        return math.prod(self.geo.kernel)

    @property
    def halo(self) -> int:
        """Rows of the padded image that neighbouring tiles both read."""
        return self.geo.spans[0] // self.geo.stride[0]

    @property
    def _copies(self) -> int:
        """How often im2col copies an image channel for each position."""
        return math.prod(self.geo.kernel[1:]) * self.geo.stride[0] if self.by_rows else self.taps

    def image_row(self, C: int) -> int:
        """For one output row: the columns of C image channels, and the padded rows that it reads first."""
        row_length, padded_row = math.prod(self.geo.output[1:]), math.prod(self.geo.padded[1:]) * self.geo.stride[0]
        return C * (self._copies * row_length + padded_row) * self.item_bytes

    def row(self, C: int, K: int) -> int:
        """For one output row: `image_row`, and the positions of K channels twice."""
        return max(1, self.image_row(C) + 2 * K * math.prod(self.geo.output[1:]) * self.item_bytes)

    def beyond(self, C: int) -> int:
        """For the rows that the window of the last output row reads beyond those counted so far."""
        geo, more = self.geo, 0
        if self.by_rows:
            more = max(0, geo.spans[0] - geo.stride[0]) * math.prod(geo.kernel[1:]) * math.prod(geo.output[1:])
        between = max(0, geo.spans[0] - geo.stride[0] * (geo.output[0] + 1)) * math.prod(geo.padded[1:])  # distant taps
        return C * (more + between) * self.item_bytes

    def tile(self, C: int, K: int, rows: int) -> int:
        """For a number of output rows."""
        return rows * self.row(C, K) + self.beyond(C)


def _rows_of_a_tile(call: Convolution, cuts: Cuts, scratch: _Scratch, tile: int) -> int:
    """Return the output rows of a tile: all, unless they exceed the tile's bytes."""
    total, halo = call.geometry.output[0], scratch.halo

    def of_largest_group(most: int) -> int:
        return max((scratch.row(min(C, most), K) for _, C, K in call.sides), default=1)

    channels = max((C for _, C, _ in call.sides), default=1)
    if cuts.split_channels:  # few channels make slow products, few rows are read twice: halve channels to gain rows
        channels = min(channels, CHANNELS)
        while channels > 1 and tile // of_largest_group(channels) <= min(total, 4 * halo):
            channels //= 2
    row = of_largest_group(channels)
    if not cuts.cut_rows or total * row + scratch.beyond(channels) <= tile:
        return total
    return max(1, tile // row - halo, min(halo, tile // row))


def _channels_of_a_tile(scratch: _Scratch, C: int, K: int, rows: int, tile: int) -> int:
    """Return how many of a group's C image channels fit a tile of a number of rows."""
    if rows * scratch.row(C, K) <= tile:
        return C
    fixed = scratch.row(0, K)
    return max(1, min(C, (tile // rows - fixed) // max(1, scratch.image_row(1))))


def _pieces(index: int, block: ListedBlock, C: int, K: int, at_once: int, channels: int) -> list[Piece]:
    """Cut a block of groups with C image and K position channels: `at_once` groups, or `channels` of one group."""
    found = []
    for groups in cut(block.count, at_once):
        first, end = (block.image.start + g * C for g in (groups.start, groups.stop))
        positions = slice(block.positions.start + groups.start * K, block.positions.start + groups.stop * K)
        for part in cut(C, max(1, channels)) or (slice(0, 0),):
            whole = part == slice(0, C)
            image = slice(first, end) if whole else slice(first + part.start, first + part.stop)
            found.append(Piece(index, groups, part, image, positions))
    return found


# --- Rows of the image and rows of the output ---


def row_window(geo: Geometry, start: int, stop: int) -> tuple[int, int]:
    """Return the padded rows (first, end) that output rows start … stop−1 read."""
    return start * geo.stride[0], (stop - 1) * geo.stride[0] + geo.spans[0]
