"""Channel groups of a model's convolutions, given as a function, a number or a word."""

from __future__ import annotations

from collections.abc import Callable

from refconv.cost import parse_groups
from refconv.groups import ChannelGroups

Grouping = Callable[[int, int], int | ChannelGroups]
"""Chooses the groups of a convolution from its input and output channels: ``lambda c_in, c_out: 2``."""


def as_grouping(groups: int | str | Grouping) -> Grouping:
    """Return a function unchanged, and turn a specification for :func:`refconv.cost.parse_groups` into a function.

    >>> as_grouping(2)(4, 6), as_grouping("log:3")(4, 4)
    (2, ChannelGroups.from_sizes([2, 1, 1], [2, 1, 1]))
    """
    if callable(groups):
        return groups
    spec = parse_groups(groups)
    return (lambda c_in, c_out: spec.n) if spec.kind == "uniform" else spec.build
