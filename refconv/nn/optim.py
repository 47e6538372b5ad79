"""The optimiser: it changes parameters by their gradients."""

from __future__ import annotations

from collections.abc import Iterable

from refconv.arrays import Array, array_namespace, dtype_of, elements, item_bytes, namespace_of, plain
from refconv.engine import spread_rows
from refconv.integers import as_float
from refconv.nn.base import Parameter
from refconv.shapes import check_shape


class SGD:
    r"""Stochastic gradient descent with momentum and weight decay, by AlexNet's rule.

    .. math:: v \leftarrow \mathrm{momentum} \cdot v - \mathrm{weight\_decay} \cdot \mathrm{lr} \cdot w
              - \mathrm{lr} \cdot \frac{\partial\,\mathrm{loss}}{\partial w}, \qquad w \leftarrow w + v

    with v = 0 initially. The learning rate is inside v: if you assign to `lr`, the steps already in v keep their size,
    and after a decrease they are too large for a while. :meth:`change_lr` scales them too. (In PyTorch's rule the rate
    is outside v; at a constant rate the two rules agree.)

    Parameters
    ----------
    parameters : iterable of Parameter
        The parameters to train: ``model.parameters()``.
    lr : float
        Learning rate ε > 0, also an attribute.
    momentum : float
        0 ≤ momentum < 1.
    weight_decay : float
        ≥ 0.

    Raises
    ------
    ValueError
        If a number is out of range, or there are no parameters, or one occurs twice.
    TypeError
        If `parameters` contains anything else.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, section 5 (there with momentum 0.9, weight decay 0.0005). P. Goyal et al., "Accurate, Large Minibatch SGD",
    arXiv 1706.02677, section 2.2 (scaling v with the rate).

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import SGD, Parameter
    >>> w = Parameter("weight", np.array([1.0]))
    >>> optimiser = SGD([w], lr=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     w.grad = np.array([1.0])
    ...     optimiser.step()
    >>> w.value   # 1 − 0.5, then − (0.25 + 0.5)
    array([-0.25])
    """

    def __init__(
        self, parameters: Iterable[Parameter], lr: float, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        self.parameters = list(parameters)
        for i, parameter in enumerate(self.parameters):
            if not isinstance(parameter, Parameter):
                raise TypeError(f"parameters[{i}] must be a Parameter; got {type(parameter).__name__}")
        if not self.parameters:
            raise ValueError("parameters must contain at least one Parameter; got none")
        if len(set(map(id, self.parameters))) < len(self.parameters):
            raise ValueError("parameters must be distinct; one was given twice")
        self.lr = as_float(lr, "lr", above=0)
        self.momentum = as_float(momentum, "momentum", 0, 1)
        self.weight_decay = as_float(weight_decay, "weight_decay", 0)
        self.velocities = [
            array_namespace(parameter.value).zeros_like(parameter.value) for parameter in self.parameters
        ]

    def change_lr(self, lr: float) -> None:
        """Change the learning rate, and scale v as if the new rate had always applied.

        Raises
        ------
        ValueError, TypeError
            If `lr` is not a number > 0.
        """
        lr = as_float(lr, "lr", above=0)
        if lr != self.lr:
            self.velocities = [lr / self.lr * velocity for velocity in self.velocities]
            self.lr = lr

    def step(self) -> None:
        """Apply the rule once to every parameter, with new arrays, and discard its gradient.

        Apart from the two results, the step allocates no array as large as a parameter, so it needs little more memory.
        The next forward pass runs without the gradients in memory.

        Raises
        ------
        RuntimeError
            If a parameter has no gradient yet. No parameter is changed then.
        ValueError, TypeError
            If a gradient does not have its parameter's shape, data type and module. No parameter is changed then.
        """
        for i, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                raise RuntimeError(f"parameters[{i}] ({parameter.name}) has no gradient; call backward before step")
            name = f"grad of parameters[{i}] ({parameter.name})"
            namespace_of({name: parameter.grad, "its value": parameter.value})
            if parameter.grad.dtype != parameter.value.dtype:
                raise TypeError(
                    f"{name} must have the data type of its value, {dtype_of(parameter.value)}; got "
                    f"{dtype_of(parameter.grad)}"
                )
            check_shape(
                name,
                tuple(parameter.grad.shape),
                tuple(parameter.value.shape),
                "the shape of its value",
            )
        for i, parameter in enumerate(self.parameters):
            parameter.value, self.velocities[i] = self._moved(parameter.value, parameter.grad, self.velocities[i])
            parameter.grad = None

    def _moved(self, w: Array, grad: Array, velocity: Array) -> tuple[Array, Array]:
        """Return the new value and the new velocity, computed in pieces."""
        xp = array_namespace(w, grad, velocity)
        old = [xp.reshape(plain(array), (-1,)) for array in (w, grad, velocity)]
        new_w, new_velocity = xp.empty_like(old[0]), xp.empty_like(old[0])

        def work(piece: slice) -> None:
            w, grad, velocity = (array[piece] for array in old)
            velocity = self.momentum * velocity - self.weight_decay * self.lr * w - self.lr * grad
            new_velocity[piece] = velocity
            new_w[piece] = w + velocity

        spread_rows(xp, work, elements(w.shape), 6 * item_bytes(dtype_of(w)))
        return xp.reshape(new_w, w.shape), xp.reshape(new_velocity, w.shape)
