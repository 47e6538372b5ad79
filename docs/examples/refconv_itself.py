"""refconv's own convolution, as ``refconv check`` calls it: for reports of a wrong result, and of a change.

``refconv check docs/examples/refconv_itself.py:forward --backward docs/examples/refconv_itself.py:backward``
"""

from refconv import conv, conv_backward


def forward(x, weight, bias, stride, padding, dilation, groups):
    """Return y."""
    return conv(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


def backward(grad_output, x, weight, stride, padding, dilation, groups):
    """Return the gradients of x, the weight and the bias."""
    return conv_backward(grad_output, x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
