"""The width of a residual network for a given number of parameters. Integers only."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from refconv.cost import parse_groups, residual
from refconv.groups import MAX_CHANNELS
from refconv.integers import as_int

LARGEST_BUDGET = 10_000_000
FARTHEST = 0.1
"""Maximum deviation of the nearest width from the budget, as a fraction of the budget."""


@dataclass(frozen=True)
class Network:
    """One point of the comparison: a residual network for a data set, with its costs."""

    data: str
    budget: int
    groups: str
    channels: int
    parameters: int
    macs: int

    def key(self, seed: int) -> tuple[str, int, str, int]:
        """Return the key of its training with a seed."""
        return self.data, self.budget, self.groups, seed


def match_width(groups: str, budget: int, *, blocks: int, c_in: int, classes: int, side: int) -> int:
    """Return the number of channels whose residual network is nearest to a number of parameters.

    n uniform groups need a multiple of n channels, n logarithmic groups at least 2^(n−1). Parameters increase with
    channels (the tests verify this), so it is enough to compare the two widths around the budget. If both are equally
    near, the result is the smaller.

    Parameters
    ----------
    groups : str
        See :func:`refconv.cost.parse_groups`; "table" is excluded, because it has only one width.
    budget : int
        Desired number of parameters, at most ten million.
    blocks, c_in, classes, side : int
        See :func:`refconv.nn.residual_network`.

    Returns
    -------
    int
        Number of channels.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or the nearest network misses the budget by more than a tenth.

    Examples
    --------
    >>> images = {"blocks": 2, "c_in": 1, "classes": 10, "side": 8}
    >>> [match_width(groups, 7000, **images) for groups in ("dense", "uniform:4", "log:3")]
    [15, 24, 22]
    >>> match_width("uniform:32", 3600, **images)
    Traceback (most recent call last):
        ...
    ValueError: budget=3600 cannot be met with groups=uniform:32: 32 channels have 6090 parameters
    """
    budget, spec = as_int(budget, "budget", 1, LARGEST_BUDGET), parse_groups(groups)
    if spec.kind == "table":
        raise ValueError("groups=table has only one width: it cannot meet a budget")
    uniform = spec.kind == "uniform"
    step = spec.n if uniform else 1
    least = step if uniform else 2 ** min(spec.n - 1, MAX_CHANNELS.bit_length())

    def parameters(channels: int) -> int:
        return residual(groups, channels=channels, blocks=blocks, c_in=c_in, classes=classes, side=side).parameters

    widths = range(least, max(budget, least + 1), step)  # a channel has more than one parameter
    if least > MAX_CHANNELS:
        raise ValueError(f"budget={budget} cannot be met with groups={groups}: they need at least {least} channels")
    above = bisect.bisect_left(widths, budget, key=parameters)
    nearest = min(widths[max(above - 1, 0) : above + 1], key=lambda channels: abs(parameters(channels) - budget))
    if abs(parameters(nearest) - budget) > FARTHEST * budget:
        raise ValueError(
            f"budget={budget} cannot be met with groups={groups}: {nearest} channels have {parameters(nearest)} "
            "parameters"
        )
    return nearest
