"""Measurements on a GPU, tested without one: small fakes replace CuPy and PyTorch, or NumPy replaces the GPU."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from refconv.arrays import BackendError
from refconv.bench import gpu, peers, run, worker
from refconv.bench.gpu import GpuError, Peak, TorchGpu, find_gpu
from refconv.bench.peers import can
from refconv.bench.roofs import gpu_roofs
from refconv.bench.run import Settings, run_bench
from refconv.bench.workloads import WORKLOADS, Layer
from refconv.settings import workspace
from tests import helpers
from tests.helpers import run_command
from tests.test_bench import LAYERS, ROOFS, expected, flat


class NumpyGpu:
    """NumPy in place of a GPU: every call takes a second, and its peak is a fixed number of bytes."""

    module, xp = "cupy", np

    def asarray(self, array: Any) -> Any:
        return np.asarray(array)

    def seconds(self, call: Any) -> float:
        call()
        return 1.0

    def peak(self, call: Any) -> Peak:
        call()
        return Peak(2**20, 2**21)

    def free_bytes(self) -> int:
        return 2**30

    def card(self) -> dict[str, Any]:
        return {"name": "NumPy", "bytes": 2**30}


@pytest.fixture
def numpy_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gpu, peers, run):
        monkeypatch.setattr(module, "find_gpu", lambda name: NumpyGpu())


class Event:
    """An event of either module, on a device whose clock ticks once per recorded event."""

    ticks = 0

    def record(self) -> None:
        Event.ticks += 1
        self.tick = Event.ticks
        self.waited_for = False

    def synchronize(self) -> None:
        self.waited_for = True

    def elapsed_time(self, end: Event) -> float:
        assert end.waited_for
        return 250.0 * (end.tick - self.tick)


class MemoryHook:
    """CuPy's base class of hooks: the active hook sees every allocation of the pool."""

    active: Any = None

    def __enter__(self) -> MemoryHook:
        MemoryHook.active = self
        return self

    def __exit__(self, *_: object) -> None:
        MemoryHook.active = None


class Pool:
    """A pool that keeps freed memory until `free_all_blocks`."""

    def __init__(self) -> None:
        self.live, self.total = 512, 4096

    def total_bytes(self) -> int:
        return self.total

    def free_all_blocks(self) -> None:
        self.total = self.live

    def take(self, size: int) -> None:
        self.live += size
        self.total = max(self.total, self.live)
        MemoryHook.active.malloc_postprocess(size=size - 1, mem_size=size, mem_ptr=0, device_id=0, pmem_id=0)

    def give(self, size: int) -> None:
        self.live -= size
        MemoryHook.active.free_postprocess(mem_size=size, mem_ptr=0, device_id=0, pmem_id=0)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    pool = Pool()
    properties = {
        "name": b"A Card", "totalGlobalMem": 2**34, "major": 9, "minor": 0, "multiProcessorCount": 132
    }  # fmt: skip
    runtime = SimpleNamespace(
        getDeviceProperties=lambda device: properties,
        getDeviceCount=lambda: 2,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13020,
    )
    module = SimpleNamespace(
        get_default_memory_pool=lambda: pool,
        pool=pool,
        cuda=SimpleNamespace(
            Event=Event,
            get_elapsed_time=Event.elapsed_time,
            MemoryHook=MemoryHook,
            Device=lambda: SimpleNamespace(id=0, mem_info=(5000 - pool.total, 2**34)),
            runtime=runtime,
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
            cublas=SimpleNamespace(getVersion=lambda handle: 130000 + handle),
            device=SimpleNamespace(get_cublas_handle=lambda: 7),
        ),
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(gpu, "load_backend", lambda name: np)
    return module


def test_cupys_events_are_the_clock(cupy: Any) -> None:
    calls: list[int] = []
    assert find_gpu("cupy").seconds(lambda: calls.append(1)) == 0.25
    assert calls == [1]


def test_the_peak_of_cupys_pool_is_what_a_call_adds(cupy: Any) -> None:
    def call() -> None:
        cupy.pool.take(1024)
        cupy.pool.take(2048)
        cupy.pool.give(1024)
        cupy.pool.take(512)

    found = find_gpu("cupy")
    assert found.peak(call) == Peak(used=3072, reserved=3072)
    assert found.free_bytes() == 5000 - 512 - 2560


def test_the_card_is_described(cupy: Any) -> None:
    found = find_gpu("cupy").card()
    assert (found["name"], found["capability"], found["bytes"], found["devices"]) == ("A Card", "9.0", 2**34, 2)
    assert (found["driver"], found["runtime"], found["nvrtc"], found["cublas"]) == (13000, 13020, "13.0", 130007)


def fake_torch(available: bool = True) -> Any:
    state = {"live": 100, "most": 900, "reserved": 300}

    def reset() -> None:
        state["most"] = state["live"]

    properties = SimpleNamespace(name="A Card", total_memory=2**34, major=9, minor=0, multi_processor_count=132)
    cuda = SimpleNamespace(
        is_available=lambda: available,
        Event=lambda enable_timing: Event() if enable_timing else None,
        empty_cache=lambda: state.update(reserved=200),
        reset_peak_memory_stats=reset,
        memory_allocated=lambda: state["live"],
        memory_reserved=lambda: state["reserved"],
        max_memory_allocated=lambda: state["most"],
        max_memory_reserved=lambda: state["reserved"],
        mem_get_info=lambda: (1000 - state["reserved"], 1000),
        get_device_properties=lambda device: properties,
        current_device=lambda: 0,
        device_count=lambda: 1,
    )
    version = SimpleNamespace(cuda="13.0")
    backends = SimpleNamespace(cudnn=SimpleNamespace(version=lambda: 91002))
    return SimpleNamespace(cuda=cuda, version=version, backends=backends, state=state)


def test_pytorchs_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = fake_torch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(gpu, "load_backend", lambda name: SimpleNamespace(asarray=lambda array, device: device))
    found = find_gpu("torch")
    assert isinstance(found, TorchGpu)
    assert found.asarray(np.ones(1)) == "cuda"
    assert found.seconds(lambda: None) == 0.25
    assert found.peak(lambda: torch.state.update(most=max(450, torch.state["most"]), reserved=640)) == Peak(350, 440)
    assert found.free_bytes() == 800
    card = found.card()
    assert (card["name"], card["capability"], card["runtime"], card["cudnn"]) == ("A Card", "9.0", "13.0", 91002)


def test_no_gpu_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise BackendError(f"backend {name!r} is installed but finds no usable GPU")

    monkeypatch.setattr(gpu, "load_backend", missing)
    with pytest.raises(GpuError, match="backend 'cupy' is installed but finds no usable GPU"):
        find_gpu("cupy")
    monkeypatch.setattr(gpu, "load_backend", lambda name: np)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(available=False))
    with pytest.raises(GpuError, match="PyTorch finds no CUDA device"):
        find_gpu("torch")


# --- The backend of the tests -----------------------------------------------------------------------------------------


class Tensor:
    """A tensor with nothing but a device."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def to(self, device: str) -> Tensor:
        return Tensor(device)


def test_tests_put_pytorchs_tensors_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    default: list[str] = []

    @contextlib.contextmanager
    def device(name: str) -> Iterator[None]:
        default.append(name)
        yield

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(from_numpy=lambda array: Tensor()))
    for name, where, named in (("torch", "cpu", []), ("torch_cuda", "cuda", ["cuda"])):
        backend = helpers.Backend(name, SimpleNamespace(device=device), Tensor)
        assert backend.asarray(np.ones(1)).device == where
        assert backend.module == "torch"
        with backend.by_default():
            assert default == named


def test_tests_need_a_gpu_for_pytorchs_tensors_there(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    cuda = SimpleNamespace(is_available=lambda: bool(threads))
    xp = SimpleNamespace(zeros=lambda shape: Tensor(), cuda=cuda, set_num_threads=threads.append)
    monkeypatch.setitem(sys.modules, "array_api_compat.torch", xp)
    with pytest.raises(helpers.Missing, match="backend torch_cuda finds no device"):
        helpers.load("torch_cuda")
    assert helpers.load("torch").name == "torch"
    assert helpers.load("torch_cuda").name == "torch_cuda"  # now there is one


# --- refconv bench ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_refconv_on_a_gpu_computes_the_same_in_each_workspace(
    layer: Layer, numpy_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import refconv

    found: list[int] = []
    conv = refconv.conv
    monkeypatch.setattr(refconv, "conv", lambda *args, **more: found.append(workspace.get()) or conv(*args, **more))
    right = expected(layer)
    for call in peers.peers("cupy")["refconv"](layer, "float64", "training").values():
        y, grads = call()
        wanted = [right["y"], right["x"], *right["weight"], right["bias"]]
        for actual, value in zip(flat([y, *grads]), wanted, strict=True):
            np.testing.assert_allclose(actual, value, rtol=1e-9, atol=1e-11)
    assert set(found) == {2**26, 2**30}


@pytest.mark.parametrize("tf32", [False, True])
def test_cudnn_is_pytorch_with_its_best_algorithm(tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn, matmul = SimpleNamespace(), SimpleNamespace()
    backends = SimpleNamespace(cudnn=cudnn, cuda=SimpleNamespace(matmul=matmul))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(backends=backends))
    on: list[str] = []
    monkeypatch.setattr(peers, "_torch", lambda layer, dtype, what, device: on.append(device) or {})
    name = "cudnn-tf32" if tf32 else "cudnn"
    peers.peers("torch")[name](LAYERS[0], "float32", "forward")
    assert on == ["cuda"]
    assert (cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32) == (tf32, True, tf32)


def test_what_cannot_be_timed_on_a_gpu_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> Any:
        raise GpuError(f"{name} finds no GPU")

    monkeypatch.setattr(peers, "find_gpu", none)
    assert can("refconv", LAYERS[0], "float32", "training", "cupy") == "cupy finds no GPU"
    assert can("cudnn", LAYERS[0], "float32", "training", "cupy") == "torch finds no GPU"
    assert can("refconv", WORKLOADS["threads"][0], "float32", "training", "cupy") == "it is timed on the GPU"
    monkeypatch.setattr(peers, "find_gpu", lambda name: NumpyGpu())
    assert can("cudnn-tf32", LAYERS[0], "float32", "training", "cupy") is None


def test_a_gpu_is_timed_by_its_own_clock(numpy_gpu: None) -> None:
    found = worker.measure("refconv", "small", "cupy", "float32", "forward", 0.01)
    assert found["1×3×8×8"]["variants"] == {"64 MiB": 1.0, "1 GiB": 1.0}
    assert found["1×3×8×8"]["seconds"] == 1.0


def test_the_roofs_of_a_gpu() -> None:
    found = gpu_roofs(NumpyGpu(), "float32", 0.0, side=8, copied=1000)  # type: ignore[arg-type]
    assert found == {"gflops": 2e-9 * 8**3, "gigabytes_per_second": 2e-9 * 1000}


@pytest.mark.long
def test_a_record_names_the_gpu_and_its_peers(numpy_gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def measured(peer: str, workload: str, settings: Settings) -> dict[str, Any]:
        return {"1×3×8×8": {"seconds": {"refconv": 3.0}.get(peer, 2.0), "variant": "1 GiB"}}

    monkeypatch.setattr(run, "_measure", measured)
    monkeypatch.setattr(run, "_roofs", lambda settings: ROOFS)
    record = run_bench(Settings(("small",), rounds=1, patience=0.0, backend="cupy"))
    assert record["gpu"]["name"] == "NumPy"
    assert [(result["peer"], result["ratio"]) for result in record["results"]] == [
        ("refconv", 1.0), ("cudnn", 1.5), ("cudnn-tf32", 1.5)
    ]  # fmt: skip
    pages = helpers.script("docs/make_benchmarks.py")
    record["versions"] = {"python": "3.11.15", "numpy": "2.4.6", "cupy-cuda13x": "14.2.0"}
    table = pages.table(record)
    assert ", NumPy; cupy-cuda13x 14.2.0. `refconv bench small" in table
    assert "--backend cupy --patience 0`" in table
    assert pages.peers_of(record) == ["refconv", "cudnn", "cudnn-tf32"]
    assert [pages.style(peer)["label"] for peer in pages.peers_of(record)] == pages.peers_of(record)
    monkeypatch.setattr("refconv.cli.bench.load_backend", lambda name: None)
    code, out, _ = run_command(capsys, "bench", "small", "--backend", "cupy", "--rounds", "1", "--patience", "0")
    assert code == 0
    assert "small on NumPy (cupy), float32, training" in " ".join(out.split())
    assert "1.50" in out


def test_processes_are_told_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, ...]] = []
    monkeypatch.setattr(run, "run", lambda failure, *arguments, stderr: given.append(arguments))
    settings = Settings(backend="torch", what="forward")
    run._measure("cudnn", "small", settings)
    run._roofs(settings)
    assert given == [
        ("-m", "refconv.bench.worker", "cudnn", "small", "torch", "float32", "forward", "0.5"),
        ("-m", "refconv.bench.roofs", "torch", "float32", "0.5"),
    ]


def test_the_command_without_a_gpu(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refconv.cli.bench.load_backend", lambda name: None)
    monkeypatch.setattr(run, "find_gpu", functools.partial(raising, GpuError("PyTorch finds no CUDA device")))
    code, out, err = run_command(capsys, "bench", "small", "--backend", "torch")
    assert (code, out) == (2, "")
    assert "PyTorch finds no CUDA device" in err
    code, _, err = run_command(capsys, "bench", "small", "--backend", "cupy", "--peers", "textbook")
    assert code == 2
    assert "peers must be one of refconv, cudnn, cudnn-tf32" in " ".join(err.replace("│", " ").split())


def raising(error: Exception, name: str) -> Any:
    raise error
