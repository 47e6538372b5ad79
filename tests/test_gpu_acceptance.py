"""`make gpu`: each part finds its mistakes and lists the impossible checks; the driver resumes and reports."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import refconv
from refconv.bench.gpu import MODULES, GpuError, Peak, find_gpu
from refconv.bench.peers import PASSES
from refconv.bench.workloads import Layer
from tests.helpers import script
from tests.test_bench import LAYERS
from tests.test_gpu import NumpyGpu

acceptance: Any = script("benchmarks/gpu_acceptance.py")


class WrongGpu(NumpyGpu):
    """A GPU that adds an error to every array that it receives, more each time."""

    added = 0.0

    def asarray(self, array: Any) -> Any:
        WrongGpu.added += 1
        return array + np.asarray(WrongGpu.added).astype(array.dtype)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use small layers instead of AlexNet's, and NumPy instead of a GPU."""
    monkeypatch.setattr(acceptance, "alexnet", lambda batch: [Layer("conv2", 2, 4, 6, 8, 3, padding=1, spec="2")])
    monkeypatch.setattr(acceptance, "WIDE", (LAYERS[0],))
    monkeypatch.setattr(acceptance, "LARGE", (3, 8))
    monkeypatch.setattr(acceptance, "find_gpu", lambda module: NumpyGpu())


def outcome(name: str, module: str = "cupy") -> Any:
    found = acceptance.run_part(name, module, 2, None, 60.0)
    json.dumps(found)
    return found


def test_smoke_compares_every_operation_on_every_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    found = outcome("smoke")
    assert (found["outcome"], found["wrong"]) == ("passed", [])
    assert len(found["found"]) == 13
    assert {cell for row in found["found"].values() for cell in row.values()} == {"ok"}
    assert set(found["found"]["int8"]) == set(acceptance.OPERATIONS)
    monkeypatch.setattr(acceptance, "find_gpu", lambda module: WrongGpu())
    found = outcome("smoke")
    assert found["outcome"] == "failed"
    assert "uint8, product: wrong" in found["wrong"]

    def lacks(array: Any) -> Any:
        raise RuntimeError("addmm is not implemented for integers\nand a second line")

    monkeypatch.setattr(NumpyGpu, "asarray", lambda self, array: lacks(array) if array.dtype == "int32" else array)
    monkeypatch.setattr(acceptance, "find_gpu", lambda module: NumpyGpu())
    found = outcome("smoke")
    assert len(found["wrong"]) == len(acceptance.OPERATIONS)
    assert found["wrong"][0] == "int32, kernel: RuntimeError: addmm is not implemented for integers"


def test_smoke_computes_as_convolutions_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch stores wide unsigned integers, but does not multiply or add them."""

    class Torch:
        __name__ = "array_api_compat.torch"

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def matmul(self, a: Any, b: Any) -> Any:
            assert a.dtype not in ("uint16", "uint32", "uint64")
            return np.matmul(a, b)

    monkeypatch.setattr(NumpyGpu, "xp", Torch())
    found = outcome("smoke", "torch")
    assert (found["outcome"], found["wrong"]) == ("passed", [])


def test_layers_are_within_bounds_and_exact_on_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = outcome("layers")
    assert found["outcome"] == "passed", found
    assert all(0 <= ratio < 1 for ratio in found["found"]["conv2"].values())
    monkeypatch.setattr(acceptance, "find_gpu", lambda module: WrongGpu())
    found = outcome("layers")
    wrong = " ".join(found["wrong"])
    for of in ("forward", "grad_x", "grad_weight", "grad_bias"):
        assert f"conv2, {of}: error" in wrong
        assert f"conv2, {of}: other bits on whole numbers" in wrong


def test_repeat_compares_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome("repeat")["outcome"] == "passed"
    conv, calls = refconv.conv, iter(range(9))
    monkeypatch.setattr(refconv, "conv", lambda *args, **more: conv(*args, **more) + np.float32(2.0 ** next(calls)))
    found = outcome("repeat")
    assert found["wrong"] == ["conv2, forward: other bits the second time"]


def test_the_kernel_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise RuntimeError("no libnvrtc.so")

    nvrtc = SimpleNamespace(getVersion=missing)
    example = {"why_not": lambda: None, "check": lambda: SimpleNamespace(passed=False, cases_run=7)}
    monkeypatch.setattr(
        acceptance.importlib, "import_module", lambda name: SimpleNamespace(cuda=SimpleNamespace(nvrtc=nvrtc))
    )
    monkeypatch.setattr(acceptance.runpy, "run_path", lambda path: example if Path(path).exists() else {})
    found = outcome("kernel")
    assert (found["outcome"], found["wrong"]) == ("not possible", [])
    assert found["missing"] == ["CuPy cannot compile kernels: RuntimeError: no libnvrtc.so"]
    nvrtc.getVersion = lambda: (13, 0)
    assert outcome("kernel")["outcome"] == "failed"
    example["why_not"] = lambda: "CuPy finds no GPU"
    assert outcome("kernel")["missing"] == ["CuPy finds no GPU"]


def test_peaks_are_beyond_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    found = outcome("peaks")["found"]
    row = found["conv2"]["forward"]["64 MiB"]
    assert row == {"beyond": 2**20 - row["result"], "reserved": 2**21, "result": 2 * 8 * 36 * 4}
    assert found["dense"]["backward"]["1 GiB"]["result"] == 4 * (2 * 3 * 49 + 4 * 27 + 4)
    assert "at most 130 MiB beyond the result: met" in acceptance.show_peaks(found)[-1]
    monkeypatch.setattr(acceptance, "PEAK_MARK", 100)
    assert "beyond the result: owed" in acceptance.show_peaks(found)[-1]
    monkeypatch.setattr(NumpyGpu, "peak", lambda self, call: Peak(0, 0))
    assert outcome("peaks")["missing"] == ["the memory pool's peak is not known: arrays are not allocated from it"]


def bench_record(peer_seconds: dict[str, float | None]) -> dict[str, Any]:
    results = []
    for peer, seconds in peer_seconds.items():
        result: dict[str, Any] = {"layer": "conv1", "peer": peer}
        if seconds is None:
            result |= {"reason": "torch is not installed"}
        else:
            result |= {"median": seconds, "variants": {"64 MiB": 2 * seconds, "1 GiB": seconds}}
        results.append(result)
    return {"results": results}


@pytest.mark.parametrize(("cudnn", "mark"), [(2.0, "met: 1.50"), (1.0, "owed: 3.00"), (None, "not measured")])
def test_timings_claim_no_more_than_was_measured(
    monkeypatch: pytest.MonkeyPatch, cudnn: float | None, mark: str
) -> None:
    given: list[Any] = []
    record = bench_record({"refconv": 3.0, "cudnn": cudnn, "cudnn-tf32": cudnn})
    monkeypatch.setattr(acceptance, "run_bench", lambda settings, say: given.append(settings) or record)
    found = outcome("timings")
    assert found["outcome"] == "passed"
    assert [(s.backend, s.what, s.workloads) for s in given] == [
        ("cupy", what, ("alexnet-128",)) for what in PASSES
    ]  # fmt: skip
    assert found["found"]["mark"] == dict.fromkeys(PASSES, mark)
    reasons = [f"no cuDNN to compare with ({what}): torch is not installed" for what in PASSES]
    assert found["missing"] == ([] if cudnn else reasons)
    page = "\n".join(acceptance.show_timings(found["found"]))
    assert page.count(f"five layers: {mark}.") == 3
    assert page.count(f"| conv1 | 6000.000 | 3000.000 | {f'{1e3 * cudnn:.3f}' if cudnn else ''} |") == 3


def test_timings_need_events(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_events(self: Any, call: Any) -> float:
        raise AttributeError("'Event' object has no attribute 'ptr'")

    monkeypatch.setattr(NumpyGpu, "seconds", no_events)
    found = outcome("timings")
    assert found["outcome"] == "not possible"
    assert found["missing"][0].startswith("the device's events do not measure time: AttributeError")


def test_large_compares_distant_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    found = outcome("large")
    assert found["outcome"] == "passed", found
    assert found["found"] == {"elements": 3 * 64, "weight gradient": [15.0, 12.0]}
    conv, grad = refconv.conv, refconv.conv_weight_grad
    with monkeypatch.context() as patch:
        patch.setattr(refconv, "conv", lambda x, *args, **more: conv(x, *args, **more) * (1 - (x.shape[0] == 3)))
        patch.setattr(refconv, "conv_weight_grad", lambda y, x, *args, **more: grad(y[:2], x[:2], *args, **more))
        assert outcome("large")["wrong"] == [
            "sample 0 of the output is wrong", "sample 1 of the output is wrong", "sample 2 of the output is wrong",
            "the weight gradient must be [15, 12]; got [8.0, 5.0]",
        ]  # fmt: skip
    monkeypatch.setattr(NumpyGpu, "free_bytes", lambda self: 100)
    assert outcome("large")["outcome"] == "not possible"


@pytest.mark.long
def test_a_training_resumes_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: no digits to train on")
    monkeypatch.setattr(NumpyGpu, "module", "numpy")
    assert outcome("train")["outcome"] == "passed"


def test_the_bits_of_two_trainings_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from refconv.experiments import train

    calls: list[tuple[str, bool]] = []
    ends = {"whole": np.zeros(2), "resumed": np.zeros(2)}
    is_interrupted = True

    def run_training(settings: Any, folder: Path, *, resume: bool = False, stopping: Any = None) -> Any:
        calls.append((folder.name, resume))
        if stopping is not None and is_interrupted:
            raise train.InterruptedTrainingError(5, 12)
        return SimpleNamespace(test_accuracy=0.9)

    monkeypatch.setattr(train, "run_training", run_training)
    monkeypatch.setattr("refconv.nn.load_checkpoint", lambda path: ({"weight": ends[path.parent.name]}, {}))
    assert outcome("train")["outcome"] == "passed"
    assert calls == [("whole", False), ("resumed", False), ("resumed", True)]
    ends["resumed"] = -ends["whole"]  # equal numbers, other bits
    assert outcome("train")["wrong"] == ["the resumed training ended with other bits"]
    ends["resumed"], is_interrupted = ends["whole"], False
    assert outcome("train")["wrong"] == ["the training was not interrupted"]


def test_the_tour_must_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    result = SimpleNamespace(passed=True, failures=[])
    monkeypatch.setattr("refconv.tour.run.run_tour", lambda folder, settings: result)
    assert outcome("tour")["outcome"] == "passed"
    result.passed = False
    assert outcome("tour")["wrong"] == ["the tour did not pass"]
    result.failures = ["one", "two", "three", "four"]
    assert outcome("tour")["wrong"] == ["one", "two", "three"]


LOGS = {
    "workers": "[gw1] [ 50%] PASSED tests/a.py::x[cupy-1 2] \n[gw0] [ 99%] FAILED tests/a.py::y[cupy] \n1 failed\n",
    "one process": "tests/a.py::x[cupy-1 2] PASSED   [ 50%]\ntests/a.py::y[cupy] FAILED   [100%]\n1 failed\n",
}


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)
def test_the_suites_outcomes_are_counted(monkeypatch: pytest.MonkeyPatch, log: str) -> None:
    commands: list[list[str]] = []
    end = ""

    def run(command: list[str], file: Any, seconds: float) -> str:
        commands.append(command)
        file.write(log)
        return end

    monkeypatch.setattr(acceptance, "run_pytest", run)
    found = outcome("suite")
    assert found["found"] == {"passed": 1, "failed": 1, "error": 0, "skipped": 0}
    assert [text.strip() for text in found["wrong"]] == ["FAILED tests/a.py::y[cupy]"]
    assert commands[0][commands[0].index("--backend") + 1] == "cupy"
    end = "stopped after 290 seconds"
    assert outcome("suite")["wrong"][-1] == "stopped after 290 seconds; last line: 1 failed"


def test_a_suite_that_runs_no_test_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "run_pytest", lambda command, file, seconds: "")
    assert outcome("suite")["wrong"] == ["no test passed; last line: "]


def test_an_error_is_recorded_and_a_plugin_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(part: Any) -> None:
        part.found["so far"] = 1
        raise ValueError("no such thing\nmore")

    monkeypatch.setitem(acceptance.PARTS, "smoke", broken)
    found = outcome("smoke")
    assert (found["outcome"], found["found"], found["wrong"]) == (
        "failed", {"so far": 1}, ["ValueError: no such thing"]
    )  # fmt: skip
    found = acceptance.run_part("smoke", "cupy", 2, "no_such_plugin", 60.0)
    assert found["wrong"] == ["ModuleNotFoundError: No module named 'no_such_plugin'"]
    for name, expected in (("threadpoolctl", "not possible"), ("refconv.lost", "failed")):
        monkeypatch.setitem(acceptance.PARTS, "smoke", lambda part, name=name: raising(name))
        found = outcome("smoke")
        assert found["outcome"] == expected
        assert found["missing"] == (["threadpoolctl is not installed"] if expected == "not possible" else [])
    assert outcome("train", "torch")["missing"] == ["the command trains PyTorch's tensors on the CPU"]


def raising(name: str) -> None:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_part_that_failed_first_is_not_only_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_then_impossible(part: Any) -> None:
        part.wrong.append("bits")
        raise acceptance.Impossible("no clock")

    monkeypatch.setitem(acceptance.PARTS, "smoke", wrong_then_impossible)
    found = outcome("smoke")
    assert (found["outcome"], found["wrong"], found["missing"]) == ("failed", ["bits"], ["no clock"])


@pytest.mark.parametrize("module", MODULES)
def test_parts_on_this_machines_gpu(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        gpu = find_gpu(module)
    except GpuError as reason:
        pytest.skip(str(reason))
    monkeypatch.setattr(acceptance, "find_gpu", lambda name: gpu)
    for name in ("machine", "layers", "repeat"):
        assert outcome(name, module)["wrong"] == []


# --- The driver ------------------------------------------------------------------------------------------------------


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parts that only record their runs; a test changes their outcomes."""
    ran: list[str] = []
    outcomes = {"cupy: repeat": "failed", "cupy: peaks": "not possible", "torch: machine": "not possible"}

    def in_process(name: str, module: str, given: Any, seconds: float) -> Any:
        key = f"{module}: {name}"
        ran.append(key)
        found: dict[str, Any] = (
            {"versions": {"numpy": "2"}, "switches": {"CUPY_TF32": "1"}} if name == "machine" else {}
        )
        ended = outcomes.get(key, "passed")
        wrong, missing = (["bits"] if ended == "failed" else []), (["a pool"] if ended == "not possible" else [])
        return {"outcome": ended, "seconds": 1.5, "wrong": wrong, "missing": missing, "found": found}

    monkeypatch.setattr(acceptance, "in_process", in_process)
    monkeypatch.setattr(acceptance, "state_of_code", lambda: "abc")
    return SimpleNamespace(ran=ran, outcomes=outcomes)


def test_a_second_run_repeats_what_has_not_passed(driven: Any, tmp_path: Path, capsys: Any) -> None:
    arguments = ["--out", str(tmp_path / "gpu"), "--only", "peaks", "smoke", "repeat"]
    assert acceptance.main(arguments) == 1
    machines = ["cupy: machine", "torch: machine"]
    assert driven.ran == [*machines, "cupy: smoke", "cupy: repeat", "cupy: peaks"]
    assert "2 passed, 1 failed, 2 not possible" in capsys.readouterr().out
    page = (tmp_path / "gpu" / "gpu.md").read_text("utf-8")
    assert "* cupy: a device that is not described, numpy 2, CUPY_TF32 1" in page
    assert "* torch: not ready, so none of its parts ran" in page
    assert "| cupy: smoke | passed | 1.5 |" in page
    assert "## Failed\n\n* cupy: repeat: bits\n" in page
    assert "## Not done here\n\n* torch: machine: a pool\n* cupy: peaks: a pool\n" in page

    driven.ran.clear()
    driven.outcomes["cupy: repeat"] = "passed"
    assert acceptance.main(arguments) == 0
    assert driven.ran == [*machines, "cupy: repeat", "cupy: peaks"]
    record = json.loads((tmp_path / "gpu" / "gpu.json").read_text("utf-8"))
    assert record["parts"]["cupy: smoke"]["outcome"] == "passed"

    for change in (["--again"], ["--batch", "3"]):
        driven.ran.clear()
        acceptance.main([*arguments, *change])
        assert "cupy: smoke" in driven.ran


def test_the_parts_of_an_interrupted_run_are_resumed(
    driven: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process = acceptance.in_process

    def interrupted(name: str, *given: Any) -> Any:
        if name == "layers":
            raise KeyboardInterrupt
        return in_process(name, *given)

    arguments = ["--out", str(tmp_path), "--only", "smoke", "layers"]
    with monkeypatch.context() as patch:
        patch.setattr(acceptance, "in_process", interrupted)
        assert acceptance.main(arguments) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted; run it again to resume"
    page = (tmp_path / "gpu.md").read_text("utf-8")
    assert "2 passed, 0 failed, 1 not possible, 9 not run." in page
    assert "* cupy: layers: not run yet\n* cupy: repeat: not run yet\n" in page
    driven.ran.clear()
    assert acceptance.main(arguments) == 0
    assert driven.ran == ["cupy: machine", "torch: machine", "cupy: layers"]
    assert "cupy: layers: not run yet" not in (tmp_path / "gpu.md").read_text("utf-8")


def test_both_modules_run_a_part_before_the_next(driven: Any, tmp_path: Path) -> None:
    driven.outcomes["torch: machine"] = "passed"
    acceptance.main(["--out", str(tmp_path), "--only", "suite", "smoke"])
    assert driven.ran[2:] == ["cupy: smoke", "torch: smoke", "cupy: suite", "torch: suite"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_record_is_made_again(driven: Any, tmp_path: Path, capsys: Any, text: str) -> None:
    (tmp_path / "gpu.json").write_text(text, "utf-8")
    assert acceptance.main(["--out", str(tmp_path), "--only", "smoke"]) == 0
    assert "gpu.json is damaged (" in capsys.readouterr().err
    assert json.loads((tmp_path / "gpu.json").read_text("utf-8"))["parts"]["cupy: smoke"]["outcome"] == "passed"


def test_bad_usage_is_one_error(driven: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    for words, message in (
        (["--out", str(tmp_path / "file")], "argument --out: [Errno 17]"),
        (["--batch", "0"], "argument --batch: 0 is less than 1"),
        (["--batch", "many"], "argument --batch: invalid positive value: 'many'"),
        (["--only", "speed"], "argument --only: invalid choice: 'speed'"),
    ):
        with pytest.raises(SystemExit) as ended:
            acceptance.main(words)
        assert (ended.value.code, driven.ran) == (2, [])
        assert message in capsys.readouterr().err


def test_without_a_gpu_nothing_passes(driven: Any, tmp_path: Path) -> None:
    driven.outcomes["cupy: machine"] = "not possible"
    assert acceptance.main(["--out", str(tmp_path)]) == 1
    assert driven.ran == ["cupy: machine", "torch: machine"]


def test_a_part_for_which_no_time_is_left_is_listed(driven: Any, tmp_path: Path) -> None:
    acceptance.main(["--out", str(tmp_path), "--minutes", "0", "--only", "smoke"])
    assert driven.ran == ["cupy: machine", "torch: machine"]
    page = (tmp_path / "gpu.md").read_text("utf-8")
    assert "* cupy: smoke: 0 minutes had passed; run it again to resume" in page


def test_the_page_shows_what_was_found() -> None:
    found = outcome("smoke")
    parts = {"cupy: smoke": found, "cupy: layers": outcome("layers"), "cupy: large": outcome("large")}
    state = {"code": "abc", "plugin": "plug", "machines": {}}
    page = acceptance.page({"date": "2026-01-01", "state": state, "parts": parts})
    assert "2026-01-01, abc: 3 passed, 0 failed, 0 not possible, 0 not run." in page
    assert "`plug` was imported first: what follows may not describe a GPU." in page
    assert "| int8 | ok | ok | ok | ok | ok | ok |" in page
    assert "| layer | forward | grad_x | grad_weight | grad_bias |\n|---|---|---|---|---|\n| conv2 | 0." in page
    assert "* weight gradient: [15.0, 12.0]" in page
    assert "## Failed\n\nNothing." in page


def test_a_part_runs_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = SimpleNamespace(batch=2, plugin="no_such_plugin")
    found = acceptance.in_process("machine", "cupy", given, 60.0)
    assert found["wrong"] == ["ModuleNotFoundError: No module named 'no_such_plugin'"]
    monkeypatch.setattr(acceptance.sys, "executable", "false")
    found = acceptance.in_process("machine", "cupy", given, 60.0)
    assert found["outcome"] == "failed"
    assert found["wrong"] == ["ended with code 1, or was stopped after 60 seconds: it printed nothing"]
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nsleep 60\n", "utf-8")
    hangs.chmod(0o755)
    monkeypatch.setattr(acceptance.sys, "executable", str(hangs))
    assert "code -9" in acceptance.in_process("machine", "cupy", given, 0.05)["wrong"][0]


def test_an_interrupted_part_leaves_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hangs, pid = tmp_path / "hangs", tmp_path / "pid"
    hangs.write_text(f"#!/bin/sh\necho $$ > {pid}\nsleep 60\n", "utf-8")
    hangs.chmod(0o755)
    monkeypatch.setattr(acceptance.sys, "executable", str(hangs))

    def wait(process: Any, timeout: Any = None) -> Any:
        if process.returncode is None and not interrupted and timeout is not None:
            while not pid.exists() or not pid.read_text("utf-8").endswith("\n"):
                pass
            interrupted.append(process)
            raise KeyboardInterrupt
        return original(process, timeout)

    interrupted: list[Any] = []
    original = acceptance.subprocess.Popen.wait
    monkeypatch.setattr(acceptance.subprocess.Popen, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        acceptance.in_process("machine", "cupy", SimpleNamespace(batch=2, plugin=None), 60.0)
    assert original(interrupted[0], 10) == -9


def test_uncommitted_changes_are_another_state(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = {"diff": b"", "describe": b"abc\n"}

    def run(command: list[str], **options: Any) -> Any:
        return SimpleNamespace(stdout=outputs[command[3]])

    monkeypatch.setattr(acceptance.subprocess, "run", run)
    states = [acceptance.state_of_code()]
    for outputs["diff"] in (b"-a\n+b\n", b"-a\n+c\n"):
        states.append(acceptance.state_of_code())
    assert states[0] == "abc"
    assert len({*states}) == 3
    assert states[1].startswith("abc with changes ")


def test_alexnets_layers_take_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = script("benchmarks/gpu_acceptance.py").alexnet(3)
    assert [(layer.name, layer.batch) for layer in layers] == [(f"conv{i}", 3) for i in range(1, 6)]
    assert acceptance.state_of_code()
