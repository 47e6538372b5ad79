r"""Forward mode and double backward by the definition, by polarisation.

Output and gradients of a convolution are bilinear: y in (x, w), x̄ in (g, w), w̄ in (g, x). Of a bilinear f,

    f(p + v) − f(p) − f(v)    and    (f(p + v) − f(p − v)) / 2

are the derivative at p along v. They need no limit, no product rule and no code but that of f, and are exact on whole
numbers; the first also where integers wrap. The loops of :mod:`refconv.testing.oracles.definition` give f.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from refconv.testing.oracles.definition import Array, Weight
from refconv.testing.oracles.problems import Operands, Problem, definition_results, inner


class DoubleGrads(NamedTuple):
    """Gradients of ⟨(ẋ, ẇ, ḃ), (x̄, w̄, b̄)⟩ with respect to g, x and w."""

    grad_output: Array
    x: Array
    weight: Weight


def definition_jvp(problem: Problem, operands: Operands, direction: Operands) -> Array:
    """Return ẏ = conv(ẋ, w) + conv(x, ẇ) + ḃ, the derivative of y along a direction, in the operands' data type.

    Only x, weight and bias of `direction` are used; without a bias, ḃ is zero.

    Examples
    --------
    >>> problem = Problem(1, 1, 1, (2,), (1,), (1,), (1,), "valid", bias=False)
    >>> x, weight = np.array([[[3.0, 5.0]]]), np.array([[[10.0]]])
    >>> direction = Operands(np.array([[[1.0, 0.0]]]), np.array([[[1.0]]]), None, x)
    >>> definition_jvp(problem, Operands(x, weight, None, x), direction)
    array([[[13.,  5.]]])
    """
    point, v = (_wide(given) for given in (operands, direction))
    moved, still, alone = (definition_results(problem, p._replace(bias=None)).y for p in (_sum(point, v), point, v))
    total = moved - still - alone
    if v.bias is not None:
        total = problem.from_plain(problem.to_plain(total) + v.bias.reshape(-1, *(1,) * problem.spatial_dims))
    return total.astype(operands.x.dtype)


def definition_double_backward(problem: Problem, operands: Operands, grad_grads: Operands) -> DoubleGrads:
    """Return the gradients of a function of the three gradients, in the operands' data type.

    x, weight and bias of `grad_grads` are (ẋ, ẇ, ḃ), the function's gradients with respect to (x̄, w̄, b̄). Its
    gradients are then ẏ with respect to g, x̄ with ẇ in place of w, and w̄ with ẋ in place of x; :func:`polarised`
    checks them.

    Examples
    --------
    x̄ = g·w, w̄ = g·x and b̄ = g, so that the function is ẋ·g·w + ẇ·g·x + ḃ·g:

    >>> g, x, w, dx, dw, db = (np.full((1, 1, 1), n) for n in (2.0, 3.0, 5.0, 7.0, 11.0, 13.0))
    >>> problem = Problem(1, 1, 1, (1,), (1,), (1,), (1,), "valid", bias=False)
    >>> grads = definition_double_backward(problem, Operands(x, w, None, g), Operands(dx, dw, db[0, 0], g))
    >>> [float(grad.item()) for grad in grads]
    [81.0, 22.0, 14.0]
    """
    return DoubleGrads(
        definition_jvp(problem, operands, grad_grads),
        definition_results(problem, operands._replace(weight=grad_grads.weight, bias=None)).grad_x,
        definition_results(problem, operands._replace(x=grad_grads.x, bias=None)).grad_weight,
    )


def polarised(problem: Problem, operands: Operands, grad_grads: Operands, direction: Operands) -> float:
    """Return the derivative of s = Re⟨(ẋ, ẇ, ḃ), (x̄, w̄, b̄)⟩ along a direction of (g, x, w): (s(p+v) − s(p−v)) / 2.

    The gradients (ḡ, x̄̄, w̄̄) of s are those for which Re⟨(ḡ, x̄̄, w̄̄), v⟩ is this number, for every v.

    Examples
    --------
    >>> g, x, w, dx, dw, db = (np.full((1, 1, 1), n) for n in (2.0, 3.0, 5.0, 7.0, 11.0, 13.0))
    >>> problem = Problem(1, 1, 1, (1,), (1,), (1,), (1,), "valid", bias=False)
    >>> given, grad_grads = Operands(x, w, None, g), Operands(dx, dw, db[0, 0], g)
    >>> v = Operands(np.full((1, 1, 1), 10.0), np.full((1, 1, 1), 100.0), None, np.ones((1, 1, 1)))
    >>> polarised(problem, given, grad_grads, v)  # 1·81 + 10·22 + 100·14
    1701.0
    """
    point, dot, v = (_wide(given) for given in (operands, grad_grads, direction))

    def s(p: Operands) -> float:
        _, *grads = definition_results(problem, p._replace(bias=None))
        return float(np.real(inner((dot.x, dot.weight, dot.bias), tuple(grads))))

    return (s(_sum(point, v)) - s(_sum(point, v.mapped(np.negative)))) / 2


def _wide(operands: Operands) -> Operands:
    return operands.mapped(lambda a: a.astype(np.int64 if a.dtype.kind in "iu" else np.result_type(a, np.float64)))


def _sum(one: Operands, other: Operands) -> Operands:
    """Return the sum of two points, without a bias."""

    def plus(a: Any, b: Any) -> Any:
        return tuple(map(plus, a, b)) if isinstance(a, tuple) else a + b

    return Operands(
        plus(one.x, other.x), plus(one.weight, other.weight), None, plus(one.grad_output, other.grad_output)
    )
