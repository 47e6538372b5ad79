"""The C example, compiled and compared with the test vectors, which must reveal mistakes put into its source."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from refconv.testing.vectors import write_vectors

pytest.importorskip("safetensors", reason="needs the extra refconv[vectors]")

SOURCE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "conv.c"
COMPILER = shutil.which("cc")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="there is no C compiler named cc"),
    pytest.mark.skipif(sys.byteorder != "little", reason="the example reads little-endian numbers only"),
]


def numbers(problem: dict[str, Any]) -> list[Any]:
    """Return one line of the driver's list."""
    return [
        problem["id"], problem["kind"], *problem["x_shape"], problem["weight_shape"][0], *problem["weight_shape"][2:],
        *problem["stride"], *(p for pair in problem["padding"] for p in pair), *problem["dilation"], problem["groups"],
        int(problem["has_bias"]), int("grad_x" in problem["expected"]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[dict[str, Any]]]:
    """The vectors, the list of those that the example supports, and their manifest entries."""
    folder = tmp_path_factory.mktemp("c")
    with pytest.MonkeyPatch.context() as patch:  # these tests do not need the mistakes that each problem catches
        patch.setattr("refconv.testing.vectors.write.caught", lambda *_: [])
        manifest = write_vectors(folder / "vectors")
    fitting = [
        problem
        for problem in json.loads(manifest.read_text("utf-8"))["problems"]
        if (problem["operation"], problem["spatial_dims"], problem["dtype"]) == ("conv", 2, "float32")
        and problem["padding_mode"] == "zeros"
    ]
    text = "".join(" ".join(map(str, numbers(problem))) + "\n" for problem in fitting)
    (folder / "list").write_text(text)
    return manifest.parent, folder / "list", fitting


def compiled(tmp_path: Path, source: str, *options: str) -> Path:
    assert COMPILER is not None
    (tmp_path / "conv.c").write_text(source, encoding="utf-8")
    command = [
        COMPILER,
        "-std=c99",
        "-pedantic",
        "-Wall",
        "-Wextra",
        "-Werror",
        *options,
        "conv.c",
        "-lm",
        "-o",
        "conv",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return tmp_path / "conv"


def called(program: Path, *arguments: object) -> tuple[int, str, str]:
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("options", [("-O0",), ("-O2",)])
def test_the_example_passes_every_vector_that_it_can_do(tmp_path: Path, listed: Any, options: tuple[str]) -> None:
    folder, lines, fitting = listed
    assert len(fitting) > 40
    assert {"exact", "bounded"} == {problem["kind"] for problem in fitting}
    program = compiled(tmp_path, SOURCE.read_text("utf-8"), *options)
    assert called(program, folder, lines) == (0, f"{len(fitting)} problems, 0 wrong\n", "")


MISTAKES = {  # text in the source, its replacement, and the result that is then wrong
    "kernel flipped": (
        "weight[w_at(p, k, c, u, v)] * x",
        "weight[w_at(p, k, c, p->kh - 1 - u, p->kw - 1 - v)] * x",
        "y",
    ),
    "stride ignored in the forward pass": ("int row = i * p->stride_h +", "int row = i +", "y"),
    "stride ignored in the input gradient": ("int to_row = i * p->stride_h +", "int to_row = i +", "grad_x"),
    "dilation ignored in the input gradient": (
        "int to_col = j * p->stride_w + v * p->dilation_w",
        "int to_col = j * p->stride_w + v",
        "grad_x",
    ),
    "stride ignored in the weight gradient": ("int at_col = j * p->stride_w +", "int at_col = j +", "grad_weight"),
    "padding after taken for padding before": (
        "int row = i * p->stride_h + u * p->dilation_h - p->top",
        "int row = i * p->stride_h + u * p->dilation_h - p->bottom",
        "y",
    ),
    "all groups read the first channels": ("first_channel(p, k) + c, row, col", "c, row, col", "y"),
    "input gradient summed into the first group": (
        "first_channel(p, k) + c, to_row, to_col",
        "c, to_row, to_col",
        "grad_x",
    ),
    "weight gradient reads the first group": (
        "first_channel(p, k) + c, at_row, at_col",
        "c, at_row, at_col",
        "grad_weight",
    ),
    "last row of the input not read": ("|| row >= p->h ||", "|| row >= p->h - 1 ||", "y"),
    "input gradient assigned": ("to_col)] += g", "to_col)] = g", "grad_x"),
    "bias gradient of the first sample only": (
        "grad_bias[k] = 0;\n        for (int n = 0; n < p->n; n++)",
        "grad_bias[k] = 0;\n        for (int n = 0; n < p->n && n < 1; n++)",
        "grad_bias",
    ),
    "bias ignored": ("bias ? sum + bias[k] : sum", "((void)bias, sum)", "y"),
    "bias added once per channel": ("sum + bias[k] : sum", "sum + bias[k] * (float)(p->c / p->groups) : sum", "y"),
    "weights of 11 bits": (
        "weight[w_at(p, k, c, u, v)] * x",
        "(float)(rint(weight[w_at(p, k, c, u, v)] * 1024.0) / 1024) * x",
        "y",
    ),
}


@pytest.mark.parametrize(("right", "wrong", "result"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_source_is_found(tmp_path: Path, listed: Any, right: str, wrong: str, result: str) -> None:
    folder, lines, _ = listed
    source = SOURCE.read_text("utf-8")
    assert source.count(right) == 1
    code, out, err = called(compiled(tmp_path, source.replace(right, wrong)), folder, lines)
    assert (code, err) == (1, "")
    found = [line.split()[2].rstrip(":") for line in out.splitlines() if line.startswith("WRONG ")]
    assert found
    assert set(found) == {result}
    assert int(out.split()[-2]) == len(found)  # problems, one wrong result in each


def test_the_example_says_what_it_cannot_read(tmp_path: Path, listed: Any) -> None:
    folder, lines, _ = listed
    program = compiled(tmp_path, SOURCE.read_text("utf-8"))
    first = lines.read_text().splitlines()[0]
    (tmp_path / "broken").write_text(first + "\nnonsense\n")
    (tmp_path / "missing").write_text(first.replace("conv2d-", "conv9d-", 1) + "\n")
    (tmp_path / "larger").write_text(first.replace(" exact 1 1 1 1 ", " exact 1 1 1 2 ", 1) + "\n")
    (tmp_path / "nothing").write_text("")
    for arguments, message in {
        (): "usage: conv DIR LIST",
        (folder, tmp_path / "absent"): "usage: conv DIR LIST",
        (folder, tmp_path / "broken"): "line 2 of",
        (folder, tmp_path / "nothing"): "is not a problem",
        (folder, tmp_path / "missing"): "is no .npy file",
        (folder, tmp_path / "larger"): "must hold 2 numbers",
    }.items():
        code, _, err = called(program, *arguments)
        assert code == 2
        assert message in err
