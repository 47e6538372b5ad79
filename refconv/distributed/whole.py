"""Training on whole numbers, where every order of summation gives the same bits.

Sums of whole numbers below 2⁵³ are exact in float64. So one process and any number of towers must agree bit for bit,
and one wrong element shows in the loss of a later step. Three changes make a training step of AlexNet exact:

* every weight is −1, 0 or 1, and few are not 0. After each step, the weights are mapped back, element by element;
* normalisation has α = 0 and k = 1, and so does nothing;
* the gradient of the loss is scaled and rounded to whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

from refconv.arrays import Array, array_namespace, namespace_of, on_their_device
from refconv.nn.base import Layer, Parameter
from refconv.nn.layers import Conv, Linear
from refconv.nn.normalisation import LocalResponseNorm

LARGEST = 2**53
"""Below it, float64 represents every whole number."""

_SCALE, _PERIOD = 2.0**20, 64
"""Factor of the initial weights; one weight in _PERIOD becomes 1, and one becomes −1."""


def no_normalisation(model: Layer) -> None:
    """Let the normalisations of a network return their input."""
    for child in model.children().values():
        if isinstance(child, LocalResponseNorm):
            child.k, child.alpha = 1.0, 0.0
        no_normalisation(child)


def begin_whole(model: Layer) -> None:
    """Make a network ready for whole numbers: its weights and its normalisations."""
    no_normalisation(model)
    for parameter in model.parameters():
        parameter.value = parameter.value * _SCALE
    sparse_whole(model.parameters())


def sparse_whole(parameters: Iterable[Parameter]) -> None:
    """Replace every weight by −1, 0 or 1: itself if it is one of them, else a number that depends on its low bits."""
    for parameter in parameters:
        parameter.value = _sparse(parameter.value)


@on_their_device
def _sparse(w: Array) -> Array:
    xp = namespace_of({"w": w})
    low = xp.remainder(xp.floor(w), float(_PERIOD))
    drawn = xp.astype(low == 32, w.dtype) - xp.astype(low == 33, w.dtype)
    return xp.where(xp.abs(w) <= 1, xp.trunc(w), drawn)


@on_their_device
def whole_gradient(grad: Array) -> Array:
    """Return the gradient of a mean loss as whole numbers from −8 to 8, element by element."""
    xp = namespace_of({"grad": grad})
    return xp.round(grad * (8 * grad.shape[0]))


class Watched(Layer):
    """A convolution or linear layer that records a bound of its largest sums.

    Parameters
    ----------
    layer : Conv or Linear
        The layer, whose parameters have the same names here.

    Attributes
    ----------
    largest : float
        No partial sum of any pass, in any order, exceeded it: the largest magnitude of one operand times the largest
        sum of magnitudes of the other.
    """

    def __init__(self, layer: Conv | Linear) -> None:
        self.layer, self.largest, self._x = layer, 0.0, 0.0

    def parameters(self) -> list[Parameter]:
        """Return the layer's parameters."""
        return self.layer.parameters()

    def forward(self, x: Array) -> Array:
        """Return the layer's output."""
        xp = namespace_of({"x": x})
        self._x = float(xp.max(xp.abs(x)))
        rows = max(float(xp.max(xp.sum(xp.abs(w), axis=tuple(range(1, w.ndim))))) for w in self._weights())
        self.largest = max(self.largest, self._x * rows + 1)  # a bias is at most 1
        return self.layer.forward(x)

    def backward(self, grad_output: Array) -> Array:
        """Return the layer's input gradient."""
        xp = array_namespace(grad_output)
        g = xp.abs(grad_output)
        columns = max(
            float(xp.max(xp.sum(xp.abs(w), axis=tuple(i for i in range(w.ndim) if i != 1)))) for w in self._weights()
        )
        per_output = float(xp.max(xp.sum(g, axis=tuple(i for i in range(g.ndim) if i != 1))))
        self.largest = max(self.largest, float(xp.max(g)) * columns, per_output * max(self._x, 1.0))
        return self.layer.backward(grad_output)

    def _weights(self) -> list[Array]:
        return [parameter.value for parameter in self.parameters() if parameter.name != "bias"]


def largest_sum(model: Layer) -> float:
    """Return a bound of every sum that the watched layers of a network computed."""
    own = model.largest if isinstance(model, Watched) else 0.0
    return max([own, *map(largest_sum, model.children().values())])


def watched(layers: dict[str, Layer]) -> dict[str, Layer]:
    """Return the layers of a network by name, those with weights watched."""
    return {name: Watched(layer) if isinstance(layer, Conv | Linear) else layer for name, layer in layers.items()}


def check_exact(model: Layer, dtype: str) -> None:
    """Raise ArithmeticError unless every sum so far was exact."""
    if dtype != "float64" or (most := largest_sum(model)) >= LARGEST:
        raise ArithmeticError(f"sums of whole numbers may reach {most:.3g}, and are exact below 2^53 in float64 only")
