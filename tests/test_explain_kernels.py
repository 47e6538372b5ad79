"""Mistakes of kernels are named: blocks, tiles, halos, addresses, transforms, and fast algorithms.

Every wrong convolution here adds up products that are listed from the definition, and then changed.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from refconv.testing import check_conv, explain_conv
from refconv.testing.checker.calls import Caller
from refconv.testing.explain import explain
from refconv.testing.explain.algorithms import CHANGES, MATRICES
from refconv.testing.mutants import Conv, ConvTranspose
from refconv.testing.oracles.problems import Problem

SUPPORTS = ("bias", "stride", "padding", "dilation", "groups")


def products(shape, weight_shape, stride, padding, dilation, groups):
    """List all products of a convolution: y[n, k, o] has w[k, c, t]·x[n, m, i], also where i is outside x."""
    d, size, kernel = len(shape) - 2, shape[2:], weight_shape[2:]
    out = [
        (n + 2 * p - e * (k - 1) - 1) // s + 1
        for n, k, s, p, e in zip(size, kernel, stride, padding, dilation, strict=True)
    ]
    sizes = (shape[0], weight_shape[0], weight_shape[1], *out, *kernel)
    n, k, c, *rest = np.indices(sizes).reshape(len(sizes), -1)
    o, t = rest[:d], rest[d:]
    u = [s * o[a] + e * t[a] for a, (s, e) in enumerate(zip(stride, dilation, strict=True))]  # in the padded x
    return SimpleNamespace(
        n=n, k=k, c=c, m=k // (weight_shape[0] // groups) * weight_shape[1] + c, o=o, t=t, u=u,
        i=[a - p for a, p in zip(u, padding, strict=True)], image=n, weight=None, keep=True, factor=np.ones(len(n)),
        out=out, size=size, kernel=kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
        channels=shape[1], columns=weight_shape[1], rows=weight_shape[0] // groups, d=d, samples=shape[0],
    )  # fmt: skip


def flat(index, sizes):
    """Return numbers in memory order, also of an index beyond the end of its axis."""
    number = 0
    for i, size in zip(index, sizes, strict=True):
        number = number * size + i
    return number


def split(number, sizes):
    found = []
    for size in sizes[:0:-1]:
        number, index = np.divmod(number, size)
        found.append(index)
    return [number, *found[::-1]]


def wrong(change):
    """Return a forward pass whose list of products is changed."""

    def forward(x, weight, bias, stride, padding, dilation, groups):
        p = products(x.shape, weight.shape, stride, padding, dilation, groups)
        change(p)
        inside = p.keep & np.all([(i >= 0) & (i < size) for i, size in zip(p.i, p.size, strict=True)], axis=0)
        inside &= (p.image >= 0) & (p.image < p.samples) & (p.m >= 0) & (p.m < p.channels)
        w = flat([p.k, p.c, *p.t], weight.shape) if p.weight is None else p.weight
        inside &= (w >= 0) & (w < weight.size)
        y = np.zeros((x.shape[0], weight.shape[0], *p.out), x.dtype)
        at = tuple(index[inside] for index in (p.n, p.k, *p.o))
        element = tuple(index[inside] for index in (p.image, p.m, *p.i))
        np.add.at(y, at, p.factor[inside] * weight.reshape(-1)[w[inside]] * x[element])
        return y if bias is None else y + bias.reshape(-1, *[1] * p.d)

    return forward


def said(forward, **options):
    return explain_conv(forward, supports=SUPPORTS, **options).parts["forward"].text


def test_the_list_of_products_is_right():
    assert said(wrong(lambda p: None)).startswith("It is right")
    assert check_conv(wrong(lambda p: None), cases=50).passed


# --- Blocks ----------------------------------------------------------------------------------------------------------


def reduction(p):
    return flat([p.c, *p.t], (p.columns, *p.kernel)), p.columns * math.prod(p.kernel)


def halves(number, count):
    """Return which elements reach the sum, by adding as a kernel does."""
    values = [{i} for i in range(count)]
    while len(values) > 1:
        half = len(values) // 2
        values = [values[i] | values[i + half] for i in range(half)]
    return np.isin(number, sorted(values[0]))


def tail_of_the_sum(p):
    r, count = reduction(p)
    p.keep = r < count // 16 * 16


def tail_on_both_axes(p):
    p.keep = np.all([o < n // 2 * 2 for o, n in zip(p.o, p.out, strict=True)], axis=0)


def last_block_of_channels(p):
    p.keep = p.c >= (p.columns - 1) // 2 * 2


def block_of_the_sum_twice(p):
    r, count = reduction(p)
    p.factor[(count % 16 > 0) & (count > 16) & (r >= count - 16) & (r < count - count % 16)] = 2


def rows_between_blocks_twice(p):
    p.factor[(p.o[0] > 0) & (p.o[0] % 2 == 0)] = 2


def odd_element_forgotten(p):
    r, count = reduction(p)
    p.keep = halves(r, count)


def loop_bound_of_the_other_array(p):
    p.keep = p.i[0] < p.out[0]


def elements_beyond_the_last_step(p):
    p.keep = np.all([i < n // s * s for i, n, s in zip(p.i, p.size, p.stride, strict=True)], axis=0)


def border_skipped_along_axis_0(p):
    reach = p.stride[0] * p.o[0] - p.padding[0]
    p.keep = (reach >= 0) & (reach + p.dilation[0] * (p.kernel[0] - 1) < p.size[0])


BLOCKS = {
    tail_of_the_sum: (
        "Of 24 taps of the input channels of a group, in memory order, the last 8 are left out: the end that does "
        "not fill a block of 16."
    ),
    tail_on_both_axes: (
        "Of 5 positions along axis 0, the last is left out: the end that does not fill a block of 2. Of 3 "
        "positions along axis 1, the last is left out: the end that does not fill a block of 2."
    ),
    last_block_of_channels: (
        "Of 4 input channels of each group, only the last block of 2 counts: each block replaces the earlier ones."
    ),
    block_of_the_sum_twice: (
        "Of 24 taps of the input channels of a group, in memory order, numbers 8 to 15 are added twice: two blocks of "
        "16 overlap."
    ),
    rows_between_blocks_twice: "Of 5 positions along axis 0, numbers 2, 4 are added twice: blocks of 2 overlap by one.",
    odd_element_forgotten: "a sum by halves that forgets the last element of an odd number.",
    loop_bound_of_the_other_array: "Only as many elements of x count along axis 0 as y has.",
    elements_beyond_the_last_step: (
        "The last elements of x are left out, 7 along axis 1: those beyond the last multiple of the stride."
    ),
    border_skipped_along_axis_0: (
        "Windows that reach beyond x are skipped: nothing is used at o = 0, 1, 3, 4 along axis 0. Only elements "
        "beyond x should count as zeros."
    ),
}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("change", BLOCKS, ids=lambda change: change.__name__)
def test_mistakes_of_blocks_are_named(change):
    assert BLOCKS[change] in said(wrong(change))


def test_a_loop_that_stops_one_too_early():
    """The last window is missing where it ends with the padded image: with a remainder, all are there."""

    def change(p):
        ends = [
            n + 2 * q - e * (k - 1) - 1
            for n, q, e, k in zip(p.size, p.padding, p.dilation, p.kernel, strict=True)
        ]  # fmt: skip
        p.keep = np.all([s * o < end for s, o, end in zip(p.stride, p.o, ends, strict=True)], axis=0)

    (failure,) = check_conv(wrong(change)).failures
    assert "Windows that end exactly where the padded x ends are left out" in failure.explanation
    assert "a loop stops one too early" in failure.explanation


def test_a_block_that_only_one_problem_suggests_is_not_named():
    """Always without the last row: on the standard problem, that is as if 5 rows were computed in blocks of 4 or 2."""

    def change(p):
        p.keep = p.o[0] < p.out[0] - 1

    text = said(wrong(change))
    assert "block" not in text
    assert "nothing is used at o = 4" in text


# --- Tiles -----------------------------------------------------------------------------------------------------------


def tile(size, loaded):
    def change(p):
        for o, t, s, e, k in zip(p.o, p.t, p.stride, p.dilation, p.kernel, strict=True):
            p.keep &= o % size * s + t * e < loaded(s, k)

    return change


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("size", "loaded", "name"), [
    (2, lambda s, k: 2 * s, "T·s"),
    (4, lambda s, k: 3 * s + k, "(T − 1)·s + k"),
    (2, lambda s, k: 2 + k - 1, "T + k − 1"),
])  # fmt: skip
def test_a_tile_without_its_halo_is_named(size, loaded, name):
    text = said(wrong(tile(size, loaded)))
    assert f"in tiles of T = {size}, and of each tile's part of x only the first {name} elements count" in text


@pytest.mark.parametrize("last", [True, False])
def test_blocks_of_the_image_that_replace_one_another(last):
    """Overlap-add that assigns."""

    def change(p):
        p.keep = True
        for o, u, s, e, k in zip(p.o, p.u, p.stride, p.dilation, p.kernel, strict=True):
            p.keep &= u // 8 == (s * o + last * e * (k - 1)) // 8

    kept = "last" if last else "first"
    text = said(wrong(change))
    assert (
        f"blocks of 8, padding included: where a window reaches into two blocks, only the products of the {kept}"
        in text
    )


def test_tiles_of_the_result_that_are_stored_instead_of_added():
    class Stored(ConvTranspose):
        def forward(self, x, weight, bias, stride, padding, dilation, groups):
            more = [dil * (k - 1) + 1 for dil, k in zip(dilation, weight.shape[2:], strict=True)]
            zero = (0,) * len(stride)
            y = None
            for rows in range(0, x.shape[2], 2):
                for columns in range(0, x.shape[3], 2):
                    part = x[:, :, rows : rows + 2, columns : columns + 2]
                    tile = super().forward(part, weight, None, stride, zero, dilation, groups)
                    if y is None:
                        whole = [(n - 1) * s + m for n, s, m in zip(x.shape[2:], stride, more, strict=True)]
                        y = np.zeros((*tile.shape[:2], *whole), x.dtype)
                    r, c = rows * stride[0], columns * stride[1]
                    y[:, :, r : r + tile.shape[2], c : c + tile.shape[3]] = tile
            cropped = y[:, :, padding[0] : y.shape[2] - padding[0], padding[1] : y.shape[3] - padding[1]]
            return cropped if bias is None else cropped + bias[:, None, None]

    text = said(Stored().forward, transposed=True)
    assert "in tiles of 2, and each tile replaces what earlier tiles gave to the same elements of y" in text


# --- Addresses -------------------------------------------------------------------------------------------------------


def padded_sizes(p):
    return [n + 2 * q for n, q in zip(p.size, p.padding, strict=True)]


def unpadded_rows(p):
    found = split(flat(p.u, p.size), padded_sizes(p))
    p.i = [u - q for u, q in zip(found, p.padding, strict=True)]


def unpadded_strides(p):
    sizes = padded_sizes(p)
    p.image, p.m, *found = split(
        flat([p.n, p.m, *p.u], (p.samples, p.channels, *p.size)), (p.samples, p.channels, *sizes)
    )
    p.i = [u - q for u, q in zip(found, p.padding, strict=True)]


def samples_stacked(p):
    p.image, first = np.divmod(p.n * p.size[0] + p.i[0], p.size[0])
    p.i = [first, *p.i[1:]]


def input_number_in_four_bits(p):
    r, _ = reduction(p)
    c, *t = split(r % 16, (p.columns, *p.kernel))
    p.m = p.m - p.c + c
    p.i = [s * o + e * a - q for s, o, e, a, q in zip(p.stride, p.o, p.dilation, t, p.padding, strict=True)]


def input_of_the_block_s_first_channel(p):
    p.m = p.k // 8 * 8 // p.rows * p.columns + p.c


def offsets_in_six_bits(p):
    inside = np.all([(i >= 0) & (i < n) for i, n in zip(p.i, p.size, strict=True)], axis=0)
    p.i = split(flat(p.i, p.size) % 64, p.size)
    p.keep = inside


def weight_with_sizes_reversed(p):
    inner = flat(p.t, p.kernel[::-1])
    p.weight = (p.k * p.columns + p.c) * math.prod(p.kernel) + inner


def circular(p):
    p.i = [i % n for i, n in zip(p.i, p.size, strict=True)]
    p.keep = np.all([e * t < n for e, t, n in zip(p.dilation, p.t, p.size, strict=True)], axis=0)


def no_conjugate(p):
    spans = [(u, o * s, t * e) for u, o, s, t, e in zip(p.u, p.o, p.stride, p.t, p.dilation, strict=True)]
    p.i = [(b - a) % n - q for (_, a, b), n, q in zip(spans, padded_sizes(p), p.padding, strict=True)]


ADDRESSES = {
    unpadded_rows: (
        "Elements of each channel of the padded x are addressed with the strides of x without its padding: a row "
        "is taken to be W elements long, not W + padding."
    ),
    unpadded_strides: "Elements of the padded x are addressed with the strides of x without its padding",
    samples_stacked: "Along axis 0, samples of x are one below the other without padding between them",
    input_number_in_four_bits: (
        "Number r of the 24 channels and taps of a group, in memory order, is used with x at number r mod 16."
    ),
    input_of_the_block_s_first_channel: (
        "Blocks of 8 output channels (from 0) read the input channels of the group of their first channel"
    ),
    offsets_in_six_bits: (
        "Positions in x are taken mod 64, with the elements of one channel numbered in memory order: it has 184 "
        "elements per channel."
    ),
    weight_with_sizes_reversed: "w is addressed as if its spatial sizes were in reverse order.",
    circular: "wraps around to the other end",
    no_conjugate: (
        "Elements of the padded x are numbered modulo the padded size of x, with positions in reverse order, "
        "(−2·o + 3·t) mod 16 along axis 0, (−8·o + 6·t) mod 25 along axis 1: a circular convolution"
    ),
}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("change", ADDRESSES, ids=lambda change: change.__name__)
def test_mistakes_of_addresses_are_named(change):
    assert ADDRESSES[change] in said(wrong(change))


def test_a_transform_of_the_size_of_the_image_or_of_the_window():
    def change(p):
        lengths = [max(n, e * (k - 1) + 1) for n, e, k in zip(p.size, p.dilation, p.kernel, strict=True)]
        p.i = [i % n for i, n in zip(p.i, lengths, strict=True)]

    problem = Problem(2, 2, 2, (5, 6), (3, 2), (1, 2), (3, 2), ((3, 3), (1, 1)), groups=1, bias=False)
    with Caller(60.0) as call:
        text = explain(call, wrong(change), None, problem, "float64", SUPPORTS).parts["forward"].text
    assert (
        "Elements of x are numbered modulo the size of x, or of a window if that is larger, (o + 3·t − 3) mod 7" in text
    )


def test_a_sum_that_is_rounded_up_without_a_mask():
    def forward(x, weight, bias, stride, padding, dilation, groups):
        """Continue with the weights and channels that follow in memory, while there are any."""
        y = Conv().forward(x, weight, bias, stride, padding, dilation, groups)
        length, kernel = math.prod(weight.shape[1:]), weight.shape[2:]
        planes = np.pad(x, [(0, 0), (0, 0), *((q, q) for q in padding)]).reshape(-1, *(
            n + 2 * q for n, q in zip(x.shape[2:], padding, strict=True)
        ))  # fmt: skip
        each, columns = weight.shape[0] // groups, weight.shape[1]
        for n, k, row, column in np.ndindex(y.shape):
            for r in range(length, -(-length // 16) * 16):
                c, a, b = np.unravel_index(r, (columns + 16, *kernel))
                plane, place = n * x.shape[1] + k // each * columns + c, k * length + r
                if plane < len(planes) and place < weight.size:
                    i, j = row * stride[0] + a * dilation[0], column * stride[1] + b * dilation[1]
                    y[n, k, row, column] += weight.reshape(-1)[place] * planes[plane, i, j]
        return y

    problem = Problem(2, 4, 4, (5, 4), (2, 2), (2, 1), (1, 2), ((1, 1), (0, 0)), groups=2, bias=False)
    with Caller(60.0) as call:
        text = explain(call, forward, None, problem, "float64", SUPPORTS).parts["forward"].text
    assert "runs on to the next multiple of 16, with the elements that follow in memory" in text


@pytest.mark.parametrize(("axis", "by"), [
    pytest.param(0, 2, marks=pytest.mark.long),
    pytest.param(1, 2, marks=pytest.mark.long),
    (2, 0),
])  # fmt: skip
def test_an_index_decoded_with_the_size_of_another_axis(axis, by):
    def change(p):
        number = flat(p.o, p.out)
        other = list(p.o)
        other[axis] = number // math.prod(p.out[axis + 1 :]) % p.out[by]
        p.i = [s * o + e * t - q for s, o, e, t, q in zip(p.stride, other, p.dilation, p.t, p.padding, strict=True)]

    text = said(wrong(change), spatial_dims=3, time_limit=600.0)
    assert f"their index along axis {axis} is taken modulo" in text
    assert f"the number of positions along axis {by}, instead of" in text


@pytest.mark.parametrize("phases_first", [True, False])
def test_phases_put_together_in_the_wrong_order(phases_first):
    def forward(x, weight, bias, stride, padding, dilation, groups):
        zero = (0,) * len(stride)
        y = ConvTranspose().forward(x, weight, None, stride, zero, dilation, groups)
        size = y.shape[2:]
        whole = [-(-n // s) * s for n, s in zip(size, stride, strict=True)]
        y = np.pad(y, [(0, 0), (0, 0), *((0, m - n) for n, m in zip(size, whole, strict=True))])
        (s, r), (a, b) = stride, [m // s for m, s in zip(whole, stride, strict=True)]
        phases = y.reshape(*y.shape[:2], a, s, b, r)
        if phases_first:
            made = phases.transpose(0, 3, 5, 1, 2, 4).reshape(len(y), y.shape[1], s, r, a, b)
            y = made.transpose(0, 1, 4, 2, 5, 3).reshape(y.shape)
        else:
            made = phases.transpose(0, 1, 3, 5, 2, 4).reshape(len(y), s, r, y.shape[1], a, b)
            y = made.transpose(0, 3, 4, 1, 5, 2).reshape(y.shape)
        y = y[:, :, padding[0] : size[0] - padding[0], padding[1] : size[1] - padding[1]]
        return y if bias is None else y + bias[:, None, None]

    made, put = ("phases, channels", "channels, phases")[:: 1 if phases_first else -1]
    text = said(forward, transposed=True)
    assert f"those are made in the order ({made}) but taken in the order ({put})" in text


# --- Fast algorithms -------------------------------------------------------------------------------------------------


def filtered(x, weight, bias, stride, padding, dilation, groups, matrices):
    """Convolve one axis of a kernel of 3 by the matrices, tile by tile; else from the definition."""
    if (weight.shape[2:], stride, dilation) != ((3,), (1,), (1,)):
        return Conv().forward(x, weight, bias, stride, padding, dilation, groups)
    (q,), m = padding, len(matrices["Aᵀ"])
    count = x.shape[2] + 2 * q - 2
    tiles = -(-count // m)
    padded = np.pad(x, [(0, 0), (0, 0), (q, tiles * m + 2)])
    y = np.zeros((len(x), len(weight), tiles * m), x.dtype)
    each, columns = len(weight) // groups, weight.shape[1]
    for n, k, c, tile in np.ndindex(len(x), len(weight), columns, tiles):
        inputs = padded[n, k // each * columns + c, tile * m : tile * m + m + 2]
        y[n, k, tile * m : tile * m + m] += matrices["Aᵀ"] @ (
            (matrices["G"] @ weight[k, c]) * (matrices["Bᵀ"] @ inputs)
        )
    return y[:, :, :count] if bias is None else y[:, :, :count] + bias[:, None]


ONE_AXIS = Problem(2, 4, 4, (9,), (3,), (1,), (1,), ((1, 1),), groups=2, bias=False)


def winograd_text(matrices):
    def forward(*arguments):
        return filtered(*arguments, matrices)

    with Caller(60.0) as call:
        return explain(call, forward, None, ONE_AXIS, "float64", SUPPORTS).parts["forward"].text


@pytest.mark.parametrize("tile", MATRICES)
def test_winograd_s_matrices_are_right(tile):
    assert winograd_text(MATRICES[tile]).startswith("It is right")


@pytest.mark.thinned(6)
@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize(
    ("tile", "name", "entry"), [(2, "Aᵀ", (1, 3)), (2, "G", (1, 1)), (4, "Bᵀ", (3, 2)), (4, "G", (3, 0))]
)
def test_a_wrong_entry_of_winograd_s_matrices_is_named(tile, name, entry, how):
    changed = MATRICES[tile][name].copy()
    changed[entry] *= CHANGES[how]
    text = winograd_text(MATRICES[tile] | {name: changed})
    assert text == (
        f"It is Winograd's F({tile}, 3), y = Aᵀ[(G·w) ⊙ (Bᵀ·x)], with one mistake: entry {entry} of {name} {how}."
    )


def test_winograd_on_two_axes():
    """With the last sign of Aᵀ wrong, odd outputs have the kernel (w₀ + 2·w₂, w₁, −w₂) on each axis."""

    def forward(x, weight, bias, stride, padding, dilation, groups):
        y = Conv().forward(x, weight, None, stride, padding, dilation, groups)
        if (weight.shape[2:], stride, dilation) == ((3, 3), (1, 1), (1, 1)):
            turned = np.array([[1, 0, 2], [0, 1, 0], [0, 0, -1]], x.dtype)
            for row, column in ((0, 1), (1, 0), (1, 1)):
                w = weight if row == 0 else np.einsum("ij,kcjb->kcib", turned, weight)
                w = w if column == 0 else np.einsum("ij,kcaj->kcai", turned, w)
                other = Conv().forward(x, w, None, stride, padding, dilation, groups)
                y[:, :, row::2, column::2] = other[:, :, row::2, column::2]
        return y if bias is None else y + bias[:, None, None]

    (failure,) = check_conv(forward).failures
    assert "Winograd's F(2×2, 3×3)" in failure.explanation
    assert "entry (1, 3) of Aᵀ has the wrong sign" in failure.explanation


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("spatial_dims", "room", "length"), [(1, False, 41), (1, True, 56), (2, False, 25), (2, True, 31)]
)
def test_a_real_transform_that_is_inverted_without_its_length(spatial_dims, room, length):
    """Correlate the last axis by numpy's FFT, with room for the kernel or not, and the others from the definition."""

    def forward(x, weight, bias, stride, padding, dilation, groups):
        y = Conv().forward(x, weight, None, stride, padding, dilation, groups)
        padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
        span = dilation[-1] * (weight.shape[-1] - 1) + 1
        size = padded.shape[-1] + (span - 1) * room
        inflated = np.zeros((*weight.shape[:-1], span))
        inflated[..., :: dilation[-1]] = weight
        of_x, of_w = np.fft.rfft(padded, size), np.fft.rfft(inflated, size).conj()
        each = len(weight) // groups
        for n, k, *o in np.ndindex(y.shape[:-1]):
            total = 0
            for c, *t in np.ndindex(weight.shape[1:-1]):
                at = [a * s + b * e for a, s, b, e in zip(o, stride, t, dilation, strict=False)]
                total = total + of_x[(n, k // each * weight.shape[1] + c, *at)] * of_w[(k, c, *t)]
            line = np.fft.irfft(total)[:: stride[-1]]
            y[(n, k, *o)] = line[: y.shape[-1]]
        return y if bias is None else y + bias.reshape(-1, *[1] * spatial_dims)

    text = said(forward, spatial_dims=spatial_dims)
    if length % 2:
        assert f"a real Fourier transform of the odd length {length}" in text
    else:
        assert text.startswith("It is right")


def test_rounding_errors_of_products_of_zeros_do_not_hide_what_is_read():
    def forward(x, weight, *more):
        y = wrong(circular)(x, weight, *more)
        noise = 1e-16 * np.max(np.abs(x), initial=0) * np.max(np.abs(weight), initial=0)
        return y + noise * np.random.default_rng(1).standard_normal(y.shape)

    assert "a circular convolution" in said(forward)


# --- Lost digits -----------------------------------------------------------------------------------------------------


def digits(values, count, function):
    mantissa, exponent = np.frexp(values)
    return np.ldexp(function(np.ldexp(mantissa, count)), exponent - count).astype(values.dtype)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("of_x", "of_weight", "text"), [
    ((8, np.trunc), (8, np.trunc), "It is right for x and weight cut to bfloat16."),
    ((8, np.rint), None, "It is right for x rounded to bfloat16."),
    (None, (11, np.trunc), "It is right for weight cut to the digits of float16 or TF32."),
])  # fmt: skip
def test_operands_that_lose_digits(of_x, of_weight, text):
    def forward(x, weight, *more):
        x = digits(x, *of_x) if of_x else x
        return Conv().forward(x, digits(weight, *of_weight) if of_weight else weight, *more)

    (failure,) = check_conv(forward).failures
    assert failure.check == "real values"
    assert failure.explanation == text


def test_results_that_are_stored_in_fewer_digits():
    class Stored(Conv):
        def grad_weight(self, *arguments):
            found = super().grad_weight(*arguments)
            return found.astype(np.float16).astype(found.dtype)

    (failure,) = check_conv(Stored().forward, Stored().backward).failures
    assert failure.explanation == (
        "In this case every element of grad_weight is a float16 number: sums are kept, or stored, in float16."
    )


@pytest.mark.parametrize(("low", "high", "step", "text"), [
    (-1, 127 / 128, 1 / 128, "w rounded to multiples of 0.0078125 and clipped to −1 … 0.992188 instead of w"),
    (-2, 2, 0, "w clipped to −2 … 2 instead of w"),
])  # fmt: skip
def test_an_operand_in_fixed_point(low, high, step, text):
    def forward(x, weight, *more):
        rounded = np.rint(weight / step) * step if step else weight
        return Conv().forward(x, np.clip(rounded, low, high), *more)

    assert said(forward) == f"The output is right, but computed from {text}."


# --- Sums of the upstream gradient -----------------------------------------------------------------------------------


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("summed", "text", "d"), [
    (lambda g: g.reshape(-1, g.shape[1]).sum(0), "g is summed as if reshaped to (−1, 4)", 2),
    (lambda g: g.reshape(g.shape[1], -1).sum(1), "g is summed as if reshaped to (4, −1)", 2),
    (lambda g: g.reshape(-1, g.shape[1], *g.shape[3:]).sum((0, 2, 3)), "axis 1 are folded into the batch", 3),
    (lambda g: g[:, :, ::2].sum((0, 2, 3)), "Of 5 positions along axis 0, only one of every 2 counts, the first.", 2),
    (lambda g: g.sum((0, 2, 3)) + g[:, :, 2::2].sum((0, 2, 3)), "numbers 2, 4 are added twice: blocks of 2 overlap", 2),
])  # fmt: skip
def test_sums_of_the_bias_gradient(summed, text, d):
    class Summed(Conv):
        def grad_bias(self, g):
            return summed(g)

    found = explain_conv(Summed().forward, Summed().backward, spatial_dims=d).parts["grad_bias"].text
    assert text in found
