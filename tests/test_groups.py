"""Channel groups: every rule, every named kind, every bad input."""

import copy
import dataclasses
import itertools
import math
import pickle
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refconv.groups import (
    MAX_CHANNELS,
    Block,
    ChannelGroups,
    _length,
    depthwise_groups,
    lenet5_c3_groups,
    logarithmic_groups,
    uniform_groups,
)

SHARED = ChannelGroups([[4, 0, 2], [2], [], [0, 2]], [[3], [0, 5], [1, 4], [2]], c_in=6)
"""Shared, unread, reordered and missing inputs; reordered outputs."""


@st.composite
def channel_groups(draw):
    """Draw groups of any kind, which shrink towards one group without channels."""
    n = draw(st.integers(1, 5))
    c_in = draw(st.integers(0, 6))
    reads = [draw(st.permutations(range(c_in)))[: draw(st.integers(0, c_in))] for _ in range(n)]
    order = draw(st.permutations(range(draw(st.integers(0, 8)))))
    cuts = sorted(draw(st.lists(st.integers(0, len(order)), min_size=n - 1, max_size=n - 1)))
    writes = [order[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(order)])]
    return ChannelGroups(reads, writes, c_in=c_in)


# --- Contents of groups ---------------------------------------------------------------------------------------


def test_general_groups():
    g = SHARED
    assert (g.n, g.c_in, g.c_out) == (4, 6, 6)
    assert g.in_channels == ((4, 0, 2), (2,), (), (0, 2))
    assert g.out_channels == ((3,), (0, 5), (1, 4), (2,))
    assert (g.in_sizes, g.out_sizes) == ((3, 1, 0, 2), (1, 2, 2, 1))
    assert (g.is_contiguous, g.is_uniform) == (False, False)
    assert g.weight_shapes((5, 7)) == ((1, 3, 5, 7), (2, 1, 5, 7), (2, 0, 5, 7), (1, 2, 5, 7))
    assert g.weight_shapes([5, 7], transposed=True) == ((3, 1, 5, 7), (1, 2, 5, 7), (0, 2, 5, 7), (2, 1, 5, 7))
    assert g.parameter_count((5, 7)) == 35 * (3 + 2 + 0 + 2) + 6
    assert g.parameter_count((5, 7), bias=False) == 35 * 7
    np.testing.assert_array_equal(
        g.connectivity(),
        [
            [0, 0, 1, 0, 0, 0],
            [0, 0, 0, 0, 0, 0],
            [1, 0, 1, 0, 0, 0],
            [1, 0, 1, 0, 1, 0],
            [0, 0, 0, 0, 0, 0],
            [0, 0, 1, 0, 0, 0],
        ],
    )


def test_sides_of_general_groups():
    read = SHARED.inputs
    assert (read.channels, read.listed, read.sizes) == (6, (4, 0, 2, 2, 0, 2), (3, 1, 0, 2))
    assert (read.offsets, read.is_contiguous) == ((0, 3, 4, 4), False)
    assert read.gather_tables() == ((1, 6, 2, 6, 0, 6), (4, 6, 3, 6, 6, 6), (6, 6, 5, 6, 6, 6))
    written = SHARED.outputs
    assert (written.channels, written.listed, written.offsets) == (6, (3, 0, 5, 1, 4, 2), (0, 1, 3, 5))
    assert written.gather_tables() == ((1, 3, 5, 0, 4, 2),)  # the inverse permutation


def test_sides_of_uniform_groups():
    side = uniform_groups(6, 4, 2).inputs
    assert (side.channels, side.listed, side.sizes, side.offsets) == (6, (0, 1, 2, 3, 4, 5), (3, 3), (0, 3))
    assert side.is_contiguous
    assert side.gather_tables() == ((0, 1, 2, 3, 4, 5),)


@given(channel_groups())
def test_connectivity_and_counts_follow_the_lists(g):
    expected = np.zeros((g.c_out, g.c_in), dtype=np.uint8)
    for reads, writes in zip(g.in_channels, g.out_channels, strict=True):
        for k, c in itertools.product(writes, reads):
            expected[k, c] += 1
    matrix = g.connectivity()
    assert matrix.dtype == np.uint8
    np.testing.assert_array_equal(matrix, expected, strict=True)
    assert g.parameter_count((2, 3)) == 6 * int(expected.sum()) + g.c_out
    assert g.weight_shapes((2,)) == tuple((k, c, 2) for k, c in zip(g.out_sizes, g.in_sizes, strict=True))
    assert g.weight_shapes((2,), transposed=True) == tuple(
        (c, k, 2) for k, c in zip(g.out_sizes, g.in_sizes, strict=True)
    )


@given(channel_groups(), st.randoms(use_true_random=False))
def test_gather_tables_are_the_adjoint_of_reading(g, random):
    for side in (g.inputs, g.outputs):
        rows = np.array([random.randint(-9, 9) for _ in side.listed], dtype=np.int64)
        expected = np.zeros(side.channels, dtype=np.int64)
        np.add.at(expected, np.array(side.listed, dtype=np.intp), rows)
        tables = side.gather_tables()
        assert len(tables) >= 1
        assert all(len(table) == side.channels for table in tables)
        total = sum(np.append(rows, 0)[np.array(table, dtype=np.intp)] for table in tables)
        np.testing.assert_array_equal(total, expected)
        # The channels of one group are adjacent, so that its rows are one slice.
        for start, size, group in zip(side.offsets, side.sizes, side.lists, strict=True):
            assert side.listed[start : start + size] == group
        assert side.is_contiguous == (side.listed == tuple(range(side.channels)))


@given(channel_groups())
def test_blocks_are_maximal_runs_of_one_shape(g):
    shapes = [(block.in_size, block.out_size) for block in g.blocks for _ in range(block.count)]
    assert shapes == list(zip(g.in_sizes, g.out_sizes, strict=True))
    assert [block.first for block in g.blocks] == [
        sum(earlier.count for earlier in g.blocks[:b]) for b in range(len(g.blocks))
    ]
    assert all((a.in_size, a.out_size) != (b.in_size, b.out_size) for a, b in itertools.pairwise(g.blocks))
    assert g.is_uniform == (g.is_contiguous and len(set(shapes)) == 1)


def test_the_strategy_reaches_what_matters():
    reached = set()

    @given(channel_groups())
    def collect(g):
        counts = np.bincount(np.array(g.inputs.listed, dtype=np.intp), minlength=g.c_in)
        reached.update(
            name
            for name, met in {
                "shared": counts.max(initial=0) > 1,
                "unread": counts.min(initial=1) == 0,
                "nothing read at all": g.c_in > 0 and counts.sum() == 0,
                "empty group": 0 in g.in_sizes or 0 in g.out_sizes,
                "reordered outputs": not g.outputs.is_contiguous,
                "contiguous": g.is_contiguous and g.n > 1,
                "uniform": g.is_uniform,
            }.items()
            if met
        )

    collect()
    assert len(reached) == 7, reached


def test_blocks():
    assert uniform_groups(12, 8, 4).blocks == (Block(0, 4, 3, 2),)
    assert ChannelGroups.from_sizes([2, 2, 1, 2], [1, 1, 1, 1]).blocks == (
        Block(0, 2, 2, 1),
        Block(2, 1, 1, 1),
        Block(3, 1, 2, 1),
    )
    assert ChannelGroups.from_sizes([2, 2], [1, 3]).blocks == (Block(0, 1, 2, 1), Block(1, 1, 2, 3))


def test_unread_channels_at_the_end():
    g = ChannelGroups([[0, 1]], [[0]], c_in=3)
    assert (g.c_in, g.is_contiguous, g.is_uniform) == (3, False, False)
    assert g.inputs.gather_tables() == ((0, 1, 2),)
    assert ChannelGroups([[0, 1]], [[0]], c_in=2).is_contiguous
    assert ChannelGroups([[]], [[0]], c_in=2).inputs.gather_tables() == ((0, 0),)


def test_contiguous_needs_both_sides():
    assert not ChannelGroups([[1], [0]], [[0], [1]]).is_contiguous
    assert not ChannelGroups([[0], [1]], [[1], [0]]).is_contiguous
    assert ChannelGroups([[0], [1]], [[0], [1]]).is_contiguous
    assert not ChannelGroups([[0, 1], [2]], [[0], [1]]).is_uniform
    assert not ChannelGroups([[0], [1]], [[0, 1], [2]]).is_uniform


@pytest.mark.parametrize(
    ("groups", "c_in", "c_out"),
    [
        (uniform_groups(0, 4, 1), 0, 4),
        (uniform_groups(0, 4, 2), 0, 4),
        (uniform_groups(4, 0, 1), 4, 0),
        (uniform_groups(0, 0, 3), 0, 0),
        (ChannelGroups([[]], [[]]), 0, 0),
        (ChannelGroups([[], []], [[0], []]), 0, 1),
        (ChannelGroups.from_sizes([0, 2], [3, 0]), 2, 3),
    ],
)
def test_no_channels(groups, c_in, c_out):
    assert (groups.c_in, groups.c_out) == (c_in, c_out)
    assert groups.connectivity().shape == (c_out, c_in)
    assert groups.connectivity().sum() == 0
    assert groups.parameter_count((3, 3)) == c_out
    assert len(groups.weight_shapes((3,))) == groups.n
    assert groups.inputs.gather_tables() == (tuple(range(c_in)),)
    assert groups.outputs.gather_tables() == (tuple(range(c_out)),)


def test_every_kind_of_integers_and_sequences():
    expected = ChannelGroups([[0, 2], [1, 3]], [[1], [0]])
    for reads in (
        ((0, 2), (1, 3)),
        np.array([[0, 2], [1, 3]], dtype=np.uint8),
        [np.array([0, 2]), range(1, 4, 2)],
        [[np.int16(0), np.array(2)], (1, 3)],
    ):
        g = ChannelGroups(reads, [[1], [0]], c_in=np.int8(4))
        assert g == expected
        assert all(type(c) is int for channels in g.in_channels for c in channels)
    assert uniform_groups(np.int64(4), np.uint8(2), np.int16(2)) is uniform_groups(4, 2, 2)
    assert type(uniform_groups(np.int64(10), np.int64(10), np.int64(5)).in_sizes[0]) is int
    assert ChannelGroups.from_sizes(np.array([2, 1]), range(1, 3)).in_sizes == (2, 1)
    assert expected.weight_shapes(np.array([3, 2])) == ((1, 2, 3, 2), (1, 2, 3, 2))


# --- Values, not identities -----------------------------------------------------------------------------------


def test_equality_and_hash():
    a = ChannelGroups([[0, 1], [2, 3]], [[0], [1]])
    assert a == uniform_groups(4, 2, 2) == ChannelGroups.from_sizes([2, 2], [1, 1])
    assert hash(a) == hash(uniform_groups(4, 2, 2))
    assert len({a, uniform_groups(4, 2, 2), SHARED}) == 2
    different = [
        uniform_groups(4, 2, 1),
        ChannelGroups([[0, 1], [2, 3]], [[0], [1]], c_in=5),
        ChannelGroups([[1, 0], [2, 3]], [[0], [1]]),
        ChannelGroups([[0, 1], [2, 3]], [[1], [0]]),
        ChannelGroups.from_sizes([3, 1], [1, 1]),
        ChannelGroups([[0, 1, 2], [3]], [[0], [1]]),
        "uniform_groups(4, 2, 2)",
        2,
    ]
    assert all(a != other for other in different)


def test_later_changes_of_the_arguments_do_not_matter():
    reads, writes = [[1], [0]], np.array([[0], [1]])
    g = ChannelGroups(reads, writes)
    reads[0][0], writes[0, 0] = 7, 7
    assert (g.in_channels, g.out_channels) == (((1,), (0,)), ((0,), (1,)))


@pytest.mark.parametrize("name", ["inputs", "outputs", "n", "c_in", "in_channels", "blocks", "anything"])
def test_immutable(name):
    with pytest.raises(AttributeError):
        setattr(SHARED, name, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SHARED.inputs.sizes = (1,)
    matrix = SHARED.connectivity()
    matrix[...] = 7
    assert SHARED.connectivity().max() == 1


@given(channel_groups())
def test_repr_copy_and_pickle_give_the_same_groups(g):
    assert eval(repr(g)) == g
    assert copy.deepcopy(g) == pickle.loads(pickle.dumps(g)) == g


def test_repr():
    assert repr(uniform_groups(64, 128, 2)) == "uniform_groups(64, 128, 2)"
    assert repr(logarithmic_groups(8, 4, 3)) == "ChannelGroups.from_sizes([4, 2, 2], [2, 1, 1])"
    assert repr(ChannelGroups([[1], [0]], [[0], [1]])) == "ChannelGroups([[1], [0]], [[0], [1]], c_in=2)"
    many = range(1000)
    assert repr(ChannelGroups([[0]] * 1000, [[k] for k in many])) == "<ChannelGroups: n=1000, c_in=1, c_out=1000>"
    assert repr(ChannelGroups.from_sizes(many, many)) == "<ChannelGroups: n=1000, c_in=499500, c_out=499500>"


def test_repr_lists_what_is_short_enough():
    sizes = [1] * 63 + [2]
    assert repr(ChannelGroups.from_sizes(sizes, sizes)) == f"ChannelGroups.from_sizes({sizes}, {sizes})"
    sizes = [1] * 64 + [2]
    assert repr(ChannelGroups.from_sizes(sizes, sizes)) == "<ChannelGroups: n=65, c_in=66, c_out=66>"
    for reads, writes, shown in ((100, 155, True), (100, 156, False), (155, 100, True), (156, 100, False)):
        order = list(range(reads))[::-1]
        groups = ChannelGroups([order], [range(writes)])  # 1 group and 255 or 256 channels
        expected = f"ChannelGroups([{order}], [{list(range(writes))}], c_in={reads})"
        assert repr(groups) == (expected if shown else f"<ChannelGroups: n=1, c_in={reads}, c_out={writes}>")


def test_as_many_as_allowed():
    assert _length(range(MAX_CHANNELS), "in_channels", "channels") == MAX_CHANNELS
    readers = ChannelGroups([[0]] * 2**12, [[k] for k in range(2**12)], c_in=2**12)  # 2^12 readers of 2^12 channels
    assert readers.c_in == readers.n == 2**12
    assert ChannelGroups.from_sizes([MAX_CHANNELS, 0], [0, MAX_CHANNELS]).blocks[0].in_size == MAX_CHANNELS
    assert depthwise_groups(2**12, 2**12).c_out == MAX_CHANNELS


# --- Named kinds ----------------------------------------------------------------------------------------------


@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6))
def test_uniform_groups(a, b, n):
    g = uniform_groups(a * n, b * n, n)
    assert g == ChannelGroups([range(a * i, a * i + a) for i in range(n)], [range(b * i, b * i + b) for i in range(n)])
    assert g.is_uniform
    assert g.parameter_count((3,), bias=False) * n == a * n * b * n * 3


def test_depthwise_groups():
    assert depthwise_groups(5) == uniform_groups(5, 5, 5)
    assert depthwise_groups(5, 3) == uniform_groups(5, 15, 5)
    assert depthwise_groups(5, multiplier=3).weight_shapes((3, 3)) == ((3, 1, 3, 3),) * 5


def test_published_counts():
    # Krizhevsky et al. 2012, convolutions 2, 4 and 5, with two groups and with one.
    for c_in, c_out, k, two, one in [(96, 256, 5, 307_456, 614_656), (384, 384, 3, 663_936, 1_327_488)]:
        assert uniform_groups(c_in, c_out, 2).parameter_count((k, k)) == two
        assert uniform_groups(c_in, c_out, 1).parameter_count((k, k)) == one
    # Xie et al. (arXiv 1611.05431), figure 1: 256-d in, 32 paths of width 4, 256-d out, about 70k parameters.
    paths = uniform_groups(128, 128, 32).parameter_count((3, 3), bias=False)
    assert paths == 32 * 4 * 3 * 3 * 4
    assert 256 * 128 + paths + 128 * 256 == 70_144


def largest_log_n(c, base):
    return max(n for n in range(1, 40) if base ** (n - 1) <= c)


@pytest.mark.parametrize("base", [2, 3, 4, 5, 6])
def test_logarithmic_sizes_exhaustively(base):
    for c in range(1, 301):
        other = 301 - c
        for n in range(1, largest_log_n(min(c, other), base) + 1):
            g = logarithmic_groups(c, other, n, base)
            assert g == ChannelGroups.from_sizes(g.in_sizes, g.out_sizes)
            assert g.n == n
            for total, sizes in ((c, g.in_sizes), (other, g.out_sizes)):
                ideals = [Fraction(total * (base - 1), base**i) for i in range(1, n)]
                ideals.append(Fraction(total, base ** (n - 1)))
                assert sum(ideals) == sum(sizes) == total
                assert min(sizes) >= 1
                assert list(sizes) == sorted(sizes, reverse=True)
                assert all(abs(size - ideal) < 1 for size, ideal in zip(sizes, ideals, strict=True))
                if total % base ** (n - 1) == 0:
                    assert list(sizes) == ideals
        # Every n that fits one side, with a second side of the same channels; one more does not fit.
        n = largest_log_n(c, base)
        sizes = logarithmic_groups(c, c, n, base).in_sizes
        assert (sum(sizes), min(sizes) >= 1, list(sizes)) == (c, True, sorted(sizes, reverse=True))
        for sides in ((c, 10**4), (10**4, c)):
            with pytest.raises(ValueError, match=rf"min\({sides[0]}, {sides[1]}\); the largest n that fits is {n}$"):
                logarithmic_groups(*sides, n + 1, base)


def test_logarithmic_groups_as_published():
    # { c_in/2^i × c_out/2^i | i = 1, …, n−1, n−1 } (Lee et al., arXiv 1707.09855)
    g = logarithmic_groups(64, 128, 4)
    assert (g.in_sizes, g.out_sizes) == ((32, 16, 8, 8), (64, 32, 16, 16))
    assert logarithmic_groups(16, 8, 1) == uniform_groups(16, 8, 1)
    assert logarithmic_groups(16, 8, 2) == uniform_groups(16, 8, 2)
    assert logarithmic_groups(81, 27, 3, base=3).in_sizes == (54, 18, 9)
    assert logarithmic_groups(3, 7, 2).in_sizes == (2, 1)
    for n in range(1, 8):
        kept = Fraction(logarithmic_groups(64, 128, n).parameter_count((3, 3), bias=False), 64 * 128 * 9)
        assert kept == Fraction(1, 3) + Fraction(2, 3) / 4 ** (n - 1)


def test_lenet5_c3():
    g = lenet5_c3_groups()
    assert (g.n, g.c_in, g.c_out) == (16, 6, 16)
    assert g.out_channels == tuple((k,) for k in range(16))
    assert all(list(channels) == sorted(channels) for channels in g.in_channels)
    # Table I of LeCun et al. 1998, row by row: the output maps that read each input map.
    table = [
        {0, 4, 5, 6, 9, 10, 11, 12, 14, 15},
        {0, 1, 5, 6, 7, 10, 11, 12, 13, 15},
        {0, 1, 2, 6, 7, 8, 11, 13, 14, 15},
        {1, 2, 3, 6, 7, 8, 9, 12, 14, 15},
        {2, 3, 4, 7, 8, 9, 10, 12, 13, 15},
        {3, 4, 5, 8, 9, 10, 11, 13, 14, 15},
    ]
    for c, maps in enumerate(table):
        assert set(np.flatnonzero(g.connectivity()[:, c]).tolist()) == maps
    assert g.parameter_count((5, 5)) == 1516
    assert not g.is_contiguous
    assert len(g.inputs.gather_tables()) == 10


# --- Bad input ------------------------------------------------------------------------------------------------

BAD_INTEGERS = [
    (True, TypeError),
    (np.True_, TypeError),
    (2.0, TypeError),
    (math.nan, TypeError),
    ("2", TypeError),
    (None, TypeError),
    ([2], TypeError),
    (np.array([2, 2]), TypeError),
    (2j, TypeError),
    (-1, ValueError),
    (2**63, ValueError),
    (-(2**63) - 1, ValueError),
    (2**300, ValueError),
    (HUGE := 2**40, ValueError),
]
BAD_LISTS = [
    (None, TypeError),
    (3, TypeError),
    (2.5, TypeError),
    ("01", TypeError),
    (b"01", TypeError),
    ({0, 1}, TypeError),
    ({0: 1}, TypeError),
    (iter([0]), TypeError),
    (np.array(0), TypeError),
    (np.zeros((1, 1, 1), dtype=int), TypeError),
]


def refused(kind, names, call, *args, **kwargs):
    """Check that a call raises one clear line, from refconv, that names the argument."""
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in message
    assert len(message) < 300
    assert re.search(names, message), message
    return message


@pytest.mark.parametrize(("bad", "kind"), BAD_INTEGERS)
def test_bad_channels(bad, kind):
    refused(kind, r"in_channels\[1\]\[1\]", ChannelGroups, [[0], [1, bad]], [[0], [1]])
    refused(kind, r"out_channels\[0\]\[0\]", ChannelGroups, [[0], [1]], [[bad], [1]])
    array = np.zeros((1, 2), dtype=object)
    array[0, 1] = bad
    refused(kind, r"in_channels\[0\]\[1\]", ChannelGroups, array, [[0]])
    refused(kind, r"in_sizes\[1\]", ChannelGroups.from_sizes, [1, bad], [1, 1])
    refused(kind, r"out_sizes\[0\]", ChannelGroups.from_sizes, [1, 1], [bad, 1])
    if bad is not None:
        refused(kind, "c_in", ChannelGroups, [[0]], [[0]], c_in=bad)


@pytest.mark.parametrize(("bad", "kind"), [*BAD_INTEGERS, (ZERO := 0, ValueError)])
def test_bad_numbers_of_named_groups(bad, kind):
    uniform_groups(1, 1, 1), logarithmic_groups(1, 1, 1)  # a cached 1 must not let True or 1.0 through
    if bad is not ZERO and bad is not HUGE:  # many channels are legal, many groups are not
        refused(kind, "c_in", uniform_groups, bad, 4, 2)
        refused(kind, "c_out", uniform_groups, 4, bad, 2)
    refused(kind, r"^n ", uniform_groups, 4, 4, bad)
    refused(kind, "c_in", logarithmic_groups, bad, 4, 2)
    refused(kind, "c_out", logarithmic_groups, 4, bad, 2)
    refused(kind, r"^n[ =]", logarithmic_groups, 4, 4, bad)
    if bad is not HUGE:  # a legal base, with which two groups do not fit
        refused(kind, "base", logarithmic_groups, 4, 4, 2, base=bad)
    refused(kind, "channels", depthwise_groups, bad)
    refused(kind, "multiplier", depthwise_groups, 3, bad)


@pytest.mark.parametrize(("bad", "kind"), BAD_LISTS)
def test_bad_sequences(bad, kind):
    refused(kind, r"in_channels ", ChannelGroups, bad, [[0]])
    refused(kind, r"out_channels ", ChannelGroups, [[0]], bad)
    refused(kind, r"in_channels\[1\] ", ChannelGroups, [[0], bad], [[0], [1]])
    refused(kind, r"out_channels\[0\] ", ChannelGroups, [[0], [1]], [bad, [1]])
    refused(kind, r"in_sizes ", ChannelGroups.from_sizes, bad, [1])
    refused(kind, r"out_sizes ", ChannelGroups.from_sizes, [1], bad)


def test_integers_too_long_to_print():
    refused(ValueError, r"in_channels\[0\]\[0\]", ChannelGroups, [[10**5000]], [[0]])
    refused(ValueError, r"^n ", uniform_groups, 4, 4, -(10**5000))
    refused(TypeError, r"^n .*<list>", uniform_groups, 4, 4, [10**5000])
    refused(TypeError, "kernel_size", uniform_groups(4, 4, 4).weight_shapes, 10**5000)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ChannelGroups.from_sizes(range(2**62), [1]),
        lambda: ChannelGroups.from_sizes(range(2**64), [1]),
        lambda: ChannelGroups([range(2**64)], [[0]]),
        lambda: ChannelGroups([range(2**24)] * 1000, [[k] for k in range(1000)]),
        lambda: ChannelGroups([[0]] * 5000, [[k] for k in range(5000)], c_in=2**20),
    ],
)
def test_absurd_sizes_are_refused_at_once(call):
    refused(ValueError, r"at most|more than 2\^40", call)


def test_large_sizes_work_at_once():
    assert uniform_groups(2**40, 2, 2).blocks == (Block(0, 2, 2**39, 1),)
    g = uniform_groups(MAX_CHANNELS, MAX_CHANNELS // 2, 4)
    assert g.blocks == (Block(0, 4, 2**22, 2**21),)
    assert g.weight_shapes((1,))[3] == (2**21, 2**22, 1)
    assert hash(g) == hash(uniform_groups(MAX_CHANNELS, MAX_CHANNELS // 2, 4))
    assert depthwise_groups(2**16, 2).blocks == (Block(0, 2**16, 1, 2),)


@pytest.mark.parametrize("method", ["weight_shapes", "parameter_count"])
def test_bad_kernel_sizes(method):
    call = getattr(uniform_groups(4, 4, 2), method)
    for scalar in (3, np.int64(3), 0, -1):
        refused(TypeError, f"kernel_size.*integer .*{scalar}.* alone does not say how many axes", call, scalar)
    for bad, kind in BAD_LISTS:
        refused(kind, "kernel_size", call, bad)
    for bad, kind in [*BAD_INTEGERS, (0, ValueError)]:
        if bad is not HUGE:  # absurd, but a shape needs no memory
            refused(kind, r"kernel_size\[1\]", call, (3, bad))
    refused(TypeError, "kernel_size.*bool|kernel_size must be a sequence", call, True)
    refused(ValueError, "kernel_size.*at least one spatial axis", call, ())
    refused(TypeError, r"kernel_size\[0\]", call, ((3, 3), 3))


@pytest.mark.parametrize("bad", [1, 0, None, "yes", 1.0, [True], np.array([True, False])])
def test_bad_flags(bad):
    g = uniform_groups(4, 4, 2)
    refused(TypeError, "transposed must be a bool", g.weight_shapes, (3,), transposed=bad)
    refused(TypeError, "bias must be a bool", g.parameter_count, (3,), bias=bad)
    assert g.parameter_count((3,), bias=np.False_) == 24
