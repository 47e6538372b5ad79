"""Measuring a real training step in a new process: its bytes, and clear errors if it cannot be measured."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refconv.experiments import measure
from refconv.experiments.measure import MeasureError, measure_step, peak_bytes
from refconv.settings import ENGINES, set_engine


def test_a_step_of_lenet5_is_measured() -> None:
    found = measure_step("lenet5", np.int64(64))
    assert found.batch == 64
    # Values, gradients, momentum and kept arrays are 6 MB; the buffers of the array libraries are additional.
    assert 2e6 < found.bytes < 80e6
    assert 0 < found.seconds < 60


@pytest.mark.parametrize("name", ENGINES)
def test_the_step_is_computed_by_the_engine_of_the_caller(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        script = "from refconv.settings import engine; import sys; sys.exit(engine())"  # printed instead of a step
        return original([command[0], "-c", script], env=env, capture_output=True, text=True, check=False)

    original = subprocess.run
    monkeypatch.setattr(measure.subprocess, "run", run)
    with set_engine(name), pytest.raises(MeasureError, match=name):
        measure_step("lenet5", 1)


def test_the_peak_stays_after_the_memory_is_free() -> None:
    before = peak_bytes()
    ballast = np.ones((before + 2**26) // 8)  # more than the peak so far, even if memory has been freed
    high = peak_bytes()
    assert high >= before + 2**25
    del ballast
    assert peak_bytes() >= high - 2**20  # Linux counts in coarse steps


def test_systems_without_proc_ask_getrusage(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource", reason="this system has no getrusage")

    def missing(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(measure.sys, "platform", "linux")
    assert peak_bytes() == 1024 * most
    monkeypatch.setattr(measure.sys, "platform", "darwin")
    assert peak_bytes() == most
    monkeypatch.setitem(sys.modules, "resource", None)
    with pytest.raises(MeasureError, match="Linux, macOS and BSD only"):
        measure_step("lenet5", 1)


def test_a_step_that_ends_badly_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure.sys, "executable", shutil.which("false"))
    with pytest.raises(MeasureError, match=r"^the step of lenet5 with batch 2 ended with code 1: it printed nothing"):
        measure_step("lenet5", 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("vgg", 1), ValueError, "model must be one of"),
        (("lenet5", 0), ValueError, "batch must be at least 1"),
        (("lenet5", 1.5), TypeError, "batch must be an integer"),
        (("lenet5", 1, 3), ValueError, "groups=3 does not divide"),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        measure_step(*arguments)
