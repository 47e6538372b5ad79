"""Fit arrays whose elements are out of place: reshaped or transposed, and otherwise right."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refconv.testing.explain.table import ROLES, Table
from refconv.testing.oracles.definition import Array

UNUSED = -1
"""Of an element that does no work but should."""

HIDDEN = -2
"""Of an element that does no work and should do none."""


@dataclass(frozen=True)
class Layout:
    """One array used with its elements in other places, and otherwise right.

    `element` gives, for each flat index of the array, the flat index of the element whose work it does; UNUSED if it
    does none but should, and HIDDEN if it should do none. `order` is the order of axes that was taken
    for the right one; `merged` says whether the array is transposed and then reshaped
    (True) or reshaped and then transposed back. `split` says which axes are divided first: the outer number of each is
    the size divided by the inner one, and `per_group` divides a weight's rows by the number of groups.
    """

    role: str
    element: Array
    order: tuple[int, ...] | None = None
    merged: bool = False
    per_group: bool = False
    split: tuple[tuple[int, int], ...] = ()


BLOCKS = (2, 4, 8)
"""Inner sizes of blocked channels."""


def fit_layouts(table: Table, right: Table, groups: int) -> Iterator[Layout]:
    """Yield the arrays whose elements do the right work of other elements, and the orders of axes that do the same.

    Blocks of channels are tried where no order of whole axes has these elements.
    """
    for role in ROLES:
        actual, due = table.signatures(role), right.signatures(role)
        if len(actual) != len(due) or not np.isin(actual, np.append(due, 0)).all():
            continue
        order = np.argsort(due, kind="stable")
        element = order[np.minimum(np.searchsorted(due[order], actual), len(due) - 1)]
        element = np.where(actual != 0, element, np.where(due != 0, UNUSED, HIDDEN))
        others = np.any((element >= 0) & (element != np.arange(len(element))))
        found = [one for one in _whole(role, table.shapes[role], groups) if np.array_equal(actual, due[one.element])]
        last = len(element) - 1
        ends_stay = all(element[e] == e or element[e] < 0 for e in (0, last))  # as in any order of axes
        if not found and others and ends_stay:
            blocked = _blocked(role, table.shapes[role])
            found = [one for one in blocked if np.array_equal(actual, due[one.element])]
        yield from found
        if others and len(np.unique(due[due != 0])) == np.count_nonzero(due):
            yield Layout(role, element)


def _whole(role: str, shape: Sequence[int], groups: int) -> Iterator[Layout]:
    """Yield all orders of the axes of an array."""
    for per_group in (False, True) if role == "weight" and groups > 1 else (False,):
        yield from _orders(role, shape, per_group, groups, ())


def _blocked(role: str, shape: Sequence[int]) -> Iterator[Layout]:
    """Yield all orders of axes in which channels, or both of a weight's axes of channels, are divided into blocks."""
    of_channels = (0, 1) if role == "weight" else (1,)
    for block in BLOCKS:
        fitting = [axis for axis in of_channels if shape[axis] > block and shape[axis] % block == 0]
        for count in range(1, len(fitting) + 1):
            for axes in itertools.combinations(fitting, count):
                yield from _orders(role, shape, False, 1, tuple((axis, block) for axis in axes))


def _orders(
    role: str, shape: Sequence[int], per_group: bool, groups: int, split: tuple[tuple[int, int], ...]
) -> Iterator[Layout]:
    divided = divided_shape(shape, groups if per_group else 0, split)
    for axes in itertools.permutations(range(len(divided))):
        if (per_group and axes[0] != 0) or axes == tuple(range(len(divided))):
            continue
        for merged in (True, False):
            yield Layout(role, _reshaped(divided, axes, merged), axes, merged, per_group, split)


def moved(due: Table, layout: Layout, groups: int) -> Table | None:
    """Return the right table of another problem, with an array in the order of a layout; None if blocks do not fit."""
    assert layout.order is not None
    shape = due.shapes[layout.role]
    if any(shape[axis] % block for axis, block in layout.split):
        return None
    divided = divided_shape(shape, groups if layout.per_group else 0, layout.split)
    element = _reshaped(divided, layout.order, layout.merged)
    return Table(due.shapes, due.flat | {layout.role: np.argsort(element)[due.flat[layout.role]]}, due.factor)


def divided_shape(shape: Sequence[int], groups: int, split: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return a shape whose rows are divided by groups (if there are any), or whose split axes are divided by blocks.

    >>> divided_shape((4, 2, 3), 2, ()), divided_shape((8, 6, 3), 0, ((1, 2),))
    ((2, 2, 2, 3), (8, 3, 2, 3))
    """
    if groups:
        return (groups, shape[0] // groups, *shape[1:])
    inner = dict(split)
    sizes = ((n // inner[axis], inner[axis]) if axis in inner else (n,) for axis, n in enumerate(shape))
    return tuple(itertools.chain.from_iterable(sizes))


def _reshaped(shape: Sequence[int], axes: Sequence[int], merged: bool) -> Array:
    index = np.arange(int(np.prod(shape)))
    if merged:
        return index.reshape(shape).transpose(axes).reshape(-1)
    return index.reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes)).reshape(-1)
