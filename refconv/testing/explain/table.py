"""A convolution as a table of products, and the right table of a problem.

A convolution and its two gradients are one table, read in three directions. It lists which elements are multiplied:

* `positions` (N, Q, o1 … od): y or its gradient; of a transposed convolution, x or its gradient.
* `weight` (Q, M/G, t1 … td).
* `image` (N, M, i1 … id): x or its gradient; of a transposed convolution, y or its gradient.

A right table has position o, tap t and image element i together where i = o·stride + t·dilation − padding on each axis,
channels of one group, weight row q, and one sample. Each part leaves one of the three out as its result.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refconv.testing.explain.readout import CONSTANT, MOST_PRODUCTS, Entries
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Problem

ROLES = ("positions", "weight", "image")
PARTS = ("forward", "grad_x", "grad_weight", "grad_bias")
Shape = tuple[int, ...]
Line = tuple[int, int, int]
Rows = frozenset[tuple[int, ...]]


def roles(part: str, transposed: bool) -> tuple[str, str, str]:
    """Return the roles (result, a, b) of a part that is bilinear in a and b.

    >>> roles("forward", False), roles("grad_x", False)
    (('positions', 'weight', 'image'), ('image', 'weight', 'positions'))
    """
    if part == "grad_weight":
        return "weight", "positions", "image"
    if (part == "forward") != transposed:
        return "positions", "weight", "image"
    return "image", "weight", "positions"


@dataclass(frozen=True)
class Asked:
    """The numbers of one problem, in the table's letters."""

    problem: Problem

    @functools.cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of the array in each role."""
        x, y, weight = self.problem.x_shape, self.problem.output_shape, self.problem.weight_shape
        positions, image = (x, y) if self.problem.transposed else (y, x)
        return {"positions": positions, "weight": weight, "image": image}

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.problem.lists)

    @property
    def before(self) -> Shape:
        """Padding before, per axis."""
        return tuple(before for before, _ in self.problem.pairs)

    @property
    def lines(self) -> list[Line]:
        """Return (stride, dilation, −padding) of each axis."""
        pads = (-before for before in self.before)
        return list(zip(self.problem.stride, self.problem.dilation, pads, strict=True))

    def beyond(self, axis: int, side: str = "") -> tuple[int, ...]:
        """Return the positions along an axis whose windows reach beyond the image: its "start", "end", or either."""
        stride, dilation, start = self.lines[axis]
        positions, taps, size = (self.shapes[role][2 + axis] for role in ROLES)
        firsts = [stride * o + start for o in range(positions)]
        beyond = {
            "start": [i < 0 for i in firsts],
            "end": [i + dilation * (taps - 1) >= size for i in firsts],
        }
        sides = [beyond[side]] if side else beyond.values()
        return tuple(o for o in range(positions) if any(those[o] for those in sides))

    def channels(self, shapes: dict[str, Shape]) -> Array:
        """Return the rows (q, weight row, weight column, m)."""
        q, col = np.indices((shapes["positions"][1], shapes["weight"][1])).reshape(2, -1)
        each = max(1, self.shapes["positions"][1] // self.groups)
        m = q // each * self.shapes["weight"][1] + col
        rows = np.stack([q, q, col, m], axis=1)
        return rows[(q < shapes["weight"][0]) & (m < shapes["image"][1])]

    def spatial(self, shapes: dict[str, Shape]) -> list[Array]:
        """Return, for each axis, the rows (o, t, i)."""
        found = []
        for axis, line in enumerate(self.lines, 2):
            found.append(line_triples(line, *(shapes[role][axis] for role in ROLES)))
        return found

    def table(self, part: str, shape: Shape | None = None) -> Table:
        """Return the right table, for a result of another shape if one is given."""
        shapes = dict(self.shapes)
        if shape is not None:
            shapes[roles(part, self.problem.transposed)[0]] = shape
        samples = np.arange(min(shapes["positions"][0], shapes["image"][0]))
        return combine(shapes, self.spatial(shapes), self.channels(shapes), np.stack([samples, samples], axis=1))


def line_triples(line: Line, positions: int, taps: int, size: int) -> Array:
    """Return the rows (o, t, i) with i = line[0]·o + line[1]·t + line[2] inside the image.

    >>> line_triples((2, 1, -1), 2, 2, 3).tolist()
    [[0, 1, 0], [1, 0, 1], [1, 1, 2]]
    """
    o, t = np.indices((positions, taps)).reshape(2, -1)
    i = line[0] * o + line[1] * t + line[2]
    return np.stack([o, t, i], axis=1)[(i >= 0) & (i < size)]


def row_set(rows: Array) -> Rows:
    """Return the rows of an integer array as a set."""
    return frozenset(map(tuple, distinct(rows).tolist()))


def distinct(rows: Array) -> Array:
    """Return the rows of an integer array without repeats.

    >>> distinct(np.array([[1, 2], [0, 5], [1, 2]])).tolist()
    [[0, 5], [1, 2]]
    """
    low = rows.min(axis=0, initial=0)
    key = np.ravel_multi_index(tuple((rows - low).T), tuple(rows.max(axis=0, initial=0) - low + 1))
    return rows[np.unique(key, return_index=True)[1]]


def line_rows(line: Line, sizes: Sequence[int]) -> Rows:
    """Return the rows of `line_triples` as a set."""
    return row_set(line_triples(line, *sizes))


@dataclass(frozen=True)
class Table:
    """Products as three flat index arrays, one for each role, and their factors; CONSTANT in `b` is not among them."""

    shapes: dict[str, Shape]
    flat: dict[str, Array]
    factor: Array

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes."""
        return len(self.shapes["weight"]) - 2

    @functools.cached_property
    def keys(self) -> Array:
        """One number for each product, sorted."""
        return np.unique(self.key)

    @functools.cached_property
    def key(self) -> Array:
        """One number for each product."""
        sizes = [int(np.prod(self.shapes[role])) for role in ROLES]
        return (self.flat["positions"] * sizes[1] + self.flat["weight"]) * sizes[2] + self.flat["image"]

    @functools.cached_property
    def coordinates(self) -> dict[str, Array]:
        """For each role, an array (axes, products)."""
        return {role: np.stack(np.unravel_index(self.flat[role], self.shapes[role])) for role in ROLES}

    @functools.cached_property
    def channels(self) -> Array:
        """Rows (q, weight row, weight column, m), one for each product."""
        c = self.coordinates
        return np.stack([c["positions"][1], c["weight"][0], c["weight"][1], c["image"][1]], axis=1)

    @functools.cached_property
    def samples(self) -> Array:
        """Rows (sample of the positions, sample of the image)."""
        return np.stack([self.coordinates["positions"][0], self.coordinates["image"][0]], axis=1)

    @functools.cached_property
    def spatial(self) -> Array:
        """Array (axes, products, 3) of (o, t, i)."""
        parts = [self.coordinates[role][2:] for role in ROLES]
        return np.stack(parts, axis=-1)

    def only(self, chosen: Array) -> Table:
        """Return some of the products."""
        return Table(self.shapes, {role: flat[chosen] for role, flat in self.flat.items()}, self.factor[chosen])

    def equals(self, other: Table) -> bool:
        """Return whether another table of the same shapes has the same products with the same factors."""
        if len(self.factor) != len(other.factor):
            return False
        mine, theirs = np.argsort(self.key), np.argsort(other.key)
        same = np.array_equal(self.key[mine], other.key[theirs])
        return same and bool(np.allclose(self.factor[mine], other.factor[theirs], rtol=1e-3, atol=1e-3))

    def times(self, factors: Array) -> Table:
        """Return the products multiplied by factors, without those multiplied by 0."""
        some = self.only(factors != 0)
        return Table(some.shapes, some.flat, some.factor * factors[factors != 0])

    def without(self, other: Table) -> Table:
        """Return the products that are not in another table of the same shapes."""
        return self.only(self.beyond(other))

    def beyond(self, other: Table) -> Array:
        """Return for each product whether it is not in another table of the same shapes."""
        return ~np.isin(self.key, other.keys)

    def signatures(self, role: str) -> Array:
        """Return one number for each element of a role, the same for elements with the same partners."""
        others = [name for name in ROLES if name != role]
        mixed = np.zeros(len(self.factor), np.uint64)
        for seed, name in enumerate(others):
            mixed += np.random.default_rng(seed).integers(1, 2**62, int(np.prod(self.shapes[name])))[
                self.flat[name]
            ].astype(np.uint64) * np.uint64(2 * seed + 3)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
        total = np.zeros(int(np.prod(self.shapes[role])), np.uint64)
        np.add.at(total, self.flat[role], mixed)
        return total


def follows(gradient: Table, forward: Table) -> bool:
    """Return whether a gradient has the products of a forward pass, where their arrays overlap: it is its gradient."""
    sizes = [min(pair) for role in ROLES for pair in zip(gradient.shapes[role], forward.shapes[role], strict=True)]

    def products(table: Table) -> Array:
        rows = np.concatenate([*(table.coordinates[role] for role in ROLES), table.factor[None]]).T
        return np.unique(rows[np.all(rows[:, :-1] < sizes, axis=1)], axis=0)

    mine, theirs = products(gradient), products(forward)
    return bool(len(mine) and mine.shape == theirs.shape and np.allclose(mine, theirs, rtol=1e-3))


def combine(shapes: dict[str, Shape], spatial: Sequence[Array], channels: Array, samples: Array) -> Table:
    """Return the table of all combinations of spatial rows (one array per axis), channel rows and sample rows."""
    sets = [samples, channels, *spatial]
    index = np.indices([len(rows) for rows in sets]).reshape(len(sets), -1)
    picked = [rows[i] for rows, i in zip(sets, index, strict=True)]
    batch, channel, axes = picked[0], picked[1], picked[2:]
    places = {
        "positions": (batch[:, 0], channel[:, 0], *(axis[:, 0] for axis in axes)),
        "weight": (channel[:, 1], channel[:, 2], *(axis[:, 1] for axis in axes)),
        "image": (batch[:, 1], channel[:, 3], *(axis[:, 2] for axis in axes)),
    }
    flat = {role: np.ravel_multi_index(place, shapes[role]) for role, place in places.items()}
    return Table(shapes, flat, np.ones(index.shape[1]))


def classes(part: str, transposed: bool, shapes: dict[str, Shape]) -> tuple[list[Array], int]:
    """Return the elements of a that are filled together: no result of a convolution reads two of a class.

    They are one column and tap of the weight where rows are separate outputs, one row and tap where columns are, and
    one position of one sample for the weight's gradient. Those that cross at one tap or position come first; also
    returned is how many they are.
    """
    out, a, _ = roles(part, transposed)
    index = np.arange(int(np.prod(shapes[a]))).reshape(shapes[a])
    filled = 0 if out == "positions" else 1
    moved = np.moveaxis(index, filled, -1)
    rows = moved.reshape(moved.shape[0], -1, moved.shape[-1])
    middle = _middle(shapes[a])
    cross = [*rows[0], *rows[1:, middle]]
    return cross + [some for row in rows[1:] for tap, some in enumerate(row) if tap != middle], len(cross)


def _middle(shape: Shape) -> int:
    """Return the flat index of the tap or position in the middle, which is least often in the padding."""
    return int(np.ravel_multi_index(tuple(n // 2 for n in shape[2:]), shape[2:]))


def completed(part: str, transposed: bool, entries: Entries, shapes: dict[str, Shape]) -> Entries | None:
    """Return all combinations of the samples and channels of one tap or position with the spatial rows of one channel.

    `entries` are the products of the classes that cross. None if there are too many combinations.
    """
    out, a, b = roles(part, transposed)
    table, constants = table_of(part, transposed, entries, shapes)
    if not len(table.factor) or len(constants.out):
        return None
    other = table.coordinates[a][0 if out != "positions" else 1]  # the axis that is not filled
    tap = np.ravel_multi_index(tuple(table.coordinates[a][2:]), shapes[a][2:])
    spatial = np.moveaxis(table.spatial, 0, 1).reshape(len(table.factor), -1)
    heads = np.concatenate([table.samples, table.channels], axis=1)
    base = tap == _middle(shapes[a])
    rows, place = np.unique(spatial, axis=0, return_inverse=True)
    channels, which = np.unique(heads[base], axis=0, return_inverse=True)
    if not base.any() or len(rows) * len(channels) > MOST_PRODUCTS:
        return None
    place, which = place.reshape(-1), which.reshape(-1)
    of_row, of_head = np.ones(len(rows), table.factor.dtype), np.ones(len(channels), table.factor.dtype)
    of_row[place[other == 0][::-1]] = table.factor[other == 0][::-1]
    of_head[which[::-1]] = (table.factor[base] / of_row[place[base]])[::-1]
    h, r = (index.reshape(-1) for index in np.indices((len(channels), len(rows))))
    head, row = channels[h], rows[r].reshape(len(h), -1, 3)
    places = {
        "positions": (head[:, 0], head[:, 2], *row[:, :, 0].T),
        "weight": (head[:, 3], head[:, 4], *row[:, :, 1].T),
        "image": (head[:, 1], head[:, 5], *row[:, :, 2].T),
    }
    flat = {role: np.ravel_multi_index(place, shapes[role]) for role, place in places.items()}
    return Entries(flat[out], flat[a], flat[b], of_row[r] * of_head[h], entries.unread)


def table_of(part: str, transposed: bool, entries: Entries, shapes: dict[str, Shape]) -> tuple[Table, Entries]:
    """Return the products as a table, and separately those with no element of b."""
    out, a, b = roles(part, transposed)
    inside = entries.b != CONSTANT
    flat = {out: entries.out[inside], a: entries.a[inside], b: entries.b[inside]}
    outside = ~inside
    rest = Entries(
        entries.out[outside], entries.a[outside], entries.b[outside], entries.factor[outside], entries.unread
    )
    return Table(shapes, flat, entries.factor[inside]), rest
