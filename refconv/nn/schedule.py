"""Learning-rate schedules: factors of the learning rate as training proceeds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from refconv.integers import shown

Schedule = Callable[[float], float]
"""Maps the completed part of the training, 0 ≤ part < 1, to a factor of the learning rate."""


def parse_schedule(spec: str) -> Schedule:
    r"""Read a learning-rate schedule.

    .. math:: \mathrm{cosine}(\mathrm{part}) = \tfrac{1}{2} (1 + \cos(\pi \cdot \mathrm{part})), \qquad
              \mathrm{steps}(\mathrm{part}) = 10^{-|\{A \,:\, A \le \mathrm{part}\}|}

    Parameters
    ----------
    spec : str
        ``"constant"``, a factor of 1; ``"cosine"``, from 1 down to 0; ``"steps:A,B,…"``: divide by 10 at each of
        these parts of the training. AlexNet's rate was divided three times (by hand, when the error stopped improving).

    Returns
    -------
    callable (float) -> float
        Maps the completed part of the training to the factor.

    Raises
    ------
    ValueError, TypeError
        If `spec` is none of these, or a part is not within 0 … 1.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, section 5. I. Loshchilov, F. Hutter, "SGDR", arXiv 1608.03983, equation 5 (cosine).

    Examples
    --------
    >>> factor = parse_schedule("steps:0.5,0.75")
    >>> [factor(part) for part in (0.0, 0.5, 0.8)]
    [1.0, 0.1, 0.01]
    >>> parse_schedule("cosine")(0.5)
    0.5
    """
    if not isinstance(spec, str):
        raise TypeError(f"schedule must be a string; got {shown(spec)}")
    if spec == "constant":
        return lambda part: 1.0
    if spec == "cosine":
        return lambda part: (1 + math.cos(math.pi * part)) / 2
    number = r"(?:\d{1,9}\.?\d{0,9}|\.\d{1,9})"
    if re.fullmatch(rf"steps:{number}(?:,{number})*", spec, re.ASCII):
        parts = [float(part) for part in spec.removeprefix("steps:").split(",")]
        if all(0 < part < 1 for part in parts) and parts == sorted(set(parts)):
            return lambda part: 1.0 / 10 ** sum(part >= edge for edge in parts)
    raise ValueError(
        f"schedule must be 'constant', 'cosine' or 'steps:A,B,…' with 0 < A < B < … < 1; got {shown(spec)}"
    )
