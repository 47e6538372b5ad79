"""Fit channels, weight rows and samples: which go together, and the names of known mix-ups."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from refconv.testing.explain.fit import Pattern, Rows, pattern
from refconv.testing.explain.table import Asked


def channel_models(asked: Asked) -> Iterator[tuple[str, Rows]]:
    """Yield ways to mix channels up: a name, and rows (q, weight row, weight column, m)."""
    groups, cols = asked.groups, asked.shapes["weight"][1]
    total = asked.shapes["positions"][1]
    each = total // groups
    right = list(itertools.product(range(groups), range(each), range(cols)))

    def rows(q: object = None, row: object = None, m: object = None) -> Rows:
        def value(function: object, g: int, j: int, c: int, otherwise: int) -> int:
            return otherwise if function is None else int(function(g, j, c))  # type: ignore[operator]

        return frozenset(
            (value(q, g, j, c, g * each + j), value(row, g, j, c, g * each + j), c, value(m, g, j, c, g * cols + c))
            for g, j, c in right
        )

    if groups > 1:
        yield "first inputs", rows(m=lambda g, j, c: c)
        yield "first positions", rows(q=lambda g, j, c: j)
        yield "groups reversed", rows(m=lambda g, j, c: (groups - 1 - g) * cols + c)
        yield "next group", rows(m=lambda g, j, c: (g + 1) % groups * cols + c)
        yield "previous group", rows(m=lambda g, j, c: (g - 1) % groups * cols + c)
        yield "image interleaved", rows(m=lambda g, j, c: g + c * groups)
        yield "positions interleaved", rows(q=lambda g, j, c: j * groups + g)
        yield "both interleaved", rows(q=lambda g, j, c: j * groups + g, m=lambda g, j, c: g + c * groups)
        yield "modulo", rows(m=lambda g, j, c: (g * each + j) % groups * cols + c)
        yield "first weights", rows(row=lambda g, j, c: j)
        yield "weights reversed", rows(row=lambda g, j, c: (groups - 1 - g) * each + j)
        yield "first group", frozenset(row for row in rows() if row[0] < each)
        yield "last group", frozenset(row for row in rows() if row[0] >= total - each)
    if cols > 1:
        yield "columns reversed", rows(m=lambda g, j, c: g * cols + cols - 1 - c)
        yield "first column", frozenset(row for row in rows() if row[2] == 0)
        yield "last column", frozenset(row for row in rows() if row[2] == cols - 1)
        yield "every column", rows() | frozenset((q, row, c, m) for q, row, _, m in rows() for c in range(cols))
    if each > 1:
        yield "rows reversed in groups", rows(row=lambda g, j, c: g * each + each - 1 - j)
        yield "first row of groups", rows(row=lambda g, j, c: g * each)
        yield "last rows", frozenset(row for row in rows() if row[0] % each == each - 1)
        yield "first rows", frozenset(row for row in rows() if row[0] % each == 0)
    if total > 1:
        for kind, column, whole, block in (("positions", 0, total, each), ("image", 3, groups * cols, cols)):
            for name, size in ((f"earlier {kind}", whole), (f"earlier {kind} of the group", block)):
                yield (
                    name,
                    frozenset(
                        (*row[:column], later, *row[column + 1 :])
                        for row in rows()
                        for later in range(row[column], (row[column] // size + 1) * size)
                    ),
                )
        yield "rows reversed", rows(row=lambda g, j, c: total - 1 - g * each - j)
        yield "first row", rows(row=lambda g, j, c: 0)


@dataclass(frozen=True)
class Channels:
    """Which channels and weight rows go together.

    `orders` are "right", or the known mix-ups that have these rows. `reads` maps each position channel to image
    channels, and `rows` to weight rows. `missing` describes absent rows where nothing else is wrong.
    """

    orders: tuple[str, ...]
    reads: dict[int, list[int]]
    rows: dict[int, list[int]]
    missing: Pattern | None
    wrong: list[int]

    @property
    def name(self) -> str | None:
        """The first of the orders."""
        return next(iter(self.orders), None)


def fit_channels(rows: Rows, asked: Asked, right: Rows) -> Channels:
    """Describe the rows (q, weight row, weight column, m)."""
    reads: dict[int, set[int]] = {}
    weight_rows: dict[int, set[int]] = {}
    for q, row, _, m in rows:
        reads.setdefault(q, set()).add(m)
        weight_rows.setdefault(q, set()).add(row)
    same = (name for name, model in channel_models(asked) if model == rows)
    orders = ("right",) if rows == right else tuple(same)
    missing = None
    if rows < right:
        missing = pattern(right - rows, right, ("q", "row", "col", "m"))
    wrong = sorted({row[0] for row in rows ^ right})
    return Channels(
        orders,
        {q: sorted(reads[q]) for q in sorted(reads)},
        {q: sorted(weight_rows[q]) for q in sorted(weight_rows)},
        missing,
        wrong,
    )


def fit_samples(rows: Rows, count: int) -> str | None:
    """Name how samples go together: "right", "only 0, 1", "reversed", "all" or None for anything else.

    >>> fit_samples(frozenset({(1, 1)}), 2), fit_samples(frozenset({(0, 1), (1, 0)}), 2)
    ('only 1', 'reversed')
    """
    pairs = sorted(rows)
    if pairs == [(n, n) for n in range(count)]:
        return "right"
    if pairs and all(a == b for a, b in pairs):
        return "only " + ", ".join(str(a) for a, _ in pairs)
    if pairs == [(n, count - 1 - n) for n in range(count)]:
        return "reversed"
    if len(pairs) == count * count:
        return "all"
    return None
