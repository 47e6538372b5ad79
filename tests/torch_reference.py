"""PyTorch's convolutions and automatic gradients, on the same problems as the functions under test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from refconv.testing.oracles.problems import Operands, Problem, Results
from refconv.testing.regimes import axes_of

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
F: Any = torch.nn.functional
torch.set_num_threads(1)  # waking threads takes longer than these small problems


def torch_results(problem: Problem, operands: Operands) -> Results:
    """Return the output and the gradients by PyTorch, in the problem's layout."""
    x, *parts, bias, g = leaves(problem, operands)
    y = output(problem, x, *parts, bias)
    grads = [numpy(grad) for grad in torch.autograd.grad(y, [x, *parts, bias], g)]
    return Results(
        y=problem.from_plain(numpy(y)),
        grad_x=problem.from_plain(grads[0]),
        grad_weight=tuple(grads[1:-1]) if isinstance(operands.weight, tuple) else grads[1],
        grad_bias=grads[-1],
    )


def leaves(problem: Problem, operands: Operands) -> list[Any]:
    """Return x, the weights, the bias (zeros for none) and the gradient of the output as leaves, (N, channels, …)."""
    weight = leaf(operands.weight)
    bias = np.zeros(problem.c_out, operands.x.dtype) if operands.bias is None else operands.bias
    x, g = (leaf(problem.to_plain(a)) for a in (operands.x, operands.grad_output))
    return [x, *(weight if isinstance(weight, tuple) else [weight]), leaf(bias), g]


def output(problem: Problem, x: Any, *parts: Any) -> Any:
    """Return y for x, the weights and the bias, all tensors, (N, K, o1, …, od)."""
    *weights, bias = parts
    kind = "conv_transpose" if problem.transposed else "conv"
    function = getattr(F, f"{kind}{problem.spatial_dims}d")
    weight = weights[0] if isinstance(problem.groups, int) else tuple(weights)
    y = (_transposed if problem.transposed else _plain)(problem, function, x, weight)
    return y + bias.reshape(-1, *[1] * problem.spatial_dims)


def leaf(array: Any) -> Any:
    """Return a tensor with a gradient (a tuple for a tuple) that shares no memory with `array`."""
    if isinstance(array, tuple):
        return tuple(leaf(a) for a in array)
    return torch.from_numpy(np.array(array)).requires_grad_()


def numpy(tensor: Any) -> Any:
    return tensor.detach().resolve_conj().numpy()


def _grouped(problem: Problem, x: Any, weight: Any, call: Any) -> Any:
    """Call ``call(x, weight, groups)`` once, or for each list of channels, and put the outputs in order."""
    if isinstance(problem.groups, int):
        return call(x, weight, problem.groups)
    parts = [call(x[:, ins], w, 1) for (ins, _), w in zip(problem.lists, weight, strict=True)]
    order = np.argsort([k for _, outs in problem.lists for k in outs])
    return torch.cat(parts, 1)[:, torch.from_numpy(order)]


def _plain(problem: Problem, function: Any, x: Any, weight: Any) -> Any:
    x = _pad(x, problem.pairs, {"zeros": "constant"}.get(problem.padding_mode, problem.padding_mode))
    return _grouped(
        problem,
        x,
        weight,
        lambda x, w, n: function(x, w, stride=problem.stride, dilation=problem.dilation, groups=n),
    )


def _transposed(problem: Problem, function: Any, x: Any, weight: Any) -> Any:
    steps = {"stride": problem.stride, "dilation": problem.dilation}
    extra = [axis.rest for axis in axes_of(problem)]
    pads = [before for before, after in problem.pairs if before == after >= 0]
    if len(pads) == problem.spatial_dims:  # PyTorch's own padding
        more = {"padding": pads, "output_padding": extra, **steps}
        return _grouped(problem, x, weight, lambda x, w, n: function(x, w, groups=n, **more))
    full = _grouped(problem, x, weight, lambda x, w, n: function(x, w, groups=n, **steps))
    return _pad(full, [(-before, more - after) for (before, after), more in zip(problem.pairs, extra, strict=True)])


def _pad(x: Any, pairs: Sequence[tuple[int, int]], mode: str = "constant") -> Any:
    """Pad, then crop where a number is negative. Other modes index, because PyTorch limits how much they pad."""
    widths = [(max(before, 0), max(after, 0)) for before, after in pairs]
    if mode == "constant":  # PyTorch takes the last axis first
        x = F.pad(x, [amount for pair in reversed(widths) for amount in pair])
    else:
        kind: Any = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
        for axis, width in enumerate(widths, start=2):
            x = x.index_select(axis, torch.from_numpy(np.pad(np.arange(x.shape[axis]), width, mode=kind)))
    crops = (slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(pairs, x.shape[2:], strict=True))
    return x[(..., *crops)]
