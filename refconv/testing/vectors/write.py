"""Test vectors: convolution problems with their right answers, as files that any language can read.

As in Project Wycheproof, a manifest states the purpose of every problem and the catalogued mistakes that it catches.
Whole-numbered problems are compared exactly, real-valued ones within bounds. ``docs/test-vectors.md`` specifies the
format.

The arrays have the same bytes on every machine. Operands come from raw bits of PCG64, whose stream NumPy never changes.
The sums of results are exact in float64, so that their order has no effect. The sums of bounds are not, so bounds are
rounded up to 20 bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refconv.files import replaced_folder, resolved
from refconv.integers import as_int
from refconv.testing.checker.calls import Caller, as_numpy
from refconv.testing.mutants import CATALOGUE, Mutant
from refconv.testing.oracles.bounds import error_bound
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.derivatives import definition_double_backward
from refconv.testing.oracles.problems import Operands, Problem, Results
from refconv.testing.oracles.trilinear import exact_results
from refconv.testing.regimes import axes_of
from refconv.testing.vectors.entries import NOTES, RESULTS, Entry, entries, flags_of

FORMAT, FORMAT_VERSION = "refconv test vectors", 2
"""The beginning of a manifest. The version changes when readers must change."""
GENERATOR_VERSION = "2.0.0"
"""Changes with any byte of the arrays: the last number for corrections, the middle for additions, the first for a new
format."""
MANIFEST = "manifest.json"
OPERANDS = ("x", "weight", "bias", "grad_output", "dx", "dweight", "dbias")
DERIVATIVES = ("dy", "double_grad_x", "double_grad_weight")
"""Further results of a problem with a direction (dx, dweight, dbias)."""
BOUND_OF = {"y": "forward", "grad_x": "grad_x", "grad_weight": "grad_weight", "grad_bias": "grad_bias"}

NOT_IN_VALUES = {
    "writes into x": "the values are right; only the caller's array changes",
    "writes into the upstream gradient": "the values are right; only the caller's array changes",
    "needs a writable x": "shows only where the caller's arrays are read-only",
    "memory read in storage order": "shows only for arrays that are not contiguous; arrays in files are contiguous",
    "bias gradient is a view of the upstream gradient": "the values are right; the result shares memory",
    "returns the same buffer at every call": "shows only where a function is called again",
    "columns cached from an earlier call": "shows only where a function is called again with other data",
    "result cached by shape": "shows only where a function is called again with other data",
    "backward uses the x of the last forward call": "shows only where both passes are called again with other data",
    "weight gradient accumulates over calls": "shows only where a function is called again",
    "random results": "shows only where a function is called again",
    "returns float64": "the values are right; the data type is for the language to check",
    "never returns where the stride exceeds the kernel": "there is no value to compare; give a test a time limit",
    "kernel conjugated": "shows only on complex numbers, which the vectors do not contain",
    "integers summed in floating point": "shows only on numbers larger than any in the vectors",
    "gradients not conjugated": "shows only on complex numbers, which the vectors do not contain",
}
"""Catalogued mistakes that no vector can catch, and why."""

ALGORITHM = {
    "conv": "y[n,k,o] = bias[k] + sum over c of the group of k and taps t of "
    "weight[k,c,t] * x[n,c,o*stride + t*dilation - before], where x is extended by padding_mode. The kernel is not "
    "flipped.",
    "conv_transpose": "y[n,k,i] = bias[k] + sum over c of the group of k, taps t and positions l with "
    "l*stride + t*dilation - before = i of weight[c,k,t] * x[n,c,l].",
    "sizes": "conv: floor((n + before + after - dilation*(k-1) - 1)/stride) + 1. conv_transpose: "
    "(n-1)*stride - before - after + dilation*(k-1) + 1 + output_padding.",
    "layout": "x and y are (N, C, D1, ..., Dd). weight is (K, C/groups, k1, ..., kd); of conv_transpose "
    "(C, K/groups, k1, ..., kd). Groups are contiguous blocks of channels, in order.",
    "gradients": "of sum(grad_output * y) with respect to x, weight and bias.",
    "padding_mode": "x outside 0 ... n-1. zeros: 0. replicate: the nearest element. reflect: back and forth between "
    "the ends, period 2*(n-1). circular: period n.",
    "derivatives": "dy: the derivative of y along (dx, dweight, dbias). With s = sum(dx * grad_x) + sum(dweight * "
    "grad_weight) + sum(dbias * grad_bias), the gradients of s with respect to grad_output, x and weight are dy, "
    "double_grad_x and double_grad_weight.",
    "exact": "Whole numbers: every sum, in any order, is exact in the problem's data type (float16: in float32). "
    "Results must be equal as numbers; NaN equals NaN, and the sign of 0 is not compared.",
    "bounded": "Results must satisfy |result - expected| <= bound, element by element, computed in float64. "
    "Valid for every order of summation, not for Winograd's and FFT methods.",
}


class VectorsError(Exception):
    """The vectors cannot be written to the given directory, or a package is missing."""


# --- Operands --------------------------------------------------------------------------------------------------------


class _Draws:
    """Numbers from raw bits, in a separate stream per problem, so that numbers do not depend on other problems."""

    def __init__(self, seed: int, name: str) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))

    def _bits_of(self, count: int, bits: int) -> Array:
        return (self._bits.random_raw(count) >> np.uint64(64 - bits)).astype(np.int64)

    def whole(self, shape: tuple[int, ...], most: int) -> Array:
        """Return numbers from −most to most without 0, all equally often."""
        pool = np.array([v for v in range(-most, most + 1) if v], np.float64)
        count = math.prod(shape)
        rounds = [pool[np.argsort(self._bits_of(len(pool), 63), kind="stable")] for _ in range(-(-count // len(pool)))]
        return np.concatenate([*rounds, pool[:0]])[:count].reshape(shape)

    def real(self, shape: tuple[int, ...], bits: int) -> Array:
        """Return numbers from −2 to 2 with `bits` significant bits."""
        return (self._bits_of(math.prod(shape), bits + 1) - 2**bits).reshape(shape) / 2.0 ** (bits - 1)

    def positive(self, shape: tuple[int, ...], bits: int) -> Array:
        """Return numbers from 1 to 2 with `bits` significant bits."""
        return 1 + self._bits_of(math.prod(shape), bits - 1).reshape(shape) / 2.0 ** (bits - 1)


_BITS = {"float16": 11, "float32": 24, "float64": 41}
"""Significant bits that are drawn: all, but for float64 few enough that results can be summed without an error."""


def _operands(entry: Entry, seed: int) -> tuple[Operands, Operands | None]:
    """Return the arrays of a problem in its data type, and a direction if it has derivatives."""
    draws, bits = _Draws(seed, entry.id), _BITS.get(entry.dtype, 0)
    most = 2 if entry.dtype == "float16" else 4  # sums must stay below 2^11 there
    fills: dict[str, Callable[[tuple[int, ...]], Array]] = {
        "whole": lambda shape: draws.whole(shape, most),
        "ones": np.ones,
        "bytes": lambda shape: draws.whole(shape, 127) % 256 if entry.dtype == "uint8" else draws.whole(shape, 127),
        "real": lambda shape: draws.real(shape, bits),
        "positive": lambda shape: draws.positive(shape, bits),
        "constant": lambda shape: np.broadcast_to(draws.positive((1,), bits), shape).copy(),
        "cancelling": lambda shape: draws.positive(shape, bits),
    }
    draw, p = fills[entry.fill], entry.problem
    x = draw(p.x_shape)
    if entry.fill == "cancelling":  # signs alternate over channels; the parts are nearly equal
        x = (1 + x / 2**6) * np.where(np.arange(p.c_in) % 2, -1.0, 1.0).reshape(1, -1, *(1,) * p.spatial_dims)
        x = x.astype(entry.dtype).astype(np.float64)
    weight, bias, grad_output = draw(p.weight_shape), draw((p.c_out,)) if p.bias else None, draw(p.output_shape)
    if entry.fill == "cancelling":
        weight = np.abs(weight[:, :1]) * np.ones(p.weight_shape)
    for index, value in entry.spots:
        x[index] = value
    operands = Operands(x, weight, bias, grad_output).mapped(lambda a: a.astype(entry.dtype))
    return operands, operands.mapped(lambda a: draw(a.shape).astype(entry.dtype)) if entry.derivatives else None


# --- Right results ---------------------------------------------------------------------------------------------------


def _widened(operands: Operands, function: Callable[[Array], Array] = np.asarray) -> Any:
    return operands.mapped(lambda a: function(a.astype(np.float64)))


def _exact(entry: Entry, operands: Operands) -> Results:
    """Return whole-numbered results in the problem's data type."""
    if entry.spots:
        return Results(_not_finite(entry.problem, operands).astype(entry.dtype), None, None, None)
    # If the sums of absolute values are exact, so is every partial sum, in any order.
    largest = exact_results(entry.problem, _widened(operands, np.abs), entry.parts)
    dtype = entry.output_dtype or entry.dtype
    limit = 2 ** (31 if dtype == "int32" else 24 if dtype != "float16" else 12 if entry.fill == "ones" else 11)
    assert all(float(np.max(a, initial=0)) <= limit for a in largest if a is not None), entry.id
    results: Any = exact_results(entry.problem, _widened(operands), entry.parts)
    return Results(*(None if a is None else (a + 0.0).astype(dtype) for a in results))  # + 0.0 makes 0 of −0


def _along(entry: Entry, operands: Operands, direction: Operands) -> dict[str, Array]:
    """Return the derivatives along a direction, by names of :data:`DERIVATIVES`, in the problem's data type."""
    given = _widened(operands), _widened(direction)
    sizes = definition_double_backward(entry.problem, *(a.mapped(np.abs) for a in given))
    assert all(float(np.max(a)) <= 2**24 for a in sizes), entry.id
    arrays = definition_double_backward(entry.problem, *given)
    return {name: (a + 0.0).astype(entry.dtype) for name, a in zip(DERIVATIVES, arrays, strict=True)}


def _not_finite(problem: Problem, operands: Operands) -> Array:
    """Return y by counting which terms are NaN, ∞ and −∞."""
    given = _widened(operands)
    clean = np.where(np.isfinite(given.x), given.x, 0)
    y = exact_results(problem, given._replace(x=clean), ("y",)).y

    def terms(x: Array, weight: Array) -> Array:
        numbers = Operands(x.astype(np.float64), weight.astype(np.float64), None, given.grad_output)
        return exact_results(problem, numbers, ("y",)).y > 0

    up, down = given.x == np.inf, given.x == -np.inf
    plus = terms(up, given.weight > 0) | terms(down, given.weight < 0)
    minus = terms(up, given.weight < 0) | terms(down, given.weight > 0)
    nan = terms(np.isnan(given.x), np.ones(given.weight.shape)) | terms(up | down, given.weight == 0)
    y = np.where(plus, np.inf, np.where(minus, -np.inf, y + 0.0))
    return np.where(nan | (plus & minus), np.nan, y)


_HIGH = 2.0**20


def _rounded_once(problem: Problem, operands: Operands) -> Results:
    """Return real-valued results in float64, each rounded once.

    Each operand is a high part, a multiple of 2^-20, and a low part, a multiple of 2^-40 below 2^-20. Sums of up to
    2,048 products of parts are exact in any order, and the sums of the parts are added without an error.
    """
    given = _widened(operands)
    high = _widened(operands, lambda a: np.rint(a * _HIGH) / _HIGH)
    low = Operands(*(None if a is None else a - h for a, h in zip(given, high, strict=True)))
    for a, part in zip(given, low, strict=True):
        assert a is None or (np.all(np.abs(a) <= 2) and np.all(np.rint(part * _HIGH**2) == part * _HIGH**2))
    # Each result multiplies two of x, weight and grad_output. These four choices contain all four pairs of parts of
    # any two of them.
    choices = ((high, high, high), (high, low, low), (low, high, low), (low, low, high))
    found = [exact_results(problem, Operands(x.x, w.weight, None, g.grad_output)) for x, w, g in choices]
    terms = {part: [getattr(results, part) for results in found] for part in RESULTS}
    terms["grad_bias"] = [exact_results(problem, given, ("grad_bias",)).grad_bias]
    if given.bias is not None:
        shape = found[0].y.shape
        terms["y"].append(np.broadcast_to(given.bias.reshape(-1, *(1,) * problem.spatial_dims), shape))
    return Results(*(_summed(terms[part]) for part in RESULTS))


def _summed(terms: Sequence[Array]) -> Array:
    """Return the sum of arrays, rounded once."""
    columns = zip(*(term.ravel().tolist() for term in terms), strict=True)
    return np.array([math.fsum(column) for column in columns], np.float64).reshape(terms[0].shape)


def _bounds(entry: Entry, operands: Operands, expected: Results) -> Results:
    p = entry.problem
    options = {"stride": p.stride, "padding": p.pairs, "dilation": p.dilation, "groups": p.groups}
    if p.transposed:
        options["output_padding"] = p.output_padding

    def bound(part: str) -> Array:
        found = error_bound(
            operands.x,
            operands.weight,
            operands.bias,
            of=BOUND_OF[part],
            grad_output=operands.grad_output,
            transposed=p.transposed,
            **options,  # type: ignore[arg-type]
        )
        return _rounded_up(found + 2.0**-53 * np.abs(getattr(expected, part)))  # expected itself is rounded once

    return Results(*map(bound, RESULTS))


def _rounded_up(bounds: Array, bits: int = 20) -> Array:
    """Return bounds with few significant bits, so that the last bit of a sum, which depends on its order, is gone."""
    mantissa, exponent = np.frexp(bounds)
    return np.ldexp(np.ceil(mantissa * 2.0**bits), exponent - bits)


@dataclass(frozen=True, eq=False)
class Vector:
    """A problem with its arrays and right results; `bounds` if it is compared within bounds.

    `derivatives` are the further results along `direction`.
    """

    entry: Entry
    operands: Operands
    expected: Results
    bounds: Results | None
    direction: Operands | None = None
    derivatives: dict[str, Array] = field(default_factory=dict)

    def is_right(self, part: str, actual: Any) -> bool:
        """Return whether a result has the right shape and values."""
        array, expected = as_numpy(actual), (self.expected._asdict() | self.derivatives)[part]
        if array is None or array.shape != expected.shape:
            return False
        if self.bounds is None:
            return bool(((array == expected) | ((array != array) & (expected != expected))).all())
        return bool((np.abs(array.astype(np.float64) - expected) <= getattr(self.bounds, part)).all())

    def arrays(self) -> dict[str, Array]:
        """Return all arrays, by the names of their files."""
        named: dict[str, Array | None] = self.operands._asdict()
        if len(self.entry.parts) == 1:
            named["grad_output"] = None
        if self.direction is not None:
            named |= {"dx": self.direction.x, "dweight": self.direction.weight, "dbias": self.direction.bias}
        named |= {f"expected_{part}": a for part, a in (self.expected._asdict() | self.derivatives).items()}
        if self.bounds is not None:
            named |= {f"bound_{part}": a for part, a in self.bounds._asdict().items()}
        return {name: _plain(a) for name, a in named.items() if a is not None}


def _plain(array: Array) -> Array:
    """Return an array in C order and little endian."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def make_vector(entry: Entry, seed: int = 0) -> Vector:
    """Fill a problem with arrays and compute its results.

    >>> vector = make_vector(entries()[0])
    >>> bool(vector.expected.y == vector.operands.x * vector.operands.weight + vector.operands.bias)
    True
    """
    operands, direction = _operands(entry, seed)
    if direction is not None:
        along = _along(entry, operands, direction)
        return Vector(entry, operands, _exact(entry, operands), None, direction, along)
    if entry.kind == "exact":
        return Vector(entry, operands, _exact(entry, operands), None)
    expected = _rounded_once(entry.problem, operands)
    return Vector(entry, operands, expected, _bounds(entry, operands, expected))


# --- Which mistakes a problem catches --------------------------------------------------------------------------------


def catches(vector: Vector, mutant: Mutant, call: Caller) -> bool:
    """Return whether a wrong implementation gives a wrong result, or none, on a problem."""
    p, given = vector.entry.problem, vector.operands.mapped(np.copy)
    implementation = mutant.make()
    implementation.output_dtype = vector.entry.output_dtype
    integers = (p.stride, p.padding if p.padding == "causal" else p.pairs, p.dilation, p.groups)
    options = {"output_padding": _extra(p)} if p.transposed else {}
    outcome = call(implementation.forward, given.x, given.weight, given.bias, *integers, **options)
    results = [outcome.value]
    if len(vector.entry.parts) > 1 and outcome.error is None and vector.is_right("y", outcome.value):
        given = vector.operands.mapped(np.copy)
        outcome = call(implementation.backward, given.grad_output, given.x, given.weight, *integers, **options)
        results += outcome.value if outcome.error is None and not outcome.too_long else []
    if outcome.too_long:
        raise RuntimeError(f"the mistake {mutant.name!r} does not return on {vector.entry.id}")
    if outcome.error is not None:
        return True
    return not all(vector.is_right(part, value) for part, value in zip(RESULTS, results, strict=False))


def _extra(problem: Problem) -> tuple[int, ...]:
    """Return the output padding of a transposed problem, even if its output's size is given in another way."""
    return tuple(axis.rest for axis in axes_of(problem))


def caught(vector: Vector, call: Caller) -> list[str]:
    """Return the names of the catalogued mistakes that a problem catches, in the catalogue's order.

    None where padding repeats elements: the catalogue pads with zeros.
    """
    if vector.entry.problem.padding_mode != "zeros":
        return []
    fitting = (m for m in CATALOGUE if m.transposed == vector.entry.problem.transposed and not m.endless)
    return [mutant.name for mutant in fitting if catches(vector, mutant, call)]


# --- Files -----------------------------------------------------------------------------------------------------------


def write_vectors(out: str | Path, *, seed: int = 0) -> Path:
    """Write the test vectors into a directory: a manifest, and every array as ``.npy`` and in safetensors files.

    Everything is first written next to the directory and then moved into place in one step. Earlier vectors are
    replaced; a directory with any other contents is refused.

    Parameters
    ----------
    out : str or Path
        The directory.
    seed : int
        Another seed gives other numbers in the same problems.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    VectorsError
        If safetensors is not installed, or the directory cannot be written or contains other files.
    TypeError, ValueError
        If the seed is not an integer of at least 0.
    """
    seed = as_int(seed, "seed", 0)
    save = _safetensors()
    asked = Path(out)
    try:
        target = resolved(asked)
        _check_target(asked, target)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL in the name
        raise VectorsError(f"cannot write to {asked}: {getattr(error, 'strerror', None) or error}") from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced_folder(target) as tree:
            _write_tree(tree, seed, save)
            _check_target(asked, target)  # it may have been filled meanwhile
    except OSError as error:
        raise VectorsError(f"cannot write to {asked}: {error.strerror or error}") from error
    return asked / MANIFEST


def _safetensors() -> Callable[..., bytes]:
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise VectorsError("writing test vectors needs safetensors: pip install safetensors") from error
    return save


def _check_target(asked: Path, target: Path) -> None:
    """Refuse a directory with contents other than earlier vectors, before any work."""
    if target.exists() and not target.is_dir():
        raise VectorsError(f"{asked} is a file; the vectors need a directory")
    if target in (Path.cwd(), *Path.cwd().parents):
        raise VectorsError(f"{asked} is the current directory or contains it; name a directory inside")
    if not target.is_dir():
        return
    if not any(target.iterdir()):
        return
    ours = _files_of(target / MANIFEST)
    if not ours:
        raise VectorsError(f"{asked} is not empty and contains no test vectors of refconv; choose another directory")
    there = (path for path in target.rglob("*") if path.is_symlink() or not path.is_dir())
    foreign = sorted({path.relative_to(target).as_posix() for path in there} - ours)
    if foreign:
        raise VectorsError(f"{asked} contains {foreign[0]}, which is not one of its vectors; choose another directory")


def _files_of(manifest: Path) -> set[str]:
    """Return the files of earlier vectors, none if the manifest is not ours."""
    if not manifest.is_file():  # missing, or a pipe, whose reading might never end
        return set()
    try:
        read = json.loads(manifest.read_text("utf-8"))
        if read["format"] != FORMAT:
            return set()
        files = {MANIFEST}
        for problem in read["problems"]:
            files.add(problem["safetensors"])
            files |= {array["file"] for part in ("operands", "expected", "bounds") for array in problem[part].values()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()
    return files


def _write_tree(tree: Path, seed: int, save: Callable[..., bytes]) -> None:
    problems = []
    with np.errstate(all="ignore"), _no_warnings(), Caller(60) as call:
        for entry in entries():
            vector = make_vector(entry, seed)
            problems.append(_write_problem(tree, vector, caught(vector, call), save))
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "generator": "refconv vectors",
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "problem_count": len(problems),
        "algorithm": ALGORITHM,
        "notes": NOTES,
        "mistakes": {
            m.name: m.explanation for m in CATALOGUE if any(m.name in problem["catches"] for problem in problems)
        },
        "not_in_values": NOT_IN_VALUES,
        "problems": problems,
    }
    (tree / MANIFEST).write_bytes(to_json(manifest).encode())


def _no_warnings() -> contextlib.AbstractContextManager[Any]:
    """Ignore warnings of wrong implementations; a warning turned into an error would count as a caught mistake."""
    return warnings.catch_warnings(action="ignore")


def _write_problem(tree: Path, vector: Vector, mistakes: list[str], save: Callable[..., bytes]) -> dict[str, Any]:
    """Write the arrays of a problem and return its part of the manifest."""
    entry, p, arrays = vector.entry, vector.entry.problem, vector.arrays()
    folder, tensors = f"arrays/{entry.id}", f"safetensors/{entry.id}.safetensors"
    (tree / folder).mkdir(parents=True)
    (tree / tensors).parent.mkdir(exist_ok=True)
    described = {}
    for name, array in arrays.items():
        data = npy_bytes(array)
        (tree / folder / f"{name}.npy").write_bytes(data)
        described[name] = {
            "file": f"{folder}/{name}.npy",
            "dtype": array.dtype.name,
            "shape": array.shape,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    # A single metadata key, because the package writes several in any order.
    (tree / tensors).write_bytes(save(arrays, metadata={"problem": entry.id}))

    def named(prefix: str) -> dict[str, Any]:
        return {part: described[prefix + part] for part in (*RESULTS, *DERIVATIVES) if prefix + part in described}

    return {
        "id": entry.id,
        "comment": entry.comment,
        "flags": flags_of(entry),
        "kind": entry.kind,
        "operation": "conv_transpose" if p.transposed else "conv",
        "spatial_dims": p.spatial_dims,
        "dtype": entry.dtype,
        "output_dtype": entry.output_dtype or entry.dtype,
        "x_shape": p.x_shape,
        "weight_shape": p.weight_shape,
        "output_shape": p.output_shape,
        "stride": p.stride,
        "padding": p.pairs,
        "padding_word": p.padding if isinstance(p.padding, str) else None,
        "padding_mode": p.padding_mode,
        "dilation": p.dilation,
        "groups": p.groups,
        "output_padding": _extra(p) if p.transposed else (0,) * p.spatial_dims,
        "has_bias": p.bias,
        "catches": mistakes,
        "operands": {name: described[name] for name in OPERANDS if name in described},
        "expected": named("expected_"),
        "bounds": named("bound_"),
        "safetensors": tensors,
    }


def npy_bytes(array: Array) -> bytes:
    r"""Return an array as a ``.npy`` file of version 1.0.

    >>> npy_bytes(np.zeros(2, "<f4"))[:8]
    b'\x93NUMPY\x01\x00'
    """
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def to_json(value: Any) -> str:
    """Return JSON, indented, with lists of numbers on one line.

    >>> print(to_json({"padding": ((1, 0), (2, 1)), "ids": ["a"]}), end="")
    {
     "padding": [[1, 0], [2, 1]],
     "ids": [
      "a"
     ]
    }
    """
    return _to_json(value, "\n") + "\n"


def _to_json(value: Any, newline: str) -> str:
    inner = newline + " "
    if isinstance(value, dict) and value:
        items = (f"{_to_json(key, inner)}: {_to_json(item, inner)}" for key, item in value.items())
        return "{" + inner + f",{inner}".join(items) + newline + "}"
    if isinstance(value, list | tuple) and any(isinstance(item, str | dict) for item in value):
        return "[" + inner + f",{inner}".join(_to_json(item, inner) for item in value) + newline + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def contents(manifest: Path) -> dict[str, Any]:
    """Return counts of the problems and files that were written, and their bytes."""
    files = [path for path in manifest.parent.rglob("*") if path.is_file()]
    read = json.loads(manifest.read_text("utf-8"))
    kinds = [problem["kind"] for problem in read["problems"]]
    return {
        "manifest": str(manifest),
        "format_version": read["format_version"],
        "generator_version": read["generator_version"],
        "seed": read["seed"],
        "problems": len(kinds),
        "exact": kinds.count("exact"),
        "bounded": kinds.count("bounded"),
        "mistakes_caught": len(read["mistakes"]),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
    }
