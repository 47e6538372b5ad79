"""A GPU through CuPy or PyTorch: arrays there, the clock of its events, the peak of its memory pool."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from refconv.arrays import Array, load_backend
from refconv.bench.timing import Call

MODULES = ("cupy", "torch")
"""Names that :func:`find_gpu` accepts."""


class GpuError(Exception):
    """No GPU can be used; the message says why."""


@dataclass(frozen=True)
class Peak:
    """The peak of a memory pool during a call, beyond the memory in use before it.

    Attributes
    ----------
    used : int
        Bytes of arrays, including the result, rounded up as the pool does.
    reserved : int
        Bytes that the pool took from the device, after it had returned all free memory.
    """

    used: int
    reserved: int


class CupyGpu:
    """The current device of CuPy."""

    module = "cupy"

    def __init__(self) -> None:
        self.xp = load_backend("cupy")
        self._cupy = importlib.import_module("cupy")

    def asarray(self, array: Any) -> Array:
        """Return a NumPy array as an array on the device."""
        return self.xp.asarray(array)

    def seconds(self, call: Call) -> float:
        """Return the time between two events, recorded before and after a call."""
        begin, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(1e-3 * self._cupy.cuda.get_elapsed_time(begin, end))

    def peak(self, call: Call) -> Peak:
        """Return the memory peak of a call."""
        pool = self._cupy.get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.total_bytes()
        hook = _peak_hook(self._cupy.cuda.MemoryHook)
        with hook:
            call()
        return Peak(hook.peak, pool.total_bytes() - before)

    def free_bytes(self) -> int:
        """Return the free bytes of the device, after the pool has returned its unused memory."""
        pool = self._cupy.get_default_memory_pool()
        pool.free_all_blocks()
        return int(self._cupy.cuda.Device().mem_info[0])

    def card(self) -> dict[str, Any]:
        """Return a description of the device and the versions of CUDA's parts."""
        cuda = self._cupy.cuda
        found = cuda.runtime.getDeviceProperties(cuda.Device().id)
        return {
            "name": found["name"].decode(),
            "bytes": found["totalGlobalMem"],
            "capability": f"{found['major']}.{found['minor']}",
            "multiprocessors": found["multiProcessorCount"],
            "devices": cuda.runtime.getDeviceCount(),
            "driver": cuda.runtime.driverGetVersion(),
            "runtime": cuda.runtime.runtimeGetVersion(),
            "nvrtc": ".".join(map(str, cuda.nvrtc.getVersion())),
            "cublas": cuda.cublas.getVersion(cuda.device.get_cublas_handle()),
        }


def _peak_hook(base: Any) -> Any:
    """Return a CuPy memory hook whose `peak` is the maximum of the bytes allocated and not freed under it."""

    class PeakHook(base):  # type: ignore[misc]  # a class of CuPy, which mypy does not know
        name = "PeakHook"

        def __init__(self) -> None:
            self.live = self.peak = 0

        def malloc_postprocess(self, **given: Any) -> None:
            self.live += given["mem_size"]
            self.peak = max(self.peak, self.live)

        def free_postprocess(self, **given: Any) -> None:
            self.live -= given["mem_size"]

    return PeakHook()


class TorchGpu:
    """The current CUDA device of PyTorch."""

    module = "torch"

    def __init__(self) -> None:
        self.xp = load_backend("torch")
        self._torch = importlib.import_module("torch")
        if not self._torch.cuda.is_available():
            raise GpuError("PyTorch finds no CUDA device")

    def asarray(self, array: Any) -> Array:
        """Return a NumPy array as a tensor on the device."""
        return self.xp.asarray(array, device="cuda")

    def seconds(self, call: Call) -> float:
        """Return the time between two events, recorded before and after a call."""
        begin, end = (self._torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(1e-3 * begin.elapsed_time(end))

    def peak(self, call: Call) -> Peak:
        """Return the memory peak of a call."""
        cuda = self._torch.cuda
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()
        used, reserved = cuda.memory_allocated(), cuda.memory_reserved()
        call()
        return Peak(cuda.max_memory_allocated() - used, cuda.max_memory_reserved() - reserved)

    def free_bytes(self) -> int:
        """Return the free bytes of the device, after the pool has returned its unused memory."""
        self._torch.cuda.empty_cache()
        return int(self._torch.cuda.mem_get_info()[0])

    def card(self) -> dict[str, Any]:
        """Return a description of the device and the versions of CUDA's parts."""
        found = self._torch.cuda.get_device_properties(self._torch.cuda.current_device())
        return {
            "name": found.name,
            "bytes": found.total_memory,
            "capability": f"{found.major}.{found.minor}",
            "multiprocessors": found.multi_processor_count,
            "devices": self._torch.cuda.device_count(),
            "runtime": self._torch.version.cuda,
            "cudnn": self._torch.backends.cudnn.version(),
        }


Gpu = CupyGpu | TorchGpu


def find_gpu(module: str) -> Gpu:
    """Return the GPU of an array module.

    Raises
    ------
    GpuError
        If the module is not installed or finds no GPU.
    """
    try:
        return CupyGpu() if module == "cupy" else TorchGpu()
    except ImportError as error:  # a BackendError among them
        raise GpuError(str(error)) from error
