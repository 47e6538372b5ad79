"""Optimisers: they change parameters by their gradients."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from refconv.arrays import (
    Array,
    accumulating_dtype,
    array_namespace,
    device,
    dtype_of,
    elements,
    get_dtype,
    item_bytes,
    moved,
    namespace_of,
    on_their_device,
    plain,
)
from refconv.engine import spread_rows
from refconv.integers import as_float, is_sequence, shown
from refconv.nn.base import Parameter, checked_state, copied, counted, widened
from refconv.shapes import check_shape


class Optimiser(ABC):
    """A rule that changes each parameter by its gradient: the base class of :class:`SGD` and :class:`Adam`.

    Parameters
    ----------
    parameters : iterable of Parameter
        The parameters to train: ``model.parameters()``.
    lr : float
        Learning rate > 0, also an attribute.

    Raises
    ------
    ValueError
        If a number is out of range, or there are no parameters, or one occurs twice.
    TypeError
        If `parameters` contains anything else.
    """

    _memory: ClassVar[dict[str, str]]
    """What the rule remembers of each parameter: its name in `state`, and the attribute that lists the arrays."""

    def __init__(self, parameters: Iterable[Parameter], lr: float) -> None:
        self.parameters = list(parameters)
        for i, parameter in enumerate(self.parameters):
            if not isinstance(parameter, Parameter):
                raise TypeError(f"parameters[{i}] must be a Parameter; got {type(parameter).__name__}")
        if not self.parameters:
            raise ValueError("parameters must contain at least one Parameter; got none")
        if len(set(map(id, self.parameters))) < len(self.parameters):
            raise ValueError("parameters must be distinct; one was given twice")
        self.lr = as_float(lr, "lr", above=0)

    def __repr__(self) -> str:
        """Return the number of parameters, and the current value of each other argument."""
        _, *names = inspect.signature(type(self)).parameters
        given = [counted(len(self.parameters), "parameter"), *(f"{name}={getattr(self, name)!r}" for name in names)]
        return f"{type(self).__name__}({', '.join(given)})"

    def change_lr(self, lr: float) -> None:
        """Change the learning rate.

        Raises
        ------
        ValueError, TypeError
            If `lr` is not a number > 0.
        """
        self.lr = as_float(lr, "lr", above=0)

    def step(self) -> None:
        """Apply the rule once to every parameter, with new arrays, and discard its gradient.

        Besides the results, the step allocates no array as large as a parameter, so it needs little additional memory.
        The gradients are no longer in memory during the next forward pass.

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
        memory = [getattr(self, attribute) for attribute in self._memory.values()]
        for i, parameter in enumerate(self.parameters):
            old = [arrays[i] for arrays in memory]
            parameter.value, *new = self._in_pieces(parameter.value, parameter.grad, *old)
            for arrays, array in zip(memory, new, strict=True):
                arrays[i] = array
            parameter.grad = None

    def state(self) -> dict[str, Array]:
        """Return every array that the rule remembers, by its name and the parameter's number: ``"velocity.0"``."""
        return {
            f"{name}.{i}": array
            for name, attribute in self._memory.items()
            for i, array in enumerate(getattr(self, attribute))
        }

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Replace every array of :meth:`state` with a copy of the array of the same name.

        Parameters
        ----------
        state : mapping of str to array
            Exactly the names of :meth:`state`, arrays of the same shapes and data types; of the same module or NumPy's.

        Raises
        ------
        ValueError, TypeError
            If a name is missing or unknown, or an array does not fit. Nothing is changed then.
        """
        self._set_state(checked_state("optimiser", self.state(), state))

    def _set_state(self, state: Mapping[str, Array]) -> None:
        for name, attribute in self._memory.items():
            setattr(self, attribute, [copied(state[f"{name}.{i}"]) for i in range(len(self.parameters))])

    @abstractmethod
    def _rule(self, w: Array, grad: Array, *memory: Array) -> tuple[Array, ...]:
        """Return the new value and the new memory, each number from the numbers at its place."""

    @on_their_device
    def _in_pieces(self, w: Array, grad: Array, *memory: Array) -> list[Array]:
        """Return the rule's results, computed in pieces."""
        xp = array_namespace(w, grad, *memory)
        old = [xp.reshape(plain(array), (-1,)) for array in (w, grad, *memory)]
        new = [xp.empty_like(array) for array in (old[0], *old[2:])]

        def work(piece: slice) -> None:
            for array, result in zip(new, self._rule(*(array[piece] for array in old)), strict=True):
                array[piece] = result

        spread_rows(xp, work, elements(w.shape), 3 * len(new) * item_bytes(dtype_of(w)))
        return [xp.reshape(array, w.shape) for array in new]


class SGD(Optimiser):
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

    _memory: ClassVar[dict[str, str]] = {"velocity": "velocities"}

    def __init__(
        self, parameters: Iterable[Parameter], lr: float, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, lr)
        self.momentum = as_float(momentum, "momentum", 0, 1)
        self.weight_decay = as_float(weight_decay, "weight_decay", 0)
        self.velocities = [_zeros(p.value) for p in self.parameters]

    def change_lr(self, lr: float) -> None:
        """Change the learning rate, and scale v as if the new rate had always applied.

        Raises
        ------
        ValueError, TypeError
            If `lr` is not a number > 0.
        """
        old = self.lr
        super().change_lr(lr)
        if self.lr != old:
            self.velocities = [_scaled(velocity, self.lr / old) for velocity in self.velocities]

    def _rule(self, w: Array, grad: Array, *memory: Array) -> tuple[Array, ...]:
        (velocity,) = memory
        velocity = self.momentum * velocity - self.weight_decay * self.lr * w - self.lr * grad
        return w + velocity, velocity


class Adam(Optimiser):
    r"""Adam: steps of a size that does not depend on the size of the gradient.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad s \leftarrow \beta_2 s + (1 - \beta_2)\, g^2, \qquad
              w \leftarrow w - \mathrm{lr} \cdot \frac{m / (1 - \beta_1^t)}{\sqrt{s / (1 - \beta_2^t)} + \epsilon}

    with g = ∂loss/∂w, m = s = 0 initially and t = 1, 2, … the number of the step. The means m and s of the gradient and
    its square begin at 0; dividing by 1 − βᵗ corrects for that.

    Parameters
    ----------
    parameters : iterable of Parameter
        The parameters to train: ``model.parameters()``.
    lr : float
        Learning rate > 0, also an attribute: the size of the first step of every weight.
    betas : pair of float
        β₁ and β₂, 0 ≤ β < 1.
    eps : float
        ε > 0.

    Attributes
    ----------
    steps : int
        Number of steps done. It is part of `state`.

    Raises
    ------
    ValueError, TypeError
        As for :class:`SGD`.

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", arXiv 1412.6980, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Adam, Parameter
    >>> w = Parameter("weight", np.array([1.0, 1.0]))
    >>> optimiser = Adam([w], lr=0.25)
    >>> w.grad = np.array([1000.0, -0.01])
    >>> optimiser.step()
    >>> w.value.round(5)
    array([0.75, 1.25])
    """

    _memory: ClassVar[dict[str, str]] = {"mean": "means", "square": "squares"}

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, lr)
        if not is_sequence(betas) or len(betas) != 2:
            raise TypeError(f"betas must be a pair of numbers; got {shown(betas)}")
        self.betas = tuple(as_float(beta, f"betas[{i}]", 0, 1) for i, beta in enumerate(betas))
        self.eps = as_float(eps, "eps", above=0)
        self.steps = 0
        self.means, self.squares = ([_zeros(p.value, wide=True) for p in self.parameters] for _ in self._memory)

    def step(self) -> None:
        """Apply the rule once to every parameter: see :meth:`Optimiser.step`."""
        super().step()
        self.steps += 1

    def state(self) -> dict[str, Array]:
        """Return the number of steps, and m and s of each parameter: ``"mean.0"``, ``"square.0"``."""
        return {"steps": moved(np.array([self.steps], "int64"), self.parameters[0].value), **super().state()}

    def _set_state(self, state: Mapping[str, Array]) -> None:
        super()._set_state(state)
        self.steps = int(state["steps"][0])

    def _rule(self, w: Array, grad: Array, *memory: Array) -> tuple[Array, ...]:
        xp = array_namespace(w)
        (mean, square), (beta1, beta2), t = memory, self.betas, self.steps + 1
        g = widened(xp, grad)
        mean = beta1 * mean + (1 - beta1) * g
        square = beta2 * square + (1 - beta2) * (g * g)
        size = self.lr * (mean / (1 - beta1**t)) / (xp.sqrt(square / (1 - beta2**t)) + self.eps)
        return xp.astype(widened(xp, w) - size, w.dtype, copy=False), mean, square


@on_their_device
def _zeros(like: Array, *, wide: bool = False) -> Array:
    """Return zeros of the shape of `like`; if `wide`, half precision becomes single, since squares need it."""
    xp, dtype = array_namespace(like), dtype_of(like)
    dtype = accumulating_dtype(xp, dtype) if wide else dtype
    return xp.zeros(tuple(like.shape), dtype=get_dtype(xp, dtype), device=device(like))


@on_their_device
def _scaled(array: Array, factor: float) -> Array:
    return factor * array
