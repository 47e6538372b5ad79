# ruff: noqa: T201
"""A ``torch.autograd.Function`` with a backward pass of its own, and the wrapper that lets ``check_conv`` call it.

Replace the class by yours, and run the file: ``python docs/examples/wrap_torch_function.py``.
"""

import sys

import torch
from torch.nn.functional import fold, unfold

from refconv.testing import check_conv

# --- The layer -------------------------------------------------------------------------------------------------------


class Conv2d(torch.autograd.Function):
    """im2col, a matrix product, and their adjoints."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, dilation):
        """Convolve (N, C, H, W) with (K, C, kh, kw)."""
        ctx.save_for_backward(x, weight)
        ctx.steps = {"dilation": dilation, "padding": padding, "stride": stride}
        columns = unfold(x, weight.shape[2:], **ctx.steps)
        size = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
        outputs = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in size]
        y = weight.flatten(1) @ columns
        return (y if bias is None else y + bias[:, None]).unflatten(2, outputs)

    @staticmethod
    def backward(ctx, grad_y):
        """Return a gradient for each argument of forward, None for the numbers."""
        x, weight = ctx.saved_tensors
        grad_y = grad_y.flatten(2)
        columns = unfold(x, weight.shape[2:], **ctx.steps)
        grad_x = fold(weight.flatten(1).T @ grad_y, x.shape[2:], weight.shape[2:], **ctx.steps)
        grad_weight = torch.einsum("nkl,nrl->kr", grad_y, columns).reshape(weight.shape)
        return grad_x, grad_weight, grad_y.sum((0, 2)), None, None, None


# --- The wrapper -----------------------------------------------------------------------------------------------------


def tensor(array):
    """Return a tensor; copy first what PyTorch refuses or warns of: negative strides and read-only memory."""
    usable = array.flags.writeable and min(array.strides) >= 0
    return torch.from_numpy(array if usable else array.copy())


def forward(x, weight, bias, stride, padding, dilation, groups):
    """Call the Function without its backward pass, in one thread: waking more takes longer than small problems."""
    torch.set_num_threads(1)
    bias = None if bias is None else tensor(bias)
    return Conv2d.apply(tensor(x), tensor(weight), bias, stride, padding, dilation).numpy()


def backward(grad_output, x, weight, stride, padding, dilation, groups):
    """Let autograd call the Function's backward pass."""
    torch.set_num_threads(1)
    bias = torch.zeros(len(weight), dtype=tensor(x).dtype)
    leaves = [leaf.requires_grad_() for leaf in (tensor(x), tensor(weight), bias)]
    y = Conv2d.apply(*leaves, stride, padding, dilation)
    return [grad.numpy() for grad in torch.autograd.grad(y, leaves, tensor(grad_output))]


def check():
    """Check everything but groups."""
    return check_conv(forward, backward, supports=("bias", "stride", "padding", "dilation"))


# --- The report ------------------------------------------------------------------------------------------------------

if __name__ == "__main__":
    report = check()
    print(report)
    sys.exit(not report.passed)
