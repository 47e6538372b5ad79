"""Array modules (``--backend``) and engines that the tests run with, and how Hypothesis draws."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings

from refconv.settings import ENGINES
from tests.helpers import BACKENDS, NUMPY, Backend, Missing, load

_QUIET = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
    "print_blob": True,
}
# The same examples in every run, everywhere; "search" looks for new ones (pytest --hypothesis-profile=search).
settings.register_profile("ci", max_examples=60, derandomize=True, database=None, **_QUIET)
settings.register_profile("search", max_examples=2000, **_QUIET)
# Mutation testing asks only whether a test fails, so nothing is spent on a smaller example of it.
_FIRST = {"phases": [Phase.explicit, Phase.generate], "derandomize": True, "database": None, **_QUIET}
settings.register_profile("mutation-quick", max_examples=10, **_FIRST)
settings.register_profile("mutation-full", max_examples=60, **_FIRST)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

BOTH_ENGINES = {
    "test_arrays", "test_bounds", "test_check_refconv", "test_conv_backward", "test_conv_forward",
    "test_conv_transpose", "test_definition", "test_devices", "test_errors", "test_im2col", "test_messages",
    "test_properties", "test_textbook", "test_torch_agreement",
}  # fmt: skip
"""Modules of the core: their tests run with both engines, through `backend` or, if they do not take it, `engine`."""

ON_GPU = "torch_cuda"
"""Its tests are not even skipped if it is missing: most machines lack it and test PyTorch's tensors on the CPU."""

SLOW_EXAMPLES = {"docs/test-vectors.md", "refconv/testing/checker/witness.py"}
"""Files whose examples only `make check` runs; their subjects are also tested otherwise."""

_CHOSEN = pytest.StashKey[dict[str, "Backend | str"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        metavar="NAME",
        help="run on one array module only: numpy (both engines), array_api_strict, torch, torch_cuda or "
        "cupy (default: every installed one)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background: children would ignore it too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("COLUMNS", None)  # which xdist sets: tables would be cut to it
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process of a test would compile all of refconv again
    name = config.getoption("--backend")
    known = [b for b in BACKENDS if b not in NUMPY[1:]]
    if name is not None and name not in BACKENDS:
        raise pytest.UsageError(f"--backend {name}: unknown array module; choose one of {', '.join(known)}")
    wanted = BACKENDS if name is None else NUMPY if name == "numpy" else (name,)
    chosen: dict[str, Backend | str] = {}
    for wish in wanted:
        try:
            chosen[wish] = load(wish)
        except Missing as reason:
            if name is not None:
                raise pytest.UsageError(f"--backend {name}: {reason}") from None
            chosen[wish] = str(reason)
    config.stash[_CHOSEN] = chosen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    is_core = metafunc.module.__name__.rpartition(".")[2] in BOTH_ENGINES
    left_out = {"backend": () if is_core else ("textbook",), "other_backend": (*NUMPY, ON_GPU)}
    for fixture in left_out.keys() & set(metafunc.fixturenames):
        params = [
            pytest.param(found, id=name, marks=pytest.mark.skip(reason=found) if isinstance(found, str) else ())
            for name, found in metafunc.config.stash[_CHOSEN].items()
            if name not in left_out[fixture] and not (name == ON_GPU and isinstance(found, str))
        ]
        metafunc.parametrize(fixture, params)
    if (
        is_core and "backend" not in metafunc.fixturenames and not metafunc.module.__name__.endswith("test_textbook")
    ):  # which chooses the engine itself
        metafunc.fixturenames.append("engine")
        metafunc.parametrize("engine", ENGINES)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of each test marked `thinned(n)`, run every n-th case in `make test` and mark the others as long."""
    cases: Counter[tuple[Any, ...]] = Counter()
    for item in items:
        if item.nodeid.partition("::")[0] in SLOW_EXAMPLES:
            item.add_marker("long")
        if mark := item.get_closest_marker("thinned"):
            (every,) = mark.args
            name = (item.path, item.originalname)  # type: ignore[attr-defined]  # of a test function
            if cases[name] % every:
                item.add_marker("long")
            cases[name] += 1


@pytest.fixture(autouse=True)
def _engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test, and its threads, with the engine in its parameters: the one of a NumPy backend, or `engine`.

    Outside the core, new arrays are made on the backend's device; the core must take the device from its operands.
    """
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    backend, engine = params.get("backend"), params.get("engine")
    name = getattr(backend, "name", None)
    if name in NUMPY:
        engine = "textbook" if name == "textbook" else "fast"
    device: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if isinstance(backend, Backend) and request.module.__name__.rpartition(".")[2] not in BOTH_ENGINES:
        device = backend.by_default()
    with device, mock.patch.dict(os.environ, {"REFCONV_ENGINE": engine} if engine in ENGINES else {}):
        yield


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print, for each array module, whether it was tested and, if not, the reason and the number of skipped tests."""
    chosen = config.stash.get(_CHOSEN, {})
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    terminalreporter.section("array modules")
    for name, found in chosen.items():
        if isinstance(found, str):
            count = f"{sum(found in reason for reason in skipped)} tests skipped"
            terminalreporter.write_line(f"{name}: {'not tested' if name == ON_GPU else count}, {found}")
        else:
            terminalreporter.write_line(f"{name}: tested")
