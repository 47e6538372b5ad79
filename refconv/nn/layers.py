"""Convolution and linear layers, and layers that act on single elements or only move them.

The layers that read windows without weights are in :mod:`refconv.nn.pooling`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refconv.arrays import (
    Array,
    Namespace,
    array_namespace,
    device,
    elements,
    masked,
    namespace_of,
    reshaped_copy,
)
from refconv.conv import ConvGrads, conv, conv_backward, conv_transpose, conv_transpose_backward
from refconv.groups import ChannelGroups
from refconv.integers import as_bool, as_float, as_int, is_sequence, per_axis
from refconv.nn.base import (
    Init,
    Layer,
    Parameter,
    Place,
    channel_sums,
    check_affine,
    check_batched,
    check_channels,
    check_floating,
    check_inputs,
    check_real,
    check_same_dtype,
    per_channel,
    widened,
)
from refconv.nn.product import product
from refconv.shapes import Shape


class _Convolution(Layer):
    """The base of the convolution layers: their parameters, and their passes through the functions of refconv.conv."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int | Sequence[int],
        groups: int | ChannelGroups,
        *,
        transposed: bool,
        bias: bool,
        std: float | None,
        initial_bias: float,
        draw: Init,
        **options: Any,
    ) -> None:
        c_in, c_out = as_int(c_in, "c_in", 1), as_int(c_out, "c_out", 1)
        d = len(kernel_size) if is_sequence(kernel_size) else 2  # type: ignore[arg-type]
        kernel = per_axis(kernel_size, "kernel_size", d, 1)
        if not kernel:
            raise ValueError("kernel_size must have at least one spatial axis; got none")
        taps: float = elements(kernel)
        if transposed:  # on average, an output reads 1 / stride of the taps
            taps /= elements(per_axis(options["stride"], "stride", d, 1))
        bias, initial_bias = as_bool(bias, "bias"), as_float(initial_bias, "initial_bias")
        self.weights = [
            Parameter(name, draw.normal(shape, std, channels * taps))
            for name, shape, channels in convolution_weights(groups, c_in, c_out, kernel, transposed)
        ]
        self.bias = Parameter("bias", draw.full((c_out,), initial_bias)) if bias else None
        self.c_in, self.c_out, self.kernel_size, self.groups = c_in, c_out, kernel_size, groups
        self.options = options

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() | self.options

    @property
    def _weight(self) -> Any:
        """The weight in the form that :func:`refconv.conv` takes: one array, or one array per group."""
        if isinstance(self.groups, ChannelGroups):
            return [parameter.value for parameter in self.weights]
        return self.weights[0].value

    def _forward(self, function: Callable[..., Array], x: Array) -> Array:
        weight = self.weights[0].value
        check_batched(self, x, weight.ndim)
        check_channels(self, x, self.c_in)
        check_same_dtype(x, weight)
        y = function(x, self._weight, self.bias.value if self.bias else None, groups=self.groups, **self.options)
        return self._keep(y, x)

    def _backward(self, function: Callable[..., ConvGrads], grad_output: Array) -> Array:
        (x,) = self._recall(grad_output)
        needs = ("x", "weight", "bias") if self.bias else ("x", "weight")
        grads = function(grad_output, x, self._weight, groups=self.groups, needs=needs, **self.options)
        of_weights = grads.weight if isinstance(grads.weight, tuple) else (grads.weight,)
        for parameter, grad in zip(self.weights, of_weights, strict=True):
            parameter.grad = grad
        if self.bias:
            self.bias.grad = grads.bias
        return grads.x

    def parameters(self) -> list[Parameter]:
        """Return the weight (of each group), then the bias."""
        return [*self.weights, self.bias] if self.bias else list(self.weights)


class Conv(_Convolution):
    r"""Convolution with any channel groups: :func:`refconv.conv` with its own weight and bias.

    .. math:: y[n, k, o] = b[k] + \sum_{c \in \mathrm{in}(k)} \sum_t w[k, c, t]\;
              P[n,\, c,\, o \cdot \mathrm{stride} + t \cdot \mathrm{dilation}]

    The weight is initialised as He et al. propose for layers before a ReLU, w ~ N(0, 2 / fan-in). The fan-in is the
    number of inputs of one output: its own group's input channels times the kernel's taps.

    Parameters
    ----------
    c_in, c_out : int
        Input and output channels.
    kernel_size : int or sequence of int
        One size per spatial axis; an int means two equal axes, as for an image. A sequence in time takes ``(k,)``.
    groups : int or ChannelGroups
        With an int, the weight is one parameter of shape (K, C/groups, k1, …, kd). With a
        :class:`~refconv.ChannelGroups` it is one parameter per group, of shapes ``groups.weight_shapes(kernel_size)``.
    stride, padding, dilation, padding_mode
        As for :func:`refconv.conv`: padding may also be "valid", "same", "same_lower" or, for one spatial axis,
        "causal"; every `padding_mode` takes any amount.
    bias : bool
        Whether to add a bias b, one number per output channel.
    std : float, optional
        Standard deviation of the initial weight, instead of He's √(2 / fan-in); AlexNet's is 0.01.
    initial_bias : float
        Initial value of the bias.
    rng : numpy.random.Generator
        Draws the weight, the same numbers on every array module.
    xp : module, optional
        Array module from :func:`refconv.load_backend`. Default: the one named by ``REFCONV_BACKEND``, or NumPy.
    dtype : {"float32", "float64", "float16"}
        Data type of the parameters, and therefore of x.
    device : optional
        Device of the parameters. Default: the array module's default device.

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

    A causal convolution in time, where no output reads a later input:

    >>> layer = Conv(2, 4, (3,), padding="causal", dilation=2, rng=np.random.default_rng(0))
    >>> layer.forward(np.ones((1, 2, 9), dtype="float32")).shape
    (1, 4, 9)
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
        initial_bias: float = 0.0,
        rng: np.random.Generator,
        xp: Namespace | None = None,
        dtype: str = "float32",
        device: Any = None,
    ) -> None:
        super().__init__(
            c_in,
            c_out,
            kernel_size,
            groups,
            transposed=False,
            bias=bias,
            std=std,
            initial_bias=initial_bias,
            draw=Init(rng, xp, dtype, device),
            stride=stride,
            padding=padding,
            dilation=dilation,
            padding_mode=padding_mode,
        )

    def forward(self, x: Array) -> Array:
        """Return y = conv(x, weight, bias): (N, C, D1, …, Dd) -> (N, K, o1, …, od)."""
        return self._forward(conv, x)

    def backward(self, grad_output: Array) -> Array:
        """Return x̄ and set w̄ and b̄: the three adjoints of :func:`refconv.conv_backward`."""
        return self._backward(conv_backward, grad_output)


class ConvTranspose(_Convolution):
    r"""Transposed convolution with any channel groups: :func:`refconv.conv_transpose` with its own weight and bias.

    .. math:: y[n, k, p] = b[k] + \sum_{c, t, l\;:\; l \cdot \mathrm{stride}
              + t \cdot \mathrm{dilation} = p + \mathrm{before}} w[c, k, t]\; x[n, c, l]

    The weight is initialised as that of :class:`Conv`, w ~ N(0, 2 / fan-in). With a stride, an output reads only some
    of the kernel's taps, on average k / stride per axis. So the fan-in is the group's input channels times
    k1·…·kd / (stride1·…·strided).

    Parameters
    ----------
    c_in, c_out : int
        Input and output channels.
    kernel_size : int or sequence of int
        As for :class:`Conv`.
    groups : int or ChannelGroups
        With an int, the weight is one parameter of shape (C, K/groups, k1, …, kd). With a
        :class:`~refconv.ChannelGroups` it is one parameter per group, of shapes
        ``groups.weight_shapes(kernel_size, transposed=True)``.
    stride, padding, output_padding, dilation
        As for :func:`refconv.conv_transpose`; padding may also be "valid", "same" or "same_lower".
    bias, std, initial_bias, rng, xp, dtype, device
        As for :class:`Conv`.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong. Padding, output padding and dilation are checked against the input by ``forward``.

    Examples
    --------
    Twice the size of the input, as in a decoder:

    >>> import numpy as np
    >>> from refconv.nn import ConvTranspose
    >>> layer = ConvTranspose(8, 4, 4, groups=2, stride=2, padding="same", rng=np.random.default_rng(0))
    >>> [parameter.value.shape for parameter in layer.parameters()]
    [(8, 2, 4, 4), (4,)]
    >>> layer.forward(np.ones((1, 8, 5, 6), dtype="float32")).shape
    (1, 4, 10, 12)
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
        output_padding: Any = 0,
        dilation: Any = 1,
        bias: bool = True,
        std: float | None = None,
        initial_bias: float = 0.0,
        rng: np.random.Generator,
        xp: Namespace | None = None,
        dtype: str = "float32",
        device: Any = None,
    ) -> None:
        super().__init__(
            c_in,
            c_out,
            kernel_size,
            groups,
            transposed=True,
            bias=bias,
            std=std,
            initial_bias=initial_bias,
            draw=Init(rng, xp, dtype, device),
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            dilation=dilation,
        )

    def forward(self, x: Array) -> Array:
        """Return y = conv_transpose(x, weight, bias): (N, C, D1, …, Dd) -> (N, K, o1, …, od)."""
        return self._forward(conv_transpose, x)

    def backward(self, grad_output: Array) -> Array:
        """Return x̄ and set w̄ and b̄: the three adjoints of :func:`refconv.conv_transpose_backward`."""
        return self._backward(conv_transpose_backward, grad_output)


class Linear(Layer):
    r"""Fully connected layer.

    .. math:: y = x\, w^{\mathsf T} + b, \qquad \bar x = g\, w, \quad \bar w = g^{\mathsf T} x, \quad
              \bar b = \textstyle\sum_n g[n]

    The weight, of shape (out_features, in_features), starts as w ~ N(0, 2 / in_features). The result has the same bits
    for any number of workers (:func:`refconv.set_workers`).

    Parameters
    ----------
    in_features, out_features : int
        Lengths of the rows of x and y.
    bias : bool
        Whether to add b.
    std, initial_bias, rng, xp, dtype, device
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
        initial_bias: float = 0.0,
        rng: np.random.Generator,
        xp: Namespace | None = None,
        dtype: str = "float32",
        device: Any = None,
    ) -> None:
        shape = (as_int(out_features, "out_features", 1), as_int(in_features, "in_features", 1))
        draw = Init(rng, xp, dtype, device)
        bias, initial_bias = as_bool(bias, "bias"), as_float(initial_bias, "initial_bias")
        self.out_features, self.in_features = shape
        self.weight = Parameter("weight", draw.normal(shape, std, shape[1]))
        self.bias = Parameter("bias", draw.full(shape[:1], initial_bias)) if bias else None

    def forward(self, x: Array) -> Array:
        """Return x·wᵀ + b: (N, in_features) -> (N, out_features)."""
        weight = self.weight.value
        xp = namespace_of({"x": x, "weight": weight})
        if x.ndim != 2:
            raise ValueError(f"x must have shape (N, in_features) for Linear; got {tuple(x.shape)}")
        check_inputs(self, x, self.in_features, "input feature")
        check_same_dtype(x, weight)
        y = product(x, xp.matrix_transpose(weight))
        return self._keep(y + self.bias.value if self.bias else y, x)

    def backward(self, grad_output: Array) -> Array:
        """Return g·w, and set w̄ = gᵀ·x and b̄ = Σ g."""
        (x,) = self._recall(grad_output)
        xp = array_namespace(grad_output)
        self.weight.grad = product(xp.matrix_transpose(grad_output), x)
        if self.bias:
            self.bias.grad = xp.sum(grad_output, axis=0)
        return product(grad_output, self.weight.value)

    def parameters(self) -> list[Parameter]:
        """Return the weight, then the bias."""
        return [self.weight, self.bias] if self.bias else [self.weight]


class ReLU(Layer):
    r"""Rectified linear unit.

    .. math:: y = \max(x, 0), \qquad \bar x = g \cdot [x > 0]

    At the kink x = 0 the gradient is 0, as in PyTorch. A NaN stays a NaN.

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
        check_real(self, x)
        return self._keep(xp.maximum(x, xp.zeros((), dtype=x.dtype, device=device(x))), x > 0)

    def backward(self, grad_output: Array) -> Array:
        """Return g where x > 0, else 0."""
        (positive,) = self._recall(grad_output)
        xp = array_namespace(grad_output)
        return masked(xp, grad_output, positive)


class Tanh(Layer):
    r"""Scaled hyperbolic tangent.

    .. math:: y = A \tanh(S x), \qquad \bar x = g\, A S\, (1 - \tanh^2(S x))

    Parameters
    ----------
    amplitude, slope : float
        A and S, finite. LeNet-5's are 1.7159 and 2/3, for which y(±1) is close to ±1.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or x is not floating-point.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 86
    (1998), appendix A.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Tanh
    >>> layer = Tanh(amplitude=1.7159, slope=2/3)
    >>> layer.forward(np.array([[0., 1.]])).round(4)
    array([[0., 1.]])
    >>> layer.backward(np.array([[1., 1.]])).round(4)   # A·S at 0
    array([[1.1439, 0.7554]])
    """

    def __init__(self, *, amplitude: float = 1.0, slope: float = 1.0) -> None:
        self.amplitude = as_float(amplitude, "amplitude")
        self.slope = as_float(slope, "slope")

    def forward(self, x: Array) -> Array:
        """Return A·tanh(S·x), of any shape."""
        xp = check_floating(self, x)
        t = xp.tanh(self.slope * x)
        return self._keep(self.amplitude * t, t)

    def backward(self, grad_output: Array) -> Array:
        """Return g·A·S·(1 − t²), t = tanh(S·x)."""
        (t,) = self._recall(grad_output)
        return grad_output * (self.amplitude * self.slope * (1 - t * t))


class Scale(Layer):
    r"""A trained coefficient and bias per channel.

    .. math:: y[n, c] = a[c]\, x[n, c] + b[c], \qquad \bar x = a\, g, \quad \bar a = \sum g\, x, \quad
              \bar b = \sum g

    summed over the batch and all spatial axes. After an :class:`AvgPool` of 2, this is LeNet-5's subsampling. The
    paper's S2 and S4 multiply the sum of four elements, not their mean, by a trained coefficient; so their coefficient
    is a quarter of this a. They also add a trained bias.

    Parameters
    ----------
    channels : int
        C.
    xp, dtype, device
        As for :class:`Conv`.

    Attributes
    ----------
    weight, bias : Parameter
        a and b, of shape (C,): initially 1 and 0.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or x does not have C channels and the parameters' data type.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 86
    (1998), section II.B.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Scale
    >>> layer = Scale(2, dtype="float64")
    >>> layer.weight.value = np.array([10., 100.])
    >>> layer.forward(np.array([[1., 2.]]))
    array([[ 10., 200.]])
    >>> layer.backward(np.array([[1., 1.]])), layer.weight.grad
    (array([[ 10., 100.]]), array([1., 2.]))
    """

    def __init__(
        self, channels: int, *, xp: Namespace | None = None, dtype: str = "float32", device: Any = None
    ) -> None:
        shape = (as_int(channels, "channels", 1),)
        self.channels = shape[0]
        place = Place(xp, dtype, device)
        self.weight, self.bias = Parameter("weight", place.full(shape, 1)), Parameter("bias", place.full(shape, 0))

    def forward(self, x: Array) -> Array:
        """Return a·x + b: (N, C, D1, …, Dd) -> the same shape."""
        xp = namespace_of({"x": x})
        weight, bias = self.weight.value, self.bias.value
        check_affine(self, x, weight)
        return self._keep(x * per_channel(xp, weight, x) + per_channel(xp, bias, x), x)

    def backward(self, grad_output: Array) -> Array:
        """Return a·g, and set ā = Σ g·x and b̄ = Σ g."""
        (x,) = self._recall(grad_output)
        xp = array_namespace(grad_output)
        grad, weight = widened(xp, grad_output), self.weight.value
        self.weight.grad = xp.astype(channel_sums(xp, grad * x), weight.dtype, copy=False)
        self.bias.grad = xp.astype(channel_sums(xp, grad), weight.dtype, copy=False)
        return grad_output * per_channel(xp, weight, grad)

    def parameters(self) -> list[Parameter]:
        """Return the weight, then the bias."""
        return [self.weight, self.bias]


class ChannelShuffle(Layer):
    r"""Distribute the channels of each group over all groups, so that the next grouped convolution mixes them.

    .. math:: y[n,\, c \cdot G + g] = x[n,\, g \cdot (C/G) + c]

    This exchanges the two channel axes of (N, G, C/G, …). The inverse, and hence the backward pass, is the shuffle
    with C/G groups.

    Parameters
    ----------
    groups : int
        G; it must divide C.

    Raises
    ------
    ValueError, TypeError
        If `groups` is not a positive integer, or does not divide the channels of x.

    References
    ----------
    X. Zhang, X. Zhou, M. Lin, J. Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
    Devices", arXiv 1707.01083, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import ChannelShuffle
    >>> layer = ChannelShuffle(2)
    >>> y = layer.forward(np.arange(6).reshape(1, 6))
    >>> y, layer.backward(y)
    (array([[0, 3, 1, 4, 2, 5]]), array([[0, 1, 2, 3, 4, 5]]))
    """

    def __init__(self, groups: int) -> None:
        self.groups = as_int(groups, "groups", 1)

    def forward(self, x: Array) -> Array:
        """Return x with channel g·(C/G) + c at c·G + g: (N, C, D1, …, Dd) -> the same shape."""
        namespace_of({"x": x})
        check_channels(self, x)
        if x.shape[1] % self.groups:
            raise ValueError(
                f"groups={self.groups} must divide the C={x.shape[1]} channels of x for ChannelShuffle; got shape "
                f"{tuple(x.shape)}"
            )
        return self._keep(_dealt(x, self.groups))

    def backward(self, grad_output: Array) -> Array:
        """Return g with every channel back in its old place."""
        self._recall(grad_output)
        return _dealt(grad_output, grad_output.shape[1] // self.groups)


class Flatten(Layer):
    """Flatten each sample to one row: (N, D1, …, Dd) -> (N, D1·…·Dd), in row-major order.

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
        return self._keep(reshaped_copy(xp, x, (shape[0], elements(shape[1:]))), shape)

    def backward(self, grad_output: Array) -> Array:
        """Return g in the shape of x."""
        (shape,) = self._recall(grad_output)
        return reshaped_copy(array_namespace(grad_output), grad_output, shape)


def convolution_weights(
    groups: int | ChannelGroups, c_in: int, c_out: int, kernel: Shape, transposed: bool
) -> list[tuple[str, Shape, int]]:
    """Return the name, the shape and the number of input channels of each weight parameter."""
    if isinstance(groups, ChannelGroups):
        if (groups.c_in, groups.c_out) != (c_in, c_out):
            raise ValueError(
                f"groups must have c_in={c_in} input and c_out={c_out} output channels; got a ChannelGroups with "
                f"{groups.c_in} and {groups.c_out}"
            )
        shapes = groups.weight_shapes(kernel, transposed=transposed)
        sizes = zip(shapes, groups.in_sizes, strict=True)
        return [(f"weight[{g}]", shape, channels) for g, (shape, channels) in enumerate(sizes)]
    n = as_int(groups, "groups", 1)
    if c_in % n or c_out % n:
        raise ValueError(f"groups={n} must divide c_in={c_in} and c_out={c_out}")
    channels = (c_in, c_out // n) if transposed else (c_out, c_in // n)
    return [("weight", (*channels, *kernel), c_in // n)]


def _dealt(x: Array, groups: int) -> Array:
    """Return x with its channels shuffled, the first of every group first: a new array."""
    xp = array_namespace(x)
    per_group = x.shape[1] // groups
    split = xp.reshape(x, (x.shape[0], groups, per_group, *x.shape[2:]))
    exchanged = xp.permute_dims(split, (0, 2, 1, *range(3, split.ndim)))  # (N, C/G, G, …)
    return reshaped_copy(xp, exchanged, x.shape)
