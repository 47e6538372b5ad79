"""Convolution, transposed convolution and their gradients: the public functions.

They check their arguments, convert them to one form (batched, channels first, one array of kernels for each block of
equal groups) and call an engine: :mod:`refconv.textbook`, or on NumPy the faster :mod:`refconv.cpu`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from refconv.arrays import (
    DTYPES,
    Array,
    DType,
    Namespace,
    accumulating_dtype,
    check_dtype,
    common_dtype,
    computing_dtype,
    conj,
    converted,
    device,
    dtype_kind,
    dtype_name,
    elements,
    get_dtype,
    item_bytes,
    namespace_of,
    on_their_device,
    plain,
    sum_axis,
)
from refconv.engine import passes, spread_rows
from refconv.groups import ChannelGroups
from refconv.integers import as_bool, as_int, is_sequence, members, per_axis, shown
from refconv.padding import extend, reduce
from refconv.shapes import Convolution, as_shape, check_shape, describe

Weight = Any
"""One array, or a sequence with one array per channel group."""


class ConvGrads(NamedTuple):
    """Gradients of a convolution; None for a gradient that was not requested."""

    x: Array | None
    weight: Weight | None
    bias: Array | None


class _Checked(NamedTuple):
    """A checked call: its array module, its description, and the data types of its result and its sums."""

    xp: Namespace
    call: Convolution
    dtype: DType
    accumulate: DType
    converts: bool = False  # whether the result has another data type than the operands


# --- From weights to kernels and back -------------------------------------------------------------------------------


def _to_kernels(c: _Checked, weight: Weight) -> list[Array]:
    """Return one array of kernels (G, K, C·T) per block, in the accumulating data type."""
    xp = c.xp
    if c.call.stacked:  # all groups have one shape, so there is one block
        return [xp.astype(xp.reshape(weight, c.call.kernel_shapes[0]), c.accumulate, copy=False)]
    kernels = []
    for block, shape in zip(c.call.groups.blocks, c.call.kernel_shapes, strict=True):
        arrays = list(weight)[block.first : block.first + block.count]
        rows = arrays[0] if len(arrays) == 1 else xp.concat(arrays, axis=0)
        kernels.append(xp.astype(xp.reshape(rows, shape), c.accumulate, copy=False))
    return kernels


def _conj_kernels(c: _Checked, weight: Weight) -> list[Array]:
    return [conj(c.xp, kernel) for kernel in _to_kernels(c, weight)]


def _from_kernels(c: _Checked, kernels: list[Array]) -> Weight:
    """Return gradients in the form of the weight, given one array of kernels per block."""
    xp, grads = c.xp, []
    for block, kernel in zip(c.call.groups.blocks, kernels, strict=True):
        kernel = xp.astype(kernel, c.dtype, copy=False)
        if c.call.stacked:
            return xp.reshape(kernel, c.call.stacked_weight_shape)
        grads += [xp.reshape(kernel[g, ...], c.call.weight_shape(block)) for g in range(block.count)]
    return tuple(grads)


# --- Checking and layout ---------------------------------------------------------------------------------------------


def is_per_group(weight: Weight) -> bool:
    """Return whether a weight is a sequence of arrays; a one-dimensional array is not."""
    return not hasattr(weight, "dtype") and is_sequence(weight)


def check_arrays(**operands: Any) -> tuple[Namespace, str]:
    """Check that all operands are arrays of one module, data type and device; return module and data type."""
    arrays: dict[str, Array] = {}
    for name, operand in operands.items():
        if name.endswith("weight") and is_per_group(operand):
            if not operand:
                raise ValueError(f"{name} must have one array for each group; got an empty sequence")
            if not isinstance(operand[0], int | float | complex | list | tuple):  # not a list of numbers
                arrays |= {f"{name}[{g}]": member for g, member in enumerate(operand)}
                continue
        if operand is not None or name in ("x", "weight", "grad_output"):
            arrays[name] = operand
    xp = namespace_of(arrays)
    first, *others = arrays
    dtype, place = check_dtype(first, arrays[first], arrays.values()), device(arrays[first])
    for name in others:
        other = check_dtype(name, arrays[name], arrays.values())
        if other != dtype:
            common = common_dtype(dtype, other)
            if dtype_kind(common) not in (dtype_kind(dtype), dtype_kind(other)):
                common = dtype  # no integer type has all values of both
            pair = ((first, dtype), (name, other))
            remedy = " and ".join(converted(n, arrays[n], common) for n, own in pair if own != common)
            raise TypeError(
                f"all operands must share one data type, but {first} has {dtype} and {name} has {other}: write {remedy}"
            )
        if device(arrays[name]) != place:
            raise ValueError(
                f"all operands must be on one device, but {first} is on {place} and {name} on {device(arrays[name])}"
            )
    return xp, dtype


def _checked(xp: Namespace, call: Convolution, dtype: str, accumulate_dtype: Any, output_dtype: Any = None) -> _Checked:
    accumulate = accumulating_dtype(xp, dtype)
    if accumulate_dtype is not None:
        accumulate = computing_dtype(xp, _dtype_name(accumulate_dtype, "accumulate_dtype", dtype))
    output = dtype if output_dtype is None else _dtype_name(output_dtype, "output_dtype", dtype)
    if output != dtype and accumulate_dtype is None:
        accumulate = computing_dtype(xp, max(accumulate, output, key=item_bytes))  # integers wrap alike at any width
    return _Checked(xp, call, get_dtype(xp, output), get_dtype(xp, accumulate), output != dtype)


def _dtype_name(given: Any, argument: str, dtype: str) -> str:
    """Return the name of the data type given as `argument`, or refuse it unless it is of the operands' kind."""
    try:
        name = dtype_name(given)
    except Exception:  # not a data type, or one without a name; a foreign repr may fail
        name = ""
    if name not in DTYPES:
        error = ValueError if isinstance(given, str) else TypeError
        raise error(f"{argument} must be one of {', '.join(DTYPES)}, or such a data type; got {shown(given)}")
    if dtype_kind(name) != dtype_kind(dtype):
        raise TypeError(
            f"{argument} must be of the operands' kind: {dtype} is {dtype_kind(dtype)}; got {name}, "
            f"which is {dtype_kind(name)}"
        )
    return name


def _weight_shape(weight: Weight) -> Any:
    if is_per_group(weight):
        return [tuple(w.shape) for w in weight]
    return tuple(weight.shape)


def _to_first(c: _Checked, array: Array) -> Array:
    """View an array in the caller's layout as (N, channels, D1, …, Dd).

    A pass returns the data type that it reads. If the result has another data type than the operands, the array is
    therefore converted to that of the sums.
    """
    array = plain(array)
    if not c.call.batched:
        array = array[None, ...]
    if c.call.channels_last:
        last = array.ndim - 1
        array = c.xp.permute_dims(array, (0, last, *range(1, last)))
    return c.xp.astype(array, c.accumulate, copy=False) if c.converts else array


def _image(c: _Checked, x: Array) -> Array:
    """Return an image as `call.extended` expects it: extended along its long axes."""
    x, geo = _to_first(c, x), c.call.geometry
    for axis in c.call.long_axes:
        x = extend(c.xp, x, axis + 2, geo.pads[axis], geo.padding_mode)
    return x


def _positions(c: _Checked, grad: Array) -> Array:
    """Return the positions that a pass turns into an image: in the data type of the sums if the image is folded."""
    return c.xp.astype(grad, c.accumulate, copy=False) if c.call.long_axes else grad


def _folded(c: _Checked, image: Array) -> Array:
    """Return the gradient of an image, given that of the extended image."""
    geo = c.call.geometry
    for axis in c.call.long_axes:
        image = reduce(c.xp, image, axis + 2, geo.size[axis], geo.pads[axis], geo.padding_mode)
    return c.xp.astype(image, c.dtype, copy=False) if c.call.long_axes else image


def _from_first(c: _Checked, array: Array) -> Array:
    """Return an array (N, channels, D1, …, Dd) in the caller's layout."""
    if c.converts:
        array = c.xp.astype(array, c.dtype, copy=False)
    if c.call.channels_last:
        array = c.xp.permute_dims(array, (0, *range(2, array.ndim), 1))
    return array if c.call.batched else array[0, ...]


def _check_grad(grad_output: Array, call: Convolution) -> None:
    check_shape("grad_output", tuple(grad_output.shape), call.y_shape, "the shape of the output")


def check_needs(needs: Any, fields: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the gradients to compute, among `fields`."""
    *others, last = (f'"{field}"' for field in fields)
    if not isinstance(needs, list | tuple | set | frozenset):
        raise TypeError(f"needs must be a tuple of names among {', '.join(others)} and {last}; got {shown(needs)}")
    for name in needs:
        if not isinstance(name, str) or name not in fields:
            raise ValueError(f"needs may contain only {', '.join(others)} and {last}; got {shown(name)}")
    return tuple(needs)


def _conv_grads(c: _Checked, grad_x: Array | None, kernels: list[Array] | None, bias: Array | None) -> ConvGrads:
    """Return gradients in the caller's layout."""
    x = None if grad_x is None else _from_first(c, grad_x)
    return ConvGrads(x, None if kernels is None else _from_kernels(c, kernels), bias)


def _bias_grad(c: _Checked, grad: Array) -> Array:
    """Return the sum over batch and positions, because the bias is added once to each element of its channel."""
    total = c.xp.empty(grad.shape[1], dtype=c.dtype, device=device(grad))
    axes = (0, *range(2, grad.ndim))

    def work(channels: slice) -> None:
        found = sum_axis(c.xp, grad[:, channels, ...], axes, dtype=c.accumulate)
        total[channels] = c.xp.astype(found, c.dtype, copy=False)

    channel_bytes = grad.shape[0] * elements(grad.shape[2:]) * item_bytes(dtype_name(c.dtype))
    spread_rows(c.xp, work, grad.shape[1], min(channel_bytes, 2**22))  # a sum needs no scratch, however long it is
    return total


# --- Public functions ------------------------------------------------------------------------------------------------


@on_their_device
def conv(
    x: Array,
    weight: Weight,
    bias: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
    accumulate_dtype: Any = None,
    output_dtype: Any = None,
) -> Array:
    r"""Convolve `x` with `weight` in any number of dimensions, group by group.

    .. math:: y[n, k, o] = b[k] + \sum_{c \in \mathrm{in}(k)} \sum_t w[k, c, t]\;
              P[n,\, c,\, o \cdot \mathrm{stride} + t \cdot \mathrm{dilation}]

    where P is `x` padded and in(k) are the input channels that the group of output channel k reads. This is
    cross-correlation, as in today's deep-learning libraries: the kernel is neither flipped nor conjugated.

    Parameters
    ----------
    x : array (N, C, D1, …, Dd) or (C, D1, …, Dd)
        Input; d = ``weight.ndim - 2`` ≥ 1. It may be read-only or have any strides.
    weight : array (K, C/G, k1, …, kd), or sequence of arrays
        With a `ChannelGroups`, one array per group, of shapes ``groups.weight_shapes(kernel_size)``; if these are
        all equal, one array that joins them along the first axis is also accepted.
    bias : array (K,), optional
        Added to each output channel.
    stride, dilation : int or sequence of int
        Step between windows; step between the taps of one window.
    padding : int, sequence of int, sequence of (before, after), "valid", "same", "same_lower" or "causal"
        Elements added around the input; negative numbers crop it. "same" gives ceil(n / stride) outputs, also
        if stride > 1; an odd element goes after the input ("same_lower": before it). "causal", for one spatial axis,
        adds dilation·(k−1) before, so that no output reads a later input.
    groups : int or ChannelGroups
        G equal, contiguous blocks of channels, or any :class:`ChannelGroups`.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        Values of the added elements: the mode extends the input to infinity, and padding selects a window
        of it, as `numpy.pad` does with "reflect", "edge" and "wrap".
    channels_last : bool
        x and y are (N, D1, …, Dd, C) and (N, o1, …, od, K); the weight keeps its layout.
    accumulate_dtype : dtype or str, optional
        Compute in this data type of the same kind, and round once at the end. Default: the operands' data type
        (float32 for float16), or that of the result if it is wider.
    output_dtype : dtype or str, optional
        Data type of the result, of the same kind; by default the operands'. With "int32", products of int8 operands are
        summed without wrapping.

    Returns
    -------
    y : array (N, K, o1, …, od)
        A new array with o = floor((n + before + after − dilation·(k−1) − 1) / stride) + 1; unbatched if `x` is.
        An empty batch, or C = 0, gives the bias or zeros. Integers wrap.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or the operands do not share one module and data type.
    ValueError
        If a shape or a number breaks a rule, or an array would have more than 2^40 elements.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, section 3.5 (groups). K. Chellapilla et al., 2006 (im2col).

    Examples
    --------
    Two groups: output channel 0 reads only input channel 0, and output channel 1 only input channel 1.

    >>> import numpy as np
    >>> from refconv import conv
    >>> x = np.array([[[1, 2, 3, 4], [10, 20, 30, 40]]])
    >>> w = np.array([[[1, -1]], [[1, 1]]])
    >>> conv(x, w, groups=2)
    array([[[-1, -1, -1],
            [30, 50, 70]]])
    """
    xp, dtype = check_arrays(x=x, weight=weight, bias=bias)
    call = describe(
        tuple(x.shape),
        _weight_shape(weight),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        channels_last=channels_last,
    )
    if bias is not None:
        check_shape("bias", tuple(bias.shape), (call.groups.c_out,), "one element per output channel")
    c = _checked(xp, call, dtype, accumulate_dtype, output_dtype)
    return _from_first(c, passes(xp).correlate(call.extended, _image(c, x), _to_kernels(c, weight), bias))


@on_their_device
def conv_backward(
    grad_output: Array,
    x: Array,
    weight: Weight,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
    accumulate_dtype: Any = None,
    needs: Sequence[str] = ("x", "weight", "bias"),
) -> ConvGrads:
    r"""Return the gradients of :func:`conv` with respect to `x`, `weight` and bias.

    With g = `grad_output`,

    .. math::
        \bar x &= \mathrm{fold}(\bar P), \quad \bar P[n, c, p] = \sum_{k, t, o\;:\; o \cdot \mathrm{stride}
                  + t \cdot \mathrm{dilation} = p} \overline{w[k, c, t]}\; g[n, k, o] \\
        \bar w[k, c, t] &= \sum_{n, o} g[n, k, o]\;
                           \overline{P[n, c, o \cdot \mathrm{stride} + t \cdot \mathrm{dilation}]} \\
        \bar b[k] &= \sum_{n, o} g[n, k, o]

    where fold, the adjoint of padding, adds each padded element to its input element. All are adjoints under
    ⟨a, b⟩ = Σ conj(a)·b (PyTorch's convention): ⟨g, conv(x, w)⟩ = ⟨x̄, x⟩ = ⟨w̄, w⟩.

    Parameters
    ----------
    grad_output : array
        Gradient with respect to the output, of the output's shape.
    x, weight, stride, padding, dilation, groups, padding_mode, channels_last, accumulate_dtype
        As passed to :func:`conv`.
    needs : tuple of str
        Gradients to compute, among "x", "weight" and "bias".

    Returns
    -------
    ConvGrads
        Named tuple ``(x, weight, bias)`` of new arrays; None where not needed. ``weight`` is a tuple if `weight`
        is a sequence.

    Raises
    ------
    ValueError, TypeError
        As for :func:`conv`; and if `grad_output` does not have the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_backward
    >>> x, w = np.array([[[1., 2., 3.]]]), np.array([[[1., -1.]]])
    >>> grads = conv_backward(np.ones((1, 1, 2)), x, w)
    >>> grads.x, grads.weight, grads.bias
    (array([[[ 1.,  0., -1.]]]), array([[[3., 5.]]]), array([2.]))
    """
    needs = check_needs(needs, ConvGrads._fields)
    xp, dtype = check_arrays(grad_output=grad_output, x=x, weight=weight)
    call = describe(
        tuple(x.shape),
        _weight_shape(weight),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        channels_last=channels_last,
    )
    _check_grad(grad_output, call)
    c = _checked(xp, call, dtype, accumulate_dtype)
    engine, grad, grad_x, kernels = passes(xp), _to_first(c, grad_output), None, None
    if "x" in needs and "weight" in needs:
        image = _image(c, x)
        grad_x, kernels = engine.gradients(call.extended, _positions(c, grad), _conj_kernels(c, weight), image)
    elif "x" in needs:
        grad_x = engine.scatter(call.extended, _positions(c, grad), _conj_kernels(c, weight))
    elif "weight" in needs:
        kernels = engine.outer(call.extended, grad, _image(c, x), c.accumulate)
    grad_x = None if grad_x is None else _folded(c, grad_x)
    return _conv_grads(c, grad_x, kernels, _bias_grad(c, grad) if "bias" in needs else None)


@on_their_device
def conv_input_grad(
    grad_output: Array,
    weight: Weight,
    input_shape: Sequence[int],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
    accumulate_dtype: Any = None,
) -> Array:
    """Return the gradient of :func:`conv` with respect to its input, given the input's shape.

    The formula is x̄ of :func:`conv_backward`. The shape is needed because several input sizes can give the same output
    size: with k = 3 and stride 2, both 7 and 8 give 3.

    Parameters
    ----------
    grad_output : array
        Gradient with respect to the output.
    weight : array or sequence of arrays
        As for :func:`conv`.
    input_shape : sequence of int
        Shape of x in the layout chosen by `channels_last`, with N (unless unbatched) and C.
    stride, padding, dilation, groups, padding_mode, channels_last, accumulate_dtype
        As for :func:`conv`.

    Returns
    -------
    grad_x : array of shape `input_shape`
        A new array.

    Raises
    ------
    ValueError, TypeError
        As for :func:`conv_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_input_grad
    >>> conv_input_grad(np.ones((1, 1, 3)), np.ones((1, 1, 3)), (1, 1, 8), stride=2)
    array([[[1., 1., 2., 1., 2., 1., 1., 0.]]])
    """
    xp, dtype = check_arrays(grad_output=grad_output, weight=weight)
    call = describe(
        as_shape(input_shape, "input_shape"),
        _weight_shape(weight),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        channels_last=channels_last,
        x_name="input_shape",
    )
    _check_grad(grad_output, call)
    c = _checked(xp, call, dtype, accumulate_dtype)
    grad = _positions(c, _to_first(c, grad_output))
    return _from_first(c, _folded(c, passes(xp).scatter(call.extended, grad, _conj_kernels(c, weight))))


@on_their_device
def conv_weight_grad(
    grad_output: Array,
    x: Array,
    kernel_size: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
    accumulate_dtype: Any = None,
) -> Weight:
    """Return the gradient of :func:`conv` with respect to its weight, given the kernel's size.

    The formula is w̄ of :func:`conv_backward`.

    Parameters
    ----------
    grad_output, x : array
        Gradient with respect to the output, and the input.
    kernel_size : int or sequence of int
        Kernel size per spatial axis. An int applies to all axes of a batched `x`.
    stride, padding, dilation, groups, padding_mode, channels_last, accumulate_dtype
        As for :func:`conv`.

    Returns
    -------
    grad_weight : array (K, C/G, k1, …, kd), or tuple of arrays
        A tuple with one array per group if `groups` is a :class:`ChannelGroups`.

    Raises
    ------
    ValueError, TypeError
        As for :func:`conv_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_weight_grad
    >>> conv_weight_grad(np.ones((1, 1, 2)), np.array([[[1., 2., 3.]]]), 2)
    array([[[3., 5.]]])
    """
    xp, dtype = check_arrays(grad_output=grad_output, x=x)
    d = len(members(kernel_size)) if is_sequence(kernel_size) else x.ndim - 2
    if d < 1 or x.ndim not in (d + 1, d + 2) or grad_output.ndim != x.ndim:
        raise ValueError(
            f"x and grad_output must both have {max(d, 1) + 2} axes (or {max(d, 1) + 1} if unbatched) for "
            f"kernel_size={shown(kernel_size)}; got shapes {tuple(x.shape)} and {tuple(grad_output.shape)}"
        )
    kernel = per_axis(kernel_size, "kernel_size", d, 1)
    shapes: Any
    if isinstance(groups, ChannelGroups):
        shapes = list(groups.weight_shapes(kernel))
    else:
        axis = -1 if as_bool(channels_last, "channels_last") else x.ndim - d - 1
        channels = x.shape[axis]
        n = as_int(groups, "groups", 1)
        shapes = (grad_output.shape[axis], channels // n, *kernel)
    call = describe(
        tuple(x.shape),
        shapes,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        channels_last=channels_last,
    )
    _check_grad(grad_output, call)
    c = _checked(xp, call, dtype, accumulate_dtype)
    image = _image(c, x)
    return _from_kernels(c, passes(xp).outer(call.extended, _to_first(c, grad_output), image, c.accumulate))


@on_their_device
def conv_transpose(
    x: Array,
    weight: Weight,
    bias: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    output_size: Any = None,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    channels_last: bool = False,
    accumulate_dtype: Any = None,
    output_dtype: Any = None,
) -> Array:
    r"""Convolve `x` with `weight`, transposed: the adjoint of a convolution, used as a layer of its own.

    .. math:: y[n, k, p] = b[k] + \sum_{c, t, l\;:\; l \cdot \mathrm{stride}
              + t \cdot \mathrm{dilation} = p + \mathrm{before}} w[c, k, t]\; x[n, c, l]

    where c runs over the input channels of the groups that write output channel k. The kernel is not conjugated.

    Parameters
    ----------
    x : array (N, C, D1, …, Dd) or (C, D1, …, Dd)
        Input; d = ``weight.ndim - 2`` ≥ 1.
    weight : array (C, K/G, k1, …, kd), or sequence of arrays
        With a `ChannelGroups`, one array per group, of shapes ``groups.weight_shapes(kernel_size, transposed=True)``.
    bias : array (K,), optional
        Added to each output channel.
    stride, dilation : int or sequence of int
        Step between the outputs of neighbouring inputs; step between the kernel's taps.
    padding : int, sequence of int, sequence of (before, after), "valid", "same" or "same_lower"
        Elements cropped from the output: the padding of the convolution from y to x. "same" gives n·stride outputs,
        and crops an odd element at the end ("same_lower": at the start).
    output_padding : int or sequence of int
        Elements added at the end of the output, within reach of the kernel; smaller than stride or dilation.
    output_size : int or sequence of int, optional
        Size of the output per spatial axis, instead of `output_padding`: any size that a convolution with this stride
        and padding maps to the size of x.
    groups : int or ChannelGroups
        Each group reads its ``in_channels`` of x and writes its ``out_channels`` of y.
    channels_last, accumulate_dtype, output_dtype
        As for :func:`conv`.

    Returns
    -------
    y : array (N, K, o1, …, od)
        A new array with o = (n−1)·stride − before − after + dilation·(k−1) + 1 + output_padding.

    Raises
    ------
    ValueError, TypeError
        As for :func:`conv`.

    References
    ----------
    V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv 1603.07285, chapter 4.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_transpose
    >>> conv_transpose(np.array([[[1, 2]]]), np.array([[[1, 10, 100]]]), stride=2)
    array([[[  1,  10, 102,  20, 200]]])
    """
    xp, dtype = check_arrays(x=x, weight=weight, bias=bias)
    call = describe(
        tuple(x.shape),
        _weight_shape(weight),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        output_padding=output_padding,
        output_size=output_size,
        channels_last=channels_last,
        transposed=True,
    )
    if bias is not None:
        check_shape("bias", tuple(bias.shape), (call.groups.c_out,), "one element per output channel")
    c = _checked(xp, call, dtype, accumulate_dtype, output_dtype)
    return _from_first(c, passes(xp).scatter(call, _to_first(c, x), _to_kernels(c, weight), bias))


@on_their_device
def conv_transpose_backward(
    grad_output: Array,
    x: Array,
    weight: Weight,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    output_size: Any = None,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    channels_last: bool = False,
    accumulate_dtype: Any = None,
    needs: Sequence[str] = ("x", "weight", "bias"),
) -> ConvGrads:
    r"""Return the gradients of :func:`conv_transpose` with respect to `x`, `weight` and bias.

    With g = `grad_output`, padded with zeros to G,

    .. math::
        \bar x[n, c, l] &= \sum_{k, t} \overline{w[c, k, t]}\;
                           G[n, k, l \cdot \mathrm{stride} + t \cdot \mathrm{dilation}] \\
        \bar w[c, k, t] &= \sum_{n, l} \overline{x[n, c, l]}\;
                           G[n, k, l \cdot \mathrm{stride} + t \cdot \mathrm{dilation}] \\
        \bar b[k] &= \sum_{n, p} g[n, k, p]

    so x̄ is a convolution of g, as the adjoint of an adjoint.

    Parameters
    ----------
    grad_output : array
        Gradient with respect to the output, of the output's shape.
    x, weight, stride, padding, output_padding, output_size, dilation, groups, channels_last, accumulate_dtype
        As passed to :func:`conv_transpose`.
    needs : tuple of str
        Gradients to compute, among "x", "weight" and "bias".

    Returns
    -------
    ConvGrads
        Named tuple ``(x, weight, bias)`` of new arrays; None where not needed.

    Raises
    ------
    ValueError, TypeError
        As for :func:`conv_transpose`; and if `grad_output` does not have the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_transpose_backward
    >>> x, w = np.array([[[1., 2.]]]), np.array([[[1., 10., 100.]]])
    >>> grads = conv_transpose_backward(np.ones((1, 1, 5)), x, w, stride=2)
    >>> grads.x, grads.weight, grads.bias
    (array([[[111., 111.]]]), array([[[3., 3., 3.]]]), array([5.]))
    """
    needs = check_needs(needs, ConvGrads._fields)
    xp, dtype = check_arrays(grad_output=grad_output, x=x, weight=weight)
    call = describe(
        tuple(x.shape),
        _weight_shape(weight),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        output_padding=output_padding,
        output_size=output_size,
        channels_last=channels_last,
        transposed=True,
    )
    _check_grad(grad_output, call)
    c = _checked(xp, call, dtype, accumulate_dtype)
    engine, grad, grad_x, kernels = passes(xp), _to_first(c, grad_output), None, None
    if "x" in needs:
        grad_x = engine.correlate(call, grad, _conj_kernels(c, weight))
    if "weight" in needs:
        kernels = [conj(xp, kernel) for kernel in engine.outer(call, _to_first(c, x), grad, c.accumulate)]
    return _conv_grads(c, grad_x, kernels, _bias_grad(c, grad) if "bias" in needs else None)


def conv_output_shape(
    input_shape: Sequence[int],
    weight_shape: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
) -> tuple[int, ...]:
    """Return the shape of the result of :func:`conv`, without any array.

    Parameters
    ----------
    input_shape : sequence of int
        Shape of x, with N (unless unbatched) and C.
    weight_shape : sequence of int, or sequence of such sequences
        Shape of the weight; with a :class:`ChannelGroups`, one shape per group, or one joined shape if all are equal.
    stride, padding, dilation, groups, padding_mode, channels_last
        As for :func:`conv`.

    Returns
    -------
    tuple of int
        Per spatial axis floor((n + before + after − dilation·(k−1) − 1) / stride) + 1.

    Raises
    ------
    ValueError, TypeError
        As for :func:`conv`.

    Examples
    --------
    AlexNet's first layer: 227 pixels give 55 outputs, 224 do not.

    >>> from refconv import conv_output_shape
    >>> conv_output_shape((128, 3, 227, 227), (96, 3, 11, 11), stride=4)
    (128, 96, 55, 55)
    """
    shapes: Any
    if is_sequence(weight_shape) and any(map(is_sequence, members(weight_shape, 0))):
        shapes = [as_shape(shape, f"weight_shape[{g}]") for g, shape in enumerate(weight_shape)]
    else:
        shapes = as_shape(weight_shape, "weight_shape")
    call = describe(
        as_shape(input_shape, "input_shape"),
        shapes,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
        channels_last=channels_last,
        x_name="input_shape",
    )
    return call.y_shape


def _of_rank(d: int, general: Callable[..., Array]) -> Callable[..., Array]:
    """Return `general` for exactly d spatial axes."""

    @functools.wraps(general)
    def fixed(x: Array, weight: Weight, bias: Array | None = None, **options: Any) -> Array:
        members = list(weight) if is_per_group(weight) else [weight]
        for member in members:
            shape = getattr(member, "shape", None)
            if isinstance(shape, tuple) and len(shape) != d + 2:
                raise ValueError(f"weight must have {d + 2} axes for {d} spatial axes; got shape {tuple(shape)}")
        return general(x, weight, bias, **options)

    fixed.__name__ = fixed.__qualname__ = f"{general.__name__}{d}d"
    fixed.__doc__ = f"{d}-d :func:`{general.__name__}`: the same function, with the number of spatial axes checked."
    return fixed


conv1d, conv2d, conv3d = (_of_rank(d, conv) for d in (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = (_of_rank(d, conv_transpose) for d in (1, 2, 3))
