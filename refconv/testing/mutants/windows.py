# mypy: disable-error-code="no-redef"
# ruff: noqa: N801
"""Mistakes in what a window reads: kernels flipped, strides and dilations."""

from __future__ import annotations

from typing import Any

import numpy as np

from refconv.testing.mutants.correct import Conv, ConvTranspose, Steps, reach
from refconv.testing.mutants.registry import mistake
from refconv.testing.oracles.definition import Array

# --- Kernel flip ---


def flipped(weight: Array) -> Array:
    """Return the weight with every kernel axis reversed."""
    return np.flip(weight, tuple(range(2, weight.ndim)))


@mistake("kernel flip", "kernel flipped in the forward pass", "Correlate: tap t reads o·stride + t·dilation.")
class _(Conv):
    """The forward pass is a convolution in the mathematical sense; the gradients belong to a correlation."""

    def y(self, x, weight, bias, p):
        return super().y(x, flipped(weight), bias, p)


@mistake("kernel flip", "kernel flipped everywhere", "Deep-learning libraries correlate; drop the flip in every pass.")
class _(Conv):
    """A true convolution with its own right gradients: consistent, but not what frameworks compute."""

    def kernel(self, weight):
        return flipped(weight)

    def grad_weight(self, g, x, shape, p):
        return flipped(super().grad_weight(g, x, shape, p)).copy()


@mistake("kernel flip", "kernel flipped along the last axis only", "No axis of the kernel is reversed.")
class _(Conv):
    """The last kernel axis is read backwards."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight[..., ::-1], bias, p)


@mistake(
    "kernel flip",
    "kernel flipped in the input gradient",
    "Scatter with tap t to o·stride + t·dilation, unflipped; "
    "only the form that correlates the padded gradient flips the kernel.",
)
class _(Conv):
    """The flip of the 'full correlation' form is missing, or done twice: g is spread with the kernel backwards."""

    def grad_x(self, g, weight, shape, p):
        return super().grad_x(g, flipped(weight), shape, p)


@mistake(
    "kernel flip", "weight gradient flipped", "The weight gradient correlates x with g; it is not flipped.", both=True
)
class _(Conv):
    """The gradient of each kernel comes out reversed."""

    def grad_weight(self, g, x, shape, p):
        return flipped(super().grad_weight(g, x, shape, p)).copy()


@mistake("kernel flip", "transposed: kernel flipped", "Position l adds tap t at l·stride + t·dilation, unflipped.")
class _(ConvTranspose):
    """The kernel is laid down backwards, as if the operation were a correlation of the inflated input."""

    def y(self, x, weight, bias, p):
        return super().y(x, flipped(weight), bias, p)


@mistake(
    "kernel flip",
    "transposed: kernel flipped in the input gradient",
    "The input gradient is a plain correlation of g with the weight.",
)
class _(ConvTranspose):
    """The input gradient correlates with the kernel reversed."""

    def grad_x(self, g, weight, shape, p):
        return super().grad_x(g, flipped(weight), shape, p)


# --- Stride ---


@mistake("stride", "stride ignored in the forward pass", "Position o starts at o·stride.")
class _(Conv):
    """Windows start at 0, 1, 2 and so on: the output has the right size but reads the wrong elements."""

    def forward_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(stride=[1] * len(p.stride)))


@mistake(
    "stride",
    "stride and dilation exchanged in the forward pass",
    "Positions are stride apart, taps dilation apart; check the order of the arguments.",
    both=True,
)
class _(Conv):
    """The forward pass takes the stride for the dilation and the dilation for the stride."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(stride=p.dilation, dilation=p.stride))


@mistake(
    "stride", "stride ignored in the input gradient", "Scatter position o to o·stride, leaving gaps between.", both=True
)
class _(Conv):
    """col2im adds the windows side by side."""

    def input_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(stride=[1] * len(p.stride)))


@mistake(
    "stride",
    "stride ignored in the weight gradient",
    "Read x at o·stride + t·dilation in the weight gradient too.",
    both=True,
)
class _(Conv):
    """The weight gradient correlates with the first positions instead of every stride-th."""

    def weight_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(stride=[1] * len(p.stride)))


@mistake(
    "stride",
    "stride and dilation exchanged in the weight gradient",
    "In the weight gradient g is the kernel: its elements are stride apart, and results dilation apart.",
)
class _(Conv):
    """Seen as a convolution, the weight gradient exchanges stride and dilation; here they are exchanged once more."""

    def weight_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(stride=p.dilation, dilation=p.stride))

    def grad_weight(self, g, x, shape, p):
        q = p._replace(stride=p.dilation, dilation=p.stride)
        missing = [
            max(0, r - n - b - a)
            for r, n, (b, a) in zip(reach(g.shape[2:], shape[2:], q), x.shape[2:], p.padding, strict=True)
        ]
        padding = [(b, a + m) for (b, a), m in zip(p.padding, missing, strict=True)]
        return super().grad_weight(g, x, shape, p._replace(padding=padding))


@mistake(
    "stride",
    "overlapping windows overwrite each other",
    "Add with += for each tap (or numpy.add.at): an element read by several windows receives all of them.",
)
class _(Conv):
    """col2im assigns, or adds through a fancy index that drops repeated positions; the last window wins."""

    def add(self, padded, where, part):
        padded[where] = part


class _WindowByWindow(Conv):
    """The input gradient in the other order: for each output position, all taps together."""

    def grad_x(self, g: Array, weight: Array, shape: Any, p: Steps) -> Any:
        work = self.work(g.dtype)
        padded = np.zeros((*shape[:2], *(n + b + a for n, (b, a) in zip(shape[2:], p.padding, strict=True))), work)
        for o in np.ndindex(*g.shape[2:]):
            axes = zip(o, p.stride, weight.shape[2:], p.dilation, strict=True)
            window = [slice(oj * s, oj * s + d * (k - 1) + 1, d) for oj, s, k, d in axes]
            for ins, outs, rows in self.channels(p.groups, shape[1], len(weight)):
                part = self.part(self.conj(weight[rows].astype(work)), g[:, outs][(..., *o)].astype(work))
                self.add(padded, (slice(None), ins, *window), part)
        return self.unpad(padded, shape[2:], p.padding).astype(g.dtype)

    def part(self, weight: Array, g: Array) -> Array:
        """Σ over output channels: (K, C, t1 … td), (N, K) -> (N, C, t1 … td)."""
        return np.tensordot(g, weight, axes=1)


@mistake(
    "stride",
    "overlapping windows overwrite each other, window by window",
    "Add with += for each window: an element read by several windows receives all of them.",
)
class _(_WindowByWindow):
    """A loop over output positions assigns each window's gradient; the last window that reads an element wins."""

    def add(self, padded, where, part):
        padded[where] = part


@mistake(
    "stride",
    "windows and output channels overwrite each other",
    "Add with += in the innermost loop: x receives from every window and every output channel.",
)
class _(_WindowByWindow):
    """Loops over positions and output channels assign; the last window's last output channel wins."""

    def part(self, weight, g):
        return super().part(weight[-1:], g[:, -1:])

    def add(self, padded, where, part):
        padded[where] = part


@mistake("stride", "rows that the stride leaves over are dropped", "The gradient has x's shape; unread elements are 0.")
class _(Conv):
    """The gradient's size is computed back from the output's, which forgets the remainder of the division."""

    def grad_x(self, g, weight, shape, p):
        read = reach(g.shape[2:], weight.shape[2:], p)
        sizes = [min(n, r - b - a) for n, r, (b, a) in zip(shape[2:], read, p.padding, strict=True)]
        whole = super().grad_x(g, weight, shape, p)
        return whole[(..., *(slice(0, max(0, n)) for n in sizes))]


@mistake(
    "stride",
    "input gradient not cleared where no window reads",
    "Start from zeros (not numpy.empty): an element that no window reads has gradient 0.",
)
class _(Conv):
    """Elements that the stride or the dilation skips keep the memory's earlier contents, here the value 1."""

    def grad_x(self, g, weight, shape, p):
        ones = [np.ones((1, 1, *size), g.dtype) for size in (g.shape[2:], weight.shape[2:])]
        read = Conv().grad_x(*ones, (1, 1, *shape[2:]), p._replace(groups=1))
        return np.where(read == 0, np.ones((), g.dtype), super().grad_x(g, weight, shape, p))


@mistake(
    "stride",
    "gradient dilated with trailing zeros",
    "Put stride − 1 zeros between the elements of g, and none after the last.",
)
class _(Conv):
    """The full correlation runs over L·stride elements, so grad_x ends as if the stride left stride − 1 over."""

    def grad_x(self, g, weight, shape, p):
        read = reach(g.shape[2:], weight.shape[2:], p)
        sizes = [r + s - 1 - b - a for r, s, (b, a) in zip(read, p.stride, p.padding, strict=True)]
        return super().grad_x(g, weight, (*shape[:2], *sizes), p)


@mistake("stride", "gradient not dilated by the stride", "Put stride − 1 zeros between the elements of g first.")
class _(Conv):
    """The input gradient is the full correlation for stride 1, and smaller than x for any other."""

    def grad_x(self, g, weight, shape, p):
        p = p._replace(stride=(1,) * len(p.stride))
        read = reach(g.shape[2:], weight.shape[2:], p)
        sizes = [r - b - a for r, (b, a) in zip(read, p.padding, strict=True)]
        return super().grad_x(g, weight, (*shape[:2], *sizes), p)


@mistake("stride", "stride of the first axis used for all", "Index stride by axis.")
class _(Conv):
    """Every axis steps as the first one does."""

    def outputs(self, size, kernel, p):
        return super().outputs(size, kernel, p._replace(stride=[p.stride[0]] * len(size)))

    def taps(self, t, outputs, p):
        return super().taps(t, outputs, p._replace(stride=[p.stride[0]] * len(outputs)))


@mistake("stride", "strides of the axes exchanged", "Height comes before width in stride, as in the shape.")
class _(Conv):
    """The strides are taken in reverse order."""

    def outputs(self, size, kernel, p):
        return super().outputs(size, kernel, p._replace(stride=p.stride[::-1]))

    def taps(self, t, outputs, p):
        return super().taps(t, outputs, p._replace(stride=p.stride[::-1]))


@mistake("stride", "stride starts one late", "Keep position 0: slice with [::stride], not [stride−1::stride].")
class _(Conv):
    """The dense result is thinned out beginning at its second element where there is one."""

    def y(self, x, weight, bias, p):
        dense = super().y(x, weight, bias, p._replace(stride=(1,) * len(p.stride)))
        outputs = self.outputs(x.shape[2:], weight.shape[2:], p)
        y = np.zeros((*dense.shape[:2], *outputs), dense.dtype)
        late = dense[(..., *(slice(s - 1, None, s) for s in p.stride))]
        y[tuple(slice(0, n) for n in late.shape)] = late
        return y


@mistake("stride", "transposed: stride ignored", "Input l lands at l·stride.")
class _(ConvTranspose):
    """The output has the right size, but inputs are laid down side by side."""

    def forward_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(stride=[1] * len(p.stride)))


@mistake(
    "stride",
    "transposed: stride and dilation exchanged in the input gradient",
    "The input gradient is a convolution of g with the same stride and dilation; only the weight gradient's differ.",
)
class _(ConvTranspose):
    """The input gradient is a convolution of g with stride and dilation exchanged, and has the size of its result."""

    def grad_x(self, g, weight, shape, p):
        q = p._replace(stride=p.dilation, dilation=p.stride)
        return super().grad_x(g, weight, (*shape[:2], *self.outputs(g.shape[2:], weight.shape[2:], q)), q)


@mistake(
    "stride",
    "transposed: input gradient sized back from the output",
    "The gradient has x's shape; output padding of a stride or more adds no input.",
    supports="output_padding",
)
class _(ConvTranspose):
    """The input gradient is a convolution of all of g: too large where the output padding is a stride or more."""

    def grad_x(self, g, weight, shape, p):
        return super().grad_x(g, weight, (*shape[:2], *self.outputs(g.shape[2:], weight.shape[2:], p)), p)


@mistake(
    "stride",
    "transposed: output not cleared where no kernel lands",
    "Start from zeros (not numpy.empty): an element that no kernel reaches is the bias alone.",
)
class _(ConvTranspose):
    """Elements between the kernels keep the memory's earlier contents, here the value 1."""

    def y(self, x, weight, bias, p):
        ones = [np.ones((1, 1, *size), x.dtype) for size in (x.shape[2:], weight.shape[2:])]
        written = ConvTranspose().y(*ones, None, p._replace(groups=1))
        return super().y(x, weight, bias, p) + (written == 0).astype(x.dtype)


@mistake("stride", "transposed: overlapping kernels overwrite each other", "Add where kernels overlap.")
class _(ConvTranspose):
    """The output is assigned, so the last kernel tap wins."""

    def add(self, padded, where, part):
        padded[where] = part


# --- Dilation ---


@mistake("dilation", "d·k for d·(k−1)+1", "The span of a dilated kernel is dilation·(k − 1) + 1.")
class _(Conv):
    """The effective kernel is taken one dilation too long, so the output comes out too small."""

    def output(self, padded, k, s, d):
        return (padded - d * k) // s + 1


@mistake("dilation", "dilation counted from zero", "Dilation 1 means neighbouring taps; some libraries count gaps.")
class _(Conv):
    """Taps are dilation − 1 apart."""

    def taps(self, t, outputs, p):
        return super().taps(t, outputs, p._replace(dilation=[d - 1 for d in p.dilation]))


@mistake("dilation", "dilation ignored in the forward pass", "Tap t reads o·stride + t·dilation.")
class _(Conv):
    """The output has the right size, but the taps are neighbours."""

    def forward_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(dilation=[1] * len(p.dilation)))


@mistake("dilation", "dilation ignored in the input gradient", "Spread tap t to o·stride + t·dilation.", both=True)
class _(Conv):
    """The backward pass was written for dilation 1."""

    def input_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(dilation=[1] * len(p.dilation)))


@mistake(
    "dilation",
    "dilation ignored in the weight gradient",
    "Tap t of the gradient reads x at o·stride + t·dilation.",
    both=True,
)
class _(Conv):
    """The gradient of tap t is that of the tap at distance t instead of t·dilation."""

    def weight_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(dilation=[1] * len(p.dilation)))


@mistake("dilation", "dilation of the first axis used for all", "Index dilation by axis.")
class _(Conv):
    """Every axis is dilated as the first one is."""

    def outputs(self, size, kernel, p):
        return super().outputs(size, kernel, p._replace(dilation=[p.dilation[0]] * len(size)))

    def taps(self, t, outputs, p):
        return super().taps(t, outputs, p._replace(dilation=[p.dilation[0]] * len(outputs)))


@mistake(
    "dilation",
    "full correlation padded by k − 1 without dilation",
    "Pad g by dilation·(k − 1) − padding in the input gradient.",
)
class _(Conv):
    """The input gradient pads g by k − 1 − p, so (dilation − 1)·(k − 1) elements are missing at both ends."""

    def grad_x(self, g, weight, shape, p):
        read = reach(g.shape[2:], weight.shape[2:], p)
        sizes = [r - b - a for r, (b, a) in zip(read, p.padding, strict=True)]
        missing = [(d - 1) * (k - 1) for d, k in zip(p.dilation, weight.shape[2:], strict=True)]
        crops = [slice(m, max(m, n - m)) for n, m in zip(sizes, missing, strict=True)]
        return super().grad_x(g, weight, (*shape[:2], *sizes), p)[(..., *crops)]


@mistake(
    "dilation",
    "dilation counted in the bounds test",
    "Element i is inside where 0 ≤ i < n; a tap reads one element, not the gap after it.",
)
class _(Conv):
    """The test is i + dilation ≤ n in place of i < n, so the last dilation − 1 elements count as outside."""

    def inside(self, image, p):
        image = image.copy()
        for axis, d in enumerate(p.dilation, 2):
            image.swapaxes(0, axis)[max(0, image.shape[axis] - d + 1) :] = 0
        return image

    def y(self, x, weight, bias, p):
        return super().y(self.inside(x, p), weight, bias, p)

    def grad_x(self, g, weight, shape, p):
        return self.inside(super().grad_x(g, weight, shape, p), p)

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(g, self.inside(x, p), shape, p)


@mistake(
    "dilation", "dilated kernel inflated with zeros", "Skip the elements between the taps instead of multiplying by 0."
)
class _(Conv):
    """Zeros fill the kernel between the taps: correct on finite numbers, but 0·∞ and 0·NaN are NaN."""

    def y(self, x, weight, bias, p):
        spans = [d * (k - 1) + 1 for d, k in zip(p.dilation, weight.shape[2:], strict=True)]
        inflated = np.zeros((*weight.shape[:2], *spans), weight.dtype)
        inflated[(..., *(slice(None, None, d) for d in p.dilation))] = weight
        return super().y(x, inflated, bias, p._replace(dilation=(1,) * len(p.dilation)))


@mistake("dilation", "transposed: dilation ignored", "Tap t lands at l·stride + t·dilation.")
class _(ConvTranspose):
    """The output has the right size, but the kernel is laid down undilated."""

    def forward_taps(self, t, outputs, p):
        return self.taps(t, outputs, p._replace(dilation=[1] * len(p.dilation)))
