"""Towers: parts of a network that run side by side on separate devices and rarely exchange activations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from refconv.arrays import Array, array_namespace, elements, namespace_of
from refconv.integers import is_sequence
from refconv.nn.base import Layer, adopted, check_channels, named
from refconv.shapes import Shape


class Towers(Layer):
    r"""Towers that exchange activations only between segments: AlexNet's model parallelism.

    .. math:: x_{s+1} = \bigl[f_{s,1}(x_s),\, \dots,\, f_{s,T}(x_s)\bigr], \qquad
              \bar x_s = \sum_t f'_{s,t}(x_s)^{\mathsf T}\, g_{s,t}

    where [ ] concatenates channels, and g_{s,t} are the channels of x̄_{s+1} that tower t computed. Every tower of a
    segment reads all channels of the previous segment. Within a segment, a tower reads only its own channels. So the
    first convolution of a segment is dense, split by its output channels, and later ones are grouped, one group per
    tower.

    Here the towers run one after the other. On T devices they would run in parallel; `crossings` counts the activations
    exchanged between them.

    Parameters
    ----------
    segments : sequence of sequence of Layer
        ``segments[s][t]`` is tower t's part of segment s; all segments have the same number of towers. The outputs of a
        segment may differ only in their channels. Each layer object may occur only once.

    Attributes
    ----------
    crossings : tuple of int
        For each boundary between segments, the total number of activations per image that towers received from other
        towers in the latest :meth:`forward`. As many gradients go back. Empty before the first call.

    Raises
    ------
    ValueError
        If there are no segments or towers, segments have different numbers of towers, a layer occurs twice, or outputs
        do not fit together.
    TypeError
        If `segments` is not a sequence of sequences of layers.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS
    2012, section 3.2 and figure 2.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.nn import Conv, ReLU, Towers
    >>> rng = np.random.default_rng(0)
    >>> first = [Conv(3, 4, 3, rng=rng), Conv(3, 4, 3, rng=rng)]     # each reads the image and gives 4 channels
    >>> second = [Conv(8, 5, 3, rng=rng), Conv(8, 5, 3, rng=rng)]    # each reads all 8
    >>> model = Towers([first, second])
    >>> model.forward(np.ones((2, 3, 7, 7), dtype="float32")).shape
    (2, 10, 3, 3)
    >>> model.crossings   # 4 channels of 5×5 each way
    (200,)
    """

    def __init__(self, segments: Sequence[Sequence[Layer]]) -> None:
        if not is_sequence(segments) or not all(map(is_sequence, segments)):
            raise TypeError("segments must be a sequence of sequences of layers, the towers of each segment")
        self.segments = tuple(map(tuple, segments))
        for name, layer in self.children().items():
            if not isinstance(layer, Layer):
                raise TypeError(f"segments[{name.replace('.', '][')}] must be a Layer; got {type(layer).__name__}")
        counts = sorted({len(towers) for towers in self.segments})
        if len(counts) != 1 or not counts[0]:
            raise ValueError(f"segments must all have the same number of towers, at least 1; got {counts or 'none'}")
        layers = list(map(id, self.children().values()))
        if len(set(layers)) < len(layers):
            raise ValueError("Towers needs distinct layers; one was given twice")
        self.crossings: tuple[int, ...] = ()

    def children(self) -> dict[str, Layer]:
        """Return the parts by name, "s.t" for tower t of segment s."""
        return {f"{s}.{t}": part for s, towers in enumerate(self.segments) for t, part in enumerate(towers)}

    def forward(self, x: Array) -> Array:
        """Return the outputs of the last segment's towers, concatenated along the channels."""
        x = adopted(self, x)
        xp = namespace_of({"x": x})
        made, received = [], []
        for s, towers in enumerate(self.segments):
            outputs = []
            for t, tower in enumerate(towers):
                with named(f"{s}.{t}", tower):
                    outputs.append(tower.forward(x))
            x = xp.concat(outputs, axis=1) if _fit(self, s, outputs) else outputs[0]
            made.append([y.shape[1] for y in outputs])
            received.append((len(towers) - 1) * elements(x.shape[1:]))  # each tower receives all channels but its own
        self.crossings = tuple(received[:-1])
        return self._keep(x, made)

    def backward(self, grad_output: Array) -> Array:
        """Return the sum of the gradients over the first segment's towers, since each reads all of x."""
        (made,) = self._recall(grad_output)
        for s in reversed(range(len(self.segments))):
            total = None
            ends = pairwise(accumulate(made[s], initial=0))
            for t, (tower, (start, stop)) in enumerate(zip(self.segments[s], ends, strict=True)):
                with named(f"{s}.{t}", tower):
                    grad = tower.backward(grad_output[:, start:stop, ...])
                total = grad if total is None else total + grad
            grad_output = total
        return grad_output


def _fit(layer: Layer, segment: int, outputs: list[Array]) -> bool:
    """Check that outputs differ only in their channels, and return whether there are several."""
    for y in outputs:
        check_channels(layer, y)
    array_namespace(*outputs)

    def but_channels(y: Array) -> Shape:
        return (y.shape[0], *y.shape[2:])

    for t, y in enumerate(outputs):
        if but_channels(y) != but_channels(outputs[0]):
            raise ValueError(
                f"towers must give outputs that differ only in their channels; got shape {tuple(y.shape)} from tower "
                f"{t} and {tuple(outputs[0].shape)} from tower 0 of segment {segment}"
            )
    return len(outputs) > 1
