"""Dropout: a random half (or another fraction) of the elements is set to zero in training."""

from __future__ import annotations

import math

import numpy as np

from refconv.arrays import Array, Namespace, device, elements, masked, namespace_of
from refconv.engine import spread_rows
from refconv.integers import as_float, shown
from refconv.nn.base import Layer, check_floating, check_rng


class Dropout(Layer):
    r"""Drop each element with probability p in training, and keep the expected value in one of two ways.

    .. math:: y = \frac{x \cdot M}{1 - p}, \qquad \bar x = \frac{g \cdot M}{1 - p}

    with M = 0 where an element is dropped, else 1; in testing y = x. This is ``rescale="training"``. With
    ``rescale="testing"``, as in the papers, y = x·M in training and y = (1 − p)·x in testing.

    Parameters
    ----------
    p : float
        0 ≤ p < 1. Draws are multiples of 2⁻²⁴, so the true probability is p rounded up to such a multiple.
    rng : numpy.random.Generator
        Draws one number for each M; the device of x computes M from it, the same on every array module. It draws
        nothing in testing or for p = 0.
    rescale : {"training", "testing"}
        When elements are scaled.

    Attributes
    ----------
    rng : numpy.random.Generator
        Assign to it, or to its state, to repeat or resume training.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or x is not floating-point.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: A Simple Way to Prevent Neural
    Networks from Overfitting", JMLR 15 (2014), section 4 and (``rescale="training"``) section 10; AlexNet, NIPS 2012,
    section 4.2, multiplies by 0.5 in testing. G. L. Steele, D. Lea, C. H. Flood, "Fast Splittable Pseudorandom Number
    Generators", OOPSLA 2014 (SplitMix64, which draws M).

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Dropout
    >>> layer = Dropout(0.5, rng=np.random.default_rng(0))
    >>> layer.forward(np.ones((1, 6)))
    array([[0., 2., 0., 2., 0., 0.]])
    >>> layer.backward(np.full((1, 6), 10.))
    array([[ 0., 20.,  0., 20.,  0.,  0.]])
    >>> layer.eval().forward(np.ones((1, 6)))
    array([[1., 1., 1., 1., 1., 1.]])
    """

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator, rescale: str = "training") -> None:
        self.p = as_float(p, "p", 0, 1)
        self.rng = check_rng(rng)
        if rescale not in ("training", "testing"):
            raise ValueError(f"rescale must be 'training' or 'testing'; got {shown(rescale)}")
        self.rescale = rescale

    def forward(self, x: Array) -> Array:
        """Return x of any shape, with elements dropped in training, and scaled according to `rescale`."""
        xp = check_floating(self, x)
        scale = 1.0
        if self.training == (self.rescale == "training"):
            scale = 1 / (1 - self.p) if self.training else 1 - self.p
        kept = None
        if self.training and self.p:
            least = math.ceil(self.p * 2**24)
            kept = xp.reshape(self._draws_at_least(least, x), x.shape)
        return self._keep(_dropped(x, kept, scale), kept, scale)

    def backward(self, grad_output: Array) -> Array:
        """Return g where x was kept, else 0, scaled as x was."""
        return _dropped(grad_output, *self._recall(grad_output))

    def _draws_at_least(self, least: int, x: Array) -> Array:
        return _draws_at_least(least, draw_key(self.rng), x)


class DropoutShare(Dropout):
    """The part of a :class:`Dropout` layer that drops some of the features (N, F): a tower's.

    Together, the parts drop the elements that the whole layer would drop, if each is given the whole layer's keys.

    Parameters
    ----------
    p, rescale
        As for :class:`Dropout`.
    start, features : int
        Number of features before this layer's, and of all features.

    Attributes
    ----------
    key : int
        The key of the next forward pass in training: :func:`draw_key`.
    """

    def __init__(self, p: float = 0.5, *, start: int, features: int, rescale: str = "training") -> None:
        super().__init__(p, rng=np.random.default_rng(0), rescale=rescale)
        self.start, self.features, self.key = start, features, 0

    def _draws_at_least(self, least: int, x: Array) -> Array:
        return _draws_at_least(least, self.key, x, self.start, self.features)


def draw_key(rng: np.random.Generator) -> int:
    """Draw the number that determines which elements a layer drops."""
    return int(rng.integers(2**63))


def _draws_at_least(least: int, key: int, like: Array, start: int = 0, features: int | None = None) -> Array:
    """Return, for each element of `like`, whether its draw from 0, …, 2²⁴ − 1 is at least `least`.

    Element i gets the top 24 bits of SplitMix64's number i, counted from the state `key`. Signed 64-bit integers, which
    every array module has, wrap to the same bits as unsigned ones. If `features` is given, `like` consists of the
    columns from `start` of an array with that many columns, whose elements are counted.
    """
    xp, count = namespace_of({"x": like}), elements(like.shape)
    found = xp.empty(count, dtype=xp.bool, device=device(like))

    def work(part: slice) -> None:
        z = xp.arange(part.start, part.stop, dtype=xp.int64, device=device(like))
        if features is not None:
            z = z // like.shape[1] * features + (z % like.shape[1] + start)
        z = z * _signed(0x9E3779B97F4A7C15) + key
        z = (z ^ _shifted(xp, z, 30)) * _signed(0xBF58476D1CE4E5B9)
        z = (z ^ _shifted(xp, z, 27)) * _signed(0x94D049BB133111EB)
        found[part] = _shifted(xp, z, 40) >= least

    spread_rows(xp, work, count, 4 * 8)
    return found


def _shifted(xp: Namespace, z: Array, places: int) -> Array:
    """Return z >> places as for unsigned 64-bit integers, with zeros from the left."""
    return xp.bitwise_right_shift(z, places) & (2 ** (64 - places) - 1)


def _signed(bits: int) -> int:
    """Return the signed 64-bit integer of the same bits."""
    return bits - 2**64 if bits >= 2**63 else bits


def _dropped(x: Array, kept: Array | None, scale: float) -> Array:
    """Return scale·x where `kept` is true, else 0: a new array."""
    xp = namespace_of({"x": x})
    scaled = x * scale
    return scaled if kept is None else masked(xp, scaled, kept)
