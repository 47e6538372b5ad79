"""Tiles and threads: the same bits for any number of workers, within the workspace, safe under threads and fork."""

import contextlib
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import refconv
from refconv import ChannelGroups, logarithmic_groups, set_workers, set_workspace, tiling, uniform_groups
from refconv.conv import _image_rows, _windows_touching
from refconv.shapes import describe
from tests.helpers import cut_into


def gradients(dtype="float32", groups=4, batch=5):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 16, 40, 37)).astype(dtype)
    weight = rng.standard_normal((24, 16 // groups, 3, 5)).astype(dtype)
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": groups}
    y = refconv.conv(x, weight, **options)
    return (y, *refconv.conv_backward(np.sin(y), x, weight, **options))


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_any_number_of_workers_gives_the_same_bits(monkeypatch, groups):
    monkeypatch.setattr(tiling, "TILE_BYTES", 2**15)  # many tiles from a small problem
    with set_workers(1):
        expected = gradients(groups=groups)
    for workers in (2, 3, 7):
        with set_workers(workers):
            for a, b in zip(gradients(groups=groups), expected, strict=True):
                assert np.array_equal(a, b)


def test_several_workers_really_work(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_BYTES", 2**15)
    names = set()
    real = refconv.conv.__globals__["gather_columns"]

    def spy(*args, **kwargs):
        names.add(threading.current_thread().name)
        return real(*args, **kwargs)

    monkeypatch.setitem(refconv.conv.__globals__, "gather_columns", spy)
    with set_workers(3):
        gradients()
    assert 1 < len(names) <= 3
    names.clear()
    with set_workers(1):
        gradients()
    assert names == {threading.main_thread().name}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("size", [1, 2**15, 2**18, 2**21, 2**24, 2**34])
def test_no_workspace_changes_a_bit(size, dtype):
    def results():
        return [a for groups in (1, 2, 8) for a in gradients(dtype, groups)]

    expected = results()
    with set_workspace(size):
        for a, b in zip(results(), expected, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("size", [1, 300, 3000, 30000])
def test_tiles_of_any_size_change_nothing_on_integers(mode, size):
    rng = np.random.default_rng(1)
    x = rng.integers(-4, 5, (3, 6, 11, 9)).astype("f4")
    groups = ChannelGroups([[0, 1, 2], [5, 2], [3]], [[4, 0], [1], [2, 3]])
    weight = [rng.integers(-4, 5, s).astype("f4") for s in groups.weight_shapes((3, 2))]
    options = {
        "stride": (1, 2),  # a tile may begin within the padding
        "padding": ((4, 7), (1, 3)),
        "dilation": (2, 1),
        "groups": groups,
        "padding_mode": mode,
    }
    y = refconv.conv(x, weight, **options)
    g = rng.integers(-4, 5, y.shape).astype("f4")
    expected = refconv.conv_backward(g, x, weight, **options)
    with cut_into(size):
        assert np.array_equal(refconv.conv(x, weight, **options), y)
        found = refconv.conv_backward(g, x, weight, **options)
    assert np.array_equal(found.x, expected.x)
    assert np.array_equal(found.bias, expected.bias)
    for a, b in zip(found.weight, expected.weight, strict=True):
        assert np.array_equal(a, b)


def peak_beyond_result(call):
    gc.collect()
    tracemalloc.start()
    try:
        result = call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    arrays = result if isinstance(result, tuple) else (result,)
    return peak - sum(a.nbytes for a in arrays if a is not None)


@pytest.mark.parametrize("budget", [2**21, 2**22])
def test_scratch_memory_stays_within_the_budget(budget):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4, 16, 96, 96)).astype("f4")
    weight = rng.standard_normal((16, 16, 3, 3)).astype("f4")
    grad = rng.standard_normal((4, 16, 96, 96)).astype("f4")
    naive = 16 * 9 * 96 * 96 * 4 * 4
    assert naive > 5 * budget
    slack = 2**18  # interpreter objects, the kernel's copies, one row
    with set_workspace(budget), set_workers(2):
        assert peak_beyond_result(lambda: refconv.conv(x, weight, padding=1)) < budget + slack
        for need in ("x", "weight"):
            call = lambda need=need: refconv.conv_backward(grad, x, weight, padding=1, needs=(need,))  # noqa: E731
            assert peak_beyond_result(call) < budget + slack


def test_settings_nest_and_are_restored_after_an_exception():
    with set_workers(3):
        with contextlib.suppress(KeyError), set_workers(5):
            assert tiling._workers.get() == 5
            raise KeyError
        assert tiling._workers.get() == 3
    assert tiling._workers.get() is None
    with set_workspace(2**20):
        assert tiling._workspace.get() == 2**20
    assert tiling._workspace.get() == 64 * 2**20


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_blas_threads_are_restored_also_after_an_exception(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_BYTES", 2**15)
    before = blas_threads()
    gradients()
    assert blas_threads() == before

    def fail(*args, **kwargs):
        assert set(blas_threads()) <= {1}  # held to one inside
        raise ArithmeticError("from inside a tile")

    monkeypatch.setitem(refconv.conv.__globals__, "gather_columns", fail)
    with pytest.raises(ArithmeticError, match="inside a tile"):
        gradients()
    assert blas_threads() == before


def test_calls_from_several_threads_at_once(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_BYTES", 2**15)
    expected = gradients()
    before, found = blas_threads(), []
    threads = [threading.Thread(target=lambda: found.append(gradients())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for result in found:
        for a, b in zip(result, expected, strict=True):
            assert np.array_equal(a, b)
    assert blas_threads() == before


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_fork(monkeypatch):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    monkeypatch.setattr(tiling, "TILE_BYTES", 2**15)
    expected = gradients()
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=lambda: results.put([float(np.sum(a)) for a in gradients()]))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert results.get() == [float(np.sum(a)) for a in expected]


def test_bits_do_not_depend_on_what_other_threads_do():
    """BLAS sums with another number of threads in another order, so every call holds it to one."""
    rng = np.random.default_rng(0)

    def complex_array(*shape):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype("complex64")

    x, weight = complex_array(3, 470, 3, 4), complex_array(470, 49, 3, 2)
    expected = refconv.conv_transpose(x, weight, stride=2, groups=10)
    with set_workspace(1):
        assert np.array_equal(refconv.conv_transpose(x, weight, stride=2, groups=10), expected)
    with tiling._blas_limit:  # as another thread's call would
        assert np.array_equal(refconv.conv_transpose(x, weight, stride=2, groups=10), expected)


@pytest.mark.parametrize("order", [range(31, -1, -1), range(32)])
def test_scratch_memory_of_channels_in_any_order(order):
    x, weight = np.ones((1, 32, 256, 256), "f4"), [np.ones((32, 32, 3, 3), "f4")]
    groups = ChannelGroups([order], [range(32)])
    with set_workers(2):
        assert peak_beyond_result(lambda: refconv.conv(x, weight, padding=1, groups=groups)) < 2**23


FORK_UNDER_LOAD = """
import os, signal, threading, time
import numpy as np
from refconv import conv, set_workers

x, weight, stop = np.ones((4, 32, 48, 48)), np.ones((32, 32, 3, 3)), False

def work():
    while not stop:
        with set_workers(3):
            conv(x, weight, padding=1)

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(10):
    time.sleep(0.01)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        with set_workers(2):
            conv(x, weight, padding=1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print("a child hung")
stop = True
for thread in threads:
    thread.join()
print("done")
"""


def test_fork_while_other_threads_compute():
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK_UNDER_LOAD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "groups",
    [1, 2, 6, uniform_groups(12, 18, 3), logarithmic_groups(12, 18, 3), ChannelGroups([[3, 0], [0]], [[1], [0]])],
)
@pytest.mark.parametrize("sums_batch", [False, True])
@pytest.mark.parametrize("budget", [1, 500, 5000, 10**6])
def test_a_plan_covers_everything_once(monkeypatch, groups, split, sums_batch, budget):
    monkeypatch.setattr(tiling, "TILE_BYTES", budget)
    if isinstance(groups, ChannelGroups):
        weights, channels = list(groups.weight_shapes((3, 2))), groups.c_in
    else:
        weights, channels = (18, 12 // groups, 3, 2), 12
    call = describe((5, channels, 9, 8), weights, stride=2, padding=1, dilation=1, groups=groups, channels_last=False)
    with set_workspace(budget):
        plan = tiling.make_plan(np, call, 4, split_channels=split, sums_batch=sums_batch)
    assert [i for b in plan.batches for i in range(5)[b]] == list(range(5))
    assert [i for start, stop in plan.rows for i in range(start, stop)] == list(range(call.geometry.output[0]))
    covered = [
        (p.block, g, c) for p in plan.pieces for g in range(p.groups.start, p.groups.stop)
        for c in range(p.channels.start, p.channels.stop)
    ]  # fmt: skip
    blocks = call.groups.blocks
    everything = [(b, g, c) for b, block in enumerate(blocks) for g in range(block.count) for c in range(block.in_size)]
    assert covered == everything
    assert [i for p in plan.pieces for i in range(p.image.start, p.image.stop)] == list(
        range(sum(call.groups.in_sizes))
    )
    if not split:
        listed = sum(call.groups.out_sizes)
        assert [i for p in plan.pieces for i in range(p.positions.start, p.positions.stop)] == list(range(listed))
    for start, stop in _image_rows(call.geometry, plan.rows):
        first, last = _windows_touching(call.geometry, (start, stop))
        for row in range(call.geometry.output[0]):  # by the definition: window `row` reads rows 2·row−1 … 2·row+1
            touches = any(start <= 2 * row - 1 + t < stop for t in range(3))
            assert not touches or first <= row < last
