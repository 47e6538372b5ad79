"""Networks: layers one after the other, with or without a shortcut around them."""

from __future__ import annotations

from collections.abc import Iterator

from refconv.arrays import Array
from refconv.integers import as_int, shown
from refconv.nn.base import Layer, adopted, named


class Sequential(Layer):
    r"""Layers one after the other, y = f_m(… f_2(f_1(x))); backwards, the chain rule.

    Parameters
    ----------
    *layers : Layer
        At least one. An object may occur only once, since it remembers one forward pass. The names are "0", "1", ….
    **named : Layer
        Further layers, with their own names: ``Sequential(conv=Conv(…), relu=ReLU())``.

    Attributes
    ----------
    layers : tuple of Layer
        All layers, in order.

    Raises
    ------
    ValueError
        If there are no layers, a layer or a name occurs twice, or a name is empty or contains a dot, which separates
        the names of a path.
    TypeError
        If an argument is not a :class:`Layer`.

    Notes
    -----
    An error of a layer's forward or backward pass names the layer by its path: ``layer 'block.conv': …``.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Flatten, ReLU, Sequential
    >>> model = Sequential(ReLU(), rows=Flatten())
    >>> model.forward(np.array([[[1., -2.], [-3., 4.]]]))
    array([[1., 0., 0., 4.]])
    >>> len(model), model[0] is model["0"], [type(layer).__name__ for layer in model]
    (2, True, ['ReLU', 'Flatten'])
    >>> model
    Sequential
      0: ReLU()
      rows: Flatten()
    """

    def __init__(self, *layers: Layer, **named: Layer) -> None:
        numbered = {str(position): layer for position, layer in enumerate(layers)}
        for name in named:
            if name in numbered or not name or "." in name:
                raise ValueError(
                    f"a layer's name must not be empty, contain a dot, or be the number of another layer; got {name!r}"
                )
        self._children = numbered | named
        for name, layer in self._children.items():
            if not isinstance(layer, Layer):
                label = f"layers[{name}]" if name.isdigit() else name
                raise TypeError(f"{label} must be a Layer; got {type(layer).__name__}")
        self.layers = tuple(self._children.values())
        if not self.layers:
            raise ValueError(f"{type(self).__name__} needs at least one layer; got none")
        if len(set(map(id, self.layers))) < len(self.layers):
            raise ValueError(f"{type(self).__name__} needs distinct layers; one was given twice")

    def children(self) -> dict[str, Layer]:
        """Return the layers by name, in order."""
        return dict(self._children)

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        """Iterate over the layers, in order."""
        return iter(self.layers)

    def __getitem__(self, index: int | str) -> Layer:
        """Return a layer by its number, from 0 or, if negative, from the end, or by its name.

        Raises
        ------
        IndexError, KeyError
            If there is no such layer.
        TypeError
            If `index` is neither an integer nor a string.
        """
        if isinstance(index, str):
            if index not in self._children:
                raise KeyError(f"name must be one of {', '.join(self._children)}; got {shown(index)}")
            return self._children[index]
        number, count = as_int(index, "index"), len(self)
        if not -count <= number < count:
            raise IndexError(f"index must be from {-count} to {count - 1}; got {number}")
        return self.layers[number]

    def forward(self, x: Array) -> Array:
        """Return the last layer's output."""
        x = adopted(self, x)
        for name, layer in self._children.items():
            with named(name, layer):
                x = layer.forward(x)
        return x

    def backward(self, grad_output: Array) -> Array:
        """Return the gradient of the first layer's input: each layer's backward, last layer first."""
        for name, layer in reversed(self._children.items()):
            with named(name, layer):
                grad_output = layer.backward(grad_output)
        return grad_output


class Residual(Sequential):
    r"""Layers with an identity shortcut around them.

    .. math:: y = x + f(x), \qquad \bar x = g + f'(x)^{\mathsf T} g

    The shortcut adds element by element, so f must keep the shape: the number of channels and the spatial size. With
    the shortcut, even f = 0 passes the input on, and every earlier layer receives a direct gradient.

    Parameters
    ----------
    *layers, **named : Layer
        f, the layers one after the other, as for :class:`Sequential`.

    Raises
    ------
    ValueError
        If f(x) does not have the shape of x; see also :class:`Sequential`.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import ReLU, Residual
    >>> block = Residual(ReLU())
    >>> block.forward(np.array([[-1., 2.]]))
    array([[-1.,  4.]])
    >>> block.backward(np.array([[1., 1.]]))
    array([[1., 2.]])
    """

    def forward(self, x: Array) -> Array:
        """Return x + f(x)."""
        x = adopted(self, x)
        y = super().forward(x)
        if tuple(y.shape) != tuple(x.shape):
            raise ValueError(
                "an identity shortcut needs f(x) of the shape of x (as many channels, the same spatial size); got x "
                f"of shape {tuple(x.shape)} and f(x) of shape {tuple(y.shape)}"
            )
        return x + y

    def backward(self, grad_output: Array) -> Array:
        """Return g + f'(x)ᵀ·g: once through the shortcut, once through the layers."""
        return grad_output + super().backward(grad_output)
