"""Whole calls of the CPU engine: the textbook's results, the same bits for any workers and workspace, little memory,
and safety under threads and fork."""

import contextlib
import gc
import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings

import refconv
from refconv import ChannelGroups, set_engine, set_workers, set_workspace
from refconv.cpu import choices, passes, plan, threads
from refconv.cpu.layouts import Taps, TapsOfBatch
from refconv.cpu.passes import SumInOrder, _image_rows, _windows_touching
from refconv.shapes import geometry
from refconv.testing.oracles.problems import Problem, normal_arrays
from refconv.testing.strategies import conv_problems
from tests.cpu_helpers import blas_threads, fast_engine, wait_until  # noqa: F401
from tests.helpers import assert_results, cut_into, load, long, run

NUMPY = load("numpy")


@pytest.fixture
def small_tiles():
    """Cut small problems into many tiles, and let several threads work on them."""
    with cut_into(2**15), set_workspace(2**26):
        yield


def results(dtype="float32", groups=4, batch=5):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 16, 40, 37)).astype(dtype)
    weight = rng.standard_normal((24, 16 // groups, 3, 5)).astype(dtype)
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": groups}
    y = refconv.conv(x, weight, **options)
    return (y, *refconv.conv_backward(np.sin(y), x, weight, **options))


def assert_same_bits(found, expected):
    assert [array.tobytes() for array in found] == [array.tobytes() for array in expected]


# --- Values ---


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("tile", [1, 2**20])
def test_both_engines_agree_on_whole_numbers(transposed, tile):
    @settings(max_examples=100)
    @given(conv_problems(transposed=transposed, dtypes=("float16", "float32", "float64", "complex64", "int32")))
    def check(case):
        with cut_into(tile):
            with set_engine("textbook"):
                expected = run(NUMPY, *case)
            with set_engine("fast"):
                assert_results(NUMPY, run(NUMPY, *case), expected)

    check()


@pytest.mark.parametrize("tile", [2**10, 2**20])
def test_gradients_side_by_side_equal_each_alone(monkeypatch, tile):
    """They are equal bit for bit, unless they come from the same columns."""
    monkeypatch.setattr(choices, "shares_columns", lambda call, item_bytes: False)

    @settings(max_examples=100)
    @given(conv_problems(dtypes=("float16", "float32", "complex64"), values="normal"))
    def check(case):
        x, weight, _, grad = case.operands
        with cut_into(tile), set_workspace(2**26), set_workers(3):
            both, only_x, only_weight = (
                refconv.conv_backward(grad, x, weight, **case.options, needs=needs)
                for needs in (("x", "weight"), ("x",), ("weight",))
            )
        weights = [found if isinstance(found, tuple) else (found,) for found in (both.weight, only_weight.weight)]
        assert_same_bits((both.x, *weights[0]), (only_x.x, *weights[1]))

    check()


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("size", [1, 300, 3000, 30000])
def test_tiles_of_any_size_change_nothing_on_whole_numbers(mode, size):
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


def test_parts_are_added_in_their_order():
    found = []
    total = SumInOrder(4, found.append)
    for place in (2, 0, 3):
        total.add(place, np.array([f"{place}"], dtype=object))
        assert not found
    total.add(1, np.array(["1"], dtype=object))
    assert found == [np.array(["0123"], dtype=object)]


@pytest.mark.parametrize(
    ("groups", "batch", "parts"),
    [(1, 8, 4), (1, 9, 3), (1, 3, 3), (3, 8, 4), (4, 8, 1), (5, 2, 1)],
)
def test_a_weight_gradient_of_few_pieces_is_summed_in_four_parts(monkeypatch, groups, batch, parts):
    seen = []
    monkeypatch.setattr(passes, "run", lambda job: (seen.append(job.tasks), threads.run(job)))
    monkeypatch.setattr(choices, "for_kernels", lambda call: TapsOfBatch())
    x = np.ones((batch, groups, 4, 5), "f4")
    with cut_into(4 * 3 * (4 * 4 + 2 * 4 + 5)):  # 3 rows: columns, positions twice, padded image
        found = refconv.conv_weight_grad(np.ones((batch, groups, 3, 4), "f4"), x, (2, 2), groups=groups)
    assert len(seen[0]) == groups * parts
    assert np.array_equal(found, np.full((groups, 1, 2, 2), 12 * batch, "f4"))


# --- Bits ---


_SHARED = (((1, 5, 9), tuple(range(10, 20))), (tuple(range(32)), tuple(range(10))))
WORK = [
    *(Problem(5, 16, 24, (40, 37), (3, 5), (2, 1), (1, 2), ((1, 1), (2, 2)), groups) for groups in (1, 4, 8)),
    Problem(6, 16, 24, (40, 36), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), 2),
    Problem(5, 12, 18, (33, 35), (5, 3), (2, 1), (1, 2), ((2, 1), (0, 3)), 3, padding_mode="reflect"),
    Problem(4, 24, 24, (45, 47), (3, 3), (1, 1), (1, 1), "same", 24, channels_last=True),
    Problem(2, 32, 20, (31, 37), (3, 5), (1, 2), (1, 1), ((0, 0), (2, 2)), _SHARED),
    Problem(3, 16, 24, (19, 21), (4, 4), (2, 2), (1, 1), ((1, 1), (1, 1)), 2, transposed=True, output_padding=(1, 0)),
    Problem(1, 8, 8, (20000,), (9,), (1,), (1,), ((4, 4),)),
]


def bits(problem, operands):
    found = [
        a for result in run(NUMPY, problem, operands) for a in (result if isinstance(result, tuple) else (result,))
    ]
    return [a.tobytes() for a in found]


@pytest.mark.parametrize("problem", WORK, ids=range(len(WORK)))
def test_the_number_of_workers_changes_no_bit(problem):
    operands = normal_arrays(problem, np.random.default_rng(2))
    for tile in (2**14, 2**18, 2**21):
        with cut_into(tile), set_workspace(2**24):
            expected = bits(problem, operands)
            for workers in (1, 2, 3, 8):
                with set_workers(workers):
                    assert bits(problem, operands) == expected


@pytest.mark.parametrize("problem", WORK, ids=range(len(WORK)))
@pytest.mark.parametrize("tile", [plan.TILE_BYTES, 2**16])
def test_the_workspace_changes_no_bit(monkeypatch, problem, tile):
    operands = normal_arrays(problem, np.random.default_rng(3))
    monkeypatch.setattr(plan, "TILE_BYTES", tile)
    expected = bits(problem, operands)
    for workspace in (1, 2**14, 2**20, 2**22, 2**30):
        with set_workspace(workspace):
            assert bits(problem, operands) == expected


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("size", [1, 2**15, 2**18, 2**21, 2**24, 2**34])
def test_the_workspace_changes_no_bit_of_any_data_type(size, dtype):
    for groups in (1, 2, 8):
        expected = results(dtype, groups)
        with set_workspace(size):
            assert_same_bits(results(dtype, groups), expected)


def test_bits_do_not_depend_on_what_other_threads_do():
    """BLAS with another number of threads sums in another order, so every call limits it to one."""
    rng = np.random.default_rng(0)

    def complex_array(*shape):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype("complex64")

    x, weight = complex_array(3, 470, 3, 4), complex_array(470, 49, 3, 2)
    expected = refconv.conv_transpose(x, weight, stride=2, groups=10)
    with set_workspace(1):
        assert np.array_equal(refconv.conv_transpose(x, weight, stride=2, groups=10), expected)
    with threads._blas_limit:  # like another thread's call
        assert np.array_equal(refconv.conv_transpose(x, weight, stride=2, groups=10), expected)


def test_calls_from_several_threads_at_once(small_tiles):
    expected = results()
    before, found = blas_threads(), []
    calls = [threading.Thread(target=lambda: found.append(results())) for _ in range(4)]
    for thread in calls:
        thread.start()
    for thread in calls:
        thread.join()
    assert len(found) == 4
    for result in found:
        assert_same_bits(result, expected)
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


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_fork(small_tiles):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    expected = results()
    context = multiprocessing.get_context("fork")
    sums = context.SimpleQueue()
    child = context.Process(target=lambda: sums.put([float(np.sum(a)) for a in results()]))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert sums.get() == [float(np.sum(a)) for a in expected]


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


def test_blas_threads_are_restored_also_after_an_exception(monkeypatch, small_tiles):
    before = blas_threads()
    results()
    assert blas_threads() == before

    def fail(*args, **kwargs):
        assert set(blas_threads()) <= {1}
        raise ArithmeticError("from inside a tile")

    monkeypatch.setattr(passes._Tiles, "columns", fail)
    with pytest.raises(ArithmeticError, match="inside a tile"):
        results()
    assert blas_threads() == before


# --- Threads and memory ---


def noting_threads(function, seen):
    """Wrap a function so that it adds the name of its thread to `seen`."""
    calls = itertools.count()

    def spy(*args):
        seen.add(threading.current_thread().name)
        if next(calls) < 100:  # lets another thread start, which would otherwise find every task done
            wait_until(lambda: len(seen) > 1, 0.01)
        return function(*args)

    return spy


@contextlib.contextmanager
def thread_names():
    """Return the names of the threads that work on each of the three passes."""
    names = {"correlate": set(), "outer": set(), "scatter": set()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choices, "for_images", lambda call: Taps())
        patch.setattr(choices, "for_both", lambda call: Taps())
        patch.setattr(choices, "for_kernels", lambda call: TapsOfBatch())
        patch.setattr(Taps, "gather", noting_threads(Taps.gather, names["correlate"]))
        patch.setattr(TapsOfBatch, "gather", noting_threads(TapsOfBatch.gather, names["outer"]))
        patch.setattr(passes, "scatter_columns", noting_threads(passes.scatter_columns, names["scatter"]))
        yield names


def test_several_workers_really_work(monkeypatch, small_tiles):
    with thread_names() as names, set_workers(3):
        results()
    assert len(names["correlate"]) > 1
    assert not names["scatter"]  # the input gradient is a correlation, but not from here on
    monkeypatch.setattr(passes, "as_correlation", lambda call: None)
    with thread_names() as names, set_workers(3):
        results()
    for seen in names.values():
        assert 1 < len(seen) <= 3
        assert all(name.startswith("refconv") for name in seen - {threading.main_thread().name})
    with thread_names() as names, set_workers(1):
        results()
    for seen in names.values():
        assert seen == {threading.main_thread().name}


def test_groups_of_one_sample_are_spread(monkeypatch, small_tiles):
    monkeypatch.setattr(passes, "as_correlation", lambda call: None)
    x, weight = np.ones((1, 8, 20, 20), "f4"), np.ones((8, 1, 3, 3), "f4")
    with thread_names() as names, set_workers(2):
        y = refconv.conv(x, weight, groups=8)
        refconv.conv_backward(y, x, weight, groups=8)
    for seen in names.values():
        assert len(seen) == 2


def test_no_more_workers_than_the_workspace_has_room_for(small_tiles):
    """Results of groups that share channels are summed before they are written, so a task has a tile of every group."""
    x, weight = np.ones((4, 4, 40, 30), "f4"), [np.ones((4, 4, 3, 3), "f4")] * 4
    groups = ChannelGroups([range(4)] * 4, [range(k, 16, 4) for k in range(4)])
    for workspace, workers in ((2**15, {1}), (2**20, {2, 3})):
        with thread_names() as names, set_workers(3), set_workspace(workspace):
            y = refconv.conv(x, weight, groups=groups)
            refconv.conv_backward(y, x, weight, groups=groups, needs=("x",))
        assert {len(names["correlate"]), len(names["scatter"])} <= workers


def test_channels_larger_than_the_workspace_are_shared_by_threads(monkeypatch):
    names = set()
    monkeypatch.setattr(passes._Tiles, "columns", noting_threads(passes._Tiles.columns, names))
    x, w = np.ones((16, 1, 400, 400), "f4"), np.ones((1, 1, 3, 3), "f4")  # 10 MB per channel
    with set_workers(2), set_workspace(2**23):
        refconv.conv_backward(x, x, w, padding=1)
    assert len(names) == 2


def peak_beyond_result(call):
    call()  # imports and caches of the first call are not scratch memory
    gc.collect()
    tracemalloc.start()
    try:
        result = call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    arrays = result if isinstance(result, tuple) else (result,)
    return peak - sum(a.nbytes for a in arrays if a is not None)


@pytest.mark.parametrize(("budget", "dtype"), [(2**22, "f4"), long(2**23, "f4"), long(2**23, "c8")])
def test_scratch_memory_stays_within_the_budget(budget, dtype):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((8, 16, 96, 96)).astype(dtype)
    weight = rng.standard_normal((16, 16, 3, 3)).astype(dtype)
    grad = rng.standard_normal((8, 16, 96, 96)).astype(dtype)
    naive = 16 * 9 * 96 * 96 * 8 * 4
    assert naive > 5 * budget
    slack = 2**18  # interpreter objects, the kernel's copies, one row
    with set_workspace(budget), set_workers(2):
        assert peak_beyond_result(lambda: refconv.conv(x, weight, padding=1)) < budget + slack
        assert peak_beyond_result(lambda: refconv.conv_transpose(x, weight, padding=1)) < budget + slack
        assert peak_beyond_result(lambda: refconv.conv_input_grad(grad, weight, x.shape, padding=1)) < budget + slack
        assert peak_beyond_result(lambda: refconv.conv_weight_grad(grad, x, 3, padding=1)) < budget + slack
        assert peak_beyond_result(lambda: refconv.conv_backward(grad, x, weight, padding=1)) < budget + slack
        assert peak_beyond_result(lambda: refconv.conv_transpose_backward(grad, x, weight, padding=1)) < budget + slack


def test_samples_at_once_fit_a_small_workspace():
    x, weight, grad = np.ones((64, 8, 16, 16), "f4"), np.ones((8, 8, 3, 3), "f4"), np.ones((64, 8, 16, 16), "f4")
    for budget in (2**18, 2**20):  # from one or two samples per tile to about six
        with set_workspace(budget), set_workers(1):
            for call in (
                lambda: refconv.conv(x, weight, padding=1),
                lambda: refconv.conv_input_grad(grad, weight, x.shape, padding=1),
            ):
                assert peak_beyond_result(call) < budget + 2**17


def test_a_few_output_rows_that_read_many_input_rows_stay_within_the_budget():
    x, weight = np.zeros((8, 16, 103, 130), "f4"), np.zeros((16, 16, 100, 3), "f4")
    with set_workers(7), set_workspace(2**25):
        y = refconv.conv(x, weight)
        assert peak_beyond_result(lambda: refconv.conv(x, weight)) < 2**25
        assert peak_beyond_result(lambda: refconv.conv_weight_grad(y, x, (100, 3))) < 2**25


def test_a_large_weight_gradient_of_few_channels_is_not_kept_several_times():
    x, g = np.ones((8, 2, 40, 40)), np.ones((8, 512, 10, 10))
    weight_bytes = 512 * 2 * 31 * 31 * 8  # 7.5 MiB
    with set_workers(4):
        extra = peak_beyond_result(lambda: refconv.conv_weight_grad(g, x, 31))
    assert extra < 4 * weight_bytes  # sums, products of one more tile, and their columns


@pytest.mark.parametrize("need", ["x", "weight"])
def test_channels_of_a_wide_group_are_cut(need):
    """One row of all columns would take 7 MiB; the gradients take some channels at a time."""
    x, weight, grad = np.ones((1, 2048, 6, 64), "f4"), np.ones((2, 2048, 3, 5), "f4"), np.ones((1, 2, 4, 60), "f4")
    with set_workers(1):
        call = lambda: refconv.conv_backward(grad, x, weight, needs=(need,))  # noqa: E731
        assert peak_beyond_result(call) < 1.25 * plan.TILE_BYTES


@pytest.mark.parametrize("order", [range(31, -1, -1), range(32)])
def test_scratch_memory_of_channels_in_any_order(order):
    x, weight = np.ones((1, 32, 256, 256), "f4"), [np.ones((32, 32, 3, 3), "f4")]
    groups = ChannelGroups([order], [range(32)])
    with set_workers(2):
        assert peak_beyond_result(lambda: refconv.conv(x, weight, padding=1, groups=groups)) < 2**23


def test_an_infinity_does_not_cost_a_second_result():
    w, g = np.ones((8, 8, 3, 3), "f4"), np.ones((32, 8, 112, 112), "f4")
    g[0, 0, 0, 0] = np.inf
    with set_workers(2), set_workspace(2**20):
        peak = peak_beyond_result(lambda: refconv.conv_input_grad(g, w, g.shape, padding=1))
    assert peak < 1.25 * plan.TILE_BYTES < g.nbytes / 2


def test_padded_rows_between_distant_taps_are_counted():
    x, w = np.ones((64, 64, 5000), "f4"), np.ones((64, 64, 2), "f4")  # 1.2 MiB of a sample between two taps
    y = refconv.conv(x, w, dilation=4900)
    for workers in (1, 7):
        with set_workers(workers), set_workspace(2**26):
            assert peak_beyond_result(lambda: refconv.conv_input_grad(y, w, x.shape, dilation=4900)) < 2**25


# --- Rows of the image ---


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


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("before", [-1, 0, 1, 4])
def test_windows_touching_are_those_that_read_a_row(stride, k, before):
    geo = geometry((9,), (k,), stride=stride, padding=((before, 2),), dilation=1)
    for start in range(9):
        for stop in range(start + 1, 10):
            read = [
                row for row in range(geo.output[0]) if any(start <= row * stride + t - before < stop for t in range(k))
            ]
            first, last = _windows_touching(geo, (start, stop))
            if (start, stop) == (0, 9):
                assert (first, last) == (0, geo.output[0])  # all, also those that read only padding
            else:
                assert list(range(first, last)) == read
