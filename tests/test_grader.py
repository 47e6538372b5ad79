"""Grading: however a submission behaves, the report is complete, the verdict is right, and no process is left."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from refconv.progress import counting
from refconv.testing import check_conv
from refconv.testing.checker.plan import plan
from refconv.testing.checker.targets import TargetError
from refconv.testing.grader import parent
from refconv.testing.grader.folder import Row, Submission, submissions, write_csv
from refconv.testing.grader.parent import Graded, GraderError, Limits, case_at, grade
from tests.helpers import run_command

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and processes as on Linux and macOS")
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")

# The shortest possible check, because these tests are about processes; other tests cover the checks themselves.
SETTINGS: dict[str, Any] = {
    "spatial_dims": 1, "supports": [], "dtype": "float32", "transposed": False, "cases": 1, "seed": 0,
}  # fmt: skip
SHORT = ["--spatial-dims", "1", "--supports", "", "--cases", "1"]
COUNT = len(plan(1, (), False, "float32", 1, 0))
HEAD = """
import ctypes, os, signal, subprocess, sys, threading, time
import numpy as np
import refconv

calls = 0

def right(x, weight, bias, stride, padding, dilation, groups):
    return refconv.conv(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)

def right_backward(g, x, weight, stride, padding, dilation, groups):
    return refconv.conv_backward(g, x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)

class Trap:
    def __array__(self, *arguments, **options):
        os._exit(0)
"""


def submission(folder: Path, body: str, before: str = "", *, backward: str = "return right_backward(*a)") -> str:
    """Write a submission whose forward pass runs `body` with its arguments in the tuple a; return its file."""
    file = folder / "mine.py"
    lines = body.replace("\n", "\n    ")
    text = f"{HEAD}\n{before}\ndef forward(*a):\n    global calls\n    calls += 1\n    {lines}\n"
    file.write_text(f"{text}\ndef backward(*a):\n    {backward}\n")
    return str(file)


def run(file: str, limits: Limits | None = None, **options: Any) -> Graded:
    limits = limits or Limits()
    return grade(f"{file}:forward", f"{file}:backward", settings=SETTINGS, limits=limits, **options)


def first(graded: Graded) -> tuple[str, str]:
    failure = graded.report["failures"][0]
    return failure["check"], failure["message"]


def shape(report: Any) -> Any:
    """Return the keys of a report, for comparison with an ordinary one."""
    return {
        key: sorted(value) if key == "settings" else [sorted(value[0])] if key in ("failures", "checks") else None
        for key, value in report.items()
    }


@pytest.fixture(scope="module")
def ordinary() -> Any:
    return json.loads(check_conv(lambda *_: None, lambda *_: None, **SETTINGS).to_json())


@pytest.mark.parametrize(
    ("body", "check", "message"),
    [
        ("os._exit(0)", "call", "forward ended the process with exit code 0"),
        ("os._exit(3)", "call", "forward ended the process with exit code 3"),
        ("ctypes.string_at(0)", "call", "forward ended the process with signal SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "call", "forward ended the process with signal SIGKILL"),
        ("return Trap()", "call", "after forward returned, the submission ended the process with exit code 0"),
        ("os.closerange(0, 256)\nreturn right(*a)", "call", "closed the connection to the checker"),
        ("np.array_equal = None\nreturn right(*a)", "call", "the check cannot be finished after "),
        ("import json\njson.dumps = None\nreturn right(*a)", "call", "the check cannot be finished after "),
    ],
)
def test_every_end_of_a_call_is_a_failure(tmp_path: Path, ordinary: Any, body: str, check: str, message: str) -> None:
    graded = run(submission(tmp_path, body))
    assert first(graded)[0] == check
    assert message in first(graded)[1]
    assert not graded.passed
    assert shape(graded.report) == shape(ordinary)
    assert graded.text.startswith("FAILED: 1-d convolution in float32, forward and backward, ")


@pytest.mark.parametrize(
    ("bodies", "messages"),
    [
        (("sys.exit(0)", "return object()"), ("forward raised SystemExit: 0", "array of numbers; got object")),
        (
            ("raise KeyboardInterrupt", "return None"),
            ("forward raised RuntimeError: KeyboardInterrupt", "array of numbers; got NoneType"),
        ),
        (("input()", "return 'text'"), ("forward raised EOFError", "array of numbers; got str")),
    ],
)
def test_a_call_without_a_result_does_not_end_the_check(
    tmp_path: Path, ordinary: Any, bodies: tuple[str, str], messages: tuple[str, str]
) -> None:
    """The first call ends in one way and the second in another, so that one process tests both."""
    lines = [f"if calls == {number}:\n    {body}" for number, body in enumerate(bodies, 1)]
    graded = run(submission(tmp_path, "\n".join([*lines, "return right(*a)"])))
    found = {failure["check"]: failure["message"] for failure in graded.report["failures"]}
    assert list(found) == ["call", "type"]
    assert messages[0] in found["call"]
    assert messages[1] in found["type"]
    assert graded.report["cases_run"] == COUNT
    assert shape(graded.report) == shape(ordinary)


def test_the_case_and_the_function_of_a_dead_process_are_named(tmp_path: Path) -> None:
    backward = "if len(seen := globals().setdefault('seen', [])) == 5: os._exit(0)\n"
    backward += "    seen.append(a)\n    return right_backward(*a)"
    graded = run(submission(tmp_path, "return right(*a)", backward=backward))
    report = graded.report
    failure, case = report["failures"][0], case_at(5, SETTINGS)
    assert (report["cases_run"], report["checks"][0]["failed_cases"]) == (6, 1)
    assert failure["message"] == "backward ended the process with exit code 0"
    assert failure["part"] == "grad_x"
    assert failure["case"]["x"]["values"] == case.x.reshape(-1).tolist()
    assert failure["case"]["weight"]["shape"] == list(case.weight.shape)
    assert failure["reproduce"].endswith(f"backward(grad_output, x, weight, {', '.join(map(repr, case.integers))})")


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("os._exit(0)", "importing {} ended the process with exit code 0"),
        ("sys.exit()", "importing {} raised SystemExit"),
        ("ctypes.string_at(0)", "importing {} ended the process with signal SIGSEGV"),
    ],
)
def test_every_end_of_an_import_is_a_failure(tmp_path: Path, ordinary: Any, before: str, message: str) -> None:
    file = submission(tmp_path, "return right(*a)", before)
    graded = run(file)
    assert (first(graded)[0], graded.report["cases_run"]) == ("call", 0)
    assert message.format(file) in first(graded)[1]
    assert shape(graded.report) == shape(ordinary)


@pytest.mark.parametrize(
    ("backward", "message"),
    [
        ("return right_backward(*a)[:2]", "backward must return (grad_x, grad_weight, grad_bias); got 2 values"),
        ("return (*right_backward(*a)[:2], None)", "grad_bias must be an array of numbers; got NoneType"),
    ],
)
def test_a_missing_gradient_is_a_failure(tmp_path: Path, backward: str, message: str) -> None:
    assert first(run(submission(tmp_path, "return right(*a)", backward=backward))) == ("type", message)


@pytest.mark.parametrize(
    "body",
    [
        "if calls < 9:\n    print('x' * 100_000)\n    os.write(1, b'y' * 100_000)\n"
        "if calls == 9:\n    sys.stdout.close()\n    sys.stderr.close()\nreturn right(*a)",
        "if calls < 9: os.fork()\nif calls == 9 and not os.fork(): time.sleep(100)\n"
        "out = []\nt = threading.Thread(target=lambda: out.append(right(*a)))\nt.start()\nt.join()\nreturn out[0]",
    ],
)
def test_what_does_not_change_the_results_passes(tmp_path: Path, body: str) -> None:
    graded = run(submission(tmp_path, body))
    assert graded.passed, graded.text
    assert graded.report["cases_run"] == COUNT
    assert len(graded.output) < 2 * parent.OUTPUT_BYTES + 100


def test_beginning_and_end_of_a_long_output_are_kept(tmp_path: Path) -> None:
    body = "if calls == 1: print('first', 'x' * 2**17, 'last')\nreturn right(*a)"
    output = run(submission(tmp_path, body)).output
    assert output.startswith("first xxx")
    assert output.endswith("xxx last\n")
    assert f"\n… {2**17 + 12 - 2 * parent.OUTPUT_BYTES:,} bytes are not shown …\n" in output


def test_a_message_without_the_token_is_ignored(tmp_path: Path) -> None:
    forged = 'for n in range(256):\n    try: os.write(n, b\'["report", {"report": {"passed": true}, "text": ""}]\\n\')'
    graded = run(submission(tmp_path, f"{forged}\n    except OSError: pass\nos._exit(0)"))
    assert first(graded) == ("call", "forward ended the process with exit code 0")


def test_settings_of_a_dead_process_are_those_of_a_whole_check() -> None:
    settings = {**SETTINGS, "backward_needs": (("x",), ("bias", "weight"))}
    report = check_conv(lambda *_: None, lambda *_, needs=(): None, **settings)
    assert parent.failed_report(settings, 1.0, True, "call", "it died").settings == report.settings


# --- Limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["while True: pass", "ctypes.PyDLL(None).sleep(100)"])
def test_a_call_that_hangs_is_a_failure_even_if_it_holds_the_interpreter(tmp_path: Path, body: str) -> None:
    graded = run(submission(tmp_path, body), Limits(call=0.5))
    assert first(graded) == ("time", "forward did not return in time; no further case was run")


def test_a_call_that_takes_its_time_is_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "GRACE_SECONDS", -8.0)  # silence for 2 s would end it
    assert run(submission(tmp_path, "if calls == 1: time.sleep(3)\nreturn right(*a)"), Limits(call=10.0)).passed


def test_a_slow_import_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "IMPORT_SECONDS", 0.3)
    file = submission(tmp_path, "return right(*a)", "time.sleep(100)")
    assert first(run(file, Limits(call=0.2))) == ("time", f"importing {file} took longer than 0.3 s")


def test_a_slow_submission_is_a_failure_of_the_total_time(tmp_path: Path) -> None:
    graded = run(submission(tmp_path, "time.sleep(0.3)\nreturn right(*a)"), Limits(total=0.8))
    assert first(graded)[0] == "time"
    assert first(graded)[1].startswith("the whole check took longer than 0.8 s, and ")


@pytest.mark.thinned(2)
@linux
@pytest.mark.parametrize("more", ["np.ones(2**26)", "bytearray(2**29)"])
def test_memory_is_limited(tmp_path: Path, more: str) -> None:
    file = submission(tmp_path, f"if calls == 1: {more}\nreturn right(*a)")
    check, message = first(run(file, Limits(memory=2**28)))
    assert check == "call"
    assert message.startswith("forward raised MemoryError: needed more than 256 MiB (")
    assert run(file, Limits(memory=2**30)).passed


@linux
def test_memory_that_is_never_returned_is_a_failure(tmp_path: Path) -> None:
    body = "try:\n    while True: kept.append(bytearray(2**16))\nexcept MemoryError: pass\n"
    body += "try:\n    while True: kept.append(bytearray(2**6))\nexcept MemoryError: pass\nreturn a[0]"
    graded = run(submission(tmp_path, body, "kept = []"), Limits(memory=2**27, total=10.0))
    assert first(graded)[0] in ("call", "time")  # without memory, the process ends with an error or hangs


# --- Imports ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    for name in ("numpy", "random", "json", "click", "typing"):
        (tmp_path / f"{name}.py").write_text("import os\nos._exit(0)")
    return tmp_path


@pytest.mark.parametrize("command", [["-m", "refconv"], ["-c", "from refconv.cli import main; main()"]])
def test_no_file_of_the_folder_replaces_a_real_module(trapped: Path, command: list[str]) -> None:
    submission(trapped, "import random\nassert random.random() < 1\nreturn right(*a)")
    environment = {**os.environ, "PYTHONPATH": str(Path(parent.__file__).parents[3])}
    if "-c" in command:
        command = ["-P", *command]
    done = subprocess.run(
        [sys.executable, *command, "check", "mine.py:forward", *SHORT],
        cwd=trapped, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout[:8]) == (0, "passed: "), done.stderr
    assert "note: numpy.py of the submission's folder is not imported" in done.stdout


@pytest.mark.thinned(2)
@pytest.mark.parametrize("name", ["random", "numpy", "refconv", "a.b", "my-conv"])
def test_a_submission_may_have_any_name(tmp_path: Path, name: str) -> None:
    file = Path(submission(tmp_path, "import random\nassert random.random() < 1\nreturn right(*a)"))
    assert grade(f"{file.rename(tmp_path / f'{name}.py')}:forward", settings=SETTINGS).passed


def test_imports_search_the_folder_of_the_submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "homework_of_ada"  # docs/examples, which the suite imports from, has a homework.py
    folder.mkdir()
    (folder / "helper.py").write_text("def same(value): return value")
    file = submission(folder, "return same(right(*a))", "from helper import same")
    graded = grade(f"{file}:forward", settings=SETTINGS)
    assert graded.passed, graded.text
    (folder / "__init__.py").touch()
    file = submission(folder, "return same(right(*a))", "from .helper import same")
    graded = grade(f"{file}:forward", settings=SETTINGS)
    assert graded.passed, graded.text
    monkeypatch.chdir(tmp_path)
    graded = grade("homework_of_ada.mine:forward", settings=SETTINGS)
    assert graded.passed, graded.text
    assert not list(tmp_path.rglob("__pycache__"))


def test_forward_and_backward_share_their_module(tmp_path: Path) -> None:
    backward = "assert calls\n    return right_backward(*a)"
    assert run(submission(tmp_path, "return right(*a)", backward=backward)).passed


# --- The parent ------------------------------------------------------------------------------------------------------


def test_progress_counts_the_cases(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(submission(tmp_path, "return right(*a)"), progress=lambda *count: seen.append(count))
    assert seen == [(index, COUNT) for index in range(COUNT)]


def test_a_fork_of_the_submission_does_not_report(tmp_path: Path) -> None:
    seen: list[int] = []
    run(submission(tmp_path, "return right(*a)", "os.fork()"), progress=lambda index, _: seen.append(index))
    assert seen == list(range(COUNT))


def test_functions_that_cannot_be_checked_give_no_report(tmp_path: Path) -> None:
    file = submission(tmp_path, "return right(*a)")
    with pytest.raises(TargetError, match="has no missing"):
        grade(f"{file}:missing", settings=SETTINGS)
    with pytest.raises(TargetError, match="forward must take"):
        grade(f"{file}:Trap", settings=SETTINGS)
    with pytest.raises(ValueError, match="dtype must be one of"):
        grade(f"{file}:forward", settings={**SETTINGS, "dtype": "bool"})
    assert grade(f"{file}:forward", f"{file}:none", settings=SETTINGS, backward_optional=True).passed


def test_a_python_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "BOOT", "raise ImportError('no NumPy here')")
    with pytest.raises(GraderError, match="cannot start a Python process: ImportError: no NumPy here"):
        run(submission(tmp_path, "return right(*a)"))


def running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):  # a dead process is listed until its parent asks
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def numbers(file: Path, count: int) -> list[int]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if file.exists() and len(words := file.read_text().split()) == count:
            return list(map(int, words))
        time.sleep(0.05)
    raise AssertionError("the submission has not started")


def gone(processes: list[int]) -> bool:
    end = time.monotonic() + 20
    while any(map(running, processes)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


STAYS = """
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
open("numbers", "w").write(f"{os.getpid()} {other.pid}\\n")
time.sleep(100)
"""


@pytest.mark.thinned(2)
@pytest.mark.parametrize("whole_folder", [False, True])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_no_process_is_left_when_the_command_is_stopped(
    tmp_path: Path, number: signal.Signals, code: int, whole_folder: bool
) -> None:
    submission(tmp_path, STAYS.strip())
    target = [str(tmp_path)] if whole_folder else ["mine.py:forward"]
    with subprocess.Popen(
        [sys.executable, "-m", "refconv", "check", *target, *SHORT, "--time-limit", "900", "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(parent.__file__).parents[3])},
    ) as command:  # fmt: skip
        try:
            processes = numbers(tmp_path / "numbers", 2)
            command.send_signal(number)
            out, err = command.communicate(timeout=30)
        finally:
            command.kill()
    assert (command.returncode, out) == (code, ""), err
    assert gone(processes)


def test_no_process_is_left_after_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    body = STAYS.strip().replace("time.sleep(100)\n", "").removesuffix("time.sleep(100)") + "return right(*a)"
    assert run(submission(tmp_path, f"if calls > 1: return right(*a)\n{body}")).passed
    assert gone(numbers(tmp_path / "numbers", 2))


# --- A folder --------------------------------------------------------------------------------------------------------


@pytest.fixture
def course(tmp_path: Path) -> Path:
    folder = tmp_path / "course"
    for name in ("carl", "dora", "eve", "_shared", ".git"):
        (folder / name).mkdir(parents=True)
    body = "return right(*a)"
    Path(submission(folder, body)).rename(folder / "anna.py")
    Path(submission(folder, "os._exit(0)")).rename(folder / "bert.py")
    (folder / "carl" / "helper.py").write_text("def same(value): return value")
    Path(submission(folder / "carl", "return same(right(*a))", "from helper import same")).rename(
        folder / "carl" / "layer.py"
    )
    for name in ("one", "two"):
        Path(submission(folder / "dora", body)).rename(folder / "dora" / f"{name}.py")
    flipped = "return right(a[0], a[1][..., ::-1], *a[2:])"
    (folder / "eve" / "only.py").write_text(
        Path(submission(folder, flipped)).read_text().split("\ndef backward(*a)")[0]
    )
    (folder / "mine.py").unlink()
    (folder / "_shared.py").touch()
    (folder / "notes.txt").touch()
    return folder


def test_which_files_of_a_folder_are_submissions(course: Path) -> None:
    found = {submission.name: (submission.file, submission.problem) for submission in submissions(course)}
    assert found == {
        "anna.py": (course / "anna.py", ""),
        "bert.py": (course / "bert.py", ""),
        "carl": (course / "carl" / "layer.py", ""),
        "dora": (None, "2 files define forward: one.py, two.py"),
        "eve": (course / "eve" / "only.py", ""),
    }
    assert submissions(course, "conv")[2] == Submission("carl", None, "no file defines conv")


@pytest.mark.parametrize(
    "line",
    ["def conv(): pass", "conv = print", "conv: object = print", "from a import conv", "from a import b as conv",
     "class conv: pass"],
)  # fmt: skip
def test_a_definition_is_found_in_any_form(tmp_path: Path, line: str) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "a.py").write_text(line)
    (tmp_path / "team" / "b.py").write_text("def f():\n    conv = 1\n")
    (tmp_path / "team" / "c.py").write_text("conv = (")
    assert [found.file for found in submissions(tmp_path, "conv")] == [tmp_path / "team" / "a.py"]


def test_a_folder_becomes_a_table(capsys: Any, course: Path, tmp_path: Path) -> None:
    table = tmp_path / "marks.csv"
    code, out, err = run_command(capsys, "check", course, *SHORT, "--jobs", "2", "--csv", table)
    assert (code, err) == (1, "")
    assert out.startswith("2 of 5 submissions passed")
    rows = list(csv.reader(io.StringIO(table.read_text("utf-8"))))
    assert rows[0] == ["submission", "verdict", "failed checks", "reason", "seconds"]
    assert [row[:2] for row in rows[1:]] == [
        ["anna.py", "passed"], ["bert.py", "FAILED"], ["carl", "passed"], ["dora", "FAILED"], ["eve", "FAILED"],
    ]  # fmt: skip
    assert rows[2][2:4] == ["call", "forward ended the process with exit code 0"]
    assert rows[4][2:4] == ["call", "2 files define forward: one.py, two.py"]
    assert rows[5][3].startswith("kernel flipped in the forward pass or kernel flipped everywhere")
    assert all(row[0] in out and row[3][:30] in out for row in rows[1:])


def test_a_folder_becomes_one_json_object(capsys: Any, course: Path, ordinary: Any) -> None:
    code, out, _ = run_command(capsys, "check", course, *SHORT, "--json", "--backward", "backward")
    found = json.loads(out)
    assert (code, found["passed"]) == (1, False)
    assert [row["name"] for row in found["submissions"]] == ["anna.py", "bert.py", "carl", "dora", "eve"]
    assert [row["passed"] for row in found["submissions"]] == [True, False, True, False, False]
    for row in found["submissions"]:
        assert list(row["report"]) == list(ordinary)
        assert row["report"]["settings"]["backward"] is True
    assert "only.py has no backward" in found["submissions"][4]["report"]["failures"][0]["message"]


def test_a_folder_of_right_submissions_passes(capsys: Any, tmp_path: Path) -> None:
    Path(submission(tmp_path, "return right(*a)")).rename(tmp_path / "anna.py")
    text = (tmp_path / "anna.py").read_text().replace("def forward", "def conv").replace("def backward", "def grad")
    (tmp_path / "anna.py").write_text(text)
    names = ["--forward", "conv", "--backward", "grad"]
    code, out, _ = run_command(capsys, "check", tmp_path, *names, *SHORT, "--json")
    report = json.loads(out)["submissions"][0]["report"]
    assert (code, report["passed"], report["settings"]["backward"]) == (0, True, True)


def test_no_cell_of_the_table_is_a_formula() -> None:
    report = {"passed": False, "failures": [{"check": "call", "message": "@SUM(A1)", "diagnoses": []}]}
    file = io.StringIO()
    write_csv([Row(Submission("=1+1.py", None), Graded(report, "", "", 1.25))], file)
    assert file.getvalue().splitlines()[1] == "'=1+1.py,FAILED,call,'@SUM(A1),1.2"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_counts_on_a_terminal_only(terminal: bool) -> None:
    file = io.StringIO()
    with counting(Console(file=file, force_terminal=terminal, width=80), "cases") as count:
        count(1234, 100_000_000)
    assert ("cases" in file.getvalue(), "1,234/100,000,000" in file.getvalue()) == (terminal, terminal)
