"""``refconv check``: any module's function, one line for what cannot be checked, and exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from refconv.testing.checker.plan import plan
from refconv.testing.grader.parent import failed_report
from tests.helpers import run_command

# The shortest possible check, because the checks themselves have other tests.
SHORT = ["--spatial-dims", "1", "--supports", "", "--cases", "1"]
MODULE = """
import refconv

print("printed while it is imported")

def forward(x, weight, bias, stride, padding, dilation, groups):
    print("printed while it runs")
    return refconv.conv(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)

def backward(g, x, weight, stride, padding, dilation, groups):
    return refconv.conv_backward(g, x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)

def flipped(g, x, weight, *options):
    return backward(g, x, weight[..., ::-1], *options)

def thrifty(g, x, weight, *options, needs=("x", "weight")):
    dx, dw, db = backward(g, x, weight, *options)
    return dx if "x" in needs else None, dw if "weight" in needs else None, db if "weight" in needs else None

def transposed(x, weight, bias, stride, padding, dilation, groups, output_padding):
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return refconv.conv_transpose(x, weight, bias, output_padding=output_padding, **options)

def nothing(x, weight, bias, stride, padding, dilation, groups):
    pass

def few(x):
    pass

def module_of(x, *rest):
    raise RuntimeError(type(x).__module__)

class Kept:
    forward = staticmethod(forward)

three = 3
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("1 +")
    (tmp_path / "raises.py").write_text("raise ValueError('two\\nlines')")
    (tmp_path / "needs.py").write_text("import a_module_that_is_missing")
    monkeypatch.chdir(tmp_path)


def test_a_right_function_passes_with_the_default_options(capsys: Any) -> None:
    code, out, err = run_command(capsys, "check", "mine:forward", "--backward", "mine:backward")
    count = len(plan(2, ("bias", "stride", "padding", "dilation", "groups"), False, "float32", 200, 0))
    assert code == 0
    assert out.startswith(f"passed: 2-d convolution in float32, forward and backward, {count} cases, seed 0\n")
    assert "printed" not in out
    assert "printed while it runs" in err


@pytest.mark.parametrize("target", ["mine.py:forward", "mine:Kept.forward"])
def test_a_target_has_several_forms(capsys: Any, target: str) -> None:
    code, out, _ = run_command(capsys, "check", target, *SHORT)
    assert code == 0
    assert out.startswith("passed: 1-d convolution in float32, forward only, ")


def test_a_wrong_function_fails_with_its_name(capsys: Any) -> None:
    code, out, _ = run_command(capsys, "check", "mine:forward", "--backward", "mine:flipped", *SHORT)
    assert code == 1
    assert "consistent with: kernel flipped in the input gradient" in out


def test_options_reach_the_checker(capsys: Any) -> None:
    code, out, _ = run_command(
        capsys, "check", "mine:transposed", "--transposed", "--supports", "stride, output_padding", "--json",
        "--spatial-dims", "1", "--dtype", "float64", "--seed", "3", "--cases", "40",
    )  # fmt: skip
    found = json.loads(out)
    count = len(plan(1, ("stride", "output_padding"), True, "float64", 40, 3))
    assert (code, found["passed"], found["cases_run"]) == (0, True, count)
    assert found["settings"] == {
        "spatial_dims": 1, "supports": ["stride", "output_padding"], "dtype": "float64", "transposed": True,
        "cases": 40, "seed": 3, "backward": False,
    }  # fmt: skip


def test_a_wide_output_and_causal_padding_reach_the_checker(capsys: Any) -> None:
    options = ["--spatial-dims", "1", "--supports", "causal", "--cases", "1"]
    code, out, _ = run_command(capsys, "check", "mine:forward", *options, "--dtype", "int8", "--output-dtype", "int32")
    assert code == 1
    assert out.startswith("FAILED: 1-d convolution in int8 with int32 output, forward only, ")
    assert "the output must have data type int32; got int8" in out
    settings = {"spatial_dims": 1, "supports": ["causal"], "dtype": "float16", "output_dtype": "f4"}
    settings |= {"transposed": False, "cases": 1, "seed": 0}
    ended = failed_report(settings, 10.0, False, "time", "it did not end")
    assert str(ended).startswith("FAILED: 1-d convolution in float16 with float32 output, forward only, ")


def test_functions_are_given_arrays_of_the_backend(capsys: Any) -> None:
    pytest.importorskip("array_api_strict")
    code, out, _ = run_command(capsys, "check", "mine:module_of", "--backend", "array_api_strict", *SHORT)
    assert code == 1
    assert "RuntimeError: array_api_strict" in out
    code, out, _ = run_command(
        capsys, "check", "mine:forward", "--backward", "mine:backward", "--backend", "array_api_strict", *SHORT
    )
    assert code == 0, out


def test_a_backward_pass_is_asked_for_some_gradients(capsys: Any) -> None:
    """The function returns the bias gradient only together with the weight gradient."""
    command = ["check", "mine:forward", "--backward", "mine:thrifty", *SHORT]
    needs = ["--backward-needs", "x", "--backward-needs", "weight, bias"]
    code, out, _ = run_command(capsys, *command, *needs, "--json")
    found = json.loads(out)
    assert code == 0, out
    assert found["settings"]["backward_needs"] == [["x"], ["weight", "bias"]]
    assert [made["failed_cases"] for made in found["checks"] if made["check"] == "needs"] == [0]
    code, out, _ = run_command(capsys, *command, "--backward-needs", "bias")
    assert code == 1
    assert "[1] needs: with needs=('bias',): grad_bias must be an array of numbers; got NoneType\n" in out
    assert "[2]" not in out


NEEDING = ["mine:forward", "--backward", "mine:thrifty", "--backward-needs"]


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine"], "'mine' must be MODULE:FUNCTION, FILE.py:FUNCTION or a folder that exists"),
        (["mine:forward", "--backward", "mine"], "'mine' must be MODULE:FUNCTION, or FILE.py:FUNCTION"),
        (["mine:forward", "--backward-needs", "x"], "--backward-needs also needs --backward"),
        (["mine:"], "must be MODULE:FUNCTION"),
        (["nowhere:forward"], "there is no module nowhere"),
        (["nowhere.py:forward"], "there is no file nowhere.py"),
        (["mine:missing"], "mine has no missing"),
        (["mine:three"], "is not a function but of type int"),
        (["mine:few"], r"forward must take \(x, weight, bias"),
        (["mine:few", "--backend", "array_api_strict"], r"forward must take \(x, weight, bias"),
        (["mine:forward", "--backward", "mine:few"], r"backward must take \(grad_output, x"),
        (["mine:forward", "--backward", "mine:three"], "is not a function"),
        (
            ["mine:forward", "--supports", "speed"],
            "supports may contain only bias, .*, equal_axes, depthwise_only, stride_or_dilation; got 'speed'",
        ),
        (["mine:forward", "--supports", "output_padding"], "only with transposed"),
        (["mine:forward", "--spatial-dims", "2", "--supports", "causal"], "causal only with spatial_dims=1"),
        (["mine:forward", "--output-dtype", "int32"], "of the same kind that holds every float32; got int32"),
        (["mine:forward", "--backward", "mine:backward", "--backward-needs", "x"], r"backward must take .*, needs=\)"),
        ([*NEEDING, "y"], "backward_needs may contain only x, weight, bias; got "),
        ([*NEEDING, ""], "backward_needs may contain only x, weight, bias; got "),
        (["mine:forward", "--dtype", "float128x"], "dtype must be one of"),
        (["mine:forward", "--spatial-dims", "0"], "--spatial-dims"),
        (["mine:forward", "--cases", "none"], "--cases"),
        (["mine:forward", "--time-limit", "0"], "--time-limit must be a positive number of seconds; got 0.0"),
        (["mine:forward", "--total-time-limit", "0"], "--total-time-limit must be a positive number of seconds; got"),
        (["mine:forward", "--total-time-limit", "nan"], "--total-time-limit must be a positive number of seconds"),
        ([".", "--dtype", "float128x"], "dtype must be one of"),
        (
            ["mine:forward", "--memory-limit", "much"],
            "--memory-limit must be a number of bytes such as 500MiB or 1.5GiB; got 'much'",
        ),
        (["mine:forward", "--memory-limit", "0GiB"], "--memory-limit must be at least 1 B; got '0GiB'"),
        (["mine:forward", "--jobs", "2"], "--jobs is only for a folder, and mine:forward is not one"),
        (["mine:forward", "--csv", "a.csv"], "--csv is only for a folder"),
        (["mine:forward", "--forward", "conv"], "--forward is only for a folder"),
        (["empty"], "there is no submission in empty"),
        (["mine:forward", "--backend", "jax"], "--backend 'jax' is not an array module"),
        ([], "MODULE:FUNCTION"),
    ],
)
def test_what_cannot_be_checked_is_one_line(capsys: Any, arguments: list[str], message: str) -> None:
    Path("empty", "data").mkdir(parents=True)
    Path("empty", "_helper.py").touch()
    code, out, err = run_command(capsys, "check", *SHORT, *arguments)
    lines = [line for line in err.splitlines() if "printed" not in line]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert lines[0].startswith("refconv: ")
    assert re.search(message, lines[0]), lines[0]


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        ("needs:forward", "call", "importing needs needs a module that is missing: a_module_that_is_missing"),
        ("raises:forward", "call", r"importing raises raised ValueError: two lines \(.*raises.py:1\)"),
        ("broken.py:forward", "call", "importing broken.py raised SyntaxError"),
        ("mine:nothing", "type", "must be an array of numbers; got NoneType"),
    ],
)
def test_what_the_code_does_wrong_is_a_failure(capsys: Any, target: str, check: str, message: str) -> None:
    code, out, _ = run_command(capsys, "check", target, *SHORT)
    assert code == 1
    assert re.search(rf"\[1\] {check}: .*{message}", out), out


LOUD = """
import concurrent.futures, ctypes, os, time
import refconv

def forward(x, weight, bias, stride, padding, dilation, groups):
    print("from Python")
    os.write(1, b"past Python")
    os.system("echo from another process")
    ctypes.CDLL(None).printf(b"kept in a buffer")
    return refconv.conv(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)

def hangs(*arguments):
    return concurrent.futures.ThreadPoolExecutor().submit(print_for_ever).result()  # the interpreter waits for it

def print_for_ever():
    while True:
        print("still here")
        time.sleep(0.001)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the C library is called as on Linux and macOS")
@pytest.mark.parametrize(("function", "code"), [("forward", 0), ("hangs", 1)])
def test_nothing_but_the_report_reaches_standard_output(tmp_path: Path, function: str, code: int) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    command = [sys.executable, "-m", "refconv", "check", f"loud.py:{function}", "--json", *SHORT]
    done = subprocess.run([*command, "--time-limit", "1"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, json.loads(done.stdout)["passed"]) == (code, code == 0), done.stderr
    assert ("still here" if code else "from another process") in done.stderr
