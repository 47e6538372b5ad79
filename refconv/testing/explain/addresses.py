"""Mistakes of addresses: wrong lengths of rows, missing bounds tests, indices split by the wrong sizes or cut to bits.

Each gives the whole table of any problem. It is said if it gives exactly the products of one problem, and the results
of a second one.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refconv.testing.explain.blocks import BLOCKS, Model, subsets
from refconv.testing.explain.names import Names, formula, listed
from refconv.testing.explain.table import Asked, Shape, Table
from refconv.testing.oracles.definition import Array

MOST_WINDOWS = 50_000
"""Products, padding included, of the largest problem on which these mistakes are sought."""


@dataclass(frozen=True)
class Windows:
    """Every product of right samples and channels, inside the image or not.

    `place` has the coordinates in the image, counted from its first element, and `padded` in the padded image.
    """

    asked: Asked
    n: Array
    q: Array
    column: Array
    m: Array
    o: Array
    t: Array

    @classmethod
    @functools.lru_cache(maxsize=4)
    def of(cls, asked: Asked) -> Windows:
        """Return the windows of a problem; `o` and `t` are arrays (axes, products)."""
        shapes, channels = asked.shapes, asked.channels(asked.shapes)
        d = asked.problem.spatial_dims
        sizes = (shapes["image"][0], len(channels), *shapes["positions"][2:], *shapes["weight"][2:])
        n, channel, *rest = np.indices(sizes).reshape(len(sizes), -1)
        q, _, column, m = channels[channel].T
        return cls(asked, n, q, column, m, np.stack(rest[:d]), np.stack(rest[d:]))

    @property
    def padded(self) -> Array:
        """Coordinates in the padded image, an array (axes, products)."""
        line = np.array(self.asked.lines)
        return line[:, :1] * self.o + line[:, 1:2] * self.t

    @property
    def place(self) -> Array:
        """Coordinates in the image, an array (axes, products)."""
        return self.padded - np.array(self.asked.before)[:, None]

    @property
    def padded_sizes(self) -> Shape:
        """Sizes of the padded image."""
        sizes = self.asked.shapes["image"][2:]
        return tuple(n + before + after for n, (before, after) in zip(sizes, self.asked.problem.pairs, strict=True))

    def reading(
        self,
        place: Array,
        n: Array | None = None,
        m: Array | None = None,
        inside: Array | bool = True,
        addresses: Mapping[str, Array] | None = None,
    ) -> Table:
        """Return the products with the image elements at other places, and other addresses of positions or weights.

        Products with an element outside its array are dropped.
        """
        shapes = self.asked.shapes
        n, m = self.n if n is None else n, self.m if m is None else m
        sizes = np.array(shapes["image"][2:])[:, None]
        inside = inside & np.all((place >= 0) & (place < sizes), axis=0)
        inside &= (n >= 0) & (n < shapes["image"][0]) & (m >= 0) & (m < shapes["image"][1])
        places = {
            "positions": (self.n, self.q, *self.o),
            "weight": (self.q, self.column, *self.t),
            "image": (n, m, *place),
        }
        flat = {role: _address(place, shapes[role]) for role, place in places.items()} | dict(addresses or {})
        for role in ("positions", "weight"):
            inside &= (flat[role] >= 0) & (flat[role] < math.prod(shapes[role]))
        return Table(
            shapes, {role: address[inside] for role, address in flat.items()}, np.ones(np.count_nonzero(inside))
        )


def _address(place: Sequence[Array], sizes: Sequence[int]) -> Array:
    """Return the address of places, also of those beyond the ends of axes: there, memory contains the next row."""
    flat = np.zeros_like(place[0])
    for index, size in zip(place, sizes, strict=True):
        flat = flat * size + index
    return flat


def _split(address: Array, sizes: Sequence[int]) -> list[Array]:
    """Return the places of addresses; the first is not limited."""
    places = []
    for size in sizes[:0:-1]:
        address, place = np.divmod(address, size)
        places.append(place)
    return [address, *places[::-1]]


def unchecked(asked: Asked, axes: Sequence[int], side: str = "") -> Table:
    """Return the table of a part that takes elements beyond the image, along some axes, from their place in memory.

    With a `side`, "start" or "end", only elements beyond that side.
    """
    windows = Windows.of(asked)
    shape, place = asked.shapes["image"], windows.place
    inside = np.ones(windows.n.shape, bool)
    for a, index in enumerate(place):
        free = a in axes
        inside &= (index >= 0) | (free and side != "end")
        inside &= (index < shape[2 + a]) | (free and side != "start")
    n, m, *found = _split(_address([windows.n, windows.m, *place], shape), shape)
    return windows.reading(np.stack(found), n, m, inside)


def unpadded_strides(asked: Asked, whole: bool) -> Table:
    """Return the table of a padded image with the strides of one without padding, in each plane or as a whole."""
    windows, shape = Windows.of(asked), asked.shapes["image"]
    head = 2 if whole else 0
    taken = _address([windows.n, windows.m, *windows.padded][2 - head :], shape[2 - head :])
    found = _split(taken, (*shape[:2], *windows.padded_sizes)[2 - head :])
    place = np.stack(found[head:]) - np.array(asked.before)[:, None]
    return windows.reading(place, *(found[:2] if whole else ()))


def not_cleared(asked: Asked, of_taps: bool) -> Table:
    """Return the table of a buffer that keeps, beyond the image, what the tap or the position before left there."""
    windows, taps = Windows.of(asked), math.prod(asked.problem.kernel)
    positions = math.prod(asked.shapes["positions"][2:])
    place = windows.place
    inside = np.all((place >= 0) & (place < np.array(asked.shapes["image"][2:])[:, None]), axis=0)
    number = np.arange(len(inside)).reshape(-1, positions, taps)
    last = np.where(inside.reshape(number.shape), number, -1)
    last = np.maximum.accumulate(last, axis=2 if of_taps else 1).reshape(-1)
    return windows.reading(place[:, last], inside=last >= 0)


def of_other_sizes(asked: Asked, role: str, sizes: Callable[[Asked], Shape]) -> Table:
    """Return the table of positions, or of a weight, addressed as if their arrays had other spatial sizes."""
    windows, shape = Windows.of(asked), asked.shapes[role]
    head = [windows.n, windows.q] if role == "positions" else [windows.q, windows.column]
    inner = windows.o if role == "positions" else windows.t
    rows = _address(list(inner), sizes(asked))
    return windows.reading(windows.place, addresses={role: _address(head, shape[:2]) * math.prod(shape[2:]) + rows})


def circular(
    asked: Asked, signs: tuple[int, int], length: Callable[[Asked, int], int], padded: bool, forward: bool
) -> Table:
    """Return the table of image elements whose number is taken modulo the length of a transform, along every axis.

    Operands are cropped to that length; the positions are one in a gradient.
    """
    windows = Windows.of(asked)
    found, inside = [], np.ones(windows.n.shape, bool)
    for a, (stride, dilation, start) in enumerate(asked.lines):
        period = length(asked, a)
        number = signs[0] * stride * windows.o[a] + signs[1] * dilation * windows.t[a] + (0 if padded else start)
        found.append(number % period + (start if padded else 0))
        inside &= (dilation * windows.t[a] < period) & (forward | (stride * windows.o[a] < period))
    return windows.reading(np.stack(found), inside=inside)


def rounded_up(asked: Asked, block: int) -> Table:
    """Return the table of sums over channels and taps that run on, in memory, to the next multiple of a block."""
    windows, shapes, kernel = Windows.of(asked), asked.shapes, asked.problem.kernel
    length = math.prod(shapes["weight"][1:])
    first = np.flatnonzero((windows.column == 0) & np.all(windows.t == 0, axis=0))
    index, r = (i.reshape(-1) for i in np.meshgrid(first, np.arange(-(-length // block) * block), indexing="ij"))
    column, *t = _split(r, (length, *kernel))
    n, m = np.divmod(windows.n[index] * shapes["image"][1] + windows.m[index] + column, shapes["image"][1])
    longer = Windows(asked, windows.n[index], windows.q[index], column, m, windows.o[:, index], np.stack(t))
    return longer.reading(longer.place, n, addresses={"weight": longer.q * length + r})


def stacked(asked: Asked, side: str = "") -> Table:
    """Return the table of samples one below the other, without padding between them, or only on one side of them."""
    windows = Windows.of(asked)
    place, size = windows.place, asked.shapes["image"][2]
    free = {"": True, "start": place[0] < size, "end": place[0] >= 0}[side]
    n, first = np.divmod(windows.n * size + place[0], size)
    return windows.reading(np.stack([first, *place[1:]]), n, inside=free)


def decoded(asked: Asked, role: str, axis: int, by: int) -> Table:
    """Return the table of positions, or taps, whose index along one axis is taken modulo the size of another."""
    windows, sizes = Windows.of(asked), asked.shapes[role][2:]
    own = windows.o if role == "positions" else windows.t
    index = _address(list(own), sizes) // math.prod(sizes[axis + 1 :]) % sizes[by]
    return _with(windows, role, [index if a == axis else each for a, each in enumerate(own)])


def split(asked: Asked, role: str, order: Sequence[int]) -> Table:
    """Return the table of positions, or taps, in memory order, with their sizes taken in another order."""
    windows, sizes = Windows.of(asked), asked.shapes[role][2:]
    own = windows.o if role == "positions" else windows.t
    return _with(windows, role, _split(_address(list(own), sizes), [sizes[axis] for axis in order]))


def _with(windows: Windows, role: str, index: Sequence[Array]) -> Table:
    """Return the table of the image elements that other positions, or taps, read."""
    o, t = (np.stack(index), windows.t) if role == "positions" else (windows.o, np.stack(index))
    moved = Windows(windows.asked, windows.n, windows.q, windows.column, windows.m, o, t)
    return windows.reading(moved.place)


def in_bits(asked: Asked, bits: int, padded: bool) -> Table:
    """Return the table of offsets in a plane of the image, or of the padded image, that are cut to some bits."""
    windows, sizes = Windows.of(asked), asked.shapes["image"][2:]
    if padded:
        cut = _split(_address(list(windows.padded), windows.padded_sizes) % 2**bits, windows.padded_sizes)
        return windows.reading(np.stack(cut) - np.array(asked.before)[:, None])
    place = windows.place
    inside = np.all((place >= 0) & (place < np.array(sizes)[:, None]), axis=0)
    return windows.reading(np.stack(_split(_address(list(place), sizes) % 2**bits, sizes)), inside=inside)


def offsets_in_bits(asked: Asked, bits: int, padded: bool) -> Table:
    """Return the table of offsets of (channel, row, column) from the window's first element, cut to some bits."""
    windows, columns = Windows.of(asked), asked.shapes["weight"][1]
    sizes = (columns, *(windows.padded_sizes if padded else asked.shapes["image"][2:]))
    steps = np.array([dilation for _, dilation, _ in asked.lines])[:, None] * windows.t
    first = windows.padded - steps
    group, start = windows.m - windows.column, _address([np.zeros_like(windows.n), *first], sizes)
    column, *place = _split(start + _address([windows.column, *steps], sizes) % 2**bits, sizes)
    return windows.reading(np.stack(place) - np.array(asked.before)[:, None], m=group + column)


def sums_in_bits(asked: Asked, bits: int) -> Table:
    """Return the table of weights, numbered by channel and tap, that are used with the input of the number in bits."""
    windows, kernel = Windows.of(asked), asked.problem.kernel
    columns = asked.shapes["weight"][1]
    column, *t = _split(_address([windows.column, *windows.t], (columns, *kernel)) % 2**bits, (columns, *kernel))
    moved = Windows(asked, windows.n, windows.q, column, windows.m - windows.column + column, windows.o, np.stack(t))
    return windows.reading(moved.place, m=moved.m)


def group_of_block(asked: Asked, block: int) -> Table:
    """Return the table of blocks of channels that all use the input of the group of their first channel."""
    windows, columns = Windows.of(asked), asked.shapes["weight"][1]
    each = asked.shapes["positions"][1] // asked.groups
    return windows.reading(windows.place, m=windows.q // block * block // each * columns + windows.column)


def shuffled(asked: Asked, phases_first: bool) -> Table:
    """Return the table of a transposed convolution by phases whose depth-to-space takes (K, phases) for (phases, K)."""
    windows, (steps, *_) = Windows.of(asked), zip(*asked.lines, strict=True)
    channels, count = asked.shapes["image"][1], math.prod(steps)
    start, phase = np.divmod(windows.padded, np.array(steps)[:, None])
    number = _address([*phase, windows.m], [*steps, channels])
    m, *found = _split(number, [channels, *steps])
    if not phases_first:
        number = windows.m * count + _address(list(phase), steps)
        *found, m = _split(number, [*steps, channels])
    place = np.stack(found) + start * np.array(steps)[:, None] - np.array(asked.before)[:, None]
    return windows.reading(place, m=m)


def phases_exchanged(asked: Asked) -> Table:
    """Return the table of a transposed convolution by phases whose first and last axis are exchanged."""
    windows, steps = Windows.of(asked), np.array([stride for stride, _, _ in asked.lines])[:, None]
    start, phase = np.divmod(windows.padded, steps)
    return windows.reading(start * steps + phase[::-1] - np.array(asked.before)[:, None])


def address_models(asked: Asked, names: Names) -> Iterator[Model]:
    """Yield mistakes of addresses, whether they fit or not."""
    d, image = asked.problem.spatial_dims, names.image
    if len(Windows.of(asked).n) > MOST_WINDOWS:
        return
    positions = names.symbols["positions"]
    for axes in subsets(d):
        near = "channel or sample" if axes[0] == 0 else "row" if axes[0] == d - 1 else "plane"
        verb = "are added" if names.result == image else "are read"
        for side in ("", "start", "end"):
            yield Model(
                functools.partial(unchecked, axes=axes, side=side),
                f"Along axis {' and '.join(map(str, axes))}, indices are not checked: elements beyond "
                f"{f'the {side} of ' * bool(side)}{image} {verb} at their address in memory, which belongs to a "
                f"neighbouring {near}. They should count as zeros.",
                layout={"array": image, "unchecked": axes},
            )
    if any(map(any, asked.problem.pairs)):
        lengths = "a row is taken to be W elements long, not W + padding" * (d > 1)
        for whole, where in ((False, "each channel of"), (True, "")):
            if d > 1 or whole:
                yield Model(
                    functools.partial(unpadded_strides, whole=whole),
                    f"Elements of {f'{where} ' * (not whole)}the padded {image} are addressed with the strides of "
                    f"{image} without its padding{f': {lengths}' * (d > 1)}.",
                )
        for of_taps, noun, other in ((True, "tap", "position"), (False, "position", "tap")):
            yield Model(
                functools.partial(not_cleared, of_taps=of_taps),
                f"Beyond {image}, where zeros belong, the element is used that the last {noun} inside {image} reads "
                f"with the same {other}: a buffer is not cleared between {noun}s.",
            )
        reached = {"": "the next or the previous sample", "start": "the previous sample", "end": "the next sample"}
        for side, sample in reached.items():
            yield Model(
                functools.partial(stacked, side=side),
                f"Along axis 0, samples of {image} are one below the other without padding between them: windows reach "
                f"into {sample}.",
                kind="stacked",
            )
    for role, array, noun in (("positions", positions, "position"), ("weight", names.symbols["weight"], "tap")):
        sizes = asked.shapes[role][2:]
        for axis, by in itertools.permutations(range(d), 2):
            yield Model(
                functools.partial(decoded, role=role, axis=axis, by=by),
                f"With the {noun}s of {array} numbered in memory order, their index along axis {axis} is taken modulo "
                f"{sizes[by]}, the number of {noun}s along axis {by}, instead of {sizes[axis]}.",
            )
        for order in itertools.permutations(range(d)):
            taken = tuple(sizes[axis] for axis in order)
            if taken != sizes:
                text = f"{array} is as if its sizes were {taken} instead of {sizes}, and reshaped"
                text += f": {noun} q in memory order is taken as (q // {taken[1]}, q mod {taken[1]})" * (d == 2)
                yield Model(
                    functools.partial(split, role=role, order=order),
                    f"{text}.",
                    layout={"array": array, "sizes": taken},
                )
    for padded, count in ((False, math.prod(_image_sizes(asked))), (True, math.prod(_padded_sizes(asked)))):
        array = f"the padded {image}" if padded else image
        for bits in range(2, (count - 1).bit_length()):
            yield Model(
                functools.partial(in_bits, bits=bits, padded=padded),
                f"Positions in {array} are taken mod {2**bits}, with the elements of one channel numbered in memory "
                f"order: it has {count} elements per channel.",
                kind=f"in bits {bits}",
            )
    for padded, bits in itertools.product((True, False), (8, 16)):
        array = f"the padded {image}" if padded else image
        yield Model(
            functools.partial(offsets_in_bits, bits=bits, padded=padded),
            f"The offset of a channel, row and column from the first element of a window, in {array}, is taken mod "
            f"{2**bits}.",
            kind=f"offsets {bits}",
        )
    length = math.prod(asked.shapes["weight"][1:])
    for bits in range(2, (length - 1).bit_length()):
        yield Model(
            functools.partial(sums_in_bits, bits=bits),
            f"Number r of the {length} channels and taps of a group, in memory order, is used with {image} at number "
            f"r mod {2**bits}.",
        )
    yield from _other_sizes(asked, names)
    yield from _transforms(asked, names)
    for block in BLOCKS[1:]:
        yield Model(
            functools.partial(rounded_up, block=block),
            f"The sum over the {length} channels and taps of a group runs on to the next multiple of {block}, with the "
            f"elements that follow in memory: the next {names.positions_channel}'s weights, the next "
            f"{names.image_channel}s.",
        )
    orders = "phases, channels", "channels, phases"
    for phases_first in (True, False) if asked.problem.transposed else ():
        made, put = orders if phases_first else orders[::-1]
        yield Model(
            functools.partial(shuffled, phases_first=phases_first),
            f"{image} is put together from one image for each phase of the stride: those are made in the order "
            f"({made}) but taken in the order ({put}).",
        )
    if asked.problem.transposed and d == 2:
        yield Model(
            phases_exchanged,
            f"{image} is put together from one image for each phase (a, b) of the strides, with a and b exchanged.",
        )
    for block in BLOCKS if asked.groups > 1 else ():
        starts = listed(range(0, asked.shapes["positions"][1], block))
        yield Model(
            functools.partial(group_of_block, block=block),
            f"Blocks of {block} {names.positions_channel}s (from {starts}) {names.verbs} the {names.image_channel}s "
            f"of the group of their first channel, although they reach into other groups.",
        )


def _image_sizes(asked: Asked) -> Shape:
    return asked.shapes["image"][2:]


def _padded_sizes(asked: Asked) -> Shape:
    return Windows.of(asked).padded_sizes


def _position_sizes(asked: Asked) -> Shape:
    return asked.shapes["positions"][2:]


def _other_sizes(asked: Asked, names: Names) -> Iterator[Model]:
    """Yield arrays that are addressed with the row lengths of another array."""
    image, positions = names.image, names.symbols["positions"]
    others = {image: _image_sizes, f"the padded {image}": _padded_sizes}
    for other, sizes in others.items() if asked.problem.spatial_dims > 1 else ():
        yield Model(
            functools.partial(of_other_sizes, role="positions", sizes=sizes),
            f"{positions} is addressed with the row length of {other} instead of its own.",
        )
    for role, array in (("positions", positions), ("weight", names.symbols["weight"])):
        if asked.problem.spatial_dims > 1:
            own = functools.partial(_reversed_sizes, role=role)
            yield Model(
                functools.partial(of_other_sizes, role=role, sizes=own),
                f"{array} is addressed as if its spatial sizes were in reverse order.",
            )


def _reversed_sizes(asked: Asked, role: str) -> Shape:
    return asked.shapes[role][:1:-1]


# --- Transforms that are too short -----------------------------------------------------------------------------------


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()


def _extent(asked: Asked, axis: int) -> int:
    """Return how many elements of an axis the positions span."""
    return (asked.shapes["positions"][2 + axis] - 1) * asked.lines[axis][0] + 1


def _span(asked: Asked, axis: int) -> int:
    """Return how many elements of an axis a window spans."""
    return (asked.shapes["weight"][2 + axis] - 1) * asked.lines[axis][1] + 1


LENGTHS: dict[str, Callable[[Asked, int], int]] = {
    "the size of {image}": lambda asked, a: _image_sizes(asked)[a],
    "the size of {image}, or of a window if that is larger": lambda asked, a: max(
        _image_sizes(asked)[a], _span(asked, a)
    ),
    "the padded size of {image}": lambda asked, a: _padded_sizes(asked)[a],
    "the size of {image}, or the span of the positions if that is larger": lambda asked, a: max(
        _image_sizes(asked)[a], _extent(asked, a)
    ),
    "the power of two that holds {image}": lambda asked, a: _power_of_two(_image_sizes(asked)[a]),
    "the power of two that holds the padded {image}": lambda asked, a: _power_of_two(_padded_sizes(asked)[a]),
    "the power of two that holds the span of the positions and of a window": lambda asked, a: _power_of_two(
        max(_extent(asked, a), _span(asked, a))
    ),
    "the span of the positions": _extent,
}
"""Lengths of a discrete Fourier transform."""

SIGNS = {(1, 1): "", (-1, 1): ", with positions in reverse order", (1, -1): ", with taps in reverse order"}


def _transforms(asked: Asked, names: Names) -> Iterator[Model]:
    """Yield circular convolutions, as a Fourier transform that is too short computes them, or one not conjugated."""
    for ((name, length), (signs, reverse)), padded in itertools.product(
        itertools.product(LENGTHS.items(), SIGNS.items()), (True, False)
    ):
        array = f"the padded {names.image}" if padded else names.image
        places = []
        for axis, (stride, dilation, start) in enumerate(asked.lines):
            line = formula((signs[0] * stride, signs[1] * dilation, 0 if padded else start), names.letter)
            places.append(f"({line}) mod {length(asked, axis)} along axis {axis}")
        yield Model(
            functools.partial(circular, signs=signs, length=length, padded=padded, forward=names.part == "forward"),
            f"Elements of {array} are numbered modulo {name.format(image=names.image)}{reverse}, {', '.join(places)}: "
            f"a circular convolution, as by a Fourier transform of that length.",
            kind=f"circular {signs}",
        )
