"""A table of a network's layers: shapes, parameters, multiply-adds and memory."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refconv.arrays import Array, array_namespace, device, dtype_kind, dtype_of, elements, on_device
from refconv.cost import FLOAT, Cost
from refconv.cost import Layer as LayerCost
from refconv.integers import as_int, is_sequence, members, shown
from refconv.nn.base import Layer
from refconv.nn.layers import Conv, ConvTranspose, Linear, Scale
from refconv.shapes import Shape, refuse_absurd


@dataclass(frozen=True, repr=False)
class Summary:
    """The cost of a network on one batch; it prints as a table.

    Attributes
    ----------
    cost : Cost
        Parameters, multiply-adds, output shapes and memory of each layer for one image: see :mod:`refconv.cost`. The
        names are the layers' paths. Every layer is counted, also those that could work in place.
    kinds : tuple of str
        The class of each layer.
    batch : int
        N, the number of images.
    """

    cost: Cost
    kinds: tuple[str, ...]
    batch: int

    def __repr__(self) -> str:
        """Return the table, and below it the memory of a training step."""
        from refconv.tables import Column, print_table

        memory = self.cost.memory(self.batch)
        step, workspace = f"{memory.predicted / 2**20:,.1f} MiB", f"{memory.workspace / 2**20:,.0f} MiB"
        columns = [
            Column("layer", "all", words=True),
            Column("kind", words=True),
            Column("output"),
            Column("parameters", f"{self.cost.parameters:,}"),
            Column("MACs", f"{self.batch * self.cost.macs:,}"),
            Column("bytes kept", f"{memory.activations:,}"),
        ]
        rows = []
        for layer, kind in zip(self.cost.layers, self.kinds, strict=True):
            _, kept, _ = layer.on_one_of(1)
            numbers = (layer.parameters, self.batch * layer.macs, self.batch * kept)
            rows.append((layer.name, kind, str((self.batch, *layer.output_shape)), *(f"{n:,}" for n in numbers)))
        printed = io.StringIO()
        print_table("", columns, rows, file=printed)
        lines = [line[1:].rstrip() for line in printed.getvalue().splitlines()]
        lines.append(f"A training step in float32 with momentum takes about {step}, with {workspace} of workspace.")
        return "\n".join(filter(None, lines))


def summary(model: Layer, input_shape: Sequence[int]) -> Summary:
    """Return a table of a network's layers, for a batch of inputs.

    The table has each layer's output shape, parameters and, for the whole batch, multiply-adds (MACs) and the bytes
    that the layer keeps for its backward pass in float32. Below it is the memory of a training step, which
    :mod:`refconv.cost` predicts. Only convolutions, linear layers and :class:`Scale` have MACs.

    The shapes come from a forward pass on zeros, in the model's current mode (training or testing). It runs in a copy
    that shares only the parameters, so nothing in the model changes.

    Parameters
    ----------
    model : Layer
        A layer or a network.
    input_shape : sequence of int
        (N, C, D1, …, Dd), or (N, in_features) for a linear layer: the batch comes first.

    Returns
    -------
    Summary
        Prints as the table; its ``cost`` has the numbers.

    Raises
    ------
    TypeError, ValueError
        If `model` is not a layer, `input_shape` is not a sequence of positive integers, or the model refuses an input
        of this shape.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Conv, Flatten, Linear, ReLU, Sequential, summary
    >>> rng = np.random.default_rng(0)
    >>> model = Sequential(conv=Conv(1, 4, 3, rng=rng), relu=ReLU(), rows=Flatten(), out=Linear(64, 3, rng=rng))
    >>> summary(model, (10, 1, 6, 6))
    layer   kind             output   parameters    MACs   bytes kept
    ─────────────────────────────────────────────────────────────────
    conv    Conv      (10, 4, 4, 4)           40   5,760        1,440
    relu    ReLU      (10, 4, 4, 4)            0       0          640
    rows    Flatten        (10, 64)            0       0            0
    out     Linear          (10, 3)          195   1,920        2,560
    ─────────────────────────────────────────────────────────────────
    all                                      235   7,680        4,640
    A training step in float32 with momentum takes about 64.0 MiB, with 64 MiB of workspace.
    """
    if not isinstance(model, Layer):
        raise TypeError(f"model must be a Layer; got {shown(model)}")
    if not is_sequence(input_shape):
        raise TypeError(f"input_shape must be a sequence of integers; got {shown(input_shape)}")
    shape = tuple(as_int(n, f"input_shape[{axis}]", 1) for axis, n in enumerate(members(input_shape)))
    if not shape:
        raise ValueError("input_shape must begin with the size of the batch; got ()")
    refuse_absurd("the input", shape)
    parameters = model.parameters()
    like = parameters[0].value if parameters else np.zeros((), "float32")
    rows: list[tuple[LayerCost, str]] = []
    with on_device(like):
        duplicate = copy.deepcopy(model, {id(parameter): parameter for parameter in parameters})
        _watch("", duplicate, rows)
        duplicate.forward(array_namespace(like).zeros(shape, dtype=like.dtype, device=device(like)))
    costs, kinds = zip(*rows, strict=True)
    return Summary(Cost(type(model).__name__, "", shape[1:], costs), kinds, shape[0])


def _watch(path: str, layer: Layer, rows: list[tuple[LayerCost, str]]) -> None:
    """Let every layer without children add its row after its forward pass."""
    for name, child in layer.children().items():
        _watch(f"{path}.{name}" if path else name, child, rows)
    if layer.children():
        return
    forward = layer.forward

    def watched(x: Array) -> Array:
        y = forward(x)
        rows.append((_row(path, layer, tuple(x.shape), tuple(y.shape)), type(layer).__name__))
        return y

    layer.forward = watched  # type: ignore[method-assign]


def _row(path: str, layer: Layer, x: Shape, y: Shape) -> LayerCost:
    """Return the cost for one image of a layer that has just mapped a batch of shape x to one of shape y."""
    kept = {elements(x): 0, elements(y): 0}
    for value in layer._saved[2] if layer._saved else ():
        if hasattr(value, "dtype") and elements(value.shape) in kept:  # other arrays are small, such as one per channel
            dtype = dtype_of(value)
            kept[elements(value.shape)] += FLOAT if dtype_kind(dtype) == "real" else np.dtype(dtype).itemsize
    of_inputs = kept[elements(x)] if elements(x) != elements(y) else 0
    return LayerCost(
        path,
        sum(elements(parameter.value.shape) for parameter in layer.parameters()),
        _macs(layer, x, y),
        y[1:],
        inputs=elements(x[1:]),
        keeps_input=of_inputs,
        keeps_output=kept[elements(y)],
    )


def _macs(layer: Layer, x: Shape, y: Shape) -> int:
    """Return the multiply-adds for one image: one per weight and position, without biases."""
    if isinstance(layer, Scale):
        return elements(y[1:])
    if not isinstance(layer, Conv | ConvTranspose | Linear):
        return 0
    weights = sum(elements(parameter.value.shape) for parameter in layer.parameters() if parameter.name != "bias")
    return weights * elements((x if isinstance(layer, ConvTranspose) else y)[2:])
