"""The timed libraries: refconv and its peers, each as functions of one layer, with its best settings."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from refconv.bench.gpu import MODULES, GpuError, find_gpu
from refconv.bench.timing import Call, Clock, wall_seconds
from refconv.bench.workloads import Layer
from refconv.settings import cores, set_engine, set_workers, set_workspace

Variants = dict[str, Call]
"""Ways to call one peer; the fastest counts."""

PASSES = ("forward", "backward", "training")
"""The forward pass, the gradients with respect to input, weight and bias, or both."""


def operands(layer: Layer, dtype: str) -> tuple[Any, list[Any], Any, Any]:
    """Return x, one weight per group, bias and grad_output: the same numbers for every peer."""
    rng = np.random.default_rng(0)
    kernel = (layer.kernel, layer.kernel)
    x = rng.standard_normal((layer.batch, layer.c_in, layer.size, layer.size)).astype(dtype)
    weights = [rng.standard_normal(shape).astype(dtype) for shape in layer.groups.weight_shapes(kernel)]
    bias = rng.standard_normal(layer.c_out).astype(dtype)
    grad = rng.standard_normal((layer.batch, layer.c_out, layer.output, layer.output)).astype(dtype)
    return x, weights, bias, grad


def _refconv(layer: Layer, dtype: str, what: str, engine: str | None = None) -> Variants:
    call = _refconv_call(layer, dtype, what, lambda array: array)

    def with_engine() -> Any:
        with set_engine(engine):
            return call()

    return {"default": with_engine}


def _refconv_on(module: str, layer: Layer, dtype: str, what: str) -> Variants:
    call = _refconv_call(layer, dtype, what, find_gpu(module).asarray)

    def within(workspace: int) -> Any:
        with set_workspace(workspace):
            return call()

    return {name: functools.partial(within, workspace) for name, workspace in WORKSPACES.items()}


def _refconv_call(layer: Layer, dtype: str, what: str, asarray: Callable[[Any], Any]) -> Call:
    import refconv

    arrays = operands(layer, dtype)
    x, bias, grad = map(asarray, (arrays[0], *arrays[2:]))
    groups: Any = layer.groups
    weight: Any = [asarray(w) for w in arrays[1]]
    if groups.is_uniform:
        weight, groups = asarray(np.concatenate(arrays[1])), groups.n
    options: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "groups": groups}

    def forward() -> Any:
        return refconv.conv(x, weight, bias, **options)

    def backward() -> Any:
        return refconv.conv_backward(grad, x, weight, **options)

    calls: dict[str, Call] = {
        "forward": forward, "backward": backward, "training": lambda: (forward(), backward())
    }  # fmt: skip
    return calls[what]


def _cudnn(tf32: bool, layer: Layer, dtype: str, what: str) -> Variants:
    import torch

    torch.backends.cudnn.benchmark = True  # the fastest of its algorithms
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    return _torch(layer, dtype, what, "cuda")


def _torch(layer: Layer, dtype: str, what: str, device: str = "cpu") -> Variants:
    import torch

    arrays = operands(layer, dtype)
    sizes, groups = list(layer.groups.in_sizes), layer.groups

    def make(memory_format: Any) -> Call:
        def leaf(array: Any) -> Any:
            tensor = torch.from_numpy(array.copy()).to(device)
            tensor = tensor.contiguous(memory_format=memory_format) if tensor.ndim == 4 else tensor
            return tensor.requires_grad_(what == "training")

        x, bias = leaf(arrays[0]), leaf(arrays[2])
        weights = [leaf(np.concatenate(arrays[1]))] if groups.is_uniform else [leaf(w) for w in arrays[1]]
        grad = torch.from_numpy(arrays[3]).to(device).contiguous(memory_format=memory_format)
        conv = torch.nn.functional.conv2d
        options = {"stride": layer.stride, "padding": layer.padding}

        def forward() -> Any:
            if groups.is_uniform:
                return conv(x, weights[0], bias, groups=groups.n, **options)
            parts = zip(x.split(sizes, 1), weights, bias.split(list(groups.out_sizes)), strict=True)
            return torch.cat([conv(part, weight, b, **options) for part, weight, b in parts], 1)

        def inference() -> Any:
            with torch.inference_mode():
                return forward()

        def training() -> Any:
            return torch.autograd.grad(forward(), [x, bias, *weights], grad)

        def gradients(grad: Any, x: Any, weight: Any, n: int) -> Any:
            window = ([len(weight)], [layer.stride] * 2, [layer.padding] * 2, [1, 1], False, [0, 0], n)
            return torch.ops.aten.convolution_backward(grad, x, weight, *window, [True] * 3)

        def backward() -> Any:  # the function that autograd calls, without its overhead
            if groups.is_uniform:
                return gradients(grad, x, weights[0], groups.n)
            parts = zip(grad.split(list(groups.out_sizes), 1), x.split(sizes, 1), weights, strict=True)
            of_x, of_weights, of_bias = zip(*(gradients(*part, 1) for part in parts), strict=True)
            return torch.cat(of_x, 1), of_weights, torch.cat(of_bias)

        return {"forward": inference, "backward": backward, "training": training}[what]

    return {"NCHW": make(torch.contiguous_format), "NHWC": make(torch.channels_last)}


def _jax(layer: Layer, dtype: str, what: str) -> Variants:
    import jax

    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    arrays, groups, p = operands(layer, dtype), layer.groups, layer.padding
    starts = [sum(groups.in_sizes[:g]) for g in range(groups.n + 1)]

    def make(letters: str) -> Call:
        channels = letters.index("C")
        order = [0, 1, 2, 3] if channels == 1 else [0, 2, 3, 1]

        def conv(x: Any, weight: Any, n: int) -> Any:
            return jax.lax.conv_general_dilated(
                x,
                weight,
                (layer.stride,) * 2,
                [(p, p)] * 2,
                dimension_numbers=(letters, "OIHW", letters),
                feature_group_count=n,
            )

        def forward(x: Any, weights: list[Any], bias: Any) -> Any:
            if groups.is_uniform:
                y = conv(x, weights[0], groups.n)
            else:
                parts = [
                    conv(jax.lax.slice_in_dim(x, starts[g], starts[g + 1], axis=channels), weight, 1)
                    for g, weight in enumerate(weights)
                ]
                y = jax.numpy.concatenate(parts, channels)
            return y + bias.reshape([-1 if axis == channels else 1 for axis in range(4)])

        def training(x: Any, weights: list[Any], bias: Any, grad: Any) -> Any:
            y, vjp = jax.vjp(forward, x, weights, bias)
            return y, vjp(grad)

        def backward(x: Any, weights: list[Any], bias: Any, grad: Any) -> Any:
            return training(x, weights, bias, grad)[1]  # the compiler omits the output, which no gradient needs

        x, grad = (jax.numpy.asarray(array.transpose(order)) for array in (arrays[0], arrays[3]))
        weights = [np.concatenate(arrays[1])] if groups.is_uniform else arrays[1]
        given = [x, list(map(jax.numpy.asarray, weights)), jax.numpy.asarray(arrays[2])]
        function = jax.jit({"forward": forward, "backward": backward, "training": training}[what])
        if what != "forward":
            given.append(grad)
        return lambda: jax.block_until_ready(function(*given))

    return {"NCHW": make("NCHW"), "NHWC": make("NHWC")}


def _onnxruntime(layer: Layer, dtype: str, what: str) -> Variants:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    x, weights, bias, _ = operands(layer, dtype)
    kind = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[dtype]
    attributes: dict[str, Any] = {"strides": [layer.stride] * 2, "pads": [layer.padding] * 4, "group": layer.groups.n}
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(np.concatenate(weights), "w"), onnx.numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = layer.threads or 0  # 0: the library chooses
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {"default": lambda: session.run(None, {"x": x})}


def _scipy(layer: Layer, dtype: str, what: str) -> Variants:
    from scipy.signal import correlate

    x, weights, bias, _ = operands(layer, dtype)
    groups, p, s = layer.groups, layer.padding, layer.stride
    lists = [(ins, out) for ins, outs in zip(groups.in_channels, groups.out_channels, strict=True) for out in outs]
    kernels = [kernel for weight in weights for kernel in weight]

    def forward() -> Any:
        padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        y = np.empty((layer.batch, layer.c_out, layer.output, layer.output), x.dtype)
        for n in range(layer.batch):
            for (ins, out), kernel in zip(lists, kernels, strict=True):
                image = padded[n, ins[0] : ins[-1] + 1]
                y[n, out] = correlate(image, kernel, "valid", "auto")[0, ::s, ::s] + bias[out]
        return y

    return {"auto": forward}


PEERS: dict[str, Callable[[Layer, str, str], Variants]] = {
    "refconv": _refconv,
    "textbook": functools.partial(_refconv, engine="textbook"),
    "torch": _torch,
    "jax": _jax,
    "onnxruntime": _onnxruntime,
    "scipy": _scipy,
}
"""Every peer on the CPU by name; "textbook" is refconv itself with its textbook engine."""

BACKENDS = ("numpy", *MODULES)
"""Where calls are timed: on the CPU, or on the GPU with refconv on arrays of CuPy or PyTorch."""
WORKSPACES = {"64 MiB": 2**26, "1 GiB": 2**30}
"""Variants of refconv on a GPU: the workspace of a call."""
_CUDNN = {"cudnn": False, "cudnn-tf32": True}
"""PyTorch's convolutions on a GPU, and whether their float32 operands are rounded to TF32."""

_PACKAGES = {"torch": "torch", "jax": "jax", "onnxruntime": "onnxruntime", "scipy": "scipy"}
_FORWARD_ONLY = ("onnxruntime", "scipy")
_OWN_THREADS = ("jax", "scipy")


def peers(backend: str) -> dict[str, Callable[[Layer, str, str], Variants]]:
    """Return the peers of a backend by name."""
    if backend == "numpy":
        return PEERS
    cudnn = {name: functools.partial(_cudnn, tf32) for name, tf32 in _CUDNN.items()}
    return {"refconv": functools.partial(_refconv_on, backend), **cudnn}


def clock(peer: str, backend: str) -> Clock:
    """Return the clock of a peer: on a GPU, that of its array module."""
    return wall_seconds if backend == "numpy" else find_gpu("torch" if peer in _CUDNN else backend).seconds


def can(peer: str, layer: Layer, dtype: str, what: str, backend: str = "numpy") -> str | None:
    """Return the reason why a peer cannot be timed on a layer here, or None if it can."""
    if backend != "numpy":
        if layer.threads is not None:
            return "it is timed on the GPU"
        try:
            clock(peer, backend)
        except GpuError as error:
            return str(error)
        return None
    package = _PACKAGES.get(peer)
    if package is not None and importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    if peer == "onnxruntime" and importlib.util.find_spec("onnx") is None:
        return "onnx is not installed"
    if layer.threads is not None and peer in _OWN_THREADS:
        return "its threads cannot be set"
    if layer.threads is not None and layer.threads > cores():
        return f"there are {cores()} cores"
    if peer in _FORWARD_ONLY and what != "forward":
        return "it has no gradients"
    if peer == "onnxruntime" and (dtype != "float32" or not layer.groups.is_uniform):
        return "it takes float32 and groups of one size"
    if peer == "scipy" and layer.macs > 10**8:
        return "it would take minutes"
    return None


def threads(peer: str, layer: Layer) -> AbstractContextManager[object]:
    """Return a context in which a peer uses the layer's number of threads; ONNX Runtime's session sets its own."""
    if layer.threads is not None and peer == "refconv":
        return set_workers(layer.threads)
    if layer.threads is not None and peer == "textbook":
        from threadpoolctl import threadpool_limits

        limits: AbstractContextManager[object] = threadpool_limits(layer.threads)
        return limits
    if layer.threads is not None and peer == "torch":
        import torch

        torch.set_num_threads(layer.threads)
    return nullcontext()
