"""Channel groups: the input channels that each part of a convolution reads, and the output channels that it writes.

One idea covers LeNet-5's connection table, AlexNet's two groups, ResNeXt's many, depthwise convolution and
logarithmic groups. This module handles integers only, never arrays of data.

References
----------
- LeCun, Bottou, Bengio, Haffner, *Gradient-based learning applied to document recognition*, Proc. IEEE 1998.
- Krizhevsky, Sutskever, Hinton, *ImageNet classification with deep convolutional neural networks*, NIPS 2012.
- Xie, Girshick, Dollár, Tu, He, *Aggregated residual transformations for deep neural networks* (ResNeXt),
  arXiv 1611.05431.
- Lee, Baddar, Kim, Ro, *Convolution with logarithmic filter groups for efficient shallow CNN*, arXiv 1707.09855.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, chain, groupby, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refconv.integers import as_bool, as_int, is_sequence, shown

MAX_CHANNELS = 2**24
"""Maximum number of channels, groups or connections between them: more would take too much memory."""


def _length(value: Any, name: str, what: str) -> int:
    """Return the length of a sequence of `what`, before anything of that length is built."""
    if not is_sequence(value):
        raise TypeError(f"{name} must be a sequence of {what}; got {shown(value)} of type {type(value).__name__}")
    try:
        length = len(value)
    except OverflowError:  # a huge range
        length = MAX_CHANNELS + 1
    if length > MAX_CHANNELS:
        raise ValueError(f"{name} must have at most 2^24 = {MAX_CHANNELS} entries; got more")
    return length


# --- One side of the groups -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChannelSide:
    """One side of channel groups, input or output, as channels of an array.

    The groups' lists, one after another, are the *listed* channels. Reading takes the listed channels from an
    array; its adjoint sums listed channels back onto the array's channels.

    Attributes
    ----------
    channels : int
        Channels of the array, listed or not.
    sizes : tuple of int
        Listed channels of each group.
    order : tuple of int or None
        The listed channels; None means 0, 1, …, channels − 1, and needs no memory.

    Examples
    --------
    >>> side = ChannelGroups([[0, 2], [2, 1]], [[0], [1]], c_in=4).inputs
    >>> side.listed, side.sizes, side.offsets, side.is_contiguous
    ((0, 2, 2, 1), (2, 2), (0, 2), False)
    """

    channels: int
    sizes: tuple[int, ...]
    order: tuple[int, ...] | None = None

    @cached_property
    def is_contiguous(self) -> bool:
        """Whether the groups are consecutive blocks that cover all channels in order."""
        return self.order is None

    @cached_property
    def listed(self) -> tuple[int, ...]:
        """The groups' lists, one after another."""
        return tuple(range(self.channels)) if self.order is None else self.order

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The position in `listed` at which each group starts."""
        return tuple(accumulate(self.sizes[:-1], initial=0))

    @cached_property
    def lists(self) -> tuple[tuple[int, ...], ...]:
        """The channels of each group."""
        return tuple(self.listed[start : start + size] for start, size in zip(self.offsets, self.sizes, strict=True))

    def gather_tables(self) -> tuple[tuple[int, ...], ...]:
        """Return tables for summing listed channels back onto channels by gathering alone.

        Table j contains, for every channel, the position in `listed` of its j-th listing. For a channel that is
        listed fewer times it contains len(listed), the position of an appended zero channel. With A the listed
        channels of an array and 0 one zero channel, Σ_j take(concat([A, 0]), table_j) is the adjoint of
        take(·, listed). It needs no scatter, so there is no race and the order of summation is fixed. There is
        always at least one table.

        Returns
        -------
        tuple of tuple of int
            max(1, maximum listings of a channel) tables of `channels` positions each.

        Examples
        --------
        >>> ChannelGroups([[0, 2], [2, 1]], [[0], [1]], c_in=4).inputs.gather_tables()
        ((0, 3, 1, 4), (4, 4, 2, 4))
        """
        return self._gather_tables

    @cached_property
    def _gather_tables(self) -> tuple[tuple[int, ...], ...]:
        if self.order is None:
            return (self.listed,)
        positions: list[list[int]] = [[] for _ in range(self.channels)]
        for position, channel in enumerate(self.order):
            positions[channel].append(position)
        absent = len(self.order)
        return tuple(zip_longest(*positions, fillvalue=absent)) or ((absent,) * self.channels,)


def _contiguous_side(sizes: tuple[int, ...]) -> ChannelSide:
    return ChannelSide(channels=sum(sizes), sizes=sizes)


def _listed_side(lists: list[tuple[int, ...]], channels: int) -> ChannelSide:
    # Contiguous blocks have one representation, so that equal groups compare and hash equal.
    order: tuple[int, ...] | None = tuple(chain.from_iterable(lists))
    if order == tuple(range(channels)):
        order = None
    return ChannelSide(channels=channels, sizes=tuple(map(len, lists)), order=order)


# --- Channel groups -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Consecutive groups whose weights have one shape, so that one batched matrix product computes them all.

    Attributes
    ----------
    first, count : int
        The groups first, first + 1, …, first + count − 1.
    in_size, out_size : int
        Input and output channels of each group.
    """

    first: int
    count: int
    in_size: int
    out_size: int


@dataclass(frozen=True, init=False, repr=False)
class ChannelGroups:
    r"""The channels that each group of a convolution reads and writes.

    Group g computes, for every k-th of its output channels,

    .. math:: y[\mathrm{out}_g[k]] = b[\mathrm{out}_g[k]] + \sum_c w_g[k, c] \star x[\mathrm{in}_g[c]]

    Exactly one group writes each output channel. Several groups, or none, may read an input channel, in any
    order. A group that reads nothing gives the bias alone; a group may also write nothing.
    Instances are immutable, hashable and compare by value.

    Parameters
    ----------
    in_channels : sequence of sequences of int
        For each group, the input channels that it reads, each at most once, in the order of its weight's columns.
    out_channels : sequence of sequences of int
        For each group, the output channels that it writes, in the order of its weight's rows. Together they are
        0, 1, …, c_out − 1, each exactly once.
    c_in : int, optional
        Number of input channels, including any at the end that no group reads. Default: the highest listed
        channel + 1.

    Raises
    ------
    ValueError
        If a rule above is broken, or there are more than 2^24 channels, groups or connections.
    TypeError
        If an argument does not consist of integers (a bool is not an integer).

    See Also
    --------
    uniform_groups, logarithmic_groups, depthwise_groups, lenet5_c3_groups

    Examples
    --------
    Two groups that share input channel 1; a dense convolution would have 6 connections between channels:

    >>> groups = ChannelGroups([[0, 1], [1]], [[0], [1, 2]])
    >>> groups.weight_shapes((3, 3))
    ((1, 2, 3, 3), (2, 1, 3, 3))
    >>> groups.connectivity()
    array([[1, 1],
           [0, 1],
           [0, 1]], dtype=uint8)
    >>> ChannelGroups([[0, 1], [2, 3]], [[0], [1]]) == uniform_groups(4, 2, 2)
    True
    """

    inputs: ChannelSide
    """The input side, which the convolution reads."""
    outputs: ChannelSide
    """The output side, which the convolution writes."""

    def __init__(
        self,
        in_channels: Sequence[Sequence[int]],
        out_channels: Sequence[Sequence[int]],
        *,
        c_in: int | None = None,
    ) -> None:
        inputs = _channel_lists(in_channels, "in_channels")
        outputs = _channel_lists(out_channels, "out_channels")
        _check_group_counts(len(inputs), len(outputs), "in_channels", "out_channels")
        for g, channels in enumerate(inputs):
            if len(set(channels)) < len(channels):
                twice = Counter(channels).most_common(1)[0][0]
                raise ValueError(f"in_channels[{g}] must list a channel at most once; it lists channel {twice} again")
        needed = max(map(max, filter(None, inputs)), default=-1) + 1
        total = needed if c_in is None else as_int(c_in, "c_in", 0, MAX_CHANNELS)
        if total < needed:
            raise ValueError(
                f"c_in must be larger than the highest channel listed in in_channels, {needed - 1}; got c_in={total}"
            )
        # Summing over every channel's readers later takes one gather per reader; its memory must be bounded too.
        readers = max(Counter(chain.from_iterable(inputs)).values(), default=0)
        if readers * total > MAX_CHANNELS:
            raise ValueError(
                f"in_channels must need at most 2^24 connections; one channel is read by {readers} groups, and "
                f"{readers} · c_in = {readers}·{total} = {readers * total}"
            )
        _check_partition(outputs)
        self._set(_listed_side(inputs, total), _listed_side(outputs, sum(map(len, outputs))))

    def _set(self, inputs: ChannelSide, outputs: ChannelSide) -> None:
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "outputs", outputs)

    @classmethod
    def from_sizes(cls, in_sizes: Sequence[int], out_sizes: Sequence[int]) -> ChannelGroups:
        """Return groups that are contiguous blocks of channels, in order.

        Parameters
        ----------
        in_sizes, out_sizes : sequence of int
            Input and output channels of each group, at least 0.

        Raises
        ------
        ValueError, TypeError
            As for `ChannelGroups`.

        Examples
        --------
        >>> ChannelGroups.from_sizes([4, 2], [1, 2]).in_channels
        ((0, 1, 2, 3), (4, 5))
        """
        ins = _sizes(in_sizes, "in_sizes")
        outs = _sizes(out_sizes, "out_sizes")
        _check_group_counts(len(ins), len(outs), "in_sizes", "out_sizes")
        return cls._contiguous(ins, outs)

    @classmethod
    def _contiguous(cls, in_sizes: tuple[int, ...], out_sizes: tuple[int, ...]) -> ChannelGroups:
        """Return contiguous groups of the given sizes, without checks and without listing channels."""
        groups = object.__new__(cls)
        groups._set(_contiguous_side(in_sizes), _contiguous_side(out_sizes))
        return groups

    @property
    def in_channels(self) -> tuple[tuple[int, ...], ...]:
        """The input channels that each group reads."""
        return self.inputs.lists

    @property
    def out_channels(self) -> tuple[tuple[int, ...], ...]:
        """The output channels that each group writes."""
        return self.outputs.lists

    @property
    def in_sizes(self) -> tuple[int, ...]:
        """The number of input channels that each group reads."""
        return self.inputs.sizes

    @property
    def out_sizes(self) -> tuple[int, ...]:
        """The number of output channels that each group writes."""
        return self.outputs.sizes

    @property
    def c_in(self) -> int:
        """Number of input channels, read or not."""
        return self.inputs.channels

    @property
    def c_out(self) -> int:
        """Number of output channels."""
        return self.outputs.channels

    @property
    def n(self) -> int:
        """Number of groups."""
        return len(self.in_sizes)

    @property
    def is_contiguous(self) -> bool:
        """Whether both sides are consecutive blocks that cover all their channels in order."""
        return self.inputs.is_contiguous and self.outputs.is_contiguous

    @property
    def is_uniform(self) -> bool:
        """Whether the groups are contiguous and all of one shape, the usual meaning of ``groups=n``."""
        return self.is_contiguous and len(self.blocks) == 1

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks of consecutive groups of one shape; a single block if the groups are uniform.

        >>> for block in logarithmic_groups(16, 32, 4).blocks:
        ...     print(block)
        Block(first=0, count=1, in_size=8, out_size=16)
        Block(first=1, count=1, in_size=4, out_size=8)
        Block(first=2, count=2, in_size=2, out_size=4)
        """
        blocks = []
        first = 0
        for (in_size, out_size), run in groupby(zip(self.in_sizes, self.out_sizes, strict=True)):
            count = sum(1 for _ in run)
            blocks.append(Block(first, count, in_size, out_size))
            first += count
        return tuple(blocks)

    def weight_shapes(self, kernel_size: Sequence[int], *, transposed: bool = False) -> tuple[tuple[int, ...], ...]:
        """Return the shape of each group's weight.

        Parameters
        ----------
        kernel_size : sequence of int
            One positive integer per spatial axis. A single integer would not determine the number of axes.
        transposed : bool
            Whether the weight belongs to a transposed convolution.

        Returns
        -------
        tuple of tuple of int
            For each group (out_size, in_size, k1, …, kd), or (in_size, out_size, k1, …, kd) if transposed.

        Raises
        ------
        TypeError
            If `kernel_size` is not a sequence of integers, or `transposed` is not a bool.
        ValueError
            If `kernel_size` is empty or an entry is not positive.

        Examples
        --------
        >>> logarithmic_groups(8, 16, 3).weight_shapes((3, 5))
        ((8, 4, 3, 5), (4, 2, 3, 5), (4, 2, 3, 5))
        >>> logarithmic_groups(8, 16, 3).weight_shapes((3,), transposed=True)
        ((4, 8, 3), (2, 4, 3), (2, 4, 3))
        """
        kernel = _kernel(kernel_size)
        swap = as_bool(transposed, "transposed")
        shapes: list[tuple[int, ...]] = []
        for block in self.blocks:
            channels = (block.in_size, block.out_size) if swap else (block.out_size, block.in_size)
            shapes += [(*channels, *kernel)] * block.count
        return tuple(shapes)

    def parameter_count(self, kernel_size: Sequence[int], bias: bool = True) -> int:
        """Return the number of parameters: Σ_g out_g·in_g·k1·…·kd, plus c_out if there is a bias.

        Parameters
        ----------
        kernel_size : sequence of int
            One positive integer per spatial axis.
        bias : bool
            Whether each output channel has a bias.

        Raises
        ------
        TypeError, ValueError
            As for `weight_shapes`.

        Examples
        --------
        AlexNet's second convolution (Krizhevsky et al. 2012), with its two groups and without groups:

        >>> uniform_groups(96, 256, 2).parameter_count((5, 5))
        307456
        >>> uniform_groups(96, 256, 1).parameter_count((5, 5))
        614656
        """
        taps = math.prod(_kernel(kernel_size))
        biases = self.c_out if as_bool(bias, "bias") else 0
        return sum(block.count * block.in_size * block.out_size for block in self.blocks) * taps + biases

    def connectivity(self) -> NDArray[np.uint8]:
        """Return a matrix that shows the input channels of each output channel.

        Multiplied by a dense weight, it gives the block-masked weight whose convolution equals the grouped one.
        Its small unsigned type leaves the weight's floating-point type unchanged.

        Returns
        -------
        numpy.ndarray
            A new array (c_out, c_in): 1 where output channel k reads input channel c, else 0.

        Raises
        ------
        ValueError
            If the matrix would have more than 2^40 elements.

        Examples
        --------
        >>> uniform_groups(4, 2, 2).connectivity()
        array([[1, 1, 0, 0],
               [0, 0, 1, 1]], dtype=uint8)
        """
        if self.c_out * self.c_in > 2**40:
            raise ValueError(
                f"the connectivity matrix would need c_out·c_in = {self.c_out}·{self.c_in} elements, more than 2^40"
            )
        matrix = np.zeros((self.c_out, self.c_in), dtype=np.uint8)
        for reads, writes in zip(self.in_channels, self.out_channels, strict=True):
            matrix[np.asarray(writes, dtype=np.intp)[:, None], np.asarray(reads, dtype=np.intp)] = 1
        return matrix

    def __repr__(self) -> str:
        if self.is_uniform:
            return f"uniform_groups({self.c_in}, {self.c_out}, {self.n})"
        if self.is_contiguous and self.n <= 64:
            return f"ChannelGroups.from_sizes({list(self.in_sizes)}, {list(self.out_sizes)})"
        if not self.is_contiguous and self.n + sum(self.in_sizes) + sum(self.out_sizes) <= 256:
            reads, writes = ([list(channels) for channels in lists] for lists in (self.in_channels, self.out_channels))
            return f"ChannelGroups({reads}, {writes}, c_in={self.c_in})"
        return f"<ChannelGroups: n={self.n}, c_in={self.c_in}, c_out={self.c_out}>"


def _channel_lists(value: Any, name: str) -> list[tuple[int, ...]]:
    if isinstance(value, np.ndarray) and value.ndim == 2:
        value = list(value)
    _length(value, name, "sequences of channels, one per group")
    # Check all lengths before copying any list: a range is short to write but may be long to store.
    total = sum(_length(channels, f"{name}[{g}]", "channels, integers") for g, channels in enumerate(value))
    if total > MAX_CHANNELS:
        raise ValueError(f"{name} must list at most 2^24 = {MAX_CHANNELS} channels; got {total}")
    return [_indices(channels, f"{name}[{g}]", 0, MAX_CHANNELS - 1) for g, channels in enumerate(value)]


def _indices(value: Iterable[Any], name: str, minimum: int, maximum: int) -> tuple[int, ...]:
    numbers = tuple(value)
    if all(type(number) is int and minimum <= number <= maximum for number in numbers):
        return numbers  # with millions of channels, naming each one for an error would be slow
    return tuple(as_int(number, f"{name}[{i}]", minimum, maximum) for i, number in enumerate(numbers))


def _sizes(value: Any, name: str) -> tuple[int, ...]:
    _length(value, name, "integers, one per group")
    sizes = _indices(value, name, 0, MAX_CHANNELS)
    if sum(sizes) > MAX_CHANNELS:
        raise ValueError(f"{name} must sum to at most 2^24 = {MAX_CHANNELS} channels; got {sum(sizes)}")
    return sizes


def _kernel(kernel_size: Any) -> tuple[int, ...]:
    if isinstance(kernel_size, int | np.integer) and not isinstance(kernel_size, bool):
        raise TypeError(
            "kernel_size must be a sequence with one integer per spatial axis, such as (3, 3); the integer "
            f"{shown(kernel_size)} alone does not say how many axes there are"
        )
    if _length(kernel_size, "kernel_size", "integers, one per spatial axis") == 0:
        raise ValueError("kernel_size must have at least one spatial axis; got none")
    return tuple(as_int(k, f"kernel_size[{axis}]", 1) for axis, k in enumerate(kernel_size))


def _check_group_counts(ins: int, outs: int, in_name: str, out_name: str) -> None:
    if ins != outs:
        raise ValueError(f"{in_name} and {out_name} must have one entry for each group; got {ins} and {outs} entries")
    if ins == 0:
        raise ValueError(f"{in_name} and {out_name} must have at least one group; got none")


def _check_partition(outputs: list[tuple[int, ...]]) -> None:
    """Raise ValueError unless every output channel is written exactly once."""
    writer: dict[int, int] = {}
    for g, channels in enumerate(outputs):
        for channel in channels:
            if channel in writer:
                raise ValueError(
                    "out_channels must list every output channel exactly once; channel "
                    f"{channel} is listed in out_channels[{writer[channel]}] and again in out_channels[{g}]"
                )
            writer[channel] = g
    if writer and max(writer) >= len(writer):
        missing = next(channel for channel in range(len(writer)) if channel not in writer)
        raise ValueError(
            f"out_channels must list every output channel exactly once; channel {missing} is missing below the "
            f"highest, {max(writer)}"
        )


# --- The named kinds of groups --------------------------------------------------------------------------------


def uniform_groups(c_in: int, c_out: int, n: int) -> ChannelGroups:
    """Return n equal, contiguous groups, the meaning of ``groups=n`` in deep-learning libraries.

    n = 1 is a dense convolution, n = 2 AlexNet's (Krizhevsky et al. 2012), n = 32 ResNeXt's (Xie et al.,
    arXiv 1611.05431), and n = c_in a depthwise one. Weights and multiply-adds are 1/n of the dense convolution's.

    Parameters
    ----------
    c_in, c_out : int
        Input and output channels, at least 0.
    n : int
        Number of groups; it must divide both.

    Raises
    ------
    ValueError
        If n does not divide both, or there are more than 2^24 channels or groups.
    TypeError
        If an argument is not an integer.

    Examples
    --------
    >>> groups = uniform_groups(6, 4, 2)
    >>> groups.in_channels, groups.out_channels
    (((0, 1, 2), (3, 4, 5)), ((0, 1), (2, 3)))
    >>> uniform_groups(64, 128, 3)
    Traceback (most recent call last):
        ...
    ValueError: groups=3 does not divide C=64 input channels
    """
    # Checked outside the cache, which would treat True and 1.0 as 1.
    C = as_int(c_in, "c_in", 0, 2**40)
    K = as_int(c_out, "c_out", 0, 2**40)
    return _uniform_groups(C, K, as_int(n, "n", 1, MAX_CHANNELS))


@lru_cache(maxsize=32)
def _uniform_groups(C: int, K: int, n: int) -> ChannelGroups:
    if C % n:
        raise ValueError(f"groups={n} does not divide C={C} input channels")
    if K % n:
        raise ValueError(f"groups={n} does not divide K={K} output channels")
    return ChannelGroups._contiguous((C // n,) * n, (K // n,) * n)


def depthwise_groups(channels: int, multiplier: int = 1) -> ChannelGroups:
    """Return one group per input channel, each with `multiplier` output channels.

    Parameters
    ----------
    channels : int
        Input channels, at least 1.
    multiplier : int
        Output channels per input channel, at least 1. The total is channels·multiplier.

    Raises
    ------
    ValueError
        If an argument is below 1, or there are more than 2^24 channels.
    TypeError
        If an argument is not an integer.

    Examples
    --------
    >>> depthwise_groups(3, 2).out_channels
    ((0, 1), (2, 3), (4, 5))
    >>> depthwise_groups(3) == uniform_groups(3, 3, 3)
    True
    """
    C = as_int(channels, "channels", 1, MAX_CHANNELS)
    K = C * as_int(multiplier, "multiplier", 1, MAX_CHANNELS)
    if K > MAX_CHANNELS:
        raise ValueError(f"channels·multiplier must be at most 2^24 = {MAX_CHANNELS}; got {C}·{K // C} = {K}")
    return _uniform_groups(C, K, C)


def logarithmic_groups(c_in: int, c_out: int, n: int, base: int = 2) -> ChannelGroups:
    """Return n contiguous groups, each smaller than its predecessor by the factor `base`.

    With base b, the sizes on a side of c channels are c·(b−1)/b^i for i = 1, …, n−1, then c/b^(n−1). For b = 2 they
    are c/2, c/4, …, c/2^(n−1), c/2^(n−1) (Lee et al., arXiv 1707.09855). They are exact if b^(n−1) divides c.
    Otherwise each size is off by less than one channel, sizes do not increase, none is zero, and they sum to c.

    Parameters
    ----------
    c_in, c_out : int
        Input and output channels, at least 1.
    n : int
        Number of groups, with base^(n−1) ≤ min(c_in, c_out).
    base : int
        At least 2.

    Raises
    ------
    ValueError
        If n is too large (the message names the largest that fits), or there are more than 2^24 channels.
    TypeError
        If an argument is not an integer.

    Notes
    -----
    For b = 2, the fraction of a dense convolution's weights that remains is 1/3 + (2/3)·4^−(n−1): one half for n = 2,
    as with two uniform groups, and never less than a third.

    Examples
    --------
    >>> logarithmic_groups(64, 128, 4)
    ChannelGroups.from_sizes([32, 16, 8, 8], [64, 32, 16, 16])
    >>> logarithmic_groups(27, 10, 3, base=3).in_sizes
    (18, 6, 3)
    >>> logarithmic_groups(64, 12, 5)
    Traceback (most recent call last):
        ...
    ValueError: n=5 logarithmic groups need 2^(5−1) ≤ min(c_in, c_out) = min(64, 12); the largest n that fits is 4
    """
    C = as_int(c_in, "c_in", 1, MAX_CHANNELS)
    K = as_int(c_out, "c_out", 1, MAX_CHANNELS)
    count = as_int(n, "n", 1)
    b = as_int(base, "base", 2)
    largest = 1
    while b**largest <= min(C, K):
        largest += 1
    if count > largest:
        raise ValueError(
            f"n={count} logarithmic groups need {b}^({count}−1) ≤ min(c_in, c_out) = min({C}, {K}); the largest n "
            f"that fits is {largest}"
        )
    return ChannelGroups._contiguous(_logarithmic_sizes(C, count, b), _logarithmic_sizes(K, count, b))


def _logarithmic_sizes(c: int, n: int, b: int) -> tuple[int, ...]:
    """Round the ideal sizes to whole channels that sum to c, by largest remainder."""
    whole = b ** (n - 1)
    ideals = [c * (b - 1) * b ** (n - 1 - i) for i in range(1, n)] + [c]  # in units of 1/whole of a channel
    sizes = [ideal // whole for ideal in ideals]
    # The channels left over, the sum of the remainders, are fewer than the non-zero remainders. So each ideal is
    # rounded to a neighbour, and c ≥ whole leaves no group empty. The ideals do not increase, so of two equal floors
    # the earlier has the larger remainder or wins the tie (sorting is stable): the sizes do not increase either.
    by_remainder = sorted(range(n), key=lambda i: -(ideals[i] % whole))
    for i in by_remainder[: c - sum(sizes)]:
        sizes[i] += 1
    return tuple(sizes)


@lru_cache(maxsize=1)
def lenet5_c3_groups() -> ChannelGroups:
    """Return the connections of LeNet-5's layer C3, from 6 maps to 16, with one group per output map.

    Table I of LeCun et al. (1998): maps 0–5 read three neighbouring input maps, with wrap-around; maps 6–11 read four
    neighbouring maps; maps 12–14 read two pairs of neighbours; map 15 reads all six. These are the first channel
    groups, unequal and overlapping.

    Examples
    --------
    >>> groups = lenet5_c3_groups()
    >>> groups.in_channels[:7]
    ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5), (0, 1, 2, 3))
    >>> groups.parameter_count((5, 5))
    1516
    """
    shapes = [(range(3), 6), (range(4), 6), ((0, 1, 3, 4), 3), (range(6), 1)]  # steps from the first map, repeats
    reads = [sorted((first + step) % 6 for step in steps) for steps, count in shapes for first in range(count)]
    return ChannelGroups(reads, [[k] for k in range(16)])
