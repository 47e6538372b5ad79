"""Array modules: the module that an array belongs to, and the few operations that differ between modules.

The mathematics of refconv is written once against ``xp``, a namespace of the array API standard
(https://data-apis.org/array-api/). This is the only file that imports
``array_api_compat``, and the only one that may treat one array module differently from another.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import math
import operator
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

Array = Any
"""An array of any supported module."""
Namespace = Any
"""An array module: the functions of the array API standard."""
DType = Any
"""A data type of some array module."""

P = ParamSpec("P")
R = TypeVar("R")

_INSTALL = {
    "numpy": "numpy",
    "cupy": "cupy-cuda13x or cupy-cuda12x (the extra cuda13 or cuda12, by CUDA's version)",
    "torch": "torch (the extra torch)",
    "array_api_strict": "array-api-strict (the extra strict)",
}
BACKENDS = tuple(_INSTALL)
"""Names that :func:`load_backend` accepts."""

_ITEM_BYTES = {
    "float16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
    "int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
}  # fmt: skip
DTYPES = tuple(_ITEM_BYTES)
"""Names of the data types that convolutions support."""


class BackendError(ImportError, RuntimeError):
    """An array module cannot be used here: its package is missing, or no device is found."""


@functools.cache
def _namespace(name: str) -> Namespace:
    """Import the array API namespace called `name`; NumPy and array_api_strict need no wrapper."""
    wrapped = {"cupy": "array_api_compat.cupy", "torch": "array_api_compat.torch"}
    return np if name == "numpy" else importlib.import_module(wrapped.get(name, name))


def load_backend(name: str | None = None) -> Namespace:
    """Return the array module called `name`, ready to use.

    Parameters
    ----------
    name : {"numpy", "cupy", "torch", "array_api_strict"}, optional
        Default: the environment variable ``REFCONV_BACKEND``, or NumPy if it is not set.

    Returns
    -------
    xp : module
        The module's namespace in the form of the array API standard.

    Raises
    ------
    ValueError
        If no backend has that name.
    BackendError
        If its package is missing, no device is found, or CuPy cannot compute on it because a CUDA library is missing.
        The message says what to install or which flag to use.

    Examples
    --------
    >>> from refconv import load_backend
    >>> xp = load_backend("numpy")
    >>> xp.sum(xp.ones((2, 3)))
    np.float64(6.0)
    """
    source = "name"
    if name is None:
        source = "REFCONV_BACKEND"
        name = os.environ.get(source) or "numpy"
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, one of {', '.join(BACKENDS)}; got {type(name).__name__}")
    if name not in BACKENDS:
        raise ValueError(f"{source}={name!r} is not an array module; choose one of {', '.join(BACKENDS)}")
    try:
        xp = _namespace(name)
    except ImportError as error:
        raise BackendError(
            f"backend {name!r} needs a package that is missing ({_reason(error)}): pip install {_INSTALL[name]}, "
            "or use --backend numpy"
        ) from error
    if name == "cupy":
        _require_gpu(xp)
    return xp


@functools.cache
def _require_gpu(xp: Namespace) -> None:
    """Compute a sum and a matrix product on the GPU, for which CuPy must load its libraries, NVRTC and cuBLAS."""
    try:
        xp.cuda.runtime.getDeviceCount()
        zeros = xp.zeros((2, 2), dtype=xp.float32)
    except Exception as error:  # CuPy raises several classes of its own; each means that no GPU can be used
        raise BackendError(
            f"backend 'cupy' is installed but finds no usable GPU ({_reason(error)}): use --backend numpy"
        ) from error
    try:
        ones = zeros + 1
        found = xp.matmul(ones, ones).tolist()
        if found != [[2, 2], [2, 2]]:
            raise ArithmeticError(f"ones times ones gave {found}")
    except Exception as error:
        raise BackendError(
            f"backend 'cupy' finds a GPU but cannot compute on it ({_reason(error)}): install CUDA's toolkit, or with "
            "CuPy 14 pip install 'cupy-cuda13x[ctk]' ('cupy-cuda12x[ctk]' for CUDA 12), or use --backend numpy"
        ) from error


def _reason(error: Exception) -> str:
    """Return the first line of an error or of its cause, which CuPy's own messages put last."""
    cause = error.__cause__ or error
    return str(cause).partition("\n")[0] or type(cause).__name__


def _module_name(array: Array) -> str | None:
    """Return the name of the supported module that `array` belongs to, or None."""
    if type(array) is np.ndarray:
        return "numpy"
    if isinstance(array, np.ndarray):
        # By name: accessing np.ma runs an import, and a fork during it would leave the child with a held lock.
        masked = any(cls.__name__ == "MaskedArray" for cls in type(array).__mro__)
        return None if masked else "numpy"
    for cls in type(array).__mro__:  # a subclass, such as torch.nn.Parameter, counts as its base class
        module = cls.__module__.partition(".")[0]
        if (module, cls.__name__) in {
            ("torch", "Tensor"),
            ("cupy", "ndarray"),
            ("array_api_strict", "Array"),
        }:
            return module
    return None


def array_namespace(*arrays: Array) -> Namespace:
    """Return the array module that all `arrays` belong to.

    Parameters
    ----------
    *arrays : array
        One or more arrays of NumPy, CuPy, PyTorch or array_api_strict.

    Returns
    -------
    xp : module
        Their namespace in the form of the array API standard.

    Raises
    ------
    TypeError
        If an argument is not such an array (a list, a scalar, a masked or sparse array, an immutable array
        such as JAX's), or if the arrays belong to two modules.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import array_namespace
    >>> array_namespace(np.zeros(3), np.ones(2)) is np
    True
    """
    return _namespace(module_of({f"argument {i}": array for i, array in enumerate(arrays)}))


def namespace_of(named: Mapping[str, Array]) -> Namespace:
    """Return the module of arrays given by argument name, so that an error can say which one is wrong.

    Raises
    ------
    TypeError
        As for :func:`array_namespace`.
    ValueError
        If the arrays are on two devices.
    """
    module = module_of(named)
    if module != "numpy":
        first, *others = named
        for other in others:
            if device(named[other]) != device(named[first]):
                owners = f"{first} is on {device(named[first])} and {other} on {device(named[other])}"
                raise ValueError(f"all arrays must be on one device, but {owners}")
    return _namespace(module)


def module_of(named: Mapping[str, Array]) -> str:
    """Return the name of the module that all arrays, given by argument name, belong to, on any devices."""
    found: dict[str, str] = {}
    for label, array in named.items():
        module = _module_name(array)
        if module is None or (module == "torch" and (array.is_nested or str(array.layout) != "torch.strided")):
            kind = f"{type(array).__module__}.{type(array).__qualname__}".removeprefix("builtins.")
            remedy = f": write numpy.asarray({label})" if isinstance(array, list | tuple) else ""
            raise TypeError(f"{label} must be a dense array of {_or(BACKENDS)}; got {kind}{remedy}")
        found.setdefault(module, label)
    if not found:
        raise TypeError("array_namespace needs at least one array")
    if len(found) > 1:
        owners = " and ".join(f"{label} is an array of {module}" for module, label in found.items())
        raise TypeError(f"all arrays must belong to one module, but {owners}")
    return next(iter(found))


def _or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """Return `array` as a NumPy array, copied from the GPU or detached from a gradient graph where necessary.

    On the CPU the result may share memory with `array`.

    Parameters
    ----------
    array : array
        An array of any supported module.

    Returns
    -------
    numpy.ndarray
        The same values.

    Raises
    ------
    TypeError
        If `array` is not an array of a supported module.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import to_numpy
    >>> to_numpy(np.arange(3))
    array([0, 1, 2])
    """
    namespace_of({"array": array})
    module = _module_name(array)
    try:
        if module == "torch":
            array = array.detach().cpu().resolve_conj().resolve_neg().numpy()
        elif module == "cupy":
            array = array.get()
        elif module == "array_api_strict":
            array = array.to_device(_namespace(module).Device("CPU_DEVICE"))
        return np.asarray(array)
    except (TypeError, NotImplementedError) as error:  # a bfloat16 or meta tensor; a GPU raises other errors
        raise TypeError(
            f"array must have values that NumPy can represent; got {dtype_of(array)} on device {device(array)}"
        ) from error


def dtype_name(dtype: DType) -> str:
    """Return the array API standard's name of any module's data type, such as ``"float32"``; keep a name unchanged.

    >>> dtype_name(np.float32), dtype_name(np.dtype(">f8")), dtype_name("int8")
    ('float32', 'float64', 'int8')
    """
    if isinstance(dtype, str):
        return dtype
    if isinstance(dtype, np.dtype | type):
        return _numpy_name(dtype)
    return str(dtype).rpartition(".")[2]


@functools.lru_cache(maxsize=256)
def _numpy_name(dtype: DType) -> str:
    return str(np.dtype(dtype).name)  # NumPy recomputes it at every access, which takes microseconds


def dtype_of(array: Array) -> str:
    """Return the name of an array's data type."""
    dtype = array.dtype
    return _numpy_name(dtype) if isinstance(dtype, np.dtype) else dtype_name(dtype)


def get_dtype(xp: Namespace, name: str) -> DType:
    """Return the data type called `name` of module `xp`."""
    dtype = getattr(xp, name, None)
    if dtype is None:
        raise TypeError(f"{_title(xp)} has no data type {name}")
    return dtype


def index_dtype(xp: Namespace) -> DType:
    """Return the data type of indices: 32-bit NumPy, as in a browser, does not accept int64."""
    return np.intp if xp is np else xp.int64


def check_dtype(name: str, array: Array, others: Iterable[Array] = ()) -> str:
    """Return the name of an array's data type, or raise TypeError if convolutions do not support it.

    For an array of bools the message suggests the first supported data type of `others`, or else uint8.
    """
    dtype = dtype_of(array)
    if dtype not in DTYPES:
        like = next(filter(DTYPES.__contains__, map(dtype_of, others)), "uint8")
        remedy = f": write {converted(name, array, like)}" if dtype == "bool" else ""
        raise TypeError(f"{name} must have one of the data types {', '.join(DTYPES)}; got {dtype}{remedy}")
    return dtype


def converted(name: str, array: Array, dtype: str) -> str:
    """Return the code that converts an array called `name` to a data type, for messages.

    >>> converted("x", np.ones(1), "float32")
    "x.astype('float32')"
    """
    if hasattr(array, "astype"):
        return f"{name}.astype({dtype!r})"
    return f"{name}.to(torch.{dtype})" if hasattr(array, "to") else f"xp.astype({name}, xp.{dtype})"


def common_dtype(*names: str) -> str:
    """Return the smallest data type that represents all values of the given ones, by NumPy's rules.

    >>> common_dtype("int8", "uint8"), common_dtype("float16", "float32")
    ('int16', 'float32')
    """
    return np.result_type(*names).name


def accumulating_dtype(xp: Namespace, name: str) -> str:
    """Return the data type to sum in: half precision is summed in single."""
    return "float32" if name == "float16" else computing_dtype(xp, name)


def native_dtype(xp: Namespace, array: Array) -> Any:
    """Return the array's data type in the machine's byte order."""
    return getattr(xp, dtype_of(array))


def item_bytes(name: str) -> int:
    """Return the size in bytes of one element of the data type called `name`."""
    return _ITEM_BYTES[name]


def dtype_kind(name: str) -> str:
    """Return "integer", "real" or "complex" for the name of a data type.

    >>> dtype_kind("uint8"), dtype_kind("float16"), dtype_kind("complex64")
    ('integer', 'real', 'complex')
    """
    return {"f": "real", "c": "complex"}.get(name[0], "integer")


def device(array: Array) -> Any:
    """Return the device that an array is on, for the ``device=`` argument of its module's functions."""
    return array.device


def reshaped_copy(xp: Namespace, array: Array, shape: tuple[int, ...]) -> Array:
    """Return `array` in another shape, in new memory."""
    if xp is np:  # whose reshape has no `copy` before version 2.1
        return array.copy().reshape(shape)
    return xp.reshape(array, shape, copy=True)


def check_device(xp: Namespace, place: Any) -> None:
    """Refuse a device, the ``device=`` argument of a function of `xp`, unless the module makes an array on it."""
    try:
        if isinstance(place, bool | float):  # which CuPy would take as the number of a device
            raise TypeError(f"a {type(place).__name__} is not a device")
        xp.asarray(np.zeros(0), device=place)
    except Exception as error:  # each module raises other classes
        raise ValueError(f"device must be a device of {_title(xp)}; got {place!r} ({_reason(error)})") from error


def _title(xp: Namespace) -> str:
    """Return the name of a module."""
    return str(xp.__name__.removeprefix("array_api_compat."))


def on_device(array: Array) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which the array's device is the current one.

    CuPy computes on the current device, with arrays of that device only; other modules use the device of the arrays.
    """
    return array.device if _module_name(array) == "cupy" else contextlib.nullcontext()


def on_their_device(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` with the device of its first array as the current one while it runs: see :func:`on_device`."""

    @functools.wraps(function)
    def entered(*args: P.args, **options: P.kwargs) -> R:
        if "cupy" in sys.modules:
            for argument in (*args, *options.values()):
                if type(argument) is not np.ndarray and _module_name(argument) == "cupy":
                    with on_device(argument):
                        return function(*args, **options)
        return function(*args, **options)

    return entered


def on_gpu(array: Array) -> bool:
    """Return whether an array is in the memory of a GPU."""
    if isinstance(array, np.ndarray):
        return False
    module = _module_name(array)
    return module == "cupy" or (module == "torch" and array.device.type != "cpu")


def plain(array: Array) -> Array:
    """Return a NumPy array as its base class, since a subclass may index differently; return other arrays unchanged."""
    return np.asarray(array) if isinstance(array, np.ndarray) else array


def moved(array: Array, like: Array) -> Array:
    """Return a NumPy array as an array of the module and device of `like`; return any other array unchanged.

    No value is changed: a data type that the module lacks is a TypeError.
    """
    xp = array_namespace(like)
    if xp is np or _module_name(array) != "numpy":
        return array
    get_dtype(xp, dtype_of(array))
    # A copy in the machine's byte order, because modules may share writable memory or refuse strides and byte orders.
    return xp.asarray(np.array(array, dtype_of(array), order="C"), device=device(like))


def conj(xp: Namespace, array: Array) -> Array:
    """Return the complex conjugate; a real array is returned unchanged."""
    if dtype_kind(dtype_of(array)) != "complex":
        return array
    conjugate = xp.conj(array)
    resolve = getattr(conjugate, "resolve_conj", None)  # PyTorch conjugates lazily; windows need the values
    return conjugate if resolve is None else resolve()


def matmul(xp: Namespace, a: Array, b: Array, *, out: Array = None) -> Array:
    """Return the matrix product a·b of the last two axes, batched over the first; `out` works on NumPy only.

    NumPy's warning about invalid values is silenced: vectorised products also raise it for correct results, and other
    modules never raise it. A result that is NaN stays NaN.
    """
    if xp is np:
        with np.errstate(invalid="ignore"):
            return np.matmul(a, b, out=out)
    if a.ndim == b.ndim == 3 and a.shape[0] == b.shape[0] == 1:
        # CuPy copies transposed operands of a batch of products, but not of a single product.
        return xp.matmul(a[0, ...], b[0, ...])[None, ...]
    return xp.matmul(a, b)


def add_to(xp: Namespace, total: Array, more: Array, where: Any = ...) -> None:
    """Add to `total`, or to the part `where`, in place; warnings are silenced as in :func:`matmul`."""
    if xp is np:
        with np.errstate(invalid="ignore"):
            total[where] += more
    else:
        total[where] += more


def sum_axis(
    xp: Namespace, array: Array, axis: int | tuple[int, ...], *, dtype: DType = None, keepdims: bool = False
) -> Array:
    """Sum over axes, by default in the array's own data type; warnings are silenced as in :func:`matmul`."""
    dtype = array.dtype if dtype is None else dtype
    if xp is np:
        with np.errstate(invalid="ignore"):
            total: Array = np.add.reduce(array, axis=axis, dtype=dtype, keepdims=keepdims)  # type: ignore[call-overload]
            return total
    return xp.sum(array, axis=axis, dtype=dtype, keepdims=keepdims)


def all_finite(array: Array) -> bool:
    """Return whether a NumPy array contains neither infinities nor NaNs."""
    return dtype_kind(dtype_of(array)) == "integer" or bool(np.isfinite(array).all())


def may_have_nan(xp: Namespace, array: Array) -> bool:
    """Return whether a real array may contain NaNs: always True except on NumPy, since checking would wait."""
    return xp is not np or bool(np.isnan(array).any())


def masked(xp: Namespace, array: Array, kept: Array) -> Array:
    """Return `array` where `kept` is true, else 0.

    NumPy's ``where`` branches at every element; a product is several times faster, but 0·∞ would be NaN.
    """
    if xp is np and all_finite(array):
        return np.multiply(array, kept)
    return xp.where(kept, array, xp.zeros_like(array))


def computing_dtype(xp: Namespace, name: str) -> str:
    """Return a data type that `xp` can multiply and add, and that wraps or rounds like the one called `name`.

    PyTorch stores wide unsigned integers but does not multiply them; signed 64-bit integers have the same low bits.
    """
    if xp.__name__.endswith("torch") and name in ("uint16", "uint32", "uint64"):
        return "int64"
    return name


def is_numpy(xp: Namespace) -> bool:
    """Return whether a namespace is NumPy's."""
    return xp is np


def windows(
    xp: Namespace,
    x: Array,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    output: Sequence[int],
) -> Array:
    """Return every window of `x`: element [n, c, t, o] is x[n, c, o·stride + t·dilation].

    (N, C, P1, …, Pd) -> (N, C, k1, …, kd, o1, …, od). Where the module has strided arrays this is a
    read-only view and nothing is copied.
    """
    if 0 in x.shape:  # no element to read; some modules refuse to stride over empty memory
        return xp.empty((*x.shape[:2], *kernel, *output), dtype=x.dtype, device=device(x))
    name = xp.__name__.rpartition(".")[2]
    if name == "array_api_strict":
        return windows_standard(xp, x, kernel, stride, dilation, output)
    shape = (*x.shape[:2], *kernel, *output)
    steps = x.stride() if name == "torch" else x.strides
    spatial = steps[2:]
    strides = (*steps[:2], *map(operator.mul, spatial, dilation), *map(operator.mul, spatial, stride))
    if name == "torch":
        return x.as_strided(shape, strides)
    if name == "numpy":
        return strided(x, shape, strides)
    return xp.lib.stride_tricks.as_strided(x, shape, strides)


def strided(x: Array, shape: Sequence[int], strides: Sequence[int]) -> Array:
    """Return a read-only view of a NumPy array's memory."""
    if x.flags.c_contiguous:  # much faster, and checked against the bounds of the memory
        return np.ndarray(shape, x.dtype, memoryview(x).toreadonly(), strides=strides)
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


def windows_standard(
    xp: Namespace,
    x: Array,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    output: Sequence[int],
) -> Array:
    """Return the same as :func:`windows` with standard functions alone: one strided slice per kernel tap."""
    taps = [x[(..., *where)] for _, where in tap_slices(kernel, stride, dilation, output)]
    stacked = xp.stack(taps, axis=2)  # (N, C, k1·…·kd, o1, …, od)
    return xp.reshape(stacked, (*x.shape[:2], *kernel, *output))


def tap_slices(
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], output: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Return, for each kernel tap in row-major order, its index and the slices of the padded input that it reads."""
    axes = [
        [slice(t * d, t * d + (o - 1) * s + 1, s) for t in range(k)]
        for k, s, d, o in zip(kernel, stride, dilation, output, strict=True)
    ]
    taps = itertools.product(*map(range, kernel))
    return [(tap, tuple(axis[t] for axis, t in zip(axes, tap, strict=True))) for tap in taps]


def elements(shape: Sequence[int]) -> int:
    """Return the number of elements of an array of this shape."""
    return math.prod(shape)
