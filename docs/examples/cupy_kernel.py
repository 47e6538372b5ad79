# ruff: noqa: T201
"""A CUDA convolution written by hand, run through CuPy and checked on the machine's own GPU.

Each kernel gathers: one thread computes one element of the result and no other thread writes to it, so there are no
atomic additions, and the same inputs give the same bits. Simple rather than fast.

Run it with ``python docs/examples/cupy_kernel.py``. Without CuPy or without a GPU it says so and does nothing.
"""

import functools
import math
import sys

import numpy as np

from refconv.testing import check_conv

try:
    import cupy as cp
except ImportError:
    cp = None

SOURCE = r"""
#define SIZES int N, int C, int H, int W, int K, int KH, int KW, int OH, int OW, \
              int SH, int SW, int PH, int PW, int DH, int DW, int G

// One thread for each y[n][k][oh][ow].
extern "C" __global__ void conv_forward(float *y, const float *x, const float *w, const float *bias, SIZES)
{
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)N * K * OH * OW) return;
    int ow = index % OW, oh = index / OW % OH, k = index / ((long long)OW * OH) % K;
    int n = index / ((long long)OW * OH * K);
    int CG = C / G, first = k / (K / G) * CG;  // channels of a group; the first one that k's group reads
    float sum = 0;
    for (int c = 0; c < CG; c++)
        for (int i = 0; i < KH; i++)
            for (int j = 0; j < KW; j++) {
                int h = oh * SH - PH + i * DH, v = ow * SW - PW + j * DW;
                if (h >= 0 && h < H && v >= 0 && v < W)  // padding is not read at all
                    sum += x[(((long long)n * C + first + c) * H + h) * W + v]
                         * w[(((long long)k * CG + c) * KH + i) * KW + j];
            }
    y[index] = sum + bias[k];
}

// One thread for each grad_x[n][c][h][v]: which outputs read it, and through which tap?
extern "C" __global__ void conv_input_gradient(float *grad_x, const float *g, const float *w, SIZES)
{
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)N * C * H * W) return;
    int v = index % W, h = index / W % H, c = index / ((long long)W * H) % C;
    int n = index / ((long long)W * H * C);
    int CG = C / G, KG = K / G, first = c / CG * KG;  // the first output channel of c's group
    float sum = 0;
    for (int k = first; k < first + KG; k++)
        for (int i = 0; i < KH; i++)
            for (int j = 0; j < KW; j++) {
                int a = h + PH - i * DH, b = v + PW - j * DW;  // a = oh * SH, b = ow * SW, if there are such
                if (a >= 0 && a % SH == 0 && a / SH < OH && b >= 0 && b % SW == 0 && b / SW < OW)
                    sum += g[(((long long)n * K + k) * OH + a / SH) * OW + b / SW]
                         * w[(((long long)k * CG + c % CG) * KH + i) * KW + j];
            }
    grad_x[index] = sum;
}

// One thread for each grad_w[k][c][i][j].
extern "C" __global__ void conv_weight_gradient(float *grad_w, const float *g, const float *x, SIZES)
{
    int CG = C / G;
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)K * CG * KH * KW) return;
    int j = index % KW, i = index / KW % KH, c = index / ((long long)KW * KH) % CG;
    int k = index / ((long long)KW * KH * CG);
    int channel = k / (K / G) * CG + c;
    float sum = 0;
    for (int n = 0; n < N; n++)
        for (int oh = 0; oh < OH; oh++)
            for (int ow = 0; ow < OW; ow++) {
                int h = oh * SH - PH + i * DH, v = ow * SW - PW + j * DW;
                if (h >= 0 && h < H && v >= 0 && v < W)
                    sum += g[(((long long)n * K + k) * OH + oh) * OW + ow]
                         * x[(((long long)n * C + channel) * H + h) * W + v];
            }
    grad_w[index] = sum;
}
"""


@functools.cache
def kernel(name):
    """Compile a kernel once."""
    return cp.RawKernel(SOURCE, name)


def launch(name, result, arrays, sizes):
    """Start one thread for each element of the result, in blocks of 128."""
    if result.size:  # CUDA refuses a grid without blocks
        # np.int32, because CuPy passes a Python int as 64 bits.
        kernel(name)((math.ceil(result.size / 128),), (128,), (result, *arrays, *map(np.int32, sizes)))


def on_device(array):
    """Copy an array to the GPU in C order, which the kernels' indices assume."""
    return cp.ascontiguousarray(cp.asarray(array))


def sizes_of(x, weight, stride, padding, dilation, groups):
    """Return the kernels' integers, in the order of SIZES."""
    (N, C, H, W), (K, _, KH, KW) = x.shape, weight.shape
    OH, OW = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip((H, W), (KH, KW), stride, padding, dilation, strict=True)
    )
    return N, C, H, W, K, KH, KW, OH, OW, *stride, *padding, *dilation, groups


# What the checker calls, with NumPy arrays. It takes CuPy arrays back only through NumPy.


def forward(x, weight, bias, stride, padding, dilation, groups):
    """Return y."""
    sizes = sizes_of(x, weight, stride, padding, dilation, groups)
    N, K, OH, OW = sizes[0], sizes[4], *sizes[7:9]
    bias = np.zeros(K, x.dtype) if bias is None else bias
    y = cp.empty((N, K, OH, OW), x.dtype)
    launch("conv_forward", y, [on_device(a) for a in (x, weight, bias)], sizes)
    return cp.asnumpy(y)


def backward(grad_output, x, weight, stride, padding, dilation, groups):
    """Return (grad_x, grad_weight, grad_bias)."""
    sizes = sizes_of(x, weight, stride, padding, dilation, groups)
    g = on_device(grad_output)
    grad_x, grad_weight = cp.empty(x.shape, x.dtype), cp.empty(weight.shape, x.dtype)
    launch("conv_input_gradient", grad_x, [g, on_device(weight)], sizes)
    launch("conv_weight_gradient", grad_weight, [g, on_device(x)], sizes)
    return cp.asnumpy(grad_x), cp.asnumpy(grad_weight), cp.asnumpy(g.sum(axis=(0, 2, 3)))


def check():
    """Check every feature of the kernels."""
    return check_conv(forward, backward, supports=("bias", "stride", "padding", "dilation", "groups"))


def why_not():
    """Return the reason why the kernels cannot run, or None."""
    if cp is None:
        return "CuPy is not installed"
    try:
        cp.cuda.Device().compute_capability  # noqa: B018  (asks the driver)
    except Exception as error:  # CuPy's errors differ by what is missing: driver, device, libraries
        return f"CuPy finds no GPU ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return None


if __name__ == "__main__":
    missing = why_not()
    if missing:
        print(f"cupy_kernel.py: nothing was run, {missing}")
        sys.exit(0)
    report = check()
    print(report)
    sys.exit(not report.passed)
