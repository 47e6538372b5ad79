# ruff: noqa: E501  (the table of breaks reads best one to a line)
"""Break refconv on purpose, one line at a time, and show which test turns red.

    python tests/break_on_purpose.py [NAME …]

Each break is made in a copy of the package; the suite then runs against the copy and must fail. Exits with 1 if
any break goes unnoticed. Not part of the suite itself: it runs the suite once per break.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["tests/test_im2col.py", "tests/test_conv_forward.py", "tests/test_conv_backward.py", "tests/test_conv_transpose.py",
         "tests/test_properties.py", "tests/test_tiling.py", "tests/test_groups.py", "tests/test_messages.py",
         "tests/test_devices.py"]  # fmt: skip

# name: file, what stands there, what is put in its place
BREAKS = {
    "im2col-taps-transposed": (
        "arrays.py",
        "*(step * d for step, d in zip(spatial, dilation, strict=True)),",
        "*(step * d for step, d in zip(reversed(spatial), dilation, strict=True)),",
    ),
    "im2col-dilation-ignored": ("arrays.py", "*(step * d for step, d in", "*(step * 1 for step, d in"),
    "im2col-stride-ignored": ("arrays.py", "*(step * s for step, s in", "*(step * 1 for step, s in"),
    "im2col-returns-a-view": ("im2col.py", "gather_columns(xp, padded, geo, copy=True)", "gather_columns(xp, padded, geo)"),
    "col2im-loses-overlaps": ("im2col.py", "image[(..., *where)] += columns", "image[(..., *where)] = columns"),
    "col2im-stride-ignored": (
        "im2col.py",
        "in tap_slices(geo.kernel, geo.stride, geo.dilation, geo.output):\n        image",
        "in tap_slices(geo.kernel, (1,) * len(geo.stride), geo.dilation, geo.output):\n        image",
    ),
    "groups-first-kernel-only": (
        "conv.py",
        "kernel = kernels[piece.block][piece.groups, ...]",
        "kernel = kernels[piece.block][:1, ...] + 0 * kernels[piece.block][piece.groups, ...]",
    ),
    "groups-of-one-size-reversed": (
        "conv.py",
        "arrays = list(weight)[block.first : block.first + block.count]",
        "arrays = list(weight)[block.first : block.first + block.count][::-1]",
    ),
    "groups-shared-channels-overwrite": (
        "conv.py",
        "total = total + xp.take(listed, table, axis=1)",
        "total = xp.take(listed, table, axis=1)",
    ),
    "weight-gradient-channel-order": (
        "im2col.py",
        "(*range(1, d + 2), 0, *range(d + 2, 2 * d + 2))",
        "(*range(1, d + 2), *range(d + 2, 2 * d + 2), 0)",
    ),
    "weight-gradient-last-batch-slice-only": (
        "conv.py",
        "total = product if total is None else total + product",
        "total = product",
    ),
    "padding-reflect-repeats-the-edge": ("padding.py", "Run(0, before, before, -1)", "Run(0, before, before - 1, -1)"),
    "padding-circular-starts-late": ("padding.py", "Run(0, before, n - before, 1)", "Run(0, before, n - before - 1, 1)"),
    "padding-replicate-far-edge": (
        "padding.py",
        "Run(0, before, 0, 0), Run(end, end + after, n - 1, 0)",
        "Run(0, before, 0, 0), Run(end, end + after, 0, 0)",
    ),
    "padding-gradient-forgets-the-border": (
        "padding.py",
        "x[(..., *(run.input for run in combination))] += _flip",
        "x[(..., *(run.input for run in combination))] = _flip",
    ),
    "padding-same-odd-before": (
        "shapes.py",
        '(small, large) if padding == "same"',
        '(large, small) if padding == "same"',
    ),
    "transposed-output-padding-ignored": ("shapes.py", "+ 1 + extra[axis]", "+ 1"),
    "transposed-too-many-windows": (
        "shapes.py",
        'return _geometry(tuple(output), kernel, stride, dilation, pads, "zeros", size)',
        'return geometry(tuple(output), kernel, stride=stride, padding=pads, dilation=dilation)',
    ),
    "transposed-gradient-not-conjugated": (
        "conv.py",
        "_from_kernels(p, p.outer(positions, grad, conj_image=False))",
        "_from_kernels(p, p.outer(positions, grad, conj_image=True))",
    ),
    "transposed-sides-exchanged": (
        "conv.py",
        "return self.call.groups.outputs if self.call.transposed else self.call.groups.inputs",
        "return self.call.groups.inputs if self.call.transposed else self.call.groups.inputs",
    ),
    "input-gradient-not-conjugated": (
        "conv.py",
        "kernels = [conj(p.xp, kernel) for kernel in _to_kernels(p, weight)]",
        "kernels = _to_kernels(p, weight)",
    ),
    "bias-per-group-not-sliced": ("conv.py", "bias[channels], self._acc", "bias[: channels.stop - channels.start], self._acc"),
    "half-precision-accumulates-in-half": ("im2col.py", 'return "float32" if name == "float16" else computing_dtype(xp, name)', "return name"),
    "tiles-of-rows-miss-the-halo": (
        "conv.py",
        "first = -(-(rows[0] + before - geo.spans[0] + 1) // geo.stride[0])",
        "first = -(-(rows[0] + before) // geo.stride[0])",
    ),
    "tiles-of-rows-take-windows-that-touch-none": ("conv.py", "before - geo.spans[0] + 1) // geo", "before - geo.spans[0] - 1) // geo"),
    "rows-that-no-window-reads-in-later-samples": ("conv.py", "shape = (batch.stop - batch.start,", "shape = (batch.stop,"),
    "result-on-another-device": ("conv.py", "self.xp.empty(shape, dtype=get_dtype(self.xp, self.dtype), device=self.device)", "self.xp.empty(shape, dtype=get_dtype(self.xp, self.dtype))"),
    "tiles-of-rows-larger-than-a-tile": ("tiling.py", "halo = geo.spans[0] // geo.stride[0]", "halo = 0"),
    "message-with-another-number": ("shapes.py", "padding {before} + {after} = {n + before + after}, but", "padding {before} + {after} = {n + before - after}, but"),
}  # fmt: skip


def run(name: str) -> str | None:
    """Make one break in a copy and return the first test that fails, or None."""
    file, old, new = BREAKS[name]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "refconv", copy / "refconv", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        target = copy / "refconv" / file
        text = target.read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise SystemExit(f"{name}: the line to break stands {text.count(old)} times in {file}; bring it up to date")
        target.write_text(text.replace(old, new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *TESTS]
        done = subprocess.run(
            [*command, "--backend", "numpy"],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not failed:
        raise SystemExit(f"{name}: the suite did not run\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[0].split(" - ")[0]


def main() -> int:
    """Run the named breaks, or all of them."""
    missed = []
    for name in sys.argv[1:] or BREAKS:
        caught = run(name)
        print(f"{name:40} {caught or 'NOT CAUGHT'}", flush=True)  # noqa: T201
        if caught is None:
            missed.append(name)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
