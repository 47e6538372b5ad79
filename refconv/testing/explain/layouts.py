"""Fit arrays whose elements are out of place: reshaped or transposed, and otherwise right."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refconv.testing.explain.table import ROLES, Table
from refconv.testing.oracles.definition import Array


@dataclass(frozen=True)
class Layout:
    """One array used with its elements in other places, and otherwise right.

    `element` gives, for each flat index of the array, the flat index of the element whose work it does. `order` is the
    order of axes that was taken for the right one; `merged` says whether the array is transposed and then reshaped
    (True) or reshaped and then transposed back; `per_group` whether that is done to each group of a weight.
    """

    role: str
    element: Array
    order: tuple[int, ...] | None
    merged: bool
    per_group: bool


def fit_layouts(table: Table, right: Table, groups: int) -> Iterator[Layout]:
    """Yield the arrays whose elements do the right work of other elements, and the orders of axes that do the same."""
    for role in ROLES:
        actual, due = table.signatures(role), right.signatures(role)
        if len(actual) != len(due) or not np.isin(actual, np.append(due, 0)).all():
            continue
        order = np.argsort(due, kind="stable")
        element = order[np.minimum(np.searchsorted(due[order], actual), len(due) - 1)]
        element = np.where(actual == 0, -1, element)
        for per_group in (False, True) if role == "weight" and groups > 1 else (False,):
            shape = _grouped(table.shapes[role], groups if per_group else 0)
            for axes in itertools.permutations(range(len(shape))):
                if (per_group and axes[0] != 0) or axes == tuple(range(len(shape))):
                    continue
                for merged in (True, False):
                    places = _reshaped(shape, axes, merged)
                    if np.array_equal(actual, due[places]):
                        yield Layout(role, places, axes, merged, per_group)
        others = np.any((element >= 0) & (element != np.arange(len(element))))
        if others and len(np.unique(due[due != 0])) == np.count_nonzero(due):
            yield Layout(role, element, None, False, False)


def moved(due: Table, layout: Layout, groups: int) -> Table:
    """Return the right table of another problem, with an array in the order of a layout."""
    assert layout.order is not None
    shape = due.shapes[layout.role]
    element = _reshaped(_grouped(shape, groups if layout.per_group else 0), layout.order, layout.merged)
    return Table(due.shapes, due.flat | {layout.role: np.argsort(element)[due.flat[layout.role]]}, due.factor)


def _grouped(shape: Sequence[int], groups: int) -> tuple[int, ...]:
    return (groups, shape[0] // groups, *shape[1:]) if groups else tuple(shape)


def _reshaped(shape: Sequence[int], axes: Sequence[int], merged: bool) -> Array:
    index = np.arange(int(np.prod(shape)))
    if merged:
        return index.reshape(shape).transpose(axes).reshape(-1)
    return index.reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes)).reshape(-1)
