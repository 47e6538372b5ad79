"""Layers: each has a forward pass and, directly below it, the backward pass that differentiates it.

Letters: N batch, C channels, K output channels, T = k1·…·kd window positions, L output positions, g = ∂loss/∂y.

A layer is a function y = f(x; w). ``forward`` computes y and keeps the values that ``backward`` needs. ``backward``
takes g, returns ∂loss/∂x and stores ∂loss/∂w in the ``grad`` of each :class:`Parameter`. This is all of
backpropagation: :class:`Sequential` calls the layers forwards, then backwards.
"""

from __future__ import annotations

import inspect
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from refconv.arrays import (
    Array,
    Namespace,
    accumulating_dtype,
    array_namespace,
    check_device,
    check_dtype,
    converted,
    device,
    dtype_kind,
    dtype_of,
    elements,
    get_dtype,
    load_backend,
    moved,
    namespace_of,
    on_their_device,
)
from refconv.integers import as_float, shown
from refconv.shapes import Shape, check_shape, refuse_absurd


@dataclass(eq=False)
class Parameter:
    """An array that training changes, and the gradient of the loss with respect to it.

    Parameters
    ----------
    name : str
        Name within its layer: ``"weight"``, ``"weight[2]"``, ``"bias"``.
    value : array
        The current value. An optimiser replaces it with a new array.
    grad : array of the same shape, optional
        Replaced, not accumulated, by each ``backward``. None before the first, and after an optimiser's step.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Parameter
    >>> Parameter("bias", np.zeros(2))
    Parameter(name='bias', value=array([0., 0.]), grad=None)
    """

    name: str
    value: Array
    grad: Array = None


class Layer(ABC):
    """A differentiable function with parameters: the base class of all layers and models.

    A subclass defines :meth:`forward` and, below it, :meth:`backward`. If it has parameters, it also defines
    :meth:`parameters`; if it contains layers, :meth:`children`. Layers take batches, channels first, and never change
    their arguments.

    A layer prints itself and the layers inside it as a tree: first the arguments that differ from their defaults (if it
    stores them under their own names), then the shapes and the number of its parameters.

    Attributes
    ----------
    training : bool
        Read by :class:`Dropout` and :class:`BatchNorm`; set by :meth:`train` and :meth:`eval`. Initially True.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Layer
    >>> class Square(Layer):
    ...     def forward(self, x):
    ...         return self._keep(x * x, x)
    ...     def backward(self, grad_output):
    ...         (x,) = self._recall(grad_output)
    ...         return 2 * x * grad_output
    >>> layer = Square()
    >>> layer(np.array([3., 4.])), layer.backward(np.array([1., 1.]))
    (array([ 9., 16.]), array([6., 8.]))
    """

    training: bool = True
    _saved: tuple[Shape, Array, tuple[Any, ...]] | None = None
    _buffers: tuple[str, ...] = ()
    """Names of attributes with arrays that training changes, but not by gradients."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Let the passes of every layer run on the device of their argument."""
        super().__init_subclass__(**options)
        for name in vars(cls).keys() & {"forward", "backward"}:
            setattr(cls, name, on_their_device(getattr(cls, name)))

    def __call__(self, x: Array) -> Array:
        """Return ``forward(x)``. A NumPy array is first moved to the array module and device of the parameters."""
        return self.forward(adopted(self, x))

    def __repr__(self) -> str:
        """Return the layer and the layers inside it as a tree, with the parameters' shapes and numbers."""
        return "\n".join(_tree(self))

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """Return y = f(x), and keep the values that :meth:`backward` needs.

        Parameters
        ----------
        x : array
            A batch.

        Returns
        -------
        y : array
            The layer's output.
        """

    @abstractmethod
    def backward(self, grad_output: Array) -> Array:
        """Return ∂loss/∂x of the latest :meth:`forward`, and set the gradient of each parameter.

        It discards the values that ``forward`` kept, to free their memory.

        Parameters
        ----------
        grad_output : array
            ∂loss/∂y, of the shape and data type of y.

        Returns
        -------
        grad_input : array
            ∂loss/∂x, of the shape of x.

        Raises
        ------
        RuntimeError
            If no ``forward`` precedes it.
        ValueError, TypeError
            If `grad_output` does not have the shape, data type, array module and device of y.
        """

    def children(self) -> dict[str, Layer]:
        """Return the layers inside this layer, by name."""
        return {}

    def parameters(self) -> list[Parameter]:
        """Return the parameters, in a fixed order."""
        return [parameter for child in self.children().values() for parameter in child.parameters()]

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """Return each parameter with its path, as in :meth:`state`, in the order of :meth:`parameters`."""
        paths = {id(parameter): parameter.name for parameter in self._own_parameters()}
        for name, child in self.children().items():
            paths |= {id(parameter): f"{name}.{path}" for path, parameter in child.named_parameters()}
        return [(paths[id(parameter)], parameter) for parameter in self.parameters()]

    def _own_parameters(self) -> list[Parameter]:
        """Return the parameters that are in none of the layers inside."""
        inside = {id(parameter) for child in self.children().values() for parameter in child.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in inside]

    def train(self) -> Self:
        """Set this layer and its children to training, and return it."""
        return self._set_training(True)

    def eval(self) -> Self:
        """Set this layer and its children to testing (no dropout, running statistics), and return it."""
        return self._set_training(False)

    def _set_training(self, training: bool) -> Self:
        self.training = training
        for child in self.children().values():
            child._set_training(training)
        return self

    def forget(self) -> None:
        """Discard the values that :meth:`forward` kept, if no :meth:`backward` will follow, to free their memory."""
        self._saved = None
        for child in self.children().values():
            child.forget()

    def state(self) -> dict[str, Array]:
        """Return every array that training changes, parameters and running statistics, by its path.

        A path consists of the names of children and of the parameter or statistic: ``"conv1.weight"``, ``"3.0.bias"``.
        """
        own = {parameter.name: parameter.value for parameter in self._own_parameters()}
        own |= {name: getattr(self, name) for name in self._buffers}
        below = {
            f"{name}.{path}": array for name, child in self.children().items() for path, array in child.state().items()
        }
        return own | below

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Replace every array of :meth:`state` with a copy of the array at the same path.

        Parameters
        ----------
        state : mapping of str to array
            Exactly the paths of :meth:`state`, arrays of the same shapes and data types; of the same module and device,
            or NumPy's.

        Raises
        ------
        ValueError, TypeError
            If a path is missing or unknown, or an array does not fit. Nothing is changed then.
        """
        self._set_state(checked_state("model", self.state(), state))

    def _set_state(self, state: Mapping[str, Array]) -> None:
        for name, child in self.children().items():
            prefix = f"{name}."
            child._set_state({path.removeprefix(prefix): a for path, a in state.items() if path.startswith(prefix)})
        for parameter in self._own_parameters():
            parameter.value = copied(state[parameter.name])
        for name in self._buffers:
            setattr(self, name, copied(state[name]))

    def _arguments(self) -> dict[str, Any]:
        """Return the values that the layer keeps, among them arguments of its constructor under their own names."""
        return vars(self)

    def _keep(self, y: Array, *values: Any) -> Array:
        """Keep values for ``backward``, and return y."""
        y = np.asarray(y) if isinstance(y, np.generic) else y  # a number, for an array without axes
        like = array_namespace(y).empty(0, dtype=y.dtype, device=device(y))  # which does not keep y's memory
        self._saved = (tuple(y.shape), like, values)
        return y

    def _recall(self, grad_output: Array) -> tuple[Any, ...]:
        """Check that `grad_output` fits the output, and return the kept values, discarding them."""
        name = type(self).__name__
        if self._saved is None:
            raise RuntimeError(f"{name}.backward needs a forward before it; each forward serves one backward")
        shape, like, values = self._saved
        namespace_of({"grad_output": grad_output, f"the output of {name}": like})
        check_shape("grad_output", tuple(grad_output.shape), shape, f"the shape of the output of {name}")
        if dtype_of(grad_output) != dtype_of(like):  # compare names, since byte order does not matter
            raise TypeError(
                f"grad_output must have the data type of the output of {name}, {dtype_of(like)}; got "
                f"{dtype_of(grad_output)}"
            )
        self._saved = None
        return values


def adopted(layer: Layer, x: Array) -> Array:
    """Return a NumPy array as one of the module and device of the layer's parameters; other arrays are unchanged."""
    parameters = layer.parameters() if isinstance(x, np.ndarray) else []
    if not parameters or isinstance(parameters[0].value, np.ndarray):
        return x
    if dtype_kind(dtype_of(x)) == "real":
        check_same_dtype(x, parameters[0].value)  # before x is moved, so that the message converts a NumPy array
    return moved(x, parameters[0].value)


@contextmanager
def named(name: str, layer: Layer) -> Iterator[None]:
    """Begin the message of an error in a pass of `layer`, a child called `name`, with its path."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError) as error:
        if type(error) in (ValueError, TypeError, RuntimeError):  # other kinds may have arguments of another meaning
            message = str(error).removeprefix(f"{type(layer).__name__} ")
            below = message.removeprefix("layer '")
            error.args = (f"layer '{name}.{below}" if below != message else f"layer '{name}': {message}",)
        raise


def checked_state(owner: str, own: Mapping[str, Array], state: Mapping[str, Array]) -> dict[str, Array]:
    """Return `state` with NumPy's arrays moved to the module of `own`, or refuse it unless it fits `own`."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping of paths to arrays; got {shown(state)}")
    if missing := sorted(own.keys() - state.keys()):
        raise ValueError(f"state lacks {len(missing)} of the {owner}'s {len(own)} arrays, first {missing[0]!r}")
    if unknown := sorted(state.keys() - own.keys()):
        raise ValueError(f"state has {len(unknown)} arrays unknown to the {owner}, first {unknown[0]!r}")
    fitting = {}
    for path, current in own.items():
        label, array = f"state[{path!r}]", moved(state[path], current)
        namespace_of({label: array, f"the {owner}'s": current})
        check_shape(label, tuple(array.shape), tuple(current.shape), f"the shape of the {owner}'s array")
        if array.dtype != current.dtype:
            raise TypeError(f"{label} must have the {owner}'s data type {dtype_of(current)}; got {dtype_of(array)}")
        fitting[path] = array
    return fitting


def counted(count: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "input channel"), counted(1516, "parameter")
    ('1 input channel', '1,516 parameters')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _tree(layer: Layer) -> Iterator[str]:
    """Yield the lines of a layer's representation."""
    children, parameters = layer.children(), layer.parameters()
    name = type(layer).__name__ if children else f"{type(layer).__name__}({_arguments(layer)})"
    shapes = [f"{kind} {shape}" for kind, shape in _shapes(layer._own_parameters())]
    count = sum(elements(parameter.value.shape) for parameter in parameters)
    total = f": {counted(count, 'parameter')}" if parameters else ""
    yield ", ".join([name, *shapes]) + total
    for name, child in children.items():
        first, *rest = _tree(child)
        yield f"  {name}: {first}"
        yield from (f"  {line}" for line in rest)


def _arguments(layer: Layer) -> str:
    """Return the stored arguments of a layer that differ from their defaults, as Python code."""
    values, texts = layer._arguments(), []
    for name, argument in inspect.signature(type(layer)).parameters.items():
        value = values.get(name)
        if value is None or isinstance(value, Parameter | np.random.Generator) or repr(value) == repr(argument.default):
            continue
        text = " ".join(repr(value).split())
        text = text if len(text) <= 50 else f"{text[:47]}..."
        texts.append(text if argument.default is argument.empty else f"{name}={text}")
    return ", ".join(texts)


def _shapes(parameters: list[Parameter]) -> Iterator[tuple[str, str]]:
    """Yield the name and the shape of each parameter; consecutive weights of one shape share an entry."""
    for (name, shape), equal in itertools.groupby((p.name.partition("[")[0], tuple(p.value.shape)) for p in parameters):
        count = len(list(equal))
        yield name, f"{shape}" if count == 1 else f"{count} × {shape}"


class Place:
    """The array module, data type and device of a layer's parameters."""

    def __init__(self, xp: Namespace | None, dtype: str, device: Any) -> None:
        if dtype not in ("float16", "float32", "float64"):
            raise ValueError(f"dtype must be 'float32', 'float64' or 'float16'; got {dtype!r}")
        self._dtype, self._device = dtype, device
        if not (xp is None or hasattr(xp, "asarray")):
            raise TypeError(f"xp must be an array module from refconv.load_backend; got {shown(xp)}")
        # CuPy's own namespace, for one, becomes that of the array API standard.
        self._xp = load_backend() if xp is None else namespace_of({"xp.asarray([])": xp.asarray(np.zeros(0))})
        get_dtype(self._xp, dtype)
        if device is not None:
            check_device(self._xp, device)

    def full(self, shape: Shape, value: float) -> Array:
        """Return an array filled with `value`."""
        refuse_absurd("a parameter", shape)
        return self._array(np.full(shape, value))

    def _array(self, values: np.ndarray[Any, Any]) -> Array:
        return self._xp.asarray(values.astype(self._dtype), device=self._device)


class Init(Place):
    """Draws initial values with NumPy, so that every array module starts from the same numbers."""

    def __init__(self, rng: np.random.Generator, xp: Namespace | None, dtype: str, device: Any) -> None:
        self._rng = check_rng(rng)
        super().__init__(xp, dtype, device)

    def normal(self, shape: Shape, std: float | None, fan_in: float) -> Array:
        """Return draws from N(0, std²), by default N(0, 2 / fan-in), where the fan-in is the inputs per output."""
        refuse_absurd("a parameter", shape)
        if std is None:
            std = math.sqrt(2 / fan_in) if fan_in else 0.0
        std = as_float(std, "std", 0)
        return self._array(self._rng.normal(0.0, std, shape))


@on_their_device
def copied(array: Array) -> Array:
    """Return a new array with the same values."""
    return array_namespace(array).asarray(array, copy=True)


def check_batched(layer: Layer, x: Array, ndim: int) -> None:
    """Refuse x unless it has `ndim` axes, including batch and channels."""
    namespace_of({"x": x})
    if x.ndim != ndim:
        raise ValueError(
            f"x must have {ndim} axes (N, C, D1, …, Dd), d = {ndim - 2}, for {type(layer).__name__}; got shape "
            f"{tuple(x.shape)}"
        )


def check_real(layer: Layer, x: Array) -> None:
    """Refuse complex x, for layers that compare numbers."""
    if dtype_kind(check_dtype("x", x)) == "complex":
        raise TypeError(
            f"x must be real for {type(layer).__name__}, since complex numbers have no order; got {x.dtype}"
        )


def check_floating(layer: Layer, x: Array) -> Namespace:
    """Refuse x unless it contains real floating-point numbers, and return its array module."""
    xp = namespace_of({"x": x})
    if dtype_of(x) not in ("float16", "float32", "float64"):
        raise TypeError(
            f"x must have the data type float16, float32 or float64 for {type(layer).__name__}; got {dtype_of(x)}"
        )
    return xp


def check_channels(layer: Layer, x: Array, channels: int | None = None) -> None:
    """Refuse x unless it has a channel axis, of length `channels` if given."""
    if x.ndim < 2:
        raise ValueError(f"x must have shape (N, C, D1, …, Dd) for {type(layer).__name__}; got {tuple(x.shape)}")
    if channels is not None:
        check_inputs(layer, x, channels, "input channel")


def check_inputs(layer: Layer, x: Array, count: int, noun: str) -> None:
    """Refuse x unless its second axis has length `count`."""
    if x.shape[1] != count:
        raise ValueError(
            f"{type(layer).__name__} expects {counted(count, noun)}, got {x.shape[1]}: x has shape {tuple(x.shape)}"
        )


def check_rng(rng: Any) -> np.random.Generator:
    """Return rng, or refuse it unless it is a NumPy generator."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator; got {shown(rng)}")
    return rng


def widened(xp: Namespace, array: Array) -> Array:
    """Return `array` in the data type to compute in: half precision becomes single, other types stay."""
    return xp.astype(array, get_dtype(xp, accumulating_dtype(xp, dtype_of(array))), copy=False)


def per_channel(xp: Namespace, vector: Array, x: Array) -> Array:
    """Return one number per channel in a shape (C, 1, …, 1) that broadcasts along the channels of x."""
    return xp.reshape(vector, (vector.shape[0], *(1,) * (x.ndim - 2)))


def channel_sums(xp: Namespace, x: Array) -> Array:
    """Return the sum of x over the batch and all spatial axes: (N, C, D1, …, Dd) -> (C,)."""
    return xp.sum(x, axis=(0, *range(2, x.ndim)))


def check_affine(layer: Layer, x: Array, weight: Array) -> None:
    """Refuse x unless it fits a weight with one number per channel."""
    namespace_of({"x": x, "weight": weight})
    check_channels(layer, x, weight.shape[0])
    check_same_dtype(x, weight)


def check_same_dtype(x: Array, weight: Array) -> None:
    """Refuse x unless it has the data type of the weight."""
    if dtype_of(x) != dtype_of(weight):
        wanted = dtype_of(weight)
        raise TypeError(
            f"x must have the data type of the weight, {wanted}; got {dtype_of(x)}: write {converted('x', x, wanted)}"
        )
