"""What a network costs: parameters, multiply-adds, activations and bytes, layer by layer. Integers only.

A convolution in groups has Σ_g out_g·in_g·k1·…·kd + K parameters, the last for its bias, and one multiply-add (MAC)
per weight and output position; for G uniform groups that is k²·(C/G)·K + K and k²·(C/G)·K·H·W. Biases, activation
functions, pooling and normalisation count no MACs. Activations are what training keeps of one image: the network's
input and every layer's output. ReLU, tanh and dropout work in place and are no layers here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from refconv.groups import ChannelGroups, lenet5_c3_groups, logarithmic_groups, uniform_groups
from refconv.integers import as_int, shown

BYTES_PER_PARAMETER = 12
"""Training with momentum keeps a value, a gradient and a velocity for each parameter: three float32 numbers."""
BYTES_PER_ACTIVATION = 8
"""Training keeps a value and a gradient for each activation of each image: two float32 numbers."""


# --- How the channels of a layer are grouped, as a word -------------------------------------------------------


@dataclass(frozen=True)
class GroupSpec:
    """A way to group the channels of any layer, as named on a command line.

    Attributes
    ----------
    kind : str
        "uniform", "log" (of base 2) or "table" (LeNet-5's layer C3).
    n : int
        Number of groups.
    """

    kind: str
    n: int

    def build(self, c_in: int, c_out: int) -> ChannelGroups:
        """Return the groups for a layer of c_in input and c_out output channels.

        Raises
        ------
        ValueError
            If the channels cannot be grouped this way.
        """
        if self.kind == "uniform":
            return uniform_groups(c_in, c_out, self.n)
        if self.kind == "log":
            return logarithmic_groups(c_in, c_out, self.n)
        groups = lenet5_c3_groups()
        if (c_in, c_out) != (groups.c_in, groups.c_out):
            raise ValueError(
                f"groups=table is LeNet-5's, from C={groups.c_in} to K={groups.c_out} channels; this layer has "
                f"C={c_in} and K={c_out}"
            )
        return groups

    @property
    def label(self) -> int | str:
        """The shortest specification that says the same: n, "log:n" or "table"."""
        if self.kind == "uniform":
            return self.n
        return f"log:{self.n}" if self.kind == "log" else self.kind


def parse_groups(spec: int | str) -> GroupSpec:
    """Read a group specification.

    Parameters
    ----------
    spec : int or str
        N, "N" or "uniform:N": N uniform groups; "dense": one group; "log:N": N logarithmic groups of base 2;
        "table": LeNet-5's connection table.

    Raises
    ------
    ValueError
        If the string is none of these, or N is below 1.
    TypeError
        If `spec` is no int and no string.

    Examples
    --------
    >>> parse_groups("log:3")
    GroupSpec(kind='log', n=3)
    >>> parse_groups("log:3").build(16, 32)
    ChannelGroups.from_sizes([8, 4, 4], [16, 8, 8])
    >>> parse_groups("dense") == parse_groups("uniform:1") == parse_groups(1)
    True
    >>> parse_groups("lg:3")
    Traceback (most recent call last):
        ...
    ValueError: groups must be a number N, 'uniform:N', 'dense', 'log:N' or 'table'; got 'lg:3'
    """
    if not isinstance(spec, str):
        return GroupSpec("uniform", as_int(spec, "groups", 1))
    if spec == "dense":
        return GroupSpec("uniform", 1)
    if spec == "table":
        return GroupSpec("table", lenet5_c3_groups().n)
    match = re.fullmatch(r"(?:(uniform|log):)?([0-9]{1,18})", spec)
    if match is None:
        raise ValueError(f"groups must be a number N, 'uniform:N', 'dense', 'log:N' or 'table'; got {shown(spec)}")
    return GroupSpec(match[1] or "uniform", as_int(int(match[2]), "groups", 1))


# --- Costs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """The cost of one layer for one image.

    Attributes
    ----------
    name : str
        As in the paper.
    parameters, macs : int
        Trainable parameters, and multiply-adds of the forward pass.
    output_shape : tuple of int
        Channels first, without the batch.
    """

    name: str
    parameters: int
    macs: int
    output_shape: tuple[int, ...]

    @property
    def activations(self) -> int:
        """Number of outputs."""
        return math.prod(self.output_shape)


@dataclass(frozen=True)
class Cost:
    """The cost of a network, layer by layer.

    Attributes
    ----------
    model : str
        Name of the model.
    groups : int or str
        The shortest specification of its channel groups.
    input_shape : tuple of int
        Channels first, without the batch.
    layers : tuple of Layer
        In order; the input is no layer.
    """

    model: str
    groups: int | str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Trainable parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward pass of one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activations(self) -> int:
        """Numbers that one image fills: the input and all outputs."""
        return math.prod(self.input_shape) + sum(layer.activations for layer in self.layers)

    def training_bytes(self, batch: int) -> int:
        """Return the memory that training in float32 with momentum needs, without workspace.

        12 bytes per parameter (value, gradient, velocity) and 8 per activation and image (value, gradient).

        Parameters
        ----------
        batch : int
            Images in a batch, at least 0.

        Raises
        ------
        TypeError, ValueError
            If `batch` is no integer, or negative.

        Examples
        --------
        AlexNet was trained in batches of 128 on two graphics processors of 3 GB each:

        >>> round(alexnet().training_bytes(128) / 2**30, 2)
        2.03
        """
        images = as_int(batch, "batch", 0)
        return BYTES_PER_PARAMETER * self.parameters + BYTES_PER_ACTIVATION * images * self.activations

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as one object that `json.dumps` can write.

        Of the bytes, "parameters" are 12 for each and "activations_per_image" 8 for each: see `training_bytes`.

        Examples
        --------
        >>> report = lenet5().to_dict()
        >>> report["layers"][2]
        {'name': 'C3', 'parameters': 1516, 'macs': 150000, 'output_shape': [16, 10, 10], 'activations': 1600}
        >>> report["parameters"], report["bytes"]["parameters"]
        (60000, 720000)
        """
        return {
            "model": self.model,
            "groups": self.groups,
            "input_shape": list(self.input_shape),
            "layers": [
                {
                    "name": layer.name,
                    "parameters": layer.parameters,
                    "macs": layer.macs,
                    "output_shape": list(layer.output_shape),
                    "activations": layer.activations,
                }
                for layer in self.layers
            ],
            "parameters": self.parameters,
            "macs": self.macs,
            "activations": self.activations,
            "bytes": {
                "parameters": BYTES_PER_PARAMETER * self.parameters,
                "activations_per_image": BYTES_PER_ACTIVATION * self.activations,
            },
        }


# --- Walking through a network --------------------------------------------------------------------------------


@dataclass
class Walk:
    """A network written down layer by layer, which keeps the shape that each layer hands to the next.

    Attributes
    ----------
    model : str
        Name of the model.
    spec : GroupSpec
        How its grouped layers are grouped.
    input_shape : tuple of int
        Channels first, without the batch.

    Examples
    --------
    >>> walk = Walk("tiny", parse_groups(2), (4, 9, 9))
    >>> walk.conv("conv", 6, 3, padding=1, grouped=True)
    >>> walk.window("pool", 3, stride=2)
    >>> walk.linear("fc", 10)
    >>> [(layer.name, layer.parameters, layer.output_shape) for layer in walk.cost().layers]
    [('conv', 114, (6, 9, 9)), ('pool', 0, (6, 4, 4)), ('fc', 970, (10,))]
    """

    model: str
    spec: GroupSpec
    input_shape: tuple[int, ...]
    layers: list[Layer] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the last layer's output."""
        return self.layers[-1].output_shape if self.layers else self.input_shape

    def add(self, name: str, parameters: int, macs: int, output_shape: tuple[int, ...]) -> None:
        """Add a layer of any other kind."""
        self.layers.append(Layer(name, parameters, macs, output_shape))

    def conv(
        self, name: str, channels: int, kernel: int, *, stride: int = 1, padding: int = 0, grouped: bool = False
    ) -> None:
        """Add a convolution with a square kernel and a bias, in groups or dense."""
        c_in, *size = self.shape
        try:
            groups = self.spec.build(c_in, channels) if grouped else uniform_groups(c_in, channels, 1)
        except ValueError as error:
            raise ValueError(f"layer {name} of {self.model}: {error}") from None
        output = _windows(size, kernel, stride, padding)
        kernel_size = (kernel,) * len(size)
        macs = groups.parameter_count(kernel_size, bias=False) * math.prod(output)
        self.add(name, groups.parameter_count(kernel_size), macs, (channels, *output))

    def window(self, name: str, kernel: int, *, stride: int, coefficients: bool = False) -> None:
        """Add pooling over windows; with `coefficients`, each channel's is scaled and shifted by trained numbers."""
        channels, *size = self.shape
        output = (channels, *_windows(size, kernel, stride, 0))
        trained = int(coefficients)
        self.add(name, 2 * channels * trained, math.prod(output) * trained, output)

    def normalise(self, name: str) -> None:
        """Add a normalisation without parameters."""
        self.add(name, 0, 0, self.shape)

    def linear(self, name: str, features: int) -> None:
        """Add a fully connected layer with a bias."""
        weights = math.prod(self.shape) * features
        self.add(name, weights + features, weights, (features,))

    def cost(self) -> Cost:
        """Return the sum of the layers."""
        return Cost(self.model, self.spec.label, self.input_shape, tuple(self.layers))


def _windows(size: list[int], kernel: int, stride: int, padding: int) -> list[int]:
    return [(n + 2 * padding - kernel) // stride + 1 for n in size]


# --- Models: to add one, write it down and enter it in MODELS -------------------------------------------------


def alexnet(groups: int | str = 2) -> Cost:
    """Count AlexNet (Krizhevsky, Sutskever, Hinton, NIPS 2012), its convolutions 2, 4 and 5 in groups.

    The paper's two groups live on one graphics processor each. It says that the images are 224×224, but a kernel of
    11 with stride 4 makes the 55×55 outputs it reports of 227 (or of 224 padded by 2, which changes neither the
    parameters nor the MACs). One group is the same network without the split.

    Parameters
    ----------
    groups : int or str
        As of `parse_groups`.

    Raises
    ------
    TypeError, ValueError
        If the specification is wrong or does not fit the channels of a layer.

    Examples
    --------
    >>> two, one = alexnet(2), alexnet(1)
    >>> two.parameters, one.parameters
    (60965224, 62378344)
    >>> f"{1 - two.macs / one.macs:.1%} of the multiply-adds saved"
    '36.2% of the multiply-adds saved'
    """
    walk = Walk("alexnet", parse_groups(groups), (3, 227, 227))
    walk.conv("conv1", 96, 11, stride=4)
    walk.normalise("norm1")
    walk.window("pool1", 3, stride=2)
    walk.conv("conv2", 256, 5, padding=2, grouped=True)
    walk.normalise("norm2")
    walk.window("pool2", 3, stride=2)
    walk.conv("conv3", 384, 3, padding=1)
    walk.conv("conv4", 384, 3, padding=1, grouped=True)
    walk.conv("conv5", 256, 3, padding=1, grouped=True)
    walk.window("pool5", 3, stride=2)
    walk.linear("fc6", 4096)
    walk.linear("fc7", 4096)
    walk.linear("fc8", 1000)
    return walk.cost()


def lenet5(groups: int | str = "table") -> Cost:
    """Count LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998), its layer C3 in groups.

    S2 and S4 add up 2×2 windows and give each map a trained coefficient and bias: two parameters per map, and one
    MAC per output. The output layer compares F6 with a fixed pattern for each digit (radial basis functions): 840
    multiply-adds and *no trainable* parameters, so that the whole network has exactly 60,000.

    Parameters
    ----------
    groups : int or str
        As of `parse_groups`; "table" is the paper's connection table.

    Raises
    ------
    TypeError, ValueError
        If the specification is wrong or does not fit the 6 and 16 channels of C3.

    Examples
    --------
    >>> lenet5().parameters, lenet5("dense").parameters
    (60000, 60900)
    """
    walk = Walk("lenet5", parse_groups(groups), (1, 32, 32))
    walk.conv("C1", 6, 5)
    walk.window("S2", 2, stride=2, coefficients=True)
    walk.conv("C3", 16, 5, grouped=True)
    walk.window("S4", 2, stride=2, coefficients=True)
    walk.conv("C5", 120, 5)
    walk.linear("F6", 84)
    walk.add("output", 0, 84 * 10, (10,))
    return walk.cost()


MODELS: dict[str, Callable[..., Cost]] = {"alexnet": alexnet, "lenet5": lenet5}
"""Every model by name; called without arguments, a model is grouped as in its paper."""


def model_cost(model: str, groups: int | str | None = None) -> Cost:
    """Count a model of `MODELS` by name.

    Parameters
    ----------
    model : str
        A key of `MODELS`.
    groups : int or str, optional
        As of `parse_groups`. Default: as in the model's paper.

    Raises
    ------
    ValueError
        If there is no such model, or the groups are wrong or do not fit it.
    TypeError
        If an argument is of another type.

    Examples
    --------
    >>> model_cost("alexnet", "dense").macs
    1135256096
    >>> model_cost("vgg")
    Traceback (most recent call last):
        ...
    ValueError: model must be one of alexnet, lenet5; got 'vgg'
    """
    if not isinstance(model, str):
        raise TypeError(f"model must be a string; got {shown(model)} of type {type(model).__name__}")
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}; got {shown(model)}")
    return MODELS[model]() if groups is None else MODELS[model](groups)
