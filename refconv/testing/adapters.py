"""Convolutions of other libraries, each as a pair of functions for :func:`refconv.testing.check_conv`.

The libraries are imported when an adapter is made, not with this module. An adapter calls the library's own convolution
and automatic gradient and adds no features: `supports` omits everything that the library cannot do.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from refconv.integers import as_bool, as_int, padding_pairs
from refconv.testing.oracles.definition import Array

Grads = tuple[Any, Any, Any]
_STEPS = ("bias", "stride", "padding", "dilation", "groups")


class Adapter(NamedTuple):
    """One convolution of a library.

    Attributes
    ----------
    name : str
        Library and version.
    forward : callable
        ``forward(x, weight, bias, stride, padding, dilation, groups) -> y``; a transposed one also takes the keyword
        argument ``output_padding``.
    backward : callable or None
        ``backward(grad_output, x, weight, stride, padding, dilation, groups) -> (grad_x, grad_weight, grad_bias)``.
    supports : tuple of str
        Features of the library, as for :func:`refconv.testing.check_conv`.
    dtypes : tuple of str
        Data types that work, also in the backward pass.
    spatial_dims : int
        Number of spatial axes.
    transposed : bool
        Whether it is a transposed convolution.
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Grads] | None
    supports: tuple[str, ...]
    dtypes: tuple[str, ...]
    spatial_dims: int = 2
    transposed: bool = False

    def settings(self) -> dict[str, Any]:
        """Return this convolution's keyword arguments for :func:`refconv.testing.check_conv`.

        Examples
        --------
        >>> adapter = Adapter("example", max, None, ("stride",), ("float32",), spatial_dims=1)
        >>> adapter.settings()
        {'spatial_dims': 1, 'transposed': False, 'supports': ('stride',)}
        """
        return {"spatial_dims": self.spatial_dims, "transposed": self.transposed, "supports": self.supports}


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def torch_conv(spatial_dims: int = 2, transposed: bool = False, device: str = "cpu") -> Adapter:
    """Return ``torch.nn.functional.conv1d`` … ``conv3d`` or ``conv_transpose1d`` … ``3d``, with PyTorch's autograd.

    Arrays are passed with their strides and without a copy, except read-only arrays and negative strides, which
    PyTorch does not accept. TF32, which PyTorch allows in convolutions on a GPU by default, is switched off.

    Parameters
    ----------
    spatial_dims : int
        1, 2 or 3.
    transposed : bool
        Whether to return the transposed convolution.
    device : str
        The device to compute on, such as "cuda".

    Returns
    -------
    Adapter
        `supports` has no "asymmetric_padding", because PyTorch pads both ends equally. On a CPU, check_conv reports
        "real values" for float16 and complex64, because PyTorch rounds more often than the bounds allow; see
        ``docs/checking.md``.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    """
    spatial_dims = as_int(spatial_dims, "spatial_dims", 1, 3)
    transposed = as_bool(transposed, "transposed")
    torch = _load("torch", "torch_conv", "torch")
    function = getattr(torch.nn.functional, f"conv{'_transpose' if transposed else ''}{spatial_dims}d")

    def tensor(array: Array) -> Any:
        usable = array.flags.writeable and min(array.strides) >= 0
        return torch.from_numpy(array if usable else array.copy()).to(device)

    def numpy(result: Any) -> Array:
        array: Array = result.detach().resolve_conj().cpu().numpy()
        return array

    def call(leaves: Sequence[Any], steps: tuple[Any, ...], output_padding: Any) -> Any:
        options = dict(zip(("stride", "padding", "dilation", "groups"), steps, strict=True))
        if output_padding is not None:
            options["output_padding"] = output_padding
        return function(*leaves, **options)

    def forward(
        x: Array, weight: Array, bias: Array | None, stride: Any, padding: Any, dilation: Any, groups: int,
        output_padding: Any = None,
    ) -> Any:  # fmt: skip
        given = tensor(x), tensor(weight), None if bias is None else tensor(bias)
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return numpy(call(given, (stride, padding, dilation, groups), output_padding))

    def backward(
        grad_output: Array, x: Array, weight: Array, stride: Any, padding: Any, dilation: Any, groups: int,
        output_padding: Any = None,
    ) -> Grads:  # fmt: skip
        bias = np.zeros(grad_output.shape[1], x.dtype)  # its gradient does not depend on its values
        leaves = [tensor(a).detach().requires_grad_() for a in (x, weight, bias)]
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            y = call(leaves, (stride, padding, dilation, groups), output_padding)
            grad_x, grad_weight, grad_bias = torch.autograd.grad(y, leaves, tensor(grad_output))
        return numpy(grad_x), numpy(grad_weight), numpy(grad_bias)

    supports = (*_STEPS, "output_padding") if transposed else _STEPS
    dtypes = ("float16", "float32", "float64", "complex64", "complex128")
    return Adapter(f"PyTorch {torch.__version__}", forward, backward, supports, dtypes, spatial_dims, transposed)


# --- JAX -------------------------------------------------------------------------------------------------------------


def jax_conv(spatial_dims: int = 2, transposed: bool = False) -> Adapter:
    """Return ``jax.lax.conv_general_dilated`` or ``jax.lax.conv_transpose``, with the gradients of ``jax.vjp``.

    During a call, JAX computes in its highest precision (its default on a GPU or TPU is lower) and with 64-bit numbers
    enabled. JAX's convolutions have no bias, so it is added to the result. JAX's gradients of complex numbers are the
    conjugates of those in PyTorch and refconv; they are conjugated here. JAX compiles for every new shape, which takes
    about a third of a second. A default check therefore takes about five minutes, and a check with one axis and
    ``supports=()`` about one minute.

    Parameters
    ----------
    spatial_dims : int
        1 to 6.
    transposed : bool
        Whether to return the transposed convolution.

    Returns
    -------
    Adapter
        `supports` of the transposed convolution has no "groups", because ``jax.lax.conv_transpose`` has no groups.

    Raises
    ------
    ImportError
        If JAX is not installed.
    """
    spatial_dims = as_int(spatial_dims, "spatial_dims", 1, 6)
    transposed = as_bool(transposed, "transposed")
    jax = _load("jax", "jax_conv", "jax")

    def conv(x: Any, weight: Any, stride: Any, padding: Any, dilation: Any, groups: int, output_padding: Any) -> Any:
        pads: Any = padding_pairs(padding, spatial_dims)
        if not transposed:
            return jax.lax.conv_general_dilated(
                x, weight, stride, pads, rhs_dilation=dilation, feature_group_count=groups, precision="highest"
            )
        # JAX pads the inflated input. Padding by the kernel's reach gives the full output; our padding crops it.
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        extra = output_padding or (0,) * spatial_dims
        pads = [(r - b, r - a + e) for r, (b, a), e in zip(reach, pads, extra, strict=True)]
        letters = "DEFGHI"[:spatial_dims]
        names = ("NC" + letters, "OI" + letters, "NC" + letters)
        return jax.lax.conv_transpose(
            x, weight, stride, pads, rhs_dilation=dilation, dimension_numbers=names, transpose_kernel=True,
            precision="highest",
        )  # fmt: skip

    def biased(x: Any, weight: Any, bias: Any, *integers: Any) -> Any:
        y = conv(x, weight, *integers)
        return y if bias is None else y + bias.reshape(-1, *(1,) * spatial_dims)

    def pulled_back(g: Any, x: Any, weight: Any, bias: Any, *integers: Any) -> Any:
        # JAX's gradient belongs to Σ a·b. Conjugating g and the result gives the gradient for Σ conj(a)·b.
        grads = jax.vjp(lambda *leaves: biased(*leaves, *integers), x, weight, bias)[1](g.conj())
        return tuple(grad.conj() for grad in grads)

    # This compiles each pass once; without jit, JAX would compile every operation.
    compiled_forward = jax.jit(biased, static_argnums=tuple(range(3, 8)))
    compiled_backward = jax.jit(pulled_back, static_argnums=tuple(range(4, 9)))

    def forward(
        x: Array, weight: Array, bias: Array | None, stride: Any, padding: Any, dilation: Any, groups: int,
        output_padding: Any = None,
    ) -> Any:  # fmt: skip
        with _jax_x64(jax):
            return np.asarray(compiled_forward(x, weight, bias, stride, padding, dilation, groups, output_padding))

    def backward(
        grad_output: Array, x: Array, weight: Array, stride: Any, padding: Any, dilation: Any, groups: int,
        output_padding: Any = None,
    ) -> Grads:  # fmt: skip
        bias = np.zeros(grad_output.shape[1], x.dtype)  # its gradient does not depend on its values
        with _jax_x64(jax):
            grads = compiled_backward(grad_output, x, weight, bias, stride, padding, dilation, groups, output_padding)
            grad_x, grad_weight, grad_bias = (np.asarray(grad) for grad in grads)
        return grad_x, grad_weight, grad_bias

    supports: tuple[str, ...] = (*_STEPS, "asymmetric_padding")
    if transposed:
        supports = (*(word for word in supports if word != "groups"), "output_padding")
    dtypes = ("float16", "float32", "float64", "complex64", "complex128")
    return Adapter(f"JAX {jax.__version__}", forward, backward, supports, dtypes, spatial_dims, transposed)


def _jax_x64(jax: Any) -> Any:
    """Return the context in which JAX keeps 64-bit numbers."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return importlib.import_module("jax.experimental").enable_x64()  # before JAX 0.8


# --- ONNX Runtime ----------------------------------------------------------------------------------------------------


def onnxruntime_conv(spatial_dims: int = 2, transposed: bool = False) -> Adapter:
    """Return ONNX Runtime's ``Conv`` or ``ConvTranspose`` on the CPU; there is only a forward pass.

    Each problem is run as a model of that single operator, with the default graph optimizations.

    Parameters
    ----------
    spatial_dims : int
        1, 2 or 3.
    transposed : bool
        Whether to return the transposed convolution.

    Returns
    -------
    Adapter
        `backward` is None. `dtypes` are the data types for which ONNX Runtime has a CPU kernel. `supports` of the
        transposed convolution has no "output_padding", because ONNX Runtime refuses output padding of a stride or more,
        even if it is less than the dilation. `forward` accepts it nevertheless: add "output_padding" to `supports` and
        remove "dilation" to check the rest.

    Raises
    ------
    ImportError
        If onnxruntime or onnx, which writes the models, is not installed.
    """
    spatial_dims = as_int(spatial_dims, "spatial_dims", 1, 3)
    transposed = as_bool(transposed, "transposed")
    runtime = _load("onnxruntime", "onnxruntime_conv", "onnxruntime onnx")
    helper = _load("onnx.helper", "onnxruntime_conv", "onnxruntime onnx")
    operator = "ConvTranspose" if transposed else "Conv"

    @functools.lru_cache(maxsize=256)
    def session(dtype: str, bias: bool, **attributes: Any) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        ranks = {"x": spatial_dims + 2, "weight": spatial_dims + 2} | ({"bias": 1} if bias else {})
        given = [helper.make_tensor_value_info(name, kind, [None] * rank) for name, rank in ranks.items()]
        result = helper.make_tensor_value_info("y", kind, [None] * (spatial_dims + 2))
        node = helper.make_node(operator, list(ranks), ["y"], **attributes)
        graph = helper.make_graph([node], "convolution", given, [result])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # errors are raised anyway
        options.intra_op_num_threads = 1  # waking threads takes longer than these small problems
        return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def forward(
        x: Array, weight: Array, bias: Array | None, stride: Any, padding: Any, dilation: Any, groups: int,
        output_padding: Any = None,
    ) -> Any:  # fmt: skip
        pairs: Any = padding_pairs(padding, spatial_dims)
        attributes = {
            "strides": tuple(stride),
            "pads": (*(before for before, _ in pairs), *(after for _, after in pairs)),
            "dilations": tuple(dilation),
            "group": groups,
            "kernel_shape": weight.shape[2:],
        }
        if output_padding is not None:
            attributes["output_padding"] = tuple(output_padding)
        given = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
        (y,) = session(x.dtype.name, bias is not None, **attributes).run(None, given)
        return y

    supports = (*_STEPS, "asymmetric_padding")
    name = f"ONNX Runtime {runtime.__version__}"
    return Adapter(name, forward, None, supports, ("float16", "float32"), spatial_dims, transposed)


# --- Shared ----------------------------------------------------------------------------------------------------------


def _load(module: str, function: str, requirement: str) -> Any:
    """Import a library, or raise an error that says in one line what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{function} needs the package {package}: pip install {requirement} ({error})", name=package
        ) from error


__all__ = ["Adapter", "jax_conv", "onnxruntime_conv", "torch_conv"]
