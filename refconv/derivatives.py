r"""Derivatives of convolutions in forward mode, and of their backward passes.

A convolution y = conv(x, w) + b is linear in x, in w and in b. With s = ⟨g, conv(x, w) + b⟩, each of its derivatives is
s with some of the factors replaced, as docs/gradients.md derives:

    forward mode    along (ẋ, ẇ, ḃ)    ẏ = conv(ẋ, w) + conv(x, ẇ) + ḃ
    backward        of g               (x̄, w̄, b̄), the adjoint
    twice           of (ẋ, ẇ, ḃ)       the gradient of ⟨(ẋ, ẇ, ḃ), (x̄, w̄, b̄)⟩ = ⟨ẏ, g⟩ with respect to g, x and w

The last gradient is ẏ with respect to g. With respect to x it is x̄ with ẇ in place of w, and with respect to w it is
w̄ with ẋ in place of x. So this file calls conv.py and computes nothing itself. The same holds for the transposed
convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from refconv.arrays import Array, accumulating_dtype, add_to, array_namespace, device, native_dtype, on_their_device
from refconv.conv import (
    ConvGrads,
    Weight,
    check_arrays,
    check_needs,
    conv,
    conv_backward,
    conv_transpose,
    conv_transpose_backward,
    is_per_group,
)
from refconv.groups import ChannelGroups
from refconv.integers import is_sequence, members, shown
from refconv.shapes import check_shape


class ConvDoubleGrads(NamedTuple):
    """Gradients of a function of a convolution's gradients; None for one that was not requested."""

    grad_output: Array | None
    x: Array | None
    weight: Weight | None


def conv_jvp(
    x: Array,
    weight: Weight,
    *,
    dx: Array | None = None,
    dweight: Weight | None = None,
    dbias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    padding_mode: str = "zeros",
    channels_last: bool = False,
    accumulate_dtype: Any = None,
) -> Array:
    r"""Return the derivative of :func:`conv` along a direction: forward mode, a Jacobian-vector product.

    .. math:: \dot y = \mathrm{conv}(\dot x, w) + \mathrm{conv}(x, \dot w) + \dot b

    Parameters
    ----------
    x, weight : array
        The point, as passed to :func:`conv`.
    dx, dweight, dbias : array, optional
        The direction: arrays of the shapes of x, weight (one per group, if `weight` is a sequence) and bias. None
        means zeros.
    stride, padding, dilation, groups, padding_mode, channels_last, accumulate_dtype
        As passed to :func:`conv`.

    Returns
    -------
    dy : array
        A new array of the output's shape; of zeros if there is no direction.

    Raises
    ------
    ValueError, TypeError
        As for :func:`conv`; and if an array of the direction does not have its operand's shape.

    References
    ----------
    A. Griewank, A. Walther, "Evaluating Derivatives", 2nd edition, SIAM 2008, chapter 3.

    Examples
    --------
    With y = x · w, ẏ = ẋ · w + x · ẇ:

    >>> import numpy as np
    >>> from refconv import conv_jvp
    >>> x, w = np.array([[[3.0, 5.0]]]), np.array([[[10.0]]])
    >>> conv_jvp(x, w, dx=np.array([[[1.0, 0.0]]]), dweight=np.array([[[1.0]]]))
    array([[[13.,  5.]]])
    """
    options = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": padding_mode,
        "channels_last": channels_last, "accumulate_dtype": accumulate_dtype,
    }  # fmt: skip
    return _jvp(conv, x, weight, {"dx": dx, "dweight": dweight, "dbias": dbias}, options)


def conv_double_backward(
    grad_grads: Sequence[Any],
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
    needs: Sequence[str] = ("grad_output", "x", "weight"),
) -> ConvDoubleGrads:
    r"""Return the gradients of a function of the gradients that :func:`conv_backward` returns.

    If `grad_grads` = (ẋ, ẇ, ḃ) are the gradients of some loss with respect to x̄, w̄ and b̄, these are its gradients
    with respect to g = `grad_output`, x and w, as differentiating twice in PyTorch gives them:

    .. math::
        \bar g &= \mathrm{conv}(\dot x, w) + \mathrm{conv}(x, \dot w) + \dot b \\
        \bar{\bar x}[n, c, p] &= \sum_{k, t, o} \overline{\dot w[k, c, t]}\; g[n, k, o] \\
        \bar{\bar w}[k, c, t] &= \sum_{n, o} g[n, k, o]\; \overline{\dot P[n, c, o \cdot \mathrm{stride} + t \cdot
                                 \mathrm{dilation}]}

    with the sums of :func:`conv_backward`, and Ṗ the padded ẋ. The bias has no gradient: nothing depends on it.

    Parameters
    ----------
    grad_grads : ConvGrads, or tuple of three
        Gradients of the loss with respect to the x, weight and bias that :func:`conv_backward` returned, of their
        shapes; None for any on which the loss does not depend.
    grad_output, x, weight, stride, padding, dilation, groups, padding_mode, channels_last, accumulate_dtype
        As passed to :func:`conv_backward`.
    needs : tuple of str
        Gradients to compute, among "grad_output", "x" and "weight".

    Returns
    -------
    ConvDoubleGrads
        Named tuple ``(grad_output, x, weight)`` of new arrays; None where not needed, zeros where the loss does not
        depend on it.

    Raises
    ------
    ValueError, TypeError
        As for :func:`conv_backward`; and if an array of `grad_grads` does not have the shape of its gradient.

    Examples
    --------
    The loss ‖x̄‖²/2 has the gradient x̄ with respect to x̄. Here x̄ = g · w, so that ‖x̄‖²/2 = g²·w²/2:

    >>> import numpy as np
    >>> from refconv import conv_backward, conv_double_backward
    >>> g, x, w = np.array([[[2.0]]]), np.array([[[3.0]]]), np.array([[[5.0]]])
    >>> grad_x = conv_backward(g, x, w).x
    >>> grads = conv_double_backward((grad_x, None, None), g, x, w)
    >>> grads.grad_output, grads.x, grads.weight
    (array([[[50.]]]), array([[[0.]]]), array([[[20.]]]))
    """
    options = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": padding_mode,
        "channels_last": channels_last, "accumulate_dtype": accumulate_dtype,
    }  # fmt: skip
    return _double_backward(conv, conv_backward, grad_grads, grad_output, x, weight, needs, options)


def conv_transpose_jvp(
    x: Array,
    weight: Weight,
    *,
    dx: Array | None = None,
    dweight: Weight | None = None,
    dbias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    output_size: Any = None,
    dilation: Any = 1,
    groups: int | ChannelGroups = 1,
    channels_last: bool = False,
    accumulate_dtype: Any = None,
) -> Array:
    r"""Return the derivative of :func:`conv_transpose` along a direction.

    .. math:: \dot y = \mathrm{conv\_transpose}(\dot x, w) + \mathrm{conv\_transpose}(x, \dot w) + \dot b

    Parameters
    ----------
    x, weight : array
        The point, as passed to :func:`conv_transpose`.
    dx, dweight, dbias : array, optional
        The direction, as for :func:`conv_jvp`.
    stride, padding, output_padding, output_size, dilation, groups, channels_last, accumulate_dtype
        As passed to :func:`conv_transpose`.

    Returns
    -------
    dy : array
        A new array of the output's shape.

    Raises
    ------
    ValueError, TypeError
        As for :func:`conv_transpose`; and if an array of the direction does not have its operand's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_transpose_jvp
    >>> x, w = np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0]]])
    >>> conv_transpose_jvp(x, w, dx=np.array([[[0.0, 1.0]]]), dbias=np.array([0.5]), stride=2)
    array([[[ 0.5,  0.5,  1.5, 10.5]]])
    """
    options = {
        "stride": stride, "padding": padding, "output_padding": output_padding, "output_size": output_size,
        "dilation": dilation, "groups": groups, "channels_last": channels_last, "accumulate_dtype": accumulate_dtype,
    }  # fmt: skip
    return _jvp(conv_transpose, x, weight, {"dx": dx, "dweight": dweight, "dbias": dbias}, options)


def conv_transpose_double_backward(
    grad_grads: Sequence[Any],
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
    needs: Sequence[str] = ("grad_output", "x", "weight"),
) -> ConvDoubleGrads:
    r"""Return the gradients of a function of the gradients that :func:`conv_transpose_backward` returns.

    .. math::
        \bar g &= \mathrm{conv\_transpose}(\dot x, w) + \mathrm{conv\_transpose}(x, \dot w) + \dot b \\
        \bar{\bar x}[n, c, l] &= \sum_{k, t} \overline{\dot w[c, k, t]}\;
                                 G[n, k, l \cdot \mathrm{stride} + t \cdot \mathrm{dilation}] \\
        \bar{\bar w}[c, k, t] &= \sum_{n, l} \overline{\dot x[n, c, l]}\;
                                 G[n, k, l \cdot \mathrm{stride} + t \cdot \mathrm{dilation}]

    with G of :func:`conv_transpose_backward`, and (ẋ, ẇ, ḃ) = `grad_grads`.

    Parameters
    ----------
    grad_grads : ConvGrads, or tuple of three
        As for :func:`conv_double_backward`.
    grad_output, x, weight, stride, padding, output_padding, output_size, dilation, groups, channels_last, accumulate_dtype
        As passed to :func:`conv_transpose_backward`.
    needs : tuple of str
        Gradients to compute, among "grad_output", "x" and "weight".

    Returns
    -------
    ConvDoubleGrads
        Named tuple ``(grad_output, x, weight)``, as from :func:`conv_double_backward`.

    Raises
    ------
    ValueError, TypeError
        As for :func:`conv_transpose_backward`; and if an array of `grad_grads` does not have the shape of its gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv_transpose_double_backward
    >>> g, x, w = np.array([[[1.0, 2.0]]]), np.array([[[3.0]]]), np.array([[[5.0, 7.0]]])
    >>> conv_transpose_double_backward((np.array([[[1.0]]]), None, None), g, x, w, needs=("grad_output", "weight"))
    ConvDoubleGrads(grad_output=array([[[5., 7.]]]), x=None, weight=array([[[1., 2.]]]))
    """  # noqa: E501  (one line lists the arguments)
    options = {
        "stride": stride, "padding": padding, "output_padding": output_padding, "output_size": output_size,
        "dilation": dilation, "groups": groups, "channels_last": channels_last, "accumulate_dtype": accumulate_dtype,
    }  # fmt: skip
    return _double_backward(conv_transpose, conv_transpose_backward, grad_grads, grad_output, x, weight, needs, options)


@on_their_device
def _jvp(
    forward: Callable[..., Array], x: Array, weight: Weight, direction: dict[str, Any], options: dict[str, Any]
) -> Array:
    """Return forward(ẋ, w) + forward(x, ẇ) + ḃ, rounded once."""
    xp, dtype = check_arrays(x=x, weight=weight, **direction)
    (dx_name, dx), (dweight_name, dweight), (dbias_name, dbias) = direction.items()
    _check_like(dx_name, dx, "x", x)
    _check_like(dweight_name, dweight, "weight", weight)
    accumulate = options["accumulate_dtype"]
    options |= {"output_dtype": accumulating_dtype(xp, dtype) if accumulate is None else accumulate}
    pairs = [(dx, weight)] * (dx is not None) + [(x, dweight)] * (dweight is not None)
    total, *others = [forward(*pair, **options) for pair in pairs or [(_zeros(x), _zeros(weight))]]
    for term in others:
        add_to(xp, total, term)
    if dbias is not None:
        after = _axes_after_channels(weight, options)
        _check_bias(dbias_name, dbias, total, after)
        add_to(xp, total, xp.astype(xp.reshape(dbias, (-1, *(1,) * after)), total.dtype, copy=False))
    return xp.astype(total, native_dtype(xp, x), copy=False)


@on_their_device
def _double_backward(
    forward: Callable[..., Array],
    backward: Callable[..., ConvGrads],
    grad_grads: Sequence[Any],
    grad_output: Array,
    x: Array,
    weight: Weight,
    needs: Any,
    options: dict[str, Any],
) -> ConvDoubleGrads:
    """Return ẏ, the backward pass for x with ẇ in place of w, and that for w with ẋ in place of x."""
    needs = check_needs(needs, ConvDoubleGrads._fields)
    if not is_sequence(grad_grads) or len(members(grad_grads, 3)) != len(ConvGrads._fields):
        names = ", ".join(ConvGrads._fields)
        raise TypeError(f"grad_grads must be a ConvGrads, or three arrays or None ({names}); got {shown(grad_grads)}")
    direction = {f"grad_grads.{name}": array for name, array in zip(ConvGrads._fields, grad_grads, strict=True)}
    check_arrays(grad_output=grad_output, x=x, weight=weight, **direction)
    dx, dweight, dbias = grad_grads
    _check_like("grad_grads.x", dx, "x", x)
    _check_like("grad_grads.weight", dweight, "weight", weight)
    backward(grad_output, x, weight, **options, needs=())  # checks the rest
    if dbias is not None:
        _check_bias("grad_grads.bias", dbias, grad_output, _axes_after_channels(weight, options))
    grad_g, grad_x, grad_w = None, None, None
    if "x" in needs:
        grad_x = _zeros(x) if dweight is None else backward(grad_output, x, dweight, **options, needs=("x",)).x
    if "weight" in needs:
        grad_w = (
            _zeros(weight) if dx is None else backward(grad_output, dx, weight, **options, needs=("weight",)).weight
        )
    if "grad_output" in needs:
        grad_g = _jvp(forward, x, weight, direction, options)
    return ConvDoubleGrads(grad_g, grad_x, grad_w)


def _check_like(name: str, array: Any, of: str, point: Any) -> None:
    """Check that an array, or a sequence of one per group, has the form and shapes of `point`."""
    if array is None:
        return
    if is_per_group(array) != is_per_group(point) or (is_per_group(point) and len(array) != len(point)):
        count = f"a sequence of {len(point)} arrays" if is_per_group(point) else "one array"
        raise ValueError(f"{name} must be {count}, as {of} is; got {shown(array)}")
    for g, (one, other) in enumerate(zip(array, point, strict=True) if is_per_group(point) else [(array, point)]):
        index = f"[{g}]" if is_per_group(point) else ""
        check_shape(f"{name}{index}", tuple(one.shape), tuple(other.shape), f"the shape of {of}{index}")


def _axes_after_channels(weight: Weight, options: dict[str, Any]) -> int:
    return 0 if options["channels_last"] else (weight[0] if is_per_group(weight) else weight).ndim - 2


def _check_bias(name: str, bias: Array, y: Array, after: int) -> None:
    check_shape(name, tuple(bias.shape), (y.shape[y.ndim - 1 - after],), "one element per output channel")


def _zeros(array: Any) -> Any:
    """Return zeros like an array, or like each array of a sequence."""
    if is_per_group(array):
        return tuple(map(_zeros, array))
    xp = array_namespace(array)
    return xp.zeros(tuple(array.shape), dtype=native_dtype(xp, array), device=device(array))
