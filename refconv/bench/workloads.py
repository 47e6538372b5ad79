"""Workloads: the timed layers by name, with the groups that networks use."""

from __future__ import annotations

from dataclasses import dataclass, replace

from refconv.cost import parse_groups
from refconv.groups import ChannelGroups


@dataclass(frozen=True)
class Layer:
    """One square two-dimensional convolution with a bias.

    Attributes
    ----------
    name : str
        Name of the layer.
    batch, c_in, size : int
        Shape of the input, (batch, c_in, size, size).
    c_out, kernel, stride, padding : int
        Output channels, and the window.
    spec : str
        Channel groups: see :func:`refconv.cost.parse_groups`.
    threads : int, optional
        Maximum number of threads of a peer. Default: the peer's own choice.
    """

    name: str
    batch: int
    c_in: int
    size: int
    c_out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    spec: str = "1"
    threads: int | None = None

    @property
    def groups(self) -> ChannelGroups:
        """The channel groups."""
        return parse_groups(self.spec).build(self.c_in, self.c_out)

    @property
    def output(self) -> int:
        """Height and width of the output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward pass of the batch."""
        weights = self.groups.parameter_count((self.kernel, self.kernel), bias=False)
        return self.batch * weights * self.output**2

    @property
    def elements(self) -> int:
        """Numbers in the input, the weights and the output: the minimum that a forward pass reads and writes."""
        weights = self.groups.parameter_count((self.kernel, self.kernel), bias=False)
        return self.batch * (self.c_in * self.size**2 + self.c_out * self.output**2) + weights


def _alexnet(groups: str, batch: int = 8) -> tuple[Layer, ...]:
    """Return AlexNet's convolutions, with their shapes for 227×227 images."""
    return (
        Layer("conv1", batch, 3, 227, 96, 11, stride=4),
        Layer("conv2", batch, 96, 27, 256, 5, padding=2, spec=groups),
        Layer("conv3", batch, 256, 13, 384, 3, padding=1),
        Layer("conv4", batch, 384, 13, 384, 3, padding=1, spec=groups),
        Layer("conv5", batch, 384, 13, 256, 3, padding=1, spec=groups),
    )


_BASE = Layer("", 8, 64, 56, 64, 3, padding=1)

WORKLOADS: dict[str, tuple[Layer, ...]] = {
    "alexnet": _alexnet("2"),
    "alexnet-dense": _alexnet("1"),
    "alexnet-128": _alexnet("2", 128),
    "resnext": (Layer("32 groups", 8, 128, 28, 128, 3, padding=1, spec="32"),),
    "depthwise": (Layer("depthwise", 8, 128, 56, 128, 3, padding=1, spec="128"),),
    "logarithmic": (Layer("log:4", 8, 256, 14, 256, 3, padding=1, spec="log:4"),),
    "pointwise": (Layer("1×1", 8, 256, 28, 256, 1), Layer("1×1, stride 2", 8, 256, 28, 512, 1, stride=2)),
    "small": (Layer("1×3×8×8", 1, 3, 8, 4, 3),),
    "batch": tuple(replace(_BASE, name=str(n), batch=n) for n in (1, 2, 4, 8, 16, 32)),
    "channels": tuple(replace(_BASE, name=str(c), c_in=c, c_out=c) for c in (8, 16, 32, 64, 128, 256)),
    "groups": tuple(
        replace(_BASE, name=str(g), c_in=128, c_out=128, size=28, spec=str(g)) for g in (1, 2, 4, 8, 16, 32, 64, 128)
    ),
    "kernel": tuple(replace(_BASE, name=str(k), size=28, kernel=k, padding=k // 2) for k in (1, 3, 5, 7, 9, 11)),
    "threads": tuple(replace(_alexnet("2")[1], name=str(n), threads=n) for n in (1, 2, 4, 8, 16, 32, 64)),
}
"""The layers of every workload, by name."""
