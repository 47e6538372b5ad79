"""Other libraries' convolutions and plain correct ones through the checker: no false alarm."""

import functools
import importlib
import sys
import warnings

import numpy as np
import pytest

from refconv.testing import check_conv
from refconv.testing.adapters import Adapter, jax_conv, onnxruntime_conv, torch_conv
from refconv.testing.checker.check import DTYPES
from refconv.testing.checker.examine import Prepared
from refconv.testing.checker.plan import plan
from tests.correct_convolutions import CORRECT

EVERYTHING = ("bias", "stride", "padding", "dilation", "groups", "asymmetric_padding")
KINDS = [(d, transposed) for transposed in (False, True) for d in (1, 2, 3)]
KIND_IDS = [f"{d}d{'-transposed' if transposed else ''}" for d, transposed in KINDS]
PEERS = {
    torch_conv: ("torch",),
    jax_conv: ("jax",),
    onnxruntime_conv: ("onnx", "onnxruntime"),
}
# Peers known to round more often than the bounds allow: see docs/checking.md. They are right on whole numbers.
ROUNDS_MORE = {
    (torch_conv, "float16"): {"real values"},
    (torch_conv, "complex64"): {"real values"},
    (jax_conv, "float16"): {"real values"},
    (jax_conv, "complex64"): {"real values"},
}


@functools.cache
def made(peer, d: int, transposed: bool) -> Adapter:
    for package in PEERS[peer]:
        try:
            importlib.import_module(package)
        except ImportError:
            pytest.skip(f"{package} is not installed: {peer.__name__} is not checked")
    adapter = peer(d, transposed)
    if peer is torch_conv:
        adapter = adapter._replace(forward=in_one_thread(adapter.forward), backward=in_one_thread(adapter.backward))
    return adapter


def in_one_thread(function):
    """Limit PyTorch to one thread, which is faster for small problems; every calling thread has its own limit."""

    def call(*args, **options):
        importlib.import_module("torch").set_num_threads(1)
        return function(*args, **options)

    return call


def names(function) -> str:
    return function.__name__


def some(*arguments):
    """Return one problem in 40, others for each data type: JAX takes a third of a second to compile for each shape."""
    cases = list(plan(*arguments))[7 * DTYPES.index(arguments[3]) :: 40]
    return len(cases), map(Prepared, cases)


def check(adapter: Adapter, dtype: str, **more):
    settings = {**adapter.settings(), "dtype": dtype, "cases": 40, **more}
    with pytest.MonkeyPatch.context() as patch:
        if adapter.name.startswith("JAX "):
            patch.setattr("refconv.testing.checker.check._planned", some)
        return check_conv(adapter.forward, adapter.backward, **settings)


# --- Peers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("d", "transposed"), KINDS, ids=KIND_IDS)
@pytest.mark.parametrize("peer", PEERS, ids=names)
def test_peer_passes(peer, d, transposed, dtype):
    adapter = made(peer, d, transposed)
    if dtype not in adapter.dtypes:
        pytest.skip(f"{adapter.name} has no {dtype} convolution on the CPU")
    check(adapter, dtype).raise_if_failed()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "complex64"])
@pytest.mark.parametrize("peer", PEERS, ids=names)
def test_other_data_types(peer, dtype, transposed):
    adapter = made(peer, 1, transposed)
    if dtype not in adapter.dtypes:
        pytest.skip(f"{adapter.name} has no {dtype} convolution on the CPU")
    report = check(adapter, dtype)
    # How a peer rounds depends on the processor, so a failure is allowed, not required.
    assert {failure.check for failure in report.failures} <= ROUNDS_MORE.get((peer, dtype), set()), str(report)


def test_onnxruntime_output_padding_below_the_stride():
    """It refuses only an output padding of at least the stride, which requires dilation."""
    for d in (1, 2, 3):
        adapter = made(onnxruntime_conv, d, True)
        supports = {*adapter.supports, "output_padding"} - {"dilation"}
        check(adapter, "float32", supports=sorted(supports)).raise_if_failed()


@pytest.mark.parametrize("peer", PEERS, ids=names)
def test_read_only_arrays_raise_no_warning(peer):
    adapter = made(peer, 1, False)
    x, weight, g = np.ones((1, 2, 5), "float32"), np.ones((3, 2, 2), "float32"), np.ones((1, 3, 4), "float32")
    for array in (x, weight, g):
        array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = adapter.forward(x[..., ::-1], weight, None, (1,), (0,), (1,), 1)
        assert np.array_equal(y, np.full((1, 3, 4), 4))
        if adapter.backward is not None:
            grads = adapter.backward(g, x, weight, (1,), (0,), (1,), 1)
            assert [grad.shape for grad in grads] == [x.shape, weight.shape, (3,)]


@pytest.mark.parametrize("peer", PEERS, ids=names)
def test_missing_package_is_named(peer, monkeypatch):
    for package in PEERS[peer]:
        monkeypatch.setitem(sys.modules, package, None)  # as if not installed
    with pytest.raises(ImportError, match=rf"^{peer.__name__} needs the package \w+: pip install [a-z ]+ \("):
        peer()


@pytest.mark.parametrize("peer", PEERS, ids=names)
def test_wrong_arguments(peer):
    with pytest.raises(ValueError, match="spatial_dims must be at least 1; got 0"):
        peer(0)
    with pytest.raises(ValueError, match="spatial_dims must be at most"):
        peer(7)
    with pytest.raises(TypeError, match="transposed must be"):
        peer(2, "yes")


# --- Plain correct implementations -----------------------------------------------------------------------------------


SLOW = ("loops", "scipy")  # take seconds with several axes


def available(name: str):
    if name == "scipy":
        pytest.importorskip("scipy", reason="SciPy is not installed: a convolution by its correlation is not checked")
    return CORRECT[name]


@pytest.mark.thinned(13)
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("name", CORRECT)
def test_no_false_alarm(name, number):
    pair = available(name)
    dtype, d = pair.dtypes[number], (2, 3, 1, 1, 2)[number]
    if name in SLOW and number > 1:
        d = 1
    options = {"spatial_dims": d, "supports": EVERYTHING, "dtype": dtype, "seed": number, "cases": 20}
    options["pairs"] = number < 2 and name not in SLOW
    report = check_conv(pair.forward, pair.backward, **options)
    report.raise_if_failed()
    assert not [note for note in report.notes if "suspicious" in note]
