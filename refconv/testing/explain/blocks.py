"""Mistakes of blocks and tiles: tails that are left out or counted twice, blocks that replace others, missing halos.

Each is a factor for every right product, which depends on one count (positions along an axis, the channels of a group,
the elements of a sum in memory order, …) and on the size of a block. A mistake is said if it gives exactly the products
of one problem, and the results of a second one.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from refconv.testing.explain.names import Names, grammar, ranges, those
from refconv.testing.explain.problems import remainders
from refconv.testing.explain.table import Asked, Table
from refconv.testing.oracles.definition import Array

BLOCKS = (2, 4, 8, 16, 32, 64, 128)
"""Sizes of blocks and tiles that people use."""


Rule = Callable[[Asked, Table], Array]
"""The factors that a mistake gives to the right products of a problem."""


class Model(NamedTuple):
    """A mistake: the products that it gives on any problem, and a sentence about it on the problem read out.

    Of several of a kind, such as the same rule along both axes and along one, the first that fits is meant.
    """

    build: Callable[[Asked], Table]
    sentence: str
    kind: str = ""
    layout: Mapping[str, Any] | None = None


class Count(NamedTuple):
    """Things that a loop counts: the noun, the number of each product, and the size."""

    noun: str
    number: Array
    size: int


def counts(table: Table, asked: Asked, names: Names) -> dict[str, Count]:
    """Return everything that a loop may run over, by a name that is the same on other problems."""
    c, shapes, d = table.coordinates, table.shapes, table.spatial_dims
    sizes = {role: shape[2:] for role, shape in shapes.items()}
    samples, outputs, columns = shapes["positions"][0], shapes["positions"][1], shapes["weight"][1]
    each = max(1, outputs // asked.groups)
    of, to = f"{names.positions_channel}s", f"{names.image_channel}s"

    def flat(role: str) -> tuple[Array, int]:
        return np.ravel_multi_index(tuple(c[role][2:]), sizes[role]), math.prod(sizes[role])

    (o, positions), (t, taps), (i, elements) = map(flat, ("positions", "weight", "image"))
    n, q, column = c["positions"][0], c["positions"][1], c["weight"][1]
    found = {
        f"o{a}": Count(f"positions along axis {a}", c["positions"][2 + a], sizes["positions"][a]) for a in range(d)
    }
    found |= {f"t{a}": Count(f"taps along axis {a}", c["weight"][2 + a], sizes["weight"][a]) for a in range(d)}
    found |= {
        f"i{a}": Count(f"elements of {names.image} along axis {a}", c["image"][2 + a], sizes["image"][a])
        for a in range(d)
    }
    in_order = "in memory order"
    if d > 1:
        found |= {
            "o": Count(f"positions, {in_order}", o, positions),
            "t": Count(f"taps, {in_order}", t, taps),
            "i": Count(f"elements of each channel of {names.image}, {in_order}", i, elements),
        }
    found |= {
        "n": Count("samples", n, samples),
        "q": Count(of, q, outputs),
        "m": Count(to, c["image"][1], shapes["image"][1]),
        "column": Count(f"{to} of each group", column, columns),
        "row": Count(f"{of} of each group", q % each, each),
        "n o": Count(f"samples and positions, {in_order}", n * positions + o, samples * positions),
        "column t": Count(f"taps of the {to} of a group, {in_order}", column * taps + t, columns * taps),
        "t column": Count(f"{to} of a group at all taps, taps first", t * columns + column, columns * taps),
        "row t": Count(f"taps of the {of} of a group, {in_order}", q % each * taps + t, each * taps),
    }
    return {name: count for name, count in found.items() if count.size > 1}


# --- Factors that depend on a count and on the size of a block --------------------------------------------------------


def _tail(v: Array, size: int, block: int) -> Array:
    return v < size - size % block


def _last_block(v: Array, size: int, block: int) -> Array:
    return v >= (size - 1) // block * block


def _first_block(v: Array, size: int, block: int) -> Array:
    return v < block


def _stepped(v: Array, size: int, block: int) -> Array:
    return v % block == 0


def _overlap(v: Array, size: int, block: int) -> Array:
    twice = (v >= size - block) & (v < size - size % block) & (size > block)
    return 1 + twice


def _inclusive(v: Array, size: int, block: int) -> Array:
    return 1 + ((v > 0) & (v % block == 0))


def _exclusive(v: Array, size: int, block: int) -> Array:
    return v % block != block - 1


def _halved(v: Array, size: int, block: int) -> Array:
    """Sum by halves: add the second half to the first, and forget the last element of an odd number."""
    slot, kept, left = v.copy(), np.ones(len(v), bool), size
    while left > 1:
        half = left // 2
        kept &= slot < 2 * half
        slot, left = slot % half, half
    return kept


def _power_of_two(v: Array, size: int, block: int) -> Array:
    return v < 1 << (size.bit_length() - 1)


Factors = Callable[[Array, int, int], Array]
"""Factors of the products with these numbers, from how many there are and the size of a block."""
Said = Callable[[str, int, int, str], str]
"""Sentence from the noun, how many there are, the size of a block, and the numbers whose factor is not 1."""

FACTORS: dict[Factors, Said] = {
    _tail: lambda noun, size, block, odd: (
        f"Of {size} {noun}, the last {f'{size % block} are' if size % block > 1 else 'is'} left out: "
        f"the end that does not fill a block of {block}."
    ),
    _last_block: lambda noun, size, block, odd: (
        f"Of {size} {noun}, only the last block of {block} counts: each block replaces the earlier ones."
    ),
    _first_block: lambda noun, size, block, odd: f"Of {size} {noun}, only the first {block} count.",
    _overlap: lambda noun, size, block, odd: (
        f"Of {size} {noun}, {odd} added twice: "
        + (
            "two blocks of {} overlap." if size < 2 * block else "the last block of {} is not full, and repeats those."
        ).format(block)
    ),
    _inclusive: lambda noun, size, block, odd: (
        f"Of {size} {noun}, {odd} added twice: blocks of {block} overlap by one."
    ),
    _stepped: lambda noun, size, block, odd: f"Of {size} {noun}, only one of every {block} counts, the first.",
    _exclusive: lambda noun, size, block, odd: f"Of {size} {noun}, {odd} left out: the last of every block of {block}.",
    _halved: lambda noun, size, block, odd: (
        f"Of {size} {noun}, {odd} left out: a sum by halves that forgets the last element of an odd number."
    ),
    _power_of_two: lambda noun, size, block, odd: (
        f"Of {size} {noun}, only the first {1 << (size.bit_length() - 1)} count, the largest power of two."
    ),
}
WITHOUT_BLOCKS = (_halved, _power_of_two)


def _numbers(odd: Sequence[int]) -> str:
    return f"{those('number', odd)} {grammar(odd)[1]}"


def block_models(table: Table, asked: Asked, part: str, names: Names) -> Iterator[Model]:
    """Yield the mistakes of blocks and tiles that give exactly these products."""
    right = asked.table(part)
    seen = factors_of(table, right)
    if seen is None or np.all(seen == 1):
        return
    for fit in fitting_counts(counts(right, asked, names), seen):
        of_count = functools.partial(_of_count, fit=fit, names=names)
        yield Model(functools.partial(_multiplied, part, of_count), fit.sentence, f"{fit.factors.__name__} {fit.block}")
    rules = (
        _on_all_axes(asked, right, names), _steps(asked, names), _bounds(asked, names), _last_fitting(asked, names),
        _skipped(asked, names), _tiles(asked, names), _phases(asked, names),
    )  # fmt: skip
    for rule, sentence, kind in itertools.chain(*rules):
        if np.array_equal(rule(asked, right), seen):
            yield Model(functools.partial(_multiplied, part, rule), sentence, kind)


def _multiplied(part: str, rule: Rule, asked: Asked) -> Table:
    right = asked.table(part)
    return right.times(rule(asked, right))


def factors_of(table: Table, right: Table) -> Array | None:
    """Return the factor of every right product in a table; None if it has others too."""
    if not len(table.factor) or len(table.keys) < len(table.factor) or not np.isin(table.keys, right.keys).all():
        return None
    factors = np.zeros(len(right.keys))
    factors[np.searchsorted(right.keys, table.key)] = np.round(table.factor.real, 3)
    return factors[np.searchsorted(right.keys, right.key)]


class Fit(NamedTuple):
    """Factors that depend on a count in a known way."""

    name: str
    factors: Factors
    block: int
    sentence: str


def fitting_counts(found: dict[str, Count], seen: Array) -> Iterator[Fit]:
    """Yield the ways in which factors depend on a count and on the size of a block, where they do."""
    for name, count in found.items():
        for factors, say in FACTORS.items():
            for block in BLOCKS if factors not in WITHOUT_BLOCKS else (1,):
                due = factors(count.number, count.size, block)
                if block < count.size and np.array_equal(due, seen):
                    odd = np.unique(count.number[due != 1]).tolist()
                    first = int(np.argmax(factors(np.arange(count.size), count.size, block) != 1))
                    # A stride hides elements of the image: where the block begins must be seen.
                    if not name.startswith("i") or (len(odd) > 1 and odd[0] == first):
                        yield Fit(name, factors, block, say(count.noun, count.size, block, _numbers(odd)))


def _of_count(asked: Asked, right: Table, fit: Fit, names: Names) -> Array:
    count = counts(right, asked, names).get(fit.name)
    return np.ones(len(right.factor)) if count is None else fit.factors(count.number, count.size, fit.block) * 1.0


def _on_all_axes(asked: Asked, right: Table, names: Names) -> Iterator[tuple[Rule, str, str]]:
    """Yield rules that leave something out along every axis."""
    d, found = asked.problem.spatial_dims, counts(right, asked, names)
    for letter, (factors, say) in itertools.product("oti", FACTORS.items()):
        of_axes = [found.get(f"{letter}{a}") for a in range(d)]
        if d < 2 or None in of_axes or factors in (_overlap, _inclusive):
            continue
        for block in BLOCKS if factors not in WITHOUT_BLOCKS else (1,):
            said = []
            for count in of_axes:
                assert count is not None
                odd = np.unique(count.number[factors(count.number, count.size, block) != 1])
                said += [say(count.noun, count.size, block, _numbers(odd.tolist()))] * bool(len(odd))
            rule = functools.partial(_of_counts, letter=letter, factors=factors, block=block, names=names)
            yield rule, " ".join(said), f"all {factors.__name__} {block}"


def _of_counts(asked: Asked, right: Table, letter: str, factors: Factors, block: int, names: Names) -> Array:
    found, result = counts(right, asked, names), np.ones(len(right.factor))
    for a in range(asked.problem.spatial_dims):
        if (count := found.get(f"{letter}{a}")) is not None:
            result = result * factors(count.number, count.size, block)
    return result


def _bounds(asked: Asked, names: Names) -> Iterator[tuple[Rule, str, str]]:
    """Yield loops that run only as far as another array reaches."""
    image, positions = names.image, names.symbols["positions"]
    for axes in subsets(asked.problem.spatial_dims):
        where = f"along ax{'e' if len(axes) > 1 else 'i'}s {' and '.join(map(str, axes))}"
        for role, array, other in (("image", image, positions), ("positions", positions, image)):
            yield (
                functools.partial(_along, axes=axes, keep=functools.partial(_within, role=role)),
                f"Only as many elements of {array} count {where} as {other} has.",
                f"bound {role}",
            )


def _phases(asked: Asked, names: Names) -> Iterator[tuple[Rule, str, str]]:
    """Yield kernels computed in phases of the stride, all with as many taps as the shortest one."""
    for axes in subsets(asked.problem.spatial_dims):
        steps = [(a, asked.problem.kernel[a], asked.problem.stride[a]) for a in axes]
        said = [f"of {k} taps along axis {a} only the first {k // s * s} count" for a, k, s in steps if k % s]
        text = f"{' and '.join(said)}: the last multiple of the stride."
        yield functools.partial(_along, axes=axes, keep=_whole_phases), text[:1].upper() + text[1:], "phases"


def _whole_phases(asked: Asked, a: int, o: Array, t: Array, i: Array) -> Array:
    kernel, stride = asked.problem.kernel[a], asked.problem.stride[a]
    return t < kernel // stride * stride


def _along(asked: Asked, right: Table, axes: tuple[int, ...], keep: Callable[..., Array]) -> Array:
    """Return 1 for the products that ``keep(asked, axis, o, t, i)`` keeps along all of some axes, 0 for the others."""
    return np.all([keep(asked, a, *right.spatial[a].T) for a in axes], axis=0) * 1.0


def _within(asked: Asked, a: int, o: Array, t: Array, i: Array, role: str) -> Array:
    index, other = (i, "positions") if role == "image" else (o, "image")
    return index < asked.shapes[other][2 + a]


def _steps(asked: Asked, names: Names) -> Iterator[tuple[Rule, str, str]]:
    """Yield elements that are beyond the last whole step of the stride, along all axes or one."""
    if asked.problem.transposed:
        return
    for axes in subsets(asked.problem.spatial_dims):
        where = " or ".join(f"{asked.shapes['image'][2 + a] % asked.problem.stride[a]} along axis {a}" for a in axes)
        yield (
            functools.partial(_along, axes=axes, keep=_whole_steps),
            f"The last elements of {names.image} are left out, {where}: those beyond the last multiple of the stride.",
            "steps",
        )


def _last_fitting(asked: Asked, names: Names) -> Iterator[tuple[Rule, str, str]]:
    """Yield windows left out because they end exactly where the padded image ends, along all axes or one."""
    for axes in subsets(asked.problem.spatial_dims):
        where = " or ".join(f"{names.letter} = {asked.shapes['positions'][2 + a] - 1} along axis {a}" for a in axes
                            if not remainders(asked.problem)[a])  # fmt: skip
        yield (
            functools.partial(_along, axes=axes, keep=_before_the_end),
            f"Windows that end exactly where the padded {names.image} ends are left out, here {where}: a loop stops "
            f"one too early.",
            "end",
        )


def _before_the_end(asked: Asked, a: int, o: Array, t: Array, i: Array) -> Array:
    return (o < asked.shapes["positions"][2 + a] - 1) | (remainders(asked.problem)[a] > 0)


def _whole_steps(asked: Asked, a: int, o: Array, t: Array, i: Array) -> Array:
    size, stride = asked.shapes["image"][2 + a], asked.problem.stride[a]
    return i < size // stride * stride


def _skipped(asked: Asked, names: Names) -> Iterator[tuple[Rule, str, str]]:
    """Yield windows that are skipped because they reach beyond the image, or beyond one side of it."""
    for axes in subsets(asked.problem.spatial_dims):
        for side in ("", "start", "end"):
            beyond = {a: found for a in axes if (found := asked.beyond(a, side))}
            where = " and ".join(f"{names.letter} = {ranges(found)} along axis {a}" for a, found in beyond.items())
            yield (
                functools.partial(_along, axes=axes, keep=functools.partial(_without_beyond, side=side)),
                f"Windows that reach beyond {f'the {side} of ' * bool(side)}{names.image} are skipped: nothing is used "
                f"at {where}. Only elements beyond {names.image} should count as zeros.",
                f"skipped {side}",
            )


def _without_beyond(asked: Asked, a: int, o: Array, t: Array, i: Array, side: str) -> Array:
    return ~np.isin(o, asked.beyond(a, side))


def subsets(d: int) -> list[tuple[int, ...]]:
    """Return all sets of axes but the empty one, the smallest first: no axis is named without need.

    >>> subsets(2)
    [(0,), (1,), (0, 1)]
    """
    return [axes for count in range(1, d + 1) for axes in itertools.combinations(range(d), count)]


# --- Tiles that load too little of the image --------------------------------------------------------------------------

LOADED: dict[str, Callable[[int, int, int, int], int]] = {
    "T·s": lambda tile, s, k, d: tile * s,
    "(T − 1)·s + k": lambda tile, s, k, d: (tile - 1) * s + k,
    "T + k − 1": lambda tile, s, k, d: tile + k - 1,
    "T + d·(k − 1)": lambda tile, s, k, d: tile + d * (k - 1),
    "(T − 1)·s + 1": lambda tile, s, k, d: (tile - 1) * s + 1,
    "T": lambda tile, s, k, d: tile,
}
"""Elements of the padded image that are loaded for a tile of T positions; (T − 1)·s + d·(k − 1) + 1 are right."""
KEPT = {"last": 1, "first": 0}


def _tiles(asked: Asked, names: Names) -> Iterator[tuple[Rule, str, str]]:
    for tile in BLOCKS:
        for axes in subsets(asked.problem.spatial_dims):
            where = f"ax{'e' if len(axes) > 1 else 'i'}s {' and '.join(map(str, axes))}"
            for loaded, length in LOADED.items():
                yield (
                    functools.partial(_along, axes=axes, keep=functools.partial(_in_tiles, tile=tile, length=length)),
                    f"Positions along {where} are computed in tiles of T = {tile}, and of each tile's part of "
                    f"{names.image} only the first {loaded} elements count (s: stride, d: dilation); it needs "
                    f"(T − 1)·s + d·(k − 1) + 1.",
                    f"tile {tile} {loaded}",
                )
            yield (
                functools.partial(_along, axes=axes, keep=functools.partial(_overwritten, tile=tile)),
                f"Positions along {where} are computed in tiles of {tile}, and each tile replaces what earlier tiles "
                f"gave to the same elements of {names.image}: only the last tile's products count there.",
                f"overwritten {tile}",
            )
            yield (
                functools.partial(_along, axes=axes, keep=functools.partial(_owned, tile=tile)),
                f"Positions along {where} are computed in tiles of T = {tile}, and each tile adds only to its own T·s "
                f"elements of the padded {names.image} (s: stride): what belongs to the next tile's is lost.",
                f"owned {tile}",
            )
            if all(tile <= asked.problem.dilation[a] for a in axes):
                continue  # a block with a single tap of each window
            for kept, end in KEPT.items():
                yield (
                    functools.partial(_along, axes=axes, keep=functools.partial(_in_blocks, block=tile, end=end)),
                    f"Along {where}, {names.image} is cut into blocks of {tile}, padding included: where a window "
                    f"reaches into two blocks, only the products of the {kept} one count.",
                    f"blocks {tile} {kept}",
                )


def _overwritten(asked: Asked, a: int, o: Array, t: Array, i: Array, tile: int) -> Array:
    """Keep the products of the last tile that stores an element."""
    (stride, dilation, _), count = asked.lines[a], asked.shapes["positions"][2 + a]
    starts = np.arange(0, count, tile)
    ends = stride * (np.minimum(starts + tile, count) - 1) + dilation * (asked.problem.kernel[a] - 1)
    place = stride * o + dilation * t
    covers = (stride * starts[:, None] <= place) & (place <= ends[:, None])
    return o // tile == len(starts) - 1 - np.argmax(covers[::-1], axis=0)


def _owned(asked: Asked, a: int, o: Array, t: Array, i: Array, tile: int) -> Array:
    """Keep the products in the part of the image that belongs to their tile; to the last tile, the rest."""
    (stride, dilation, _), count = asked.lines[a], asked.shapes["positions"][2 + a]
    return ((stride * o + dilation * t) // (tile * stride) == o // tile) | (o // tile == (count - 1) // tile)


def _in_tiles(
    asked: Asked, a: int, o: Array, t: Array, i: Array, tile: int, length: Callable[[int, int, int, int], int]
) -> Array:
    stride, dilation, _ = asked.lines[a]
    return o % tile * stride + t * dilation < length(tile, stride, asked.problem.kernel[a], dilation)


def _in_blocks(asked: Asked, a: int, o: Array, t: Array, i: Array, block: int, end: int) -> Array:
    stride, dilation, _ = asked.lines[a]
    edge = stride * o + end * dilation * (asked.problem.kernel[a] - 1)
    return (stride * o + dilation * t) // block == edge // block
