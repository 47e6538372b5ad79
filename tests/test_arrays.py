"""Array modules: the module of an array, and every fast path against its standard version."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from refconv import BackendError, array_namespace, load_backend, to_numpy
from refconv.arrays import matmul, on_gpu, reshaped_copy, windows, windows_standard

HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")


def test_numpy_is_the_default(monkeypatch):
    monkeypatch.delenv("REFCONV_BACKEND", raising=False)
    assert load_backend() is np
    assert load_backend("numpy") is np


def test_environment_variable_chooses(monkeypatch):
    monkeypatch.setenv("REFCONV_BACKEND", "array_api_strict")
    assert load_backend().__name__ == "array_api_strict"
    assert load_backend("numpy") is np  # a name given wins
    monkeypatch.setenv("REFCONV_BACKEND", "nunpy")
    with pytest.raises(ValueError, match=r"REFCONV_BACKEND='nunpy'.*numpy, cupy, torch, array_api_strict"):
        load_backend()


@pytest.mark.parametrize("name", ["", "NumPy", "jax", "os", "numpy.linalg"])
def test_unknown_name(name):
    with pytest.raises(ValueError, match="choose one of numpy, cupy"):
        load_backend(name)


@pytest.mark.parametrize("name", [1, np, b"numpy", ["numpy"], True])
def test_name_of_wrong_type(name):
    with pytest.raises(TypeError, match="name must be a string"):
        load_backend(name)


def test_missing_package_names_the_extra(monkeypatch):
    from refconv import arrays

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(arrays, "_namespace", missing)
    for name, extra in {
        "cupy": "pip install cupy-cuda13x or cupy-cuda12x (the extra cuda13 or cuda12, by CUDA's version), or use",
        "torch": "pip install torch (the extra torch), or use",
        "array_api_strict": "pip install array-api-strict (the extra strict), or use",
    }.items():
        with pytest.raises(BackendError) as caught:
            load_backend(name)
        assert extra in str(caught.value)
        assert "--backend numpy" in str(caught.value)


def fails(error, cause=None):
    """Return a function that raises an error."""

    def failing(*args, **options):
        raise error from cause

    return failing


class Compiled(np.ndarray):
    __add__ = fails(RuntimeError("a long story"), OSError("libnvrtc.so: cannot open shared object file"))


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        ({"getDeviceCount": fails(RuntimeError("cudaErrorNoDevice: 0"))}, r"no usable GPU \(cudaErrorNoDevice: 0"),
        ({"zeros": fails(MemoryError())}, r"no usable GPU \(MemoryError\)"),
        ({"zeros": lambda *_, **__: np.zeros(2).view(Compiled)}, r"compute on it \(libnvrtc\.so: .*cuda13"),
        ({"matmul": fails(ImportError("libcublas.so: missing\nsecond"))}, r"compute on it \(libcublas\.so: missing\): "
         r"install CUDA's toolkit, or with CuPy 14 pip install 'cupy-cuda13x\[ctk\]' \('cupy-cuda12x\[ctk\]' for"),
        ({"matmul": np.subtract}, r"compute on it \(ones times ones gave \[\[0\.0"),
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_compute_is_one_clear_error(monkeypatch, breaks, message):
    from refconv import arrays

    working = {"getDeviceCount": lambda: 1, "float32": np.float32, "zeros": np.zeros, "matmul": np.matmul}
    cupy = SimpleNamespace(**working | breaks, cuda=SimpleNamespace(runtime=SimpleNamespace(**working | breaks)))
    monkeypatch.setattr(arrays, "_require_gpu", arrays._require_gpu.__wrapped__)  # it caches a success
    monkeypatch.setattr(arrays, "_namespace", lambda name: cupy)
    with pytest.raises(BackendError, match=f"^backend 'cupy' .*{message}.*--backend numpy$"):
        load_backend("cupy")
    vars(cupy).update(working)
    cupy.cuda.runtime = cupy
    assert load_backend("cupy") is cupy


@pytest.mark.parametrize(
    "wrong", [None, 1, 1.0, np.float64(1), [1.0], "x", memoryview(b"x"), np.ma.masked_array([1.0]), object()]
)
def test_not_an_array(wrong):
    with pytest.raises(TypeError, match="argument 1 must be a dense array of numpy, cupy, torch or array_api_strict"):
        array_namespace(np.zeros(2), wrong)
    with pytest.raises(TypeError, match="dense array"):
        to_numpy(wrong)


def test_a_gpu_failure_is_not_taken_for_a_wrong_type(monkeypatch):
    from refconv import arrays

    monkeypatch.setattr(arrays, "_module_name", lambda array: "cupy")
    monkeypatch.setattr(arrays, "namespace_of", lambda named: None)
    with pytest.raises(RuntimeError, match=r"^cudaErrorIllegalAddress$"):
        to_numpy(SimpleNamespace(get=fails(RuntimeError("cudaErrorIllegalAddress"))))


def test_arrays_on_a_gpu():
    def like(module, name, device=None):
        return type(name, (), {"__module__": module, "device": SimpleNamespace(type=device)})()

    assert on_gpu(like("cupy", "ndarray"))
    assert on_gpu(like("torch", "Tensor", "cuda"))
    assert not on_gpu(like("torch", "Tensor", "cpu"))
    assert not any(on_gpu(load_backend(name).zeros(1)) for name in ("numpy", "array_api_strict"))


@pytest.mark.parametrize(("groups", "axes"), [(1, 2), (3, 3)])
def test_the_product_of_one_group_is_a_single_one(groups, axes):
    """CuPy copies no operand of a single product."""
    rng, seen = np.random.default_rng(0), []
    a, b = rng.integers(-9, 9, (groups, 2, 4)), rng.integers(-9, 9, (groups, 4, 5))

    def product(a, b):
        seen.append((a.ndim, b.ndim))
        return a @ b

    assert np.array_equal(matmul(SimpleNamespace(matmul=product), a, b), a @ b)
    assert seen == [(axes, axes)]


def test_no_arrays_at_all():
    with pytest.raises(TypeError, match="at least one"):
        array_namespace()


def test_two_modules():
    strict = load_backend("array_api_strict")
    with pytest.raises(
        TypeError, match="argument 0 is an array of numpy and argument 1 is an array of array_api_strict"
    ):
        array_namespace(np.zeros(2), strict.zeros(2))


def test_look_alike_of_an_immutable_module():
    class Array:
        shape, dtype = (2,), np.dtype("f8")

    Array.__module__ = "jaxlib._jax"
    with pytest.raises(TypeError, match=r"numpy, cupy, torch or array_api_strict; got jaxlib\._jax"):
        array_namespace(Array())


def test_subclasses_belong_to_their_module():
    assert array_namespace(np.zeros(3).view(np.recarray)) is np


@needs_torch
def test_torch_tensors():
    import torch

    xp = load_backend("torch")
    assert array_namespace(torch.zeros(2), torch.nn.Parameter(torch.zeros(2))) is xp
    with pytest.raises(TypeError, match="dense"):
        array_namespace(torch.zeros(2, 2).to_sparse())
    z = torch.tensor([1 + 2j, 3j], requires_grad=True)
    assert np.array_equal(to_numpy(torch.conj(z)), [1 - 2j, -3j])


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_strided_windows_equal_the_standard_ones(name, d):
    if name == "torch" and not HAS_TORCH:
        pytest.skip("PyTorch is not installed")
    xp = load_backend(name)
    rng = np.random.default_rng(d)
    for _ in range(50):
        kernel = tuple(int(k) for k in rng.integers(1, 4, d))
        stride = tuple(int(s) for s in rng.integers(1, 4, d))
        dilation = tuple(int(s) for s in rng.integers(1, 3, d))
        output = tuple(int(o) for o in rng.integers(1, 4, d))
        size = [
            (o - 1) * s + t * (k - 1) + 1 + int(rng.integers(0, 2))
            for o, s, t, k in zip(output, stride, dilation, kernel, strict=True)
        ]
        values = rng.integers(-9, 9, (2, 3, *size))
        x = xp.asarray(values)
        if name == "numpy":
            x = np.flip(np.asfortranarray(np.flip(values)))  # any strides, negative ones too
        fast = windows(xp, x, kernel, stride, dilation, output)
        standard = windows_standard(xp, x, kernel, stride, dilation, output)
        assert fast.shape == (2, 3, *kernel, *output)
        assert np.array_equal(to_numpy(fast), to_numpy(standard))
        point = tuple(int(rng.integers(0, n)) for n in fast.shape)
        where = tuple(point[2 + d + a] * stride[a] + point[2 + a] * dilation[a] for a in range(d))
        assert to_numpy(fast)[point] == values[(*point[:2], *where)]


def test_a_reshaped_copy_shares_no_memory(backend):
    xp = backend.xp
    x = xp.asarray([[1, 2, 3], [4, 5, 6]])
    copy = reshaped_copy(xp, x, (3, 2))
    x[0, 0] = 7
    assert to_numpy(copy).tolist() == [[1, 2], [3, 4], [5, 6]]


def test_windows_of_numpy_are_read_only():
    view = windows(np, np.zeros((1, 1, 5)), (2,), (1,), (1,), (4,))
    assert not view.flags.writeable


def test_command_line_error_without_a_gpu():
    if importlib.util.find_spec("cupy") is not None:
        pytest.skip("CuPy is installed")
    done = subprocess.run(
        [sys.executable, "-c", "import refconv; refconv.load_backend('cupy')"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("refconv.arrays.BackendError: backend 'cupy' needs")
