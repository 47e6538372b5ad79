"""Tiles and threads: the same bits for any number of workers, within the workspace, safe under threads and fork."""

import contextlib
import functools
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pytest

import refconv
from refconv import (
    ChannelGroups,
    layouts,
    logarithmic_groups,
    passes,
    set_workers,
    set_workspace,
    tiling,
    uniform_groups,
)
from refconv.passes import _image_rows, _windows_touching
from refconv.shapes import describe, geometry
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
    monkeypatch.setattr(tiling, "TASK_BYTES", 2**15)
    with set_workers(1):
        expected = gradients(groups=groups)
    for workers in (2, 3, 7):
        with set_workers(workers):
            for a, b in zip(gradients(groups=groups), expected, strict=True):
                assert np.array_equal(a, b)


def wait_until(condition):
    patience = time.monotonic() + 5
    while not condition() and time.monotonic() < patience:
        time.sleep(0.001)


def wait_a_little(condition):
    if not condition():
        time.sleep(0.01)


@contextlib.contextmanager
def thread_names(monkeypatch):
    """Give the names of the threads at work in each of the three passes."""
    names = {"gather_columns": set(), "scatter_columns": set(), "gather_columns_over_batch": set()}

    def spied(function, seen):
        def spy(*args, **kwargs):
            seen.add(threading.current_thread().name)
            wait_a_little(lambda: len(seen) > 1)  # done before another thread has begun, it would take every task
            return function(*args, **kwargs)

        return spy

    with monkeypatch.context() as patch:
        patch.setattr(layouts, "for_images", lambda xp, call: layouts.Taps())
        patch.setattr(layouts, "for_both", lambda xp, call: layouts.Taps())
        patch.setattr(layouts, "for_kernels", lambda xp, call: layouts.TapsOfBatch())
        for name, seen in names.items():
            module = layouts if name.startswith("gather") else passes
            patch.setattr(module, name, spied(getattr(module, name), seen))
        yield names


def test_several_workers_really_work(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_BYTES", 2**15)
    monkeypatch.setattr(tiling, "TASK_BYTES", 2**15)
    with thread_names(monkeypatch) as names, set_workers(3):
        gradients()
    assert len(names["gather_columns"]) > 1
    assert not names["scatter_columns"]  # the input gradient is a correlation; from here on it is not
    monkeypatch.setattr(passes, "as_correlation", lambda call: None)
    with thread_names(monkeypatch) as names, set_workers(3):
        gradients()
    for seen in names.values():
        assert 1 < len(seen) <= 3
        assert all(name.startswith("refconv") for name in seen - {threading.main_thread().name})
    with thread_names(monkeypatch) as names, set_workers(1):
        gradients()
    for seen in names.values():
        assert seen == {threading.main_thread().name}


def test_no_more_workers_than_the_workspace_has_room_for(monkeypatch):
    """Groups that share channels are summed before they are written, so a task holds a tile of every group."""
    monkeypatch.setattr(tiling, "TILE_BYTES", 2**15)
    monkeypatch.setattr(tiling, "TASK_BYTES", 2**15)
    x, weight = np.ones((4, 4, 40, 30), "f4"), [np.ones((4, 4, 3, 3), "f4")] * 4
    groups = ChannelGroups([range(4)] * 4, [range(k, 16, 4) for k in range(4)])
    for workspace, workers in ((2**15, {1}), (2**20, {2, 3})):
        with thread_names(monkeypatch) as names, set_workers(3), set_workspace(workspace):
            y = refconv.conv(x, weight, groups=groups)
            refconv.conv_backward(y, x, weight, groups=groups, needs=("x",))
        assert len(names["gather_columns"]) in workers
        assert len(names["scatter_columns"]) in workers


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
    call()  # what is imported and kept by a first call is no scratch memory
    gc.collect()
    tracemalloc.start()
    try:
        result = call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    arrays = result if isinstance(result, tuple) else (result,)
    return peak - sum(a.nbytes for a in arrays if a is not None)


@pytest.mark.parametrize("budget", [2**22, 2**23])
def test_scratch_memory_stays_within_the_budget(budget):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((8, 16, 96, 96)).astype("f4")
    weight = rng.standard_normal((16, 16, 3, 3)).astype("f4")
    grad = rng.standard_normal((8, 16, 96, 96)).astype("f4")
    naive = 16 * 9 * 96 * 96 * 8 * 4
    assert naive > 5 * budget
    slack = 2**18  # interpreter objects, the kernel's copies, one row
    with set_workspace(budget), set_workers(2):
        assert peak_beyond_result(lambda: refconv.conv(x, weight, padding=1)) < budget + slack
        assert peak_beyond_result(lambda: refconv.conv_transpose(x, weight, padding=1)) < budget + slack
        for need in ("x", "weight"):
            call = lambda need=need: refconv.conv_backward(grad, x, weight, padding=1, needs=(need,))  # noqa: E731
            assert peak_beyond_result(call) < budget + slack


def test_samples_at_once_fit_a_small_workspace():
    x, weight, grad = np.ones((64, 8, 16, 16), "f4"), np.ones((8, 8, 3, 3), "f4"), np.ones((64, 8, 16, 16), "f4")
    for budget in (2**18, 2**20):  # from one or two samples in a tile to half a dozen
        with set_workspace(budget), set_workers(1):
            for call in (
                lambda: refconv.conv(x, weight, padding=1),
                lambda: refconv.conv_backward(grad, x, weight, padding=1, needs=("x",)),
            ):
                assert peak_beyond_result(call) < budget + 2**17


def test_a_few_rows_of_outputs_that_read_many_of_the_input_stay_within_the_budget():
    x, weight = np.zeros((8, 16, 103, 130), "f4"), np.zeros((16, 16, 100, 3), "f4")
    with set_workers(7), set_workspace(2**25):
        y = refconv.conv(x, weight)
        assert peak_beyond_result(lambda: refconv.conv(x, weight)) < 2**25
        assert peak_beyond_result(lambda: refconv.conv_backward(y, x, weight, needs=("weight",))) < 2**25


def test_a_large_weight_gradient_of_few_channels_is_not_held_several_times():
    x, g = np.ones((8, 2, 40, 40)), np.ones((8, 512, 10, 10))
    weight = np.ones((512, 2, 31, 31))  # 7.5 MiB
    with set_workers(4):
        extra = peak_beyond_result(lambda: refconv.conv_backward(g, x, weight, needs=("weight",)))
    assert extra < 4 * weight.nbytes  # sums, products of one more tile, and their columns


@pytest.mark.parametrize("need", ["x", "weight"])
def test_channels_of_a_wide_group_are_cut(need):
    """One row of all the columns would be 7 MiB; the gradients take some channels at a time."""
    x, weight, grad = np.ones((1, 2048, 6, 64), "f4"), np.ones((2, 2048, 3, 5), "f4"), np.ones((1, 2, 4, 60), "f4")
    with set_workers(1):
        call = lambda: refconv.conv_backward(grad, x, weight, needs=(need,))  # noqa: E731
        assert peak_beyond_result(call) < 1.25 * tiling.TILE_BYTES


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
    return [library.num_threads for library in tiling._blas_libraries()]  # NumPy's; SciPy may load one later


def test_blas_threads_are_restored_also_after_an_exception(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_BYTES", 2**15)
    monkeypatch.setattr(tiling, "TASK_BYTES", 2**15)
    before = blas_threads()
    gradients()
    assert blas_threads() == before

    def fail(*args, **kwargs):
        assert set(blas_threads()) <= {1}  # held to one inside
        raise ArithmeticError("from inside a tile")

    monkeypatch.setattr(passes.Passes, "_columns", fail)
    with pytest.raises(ArithmeticError, match="inside a tile"):
        gradients()
    assert blas_threads() == before


def test_calls_from_several_threads_at_once(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_BYTES", 2**15)
    monkeypatch.setattr(tiling, "TASK_BYTES", 2**15)
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
    monkeypatch.setattr(tiling, "TASK_BYTES", 2**15)
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
    monkeypatch.setattr(tiling, "TASK_BYTES", budget)
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


@pytest.mark.parametrize(
    ("pads", "mode", "output_rows", "expected"),
    [
        ((3, 1), "zeros", [(0, 4), (4, 8), (8, 11)], [(0, 5), (5, 13), (13, 20)]),  # windows 4 and 8 begin at 5 and 13
        ((3, 1), "zeros", [(0, 6), (6, 11)], [(0, 9), (9, 20)]),
        ((3, 1), "zeros", [(0, 11)], [(0, 20)]),
        ((9, 1), "zeros", [(0, 2), (2, 4), (4, 14)], [(0, 20)]),  # windows 2 and 4 begin in the padding
        ((9, 1), "zeros", [(0, 5), (5, 14)], [(0, 1), (1, 20)]),
        ((0, 9), "zeros", [(0, 9), (9, 11), (11, 14)], [(0, 18), (18, 20)]),  # window 11 begins after the image
        ((3, 1), "reflect", [(0, 4), (4, 8), (8, 11)], [(0, 20)]),
    ],
)
def test_image_rows_are_cut_where_windows_of_tiles_begin(pads, mode, output_rows, expected):
    geo = geometry((20,), (3,), stride=2, padding=(pads,), dilation=1, padding_mode=mode)
    assert geo.output[0] == output_rows[-1][1]
    assert _image_rows(geo, output_rows) == expected


def test_an_image_without_rows_is_one_tile():
    geo = geometry((0,), (3,), stride=2, padding=((3, 4),), dilation=1)
    assert _image_rows(geo, [(0, 2), (2, 3)]) == [(0, 0)]


def test_groups_of_one_sample_are_spread(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_BYTES", 2**15)
    monkeypatch.setattr(tiling, "TASK_BYTES", 2**15)
    monkeypatch.setattr(passes, "as_correlation", lambda call: None)
    x, weight = np.ones((1, 8, 20, 20), "f4"), np.ones((8, 1, 3, 3), "f4")
    with thread_names(monkeypatch) as names, set_workers(2), set_workspace(2**30):
        y = refconv.conv(x, weight, groups=8)
        refconv.conv_backward(y, x, weight, groups=8)
    for seen in names.values():
        assert len(seen) == 2


# --- Plans worked out by hand ----------------------------------------------------------------------------------


def plan_of(c_in, c_out, groups, *, xp=np, batch=5, **options):
    """Return the plan of a convolution whose numbers are worked out by hand below: k = 3×2, o = 29×9, P = 62×10.

    A row of i image and p position channels takes 4·(i·6·9 + 2·p·9 + i·2·10) = 4·(74·i + 18·p) bytes; a window
    spans 5 rows and the next begins 2 rows further, so tiles of rows share 5 // 2 = 2.
    """
    weights = (c_out, c_in // groups, 3, 2) if isinstance(groups, int) else list(groups.weight_shapes((3, 2)))
    more = {"stride": (2, 1), "padding": ((1, 1), (0, 1)), "dilation": (2, 1), "channels_last": False}
    call = describe((batch, c_in, 60, 9), weights, groups=groups, **more)
    assert call.geometry.output == (29, 9)
    assert call.geometry.padded == (62, 10)
    return tiling.make_plan(xp, call, 4, **options)


FORWARD = {"split_channels": False, "sums_batch": False}
INPUT = {"split_channels": True, "sums_batch": False}
WEIGHT = {"split_channels": True, "sums_batch": True}
ROW = 4 * (74 * 2 + 18 * 3)  # of one of two groups that read 2 and write 3 channels: 808 bytes


@pytest.mark.parametrize(
    ("tile", "workspace", "options", "samples", "rows", "pieces", "tile_bytes"),
    [
        # all at once: 5 samples, 29 rows, 2 groups
        (10**6, 10**6, FORWARD, 5, 29, 1, 5 * 29 * 2 * ROW),
        # the workspace cuts samples, as many as fit with both groups, then groups, never rows
        (10**6, 3 * 29 * 2 * ROW, FORWARD, 3, 29, 1, 3 * 29 * 2 * ROW),
        (10**6, 3 * 29 * 2 * ROW - 1, FORWARD, 2, 29, 1, 2 * 29 * 2 * ROW),
        (10**6, 29 * 2 * ROW, FORWARD, 1, 29, 1, 29 * 2 * ROW),
        (10**6, 29 * 2 * ROW - 1, FORWARD, 1, 29, 2, 29 * ROW),
        (10**6, 1, FORWARD, 1, 29, 2, 29 * ROW),
        # the tile cuts rows: as many as fit, without the two that neighbours share, but those two if they fit
        (29 * ROW, 10**6, FORWARD, 1, 29, 2, 29 * ROW),
        (29 * ROW - 1, 10**6, FORWARD, 1, 26, 2, 26 * ROW),
        (8 * ROW, 10**6, FORWARD, 1, 6, 2, 6 * ROW),
        (5 * ROW, 10**6, FORWARD, 1, 3, 2, 3 * ROW),
        (4 * ROW - 1, 10**6, FORWARD, 1, 2, 2, 2 * ROW),
        (2 * ROW, 10**6, FORWARD, 1, 2, 2, 2 * ROW),
        (2 * ROW - 1, 10**6, FORWARD, 1, 1, 2, ROW),
        (1, 10**6, FORWARD, 1, 1, 2, ROW),
        # where rows cannot be cut a tile may be eight times as large, but no more is gathered in it
        (29 * 9 * ROW // 8, 10**6, INPUT | {"cut_rows": False}, 1, 29, 2, 29 * ROW),
        (29 * ROW // 8 + 1, 10**6, INPUT | {"cut_rows": False}, 1, 29, 2, 29 * ROW),
        # a sum over the batch is cut by the tile alone; weight gradients of 2·6·3 numbers a group go with it, one for
        # each sample and their sum, unless one product takes all samples
        (10**6, 1, WEIGHT, 5, 29, 1, 5 * 29 * 2 * ROW + 6 * 2 * 2 * 6 * 3 * 4),
        (10**6, 1, WEIGHT | {"joins_samples": True}, 5, 29, 1, 5 * 29 * 2 * ROW + 2 * 2 * 2 * 6 * 3 * 4),
        (2 * 29 * 2 * ROW, 1, WEIGHT, 2, 29, 1, 2 * 29 * 2 * ROW + 3 * 2 * 2 * 6 * 3 * 4),
        (29 * ROW, 1, WEIGHT, 1, 29, 2, 29 * ROW + 2 * 2 * 6 * 3 * 4),
    ],
)
def test_a_plan_by_hand(monkeypatch, tile, workspace, options, samples, rows, pieces, tile_bytes):
    monkeypatch.setattr(tiling, "TILE_BYTES", tile)
    monkeypatch.setattr(tiling, "TASK_BYTES", tile)
    with set_workspace(workspace):
        plan = plan_of(4, 6, 2, **options)
    assert plan.batches == tiling.cut(5, samples)
    assert plan.rows == tuple((start, min(start + rows, 29)) for start in range(0, 29, rows))
    whole = slice(0, 2)
    assert (
        plan.pieces
        == {
            1: (tiling.Piece(0, groups=whole, channels=whole, image=slice(0, 4), positions=slice(0, 6)),),
            2: (
                tiling.Piece(0, groups=slice(0, 1), channels=whole, image=slice(0, 2), positions=slice(0, 3)),
                tiling.Piece(0, groups=slice(1, 2), channels=whole, image=slice(2, 4), positions=slice(3, 6)),
            ),
        }[pieces]
    )
    assert plan.tile_bytes == tile_bytes


@pytest.mark.parametrize(
    ("tile", "rows", "channels"),
    [
        # a group of 7 image and 3 position channels: with i of the first a row takes 296·i + 216 bytes
        (29 * (296 * 7 + 216), 29, 7),
        # rows are cut first, but the two that neighbours share
        (29 * (296 * 7 + 216) - 1, 26, 7),
        (29 * (296 * 3 + 216), 11, 7),
        # where no more than 4·2 rows of all channels fit, half of these, and so on; pieces are of about one size
        (9 * (296 * 7 + 216), 7, 7),
        (9 * (296 * 7 + 216) - 1, 16, 3),
        (29 * (296 + 216), 11, 3),
        (10 * (296 + 216), 8, 1),  # 5120 // 8 − 216 = 424 bytes for channels of 296
        (2 * (296 + 216), 2, 1),
        (1, 1, 1),
    ],
)
def test_a_plan_that_cuts_channels_by_hand(monkeypatch, tile, rows, channels):
    monkeypatch.setattr(tiling, "TILE_BYTES", tile)
    monkeypatch.setattr(tiling, "TASK_BYTES", tile)
    with set_workspace(2**40):
        plan = plan_of(14, 6, 2, **WEIGHT)
    assert plan.rows == tuple((start, min(start + rows, 29)) for start in range(0, 29, rows))
    assert plan.batches == tiling.cut(5, 1)
    assert plan.pieces == tuple(
        tiling.Piece(
            0,
            groups=slice(g, g + 1),
            channels=part,
            image=slice(7 * g + part.start, 7 * g + part.stop),
            positions=slice(3 * g, 3 * g + 3),
        )
        for g in range(2)
        for part in tiling.cut(7, channels)
    )
    assert plan.tile_bytes == rows * (296 * channels + 216) + 2 * channels * 6 * 3 * 4


def test_a_large_weight_gradient_is_shared_by_parts_of_the_batch_or_pieces_of_the_channels():
    """AlexNet's third layer has 3.4 MiB of weights in single precision: more than a tile in double."""
    call = describe((8, 256, 13, 13), (384, 256, 3, 3), stride=1, padding=1, dilation=1, groups=1, channels_last=False)
    single = tiling.make_plan(np, call, 4, by_rows=True, **WEIGHT)
    assert [piece.channels for piece in single.pieces] == [slice(0, 256)]
    assert (single.batches, single.parts) == (tiling.cut(8, 2), 4)
    double = tiling.make_plan(np, call, 8, by_rows=True, **WEIGHT)
    assert [piece.channels for piece in double.pieces] == list(tiling.cut(256, 37))  # a quarter of a tile each
    assert (double.batches, double.parts) == (tiling.cut(8, 3), 1)
    assert single.rows == double.rows == ((0, 13),)


def test_samples_of_one_product_are_gathered_whatever_the_workspace():
    """A sample takes 29·4·(74·4 + 18·6) bytes, of which 8 MiB hold 178; fewer are cut into four slices."""
    sample = 29 * 4 * (74 * 4 + 18 * 6)
    assert 178 * sample < 2 * tiling.TASK_BYTES < 179 * sample
    for workspace in (1, 2**40):
        with set_workspace(workspace):
            assert plan_of(4, 6, 1, batch=100, joins_samples=True, **FORWARD).batches == tiling.cut(100, 25)
            assert plan_of(4, 6, 1, batch=178 * 8, joins_samples=True, **FORWARD).batches == tiling.cut(178 * 8, 178)


def test_many_small_groups_are_gathered_in_larger_tasks():
    """Of 16 groups of one channel a sample takes 29·16·4·(74 + 18) bytes, so that 24 fit 4 MiB and 49 fit 8 MiB."""
    sample = 29 * 16 * 4 * (74 + 18)
    assert 24 * sample < tiling.TASK_BYTES < 25 * sample
    assert 49 * sample < 2 * tiling.TASK_BYTES < 50 * sample
    with set_workspace(2**40):
        assert plan_of(16, 16, 16, batch=49 * 8, **FORWARD).batches == tiling.cut(49 * 8, 49)
        assert plan_of(15, 15, 15, batch=49 * 8, **FORWARD).batches != tiling.cut(49 * 8, 49)
    with set_workspace(sample):
        assert plan_of(16, 16, 16, batch=49 * 8, **FORWARD).batches == tiling.cut(49 * 8, 1)


def test_a_plan_of_unequal_groups_by_hand(monkeypatch):
    """Blocks of two groups 1→2 and one group 3→1; the rows are cut for the larger, samples and groups for each."""
    groups = ChannelGroups.from_sizes([1, 1, 3], [2, 2, 1])
    small, large = 4 * (74 + 36), 4 * (3 * 74 + 18)  # 440 and 960 bytes a row
    monkeypatch.setattr(tiling, "TILE_BYTES", 8 * large)
    monkeypatch.setattr(tiling, "TASK_BYTES", 8 * large)
    with set_workspace(2**40):
        plan = plan_of(5, 5, groups, **FORWARD)
    assert plan.rows == tuple((start, min(start + 6, 29)) for start in range(0, 29, 6))
    assert plan.batches == tiling.cut(5, 1)
    assert plan.pieces == (
        tiling.Piece(0, groups=slice(0, 2), channels=slice(0, 1), image=slice(0, 2), positions=slice(0, 4)),
        tiling.Piece(1, groups=slice(0, 1), channels=slice(0, 3), image=slice(2, 5), positions=slice(4, 5)),
    )
    assert plan.tile_bytes == 6 * large
    monkeypatch.setattr(tiling, "TILE_BYTES", 4 * 29 * large)
    monkeypatch.setattr(tiling, "TASK_BYTES", 4 * 29 * large)
    with set_workspace(2**40):
        # Four fit, but threads would share: two slices of each of the two blocks, or four of a single one.
        assert plan_of(5, 5, groups, **FORWARD).batches == tiling.cut(5, 3)
        assert plan_of(3, 1, 1, **FORWARD).batches == tiling.cut(5, 2)
    with set_workspace(29 * 2 * small):
        plan = plan_of(5, 5, groups, **FORWARD)
    assert plan.batches == tiling.cut(5, 1)
    assert [piece.groups for piece in plan.pieces] == [slice(0, 2), slice(0, 1)]
    assert plan.tile_bytes == 29 * large


def test_other_modules_plan_by_shape_alone(monkeypatch):
    strict = pytest.importorskip("array_api_strict")
    monkeypatch.setattr(tiling, "TILE_BYTES", 1)
    monkeypatch.setattr(tiling, "TASK_BYTES", 1)
    monkeypatch.setattr(tiling, "DEFAULT_WORKSPACE", 3 * 29 * 2 * ROW)
    for options in (FORWARD, INPUT, INPUT | {"cut_rows": False}, WEIGHT):
        with set_workspace(1):
            plan = plan_of(4, 6, 2, xp=strict, **options)
        assert plan.batches == tiling.cut(5, 3)
        assert plan.rows == ((0, 29),)
        assert len(plan.pieces) == 1


def test_an_empty_plan_has_no_tiles():
    plan = plan_of(4, 6, 2, batch=0, **FORWARD)
    assert plan.batches == ()
    nothing = plan_of(0, 3, ChannelGroups([[]], [[0, 1, 2]], c_in=0), **WEIGHT)
    assert nothing.pieces == (tiling.Piece(0, slice(0, 1), slice(0, 0), slice(0, 0), slice(0, 3)),)


@pytest.mark.parametrize(("stride", "dilation", "k"), [(1, 1, 1), (2, 3, 2), (5, 1, 2), (1, 4, 3)])
def test_a_row_window_is_what_the_windows_span(stride, dilation, k):
    geo = geometry((40,), (k,), stride=stride, padding=((2, 1),), dilation=dilation)
    for start, stop in ((0, 1), (0, 4), (2, 5)):
        read = [row * stride + t * dilation for row in range(start, stop) for t in range(k)]
        assert tiling.row_window(geo, start, stop) == (min(read), max(read) + 1)


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("before", [-1, 0, 1, 4])
def test_windows_touching_are_those_and_no_others(stride, k, before):
    geo = geometry((9,), (k,), stride=stride, padding=((before, 2),), dilation=1)
    for start in range(9):
        for stop in range(start + 1, 10):
            read = [
                row for row in range(geo.output[0]) if any(start <= row * stride + t - before < stop for t in range(k))
            ]
            first, last = _windows_touching(geo, (start, stop))
            if (start, stop) == (0, 9):
                assert (first, last) == (0, geo.output[0])  # everything, those that read padding alone too
            else:
                assert list(range(first, last)) == read


# --- Threads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "tile_bytes", "workers", "workspace", "threads"),
    [
        (6, 100, 3, 10**6, 3),
        (6, 100, 1, 10**6, 0),
        (1, 10**6, 3, 10**9, 0),  # one task
        (6, 100, 3, 299, 2),  # room for two tiles
        (6, 100, 3, 199, 0),  # room for one
        (6, 100, 3, 1, 0),
        (6, 1, 3, 2, 2),
        (2, 5, 3, 10**6, 0),  # together no more than a tile
        (2, 6, 3, 10**6, 2),
    ],
)
def test_as_many_threads_as_tasks_workers_and_workspace_allow(
    monkeypatch, tasks, tile_bytes, workers, workspace, threads
):
    monkeypatch.setattr(tiling, "TILE_BYTES", 10 if tile_bytes > 1 else 1)
    monkeypatch.setattr(tiling, "TASK_BYTES", 10 if tile_bytes > 1 else 1)
    seen, done = set(), []

    def work(task):
        seen.add(threading.current_thread().name)
        wait_until(lambda: len(seen) >= threads)  # done before the next task comes, a thread would take that one too
        done.append(task)

    with set_workers(workers), set_workspace(workspace):
        tiling.spread(np, work, range(tasks), tile_bytes)
    assert sorted(done) == list(range(tasks))
    if threads:
        assert len(seen) == threads
        assert all(name.startswith("refconv") for name in seen - {threading.main_thread().name})
    else:
        assert seen == {threading.main_thread().name}


def test_threads_stop_at_the_first_failure(monkeypatch):
    monkeypatch.setattr(tiling, "TASK_BYTES", 1)
    begun = []

    def work(task):
        begun.append(task)
        if threading.current_thread() is not threading.main_thread():
            raise KeyError(task)
        wait_until(lambda: threading.active_count() == before)
        return task

    before = threading.active_count()
    with set_workers(2), pytest.raises(KeyError):
        tiling.spread(np, work, range(1000), 8)
    assert len(begun) < 10
    assert threading.active_count() == before


def test_the_interrupted_thread_waits_for_the_others(monkeypatch):
    monkeypatch.setattr(tiling, "TASK_BYTES", 1)
    before = threading.active_count()

    def work(task):
        if threading.current_thread() is threading.main_thread():
            wait_until(lambda: threading.active_count() > before)
            raise KeyboardInterrupt
        time.sleep(0.02)

    with set_workers(3), pytest.raises(KeyboardInterrupt):
        tiling.spread(np, work, range(1000), 8)
    assert threading.active_count() == before


def test_an_interrupt_while_waiting_does_not_leave_threads_behind(monkeypatch):
    monkeypatch.setattr(tiling, "TASK_BYTES", 1)
    before, real, interrupted = threading.active_count(), threading.Thread.join, []

    def join(self, *args):
        if len(interrupted) < 3:
            interrupted.append(self)
            raise KeyboardInterrupt
        real(self, *args)

    monkeypatch.setattr(threading.Thread, "join", join)
    with set_workers(2), pytest.raises(KeyboardInterrupt):
        tiling.spread(np, lambda task: time.sleep(0.02), range(5), 8)
    assert len(interrupted) == 3
    assert threading.active_count() == before


def test_a_step_at_work_when_its_join_is_interrupted_is_waited_for(monkeypatch):
    """After an interrupted join, Python takes a thread for one that has ended."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no interval timers")
    monkeypatch.setattr(tiling, "TASK_BYTES", 1)
    log, before = [], threading.active_count()

    def work(task):
        if threading.current_thread() is threading.main_thread():
            wait_until(lambda: log)
        else:
            log.append("begun")
            time.sleep(0.3)
            log.append("done")

    def interrupt(*_):
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.02)
        with set_workers(2), pytest.raises(KeyboardInterrupt):
            tiling.spread(np, work, range(2), 8)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert log == ["begun", "done"]
    wait_until(lambda: threading.active_count() == before)
    assert threading.active_count() == before


def test_a_gate_that_a_waiter_left_closed_lets_others_through():
    """As an interrupt between taking and giving back its lock would leave it."""
    gate = tiling._Gate(1)
    gate.one_is_done()
    gate._closed.acquire()
    gate.wait([])
    shut = tiling._Gate(1)
    shut.wait([MemoryError()])  # something failed: nobody waits


def test_an_interrupt_is_raised_rather_than_what_failed_before_it(monkeypatch):
    monkeypatch.setattr(tiling, "TASK_BYTES", 1)
    begun, failed = threading.Event(), threading.Event()

    def work(task):
        if threading.current_thread() is threading.main_thread():
            begun.set()
            failed.wait(5)
            time.sleep(0.01)
            raise KeyboardInterrupt
        begun.wait(5)
        failed.set()
        raise MemoryError

    with set_workers(2), pytest.raises(KeyboardInterrupt):
        tiling.spread(np, work, range(9), 8)


def test_a_failure_that_was_caught_holds_no_arrays(monkeypatch):
    monkeypatch.setattr(tiling, "TASK_BYTES", 1)

    class Scratch:
        pass

    def call():
        scratch = Scratch()
        held.append(weakref.ref(scratch))

        def work(task):
            raise MemoryError(scratch)

        with set_workers(2):
            tiling.spread(np, work, range(9), 8)

    held = []
    gc.disable()
    try:
        with pytest.raises(MemoryError) as caught:
            call()
        del caught
        assert held[0]() is None
    finally:
        gc.enable()


def test_blas_is_held_to_one_thread_from_whichever_thread_the_call_comes():
    """threadpoolctl heeds only the first thread that asks, unless that is undone."""
    before, x, weight = blas_threads(), np.ones((2, 8, 20, 20), "f4"), np.ones((8, 8, 3, 3), "f4")
    refconv.conv(x, weight)  # by the main thread first
    inside = []

    def call():
        with tiling._blas_limit:
            inside.append(blas_threads())

    for _ in range(2):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        call()
    assert inside == [[1] * len(before)] * 4
    assert blas_threads() == before


def test_a_call_from_another_thread_gives_the_same_bits():
    rng, found = np.random.default_rng(0), []
    x = rng.standard_normal((16, 32, 40, 40)).astype("f4")
    weight = rng.standard_normal((32, 32, 3, 3)).astype("f4")
    expected = refconv.conv(x, weight)
    thread = threading.Thread(target=lambda: found.append(refconv.conv(x, weight)))
    thread.start()
    thread.join()
    assert np.array_equal(found[0], expected)


def test_where_no_thread_can_start_the_caller_does_all_the_work(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(tiling, "TASK_BYTES", 1)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    with set_workers(3):
        tiling.spread(np, done.append, range(9), 8)
    assert done == list(range(9))


def jobs_of(log, *counts, pause=0.0):
    """Return jobs of so many preparations and tasks, which log themselves when they are done."""

    def step(job, kind, number):
        time.sleep(pause)
        log.append((job, kind, number))

    return [
        tiling.Job(
            [functools.partial(step, job, "task", n) for n in range(tasks)],
            8,
            [functools.partial(step, job, "preparation", n) for n in range(preparations)],
        )
        for job, (preparations, tasks) in enumerate(counts)
    ]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("counts", [[(0, 3)], [(3, 4)], [(0, 2), (4, 3), (1, 1)], [(7, 2), (2, 7)], [(0, 0), (2, 2)]])
def test_every_step_of_every_job_once_and_preparations_before_their_tasks(monkeypatch, workers, counts):
    monkeypatch.setattr(tiling, "TASK_BYTES", 1)
    for _ in range(20):
        log = []
        with set_workers(workers):
            tiling.run(np, *jobs_of(log, *counts, pause=0.0002))
        assert sorted(log) == sorted(
            (job, kind, n)
            for job, numbers in enumerate(counts)
            for kind, count in zip(("preparation", "task"), numbers, strict=True)
            for n in range(count)
        )
        for job in range(len(counts)):
            kinds = [kind for number, kind, _ in log if number == job]
            assert kinds == sorted(kinds)


def test_other_modules_do_jobs_in_order():
    strict, log = pytest.importorskip("array_api_strict"), []
    tiling.run(strict, *jobs_of(log, (1, 2), (0, 1)))
    assert log == [(0, "preparation", 0), (0, "task", 0), (0, "task", 1), (1, "task", 0)]


def test_a_task_waits_for_preparations_of_its_own_job_alone(monkeypatch):
    monkeypatch.setattr(tiling, "TASK_BYTES", 1)
    free, log = threading.Event(), []

    def prepare():
        assert free.wait(5)  # until the other job's task was done
        time.sleep(0.05)
        log.append("prepared")

    dependent = tiling.Job([lambda: log.append("dependent")] * 3, 8, [prepare])
    other = tiling.Job([lambda: (log.append("other"), free.set())], 8)
    with set_workers(3):
        tiling.run(np, dependent, other)
    assert log == ["other", "prepared", *["dependent"] * 3]


@pytest.mark.parametrize("failure", [ArithmeticError, KeyboardInterrupt])
@pytest.mark.parametrize("by_main", [True, False])
def test_nobody_waits_for_a_preparation_that_failed(monkeypatch, failure, by_main):
    monkeypatch.setattr(tiling, "TASK_BYTES", 1)
    begun, log, before = threading.Barrier(2, timeout=5), [], threading.active_count()

    def prepare():
        begun.wait()
        if (threading.current_thread() is threading.main_thread()) is by_main:
            time.sleep(0.05)  # the other thread waits by now
            raise failure

    with set_workers(2), pytest.raises(failure):
        tiling.run(np, tiling.Job([lambda: log.append("task")] * 2, 8, [prepare] * 2))
    assert not log
    assert threading.active_count() == before


def test_cores_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {(pid, core) for core in range(3)}, raising=False)
    assert tiling.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert tiling.cores() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert tiling.cores() == 1


def test_blas_is_limited_by_the_first_call_and_restored_by_the_last(monkeypatch):
    class Library:
        num_threads = 5

        def set_num_threads(self, threads):
            calls.append(threads)

    def free():  # RLock: only another thread can tell
        found = []
        thread = threading.Thread(target=lambda: found.append(limit.lock.acquire(blocking=False)))
        thread.start()
        thread.join()
        return found[0]

    calls = []
    monkeypatch.setattr(tiling, "_blas_libraries", lambda: [Library()])
    limited, restored = 1, 5
    limit = tiling._BlasLimit()
    for times in (1, 2):
        with limit:
            with limit, limit:
                pass
            assert calls == [limited, restored] * (times - 1) + [limited]
        assert calls == [limited, restored] * times
    calls.clear()
    limit.lock.acquire()  # as before a fork, while two calls are under way
    limit.__enter__()
    limit.__enter__()
    limit.after_in_child()
    assert calls == [limited, restored]
    assert free()
    limit = tiling._BlasLimit()
    limit.lock.acquire()
    limit.after_in_child()
    assert free()
    assert calls == [limited, restored]
    limit = tiling._BlasLimit()
    limit.lock.acquire()
    limit.__enter__()
    limit.after_in_child()
    calls.clear()
    with limit:
        assert calls == [limited]
    assert calls == [limited, restored]


def test_parts_are_added_in_their_order():
    found = []
    total = passes._SumInOrder(np, 4, found.append)
    for place in (2, 0, 3):
        total.add(place, np.array([f"{place}"], dtype=object))
        assert not found
    total.add(1, np.array(["1"], dtype=object))
    assert found == [np.array(["0123"], dtype=object)]


def test_an_infinity_costs_no_second_result():
    w, g = np.ones((8, 8, 3, 3), "f4"), np.ones((32, 8, 112, 112), "f4")
    g[0, 0, 0, 0] = np.inf
    with set_workers(2), set_workspace(2**20):
        call = lambda: refconv.conv_input_grad(g, w, g.shape, padding=1)  # noqa: E731
        assert peak_beyond_result(call) < 1.25 * tiling.TILE_BYTES < g.nbytes / 2


def test_padded_rows_between_taps_far_apart_are_counted():
    x, w = np.ones((64, 64, 5000), "f4"), np.ones((64, 64, 2), "f4")  # 1.2 MiB of a sample between two taps
    y = refconv.conv(x, w, dilation=4900)
    for workers in (1, 7):
        with set_workers(workers), set_workspace(2**26):
            call = lambda: refconv.conv_input_grad(y, w, x.shape, dilation=4900)  # noqa: E731
            assert peak_beyond_result(call) < 2**25


def test_channels_too_large_for_the_workspace_are_summed_beside_threads(monkeypatch):
    """A sum takes next to no memory, whatever it reads."""
    names = set()
    real = passes.Passes._columns

    def columns(*arguments):
        names.add(threading.current_thread().name)
        wait_a_little(lambda: len(names) > 1)
        return real(*arguments)

    monkeypatch.setattr(passes.Passes, "_columns", columns)
    x, w = np.ones((16, 1, 400, 400), "f4"), np.ones((1, 1, 3, 3), "f4")  # 10 MB a channel
    with set_workers(2), set_workspace(2**23):
        refconv.conv_backward(x, x, w, padding=1)
    assert len(names) == 2


@pytest.mark.parametrize(
    ("groups", "batch", "parts"),
    [(1, 8, 4), (1, 9, 3), (1, 3, 3), (3, 8, 4), (4, 8, 1), (5, 2, 1)],
)
def test_a_weight_gradient_of_few_pieces_is_summed_in_four_parts(monkeypatch, groups, batch, parts):
    monkeypatch.setattr(tiling, "TILE_BYTES", 4 * 3 * (4 * 4 + 2 * 4 + 5))  # 3 rows: columns, positions twice, padded
    monkeypatch.setattr(tiling, "TASK_BYTES", 4 * 3 * (4 * 4 + 2 * 4 + 5))
    seen = []
    monkeypatch.setattr(passes, "run", lambda xp, job: (seen.append(job.tasks), tiling.run(xp, job)))
    x, weight = np.ones((batch, groups, 4, 5), "f4"), np.ones((groups, 1, 2, 2), "f4")
    grads = refconv.conv_backward(np.ones((batch, groups, 3, 4), "f4"), x, weight, groups=groups, needs=("weight",))
    assert len(seen[0]) == groups * parts
    assert np.array_equal(grads.weight, np.full(weight.shape, 12 * batch, "f4"))
