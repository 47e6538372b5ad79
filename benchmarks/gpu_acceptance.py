"""Run refconv on a GPU, part by part, and write one JSON record and one Markdown page: `make gpu`.

Each part runs in a separate process, on CuPy's device and on PyTorch's, so that a crash costs one part. If a part fails
or is impossible on this machine, the error or the reason is recorded, and the other parts continue. The files are
written after each part. A second run resumes: it repeats only parts that have not passed, unless the code, the versions
or the card have changed.

    python benchmarks/gpu_acceptance.py [--out DIR] [--only PART …] [--again] [--minutes N] [--plugin MODULE]

`--plugin` names a Python module that each part imports first, in case CuPy is provided in another way. Exits with 1 if
a part failed or no GPU was found.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import itertools
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import refconv
from refconv.arrays import DTYPES, computing_dtype, get_dtype, item_bytes, to_numpy
from refconv.bench.gpu import MODULES, Gpu, GpuError, find_gpu
from refconv.bench.peers import PASSES, WORKSPACES, operands
from refconv.bench.record import header, write
from refconv.bench.run import PACKAGES, Settings, run_bench
from refconv.bench.workloads import WORKLOADS, Layer
from refconv.files import replacing
from refconv.packages import MissingPackagesError
from refconv.testing import error_bound

ROOT = Path(__file__).resolve().parents[1]
RECORD, PAGE = "gpu.json", "gpu.md"
PART_SECONDS = 120
LIMITS = {"timings": 240, "suite": 300}
"""Maximum seconds of a part, and of the parts that may take longer."""
TIME_MARK = 1.5
"""Maximum ratio of refconv's time for AlexNet's convolutions to cuDNN's without TF32."""
PEAK_MARK = 130 * 2**20
"""Maximum bytes beyond the result for `WIDE`."""
WIDE = (
    Layer("512→512 on 7×7", 32, 512, 7, 512, 3, padding=1),
    Layer("256→1024 on 6×6", 32, 256, 6, 1024, 3, padding=1),
)
LARGE = (2049, 1024)
"""Number and side of the images in the large array."""
SWITCHES = ("CUPY_TF32", "NVIDIA_TF32_OVERRIDE", "CUPY_ACCELERATORS", "CUDA_VISIBLE_DEVICES", "REFCONV_BACKEND")
"""Environment variables that change the results or the device."""

Found = dict[str, Any]


class Impossible(Exception):  # noqa: N818  (no fault of refconv)
    """A part cannot be done on this machine; the message says why."""


class Part:
    """The device of one part, and its findings.

    Attributes
    ----------
    gpu : Gpu
        The device.
    batch : int
        Images in large batches.
    plugin : str or None
        The module to import first.
    seconds : float
        Maximum time of the part.
    found : dict
        Numbers for the record.
    wrong : list of str
        The failures.
    missing : list of str
        The measurements and checks that were impossible, with the reasons.
    """

    def __init__(self, gpu: Gpu, batch: int, plugin: str | None, seconds: float) -> None:
        self.gpu, self.batch, self.plugin, self.seconds = gpu, batch, plugin, seconds
        self.found: Found = {}
        self.wrong: list[str] = []
        self.missing: list[str] = []


def alexnet(batch: int) -> list[Layer]:
    """Return AlexNet's convolutions with two groups, for a batch of any size."""
    return [Layer(**{**vars(layer), "batch": batch}) for layer in WORKLOADS["alexnet"]]


def problem(layer: Layer, *, whole: bool = False) -> tuple[list[Any], Found]:
    """Return x, weight, bias and grad_output of a layer as NumPy arrays in float32, and the options of the call."""
    x, weights, bias, grad = operands(layer, "float32")
    given = [x, np.concatenate(weights), bias, grad]
    options = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups.n}
    return [np.rint(array) for array in given] if whole else given, options


def results(x: Any, weight: Any, bias: Any, grad: Any, options: Found) -> dict[str, Any]:
    """Return the output and the gradients of a convolution, by name."""
    grads = refconv.conv_backward(grad, x, weight, **options)
    y = refconv.conv(x, weight, bias, **options)
    return {"forward": y, "grad_x": grads.x, "grad_weight": grads.weight, "grad_bias": grads.bias}


def require(what: str, call: Callable[[], Any]) -> Any:
    """Return the result of a call; if it raises, the machine lacks something that the part needs."""
    try:
        return call()
    except Exception as error:  # of CuPy, PyTorch or the driver: each has several classes
        raise Impossible(f"{what}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return the class and the first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


# --- The parts -------------------------------------------------------------------------------------------------------


def machine(part: Part) -> None:
    """Describe the card, the versions and the switches."""
    part.found["versions"] = header(packages=PACKAGES)["versions"]
    part.found["switches"] = {name: os.environ[name] for name in SWITCHES if name in os.environ}
    try:
        part.found["card"] = require("the card is not described", part.gpu.card)
    except Impossible as reason:
        part.missing.append(str(reason))


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "kernel": lambda xp, a: a * a + a,
    "reduction": lambda xp, a: xp.sum(a, axis=1, dtype=a.dtype),
    "product": lambda xp, a: xp.matmul(a[0, ...], xp.matrix_transpose(a[1, ...])),
    "batched product": lambda xp, a: xp.matmul(a, xp.matrix_transpose(a)),
    "strided views": lambda xp, a: a[:, ::2, 1:4:2] + a[:, 1::2, 2:5:2],
    "zero sizes": lambda xp, a: xp.matmul(a[:0, ...], xp.matrix_transpose(a[:0, ...])),
}
"""Operations that refconv uses, on an array of shape (2, 4, 5)."""


def smoke(part: Part) -> None:
    """Run `OPERATIONS` on every data type, and compare the results exactly with NumPy's.

    As in a convolution, they compute in another data type where the module cannot compute in the array's own.
    """
    xp = part.gpu.xp
    numbers = np.arange(2 * 4 * 5).reshape(2, 4, 5) % 3
    for dtype in DTYPES:
        row = part.found.setdefault(dtype, {})
        for name, operation in OPERATIONS.items():
            try:
                computing = get_dtype(xp, computing_dtype(xp, dtype))
                array = xp.astype(part.gpu.asarray(numbers.astype(dtype)), computing, copy=False)
                actual = to_numpy(xp.astype(operation(xp, array), get_dtype(xp, dtype), copy=False))
                expected = operation(np, numbers.astype(dtype))
                row[name] = "ok" if actual.dtype == dtype and np.array_equal(actual, expected) else "wrong"
            except Exception as error:  # each is a finding about this data type
                row[name] = first_line(error)
            if row[name] != "ok":
                part.wrong.append(f"{dtype}, {name}: {row[name]}")


def layers(part: Part) -> None:
    """Compare AlexNet's layers with float64 on the CPU within derived bounds, and exactly on whole numbers."""
    for layer in alexnet(2):
        given, options = problem(layer)
        there = results(*map(part.gpu.asarray, given), options)
        here = results(*(array.astype("float64") for array in given), options)
        x, weight, bias, grad = given
        for of in there:
            bound = error_bound(x, weight, bias if of == "forward" else None, of=of, grad_output=grad, **options)
            ratio = float(np.max(np.abs(to_numpy(there[of]) - here[of]) / bound))
            part.found.setdefault(layer.name, {})[of] = ratio
            if not ratio <= 1:  # NaN is wrong as well
                part.wrong.append(f"{layer.name}, {of}: error {ratio:.3g} times its bound")
        whole, options = problem(layer, whole=True)
        there, here = results(*map(part.gpu.asarray, whole), options), results(*whole, options)
        part.wrong += [
            f"{layer.name}, {of}: other bits on whole numbers"
            for of in there
            if not np.array_equal(to_numpy(there[of]), here[of])
        ]


def repeat(part: Part) -> None:
    """Compute AlexNet's layers twice and compare every bit."""
    for layer in alexnet(part.batch):
        given, options = problem(layer)
        there = [part.gpu.asarray(array) for array in given]
        first, second = ({of: to_numpy(a).tobytes() for of, a in results(*there, options).items()} for _ in range(2))
        part.found[layer.name] = {of: "same bits" if first[of] == second[of] else "other bits" for of in first}
        part.wrong += [f"{layer.name}, {of}: other bits the second time" for of in first if first[of] != second[of]]


def kernel(part: Part) -> None:
    """Check the example of a kernel written by hand: docs/examples/cupy_kernel.py."""
    cuda = importlib.import_module("cupy").cuda
    require("CuPy cannot compile kernels", cuda.nvrtc.getVersion)
    example = runpy.run_path(str(ROOT / "docs" / "examples" / "cupy_kernel.py"))
    if reason := example["why_not"]():
        raise Impossible(reason)
    report = example["check"]()
    part.found["problems"] = report.cases_run
    if not report.passed:
        part.wrong += str(report).splitlines()[:1]


def peaks(part: Part) -> None:
    """Measure the memory pool's peak beyond the result, in both workspaces."""
    small = part.gpu.asarray(np.zeros(1024))
    if require("the memory pool's peak is not known", lambda: part.gpu.peak(lambda: small + small)).used == 0:
        raise Impossible("the memory pool's peak is not known: arrays are not allocated from it")
    for layer in (*alexnet(part.batch), *WIDE):
        given, options = problem(layer)
        x, weight, bias, grad = map(part.gpu.asarray, given)
        calls: dict[str, tuple[Callable[[], Any], int]] = {
            "forward": (lambda x=x, w=weight, b=bias, o=options: refconv.conv(x, w, b, **o), given[3].nbytes),
            "backward": (
                lambda g=grad, x=x, w=weight, o=options: refconv.conv_backward(g, x, w, **o),
                sum(array.nbytes for array in given[:3]),
            ),
        }  # fmt: skip
        for (name, workspace), (what, (call, result)) in itertools.product(WORKSPACES.items(), calls.items()):
            with refconv.set_workspace(workspace):
                peak = part.gpu.peak(call)
            row = {"beyond": peak.used - result, "reserved": peak.reserved, "result": result}
            part.found.setdefault(layer.name, {}).setdefault(what, {})[name] = row


def timings(part: Part) -> None:
    """Time AlexNet's convolutions, forward, backward and both, against cuDNN."""
    require("the device's events do not measure time", lambda: part.gpu.seconds(lambda: None))
    for what in PASSES:
        settings = Settings(("alexnet-128",), None, "float32", what, 1, 0.3, 0.0, part.gpu.module)
        part.found[what] = run_bench(settings, lambda line: print(line, file=sys.stderr))
        reasons = {r["reason"] for r in part.found[what]["results"] if "reason" in r and r["peer"] != "refconv"}
        part.missing += [f"no cuDNN to compare with ({what}): {reason}" for reason in sorted(reasons)]
    part.found["mark"] = time_mark(part.found)


def time_mark(found: Found) -> dict[str, str]:
    """Return by pass whether AlexNet's five convolutions take at most `TIME_MARK` times cuDNN's time without TF32."""
    verdicts = {}
    for what in PASSES:
        totals = {
            peer: sum(r.get("median", np.nan) for r in found[what]["results"] if r["peer"] == peer)
            for peer in ("refconv", "cudnn")
        }
        ratio = totals["refconv"] / totals["cudnn"]
        verdict = "not measured" if np.isnan(ratio) else "met" if ratio <= TIME_MARK else "owed"
        verdicts[what] = verdict if np.isnan(ratio) else f"{verdict}: {ratio:.2f}"
    return verdicts


def large(part: Part) -> None:
    """Convolve an array of more than 2³¹ elements, and compare three of its images exactly."""
    require("the card is not described", part.gpu.card)
    n, side = LARGE
    needed = 3 * n * side**2 * item_bytes("float16")
    if (free := part.gpu.free_bytes()) < needed:
        raise Impossible(f"it needs {needed / 2**30:.0f} GiB of free memory; there are {free / 2**30:.1f}")
    xp, weight = part.gpu.xp, part.gpu.asarray(np.array([[[[1, 2]]]], "float16"))
    x = xp.zeros((n, 1, side, side), dtype=weight.dtype, device=weight.device)
    for sample, row, column, value in ((0, 0, 0, 3), (n // 2, 5, 6, 5), (n - 1, side - 1, side - 2, 7)):
        x[sample, 0, row, column] = value
    y = refconv.conv(x, weight, padding=((0, 0), (0, 1)))
    for sample in (0, n // 2, n - 1):
        expected = refconv.conv(to_numpy(x[sample]), to_numpy(weight), padding=((0, 0), (0, 1)))
        if not np.array_equal(to_numpy(y[sample]), expected):
            part.wrong.append(f"sample {sample} of the output is wrong")
    y[...] = 1
    grad = to_numpy(refconv.conv_weight_grad(y, x, (1, 2), padding=((0, 0), (0, 1)))).ravel().tolist()
    part.found = {"elements": n * side**2, "weight gradient": grad}
    if grad != [15.0, 12.0]:  # the second tap does not read the first column, where the 3 is
        part.wrong.append(f"the weight gradient must be [15, 12]; got {grad}")


def train(part: Part) -> None:
    """Train a small network, interrupt and resume another such training, and compare every bit of the two."""
    from refconv.experiments.train import CHECKPOINT, InterruptedTrainingError, TrainSettings, run_training
    from refconv.nn import Recipe, load_checkpoint

    recipe = Recipe(epochs=1, batch_size=128)
    settings = TrainSettings(
        groups="log:3", options={"channels": 8, "blocks": 1}, side=8, backend=part.gpu.module, recipe=recipe
    )
    with tempfile.TemporaryDirectory() as folder:
        whole, resumed = Path(folder, "whole"), Path(folder, "resumed")
        result = run_training(settings, whole)
        steps = itertools.count()
        try:
            run_training(settings, resumed, stopping=lambda: next(steps) == 4)
            part.wrong.append("the training was not interrupted")
        except InterruptedTrainingError:
            run_training(settings, resumed, resume=True)
        (one, _), (two, _) = (load_checkpoint(path / CHECKPOINT) for path in (whole, resumed))
    part.found["test accuracy"] = result.test_accuracy
    if one.keys() != two.keys() or any(one[name].tobytes() != two[name].tobytes() for name in one):
        part.wrong.append("the resumed training ended with other bits")


def tour(part: Part) -> None:
    """Run `refconv tour --quick`."""
    from refconv.tour.run import Settings as TourSettings
    from refconv.tour.run import run_tour

    with tempfile.TemporaryDirectory() as folder:
        result = run_tour(folder, TourSettings.quick(part.gpu.module, 0))
    part.wrong += map(str, result.failures[:3])
    if not result.passed and not result.failures:
        part.wrong.append("the tour did not pass")


def suite(part: Part) -> None:
    """Run the tests that take an array module, on this module."""
    for package in ("pytest", "hypothesis"):
        if importlib.util.find_spec(package) is None:
            raise Impossible(f"{package} is not installed")
    backend = {"cupy": "cupy", "torch": "torch_cuda"}[part.gpu.module]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not long"]
    command += ["--backend", backend, "-k", backend, "tests"]
    command += ["-p", part.plugin] if part.plugin else []
    command += ["-n", str(min(4, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        end = run_pytest(command, log, part.seconds - 10)
        log.seek(0)
        text = log.read()
    outcomes = [(a or d, b or c) for a, b, c, d in re.findall(OUTCOME, text, re.MULTILINE)]
    counts = Counter(outcome for outcome, _ in outcomes)
    part.found = {outcome.lower(): counts[outcome] for outcome in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    part.wrong += [f"{outcome} {test}" for outcome, test in outcomes if outcome in ("FAILED", "ERROR")][:20]
    if end or not counts["PASSED"]:
        part.wrong.append(f"{end or 'no test passed'}; last line: {(text.strip().splitlines() or [''])[-1]}")


OUTCOME = r"^\[gw\d+\] \[ *\d+%\] (PASSED|FAILED|ERROR|SKIPPED) (.+)$|^(tests/.+) (PASSED|FAILED|ERROR|SKIPPED)\b"
"""A line of pytest -v with the outcome of a test: with workers it begins with the outcome, else with the test."""


def run_pytest(command: Sequence[str], log: Any, seconds: float) -> str:
    """Run pytest with its output in a log; return why it ended without a verdict on every test, or an empty string."""
    try:
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, timeout=seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} seconds"
    return "" if code in (0, 1) else f"pytest ended with code {code}"


PARTS: dict[str, Callable[[Part], None]] = {
    part.__name__: part for part in (machine, smoke, layers, repeat, kernel, peaks, timings, large, train, tour, suite)
}
CUPY_ONLY = {
    "kernel": "the example is written for CuPy",
    "train": "the command trains PyTorch's tensors on the CPU",
    "tour": "the command computes PyTorch's tensors on the CPU",
}


# --- One part, in this process ---------------------------------------------------------------------------------------


def run_part(name: str, module: str, batch: int, plugin: str | None, seconds: float) -> Found:
    """Run a part and return its outcome: "passed", "failed" or "not possible", with its findings."""
    started = time.perf_counter()
    found: Found = {}
    wrong: list[str] = []
    missing: list[str] = []
    try:
        if plugin:
            importlib.import_module(plugin)
        if module == "torch" and name in CUPY_ONLY:
            raise Impossible(CUPY_ONLY[name])
        part = Part(find_gpu(module), batch, plugin, seconds)
        found, wrong, missing = part.found, part.wrong, part.missing
        PARTS[name](part)
        found, outcome = part.found, "passed"
    except (Impossible, GpuError, MissingPackagesError) as reason:
        outcome, missing = "not possible", [*missing, str(reason)]
    except Exception as error:  # any error is a finding, and the other parts continue
        package = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
        if package.partition(".")[0] in ("", "refconv", plugin):
            outcome, wrong = "failed", [*wrong, first_line(error)]
        else:
            outcome, missing = "not possible", [*missing, f"{package} is not installed"]
    outcome = "failed" if wrong else outcome
    took = round(time.perf_counter() - started, 1)
    return {"outcome": outcome, "seconds": took, "wrong": wrong, "missing": missing, "found": found}


# --- All parts, each in its own process ------------------------------------------------------------------------------


def in_process(name: str, module: str, given: argparse.Namespace, seconds: float) -> Found:
    """Run a part in a separate process, for at most `seconds`."""
    limit = min(seconds, LIMITS.get(name, PART_SECONDS))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "part.json")
        command = [sys.executable, __file__, "--run", name, module, str(file), str(limit), "--batch", str(given.batch)]
        command += ["--plugin", given.plugin] if given.plugin else []
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
            with subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process:
                try:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(limit)
                finally:  # after Ctrl-C too, which this process alone receives
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)  # and the processes that the part started
            if file.exists():
                return dict(json.loads(file.read_text("utf-8")))
            log.seek(0)
            said = (log.read().strip().splitlines() or ["it printed nothing"])[-1]
    ended = f"ended with code {process.returncode}, or was stopped after {limit:.0f} seconds"
    return {"outcome": "failed", "seconds": round(limit, 1), "wrong": [f"{ended}: {said}"], "missing": [], "found": {}}


def state_of_code() -> str:
    """Return git's description of the code and a checksum of uncommitted changes, or else refconv's version."""

    def git(*words: str) -> bytes:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=True).stdout

    try:
        changes = git("diff", "HEAD")
        changed = f" with changes {zlib.crc32(changes):08x}" if changes else ""
        return git("describe", "--always", "--abbrev=12").decode().strip() + changed
    except (OSError, subprocess.CalledProcessError):
        return f"refconv {refconv.__version__}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder of the record and the page")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--again", action="store_true", help="also repeat the parts that have passed")
    parser.add_argument("--minutes", type=float, default=10, help="start no part later than this [10]")
    parser.add_argument("--batch", type=positive, default=128, help="images in large batches [128]")
    parser.add_argument("--plugin", metavar="MODULE", help="import this module before CuPy")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.run:
        name, module, file, seconds = given.run
        with replacing(Path(file)) as partial:
            found = run_part(name, module, given.batch, given.plugin, float(seconds))
            partial.write_text(json.dumps(found), "utf-8")
        return 0
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --out: {error}")
    try:
        return run_parts(given)
    except KeyboardInterrupt:
        print("interrupted; run it again to resume", file=sys.stderr)
        return 130


def positive(text: str) -> int:
    """Return an option's value, an integer of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def run_parts(given: argparse.Namespace) -> int:
    """Run the parts that are not done yet, write the record and the page after each, and return the exit code."""
    until = time.monotonic() + 60 * given.minutes
    machines = {module: in_process("machine", module, given, PART_SECONDS) for module in MODULES}
    state = {
        "code": state_of_code(), "batch": given.batch, "plugin": given.plugin,
        "machines": {module: {**found["found"], "outcome": found["outcome"]} for module, found in machines.items()},
    }  # fmt: skip
    record: Found = {**header(), "state": state, "parts": {} if given.again else earlier_parts(given.out, state)}
    record["parts"] |= {f"{module}: machine": found for module, found in machines.items()}
    save(record, given.out)
    ready = [module for module in MODULES if machines[module]["outcome"] == "passed"]
    for name, module in itertools.product([name for name in PARTS if name in given.only and name != "machine"], ready):
        key, left = f"{module}: {name}", until - time.monotonic()
        if record["parts"].get(key, {}).get("outcome") != "passed":
            print(f"{key} …", file=sys.stderr, flush=True)
            record["parts"][key] = in_process(name, module, given, left) if left > 0 else not_reached(given.minutes)
            save(record, given.out)
    failed = [key for key, found in record["parts"].items() if found["outcome"] == "failed"]
    print(f"{headline(record)}: {given.out / PAGE}")
    return 1 if failed or not ready else 0


def earlier_parts(out: Path, state: Found) -> Found:
    """Return the parts of an earlier record of the same state; none if there is no such record."""
    file = out / RECORD
    if not file.exists():
        return {}
    try:
        earlier = json.loads(file.read_text("utf-8"))
        return dict(earlier["parts"]) if earlier["state"] == state else {}
    except (ValueError, KeyError, TypeError) as error:
        print(f"{file} is damaged ({first_line(error)}): every part runs again", file=sys.stderr)
        return {}


def not_reached(minutes: float) -> Found:
    """Return the outcome of a part for which no time was left."""
    reason = f"{minutes:g} minutes had passed; run it again to resume"
    return {"outcome": "not possible", "seconds": 0.0, "wrong": [], "missing": [reason], "found": {}}


def save(record: Found, out: Path) -> None:
    """Write the record and its page."""
    write(record, out / RECORD)
    with replacing(out / PAGE) as partial:
        partial.write_text(page(record), "utf-8")


# --- The page --------------------------------------------------------------------------------------------------------


def headline(record: Found) -> str:
    """Return the number of parts with each outcome, in words."""
    counts = Counter(found["outcome"] for found in record["parts"].values())
    counts["not run"] = len(not_run(record))
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "not possible", "not run"))


def not_run(record: Found) -> list[str]:
    """Return the parts without an outcome in this or an earlier run, on the modules that are ready."""
    machines = record["state"]["machines"]
    ready = [module for module in machines if machines[module]["outcome"] == "passed"]
    keys = [f"{module}: {name}" for name, module in itertools.product(PARTS, ready)]
    return [key for key in keys if key not in record["parts"]]


def page(record: Found) -> str:
    """Return the record as a Markdown page."""
    state, parts = record["state"], record["parts"]
    lines = ["# refconv on a GPU", "", f"{record['date']}, {state['code']}: {headline(record)}.", ""]
    for module, found in state["machines"].items():
        is_ready = found["outcome"] == "passed"
        lines.append(f"* {module}: {machine_line(found) if is_ready else 'not ready, so none of its parts ran'}")
    if state["plugin"]:
        lines.append(f"* `{state['plugin']}` was imported first: what follows may not describe a GPU.")
    lines += [
        "",
        *table(("part", "outcome", "seconds"), [(key, f["outcome"], f["seconds"]) for key, f in parts.items()]),
    ]
    for title, which in (("Failed", "wrong"), ("Not done here", "missing")):
        rows = [f"* {key}: {text}" for key, found in parts.items() for text in found[which]]
        rows += [f"* {key}: not run yet" for key in not_run(record) if which == "missing"]
        lines += ["", f"## {title}", "", *(rows or ["Nothing."])]
    for key, found in parts.items():
        show = SECTIONS.get(key.partition(": ")[2])
        if show and found["found"]:
            lines += ["", f"## {key}", "", *show(found["found"])]
    return "\n".join(lines) + "\n"


def machine_line(found: Found) -> str:
    """Return the card, the versions and the switches in one line."""
    described = {
        **found.get("card", {"name": "a device that is not described"}),
        **found["versions"],
        **found["switches"],
    }
    return ", ".join(f"{value}" if name == "name" else f"{name} {value}" for name, value in described.items())


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines]


def nested_table(first: str, form: Callable[[Any], str], found: Found) -> list[str]:
    """Return a table of a dictionary of dictionaries with equal keys."""
    heads = list(next(iter(found.values())))
    return table([first, *heads], [[name, *(form(row[head]) for head in heads)] for name, row in found.items()])


def show_peaks(found: Found) -> list[str]:
    """Return the memory peaks as a table, with the mark of the wide layers."""
    rows = [
        (layer, what, workspace, *(f"{row[name] / 2**20:.1f}" for name in ("result", "beyond", "reserved")))
        for layer, passes in found.items()
        for what, workspaces in passes.items()
        for workspace, row in workspaces.items()
    ]
    wide = [workspaces for layer in WIDE if layer.name in found for workspaces in found[layer.name].values()]
    most = max((row["beyond"] for workspaces in wide for row in workspaces.values()), default=0)
    verdict = "met" if most <= PEAK_MARK else "owed"
    names = " and ".join(layer.name for layer in WIDE)
    mark = f"{names}: at most {PEAK_MARK // 2**20} MiB beyond the result: {verdict}."
    return [*table(("layer", "pass", "workspace", "result, MiB", "beyond, MiB", "reserved, MiB"), rows), "", mark]


def show_timings(found: Found) -> list[str]:
    """Return the times of each layer as a table, with the mark."""
    lines = []
    for what in PASSES:
        rows = []
        for layer in dict.fromkeys(result["layer"] for result in found[what]["results"]):
            of = {result["peer"]: result for result in found[what]["results"] if result["layer"] == layer}
            own = of["refconv"].get("variants", {})
            theirs = (of[peer].get("median") for peer in ("cudnn", "cudnn-tf32"))
            rows.append((layer, *(f"{1e3 * t:.3f}" if t else "" for t in (*map(own.get, WORKSPACES), *theirs))))
        heads = ("layer", *(f"refconv {name}, ms" for name in WORKSPACES), "cuDNN, ms", "cuDNN with TF32, ms")
        mark = f"At most {TIME_MARK} times cuDNN's time without TF32, five layers: {found['mark'][what]}."
        lines += [f"### {what}", "", *table(heads, rows), "", mark, ""]
    return lines[:-1]


def show_plain(found: Found) -> list[str]:
    """Return findings as a list."""
    return [f"* {name}: {value}" for name, value in found.items()]


SECTIONS: dict[str, Callable[[Found], list[str]]] = {
    "smoke": lambda found: nested_table("data type", str, found),
    "layers": lambda found: ["Largest error / bound:", "", *nested_table("layer", "{:.3f}".format, found)],
    "repeat": lambda found: nested_table("layer", str, found),
    "peaks": show_peaks,
    "timings": show_timings,
    **dict.fromkeys(("kernel", "large", "train", "suite"), show_plain),
}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the part that runs is stopped too
    sys.exit(main())
