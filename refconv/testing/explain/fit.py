"""Fit a table of products: the line i = stride·o + dilation·t + start of each axis, and factors.

Every function compares sets exactly. A fit that leaves a product unexplained says so, and numbers that the table does
not determine, such as a stride where there is one position, are None.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from refconv.testing.explain.rules import Due, Fit, fitting
from refconv.testing.explain.table import ROLES, Line, Rows, Table, distinct, line_rows, row_set
from refconv.testing.oracles.definition import Array

BORDERS: dict[str, Callable[[int, int], int]] = {
    "wraps around to the other end": lambda i, n: i % n,
    "repeats the edge element": lambda i, n: min(max(i, 0), n - 1),
    "reflects, without the edge element": lambda i, n: n - 1 - abs(n - 1 - abs(i)),
    "reflects, edge element included": lambda i, n: min(i % (2 * n), -1 - i % (2 * n) + 2 * n),
}
"""What may be read beyond the image instead of zero: index as a function of the position and the size."""


@dataclass(frozen=True)
class Pattern:
    """A part of a set of rows, described: exactly the rows whose coordinate `name` is in `values`.

    `name` is "overlap" for all but one of the rows with the same image element, and "some" where nothing simpler fits;
    `values` are then the kept end, or the first rows. `to_the_end` says of image elements whether no later one is kept.
    `taps` are those that single out the same rows as positions do.
    """

    name: str
    values: tuple[object, ...]
    count: int
    to_the_end: bool = False
    taps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Axis:
    """The line of one axis, and its exceptions.

    Attributes
    ----------
    right : bool
        Whether its reads are exactly the right ones.
    stride, dilation, start : int or None
        Of the line i = stride·o + dilation·t + start; dilation is negative for a flipped kernel. None if undetermined.
    line : tuple of int or None
        The same with 0 for what does not matter on this problem; None if no line fits.
    fixed : tuple
        The one value of o, and of t, where there is only one; else None.
    missing, extra : Pattern or None
        Products of the line that are absent, and products that are not on the line.
    border : tuple of str
        The elements read before and after the image; "zeros" if nothing.
    reads : Rows
        All rows (o, t, i).
    sizes : tuple of int
        Numbers of positions, taps and image elements.
    rules : tuple of Fit
        Rules that give the reads, if no line does.
    """

    right: bool
    stride: int | None
    dilation: int | None
    start: int | None
    line: Line | None
    fixed: tuple[int | None, int | None]
    missing: Pattern | None
    extra: Pattern | None
    border: tuple[str, str]
    reads: Rows
    sizes: tuple[int, int, int]
    rules: tuple[Fit, ...] = ()

    @property
    def before(self) -> int | None:
        """Elements before the image that the first window reaches, for either direction of positions and taps."""
        if self.start is None or self.line is None:
            return None
        stride, dilation, _ = self.line
        return -(self.start + min(0, stride) * (self.sizes[0] - 1) + min(0, dilation) * (self.sizes[1] - 1))


def fit_axes(
    reads: Sequence[Rows],
    asked: Sequence[Line],
    sizes: Sequence[tuple[int, int, int]],
    borders: Sequence[str] = tuple(BORDERS),
) -> list[Axis]:
    """Describe the rows of every axis, with the same kind of border, one of `borders`, where one kind fits all."""
    for first in borders or ("zeros",):
        kinds = sorted(borders, key=lambda kind: kind != first)
        axes = [fit_axis(*each, kinds) for each in zip(reads, asked, sizes, strict=True)]
        if {border for axis in axes for border in axis.border} <= {first, "zeros"}:
            break
    return axes


def fit_axis(reads: Rows, asked: Line, sizes: tuple[int, int, int], borders: Sequence[str] = tuple(BORDERS)) -> Axis:
    """Describe the rows (o, t, i) of one axis with `sizes` positions, taps and image elements.

    Of the kinds of borders the first that fits is named.

    Examples
    --------
    >>> axis = fit_axis(line_rows((1, 2, -1), (4, 2, 6)), (2, 2, -1), (4, 2, 6))
    >>> axis.stride, axis.dilation, axis.start, axis.right
    (1, 2, -1, False)
    """
    right = line_rows(asked, sizes)
    line = asked if reads <= right and reads else _solved(reads) or _changed(reads, asked, sizes)
    exact = line is not None and reads <= line_rows(line, sizes)
    still = line not in (None, asked) and any(n > 1 and not step for n, step in zip(sizes[:2], line[:2], strict=True))
    rules = () if exact and not still else tuple(fitting(reads, Due(asked, sizes)))
    if exact:  # a line without a stride may be one period of another
        rules = tuple(rule for rule in rules if rule.name == "modulo")
    if line is None or not exact:
        candidates = [asked, *_modes(reads)]
        if line is not None:
            candidates.append(line)
        best = max(candidates, key=lambda c: _overlap(c, reads, sizes))
        line = best if _overlap(best, reads, sizes) >= 0.5 else None
    rows = np.array(sorted(reads)).reshape(-1, 3)
    alone = [int(column[0]) if len(set(column.tolist())) == 1 else None for column in rows.T[:2]]
    fixed = (alone[0], alone[1])
    if line is None:
        return Axis(
            False, None, None, None, None, fixed, None, _some(reads - right), ("zeros", "zeros"), reads, sizes,
            rules,
        )  # fmt: skip
    model = line_rows(line, sizes)
    before, extra_before = _border(line, reads, sizes, lambda i: i < 0, borders)
    after, extra_after = _border(line, reads, sizes, lambda i: i >= sizes[2], borders)
    missing, extra = model - reads, reads - model - extra_before - extra_after
    if not missing and not extra:  # the border says all
        rules = tuple(rule for rule in rules if rule.name != "wrapped")
    whole = line != asked
    stride = line[0] if sizes[0] > 1 and not (whole and fixed[0] is not None) else None
    dilation = line[1] if sizes[1] > 1 and not (whole and fixed[1] is not None) else None
    known = (stride is not None or fixed[0] in (0, None)) and (dilation is not None or fixed[1] in (0, None))
    return Axis(
        reads == right,
        stride,
        dilation,
        line[2] if known else None,
        line,
        fixed,
        pattern(missing, model, ("o", "t", "i")),
        _some(extra),
        (before, after),
        reads,
        sizes,
        rules,
    )


def _overlap(line: Line, reads: Rows, sizes: tuple[int, int, int]) -> float:
    model = line_rows(line, sizes)
    return len(model & reads) / max(1, len(model | reads))


def _solved(reads: Rows) -> Line | None:
    """Return the whole-number line through all the reads, if there is exactly one for the coordinates that vary."""
    if not reads:
        return None
    rows = np.array(sorted(reads))
    columns = [axis for axis in (0, 1) if len(set(rows[:, axis].tolist())) > 1]
    matrix = np.stack([*(rows[:, axis] for axis in columns), np.ones(len(rows))], axis=1)
    solution, _, rank, _ = np.linalg.lstsq(matrix, rows[:, 2], rcond=None)
    whole = np.rint(solution).astype(int)
    if rank < matrix.shape[1] or not np.array_equal(matrix @ whole, rows[:, 2]):
        return None
    line = dict(zip([*columns, 2], whole.tolist(), strict=True))
    return line.get(0, 0), line.get(1, 0), line[2]


def _changed(reads: Rows, asked: Line, sizes: tuple[int, int, int]) -> Line | None:
    """Return the line with exactly these reads that differs from the right one in one number, if there is only one."""
    found = {
        line
        for column in range(3)
        for number in range(-sizes[2], sizes[2] + 1)
        if reads == line_rows(line := (*asked[:column], number, *asked[column + 1 :]), sizes)  # type: ignore[arg-type]
    }
    return found.pop() if reads and len(found) == 1 else None  # type: ignore[return-value]


def _modes(reads: Rows) -> list[Line]:
    """Return the lines of the commonest steps from one position, and from one tap, to the next."""
    if not reads:
        return []
    by_place: dict[tuple[int, int], list[int]] = {}
    for o, t, i in sorted(reads):
        by_place.setdefault((o, t), []).append(i)
    steps: list[list[int]] = [[], []]
    for (o, t), elements in by_place.items():
        for axis, following in enumerate(((o + 1, t), (o, t + 1))):
            steps[axis] += [j - i for i in elements for j in by_place.get(following, [])]
    stride, dilation = (max(set(s), key=s.count) if s else 0 for s in steps)
    starts = [i - stride * o - dilation * t for o, t, i in sorted(reads)]
    return [(stride, dilation, max(set(starts), key=starts.count))]


def _border(
    line: Line, reads: Rows, sizes: tuple[int, int, int], outside: Callable[[int], bool], borders: Sequence[str]
) -> tuple[str, Rows]:
    """Return the kind of border on one side of the image, with its rows."""
    places = [(o, t) for o in range(sizes[0]) for t in range(sizes[1])]
    beyond = [(o, t, line[0] * o + line[1] * t + line[2]) for o, t in places]
    beyond = [place for place in beyond if outside(place[2])]
    seen = {row for row in reads if row[:2] in {place[:2] for place in beyond}}
    for name in borders:
        rows = {(o, t, BORDERS[name](i, sizes[2])) for o, t, i in beyond}
        if rows and rows == seen:
            return name, frozenset(rows)
    return "zeros", frozenset()


def pattern(part: Rows, whole: Rows, names: Sequence[str]) -> Pattern | None:
    """Describe a part of a set of rows by the values of one coordinate, or as overlaps.

    >>> pattern(frozenset({(2, 0)}), frozenset({(0, 0), (1, 0), (2, 0)}), ("o", "t"))
    Pattern(name='o', values=(2,), count=1, to_the_end=False, taps=())
    """
    if not part:
        return None
    if part == whole:
        return Pattern("all", (), len(part))
    for column, name in enumerate(names):
        values = {row[column] for row in part}
        if part == {row for row in whole if row[column] in values}:
            last = name == "i" and all(row[column] < min(values) for row in whole - part)
            taps = tuple(sorted({row[1] for row in part})) if name == "o" and "t" in names else ()
            same = part == {row for row in whole if row[1] in taps}
            return Pattern(name, tuple(sorted(values)), len(part), last, taps if same else ())
    if tuple(names) == ("o", "t", "i"):
        kept: dict[int, list[tuple[int, ...]]] = {}
        for row in whole - part:
            kept.setdefault(row[2], []).append(row)
        there: dict[int, list[tuple[int, ...]]] = {}
        for row in whole:
            there.setdefault(row[2], []).append(row)
        if kept.keys() == there.keys() and all(len(rows) == 1 for rows in kept.values()):
            for end, choose in (("last", max), ("first", min)):
                if all(kept[i] == [choose(rows, key=lambda row: row[1])] for i, rows in there.items()):
                    return Pattern("overlap", (end,), len(part))
    return _some(part)


def _some(rows: Rows) -> Pattern | None:
    return Pattern("some", tuple(sorted(rows)[:3]), len(rows)) if rows else None


# --- All axes --------------------------------------------------------------------------------------------------------


def axes_of(table: Table) -> tuple[list[Rows], tuple[tuple[int, ...], tuple[int, ...]]] | None:
    """Separate the spatial rows into axes, if they are a product of axes.

    Returns
    -------
    list of Rows, pair of tuples
        The rows (o, t, i) of each image axis, and the axis of positions and the axis of taps that it goes with. None if
        the axes do not separate.
    """
    spatial = table.spatial
    d = table.spatial_dims
    whole = distinct(np.moveaxis(spatial, 0, 1).reshape(-1, 3 * d))
    whole = whole.reshape(len(whole), d, 3)
    for of_o, of_t in itertools.product(itertools.permutations(range(d)), repeat=2):
        axes = [
            row_set(np.stack([whole[:, of_o[a], 0], whole[:, of_t[a], 1], whole[:, a, 2]], axis=1)) for a in range(d)
        ]
        if np.prod([len(axis) for axis in axes]) == len(whole):
            return axes, (of_o, of_t)
    return None


def is_product(table: Table) -> bool:
    """Return whether the table is every combination of its samples, channels and spatial rows.

    >>> from refconv.testing.explain.table import Asked
    >>> from refconv.testing.oracles.problems import Problem
    >>> is_product(Asked(Problem(1, 1, 1, (3,), (2,), (1,), (1,), ((0, 0),), bias=False)).table("forward"))
    True
    """
    parts = (table.samples, table.channels, np.moveaxis(table.spatial, 0, 1).reshape(len(table.factor), -1))
    return bool(np.prod([len(distinct(part)) for part in parts]) == len(table.keys))


def flat_line(table: Table) -> list[int] | None:
    """Return [one step per axis of o, …, per axis of t, …, start] if the flat image index is such a sum of steps."""
    spatial, shape = table.spatial, table.shapes["image"][2:]
    index = np.ravel_multi_index(tuple(spatial[..., 2]), shape)
    columns = [*spatial[..., 0], *spatial[..., 1], np.ones(len(index))]
    matrix = np.stack(columns, axis=1)
    solution, _, rank, _ = np.linalg.lstsq(matrix, index, rcond=None)
    whole = np.rint(solution).astype(int)
    if rank < len(columns) or not np.array_equal(matrix @ whole, index):
        return None
    return [int(v) for v in whole]


# --- Factors ---------------------------------------------------------------------------------------------------------

COORDINATES = {"positions": ("n", "q", "o"), "weight": ("row", "col", "t"), "image": ("n", "m", "i")}


@dataclass(frozen=True)
class Factors:
    """The factors of the products: one number, or a number for each value of the coordinate on which they depend.

    `by` is "" for one factor, "overlap" where the factors average over the products of an image element, "taps" where
    all products of a position are divided by the number of its taps in the image and multiplied by one number, the
    name of a coordinate ("t", "o", "i", "q", "m", "row", "col", "n", with the axis where one axis suffices), or None.
    For None, `values` are the commonest factor and the others, and `odd` tells which products have others.
    """

    by: str | None
    values: dict[object, complex]
    odd: Array | None = None


def fit_factors(table: Table) -> Factors:
    """Describe the factors of all products."""
    factor = table.factor
    if len(factor) == 0:
        return Factors("", {})
    tolerance = 1e-3 * float(np.max(np.abs(factor)))
    if np.all(np.abs(factor - factor[0]) <= tolerance):
        return Factors("", {(): _plain(factor[0])})
    c = table.coordinates
    choices: list[tuple[str, Array]] = []
    for role in ROLES:
        for axis, name in enumerate(COORDINATES[role][:2]):
            choices.append((name, c[role][axis : axis + 1]))
        choices += [(f"{COORDINATES[role][2]} of axis {axis}", c[role][axis + 2][None]) for axis in
                    range(table.spatial_dims)]  # fmt: skip
    choices += [(COORDINATES[role][2], c[role][2:]) for role in ROLES]
    for name, role in (("overlap", "image"), ("taps", "positions")):
        scaled = factor * _spatial_counts(table, role)
        if np.all(np.abs(scaled - scaled[0]) <= 1e-3 * np.abs(scaled[0])) and (name == "taps" or _is_one(scaled[0])):
            return Factors(name, {(): _plain(scaled[0])})
    for name, values in choices:
        unique, index = np.unique(values, axis=1, return_inverse=True)
        index = index.reshape(-1)
        if unique.shape[1] * 2 > len(factor):
            continue
        first = np.zeros(unique.shape[1], factor.dtype)
        first[index[::-1]] = factor[::-1]
        if np.all(np.abs(first[index] - factor) <= tolerance):
            labels = [tuple(column) if len(column) > 1 else column[0] for column in unique.T.tolist()]
            return Factors(name, {label: _plain(value) for label, value in zip(labels, first, strict=True)})
    unique, index, counts = np.unique(np.round(factor, 6), return_inverse=True, return_counts=True)
    common = int(np.argmax(counts))
    order = [common, *(i for i in range(len(unique)) if i != common)]
    return Factors(None, dict(enumerate(_plain(unique[i]) for i in order)), index.reshape(-1) != common)


def _spatial_counts(table: Table, role: str) -> Array:
    """Return, for each product, how many spatial rows have the same place in the array of a role."""
    _, place, counts = np.unique(table.coordinates[role][2:], axis=1, return_inverse=True, return_counts=True)
    heads = table.coordinates[role][:2], *(table.coordinates[other][:2] for other in ROLES if other != role)
    each = len(np.unique(np.concatenate(heads), axis=1).T)
    return counts[place.reshape(-1)] / each


def _is_one(value: complex) -> bool:
    return bool(abs(value - 1) <= 1e-3)


def _plain(value: Array) -> complex:
    number = complex(value)
    return number if number.imag else number.real
