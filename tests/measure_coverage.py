"""Measure the share of a group's lines and branches that its tests run: ``python -m tests.measure_coverage [GROUP]``.

``make coverage GROUP=nn`` does the same. tests/mutation.py lists the groups; core is the default. Tests run on
NumPy in one process. Lines that they reach only in other processes are not counted.
"""

import subprocess
import sys

from tests.mutation import GROUPS, ROOT, files_of


def main(group: str = "core") -> int:
    """Run the group's tests, print the table of its files, and return the exit code."""
    tests = sorted(str(path) for pattern in GROUPS[group][1] for path in ROOT.glob(f"tests/test_{pattern}.py"))
    coverage = (sys.executable, "-m", "coverage")
    pytest = ("-m", "pytest", "-n", "0", "-q", "--backend", "numpy")
    ran = subprocess.run([*coverage, "run", "--branch", "--source=refconv", *pytest, *tests], cwd=ROOT, check=False)
    include = ",".join(map(str, files_of(group)))
    told = subprocess.run([*coverage, "report", f"--include={include}"], cwd=ROOT, check=False)
    return ran.returncode or told.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
