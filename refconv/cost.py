"""The cost of a network: parameters, multiply-adds, activations and bytes, layer by layer. Integers only.

A grouped convolution has Σ_g out_g·in_g·k1·…·kd weights, K biases, and one multiply-add (MAC) per weight and output
position. For G uniform groups this is k²·(C/G)·K + K parameters and k²·(C/G)·K·H·W MACs. Biases, activation functions,
pooling and normalisation add no MACs. Activations are the network's input and every layer's output, for one
image. ReLU, tanh and dropout work in place and are not counted as layers.

Memory is counted in two ways. The textbook count has a value and a gradient for every activation. The prediction is
the memory that a training step of :mod:`refconv.nn` really uses, which is less: see :class:`Memory`.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from refconv.groups import ChannelGroups, lenet5_c3_groups, logarithmic_groups, uniform_groups
from refconv.integers import as_int, shown
from refconv.settings import DEFAULT_WORKSPACE

BYTES_PER_PARAMETER = 12
"""Training with momentum keeps a value, a gradient and a velocity for each parameter: three float32 numbers."""
BYTES_PER_ACTIVATION = 8
"""Training keeps a value and a gradient for each activation of each image: two float32 numbers."""
FLOAT = 4
"""Bytes of a float32 number."""


# --- Channel groups as a word ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupSpec:
    """A way to group the channels of any layer, as given on a command line.

    Attributes
    ----------
    kind : str
        "uniform", "log" (base 2) or "table" (LeNet-5's layer C3).
    n : int
        Number of groups.
    """

    kind: str
    n: int

    def build(self, c_in: int, c_out: int) -> ChannelGroups:
        """Return the groups for a layer with c_in input and c_out output channels.

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
                f"groups=table is LeNet-5's table, from C={groups.c_in} to K={groups.c_out} channels; got a layer with "
                f"C={c_in} and K={c_out}"
            )
        return groups

    @property
    def label(self) -> int | str:
        """The shortest equivalent specification: n, "log:n" or "table"."""
        if self.kind == "uniform":
            return self.n
        return f"log:{self.n}" if self.kind == "log" else self.kind


def parse_groups(spec: int | str, name: str = "groups") -> GroupSpec:
    """Read a group specification.

    Parameters
    ----------
    spec : int or str
        N, "N" or "uniform:N": N uniform groups; "dense": one group; "log:N": N logarithmic groups of base 2;
        "table": LeNet-5's connection table.
    name : str
        The argument's name, for the error.

    Raises
    ------
    ValueError
        If the string is none of these, or N is below 1.
    TypeError
        If `spec` is neither an int nor a string.

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
        return GroupSpec("uniform", as_int(spec, name, 1))
    if spec == "dense":
        return GroupSpec("uniform", 1)
    if spec == "table":
        return GroupSpec("table", lenet5_c3_groups().n)
    match = re.fullmatch(r"(?:(uniform|log):)?([0-9]{1,18})", spec)
    if match is None:
        raise ValueError(f"{name} must be a number N, 'uniform:N', 'dense', 'log:N' or 'table'; got {shown(spec)}")
    return GroupSpec(match[1] or "uniform", as_int(int(match[2]), name, 1))


# --- Costs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """The cost of one layer for one image.

    Attributes
    ----------
    name : str
        The name in the paper.
    parameters, macs : int
        Trainable parameters, and multiply-adds of the forward pass.
    output_shape : tuple of int
        Channels first, without the batch.
    inputs : int
        Number of inputs.
    sees_all : bool
        Whether each output reads the channels of every group, so that a tower needs all inputs for its outputs.
    keeps_input, keeps_output : int
        Bytes per input and per output that :mod:`refconv.nn` keeps for the backward pass of the layer and of the
        activation function after it: 4 for the number itself, 1 for a mask or an index.
    """

    name: str
    parameters: int
    macs: int
    output_shape: tuple[int, ...]
    inputs: int = 0
    sees_all: bool = False
    keeps_input: int = 0
    keeps_output: int = 0

    @property
    def activations(self) -> int:
        """Number of outputs."""
        return math.prod(self.output_shape)

    def on_one_of(self, towers: int) -> tuple[int, int, int]:
        """Return the share of one of equal towers: parameters, bytes kept per image, and bytes of gradients per image.

        The gradients are the ones that exist while the layer's backward runs: for its outputs and inputs, or before
        and after its activation function.
        """
        outputs = self.activations // towers
        inputs = self.inputs if self.sees_all else self.inputs // towers
        kept = self.keeps_input * inputs + self.keeps_output * outputs
        return self.parameters // towers, kept, FLOAT * (outputs + max(inputs, outputs))


@dataclass(frozen=True)
class Memory:
    """The memory in bytes that training in float32 with momentum takes on each tower.

    ``parameters``, ``gradients``, ``momentum``, ``activations`` and ``workspace`` are maxima over time, which do not
    occur together. A gradient exists from its layer's backward to the optimiser's step, and the arrays that a layer
    kept are freed by its backward. ``predicted`` is the peak, the maximum over the backward pass and the step of every
    layer of the sum of

    * values and momentum of all parameters,
    * the gradients made so far,
    * the arrays that this layer and the layers before it keep (convolutions and linear layers their input, ReLU and
      dropout a mask of one byte per number, max pooling an index of one byte per output, local response normalisation
      its input and its scale, tanh its output),
    * the gradients of the layer's outputs and inputs, or the new values and momentum that the step makes,
    * the workspace.

    Attributes
    ----------
    batch, towers : int
        Images in a batch, and towers that the network is split into.
    parameters, gradients, momentum : int
        4 per parameter.
    activations : int
        Arrays that all layers keep for the backward pass.
    workspace : int
        Maximum scratch memory of one call: :func:`refconv.set_workspace`.
    predicted : int
        The peak of a training step of :mod:`refconv.nn`.
    textbook : int
        12 per parameter and 8 per activation of each image, without workspace.
    """

    batch: int
    towers: int
    parameters: int
    gradients: int
    momentum: int
    activations: int
    workspace: int
    predicted: int
    textbook: int


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
        In order; the input is not a layer.
    note : str
        How the counted network differs from the one that :mod:`refconv.nn` trains; empty if it does not.
    """

    model: str
    groups: int | str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    note: str = ""

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
        """Number of activations of one image: the input and all outputs."""
        return math.prod(self.input_shape) + sum(layer.activations for layer in self.layers)

    def memory(self, batch: int, towers: int = 1) -> Memory:
        """Return the memory that training takes on each of `towers` equal towers.

        A tower computes its share of every layer's outputs. It needs all inputs of layers without groups, and only the
        inputs of its own groups for the others: see :class:`refconv.nn.Towers`.

        Parameters
        ----------
        batch : int
            Images in a batch, at least 0.
        towers : int
            Number of towers; if more than 1, it must divide the number of uniform groups and every layer's outputs.

        Raises
        ------
        TypeError, ValueError
            If an argument is not an integer or is out of range, or the network does not split into `towers` towers.

        Examples
        --------
        >>> memory = alexnet().memory(128)
        >>> [round(number / 2**30, 2) for number in (memory.textbook, memory.predicted)]
        [2.03, 1.55]
        >>> round(alexnet().memory(128, towers=2).predicted / 2**30, 2)   # each of the paper's GPUs had 3 GB
        0.84
        """
        images, towers = as_int(batch, "batch", 0), as_int(towers, "towers", 1)
        if towers > 1 and not self._splits(towers):
            raise ValueError(
                f"towers={towers} must divide the uniform groups and the outputs of every layer; {self.model} has "
                f"groups={self.groups}"
            )
        layers = [layer.on_one_of(towers) for layer in self.layers]
        parameters = sum(p for p, _, _ in layers)
        peak = kept = gradients = 0
        for p, k, in_flight in layers:
            kept += k
            made = FLOAT * (parameters - gradients)  # gradients of the layers from this one to the last
            gradients += p
            peak = max(peak, made + max(images * (kept + in_flight), 2 * FLOAT * p))
        inputs, outputs = math.prod(self.input_shape), self.activations - math.prod(self.input_shape)
        return Memory(
            batch=images,
            towers=towers,
            parameters=FLOAT * parameters,
            gradients=FLOAT * parameters,
            momentum=FLOAT * parameters,
            activations=images * kept,
            workspace=DEFAULT_WORKSPACE,
            predicted=2 * FLOAT * parameters + peak + DEFAULT_WORKSPACE,
            textbook=BYTES_PER_PARAMETER * parameters + BYTES_PER_ACTIVATION * images * (inputs + outputs // towers),
        )

    def memories(self, batches: Sequence[int]) -> list[Memory]:
        """Return the memory for each batch size: with one tower, and, if possible, with one tower per group."""
        alone = [1, self.groups] if isinstance(self.groups, int) and self.groups > 1 else [1]
        return [self.memory(b, t) for b in batches for t in alone if t == 1 or self._splits(t)]

    def _splits(self, towers: int) -> bool:
        if not isinstance(self.groups, int) or self.groups % towers:
            return False
        return all(layer.output_shape[0] % towers == 0 for layer in self.layers)

    def to_dict(self, batches: Sequence[int] = (128,)) -> dict[str, Any]:
        """Return all figures, with the memory for some batch sizes, as one object that `json.dumps` can write.

        In "bytes", "parameters" has 12 per parameter and "activations_per_image" 8 per activation: see
        the ``textbook`` of :class:`Memory`.

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
            "note": self.note,
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
            "memory": [asdict(memory) for memory in self.memories(batches)],
        }


# --- Walking through a network --------------------------------------------------------------------------------


@dataclass
class Walk:
    """A network written down layer by layer, which keeps track of each layer's output shape.

    Attributes
    ----------
    model : str
        Name of the model.
    spec : GroupSpec
        Channel groups of its grouped layers.
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

    def add(self, name: str, parameters: int, macs: int, output_shape: tuple[int, ...], **memory: Any) -> None:
        """Add a layer of any other kind; `memory` are the attributes of :class:`Layer` about kept memory."""
        self.layers.append(Layer(name, parameters, macs, output_shape, math.prod(self.shape), **memory))

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
        parameters = groups.parameter_count(kernel_size)
        self.add(name, parameters, macs, (channels, *output), sees_all=not grouped, keeps_input=FLOAT)

    def window(self, name: str, kernel: int, *, stride: int, coefficients: bool = False) -> None:
        """Add max pooling; with `coefficients`, average pooling with a trained scale and shift per channel."""
        channels, *size = self.shape
        output = (channels, *_windows(size, kernel, stride, 0))
        if coefficients:
            self.add(name, 2 * channels, math.prod(output), output, keeps_output=FLOAT)
        else:
            self.add(name, 0, 0, output, keeps_output=1)

    def normalise(self, name: str) -> None:
        """Add a normalisation without parameters."""
        self.add(name, 0, 0, self.shape, keeps_output=2 * FLOAT)

    def activate(self, kind: str) -> None:
        """Add "relu", "dropout" or "tanh", which work in place, after the last layer."""
        kept = {"relu": 1, "dropout": 1, "tanh": FLOAT}[kind]
        self.layers[-1] = replace(self.layers[-1], keeps_output=self.layers[-1].keeps_output + kept)

    def linear(self, name: str, features: int) -> None:
        """Add a fully connected layer with a bias."""
        weights = math.prod(self.shape) * features
        self.add(name, weights + features, weights, (features,), sees_all=True, keeps_input=FLOAT)

    def cost(self) -> Cost:
        """Return the cost of all layers."""
        return Cost(self.model, self.spec.label, self.input_shape, tuple(self.layers))


def _windows(size: list[int], kernel: int, stride: int, padding: int) -> list[int]:
    return [(n + 2 * padding - kernel) // stride + 1 for n in size]


# --- Models: to add one, write a function and add it to MODELS ------------------------------------------------


def alexnet(groups: int | str = 2) -> Cost:
    """Count AlexNet (Krizhevsky, Sutskever, Hinton, NIPS 2012), with convolutions 2, 4 and 5 in groups.

    Each of the paper's two groups runs on its own graphics processor. The paper states images of 224×224, but an 11×11
    kernel with stride 4 gives its 55×55 outputs only for 227×227 (or for 224×224 padded by 2, which changes neither
    the parameters nor the MACs). One group is the same network without the split.

    Parameters
    ----------
    groups : int or str
        See `parse_groups`.

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
    walk.activate("relu")
    walk.normalise("norm1")
    walk.window("pool1", 3, stride=2)
    walk.conv("conv2", 256, 5, padding=2, grouped=True)
    walk.activate("relu")
    walk.normalise("norm2")
    walk.window("pool2", 3, stride=2)
    for name, channels, grouped in (("conv3", 384, False), ("conv4", 384, True), ("conv5", 256, True)):
        walk.conv(name, channels, 3, padding=1, grouped=grouped)
        walk.activate("relu")
    walk.window("pool5", 3, stride=2)
    for name in ("fc6", "fc7"):
        walk.linear(name, 4096)
        walk.activate("relu")
        walk.activate("dropout")
    walk.linear("fc8", 1000)
    return walk.cost()


_LENET5_NOTE = (
    "The paper's output layer compares with fixed patterns and has no trained parameters. refconv train lenet5 trains "
    "a linear one instead: 850 parameters more for 10 classes."
)


def lenet5(groups: int | str = "table") -> Cost:
    """Count LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998), with layer C3 in groups.

    S2 and S4 sum 2×2 windows and have a trained coefficient and bias for each map: two parameters per map, and one
    MAC per output. The output layer compares F6 with a fixed pattern for each digit (radial basis functions), with 840
    multiply-adds and *no trainable* parameters. So the whole network has exactly 60,000 parameters.

    Parameters
    ----------
    groups : int or str
        See `parse_groups`; "table" is the paper's connection table.

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
    walk.activate("tanh")
    walk.window("S2", 2, stride=2, coefficients=True)
    walk.activate("tanh")
    walk.conv("C3", 16, 5, grouped=True)
    walk.activate("tanh")
    walk.window("S4", 2, stride=2, coefficients=True)
    walk.activate("tanh")
    walk.conv("C5", 120, 5)
    walk.activate("tanh")
    walk.linear("F6", 84)
    walk.activate("tanh")
    walk.add("output", 0, 84 * 10, (10,), sees_all=True, keeps_input=FLOAT)
    return replace(walk.cost(), note=_LENET5_NOTE)


def residual(
    groups: int | str = "log:3", *, channels: int = 32, blocks: int = 2, side: int = 8, c_in: int = 1, classes: int = 10
) -> Cost:
    """Count :func:`refconv.nn.residual_network`, with the convolutions of its blocks in groups.

    Parameters
    ----------
    groups : int or str
        See `parse_groups`.
    channels, blocks, side, c_in, classes : int
        See :func:`refconv.nn.residual_network`.

    Raises
    ------
    TypeError, ValueError
        If a number is not an integer or is too small, or the groups do not fit the channels.

    Examples
    --------
    >>> [residual(groups).parameters for groups in ("dense", "log:3", 4)]
    [23946, 12426, 10122]
    """
    channels, blocks = as_int(channels, "channels", 1), as_int(blocks, "blocks", 0, 26)
    side, c_in, classes = as_int(side, "side", 4), as_int(c_in, "c_in", 1), as_int(classes, "classes", 1)
    walk = Walk("residual", parse_groups(groups), (c_in, side, side))
    walk.conv("conv", channels, 3, padding=1)
    walk.activate("relu")
    stage = 0
    while walk.shape[-1] >= 8:
        stage += 1
        walk.window(f"pool{stage}", 2, stride=2)
        for letter in string.ascii_lowercase[:blocks]:
            walk.activate("relu")
            walk.conv(f"block{stage}{letter}", channels, 3, padding=1, grouped=True)
    walk.activate("relu")
    walk.linear("linear", classes)
    return walk.cost()


MODELS: dict[str, Callable[..., Cost]] = {"alexnet": alexnet, "lenet5": lenet5, "residual": residual}
"""Every model by name; without arguments, a model has the groups of its paper."""


def model_cost(model: str, groups: int | str | None = None, **options: int) -> Cost:
    """Count a model of `MODELS` by name.

    Parameters
    ----------
    model : str
        A key of `MODELS`.
    groups : int or str, optional
        See `parse_groups`. Default: the groups of the model's paper.
    **options
        The model's other arguments.

    Raises
    ------
    ValueError
        If there is no such model, or the groups are wrong or do not fit the model.
    TypeError
        If an argument has the wrong type.

    Examples
    --------
    >>> model_cost("alexnet", "dense").macs
    1135256096
    >>> model_cost("vgg")
    Traceback (most recent call last):
        ...
    ValueError: model must be one of alexnet, lenet5, residual; got 'vgg'
    """
    if not isinstance(model, str):
        raise TypeError(f"model must be a string; got {shown(model)} of type {type(model).__name__}")
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}; got {shown(model)}")
    return MODELS[model](**options) if groups is None else MODELS[model](groups, **options)
