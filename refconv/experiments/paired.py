"""Paired comparisons: the same seeds with and without a change, and the significance of the differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from refconv.integers import as_float
from refconv.nn.data.split import needing

NO_DIFFERENCE = "no clear difference"


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def has_zero(self) -> bool:
        """Whether the interval contains 0, edges included."""
        return self.low <= 0 <= self.high


def paired_interval(differences: Sequence[float], confidence: float = 0.95) -> Interval:
    r"""Return the mean of paired differences with its confidence interval.

    .. math:: \bar d \pm t_{(1+\text{confidence})/2,\;n-1} \cdot s_d / \sqrt n

    for differences d_1 … d_n of pairs that differ only in the compared feature, with sample standard deviation s_d. If
    all differences are equal, the interval is that one number.

    Parameters
    ----------
    differences : sequence of float
        At least two differences.
    confidence : float
        More than 0 and less than 1.

    Returns
    -------
    Interval
        ``(mean, low, high)``.

    Raises
    ------
    ImportError
        If SciPy, which provides the quantiles of Student's t, is not installed.

    References
    ----------
    Student, "The Probable Error of a Mean", Biometrika 6 (1908).

    Examples
    --------
    >>> interval = paired_interval([1, 2, 3])                  # t_{0.975, 2} = 4.3027, s_d = 1
    >>> [round(x, 3) for x in interval], interval.has_zero
    ([2.0, -0.484, 4.484], True)
    """
    confidence = as_float(confidence, "confidence", 0, 1)
    if len(differences) < 2:
        raise ValueError(f"differences must be at least two, since one alone has no spread; got {len(differences)}")
    with needing("confidence intervals", "SciPy"):
        from scipy.stats import t
    mean, n = statistics.fmean(differences), len(differences)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def verdict(alone: Interval, corrected: Interval) -> str:
    """Return a verdict in words on a difference of accuracies.

    Parameters
    ----------
    alone : Interval
        The interval as if this were the only comparison.
    corrected : Interval
        The wider interval, which allows for all comparisons.

    Returns
    -------
    str
        "no clear difference" if `alone` contains 0 (edges included); else "better" or "worse", with ", taken alone"
        if `corrected` contains 0.

    Examples
    --------
    >>> verdict(Interval(2, 1, 3), Interval(2, -1, 5))
    'better, taken alone'
    """
    if alone.has_zero:
        return NO_DIFFERENCE
    word = "better" if alone.mean > 0 else "worse"
    return f"{word}, taken alone" if corrected.has_zero else word
