# mypy: disable-error-code="no-redef"
# ruff: noqa: N801
"""Mistakes in output sizes and in padding."""

from __future__ import annotations

import math

import numpy as np

from refconv.testing.mutants.correct import Conv, ConvTranspose
from refconv.testing.mutants.registry import mistake

# --- Output size ---


@mistake("output size", "ceil for floor in the output size", "Divide with //: floor((n + pads − span) / stride) + 1.")
class _(Conv):
    """The last, incomplete step of the stride is counted as an output position."""

    def output(self, padded, k, s, d):
        return -(-(padded - d * (k - 1) - 1) // s) + 1


@mistake("output size", "+1 missing in the output size", "The window at position 0 counts too: add 1 to the quotient.")
class _(Conv):
    """The number of steps is taken for the number of positions."""

    def output(self, padded, k, s, d):
        return (padded - d * (k - 1) - 1) // s


@mistake("output size", "1 added before dividing by the stride", "Divide first, then add 1: floor(…/stride) + 1.")
class _(Conv):
    """The size is (n + pads − span + 1) // stride, which is correct only for stride 1."""

    def output(self, padded, k, s, d):
        return (padded - d * (k - 1)) // s


@mistake(
    "output size",
    "loop stops before the last window",
    "The last window starts at n + pads − span: use range(0, n + pads − span + 1, stride).",
)
class _(Conv):
    """Windows start at range(0, n + pads − span, stride), which leaves out a window that ends with the input."""

    def output(self, padded, k, s, d):
        return -(-(padded - d * (k - 1) - 1) // s)


@mistake("output size", "last output position left at zero", "Loop over all output positions.", both=True)
class _(Conv):
    """The output has the right size, but the loop over each axis ends one position early."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        for axis in range(2, y.ndim):
            y.swapaxes(0, axis)[-1] = 0
        return y


@mistake("output size", "width computed from height", "Compute each axis' output size from its own size and kernel.")
class _(Conv):
    """One axis' output size is used for all."""

    def outputs(self, size, kernel, p):
        return (super().outputs(size, kernel, p)[0],) * len(size)


@mistake("output size", "kernel size of the first axis used for all", "Index the kernel's shape by axis.")
class _(Conv):
    """Every axis' output size is computed with the kernel's first size."""

    def outputs(self, size, kernel, p):
        return super().outputs(size, (kernel[0],) * len(size), p)


@mistake("output size", "padding counted once in the output size", "Add the padding before and the padding after.")
class _(Conv):
    """The size is computed from n + p instead of n + 2p."""

    def outputs(self, size, kernel, p):
        return super().outputs(size, kernel, p._replace(padding=[(b, 0) for b, _ in p.padding]))


@mistake("output size", "output as large as the input", "Only 'same' padding with stride 1 keeps the size; compute it.")
class _(Conv):
    """The output has the input's size, and elements after the last position stay zero."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p)
        same = np.zeros((*y.shape[:2], *x.shape[2:]), y.dtype)
        part = tuple(slice(0, min(a, b)) for a, b in zip(y.shape, same.shape, strict=True))
        same[part] = y[part]
        return same


@mistake(
    "output size", "stride ignored altogether", "Step by the stride, and divide by it in the output size.", both=True
)
class _(Conv):
    """The forward pass always takes stride 1."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(stride=(1,) * len(p.stride)))


@mistake("output size", "padding ignored altogether", "Use the padding, and count it in the output size.", both=True)
class _(Conv):
    """The forward pass never pads."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(padding=[(0, 0)] * len(p.padding)))


@mistake("output size", "dilation ignored altogether", "The kernel spans dilation·(k − 1) + 1 elements.", both=True)
class _(Conv):
    """The forward pass always takes dilation 1."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(dilation=(1,) * len(p.dilation)))


@mistake("output size", "k for dilation·(k−1)+1 in the output size", "Compute the size with the kernel's whole span.")
class _(Conv):
    """Taps are dilation apart, but there are as many windows as for an undilated kernel."""

    def outputs(self, size, kernel, p):
        return super().outputs(size, kernel, p._replace(dilation=(1,) * len(p.dilation)))


@mistake(
    "output size",
    "transposed: n·stride in the output size",
    "The full size is (n − 1)·stride + dilation·(k − 1) + 1.",
)
class _(ConvTranspose):
    """The output ends a whole stride after the last input, also where the kernel is smaller than that."""

    def full(self, size, kernel, p):
        axes = zip(size, kernel, p.stride, p.dilation, p.output_padding, strict=True)
        return [(n - 1) * s + max(s, d * (k - 1) + 1) + extra for n, k, s, d, extra in axes]


@mistake(
    "output size",
    "transposed: input dilated with trailing zeros",
    "Put stride − 1 zeros between the elements, and none after the last.",
)
class _(ConvTranspose):
    """Each input is followed by stride − 1 zeros, the last one too, so the output is stride − 1 too long."""

    def full(self, size, kernel, p):
        return [n + s - 1 for n, s in zip(super().full(size, kernel, p), p.stride, strict=True)]


@mistake(
    "output size",
    "transposed: output padding ignored",
    "Add output_padding to the output size, before anything is written.",
    supports="output_padding",
)
class _(ConvTranspose):
    """The output has the smallest of the sizes that a strided convolution maps to the input's."""

    def full(self, size, kernel, p):
        return super().full(size, kernel, p._replace(output_padding=(0,) * len(size)))

    def grad_x(self, g, weight, shape, p):
        return super().grad_x(g, weight, shape, p)


# --- Padding ---


@mistake("padding", "[p:-p] is empty where p is 0", "Crop with [p : p + n], which also holds for p = 0.")
class _(Conv):
    """The input gradient is cropped with [p:-p], which selects nothing where an axis has no padding."""

    def unpad(self, padded, size, padding):
        return padded[(..., *(slice(b, -a) for b, a in padding))]


@mistake("padding", "padding not taken off the input gradient", "Crop the padding off before returning.")
class _(Conv):
    """The gradient of the padded input is returned, larger than x."""

    def unpad(self, padded, size, padding):
        return padded


@mistake("padding", "input gradient cropped from the start", "The padding before is taken off first: [p : p + n].")
class _(Conv):
    """The gradient has x's shape but is shifted by the padding."""

    def unpad(self, padded, size, padding):
        return padded[(..., *(slice(0, n) for n in size))]


@mistake(
    "padding",
    "input gradient cropped by what pads after",
    "Crop `before` elements at the start.",
    supports="asymmetric_padding",
)
class _(Conv):
    """The crop exchanges before and after."""

    def unpad(self, padded, size, padding):
        return super().unpad(padded, size, [(a, b) for b, a in padding])


@mistake("padding", "before and after exchanged", "Padding pairs are (before, after).", supports="asymmetric_padding")
class _(Conv):
    """Every pass pads the wrong ends."""

    def pad(self, x, padding):
        return super().pad(x, [(a, b) for b, a in padding])

    def unpad(self, padded, size, padding):
        return super().unpad(padded, size, [(a, b) for b, a in padding])


@mistake("padding", "paddings of the axes exchanged", "Height comes before width in padding, as in the shape.")
class _(Conv):
    """The paddings are taken in reverse order."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(padding=p.padding[::-1]))


@mistake("padding", "padding of the first axis used for all", "Index padding by axis.")
class _(Conv):
    """Every axis is padded as the first one is."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(padding=[p.padding[0]] * len(p.padding)))


@mistake("padding", "all padding put before", "Put half of the padding after the input.")
class _(Conv):
    """The output has the right size, but the input is shifted to the end."""

    def pad(self, x, padding):
        return super().pad(x, [(b + a, 0) for b, a in padding])

    def unpad(self, padded, size, padding):
        return super().unpad(padded, size, [(b + a, 0) for b, a in padding])


@mistake("padding", "all padding put after", "Put half of the padding before the input.")
class _(Conv):
    """The output has the right size, but the input stays at the beginning."""

    def pad(self, x, padding):
        return super().pad(x, [(0, b + a) for b, a in padding])

    def unpad(self, padded, size, padding):
        return super().unpad(padded, size, [(0, b + a) for b, a in padding])


@mistake("padding", "pads with ones", "Pad with zeros.")
class _(Conv):
    """The border is filled with ones."""

    def pad(self, x, padding):
        return np.pad(x, [(0, 0), (0, 0), *padding], constant_values=1)


@mistake("padding", "pads by repeating the edge", "Pad with zeros (this is replicate mode).")
class _(Conv):
    """The border repeats the outermost elements."""

    def pad(self, x, padding):
        return np.pad(x, [(0, 0), (0, 0), *padding], mode="edge")


@mistake("padding", "pads by reflection", "Pad with zeros (this is reflect mode).")
class _(Conv):
    """The border mirrors the elements next to the outermost ones."""

    def pad(self, x, padding):
        return np.pad(x, [(0, 0), (0, 0), *padding], mode="reflect")


@mistake("padding", "pads by wrapping around", "Pad with zeros; an FFT needs n + k − 1 elements or more.")
class _(Conv):
    """The border continues at the other end, as in a circular convolution."""

    def pad(self, x, padding):
        return np.pad(x, [(0, 0), (0, 0), *padding], mode="wrap")


@mistake("padding", "padding taken as k // 2", "Use the padding of the call; k // 2 keeps the size only by default.")
class _(Conv):
    """The forward pass always pads by half the kernel."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(padding=[(k // 2, k // 2) for k in weight.shape[2:]]))


@mistake(
    "padding",
    "padding before used on both sides",
    "Padding pairs are (before, after): use both numbers.",
    supports="asymmetric_padding",
)
class _(Conv):
    """The forward pass pads each axis by its first number at both ends."""

    def y(self, x, weight, bias, p):
        return super().y(x, weight, bias, p._replace(padding=[(b, b) for b, _ in p.padding]))


@mistake(
    "padding",
    "column padding reads the neighbouring row",
    "Test the column index too, not only the row: a flat index runs on into the next row.",
)
class _(Conv):
    """The last axis is indexed without a bounds test, so its padding reads, and writes, the neighbouring rows."""

    def pad(self, x, padding):
        flat = np.pad(x.reshape(-1), padding[-1])
        return np.pad(flat[self.elements(x.shape, padding)], [(0, 0), (0, 0), *padding[:-1], (0, 0)])

    def unpad(self, padded, size, padding):
        rows = super().unpad(padded, (*size[:-1], padded.shape[-1]), [*padding[:-1], (0, 0)])
        shape = (*rows.shape[:-1], size[-1])
        flat = np.zeros(math.prod(shape) + sum(padding[-1]), padded.dtype)
        np.add.at(flat, self.elements(shape, padding), rows)
        return flat[padding[-1][0] :][: math.prod(shape)].reshape(shape)

    def elements(self, shape, padding):
        """Return the places of each padded row in the flat array, which is padded at its two ends."""
        starts = np.arange(math.prod(shape[:-1])).reshape(*shape[:-1], 1) * shape[-1]
        return starts + np.arange(shape[-1] + sum(padding[-1]))


@mistake("padding", "padding ignored in the weight gradient", "Correlate g with the padded x.")
class _(Conv):
    """The weight gradient reads x as if position 0 of the padded input were its first element."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(g, x, shape, p._replace(padding=[(0, b + a) for b, a in p.padding]))


@mistake(
    "padding",
    "top padding without stride in the weight gradient",
    "Tap t first meets the input at position ⌈(p − t·dilation) / stride⌉.",
)
class _(Conv):
    """Rows in the padding are skipped by starting at position p − t·dilation, which is too late if stride > 1."""

    def grad_weight(self, g, x, shape, p):
        grad = super().grad_weight(g, x, shape, p)
        for t in range(shape[2]):
            late = g.copy()
            late[:, :, : max(0, p.padding[0][0] - t * p.dilation[0])] = 0
            grad[:, :, t] = super().grad_weight(late, x, shape, p)[:, :, t]
        return grad


@mistake(
    "padding",
    "weight gradient pads the wrong ends",
    "Pad x with (before, after), as the forward pass does.",
    supports="asymmetric_padding",
)
class _(Conv):
    """The weight gradient exchanges the padding before and after."""

    def grad_weight(self, g, x, shape, p):
        return super().grad_weight(g, x, shape, p._replace(padding=[(a, b) for b, a in p.padding]))


@mistake("padding", "transposed: padding crops the end only", "Crop `before` at the start and `after` at the end.")
class _(ConvTranspose):
    """The output has the right size but begins with what should have been cropped."""

    def unpad(self, padded, size, padding):
        return padded[(..., *(slice(0, n) for n in size))]


@mistake("padding", "transposed: padding put around the input", "Padding of a transposed convolution crops the output.")
class _(ConvTranspose):
    """The input is padded as a convolution's, and nothing is cropped."""

    def y(self, x, weight, bias, p):
        return super().y(self.pad(x, p.padding), weight, bias, p._replace(padding=[(0, 0)] * len(p.padding)))


@mistake(
    "padding",
    "causal padding split between the ends",
    "Pad dilation·(k − 1) before and nothing after; padding at both ends that keeps the size is 'same'.",
    supports="causal",
)
class _(Conv):
    """Half of the zeros are put after the input, so that outputs read later inputs."""

    def causal(self, n, k, s, d):
        before, _ = super().causal(n, k, s, d)
        return before // 2, before - before // 2


@mistake("padding", "causal padding put after", "Pad before the input.", supports="causal")
class _(Conv):
    """All zeros are put after the input, so that each output reads the inputs that follow it."""

    def causal(self, n, k, s, d):
        return super().causal(n, k, s, d)[::-1]


@mistake(
    "padding",
    "causal padding at both ends",
    "Pad before only, or drop the last dilation·(k − 1) outputs.",
    supports="causal",
)
class _(Conv):
    """A library's padding=dilation·(k − 1) pads both ends, and the outputs after the input's end are kept."""

    def causal(self, n, k, s, d):
        before, _ = super().causal(n, k, s, d)
        return before, before


@mistake("padding", "causal padding without dilation", "Pad dilation·(k − 1).", supports="causal")
class _(Conv):
    """k − 1 zeros are put before the input, with any dilation."""

    def causal(self, n, k, s, d):
        return super().causal(n, k, s, 1)


class _Same(Conv):
    """The padding of 'same': n / stride outputs, rounded up, so that it depends on the input's size."""

    def causal(self, n, k, s, d):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        return total // 2, total - total // 2


@mistake(
    "padding",
    "causal padding taken for same",
    "'same' puts about half of the zeros after the input; put dilation·(k − 1) before it and none after.",
    supports="causal",
)
class _(_Same):
    """'causal' is padded as 'same': outputs read later inputs, and the zeros depend on size and stride."""


@mistake(
    "padding",
    "causal padding taken for same_lower",
    "'same_lower' puts about half of the zeros after the input; put dilation·(k − 1) before it and none after.",
    supports="causal",
)
class _(_Same):
    """'causal' is padded as 'same_lower', with the odd zero before: outputs read later inputs."""

    def causal(self, n, k, s, d):
        return super().causal(n, k, s, d)[::-1]


@mistake(
    "padding",
    "causal padding of dilation·k",
    "Output o may read input o·stride: pad dilation·(k − 1).",
    supports="causal",
)
class _(Conv):
    """dilation·k zeros are put before the input, so that outputs do not read the newest inputs."""

    def causal(self, n, k, s, d):
        return d * k, 0


@mistake("padding", "transposed: padding enlarges the output", "Padding of a transposed convolution is cropped away.")
class _(ConvTranspose):
    """Zeros are put around the output instead of cropping it."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, None, p._replace(padding=[(0, 0)] * len(p.padding)))
        return self.add_bias(np.pad(y, [(0, 0), (0, 0), *p.padding]), bias, weight.shape[2:])


@mistake(
    "padding",
    "transposed: output padding appends zeros",
    "Enlarge the output before writing: kernels can reach into it.",
    supports="output_padding",
)
class _(ConvTranspose):
    """Zeros are appended after the crop, where values of the kernel belong."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, None, p._replace(output_padding=(0,) * len(p.padding)))
        extended = np.pad(y, [(0, 0), (0, 0), *((0, extra) for extra in p.output_padding)])
        return self.add_bias(extended, bias, weight.shape[2:])


@mistake(
    "padding",
    "transposed: output padding appended as zeros after the bias",
    "Enlarge the output before writing: kernels can reach into it, and the bias is added there too.",
    supports="output_padding",
)
class _(ConvTranspose):
    """Zeros are appended to the finished output, where values of the kernel and the bias belong."""

    def y(self, x, weight, bias, p):
        y = super().y(x, weight, bias, p._replace(output_padding=(0,) * len(p.padding)))
        return np.pad(y, [(0, 0), (0, 0), *((0, extra) for extra in p.output_padding)])
