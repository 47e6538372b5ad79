"""im2col and its adjoint col2im: the idea of the project on one screen.

Letters: N batch, G groups, C channels of one group, T = k1·…·kd kernel taps, L = o1·…·od output positions.

A convolution multiplies every window of its input by the same weights. Write each window as a column, and
all products become one matrix product. im2col writes the columns. col2im adds each column back to the elements
that it was read from, so it is the transpose of the same 0/1 matrix:

    columns[(c, t), l] = P[c, l·stride + t·dilation]                          im2col
    P[c, p] = Σ { columns[(c, t), l] : l·stride + t·dilation = p }            col2im

where P is the padded input.
"""

from __future__ import annotations

from typing import Any

from refconv import padding as pads
from refconv.arrays import (
    Array,
    Namespace,
    accumulating_dtype,
    add_to,
    check_dtype,
    device,
    dtype_of,
    elements,
    get_dtype,
    namespace_of,
    native_dtype,
    on_their_device,
    plain,
    reshaped_copy,
    tap_slices,
    windows,
)
from refconv.integers import is_sequence, members, per_axis, shown
from refconv.shapes import Geometry, Shape, as_shape, check_shape, geometry, refuse_absurd


def gather_columns(xp: Namespace, padded: Array, geo: Geometry, groups: int, *, copy: bool = False) -> Array:
    """Return the columns (G, C·T, N·L) of a padded image (N, G·C, P1, …, Pd): im2col, samples side by side."""
    d = len(geo.kernel)
    view = windows(xp, padded, geo.kernel, geo.stride, geo.dilation, geo.output)  # (N, G·C, k1…kd, o1…od)
    view = xp.permute_dims(view, (*range(1, d + 2), 0, *range(d + 2, 2 * d + 2)))  # (G·C, k1…kd, N, o1…od)
    rows = padded.shape[1] // groups * elements(geo.kernel)
    shape = (groups, rows, padded.shape[0] * elements(geo.output))
    return reshaped_copy(xp, view, shape) if copy else xp.reshape(view, shape)


def scatter_columns(xp: Namespace, columns: Array, geo: Geometry, batch: int) -> Array:
    """Add columns (G, C·T, N·L) to a padded image (N, G·C, P1, …, Pd), each at its window: col2im."""
    channels = columns.shape[0] * columns.shape[1] // elements(geo.kernel)
    columns = xp.reshape(columns, (channels, *geo.kernel, batch, *geo.output))
    padded = xp.zeros((batch, channels, *geo.padded), dtype=columns.dtype, device=device(columns))
    # The windows of one tap read distinct elements, so += loses no term; windows overlap only between taps.
    for tap, where in tap_slices(geo.kernel, geo.stride, geo.dilation, geo.output):
        add_to(xp, padded, xp.moveaxis(columns[(slice(None), *tap, ...)], 1, 0), (..., *where))
    return padded


def axis_runs(geo: Geometry) -> list[tuple[pads.Run, ...]]:
    """Return the padding of each spatial axis as runs."""
    return [pads.runs(n, *pair, geo.padding_mode) for n, pair in zip(geo.size, geo.pads, strict=True)]


@on_their_device
def im2col(x: Array, kernel_size: Any, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Array:
    r"""Write every window of `x` as a column (``torch.nn.functional.unfold`` in any number of dimensions).

    .. math:: Y[n,\,(c, t),\,l] = P[n,\,c,\,l \cdot \mathrm{stride} + t \cdot \mathrm{dilation}]

    where P is x padded with zeros, t runs over the kernel's taps and l over the output positions, both in
    row-major order.

    Parameters
    ----------
    x : array (N, C, D1, …, Dd) or (C, D1, …, Dd)
        Input. It is unbatched if it has one axis more than `kernel_size` has entries.
    kernel_size : int or sequence of int
        Kernel size per spatial axis. An int applies to all axes of a batched `x`.
    stride, dilation : int or sequence of int
        Step between windows; step between the taps of one window.
    padding : int, sequence of int, sequence of (before, after), "valid", "same" or "same_lower"
        Zeros around the input; negative numbers crop it.

    Returns
    -------
    columns : array (N, C·k1·…·kd, L) or (C·k1·…·kd, L)
        A new array.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks a rule; the message states the rule and the numbers.

    References
    ----------
    K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document
    Processing", 2006, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import im2col
    >>> im2col(np.arange(4).reshape(1, 1, 4), 3)
    array([[[0, 1],
            [1, 2],
            [2, 3]]])
    """
    xp = namespace_of({"x": x})
    check_dtype("x", x)
    kernel, batched = _kernel_and_rank(kernel_size, tuple(x.shape), "x")
    shape = tuple(x.shape) if batched else (1, *x.shape)
    geo = geometry(shape[2:], kernel, stride=stride, padding=padding, dilation=dilation)
    _refuse(geo, shape)
    x = plain(x) if batched else plain(x)[None, ...]
    if 0 in shape:
        shape = (shape[0], shape[1] * elements(kernel), elements(geo.output))
        columns = xp.zeros(shape, dtype=native_dtype(xp, x), device=device(x))
        return columns if batched else columns[0, ...]
    padded = pads.pad(xp, x, axis_runs(geo), geo.padded, native_dtype(xp, x))
    padded = xp.reshape(padded, (1, shape[0] * shape[1], *geo.padded))  # every sample as a group: (1, N·C, P1, …, Pd)
    columns = gather_columns(xp, padded, geo, shape[0], copy=True)  # (N, C·T, L)
    return columns if batched else columns[0, ...]


@on_their_device
def col2im(
    columns: Array,
    input_shape: Any,
    kernel_size: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
) -> Array:
    r"""Add columns back onto the input they were read from: the adjoint of :func:`im2col`.

    .. math:: X[n, c, i] = \sum_{(t, l)\;:\; l \cdot \mathrm{stride} + t \cdot \mathrm{dilation} = i + \mathrm{before}}
              Y[n, (c, t), l]

    so that ⟨im2col(x), y⟩ = ⟨x, col2im(y)⟩. It is not the inverse: an element that several windows read
    receives the sum of all its copies.

    Parameters
    ----------
    columns : array (N, C·k1·…·kd, L) or (C·k1·…·kd, L)
        The result of :func:`im2col` for an input of `input_shape`.
    input_shape : sequence of int
        (N, C, D1, …, Dd) or (C, D1, …, Dd).
    kernel_size, stride, padding, dilation
        As for :func:`im2col`.

    Returns
    -------
    x : array of shape `input_shape`
        A new array.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks a rule; the message states the rule and the numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import col2im
    >>> col2im(np.ones((1, 3, 2)), (1, 1, 4), 3)   # how many windows read each element
    array([[[1., 2., 2., 1.]]])
    """
    xp = namespace_of({"columns": columns})
    check_dtype("columns", columns)
    input_shape = as_shape(input_shape, "input_shape")
    kernel, batched = _kernel_and_rank(kernel_size, input_shape, "input_shape")
    shape = input_shape if batched else (1, *input_shape)
    geo = geometry(shape[2:], kernel, stride=stride, padding=padding, dilation=dilation)
    _refuse(geo, shape)
    expected = (
        *input_shape[: len(input_shape) - len(kernel) - 1],
        shape[1] * elements(kernel),
        elements(geo.output),
    )
    check_shape("columns", tuple(columns.shape), expected, f"the result of im2col for input_shape={input_shape}")
    dtype = native_dtype(xp, columns)
    if 0 in shape or 0 in columns.shape:
        return xp.zeros(input_shape, dtype=dtype, device=device(columns))
    columns = xp.astype(columns, get_dtype(xp, accumulating_dtype(xp, dtype_of(columns))), copy=False)
    columns = xp.reshape(columns, (shape[0], *expected[-2:]))
    image = scatter_columns(xp, columns, geo, 1)  # every sample as a group: (1, N·C, P1, …, Pd)
    image = xp.reshape(image, (*shape[:2], *geo.padded))
    image = xp.astype(pads.fold(xp, image, axis_runs(geo), geo.size), dtype, copy=False)
    return image if batched else image[0, ...]


def _kernel_and_rank(kernel_size: Any, shape: Shape, name: str) -> tuple[Shape, bool]:
    """Return the kernel size per axis, and whether `shape` is batched."""
    d = len(members(kernel_size)) if is_sequence(kernel_size) else len(shape) - 2
    kernel = per_axis(kernel_size, "kernel_size", d, 1)
    if d < 1 or len(shape) not in (d + 1, d + 2):
        raise ValueError(
            f"{name} must have {max(d, 1) + 2} axes (or {max(d, 1) + 1} if unbatched) for "
            f"kernel_size={shown(kernel_size)}; got shape {shape}"
        )
    return kernel, len(shape) == d + 2


def _refuse(geo: Geometry, shape: Shape) -> None:
    refuse_absurd("the padded input", (*shape[:2], *geo.padded))
    refuse_absurd("the columns", (*shape[:2], *geo.kernel, *geo.output))
