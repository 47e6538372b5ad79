"""Memory kept for the next step, measured by the new pages that a process needs."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from refconv.nn import keep_memory

kept = {call}


def step():
    return np.ones(2**24, dtype="float32").sum()  # 64 MiB, more than glibc keeps by itself


def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


step()
before = pages()
for _ in range(8):
    step()
print(kept, pages() - before)
"""


def run(call: str) -> tuple[str, int]:
    """Return the answer of keep_memory, and the number of pages for eight steps after the first."""
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(call=call)], capture_output=True, text=True, check=True)
    kept, pages = done.stdout.split()
    return kept, int(pages)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults are counted on Linux")
def test_kept_memory_is_reused() -> None:
    kept, pages = run("keep_memory()")
    _, without = run("None")
    if kept == "False":
        pytest.skip("the C library is not glibc")
    assert without >= 8 * 16  # pages of 4 MiB at most
    assert pages < without / 4


def test_where_the_c_library_has_no_such_function_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    from refconv.nn import keep_memory, malloc

    def nothing(name: object) -> object:
        return object()

    def windows(name: object) -> object:
        raise TypeError("a library must be named")

    for library in (nothing, windows):
        monkeypatch.setattr(malloc.ctypes, "CDLL", library)
        assert keep_memory() is False
