"""The test vectors: right, complete, reproducible to the byte, and never partly written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refconv
from refconv.testing.mutants import CATALOGUE, Conv, ConvTranspose
from refconv.testing.oracles.bounds import COMPUTE, exact_and_bounds
from refconv.testing.oracles.derivatives import definition_double_backward, definition_jvp
from refconv.testing.oracles.problems import definition_results
from refconv.testing.regimes import axes_of
from refconv.testing.vectors import VectorsError, write_vectors
from refconv.testing.vectors import write as vectors
from refconv.testing.vectors.entries import NOTES, RESULTS, Entry, entries
from refconv.testing.vectors.write import make_vector
from tests.helpers import run_command

pytest.importorskip("safetensors", reason="needs the extra refconv[vectors]")

ARRAYS = "8602a875"  # of all .npy files, by name; a change needs another GENERATOR_VERSION
BY_ID = {entry.id: entry for entry in entries()}
FINITE = [entry for entry in entries() if not entry.spots]
SPOTS = [entry for entry in entries() if entry.spots]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vectors, without the slow list of mistakes that each problem catches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "caught", lambda *_: [])
        return write_vectors(tmp_path_factory.mktemp("vectors") / "all").parent


@pytest.fixture(scope="module")
def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text("utf-8"))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write only three problems, to save time."""
    monkeypatch.setattr(vectors, "entries", lambda: entries()[:3])


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- Contents --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_every_mistake_that_shows_in_values_is_caught(tmp_path: Path) -> None:
    manifest = json.loads(write_vectors(tmp_path / "all").read_text("utf-8"))
    caught = {name for problem in manifest["problems"] for name in problem["catches"]}
    names = {mutant.name for mutant in CATALOGUE}
    assert caught == set(manifest["mistakes"])
    assert names - caught == set(vectors.NOT_IN_VALUES) == set(manifest["not_in_values"])


def test_every_kind_of_problem_is_there(manifest: dict[str, Any]) -> None:
    problems = manifest["problems"]
    kinds = {(p["operation"], p["spatial_dims"], p["dtype"], p["kind"]) for p in problems}
    for operation in ("conv", "conv_transpose"):
        assert {(operation, d, "float32", kind) for d in (1, 2, 3) for kind in ("exact",)} <= kinds
        for dtype in ("float16", "float32", "float64"):
            assert {(operation, 2, dtype, "exact"), (operation, 2, dtype, "bounded")} <= kinds
        assert {flag for p in problems if p["operation"] == operation for flag in p["flags"]} >= {
            "groups", "depthwise", "asymmetric_padding", "empty", "non_finite", "no_bias", "unequal_channels", "stride",
            "dilation", "large", "same", "wide_output", "derivatives",
        }  # fmt: skip
    assert any({"stride", "dilation", "groups", "asymmetric_padding"} <= set(p["flags"]) for p in problems)
    assert {flag for p in problems for flag in p["flags"]} == set(NOTES) == set(manifest["notes"])
    assert len({p["comment"] + p["id"] for p in problems}) == len(problems) == manifest["problem_count"] > 100


def test_it_is_small(folder: Path) -> None:
    assert sum(map(len, tree(folder).values())) < 4e6


# --- They are right --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", FINITE, ids=lambda entry: entry.id)
def test_expected_results_agree_with_the_definition(entry: Entry) -> None:
    vector = make_vector(entry)
    wide = vector.operands.mapped(lambda a: a.astype(np.float64))
    _, bounds = exact_and_bounds(entry.problem, wide, COMPUTE["float64"])
    for part, by_loops in definition_results(entry.problem, wide)._asdict().items():
        expected = getattr(vector.expected, part)
        if part not in entry.parts:
            assert expected is None
        elif entry.kind == "exact":
            assert expected.dtype == (entry.output_dtype or entry.dtype)
            np.testing.assert_array_equal(expected.astype(np.float64), by_loops)
            assert not np.signbit(expected[expected == 0]).any()
        else:
            assert expected.dtype == np.float64
            assert (np.abs(expected - by_loops) <= getattr(bounds, part)).all()


@pytest.mark.parametrize("entry", [e for e in entries() if e.derivatives], ids=lambda entry: entry.id)
def test_derivatives_agree_with_the_definition(entry: Entry) -> None:
    vector = make_vector(entry)
    assert vector.direction is not None
    given = entry.problem, vector.operands, vector.direction
    for found, right in zip(vector.derivatives.values(), definition_double_backward(*given), strict=True):
        np.testing.assert_array_equal(found, right, strict=True)
    np.testing.assert_array_equal(vector.derivatives["dy"], definition_jvp(*given))
    assert not vector.is_right("dy", vector.derivatives["dy"] + 1)


@pytest.mark.parametrize("name", ["conv2d-wide", "conv1d-wide-everything", "convtranspose1d-wide-everything"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_wide_outputs_are_beyond_the_operands_range(name: str, dtype: str) -> None:
    vector = make_vector(BY_ID[f"{name}-{dtype}"])
    assert np.mean(vector.expected.y != vector.expected.y.astype(dtype)) > 0.9
    assert not vector.is_right("y", vector.expected.y.astype(dtype))
    assert len(np.unique(vector.operands.x)) == vector.operands.x.size


@pytest.mark.parametrize("entry", SPOTS, ids=lambda entry: entry.id)
def test_values_that_are_not_finite_agree_with_the_definition(entry: Entry) -> None:
    vector = make_vector(entry)
    with np.errstate(invalid="ignore"):
        y = definition_results(entry.problem, vector.operands).y
    np.testing.assert_array_equal(vector.expected.y, y)
    assert entry.name == "nan-unread" or not np.isfinite(y).all()
    assert np.isfinite(y).any()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_real_results_are_rounded_once(dtype: str) -> None:
    vector = make_vector(BY_ID[f"conv2d-real-plain-{dtype}"])
    x, weight, bias, g = (np.vectorize(Fraction, otypes=[object])(a.astype(float)) for a in vector.operands)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=Fraction(0))
    for n, k, i, j in [(0, 0, 0, 0), (1, 3, 2, 4), (0, 2, 4, 5)]:
        exact = bias[k] + (weight[k] * padded[n, :, i : i + 3, j : j + 3]).sum()
        assert vector.expected.y[n, k, i, j] == float(exact)
    for k, c, u, v in [(0, 0, 0, 0), (3, 2, 2, 1)]:
        exact = (g[:, k] * padded[:, c, u : u + 5, v : v + 6]).sum()
        assert vector.expected.grad_weight[k, c, u, v] == float(exact)


ZEROS = [entry for entry in entries() if entry.problem.padding_mode == "zeros"]


@pytest.mark.parametrize("entry", ZEROS, ids=lambda entry: entry.id)
def test_a_right_implementation_passes(entry: Entry) -> None:
    vector, p = make_vector(entry), entry.problem
    x, weight, bias, g = vector.operands
    plain: Any = ConvTranspose() if p.transposed else Conv()
    plain.output_dtype = entry.output_dtype
    integers = (p.stride, p.pairs, p.dilation, p.groups)
    extra = {"output_padding": tuple(axis.rest for axis in axes_of(p))} if p.transposed else {}
    with np.errstate(invalid="ignore"):
        assert vector.is_right("y", plain.forward(x, weight, bias, *integers, **extra))
    if len(entry.parts) > 1:
        for part, grad in zip(RESULTS[1:], plain.backward(g, x, weight, *integers, **extra), strict=True):
            assert vector.is_right(part, grad), part


def test_an_error_beyond_the_bounds_is_wrong() -> None:
    for entry in entries():
        if entry.kind == "bounded":
            vector = make_vector(entry)
            for part in RESULTS:
                expected, bound = getattr(vector.expected, part), getattr(vector.bounds, part)
                assert ((bound > 0) | (expected == 0)).all()  # an element that no term reaches is 0
                assert (bound < 2**-7 * np.abs(expected).max()).all()
                assert vector.is_right(part, expected)
                assert vector.is_right(part, expected + 0.5 * bound)
                assert not vector.is_right(part, expected + 3 * bound)
                assert not vector.is_right(part, np.full_like(expected, np.nan))
                assert not vector.is_right(part, expected[..., None])
                assert not vector.is_right(part, None)


def test_one_wrong_element_is_wrong() -> None:
    for entry in entries():
        vector = make_vector(entry)
        for part in entry.parts:
            expected = getattr(vector.expected, part)
            if entry.kind == "exact" and expected.size:
                changed = expected.copy()
                last = expected.reshape(-1)[-1]
                near = last + 1 if last.dtype.kind == "i" else np.nextafter(last, np.inf, dtype=last.dtype)
                changed.reshape(-1)[-1] = near if np.isfinite(last) else 1
                assert vector.is_right(part, expected)
                assert not vector.is_right(part, changed)


# --- Files -----------------------------------------------------------------------------------------------------------


def test_files_are_what_the_manifest_says(folder: Path, manifest: dict[str, Any]) -> None:
    from safetensors.numpy import load

    files = tree(folder)
    named = {"manifest.json"}
    for problem in manifest["problems"]:
        tensors = load(files[problem["safetensors"]])
        named.add(problem["safetensors"])
        listed = {
            prefix + name: array
            for part, prefix in (("operands", ""), ("expected", "expected_"), ("bounds", "bound_"))
            for name, array in problem[part].items()
        }
        assert set(tensors) == set(listed)
        results = ["y"] if {"non_finite", "wide_output"} & set(problem["flags"]) else list(RESULTS)
        derivatives = list(vectors.DERIVATIVES) if "derivatives" in problem["flags"] else []
        assert list(problem["expected"]) == results + derivatives
        assert list(problem["bounds"]) == (results if problem["kind"] == "bounded" else [])
        assert ("dx" in problem["operands"]) == bool(derivatives)
        assert ("bias" in problem["operands"]) == problem["has_bias"]
        for name, array in listed.items():
            data = files[array["file"]]
            read = np.load(folder / array["file"], allow_pickle=False)
            assert data[:8] == b"\x93NUMPY\x01\x00"
            assert b"'fortran_order': False" in data[:128]
            assert read.dtype.byteorder in "=<|"  # single bytes have no byte order
            assert (read.dtype.name, list(read.shape)) == (array["dtype"], array["shape"])
            assert hashlib.sha256(data).hexdigest() == array["sha256"]
            assert tensors[name].tobytes() == read.tobytes()
            assert tensors[name].shape == read.shape
            wide = name.startswith("bound") or (name.startswith("expected") and problem["kind"] == "bounded")
            own = problem["output_dtype"] if name == "expected_y" else problem["dtype"]
            assert array["dtype"] == ("float64" if wide else own)
            named.add(array["file"])
        for name, shape in (("x", "x_shape"), ("weight", "weight_shape")):
            assert listed[name]["shape"] == problem[shape]
        assert listed["expected_y"]["shape"] == problem["output_shape"]
    assert named == set(files)


def test_the_files_alone_are_enough(folder: Path, manifest: dict[str, Any]) -> None:
    """Every problem is checked with only the information in the manifest."""
    for problem in manifest["problems"]:
        given, expected, bounds = (
            {name: np.load(folder / array["file"]) for name, array in problem[part].items()}
            for part in ("operands", "expected", "bounds")
        )
        options = {name: problem[name] for name in ("stride", "padding", "dilation", "groups")}
        transposed = problem["operation"] == "conv_transpose"
        name = "output_padding" if transposed else "padding_mode"
        options[name] = problem[name]
        forward, backward, jvp, double = (
            getattr(refconv, problem["operation"] + part) for part in ("", "_backward", "_jvp", "_double_backward")
        )
        with np.errstate(invalid="ignore"):
            operands, output_dtype = (given["x"], given["weight"], given.get("bias")), problem["output_dtype"]
            results = {"y": forward(*operands, output_dtype=output_dtype, **options)}
            if problem["padding_word"]:
                size = {"output_size": problem["output_shape"][2:]} if transposed else {}
                word = {**options, "padding": problem["padding_word"], "output_padding": 0, **size}
                word.pop("output_padding" if not transposed else "padding_mode", None)
                np.testing.assert_array_equal(forward(*operands, **word), results["y"])
        if "grad_output" in given:
            results |= zip(
                RESULTS[1:], backward(given["grad_output"], given["x"], given["weight"], **options), strict=True
            )
        if "dx" in given:
            along = given["dx"], given["dweight"], given.get("dbias")
            tangent = dict(zip(("dx", "dweight", "dbias"), along, strict=True))
            results["dy"] = jvp(given["x"], given["weight"], **tangent, **options)
            doubled = double(along, given["grad_output"], given["x"], given["weight"], **options)
            np.testing.assert_array_equal(doubled.grad_output, results["dy"])
            results |= {"double_grad_x": doubled.x, "double_grad_weight": doubled.weight}
        assert results.keys() == expected.keys()
        for name, result in results.items():
            assert result.dtype == (problem["output_dtype"] if name == "y" else problem["dtype"])
            assert result.shape == expected[name].shape
            if problem["kind"] == "bounded":
                assert (np.abs(result - expected[name]) <= bounds[name]).all()
            else:
                np.testing.assert_array_equal(result, expected[name], problem["id"])


def test_the_arrays_are_those_of_this_version(folder: Path) -> None:
    digest, earlier = hashlib.sha256(), hashlib.sha256()
    of_format_1 = {entry.id for entry in entries()[:135]}
    for name, data in sorted(tree(folder).items()):
        if name.endswith(".npy"):
            digest.update(name.encode() + b"\0" + data)
            if name.split("/")[1] in of_format_1:
                earlier.update(name.encode() + b"\0" + data)
    assert vectors.GENERATOR_VERSION == "2.0.0"
    assert digest.hexdigest()[:8] == ARRAYS, "arrays have changed: raise GENERATOR_VERSION"
    assert earlier.hexdigest()[:8] == "75ac6aa7", "problems of format 1 have kept their arrays"


@pytest.mark.long
def test_two_runs_are_the_same_to_the_byte(tmp_path: Path) -> None:
    folder = write_vectors(tmp_path / "once").parent
    environment = os.environ | {"PYTHONHASHSEED": "7", "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-m", "refconv", "vectors", "--out", str(tmp_path / "again"), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert tree(tmp_path / "again") == tree(folder)
    written = json.loads(done.stdout)
    assert (written["problems"], written["files"]) == (len(entries()), len(tree(folder)))
    assert done.stderr == ""


@pytest.mark.usefixtures("few")
def test_another_seed_gives_other_numbers(tmp_path: Path) -> None:
    zero, one = (tree(write_vectors(tmp_path / str(seed), seed=seed).parent) for seed in (0, 1))
    assert zero.keys() == one.keys()
    assert zero["arrays/conv1d-overlap-float32/x.npy"] != one["arrays/conv1d-overlap-float32/x.npy"]


def test_json_keeps_numbers_together_and_text_as_it_is() -> None:
    value = {"a": [[1, -2], [3, 4]], "b": [], "c": ["[1, 2]", "x"], "d": [[]], "e": {"f": [0]}, "g": "[ 1,  2 ]"}
    assert json.loads(vectors.to_json(value)) == value


# --- Where they are written ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few")
def test_earlier_vectors_are_replaced(tmp_path: Path) -> None:
    manifest = write_vectors(str(tmp_path / "a" / "b"), seed=1)  # type: ignore[arg-type]
    assert manifest == tmp_path / "a" / "b" / "manifest.json"
    assert json.loads(write_vectors(manifest.parent).read_text("utf-8"))["seed"] == 0
    (tmp_path / "empty").mkdir()
    write_vectors(tmp_path / "empty")
    assert tree(tmp_path / "empty") == tree(manifest.parent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty"]
    assert (manifest.parent.stat().st_mode & 0o777) == (tmp_path / "a").stat().st_mode & 0o777


@pytest.mark.usefixtures("few")
def test_vectors_of_format_1_are_replaced_and_can_be_read(tmp_path: Path) -> None:
    """All additions of format 2 have defaults, with which a reader of format 2 reads problems of format 1."""
    path = write_vectors(tmp_path / "out")
    manifest = json.loads(path.read_text("utf-8")) | {"format_version": 1}
    assert manifest["format"] == "refconv test vectors"
    for problem in manifest["problems"]:
        assert (problem.pop("padding_mode"), problem.pop("padding_word")) == ("zeros", None)
        assert problem.pop("output_dtype") == problem["dtype"]
    path.write_text(json.dumps(manifest), "utf-8")
    assert json.loads(write_vectors(tmp_path / "out").read_text("utf-8"))["format_version"] == 2


@pytest.mark.usefixtures("few")
def test_a_link_to_a_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    write_vectors(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "manifest.json").exists()


FOREIGN = {
    "other files": ("notes.txt", "mine"),
    "a folder": ("sub/notes.txt", "mine"),
    "another manifest": ("manifest.json", '{"format": "other"}'),
    "no JSON": ("manifest.json", "{"),
    "a list": ("manifest.json", "[]"),
    "half a manifest": ("manifest.json", '{"format": "refconv test vectors", "problems": [{}]}'),
}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("name", "text"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_directory_is_left_alone(tmp_path: Path, name: str, text: str) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text(text)
    before = tree(tmp_path)
    with pytest.raises(VectorsError, match="is not empty and contains no test vectors"):
        write_vectors(out)
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.usefixtures("few")
def test_a_file_of_the_user_among_the_vectors_is_kept(tmp_path: Path) -> None:
    write_vectors(tmp_path / "out")
    (tmp_path / "out" / "arrays" / "mine.txt").write_text("mine")
    with pytest.raises(VectorsError, match=r"contains arrays/mine\.txt, which is not one of its vectors"):
        write_vectors(tmp_path / "out")
    assert (tmp_path / "out" / "arrays" / "mine.txt").read_text() == "mine"


@pytest.mark.usefixtures("few")
def test_other_bad_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    for out, message in {
        "file": "is a file", "file/below": "cannot write to", ".": "is the current directory", "..": "or contains it",
        "/": "or contains it", "loop": "cannot write to|is a file", "a" * 300: "cannot write to",
        "a\0b": "cannot write to",
    }.items():  # fmt: skip
        with pytest.raises(VectorsError, match=message):
            write_vectors(Path(out))
    for seed, error in ((-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="seed"):
            write_vectors(tmp_path / "out", seed=seed)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_that_breaks_off_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, earlier: bool
) -> None:
    if earlier:
        write_vectors(tmp_path / "out", seed=1)
    before, written = tree(tmp_path), vectors.npy_bytes

    def fail(array: Any) -> bytes:
        if array.ndim == 1:
            raise error
        return written(array)

    monkeypatch.setattr(vectors, "npy_bytes", fail)
    with pytest.raises(VectorsError if isinstance(error, OSError) else type(error)):
        write_vectors(tmp_path / "out")
    assert tree(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == earlier


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("error", [OSError(16, "Device or resource busy"), KeyboardInterrupt()])
def test_if_the_last_move_fails_the_earlier_vectors_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write_vectors(tmp_path / "out", seed=1)
    before, rename = tree(tmp_path), Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises((VectorsError, KeyboardInterrupt)):
        write_vectors(tmp_path / "out")
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_command_leaves_nothing_behind(tmp_path: Path, number: int, code: int) -> None:
    command = [sys.executable, "-m", "refconv", "vectors", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob(".out.*.part/new/arrays/*")):
            assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few")
def test_a_missing_package_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    code, out, err = run_command(capsys, "vectors", "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert re.fullmatch(r"refconv: .*pip install safetensors\n", err)
    assert list(tmp_path.iterdir()) == []


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few")
def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: Any) -> None:
    code, out, err = run_command(capsys, "vectors", "--out", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    assert out.startswith("3 problems (3 exact, 0 bounded), which catch ")
    assert out.endswith(f" MB\n{tmp_path / 'out' / 'manifest.json'}\n")
    code, out, err = run_command(capsys, "vectors", "--out", str(tmp_path / "out"), "--seed", "5", "--json")
    written = json.loads(out)
    assert (code, err, written["seed"], written["problems"]) == (0, "", 5, 3)
    assert written["bytes"] == sum(map(len, tree(tmp_path / "out").values()))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option '--out'"),
        (["--out", "notes"], "is not empty and contains no test vectors"),
        (["--out", "notes/mine.txt"], "is a file"),
        (["--out", "new", "--seed", "-1"], "--seed"),
        (["--out", "new", "--backend", "none"], "--backend"),
        (["--out", "new", "extra"], "extra"),
    ],
)
def test_bad_usage_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    code, out, err = run_command(capsys, "vectors", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
