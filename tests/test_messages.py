# ruff: noqa: E501  (a call, and below it its error, each on one line)
"""Every error message of the validators, word for word: the rule, the argument's name and the numbers."""

from __future__ import annotations

import numpy as np
import pytest

import refconv

X = np.zeros((2, 4, 6, 7))
W = np.zeros((6, 2, 3, 2))
G = np.zeros((2, 6, 4, 6))
WT = np.zeros((4, 3, 3, 2))
GT = np.zeros((2, 6, 8, 8))
COLUMNS = np.zeros((2, 24, 24))
TWO = refconv.ChannelGroups.from_sizes([1, 3], [2, 4])

MESSAGES = """
# sizes and numbers
conv(X, W, groups=2, stride=0)
    ValueError: stride must be at least 1; got 0
conv(X, W, groups=2, stride=(1, 0))
    ValueError: stride[1] must be at least 1; got 0
conv(X, W, groups=2, stride=(1, 2, 3))
    ValueError: stride must be an integer or one integer per spatial axis (2); got (1, 2, 3)
conv(X, W, groups=2, stride=1.5)
    TypeError: stride must be an integer; got 1.5 of type float
conv(X, W, groups=2, stride=True)
    TypeError: stride must be an integer; got the bool True
conv(X, W, groups=2, stride=(1, np.bool_(True)))
    TypeError: stride[1] must be an integer; got the bool np.True_
conv(X, W, groups=2, dilation=0)
    ValueError: dilation must be at least 1; got 0
conv(X, W, groups=2, dilation=(0, 1))
    ValueError: dilation[0] must be at least 1; got 0
conv(X, W, groups=2, dilation=(1, 2, 3))
    ValueError: dilation must be an integer or one integer per spatial axis (2); got (1, 2, 3)
conv(X, W, groups=2, dilation=(2, 7))
    ValueError: the effective kernel must fit the padded input: spatial axis 1 has input size 7 + padding 0 + 0 = 7, but dilation·(k−1) + 1 = 7·(2−1) + 1 = 8 (kernel_size=(3, 2), dilation=(2, 7))
conv(X, W, groups=2, stride=10 ** 30)
    ValueError: stride must fit a signed 64-bit integer; got one of 100 bits
conv(X, W, groups=2, padding='full')
    ValueError: padding must be numbers, 'valid', 'same' or 'same_lower'; got 'full'
conv(X, W, groups=2, padding=1.5)
    TypeError: padding must be an integer; got 1.5 of type float
conv(X, W, groups=2, padding=(1, 2, 3))
    ValueError: padding must be an integer, one integer or one (before, after) pair per spatial axis (2), or a string; got (1, 2, 3)
conv(X, W, groups=2, padding=((1, 2), 1))
    TypeError: padding must contain either integers or (before, after) pairs, not both; got [(1, 2), 1]
conv(X, W, groups=2, padding=((1, 2), (1, 2, 3)))
    ValueError: padding[1] must be one (before, after) pair; got (1, 2, 3)
conv(X, W, groups=2, padding=((1, 2), (1.5, 0)))
    TypeError: padding[1] must be an integer; got 1.5 of type float
conv(X, W, groups=2, padding=((1, 2), (0, 1.5)))
    TypeError: padding[1] must be an integer; got 1.5 of type float
conv(X, W, groups=2, padding=((1, -5), (0, 0)))
    ValueError: the effective kernel must fit the padded input: spatial axis 0 has input size 6 + padding 1 + -5 = 2, but dilation·(k−1) + 1 = 1·(3−1) + 1 = 3 (kernel_size=(3, 2), dilation=(1, 1))
conv(X, W, groups=2, padding_mode=3)
    TypeError: padding_mode must be a string; got 3
conv(X, W, groups=2, padding_mode='constant')
    ValueError: padding_mode must be one of zeros, reflect, replicate, circular; got 'constant'
conv(X[:, :, :0], W, groups=2, padding=((2, 3), (0, 0)), padding_mode='replicate')
    ValueError: padding_mode='replicate' needs an element to extend; got an input of size 0 and padding (2, 3) on spatial axis 0
conv(X, W, groups=2, channels_last=1)
    TypeError: channels_last must be a bool; got 1
conv(X, W, groups=0)
    ValueError: groups must be at least 1; got 0
conv(X, W, groups=2.0)
    TypeError: groups must be an integer; got 2.0 of type float
conv(X, [W, W, W], groups=2)
    TypeError: weight must be one array where groups=2 is an integer; a sequence of 3 arrays needs groups to be a ChannelGroups
conv(X, [W], groups=TWO)
    ValueError: weight must have one array for each of the n=2 groups; got 1
conv(X, [], groups=TWO)
    ValueError: weight must have one array for each group; got an empty sequence
conv(X, W, groups=TWO)
    ValueError: weight must be a sequence of 2 arrays, one per group, because the groups' weights differ in shape: (2, 1, 3, 2), (4, 3, 3, 2); got one array of shape (6, 2, 3, 2)
conv(X, [np.zeros((2, 1, 3, 2)), np.zeros((4, 3, 3, 1))], groups=TWO)
    ValueError: weight[1] must have shape (4, 3, 3, 2) for its channel group; got (4, 3, 3, 1)
conv(X, np.zeros((6, 2, 3, 3)), groups=uniform_groups(4, 6, 1))
    ValueError: weight must have shape (6, 4, 3, 3) for groups=uniform_groups(4, 6, 1); got (6, 2, 3, 3)
conv(X, [np.zeros((1, 1, 2, 2))] * 2, groups=ChannelGroups.from_sizes([1, 1], [1, 1]))
    ValueError: x must have the C=2 input channels of its ChannelGroups; got C=4 (x has shape (2, 4, 6, 7))
conv(X, np.zeros((6, 4)))
    ValueError: weight must have at least 3 axes (two for channels, the others for the kernel); got shape (6, 4)
conv(np.zeros((1,) * 34), np.zeros((1,) * 34))
    ValueError: weight must have at most 31 spatial axes, because windows have two axes for each and NumPy arrays have at most 64; got 32
conv(X[0, 0], W, groups=2)
    ValueError: x must have 4 axes, or 3 if unbatched, for 2 spatial axes (weight has shape (6, 2, 3, 2)); got 2 axes: shape (6, 7)
conv(X, W[:, :, :0], groups=2)
    ValueError: kernel_size must be at least 1 on every axis; got weight of shape (6, 2, 0, 2)
conv(X, W, groups=3)
    ValueError: groups=3 does not divide C=4 input channels (x has shape (2, 4, 6, 7))
conv(X[:, :3], W, groups=3)
    ValueError: weight must have shape (K, C/groups, …) with C/groups = 3/3 = 1 (x has shape (2, 3, 6, 7)); got (6, 2, 3, 2)
conv(X, W[:, :1], groups=2)
    ValueError: weight must have shape (K, C/groups, …) with C/groups = 4/2 = 2 (x has shape (2, 4, 6, 7)); got (6, 1, 3, 2)
conv(X, W[:5], groups=2)
    ValueError: groups=2 does not divide K=5 output channels (weight has shape (5, 2, 3, 2))
conv(X, W, np.zeros(5), groups=2)
    ValueError: bias must have shape (6,), one element per output channel; got (5,)
conv(X, W.astype('f4'), groups=2)
    TypeError: all operands must share one data type, but x has float64 and weight has float32: write weight.astype('float64')
conv(X, W, np.zeros(6, 'f4'), groups=2)
    TypeError: all operands must share one data type, but x has float64 and bias has float32: write bias.astype('float64')
conv(X, W, groups=2, accumulate_dtype='float99')
    ValueError: accumulate_dtype must be one of float16, float32, float64, complex64, complex128, int8, int16, int32, int64, uint8, uint16, uint32, uint64, or such a data type; got 'float99'
conv(X, W, groups=2, accumulate_dtype=7)
    TypeError: accumulate_dtype must be one of float16, float32, float64, complex64, complex128, int8, int16, int32, int64, uint8, uint16, uint32, uint64, or such a data type; got 7
conv(X, W, groups=2, accumulate_dtype=10 ** 5000)
    TypeError: accumulate_dtype must be one of float16, float32, float64, complex64, complex128, int8, int16, int32, int64, uint8, uint16, uint32, uint64, or such a data type; got <int>
conv(X, W, groups=2, accumulate_dtype='int64')
    TypeError: accumulate_dtype must be of the operands' kind: float64 is real; got int64, which is integer
conv(X, W, groups=2, padding=2 ** 39)
    ValueError: the padded input would need 9671406557031382606938448 elements, more than 2^40; its shape is (2, 4, 1099511627782, 1099511627783)
conv_output_shape((1, 1, 2 ** 38), (8, 1, 1))
    ValueError: the output would need 2199023255552 elements, more than 2^40; its shape is (1, 8, 274877906944)
conv_output_shape((1, 2 ** 20, 1, 1), (2 ** 21, 2 ** 20, 1, 1))
    ValueError: the weight would need 2199023255552 elements, more than 2^40; its shape is (1, 2097152, 1048576, 1, 1)
conv_output_shape((1, 64, 2 ** 10, 2 ** 20), (1, 64, 2 ** 10, 2 ** 10), groups=1)
    ValueError: the columns of one output row would need 70300091809792 elements, more than 2^40; its shape is (64, 1024, 1024, 1047553)
conv_output_shape(7, (1, 1, 1))
    TypeError: input_shape must be a sequence of integers, a shape; got 7
conv_output_shape((1,) * 65, (1, 1, 1))
    ValueError: input_shape must have at most 64 axes; got (1, 1, 1, 1, 1, 1, ...)
conv_output_shape((1, -1, 1), (1, 1, 1))
    ValueError: input_shape[1] must be at least 0; got -1
conv_output_shape((1, 1, 1), 7)
    TypeError: weight_shape must be a sequence of integers, a shape; got 7
conv_output_shape((1, 1, 1), (1, 1, -1))
    ValueError: weight_shape[2] must be at least 0; got -1
conv_output_shape((1, 4, 1), [(2, 1, 1), (4, 3, -1)], groups=TWO)
    ValueError: weight_shape[1][2] must be at least 0; got -1
conv_output_shape((1, 4, 3), (6, 2, 1), groups=3)
    ValueError: groups=3 does not divide C=4 input channels (input_shape has shape (1, 4, 3))
conv_output_shape((4,), (6, 4, 1))
    ValueError: input_shape must have 3 axes, or 2 if unbatched, for 1 spatial axes (weight has shape (6, 4, 1)); got 1 axes: shape (4,)
conv_output_shape((1, 5, 3), [(2, 1, 1), (4, 3, 1)], groups=TWO)
    ValueError: input_shape must have the C=4 input channels of its ChannelGroups; got C=5 (input_shape has shape (1, 5, 3))
conv_backward(G[:, :5], X, W, groups=2)
    ValueError: grad_output must have shape (2, 6, 4, 6), the shape of the output; got (2, 5, 4, 6)
conv_backward(G, X, W, groups=2, needs='x')
    TypeError: needs must be a tuple of names among "x", "weight" and "bias"; got 'x'
conv_backward(G, X, W, groups=2, needs=('x', 'y'))
    ValueError: needs may contain only "x", "weight" and "bias"; got 'y'
conv_backward(G, X, W, groups=2, needs=(None,))
    ValueError: needs may contain only "x", "weight" and "bias"; got None
conv_input_grad(G, W, (2, 4, 6), groups=2)
    ValueError: weight must have shape (K, C/groups, …) with C/groups = 2/2 = 1 (input_shape has shape (2, 4, 6)); got (6, 2, 3, 2)
conv_input_grad(G, W, (2, 5, 6, 7), groups=2)
    ValueError: groups=2 does not divide C=5 input channels (input_shape has shape (2, 5, 6, 7))
conv_input_grad(G, W, (2, 4, 6, 8), groups=2)
    ValueError: grad_output must have shape (2, 6, 4, 7), the shape of the output; got (2, 6, 4, 6)
conv_input_grad(G, W, 7, groups=2)
    TypeError: input_shape must be a sequence of integers, a shape; got 7
conv_input_grad(G, W, (2, 4, 6, -7), groups=2)
    ValueError: input_shape[3] must be at least 0; got -7
conv_weight_grad(G, X, (3, 2, 1, 1), groups=2)
    ValueError: x and grad_output must both have 6 axes (or 5 if unbatched) for kernel_size=(3, 2, 1, 1); got shapes (2, 4, 6, 7) and (2, 6, 4, 6)
conv_weight_grad(G[0, 0], X[0, 0], 3)
    ValueError: x and grad_output must both have 3 axes (or 2 if unbatched) for kernel_size=3; got shapes (6, 7) and (4, 6)
conv_weight_grad(G[0], X, 3)
    ValueError: x and grad_output must both have 4 axes (or 3 if unbatched) for kernel_size=3; got shapes (2, 4, 6, 7) and (6, 4, 6)
conv_weight_grad(G, X, (3, 0), groups=2)
    ValueError: kernel_size[1] must be at least 1; got 0
conv_weight_grad(G, X, 0, groups=2)
    ValueError: kernel_size must be at least 1; got 0
conv_weight_grad(G, X, (3, 2), groups=0)
    ValueError: groups must be at least 1; got 0
conv_weight_grad(G, X, (3, 2), groups=2, channels_last=1)
    TypeError: channels_last must be a bool; got 1
conv_weight_grad(G, X, (3, 3), groups=2)
    ValueError: grad_output must have shape (2, 6, 4, 5), the shape of the output; got (2, 6, 4, 6)
conv_transpose(X, WT, groups=2, padding='causal')
    ValueError: padding='causal' has no meaning for a transposed convolution; crop the end by [(0, crop)]
conv_transpose(X, WT, groups=2, padding='SAME')
    ValueError: padding must be numbers, 'valid', 'same' or 'same_lower'; got 'SAME': write 'same'
conv_transpose(X, WT, groups=2, padding='same', output_padding=1, stride=2)
    ValueError: output_padding must be 0 with padding='same', which chooses the size; got 1
conv_transpose(X, WT, groups=2, padding='same', output_size=(6, 9), stride=(1, 2))
    ValueError: padding='same' gives (n−1)·stride + 1 to n·stride outputs, 13 to 14 on spatial axis 1 (n=7, stride=2); got output_size=9
conv_transpose(X, WT, groups=2, output_size=(8, 8), output_padding=(0, 1), stride=2)
    ValueError: output_padding must be 0 with output_size=(8, 8), which chooses the size; got (0, 1)
conv_transpose(X, WT, groups=2, output_size=(8, 16), stride=(1, 2))
    ValueError: output_size must be from 14 to 15 on spatial axis 1, since output_padding is smaller than stride or dilation; got 16 (n=7, stride=2, padding=(0, 0), dilation=1, k=2)
conv_transpose(X[:, :, :0], WT, groups=2, padding='same', stride=2)
    ValueError: the output of a transposed convolution must have an element on every axis: spatial axis 0 has (n−1)·stride − before − after + dilation·(k−1) + 1 + output_padding = 0 (n=0, stride=2, padding=(0, 1), dilation=1, k=3)
conv_transpose(X, WT, groups=2, output_size=(1, 8), padding=(10, 0))
    ValueError: the output of a transposed convolution must have an element on every axis: spatial axis 0 has (n−1)·stride − before − after + dilation·(k−1) + 1 + output_padding = -12 (n=6, stride=1, padding=(10, 10), dilation=1, k=3)
conv(np.ones((1, 8, 8, 3)), np.ones((4, 3, 3, 3)), channels_last=True, padding='SAME')
    ValueError: padding must be numbers, 'valid', 'same' or 'same_lower'; got 'SAME': write 'same'
conv_double_backward(range(10 ** 30), G, X, W, groups=2)
    TypeError: grad_grads must be a ConvGrads, or three arrays or None (x, weight, bias); got range(0, 1000...0000000000000)
conv(X.astype('i8'), W.astype('u8'), groups=2)
    TypeError: all operands must share one data type, but x has int64 and weight has uint64: write weight.astype('int64')
conv(X, W, groups=2, padding='CAUSAL')
    ValueError: padding must be numbers, 'valid', 'same' or 'same_lower'; got 'CAUSAL'
conv_transpose(X, WT, groups=2, output_size=(8, 0))
    ValueError: output_size[1] must be at least 1; got 0
conv_transpose(X, WT, groups=2, output_size=(2, 6, 8, 8))
    ValueError: output_size must be an integer or one integer per spatial axis (2); got (2, 6, 8, 8)
conv(X, W, groups=2, padding='SAME')
    ValueError: padding must be numbers, 'valid', 'same' or 'same_lower'; got 'SAME': write 'same'
conv(X, W, groups=2, padding='Same_Lower')
    ValueError: padding must be numbers, 'valid', 'same' or 'same_lower'; got 'Same_Lower': write 'same_lower'
conv(X, W, groups=2, padding='SAME_UPPER')
    ValueError: padding must be numbers, 'valid', 'same' or 'same_lower'; got 'SAME_UPPER': write 'same'
conv(X, W, groups=2, padding='causal')
    ValueError: padding='causal' is for one spatial axis, that of time; got 2 axes
conv(X, W, groups=2, padding=[1, 1, 2, 2])
    ValueError: padding must be an integer, one integer or one (before, after) pair per spatial axis (2), or a string; got [1, 1, 2, 2]: for pairs write [(1, 2), (1, 2)]
conv(X[..., 0], W[..., 0], groups=2, padding=(8, 0))
    ValueError: padding must be an integer, one integer or one (before, after) pair per spatial axis (1), or a string; got (8, 0): for pairs write [(8, 0)]
conv(np.ones((1, 8, 8, 4)), np.ones((3, 3, 4, 16)), channels_last=True)
    ValueError: weight must have shape (K, C/groups, …) with C/groups = 4/1 = 4 (x has shape (1, 8, 8, 4)); got (3, 3, 4, 16); put the axes of a weight (k1, …, C/G, K) in the order (3, 2, 0, 1), with NumPy by weight.transpose(3, 2, 0, 1)
conv(np.ones((1, 8, 8, 3)), np.ones((3, 3, 3, 16)), channels_last=True)
    ValueError: the effective kernel must fit the padded input: spatial axis 1 has input size 8 + padding 0 + 0 = 8, but dilation·(k−1) + 1 = 1·(16−1) + 1 = 16 (kernel_size=(3, 16), dilation=(1, 1)); put the axes of a weight (k1, …, C/G, K) in the order (3, 2, 0, 1), with NumPy by weight.transpose(3, 2, 0, 1)
conv(np.ones((1, 8, 4)), np.ones((3, 2, 5)), channels_last=True, groups=2)
    ValueError: groups=2 does not divide K=3 output channels (weight has shape (3, 2, 5)); put the axes of a weight (k1, …, C/G, K) in the order (2, 1, 0), with NumPy by weight.transpose(2, 1, 0)
conv(np.ones((1, 3, 8, 2)), np.ones((4, 3, 3, 5)))
    ValueError: the effective kernel must fit the padded input: spatial axis 1 has input size 2 + padding 0 + 0 = 2, but dilation·(k−1) + 1 = 1·(5−1) + 1 = 5 (kernel_size=(3, 5), dilation=(1, 1))
conv(X, W, groups=2, output_dtype='int32')
    TypeError: output_dtype must be of the operands' kind: float64 is real; got int32, which is integer
conv(X, W, groups=2, output_dtype='wide')
    ValueError: output_dtype must be one of float16, float32, float64, complex64, complex128, int8, int16, int32, int64, uint8, uint16, uint32, uint64, or such a data type; got 'wide'
conv(X, W, groups=2, output_dtype=3)
    TypeError: output_dtype must be one of float16, float32, float64, complex64, complex128, int8, int16, int32, int64, uint8, uint16, uint32, uint64, or such a data type; got 3
conv(X.tolist(), W, groups=2)
    TypeError: x must be a dense array of numpy, cupy, torch or array_api_strict; got list: write numpy.asarray(x)
conv(X, W.tolist(), groups=2)
    TypeError: weight must be a dense array of numpy, cupy, torch or array_api_strict; got list: write numpy.asarray(weight)
conv(X.astype('i1'), W.astype('u1'), groups=2)
    TypeError: all operands must share one data type, but x has int8 and weight has uint8: write x.astype('int16') and weight.astype('int16')
conv(X.astype('f2'), W.astype('f4'), groups=2)
    TypeError: all operands must share one data type, but x has float16 and weight has float32: write x.astype('float32')
conv_jvp(X, W, dx=X[:1], groups=2)
    ValueError: dx must have shape (2, 4, 6, 7), the shape of x; got (1, 4, 6, 7)
conv_jvp(X, W, dweight=[W], groups=2)
    ValueError: dweight must be one array, as weight is; got [array([[[[0.,... [0., 0.]]]])]
conv_jvp(X, W, dbias=np.zeros(5), groups=2)
    ValueError: dbias must have shape (6,), one element per output channel; got (5,)
conv_jvp(X, W, dbias=np.zeros((6, 1)), groups=2)
    ValueError: dbias must have shape (6,), one element per output channel; got (6, 1)
conv_jvp(X, W, dx=X.astype('f4'), groups=2)
    TypeError: all operands must share one data type, but x has float64 and dx has float32: write dx.astype('float64')
conv_jvp(X, W, dx=X.tolist(), groups=2)
    TypeError: dx must be a dense array of numpy, cupy, torch or array_api_strict; got list: write numpy.asarray(dx)
conv_jvp(X, W, groups=2, stride=0)
    ValueError: stride must be at least 1; got 0
conv_jvp(X, [np.zeros(s) for s in TWO.weight_shapes((3, 2))], dweight=[np.zeros((2, 1, 3, 2))] * 2, groups=TWO)
    ValueError: dweight[1] must have shape (4, 3, 3, 2), the shape of weight[1]; got (2, 1, 3, 2)
conv_transpose_jvp(X, WT, dbias=np.zeros(5), groups=2)
    ValueError: dbias must have shape (6,), one element per output channel; got (5,)
conv_double_backward((X, W, np.zeros(6)), G[:, :5], X, W, groups=2)
    ValueError: grad_output must have shape (2, 6, 4, 6), the shape of the output; got (2, 5, 4, 6)
conv_double_backward((X, W), G, X, W, groups=2)
    TypeError: grad_grads must be a ConvGrads, or three arrays or None (x, weight, bias); got (array([[[[0.,...., 0., 0.]]]]), array([[[[0.,... [0., 0.]]]]))
conv_double_backward(X, G, X, W, groups=2)
    TypeError: grad_grads must be a ConvGrads, or three arrays or None (x, weight, bias); got array([[[[0.,...., 0., 0.]]]])
conv_double_backward((X[:1], None, None), G, X, W, groups=2)
    ValueError: grad_grads.x must have shape (2, 4, 6, 7), the shape of x; got (1, 4, 6, 7)
conv_double_backward((None, W[:1], None), G, X, W, groups=2)
    ValueError: grad_grads.weight must have shape (6, 2, 3, 2), the shape of weight; got (1, 2, 3, 2)
conv_double_backward((None, None, np.zeros(5)), G, X, W, groups=2)
    ValueError: grad_grads.bias must have shape (6,), one element per output channel; got (5,)
conv_double_backward((None, None, None), G, X, W, groups=2, needs=('x', 'bias'))
    ValueError: needs may contain only "grad_output", "x" and "weight"; got 'bias'
conv_double_backward((None, None, None), G, X, W, groups=2, needs='x')
    TypeError: needs must be a tuple of names among "grad_output", "x" and "weight"; got 'x'
conv_double_backward((None, None, None), G[:1], X, W, groups=2, needs=('x',))
    ValueError: grad_output must have shape (2, 6, 4, 6), the shape of the output; got (1, 6, 4, 6)
conv_double_backward((None, None, np.zeros(5)), G, X, W, groups=2, needs=())
    ValueError: grad_grads.bias must have shape (6,), one element per output channel; got (5,)
conv_transpose_double_backward((X, None, X), GT, X, WT, groups=2)
    ValueError: grad_grads.bias must have shape (6,), one element per output channel; got (2, 4, 6, 7)
conv(X[:, :, :0], W, groups=2, padding=((1, 0), (0, 0)), padding_mode='reflect')
    ValueError: padding_mode='reflect' needs an element to extend; got an input of size 0 and padding (1, 0) on spatial axis 0
conv(X[:, :, :0], W, groups=2, padding=((0, 3), (0, 0)), padding_mode='circular')
    ValueError: padding_mode='circular' needs an element to extend; got an input of size 0 and padding (0, 3) on spatial axis 0
conv_transpose(X, WT, groups=2, output_padding=(0, 2), stride=(1, 2))
    ValueError: output_padding must be smaller than stride or dilation; got output_padding=2, stride=2, dilation=1 on spatial axis 1
conv_transpose(X, WT, groups=2, output_padding=-1)
    ValueError: output_padding must be at least 0; got -1
conv_transpose(X, WT, groups=2, output_padding=(0, -1))
    ValueError: output_padding[1] must be at least 0; got -1
conv_transpose(X, WT, groups=2, stride=(1, 0))
    ValueError: stride[1] must be at least 1; got 0
conv_transpose(X, WT, groups=2, dilation=(1, 0))
    ValueError: dilation[1] must be at least 1; got 0
conv_transpose(X, WT, groups=2, dilation=0)
    ValueError: dilation must be at least 1; got 0
conv_transpose(X, WT, groups=2, stride=(1, 2, 3))
    ValueError: stride must be an integer or one integer per spatial axis (2); got (1, 2, 3)
conv_transpose(X, WT, groups=2, dilation=(1, 2, 3))
    ValueError: dilation must be an integer or one integer per spatial axis (2); got (1, 2, 3)
conv_transpose(X, WT, groups=2, output_padding=(1, 2, 3))
    ValueError: output_padding must be an integer or one integer per spatial axis (2); got (1, 2, 3)
conv_transpose(X, WT, groups=2, stride=(3, 2), dilation=(2, 1), padding=((9, 12), (1, 2)), output_padding=(1, 0))
    ValueError: the output of a transposed convolution must have an element on every axis: spatial axis 0 has (n−1)·stride − before − after + dilation·(k−1) + 1 + output_padding = 0 (n=6, stride=3, padding=(9, 12), dilation=2, k=3)
conv_transpose(X[:, :, :0], WT, groups=2, padding=-4)
    ValueError: the output of a transposed convolution must have an element on every axis: spatial axis 0 has (n−1)·stride − before − after + dilation·(k−1) + 1 + output_padding = 10 (n=0, stride=1, padding=(-4, -4), dilation=1, k=3)
conv_transpose(X, WT[:3], groups=2)
    ValueError: weight of a transposed convolution must have shape (C, K/groups, …) with C=4 (x has shape (2, 4, 6, 7)); got (3, 3, 3, 2)
conv_transpose(X, WT, np.zeros(5), groups=2)
    ValueError: bias must have shape (6,), one element per output channel; got (5,)
conv_transpose(X, WT, groups=uniform_groups(4, 8, 2))
    ValueError: weight must have shape (4, 4, 3, 2) for groups=uniform_groups(4, 8, 2); got (4, 3, 3, 2)
conv_transpose_backward(GT[:, :, 1:], X, WT, groups=2)
    ValueError: grad_output must have shape (2, 6, 8, 8), the shape of the output; got (2, 6, 7, 8)
conv1d(X, W, groups=2)
    ValueError: weight must have 3 axes for 1 spatial axes; got shape (6, 2, 3, 2)
conv2d(X[0], [W, W[0]], groups=TWO)
    ValueError: weight must have 4 axes for 2 spatial axes; got shape (2, 3, 2)
conv3d(X, W, groups=2)
    ValueError: weight must have 5 axes for 3 spatial axes; got shape (6, 2, 3, 2)
conv_transpose1d(X, WT, groups=2)
    ValueError: weight must have 3 axes for 1 spatial axes; got shape (4, 3, 3, 2)
conv_transpose2d(X[0], WT[0], groups=2)
    ValueError: weight must have 4 axes for 2 spatial axes; got shape (3, 3, 2)
conv_transpose3d(X, WT, groups=2)
    ValueError: weight must have 5 axes for 3 spatial axes; got shape (4, 3, 3, 2)

# operands
conv(X, np.zeros(6))
    ValueError: weight must have at least 3 axes (two for channels, the others for the kernel); got shape (6,)
conv(X, [np.zeros(shape, 'f4') for shape in TWO.weight_shapes((3, 2))], groups=TWO)
    TypeError: all operands must share one data type, but x has float64 and weight[0] has float32: write weight[0].astype('float64')
conv(X, [np.zeros((2, 1, 3, 2)), np.zeros((4, 3, 3, 2), 'f4')], groups=TWO)
    TypeError: all operands must share one data type, but x has float64 and weight[1] has float32: write weight[1].astype('float64')
conv(X.astype(bool), W, groups=2)
    TypeError: x must have one of the data types float16, float32, float64, complex64, complex128, int8, int16, int32, int64, uint8, uint16, uint32, uint64; got bool: write x.astype('float64')
conv(X, [np.zeros((2, 1, 3, 2)), np.zeros((4, 3, 3, 2), bool)], groups=TWO)
    TypeError: weight[1] must have one of the data types float16, float32, float64, complex64, complex128, int8, int16, int32, int64, uint8, uint16, uint32, uint64; got bool: write weight[1].astype('float64')
conv_weight_grad(G[:, :5], X, (3, 2), groups=2)
    ValueError: groups=2 does not divide K=5 output channels (weight has shape (5, 2, 3, 2))
conv_transpose(X, WT, np.zeros(6, 'f4'), groups=2)
    TypeError: all operands must share one data type, but x has float64 and bias has float32: write bias.astype('float64')
conv_output_shape((1, 1, 3), (6, [2], 3))
    TypeError: weight_shape[1] must be an integer; got [2] of type list
conv_output_shape((1,) * 64, (1, 1, 1))
    ValueError: input_shape must have 3 axes, or 2 if unbatched, for 1 spatial axes (weight has shape (1, 1, 1)); got 64 axes: shape (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)

# operands
conv(np.ones((1, 10, 3)), np.ones((10, 1, 1)), groups=ChannelGroups.from_sizes([1, 2, 3, 4], [1, 1, 1, 1]))
    ValueError: weight must be a sequence of 4 arrays, one per group, because the groups' weights differ in shape: (1, 1, 1), (1, 2, 1), (1, 3, 1), (1, 4, 1); got one array of shape (10, 1, 1)
conv(np.ones((1, 15, 3)), np.ones((15, 1, 1)), groups=ChannelGroups.from_sizes([1, 2, 3, 4, 5], [1] * 5))
    ValueError: weight must be a sequence of 5 arrays, one per group, because the groups' weights differ in shape: (1, 1, 1), (1, 2, 1), (1, 3, 1), (1, 4, 1), …; got one array of shape (15, 1, 1)
conv_transpose(np.ones((1, 1, 3)), np.ones((1, 4, 2)), stride=2 ** 38, padding=2 ** 38 - 1)
    ValueError: the output before its crop would need 2199023255560 elements, more than 2^40; its shape is (1, 4, 549755813890)
conv_transpose(np.broadcast_to(1.0, (1, 1, 1, 2 ** 20)), np.broadcast_to(1.0, (1, 4, 1, 2 ** 19)))
    ValueError: the columns of one output row would need 2199023255552 elements, more than 2^40; its shape is (4, 1, 524288, 1048576)
conv_output_shape((2 ** 20, 2 ** 20 + 1), (1, 2 ** 20, 1))
    ValueError: the input would need 1099512676352 elements, more than 2^40; its shape is (1, 1048576, 1048577)

# groups
uniform_groups(2 ** 20, 2 ** 20 + 1, 1).connectivity()
    ValueError: the connectivity matrix would need c_out·c_in = 1048577·1048576 elements, more than 2^40

# operands
to_numpy(3)
    TypeError: array must be a dense array of numpy, cupy, torch or array_api_strict; got int
im2col(3, 2)
    TypeError: x must be a dense array of numpy, cupy, torch or array_api_strict; got int
col2im(3, (1, 1, 2), 2)
    TypeError: columns must be a dense array of numpy, cupy, torch or array_api_strict; got int
col2im(np.ones((1, 2, 1), bool), (1, 1, 2), 2)
    TypeError: columns must have one of the data types float16, float32, float64, complex64, complex128, int8, int16, int32, int64, uint8, uint16, uint32, uint64; got bool: write columns.astype('uint8')
im2col(np.ones((2, 5)), (2 ** 20,), padding=2 ** 22)
    ValueError: the columns would need 15393175371776 elements, more than 2^40; its shape is (1, 2, 1048576, 7340038)
conv(3, W)
    TypeError: x must be a dense array of numpy, cupy, torch or array_api_strict; got int
conv(X, 3)
    TypeError: weight must be a dense array of numpy, cupy, torch or array_api_strict; got int
conv(X, [3], groups=uniform_groups(4, 6, 1))
    TypeError: weight must be a dense array of numpy, cupy, torch or array_api_strict; got list: write numpy.asarray(weight)

# settings
set_workers(0)
    ValueError: n must be at least 1; got 0
set_workspace(0)
    ValueError: bytes must be at least 1; got 0
set_workers(None)
    TypeError: n must be an integer; got None of type NoneType
set_workspace('2')
    TypeError: bytes must be an integer; got '2' of type str
set_workers(2 ** 63)
    ValueError: n must fit a signed 64-bit integer; got one of 64 bits

# groups
uniform_groups(4, 6, 3)
    ValueError: groups=3 does not divide C=4 input channels
uniform_groups(6, 4, 3)
    ValueError: groups=3 does not divide K=4 output channels
uniform_groups(-1, 4, 1)
    ValueError: c_in must be at least 0; got -1
uniform_groups(4, -1, 1)
    ValueError: c_out must be at least 0; got -1
uniform_groups(4, 4, 0)
    ValueError: n must be at least 1; got 0
uniform_groups(2 ** 41, 4, 1)
    ValueError: c_in must be at most 1099511627776; got 2199023255552
uniform_groups(4, 2 ** 41, 1)
    ValueError: c_out must be at most 1099511627776; got 2199023255552
uniform_groups(2 ** 25, 2 ** 25, 2 ** 25)
    ValueError: n must be at most 16777216; got 33554432
depthwise_groups(0)
    ValueError: channels must be at least 1; got 0
depthwise_groups(4, 0)
    ValueError: multiplier must be at least 1; got 0
depthwise_groups(2 ** 25)
    ValueError: channels must be at most 16777216; got 33554432
depthwise_groups(4, 2 ** 25)
    ValueError: multiplier must be at most 16777216; got 33554432
depthwise_groups(2 ** 12 + 1, 2 ** 12)
    ValueError: channels·multiplier must be at most 2^24 = 16777216; got 4097·4096 = 16781312
logarithmic_groups(0, 1, 1)
    ValueError: c_in must be at least 1; got 0
logarithmic_groups(1, 0, 1)
    ValueError: c_out must be at least 1; got 0
logarithmic_groups(4, 4, 0)
    ValueError: n must be at least 1; got 0
logarithmic_groups(4, 4, 1, 1)
    ValueError: base must be at least 2; got 1
logarithmic_groups(2 ** 25, 4, 1)
    ValueError: c_in must be at most 16777216; got 33554432
logarithmic_groups(4, 2 ** 25, 1)
    ValueError: c_out must be at most 16777216; got 33554432
logarithmic_groups(64, 12, 5)
    ValueError: n=5 logarithmic groups need 2^(5−1) ≤ min(c_in, c_out) = min(64, 12); the largest n that fits is 4
logarithmic_groups(2 ** 20, 2 ** 20, 2, 2 ** 40)
    ValueError: n=2 logarithmic groups need 1099511627776^(2−1) ≤ min(c_in, c_out) = min(1048576, 1048576); the largest n that fits is 1
logarithmic_groups(64, 64, 2 ** 62)
    ValueError: n=4611686018427387904 logarithmic groups need 2^(4611686018427387904−1) ≤ min(c_in, c_out) = min(64, 64); the largest n that fits is 7
logarithmic_groups(26, 30, 4, 3)
    ValueError: n=4 logarithmic groups need 3^(4−1) ≤ min(c_in, c_out) = min(26, 30); the largest n that fits is 3
ChannelGroups(7, [[0]])
    TypeError: in_channels must be a sequence of sequences of channels, one per group; got 7 of type int
ChannelGroups([[0]], 'ab')
    TypeError: out_channels must be a sequence of sequences of channels, one per group; got 'ab' of type str
ChannelGroups([0], [[0]])
    TypeError: in_channels[0] must be a sequence of channels, integers; got 0 of type int
ChannelGroups([[0]], [[0], 7])
    TypeError: out_channels[1] must be a sequence of channels, integers; got 7 of type int
ChannelGroups(range(2 ** 64), [[0]])
    ValueError: in_channels must have at most 2^24 = 16777216 entries; got more
ChannelGroups([range(2 ** 24 + 1)], [[0]])
    ValueError: in_channels[0] must have at most 2^24 = 16777216 entries; got more
ChannelGroups([range(2 ** 23), range(2 ** 23), [0]], [[0], [1], [2]])
    ValueError: in_channels must list at most 2^24 = 16777216 channels; got 16777217
ChannelGroups([[0]], [range(2 ** 23), range(2 ** 23), [0]])
    ValueError: out_channels must list at most 2^24 = 16777216 channels; got 16777217
ChannelGroups([[0, -1]], [[0]])
    ValueError: in_channels[0][1] must be at least 0; got -1
ChannelGroups([[0], [1, 1.5]], [[0], [1]])
    TypeError: in_channels[1][1] must be an integer; got 1.5 of type float
ChannelGroups([[0], [2 ** 24]], [[0], [1]])
    ValueError: in_channels[1][0] must be at most 16777215; got 16777216
ChannelGroups([[0]], [[0, 2 ** 24]])
    ValueError: out_channels[0][1] must be at most 16777215; got 16777216
ChannelGroups([[0]], [[-1]])
    ValueError: out_channels[0][0] must be at least 0; got -1
ChannelGroups([[0]], [[0], [1]])
    ValueError: in_channels and out_channels must have one entry for each group; got 1 and 2 entries
ChannelGroups([], [])
    ValueError: in_channels and out_channels must have at least one group; got none
ChannelGroups([[0], [2, 1, 2]], [[0], [1]])
    ValueError: in_channels[1] must list a channel at most once; it lists channel 2 again
ChannelGroups([[0], [2, 1]], [[0], [1]], c_in=2)
    ValueError: c_in must be larger than the highest channel listed in in_channels, 2; got c_in=2
ChannelGroups([[0]], [[0]], c_in=-1)
    ValueError: c_in must be at least 0; got -1
ChannelGroups([[0]], [[0]], c_in=2 ** 25)
    ValueError: c_in must be at most 16777216; got 33554432
ChannelGroups([[0]] * 3, [[0], [1], [2]], c_in=2 ** 23)
    ValueError: in_channels must need at most 2^24 connections; one channel is read by 3 groups, and 3 · c_in = 3·8388608 = 25165824
ChannelGroups([[0]], [])
    ValueError: in_channels and out_channels must have one entry for each group; got 1 and 0 entries
ChannelGroups([[0]], [[0, 0]])
    ValueError: out_channels must list every output channel exactly once; channel 0 is listed in out_channels[0] and again in out_channels[0]
ChannelGroups([[0], [0]], [[0, 1], [2, 1]])
    ValueError: out_channels must list every output channel exactly once; channel 1 is listed in out_channels[0] and again in out_channels[1]
ChannelGroups([[0], [0]], [[0, 1], [4, 2]])
    ValueError: out_channels must list every output channel exactly once; channel 3 is missing below the highest, 4
ChannelGroups.from_sizes(7, [1])
    TypeError: in_sizes must be a sequence of integers, one per group; got 7 of type int
ChannelGroups.from_sizes([1], 7)
    TypeError: out_sizes must be a sequence of integers, one per group; got 7 of type int
ChannelGroups.from_sizes([1, -1], [1, 1])
    ValueError: in_sizes[1] must be at least 0; got -1
ChannelGroups.from_sizes([1, 1], [1, -1])
    ValueError: out_sizes[1] must be at least 0; got -1
ChannelGroups.from_sizes([1, 1], [1])
    ValueError: in_sizes and out_sizes must have one entry for each group; got 2 and 1 entries
ChannelGroups.from_sizes([], [])
    ValueError: in_sizes and out_sizes must have at least one group; got none
ChannelGroups.from_sizes([2 ** 24, 1], [1, 1])
    ValueError: in_sizes must sum to at most 2^24 = 16777216 channels; got 16777217
ChannelGroups.from_sizes([1, 1], [2 ** 24, 1])
    ValueError: out_sizes must sum to at most 2^24 = 16777216 channels; got 16777217
ChannelGroups.from_sizes([2 ** 24 + 1], [1])
    ValueError: in_sizes[0] must be at most 16777216; got 16777217
TWO.weight_shapes(3)
    TypeError: kernel_size must be a sequence with one integer per spatial axis, such as (3, 3); the integer 3 alone does not say how many axes there are
TWO.weight_shapes('3')
    TypeError: kernel_size must be a sequence of integers, one per spatial axis; got '3' of type str
TWO.weight_shapes(())
    ValueError: kernel_size must have at least one spatial axis; got none
TWO.weight_shapes((3, 0))
    ValueError: kernel_size[1] must be at least 1; got 0
TWO.weight_shapes((3,), transposed=1)
    TypeError: transposed must be a bool; got 1
TWO.parameter_count((3,), bias=1)
    TypeError: bias must be a bool; got 1
TWO.parameter_count(3)
    TypeError: kernel_size must be a sequence with one integer per spatial axis, such as (3, 3); the integer 3 alone does not say how many axes there are
uniform_groups(2 ** 30, 2 ** 30, 1).connectivity()
    ValueError: the connectivity matrix would need c_out·c_in = 1073741824·1073741824 elements, more than 2^40

# columns
im2col(X, 0)
    ValueError: kernel_size must be at least 1; got 0
im2col(X, (3, 0))
    ValueError: kernel_size[1] must be at least 1; got 0
im2col(X[0, 0], 3)
    ValueError: x must have 3 axes (or 2 if unbatched) for kernel_size=3; got shape (6, 7)
im2col(X, (3, 2, 1, 1))
    ValueError: x must have 6 axes (or 5 if unbatched) for kernel_size=(3, 2, 1, 1); got shape (2, 4, 6, 7)
im2col(X, (3, 2), stride=0)
    ValueError: stride must be at least 1; got 0
im2col(X, (3, 2), stride=(1, 0))
    ValueError: stride[1] must be at least 1; got 0
im2col(X, (3, 2), dilation=0)
    ValueError: dilation must be at least 1; got 0
im2col(X, (3, 2), dilation=(1, 0))
    ValueError: dilation[1] must be at least 1; got 0
im2col(X, (3, 2), padding=1.5)
    TypeError: padding must be an integer; got 1.5 of type float
im2col(X, (3, 8))
    ValueError: the effective kernel must fit the padded input: spatial axis 1 has input size 7 + padding 0 + 0 = 7, but dilation·(k−1) + 1 = 1·(8−1) + 1 = 8 (kernel_size=(3, 8), dilation=(1, 1))
im2col(X, 2, padding=2 ** 40)
    ValueError: the padded input would need 38685626227896832009175376 elements, more than 2^40; its shape is (2, 4, 2199023255558, 2199023255559)
im2col(np.ones((1, 2, 5)), 2 ** 20, padding=2 ** 22)
    ValueError: the columns would need 15393175371776 elements, more than 2^40; its shape is (1, 2, 1048576, 7340038)
im2col(np.ones((2, 2), bool), 2)
    TypeError: x must have one of the data types float16, float32, float64, complex64, complex128, int8, int16, int32, int64, uint8, uint16, uint32, uint64; got bool: write x.astype('uint8')
col2im(COLUMNS, (2, 4, 6, 8), (3, 2))
    ValueError: columns must have shape (2, 24, 28), the result of im2col for input_shape=(2, 4, 6, 8); got (2, 24, 24)
col2im(COLUMNS, (2, 4, 6, -1), (3, 2))
    ValueError: input_shape[3] must be at least 0; got -1
col2im(COLUMNS, 7, (3, 2))
    TypeError: input_shape must be a sequence of integers, a shape; got 7
col2im(COLUMNS, (7,), 3)
    ValueError: input_shape must have 3 axes (or 2 if unbatched) for kernel_size=3; got shape (7,)
col2im(COLUMNS, (2, 4, 6, 7), (3, 0))
    ValueError: kernel_size[1] must be at least 1; got 0
col2im(COLUMNS, (2, 4, 6, 7), (3, 2), stride=(1, 0))
    ValueError: stride[1] must be at least 1; got 0
col2im(COLUMNS, (2, 4, 6, 7), (3, 2), dilation=(1, 0))
    ValueError: dilation[1] must be at least 1; got 0
col2im(COLUMNS, (2, 4, 6, 7), (3, 2), padding=1.5)
    TypeError: padding must be an integer; got 1.5 of type float
col2im(np.ones((1, 2, 5)), (1, 1, 2 ** 39), 2, padding=2 ** 39)
    ValueError: the padded input would need 1649267441664 elements, more than 2^40; its shape is (1, 1, 1649267441664)
"""

LINES = [line for line in MESSAGES.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(("call", "error"), list(zip(LINES[::2], LINES[1::2], strict=True)))
def test_message(call: str, error: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        eval(call, {**vars(refconv), **globals()})
    assert f"    {type(caught.value).__name__}: {caught.value}" == error
