"""Mutation testing, fast: every small change that mutmut knows, against the tests, in two passes.

    python -m tests.mutation prepare [GROUP]      write a group's changed files, the package and the tests to mutants/
                                                  (--sample N: try N of the changes, drawn from all files)
    python -m tests.mutation quick [NAME ...]     few examples of each property: notices most changes quickly
    python -m tests.mutation full [NAME ...]      the survivors again, with the suite's examples and slower tests
    python -m tests.mutation results [STATUS]     counts of each file, and the changes of one status, with their lines

``make mutation GROUP=nn SAMPLE=300`` runs all four; GROUPS lists the groups; core is the default. NAME is a
changed function or a pattern, such as ``refconv.conv.x_conv__mutmut_3`` or ``refconv.textbook.*``; without one, quick
takes the changes not tried yet and full the survivors. mutmut makes the changes, and the environment variable
MUTANT_UNDER_TEST chooses among them, so that pytest collects the tests only once: each change then costs one fork, and
the tests that reach the changed function, fastest first, until one fails.
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
COPY = ROOT / "mutants"
RESULTS = COPY / "results.json"
# The files of refconv/ and the tests that must notice their changes.
GROUPS = {
    "core": (
        ["textbook", "im2col", "padding", "conv", "derivatives", "engine", "settings", "shapes", "groups", "integers",
         "arrays", "cpu/*"],
        ["im2col", "textbook", "conv_*", "derivatives", "definition", "errors", "groups", "properties", "arrays",
         "cost", "messages", "devices", "integers", "settings", "cpu_*"],
    ),
    "nn": (["nn/*", "nn/models/*", "files"], ["nn*", "models", "training", "checkpoint", "files"]),
    "data": (["nn/data/*"], ["data"]),
    "checker": (["testing/regimes", "testing/checker/*", "testing/explain/*"],
                ["check", "explain", "regimes", "where"]),
}  # fmt: skip
# They measure the source itself, which mutmut makes longer, or run a copy in a folder without mutmut's configuration.
LEFT_OUT = tuple(f"tests/test_textbook.py::test_{name}" for name in (
    "a_tiny_call_is_short", "the_page_stays_one_page", "everything_works_without_the_cpu_engine",
    "a_broken_cpu_engine_is_not_taken_for_a_missing_one"))  # fmt: skip
PYTEST = ("--rootdir=.", "--backend", "numpy", "-m", "not long", "-q", "-s", "--assert=plain", "--tb=native",
          "-p", "no:cacheprovider", "-p", "no:xdist",
          *(f"--deselect={test}" for test in LEFT_OUT))  # fmt: skip
CHILDREN = 2
# Seconds are of processor time. The quick pass leaves out tests that take longer than this,
# unless no other test reaches a function.
QUICK_SECONDS = 0.15
# Tests that take longer are left out of a pass, and their number is printed.
TEST_SECONDS = {"quick": 0.5, "full": 10}
# Maximum seconds of all tests of one change, fastest first, without the change; the remaining tests are left out.
CHANGE_SECONDS = {"quick": 10, "full": 40}
# A change that takes this many times the processor time of its tests counts as one that never ends.
NO_END = 3


def prepare(group: str, sample: int | None) -> None:
    """Write the package, with every change of a group, and the files that the tests need to mutants/."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    shutil.rmtree(COPY, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "refconv", COPY / "refconv", ignore=skip)
    refresh()
    (COPY / "group").write_text(group, encoding="utf-8")
    names: list[str] = []
    for path in files_of(group):
        changed = mutate_file_contents(str(path), (ROOT / path).read_text(encoding="utf-8"))
        (COPY / path).write_text(changed.code, encoding="utf-8")
        names += [f"{'.'.join(path.with_suffix('').parts)}.{name}" for name in changed.mutant_names]
    count, drawn = len(names), ""
    if sample is not None and sample < count:  # one of each of `sample` equal stretches, the same in every run
        draw, ends = random.Random(0), [count * i // sample for i in range(sample + 1)]
        names = [names[draw.randrange(start, stop)] for start, stop in itertools.pairwise(ends)]
        drawn = f"a random sample of {sample} of "
    save({name: {"status": "not tried"} for name in names})
    print(f"{drawn}{count} changes of {len(files_of(group))} files")


def files_of(group: str) -> list[Path]:
    """Return the files of a group, such as refconv/cpu/plan.py."""
    found = [path for pattern in GROUPS[group][0] for path in (ROOT / "refconv").glob(f"{pattern}.py")]
    return [path.relative_to(ROOT) for path in sorted(found) if path.name != "__init__.py"]


def refresh() -> None:
    """Update the copies of the tests and of the files that they read."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.rmtree(COPY / "tests", ignore_errors=True)
    shutil.copytree(ROOT / "tests", COPY / "tests", ignore=skip)
    shutil.copytree(ROOT / "docs", COPY / "docs", ignore=skip, dirs_exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", COPY)


def file_of(name: str) -> Path:
    """Return the file of a change: refconv/cpu/plan.py of ``refconv.cpu.plan.x_cut__mutmut_1``."""
    return Path(*name.split(".")[:-1]).with_suffix(".py")


def save(results: dict[str, Any]) -> None:
    scratch = RESULTS.with_suffix(".new")
    scratch.write_text(json.dumps(results, indent=0), encoding="utf-8")
    scratch.replace(RESULTS)


class Runner:
    """A pytest plugin that runs the collected tests once per change, each time in a new child process."""

    def __init__(self, mode: str, patterns: list[str]) -> None:
        self.mode = mode
        self.results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
        due = {"quick": "not tried", "full": "survived"}[mode]
        self.names = [
            name
            for name, result in self.results.items()
            if any(fnmatch.fnmatch(name, pattern) for pattern in patterns) or (not patterns and result["status"] == due)
        ]
        self.killers: dict[str, dict[str, None]] = {}  # of each function, the last one last
        self.trusted: dict[str, bool] = {}  # whether a test passes alone, in a fresh child, without any change

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        import refconv

        assert Path(refconv.__file__).is_relative_to(COPY), refconv.__file__
        assert not session.testsfailed, "the tests could not be collected"
        started = time.monotonic()
        self.items = {item.nodeid: item for item in session.items}
        self.reached = self.survey()
        print(f"{self.mode}: {len(self.items)} tests, {len(self.names)} changes", flush=True)
        running: dict[int, tuple[str, int, float]] = {}
        waiting = self.names[::-1]
        while waiting or running:
            if waiting and len(running) < CHILDREN:
                name = waiting.pop()
                pid, read = self.fork(name, self.chosen(name))
                running[pid] = (name, read, time.monotonic())
                continue
            pid, status = os.wait()
            name, read, begin = running.pop(pid)
            with os.fdopen(read) as told:
                killer = told.read()
            if not self.conclude(name, status, killer, time.monotonic() - begin):
                waiting.append(name)  # once more, without a test that fails even without a change
            done = len(self.names) - len(waiting) - len(running)
            if done % 100 == 0:
                print(f"{done} of {len(self.names)}, {time.monotonic() - started:.0f} s", flush=True)
        return True

    def chosen(self, name: str) -> list[pytest.Item]:
        """Return the tests for a change: first those that noticed other changes of its function, then fastest first."""
        function = name.rpartition("__mutmut_")[0]
        last = {killer: rank for rank, killer in enumerate(self.killers.get(function, ()), 1)}
        tests = [test for test in self.reached.get(function, []) if self.trusted.get(test, True)]
        return [self.items[test] for test in sorted(tests, key=lambda test: -last.get(test, 0))]

    def conclude(self, name: str, status: int, killer: str, seconds: float) -> bool:
        """Record the outcome of a change, unless the test that failed also fails without any change."""
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            verdict = "no end" if number in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL) else "noticed"
            killer = signal.Signals(number).name
        else:
            verdict = {0: "survived", 1: "noticed"}[os.WEXITSTATUS(status)]
        if verdict == "noticed" and killer in self.items:
            if killer not in self.trusted:
                pid, read = self.fork("", [self.items[killer]])
                os.close(read)
                self.trusted[killer] = os.waitpid(pid, 0)[1] == 0
                if not self.trusted[killer]:
                    print(f"left out, since it fails alone: {killer}", flush=True)
            if not self.trusted[killer]:
                return False
            killers = self.killers.setdefault(name.rpartition("__mutmut_")[0], {})
            killers.pop(killer, None)
            killers[killer] = None
        self.results[name] = {"status": verdict, "pass": self.mode, "by": killer, "seconds": round(seconds, 2)}
        save(self.results)
        return True

    def survey(self) -> dict[str, list[str]]:
        """Return the tests that reach each function, fastest first; in a child, so that nothing is cached here."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            silence()
            os.environ["MUTANT_UNDER_TEST"] = "stats"
            from mutmut.state import state

            seen: dict[str, list[tuple[float, str]]] = {}
            failed: list[str] = []
            slow: list[str] = []
            for test, item in self.items.items():
                state()._stats.clear()
                begin = time.process_time()  # it does not depend on how busy the machine is
                if fails(item, None):
                    failed.append(test)
                    continue
                seconds = time.process_time() - begin
                if seconds > TEST_SECONDS[self.mode]:
                    slow.append(test)
                    continue
                for function in list(state()._stats):
                    seen.setdefault(function, []).append((seconds, test))
            with os.fdopen(write, "w") as out:
                json.dump([seen, failed, slow], out)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as told:
            seen, failed, slow = json.load(told)
        os.waitpid(pid, 0)
        if failed and self.mode == "full":
            pytest.exit(f"{', '.join(failed)} fails on the unchanged package", 1)
        if failed:  # such as a property that needs more examples
            print(f"left out: {', '.join(failed)}")
        print(f"left out, since they take longer than {TEST_SECONDS[self.mode]} s: {len(slow)} tests")
        reached, cut = {}, 0
        for function, tests in seen.items():
            quick = [(s, test) for s, test in tests if s < QUICK_SECONDS]
            ranked = sorted(quick if quick and self.mode == "quick" else tests)
            ends = itertools.accumulate(seconds for seconds, _ in ranked)
            within = sum(end <= CHANGE_SECONDS[self.mode] for end in ends)
            reached[function] = [test for _, test in ranked[:within]]
            cut += within < len(ranked)
        print(f"{cut} of {len(reached)} functions with the fastest tests only, {CHANGE_SECONDS[self.mode]} s of them")
        return reached

    def fork(self, name: str, items: list[pytest.Item]) -> tuple[int, int]:
        """Start a child that runs tests on a change until one fails; it then reports its name and exits with 1."""
        read, write = os.pipe()
        pid = os.fork()
        if pid:
            os.close(write)
            return pid, read
        code = 1
        try:
            os.close(read)
            silence()
            limit = NO_END * CHANGE_SECONDS[self.mode]
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10 * limit)  # for one that waits without working
            os.environ["MUTANT_UNDER_TEST"] = name
            forget()
            killer = next(
                (item for item, after in zip(items, [*items[1:], None], strict=False) if fails(item, after)), None
            )
            if killer is None:
                code = 0
            else:
                os.write(write, killer.nodeid.encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(code)


def silence() -> None:
    """Discard the output of the tests in this process."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def fails(item: pytest.Item, following: pytest.Item | None) -> bool:
    """Run one test."""
    from _pytest.runner import runtestprotocol

    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def forget() -> None:
    """Empty the caches that the package filled while the tests were collected, because the change may affect them."""
    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "refconv"]:
        for value in list(vars(module).values()):
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def run(mode: str, patterns: list[str]) -> int:
    """Run one pass."""
    refresh()
    os.chdir(COPY)
    sys.path.insert(0, str(COPY))
    os.environ |= {"HYPOTHESIS_PROFILE": f"mutation-{mode}", "PYTHONPATH": str(COPY), "MUTANT_UNDER_TEST": ""}
    if mode == "quick":  # the full pass also checks that BLAS is limited to one of several threads
        os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "refconv")]:
        del sys.modules[name]
    wanted = GROUPS[(COPY / "group").read_text(encoding="utf-8")][1]
    files = sorted({str(path) for name in wanted for path in Path("tests").glob(f"test_{name}.py")})
    return int(pytest.main([*PYTEST, *files], plugins=[Runner(mode, patterns)]))


def report(status: str | None) -> None:
    """Print the counts of each file, and the changes of one status as differences of lines."""
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    counts: dict[Path, Counter[str]] = {}
    for name, result in results.items():
        counts.setdefault(file_of(name), Counter())[result["status"]] += 1
    for path, count in counts.items():
        print(f"{path}: {count.total()} changes, " + ", ".join(f"{n} {what}" for what, n in sorted(count.items())))
    for name, result in results.items():
        if result["status"] == status:
            print(name, result.get("by", ""))
            print(difference(name))


def difference(name: str) -> str:
    """Return the lines that a change removes, and their replacements."""
    import ast
    import difflib

    function, path = name.rpartition(".")[2], COPY / file_of(name)
    if path not in _functions:
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        _functions[path] = {
            node.name: lines[node.lineno - 1 : node.end_lineno]
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef)
        }
    original = f"{function.rpartition('__mutmut_')[0]}__mutmut_orig"
    old, new = _functions[path][original], [line.replace(function, original) for line in _functions[path][function]]
    return "\n".join(
        line for line in difflib.unified_diff(old, new, n=0, lineterm="") if line[:2] not in ("--", "++", "@@")
    )


_functions: dict[Path, dict[str, list[str]]] = {}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("what", choices=("prepare", "quick", "full", "results"))
    parser.add_argument("rest", nargs="*")
    parser.add_argument("--sample", type=int, metavar="N", help="prepare: N changes, drawn from all files")
    told = parser.parse_args()
    if told.what == "prepare":
        prepare(told.rest[0] if told.rest else "core", told.sample)
    elif told.what == "results":
        report(told.rest[0] if told.rest else None)
    else:
        return run(told.what, told.rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
