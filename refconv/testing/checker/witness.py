"""The smallest problem that shows a catalogued mistake."""

from __future__ import annotations

from refconv.testing.checker.cases import Case
from refconv.testing.checker.check import check_conv
from refconv.testing.mutants import Mutant


def witness(mutant: Mutant) -> Case:
    """Return the smallest problem on which :func:`~refconv.testing.check_conv` catches a mistake.

    Parameters
    ----------
    mutant : Mutant
        A mistake of the catalogue.

    Returns
    -------
    Case
        The problem, with its arrays. A mistake of memory shows there only after the preceding calls.

    Raises
    ------
    ValueError
        If no problem shows the mistake.

    Examples
    --------
    >>> from refconv.testing.mutants import CATALOGUE
    >>> wrong = {mutant.name: mutant for mutant in CATALOGUE}
    >>> print(witness(wrong["groups reversed"]))
    x(1, 2, 1, 1) weight(2, 1, 1, 1) stride=(1, 1) padding=(0, 0) dilation=(1, 1) groups=2
    """
    wrong = mutant.make()
    report = check_conv(wrong.forward, wrong.backward, time_limit=2.0, **mutant.settings())
    if report.passed:
        raise ValueError(f"no problem shows the mistake {mutant.name!r}")
    return report.failures[0].case
