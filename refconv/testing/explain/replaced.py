"""Results that are right for another operand: one that was rectified, clipped or squared, or g times a derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from refconv.testing.explain.linearity import draw
from refconv.testing.explain.session import RESULTS, Session
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Operands, Problem
from refconv.testing.oracles.trilinear import exact_results

Function = Callable[[Array], Array]
FAR = 2.0**12
"""A number beyond all limits of clipping."""

OF_ITSELF: Mapping[str, Function] = {
    "max({0}, 0)": lambda v: np.maximum(v, 0),
    "min({0}, 0)": lambda v: np.minimum(v, 0),
    "|{0}|": np.abs,
    "{0}²": np.square,
    "the sign of {0}": np.sign,
    "ones": np.ones_like,
}
"""Replacements of an operand that depend on this operand alone."""

OF_OUTPUT: Mapping[str, Function] = {
    "(y > 0)": lambda y: y > 0,
    "(y ≥ 0)": lambda y: y >= 0,
    "y": lambda y: y,
    "2·y": lambda y: 2 * y,
    "(1 − tanh² y)": lambda y: 1 - np.tanh(y) ** 2,
    "(1 − y²)": lambda y: 1 - y * y,
    "σ(y)·(1 − σ(y))": lambda y: 0.25 / np.cosh(y / 2) ** 2,
    "y·(1 − y)": lambda y: y * (1 - y),
}
"""Functions of the output y by which g is multiplied."""

READ = {"forward": ("x", "weight"), "grad_x": ("grad_output", "weight"), "grad_weight": ("grad_output", "x"),
        "grad_bias": ("grad_output",)}  # fmt: skip
SYMBOLS = {"x": "x", "weight": "w", "grad_output": "g"}
OF_SHAPE = {"weight": "grad_weight", "x": "grad_x", "grad_output": "forward"}
"""For each operand, the result of the same shape."""
OTHER = {"weight": "grad_weight", "x": "grad_x", "grad_output": "y"}


def _limited(session: Session, part: str, operand: str) -> Iterator[tuple[str, Function, float]]:
    """Yield how an operand is limited and rounded, as single large and small elements show; how far numbers reach."""
    if session.dtype.kind != "f":
        return
    problem = session.asked.problem
    ones = Operands(np.ones_like(session.x), np.ones_like(session.weight), None, np.ones_like(session.g))
    zeros = np.zeros_like(getattr(ones, operand))
    single = zeros.copy()
    single.reshape(-1)[single.size // 2] = 1
    right = _result(part, problem, ones._replace(**{operand: single}))
    reached = np.flatnonzero(right)
    if not len(reached):
        return

    def seen(value: float) -> float:
        x, weight, _, g = ones._replace(**{operand: (value * single).astype(session.dtype)})
        result = session.y(x, weight, session.bias) if part == "forward" else session.gradient(part, g, x, weight)
        return float(result.reshape(-1)[reached[0]]) if result.shape == right.shape else np.nan

    low, high = seen(-FAR), seen(FAR)
    fractions = [seen(value) for value in (0.29, 0.7, 0.43, 0.11)]
    bits = next((k for k in range(9) if all((value * 2**k).is_integer() for value in fractions)), None)
    limits = f"clipped to {low:.6g} … {high:.6g}".replace("-", "−")
    step = None if bits is None else 2.0**-bits
    clipped = -FAR < low < high < FAR
    if step and clipped:
        yield (
            f"{{0}} rounded to multiples of {step:.6g} and {limits}",
            lambda v: np.clip(np.rint(v / step) * step, low, high),
            2 * max(-low, high),
        )
    elif step:
        yield f"{{0}} rounded to multiples of {step:.6g}", lambda v: np.rint(v / step) * step, 3.0
    elif clipped:
        yield f"{{0}} {limits}", lambda v: np.clip(v, low, high), 2 * max(-low, high)


def right_for_another(session: Session, part: str) -> str | None:
    """Return the replacement of an operand with which a part is right, as a sentence; None if none is known.

    Parameters
    ----------
    session : Session
        The functions and their problem.
    part : str
        "forward", "grad_x", "grad_weight" or "grad_bias".
    """
    if session.dtype.kind not in "if":
        return None
    rng, problem = np.random.default_rng(14), session.asked.problem
    arrays = session.x, session.weight, session.g
    scale = session.dtype.type(1 + (session.dtype.kind == "f"))  # halves tell clipping from signs
    two = [[(draw(rng, a.shape, session.dtype) / scale).astype(session.dtype) for a in arrays] for _ in range(2)]
    seen = [
        session.y(x, weight, session.bias) if part == "forward" else session.gradient(part, g, x, weight)
        for x, weight, g in two
    ]
    if not any(map(np.any, seen)):
        return None
    name = "The output" if part == "forward" else part
    replaced = [_replacements(part, problem, Operands(x, weight, None, g)) for x, weight, g in two]
    for (text, first), (_, second) in zip(*replaced, strict=True):
        if _same(_result(part, problem, first), seen[0]) and _same(_result(part, problem, second), seen[1]):
            return f"{name} is right, but computed from {text}."
    if text := _changed_by_another(part, problem, [Operands(x, weight, None, g) for x, weight, g in two], seen):
        return f"{name} is right, but computed from {text}."
    for operand in READ[part]:
        for how, function, reach in _limited(session, part, operand):
            x, weight, g = (rng.uniform(-reach, reach, a.shape).astype(session.dtype) for a in arrays)
            there = session.y(x, weight, session.bias) if part == "forward" else session.gradient(part, g, x, weight)
            wide = Operands(x, weight, None, g).mapped(lambda a: a.astype(np.float64))
            if _same(_result(part, problem, wide._replace(**{operand: function(getattr(wide, operand))})), there):
                symbol = SYMBOLS[operand]
                return f"{name} is right, but computed from {how.format(symbol)} instead of {symbol}."
    padded = [_padded(part, problem, Operands(x, weight, None, g)) for x, weight, g in two]
    for (text, one), (_, other) in zip(*padded, strict=True):
        if _same(one, seen[0]) and _same(other, seen[1]):
            return f"{name} is right, but computed from {text}."
    return None


def _changed_by_another(part: str, problem: Problem, operands: Sequence[Operands], seen: Sequence[Array]) -> str | None:
    """Return which operand has a multiple of a gradient, or of the output, added to it, if that gives all results."""
    wide = [each.mapped(lambda a: a.astype(np.float64)) for each in operands]
    right = [_result(part, problem, each) for each in wide]
    if all(map(_same, right, seen)):
        return None  # nothing is added but rounding errors
    for operand in READ[part] if part != "forward" else ():
        if OF_SHAPE[operand] == part:
            continue
        added = [
            _result(part, problem, each._replace(**{operand: _result(OF_SHAPE[operand], problem, each)}))
            for each in wide
        ]
        size = float(np.vdot(added[0], added[0]))
        factor = float(np.vdot(added[0], seen[0] - right[0])) / size if size and seen[0].shape == right[0].shape else 0
        sums = (base + factor * more for base, more in zip(right, added, strict=True))
        if factor and all(map(_same, sums, seen)):
            symbol = SYMBOLS[operand]
            return f"{symbol} + {factor:.3g}·{OTHER[operand]} instead of {symbol}".replace("+ -", "− ")
    return None


def _replacements(part: str, problem: Problem, operands: Operands) -> Iterator[tuple[str, Operands]]:
    """Yield each replacement in words, and the operands with it."""
    wide = operands.mapped(lambda a: a.astype(np.int64 if a.dtype.kind == "i" else np.float64))
    for operand in READ[part]:
        symbol, values = SYMBOLS[operand], getattr(wide, operand)
        for name, function in OF_ITSELF.items():
            yield f"{name.format(symbol)} instead of {symbol}", wide._replace(**{operand: function(values)})
    if part != "forward":
        y = _result("forward", problem, wide)
        for operand in READ[part]:
            if OF_SHAPE[operand] != part:
                text = f"{OTHER[operand]} instead of {SYMBOLS[operand]}"
                yield text, wide._replace(**{operand: _result(OF_SHAPE[operand], problem, wide)})
        for name, function in OF_OUTPUT.items():
            text = f"g·{name} instead of g, where y is the output without its bias"
            yield text, wide._replace(grad_output=wide.grad_output * function(y))


PADDED: Mapping[str, Function] = {
    "the least number of x": lambda x: np.min(x),
    "the largest number of x": lambda x: np.max(x),
    "the mean of x": lambda x: np.mean(x),
    "the least number of each channel": lambda x: np.min(x, axis=tuple(range(2, x.ndim)), keepdims=True),
    "the mean of each channel": lambda x: np.mean(x, axis=tuple(range(2, x.ndim)), keepdims=True),
}
"""What a border may be filled with instead of 0."""


def _padded(part: str, problem: Problem, operands: Operands) -> Iterator[tuple[str, Array]]:
    """Yield results for an x whose border depends on it."""
    if "x" not in READ[part] or problem.transposed or not any(map(any, problem.pairs)):
        return
    size = tuple(n + before + after for n, (before, after) in zip(problem.size, problem.pairs, strict=True))
    whole = replace(problem, size=size, padding=((0, 0),) * len(size))
    inside = (
        slice(None),
        slice(None),
        *(slice(b, b + n) for (b, _), n in zip(problem.pairs, problem.size, strict=True)),
    )
    for text, function in PADDED.items():
        x = np.zeros(whole.x_shape) + function(operands.x)
        x[inside] = operands.x
        yield f"x padded with {text} instead of 0", _result(part, whole, operands._replace(x=x))
    if part == "grad_weight":
        gradient = _result("grad_x", whole, operands._replace(x=np.zeros(whole.x_shape)))
        yield (
            "the gradient of the padded x instead of the padded x",
            _result(part, whole, operands._replace(x=gradient)),
        )


def _result(part: str, problem: Problem, operands: Operands) -> Array:
    result: Array = getattr(exact_results(problem, operands, (RESULTS[part],)), RESULTS[part])
    return result


def _same(right: Array, seen: Array) -> bool:
    tolerance = 1e-4 * float(np.max(np.abs(right), initial=0))
    return right.shape == seen.shape and np.allclose(right, seen, rtol=1e-4, atol=tolerance)
