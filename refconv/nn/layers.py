"""Layers: each a forward pass, and directly below it the backward pass that differentiates it.

Letters: N batch, C channels, K output channels, T = k1·…·kd window positions, L output positions, g = ∂loss/∂y.

A layer is a function y = f(x; w). ``forward`` computes y and keeps what ``backward`` will need; ``backward`` takes
g and returns ∂loss/∂x, and leaves ∂loss/∂w in the ``grad`` of each :class:`Parameter`. That is all there is to
backpropagation: :class:`Sequential` calls the layers forwards, then backwards.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refconv.arrays import (
    Array,
    DType,
    Namespace,
    array_namespace,
    device,
    dtype_kind,
    dtype_name,
    dtype_of,
    elements,
    get_dtype,
    load_backend,
    namespace_of,
)
from refconv.conv import conv, conv_backward
from refconv.groups import ChannelGroups
from refconv.im2col import check_dtype, col2im, im2col
from refconv.integers import as_bool, as_float, as_int, is_sequence, shown
from refconv.shapes import Shape, check_shape, per_axis, refuse_absurd


@dataclass(eq=False)
class Parameter:
    """An array that training changes, and the gradient of the loss with respect to it.

    Parameters
    ----------
    name : str
        What it is within its layer: ``"weight"``, ``"weight[2]"``, ``"bias"``.
    value : array
        The current value. An optimiser replaces it by a new array.
    grad : array of the same shape, optional
        Set by each ``backward`` (not added to), None before the first.

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
    """A differentiable function with parameters: what every layer and model is.

    A subclass writes :meth:`forward` and, below it, :meth:`backward`; if it has parameters, :meth:`parameters` too.
    Layers take batches, channels first, and never change the arrays they are given.
    """

    _saved: tuple[Shape, DType, tuple[Any, ...]] | None = None

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """Return y = f(x), and keep what :meth:`backward` needs.

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

        What ``forward`` kept is used up, so that its memory is free again.

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
            If no ``forward`` came before it.
        ValueError, TypeError
            If `grad_output` does not have the shape, data type and array module of y.
        """

    def parameters(self) -> list[Parameter]:
        """Return the parameters, in a fixed order."""
        return []

    def _keep(self, y: Array, *values: Any) -> Array:
        """Keep values for ``backward``, and return y."""
        self._saved = (tuple(y.shape), y.dtype, values)
        return y

    def _recall(self, grad_output: Array) -> tuple[Any, ...]:
        """Check that `grad_output` fits the output, and give up what was kept."""
        name = type(self).__name__
        if self._saved is None:
            raise RuntimeError(f"{name}.backward needs a forward before it; each forward serves one backward")
        shape, dtype, values = self._saved
        namespace_of({"grad_output": grad_output})
        check_shape("grad_output", tuple(grad_output.shape), shape, f"the shape of the output of {name}")
        if grad_output.dtype != dtype:
            raise TypeError(
                f"grad_output must have the data type of the output of {name}, {dtype_name(dtype)}; got "
                f"{dtype_of(grad_output)}"
            )
        self._saved = None
        return values


class Conv(Layer):
    r"""Grouped convolution of any channel groups, :func:`refconv.conv` with its own weight and bias.

    .. math:: y[n, k, o] = b[k] + \sum_{c \in \mathrm{in}(k)} \sum_t w[k, c, t]\;
              P[n,\, c,\, o \cdot \mathrm{stride} + t \cdot \mathrm{dilation}]

    The weight starts as He et al. propose for layers before a ReLU, w ~ N(0, 2 / fan-in), where the fan-in counts
    what one output sees: its own group's input channels times the kernel's taps. The bias starts at 0.

    Parameters
    ----------
    c_in, c_out : int
        Input and output channels.
    kernel_size : int or sequence of int
        One size per spatial axis; an int stands for two equal axes, an image's.
    groups : int or ChannelGroups
        With an int, the weight is one parameter of shape (K, C/groups, k1, …, kd). With a :class:`ChannelGroups`
        it is one parameter per group, of shapes ``groups.weight_shapes(kernel_size)``.
    stride, padding, dilation, padding_mode
        As for :func:`refconv.conv`.
    bias : bool
        Whether to add a bias b, one number per output channel.
    std : float, optional
        Standard deviation of the initial weight, instead of He's √(2 / fan-in); AlexNet's is 0.01.
    rng : numpy.random.Generator
        Draws the weight, the same numbers for every array module.
    xp : module, optional
        Array module from :func:`refconv.load_backend`; by default what ``REFCONV_BACKEND`` says, or NumPy.
    dtype : {"float32", "float64", "float16"}
        Data type of the parameters, and so of x.
    device : optional
        Where the parameters live: a device of the array module; by default its default device.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong. Stride, padding and dilation are checked against the input by ``forward``.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers", arXiv 1502.01852, equation 10.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import logarithmic_groups
    >>> from refconv.nn import Conv
    >>> layer = Conv(8, 8, 3, groups=logarithmic_groups(8, 8, 3), padding=1, rng=np.random.default_rng(0))
    >>> [parameter.value.shape for parameter in layer.parameters()]
    [(4, 4, 3, 3), (2, 2, 3, 3), (2, 2, 3, 3), (8,)]
    >>> layer.forward(np.ones((1, 8, 5, 6), dtype="float32")).shape
    (1, 8, 5, 6)
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int | Sequence[int],
        *,
        groups: int | ChannelGroups = 1,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        bias: bool = True,
        std: float | None = None,
        rng: np.random.Generator,
        xp: Namespace | None = None,
        dtype: str = "float32",
        device: Any = None,
    ) -> None:
        c_in, c_out = as_int(c_in, "c_in", 1), as_int(c_out, "c_out", 1)
        kernel = per_axis(kernel_size, "kernel_size", len(kernel_size) if is_sequence(kernel_size) else 2, 1)  # type: ignore[arg-type]
        if not kernel:
            raise ValueError("kernel_size must have at least one spatial axis; got none")
        draw = _Init(rng, xp, dtype, device)
        bias = as_bool(bias, "bias")
        self.weights = [
            Parameter(name, draw.normal(shape, std))
            for name, shape in _weight_shapes(groups, c_in, c_out, kernel).items()
        ]
        self.bias = Parameter("bias", draw.zeros((c_out,))) if bias else None
        self.groups = groups
        self.options = {"stride": stride, "padding": padding, "dilation": dilation, "padding_mode": padding_mode}

    @property
    def _weight(self) -> Any:
        """The weight in the form that :func:`refconv.conv` takes: one array, or one per group."""
        if isinstance(self.groups, ChannelGroups):
            return [parameter.value for parameter in self.weights]
        return self.weights[0].value

    def forward(self, x: Array) -> Array:
        """Return y = conv(x, weight, bias): (N, C, D1, …, Dd) -> (N, K, o1, …, od)."""
        _check_batched(self, x, self.weights[0].value.ndim)
        y = conv(x, self._weight, self.bias.value if self.bias else None, groups=self.groups, **self.options)
        return self._keep(y, x)

    def backward(self, grad_output: Array) -> Array:
        """Return x̄ and set w̄ and b̄: the three adjoints of :func:`refconv.conv_backward`."""
        (x,) = self._recall(grad_output)
        needs = ("x", "weight", "bias") if self.bias else ("x", "weight")
        grads = conv_backward(grad_output, x, self._weight, groups=self.groups, needs=needs, **self.options)
        of_weights = grads.weight if isinstance(grads.weight, tuple) else (grads.weight,)
        for parameter, grad in zip(self.weights, of_weights, strict=True):
            parameter.grad = grad
        if self.bias:
            self.bias.grad = grads.bias
        return grads.x

    def parameters(self) -> list[Parameter]:
        """Return the weight (of each group), then the bias."""
        return [*self.weights, self.bias] if self.bias else list(self.weights)


class ReLU(Layer):
    r"""Rectified linear unit.

    .. math:: y = \max(x, 0), \qquad \bar x = g \cdot [x > 0]

    At the kink x = 0 the gradient is taken as 0, as PyTorch does. A NaN stays a NaN.

    Raises
    ------
    TypeError
        If x is complex.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import ReLU
    >>> layer = ReLU()
    >>> layer.forward(np.array([[-1., 2.]]))
    array([[0., 2.]])
    >>> layer.backward(np.array([[5., 5.]]))
    array([[0., 5.]])
    """

    def forward(self, x: Array) -> Array:
        """Return max(x, 0), of any shape."""
        xp = namespace_of({"x": x})
        _check_ordered(self, x)
        return self._keep(xp.maximum(x, xp.zeros_like(x)), x > 0)

    def backward(self, grad_output: Array) -> Array:
        """Return g where x > 0, else 0."""
        (positive,) = self._recall(grad_output)
        xp = array_namespace(grad_output, positive)
        return xp.where(positive, grad_output, xp.zeros_like(grad_output))


class MaxPool(Layer):
    r"""Largest element of every window of every channel, in any number of spatial axes.

    .. math:: y[n, c, l] = \max_t\, x[n, c, l \cdot \mathrm{stride} + t]

    Each channel is an image of its own, so the windows are the columns of im2col of the (N·C, 1, D1, …, Dd) view; the
    gradient of a maximum goes to the element that was the largest, the first of several equal ones (as PyTorch),
    and col2im adds up what overlapping windows send to one element.

    Parameters
    ----------
    kernel_size : int or sequence of int
        Window size; an int stands for all spatial axes of x.
    stride : int or sequence of int, optional
        Step between windows; by default `kernel_size`. Smaller than it, windows overlap (AlexNet: 3 and 2).
        Elements after the last whole window are not read.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or the window does not fit x.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, section 3.4 (overlapping pooling).

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import MaxPool
    >>> layer = MaxPool(3, stride=2)
    >>> layer.forward(np.array([[[1., 2., 7., 4., 5.]]]))
    array([[[7., 7.]]])
    >>> layer.backward(np.array([[[10., 1.]]]))
    array([[[ 0.,  0., 11.,  0.,  0.]]])
    """

    def __init__(self, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None) -> None:
        stride = kernel_size if stride is None else stride
        for value, name in ((kernel_size, "kernel_size"), (stride, "stride")):
            per_axis(value, name, len(value) if is_sequence(value) else 1, 1)  # type: ignore[arg-type]
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Array) -> Array:
        """Return the maximum of each window: (N, C, D1, …, Dd) -> (N, C, o1, …, od)."""
        xp = namespace_of({"x": x})
        _check_ordered(self, x)
        if x.ndim < 3:
            raise ValueError(f"x must have shape (N, C, D1, …, Dd) with d ≥ 1 for MaxPool; got {tuple(x.shape)}")
        kernel = per_axis(self.kernel_size, "kernel_size", x.ndim - 2, 1)
        stride = per_axis(self.stride, "stride", x.ndim - 2, 1)
        images = xp.reshape(x, (x.shape[0] * x.shape[1], 1, *x.shape[2:]))  # (N·C, 1, D1, …, Dd)
        columns = im2col(images, kernel, stride=stride)  # (N·C, T, L)
        output = tuple((n - k) // s + 1 for n, k, s in zip(x.shape[2:], kernel, stride, strict=True))
        y = xp.reshape(xp.max(columns, axis=1), (*x.shape[:2], *output))  # (N, C, o1, …, od)
        largest = xp.argmax(columns, axis=1)  # (N·C, L), the first of equal ones
        return self._keep(y, largest, columns.shape, tuple(images.shape), kernel, stride)

    def backward(self, grad_output: Array) -> Array:
        """Return g where each window had its maximum, added up over windows."""
        largest, (channels, taps, positions), images, kernel, stride = self._recall(grad_output)
        xp = array_namespace(grad_output, largest)
        taps = xp.reshape(xp.arange(taps, dtype=largest.dtype, device=device(largest)), (1, taps, 1))
        chosen = taps == largest[:, None, :]  # (N·C, T, L)
        grad = xp.reshape(grad_output, (channels, 1, positions))  # (N·C, 1, L)
        columns = xp.where(chosen, grad, xp.zeros_like(grad))  # (N·C, T, L)
        grad_images = col2im(columns, images, kernel, stride=stride)  # (N·C, 1, D1, …, Dd)
        return xp.reshape(grad_images, (*grad_output.shape[:2], *images[2:]))  # (N, C, D1, …, Dd)


class Flatten(Layer):
    """Each sample as one row: (N, D1, …, Dd) -> (N, D1·…·Dd), in row-major order.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Flatten
    >>> Flatten().forward(np.zeros((2, 3, 4, 5))).shape
    (2, 60)
    """

    def forward(self, x: Array) -> Array:
        """Return x as (N, D1·…·Dd)."""
        xp = namespace_of({"x": x})
        if x.ndim < 1:
            raise ValueError("x must have a batch axis for Flatten; got an array without axes")
        shape = tuple(x.shape)
        return self._keep(xp.reshape(x, (shape[0], elements(shape[1:])), copy=True), shape)

    def backward(self, grad_output: Array) -> Array:
        """Return g in the shape of x."""
        (shape,) = self._recall(grad_output)
        return array_namespace(grad_output).reshape(grad_output, shape, copy=True)


class Linear(Layer):
    r"""Fully connected layer.

    .. math:: y = x\, w^{\mathsf T} + b, \qquad \bar x = g\, w, \quad \bar w = g^{\mathsf T} x, \quad
              \bar b = \textstyle\sum_n g[n]

    The weight, of shape (out_features, in_features), starts as w ~ N(0, 2 / in_features), the bias at 0.

    Parameters
    ----------
    in_features, out_features : int
        Row lengths of x and y.
    bias : bool
        Whether to add b.
    std, rng, xp, dtype, device
        As for :class:`Conv`.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or x is not of shape (N, in_features) and the parameters' data type.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Linear
    >>> layer = Linear(3, 2, rng=np.random.default_rng(0), dtype="float64")
    >>> layer.weight.value = np.array([[1., 0., 0.], [1., 1., 1.]])
    >>> layer.forward(np.array([[1., 2., 3.]]))
    array([[1., 6.]])
    >>> layer.backward(np.array([[10., 1.]])), layer.bias.grad
    (array([[11.,  1.,  1.]]), array([10.,  1.]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        std: float | None = None,
        rng: np.random.Generator,
        xp: Namespace | None = None,
        dtype: str = "float32",
        device: Any = None,
    ) -> None:
        shape = (as_int(out_features, "out_features", 1), as_int(in_features, "in_features", 1))
        draw = _Init(rng, xp, dtype, device)
        self.weight = Parameter("weight", draw.normal(shape, std))
        self.bias = Parameter("bias", draw.zeros(shape[:1])) if bias else None

    def forward(self, x: Array) -> Array:
        """Return x·wᵀ + b: (N, in_features) -> (N, out_features)."""
        weight = self.weight.value
        xp = array_namespace(x, weight)
        if x.ndim != 2 or x.shape[1] != weight.shape[1]:
            raise ValueError(
                f"x must have shape (N, in_features) with in_features={weight.shape[1]} for Linear; got "
                f"{tuple(x.shape)}"
            )
        if x.dtype != weight.dtype:
            raise TypeError(f"x must have the data type of the weight, {dtype_of(weight)}; got {dtype_of(x)}")
        y = xp.matmul(x, xp.matrix_transpose(weight))
        return self._keep(y + self.bias.value if self.bias else y, x)

    def backward(self, grad_output: Array) -> Array:
        """Return g·w, and set w̄ = gᵀ·x and b̄ = Σ g."""
        (x,) = self._recall(grad_output)
        xp = array_namespace(grad_output, x)
        self.weight.grad = xp.matmul(xp.matrix_transpose(grad_output), x)
        if self.bias:
            self.bias.grad = xp.sum(grad_output, axis=0)
        return xp.matmul(grad_output, self.weight.value)

    def parameters(self) -> list[Parameter]:
        """Return the weight, then the bias."""
        return [self.weight, self.bias] if self.bias else [self.weight]


class Sequential(Layer):
    r"""Layers one after the other, y = f_m(… f_2(f_1(x))); backwards, the chain rule.

    Parameters
    ----------
    *layers : Layer
        At least one; each object once, since it remembers one forward pass.

    Raises
    ------
    ValueError
        If there are no layers, or one comes twice.
    TypeError
        If an argument is not a :class:`Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Flatten, ReLU, Sequential
    >>> model = Sequential(ReLU(), Flatten())
    >>> model.forward(np.array([[[1., -2.], [-3., 4.]]]))
    array([[1., 0., 0., 4.]])
    """

    def __init__(self, *layers: Layer) -> None:
        for position, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layers[{position}] must be a Layer; got {type(layer).__name__}")
        if not layers:
            raise ValueError(f"{type(self).__name__} needs at least one layer; got none")
        if len(set(map(id, layers))) < len(layers):
            raise ValueError(f"{type(self).__name__} needs distinct layers; one was given twice")
        self.layers = layers

    def forward(self, x: Array) -> Array:
        """Return the last layer's output."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, grad_output: Array) -> Array:
        """Return the gradient of the first layer's input: each layer's backward, last layer first."""
        for layer in reversed(self.layers):
            grad_output = layer.backward(grad_output)
        return grad_output

    def parameters(self) -> list[Parameter]:
        """Return the parameters of all layers, in order."""
        return [parameter for layer in self.layers for parameter in layer.parameters()]


class Residual(Sequential):
    r"""Layers with an identity shortcut around them.

    .. math:: y = x + f(x), \qquad \bar x = g + f'(x)^{\mathsf T} g

    The shortcut adds, element by element, so f must keep the shape: as many output channels as input channels, and an
    unchanged spatial size. It lets even f = 0 pass the input on, and gives every layer before it a direct gradient.

    Parameters
    ----------
    *layers : Layer
        f, the layers one after the other.

    Raises
    ------
    ValueError
        If f(x) does not have the shape of x; and as :class:`Sequential`.

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


class _Init:
    """Draws initial values with NumPy, so that every array module starts from the same numbers."""

    def __init__(self, rng: np.random.Generator, xp: Namespace | None, dtype: str, device: Any) -> None:
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator; got {type(rng).__name__}")
        if dtype not in ("float16", "float32", "float64"):
            raise ValueError(f"dtype must be 'float32', 'float64' or 'float16'; got {dtype!r}")
        self._rng, self._dtype, self._device = rng, dtype, device
        if not (xp is None or hasattr(xp, "asarray")):
            raise TypeError(f"xp must be an array module from refconv.load_backend; got {shown(xp)}")
        self._xp = load_backend() if xp is None else xp
        get_dtype(self._xp, dtype)

    def normal(self, shape: Shape, std: float | None) -> Array:
        """Return draws from N(0, std²), by default N(0, 2 / fan-in): an output sees all axes but the first."""
        refuse_absurd("a parameter", shape)
        if std is None:
            std = math.sqrt(2 / max(elements(shape[1:]), 1))
        std = as_float(std, "std", 0)
        values = self._rng.normal(0.0, std, shape)
        return self._xp.asarray(values.astype(self._dtype), device=self._device)

    def zeros(self, shape: Shape) -> Array:
        """Return zeros."""
        return self._xp.zeros(shape, dtype=get_dtype(self._xp, self._dtype), device=self._device)


def _weight_shapes(groups: int | ChannelGroups, c_in: int, c_out: int, kernel: Shape) -> dict[str, Shape]:
    """Return the shape of each weight parameter by its name."""
    if isinstance(groups, ChannelGroups):
        if (groups.c_in, groups.c_out) != (c_in, c_out):
            raise ValueError(
                f"groups must have c_in={c_in} input and c_out={c_out} output channels; got a ChannelGroups of "
                f"{groups.c_in} and {groups.c_out}"
            )
        return {f"weight[{g}]": shape for g, shape in enumerate(groups.weight_shapes(kernel))}
    n = as_int(groups, "groups", 1)
    if c_in % n or c_out % n:
        raise ValueError(f"groups={n} must divide c_in={c_in} and c_out={c_out}")
    return {"weight": (c_out, c_in // n, *kernel)}


def _check_batched(layer: Layer, x: Array, ndim: int) -> None:
    namespace_of({"x": x})
    if x.ndim != ndim:
        raise ValueError(
            f"x must have {ndim} axes (N, C, D1, …, Dd), d = {ndim - 2}, for {type(layer).__name__}; got shape "
            f"{tuple(x.shape)}"
        )


def _check_ordered(layer: Layer, x: Array) -> None:
    if dtype_kind(check_dtype("x", x)) == "complex":
        raise TypeError(
            f"x must be real for {type(layer).__name__}, since complex numbers have no order; got {x.dtype}"
        )
