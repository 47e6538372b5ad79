"""Fit channels, weight rows and samples: which go together, and known mix-ups, by name and in sentences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refconv.testing.explain.fit import Pattern, pattern
from refconv.testing.explain.names import Names, grammar, ranges, those
from refconv.testing.explain.table import Asked, Rows, Table
from refconv.testing.oracles.definition import Array


def channel_models(asked: Asked) -> Iterator[tuple[str, Rows]]:
    """Yield ways to mix channels up: a name, and rows (q, weight row, weight column, m)."""
    groups, cols = asked.groups, asked.shapes["weight"][1]
    total = asked.shapes["positions"][1]
    each = total // groups
    right = list(itertools.product(range(groups), range(each), range(cols)))

    def rows(q: object = None, row: object = None, m: object = None) -> Rows:
        def value(function: object, g: int, j: int, c: int, otherwise: int) -> int:
            return otherwise if function is None else int(function(g, j, c))  # type: ignore[operator]

        return frozenset(
            (value(q, g, j, c, g * each + j), value(row, g, j, c, g * each + j), c, value(m, g, j, c, g * cols + c))
            for g, j, c in right
        )

    if groups > 1:
        yield "first inputs", rows(m=lambda g, j, c: c)
        yield "first positions", rows(q=lambda g, j, c: j)
        yield "groups reversed", rows(m=lambda g, j, c: (groups - 1 - g) * cols + c)
        yield "next group", rows(m=lambda g, j, c: (g + 1) % groups * cols + c)
        yield "previous group", rows(m=lambda g, j, c: (g - 1) % groups * cols + c)
        yield "positions reversed", rows(q=lambda g, j, c: (groups - 1 - g) * each + j)
        yield "next positions", rows(q=lambda g, j, c: (g - 1) % groups * each + j)
        yield "previous positions", rows(q=lambda g, j, c: (g + 1) % groups * each + j)
        yield "image interleaved", rows(m=lambda g, j, c: g + c * groups)
        yield "positions interleaved", rows(q=lambda g, j, c: j * groups + g)
        yield "both interleaved", rows(q=lambda g, j, c: j * groups + g, m=lambda g, j, c: g + c * groups)
        yield "modulo", rows(m=lambda g, j, c: (g * each + j) % groups * cols + c)
        yield "first weights", rows(row=lambda g, j, c: j)
        yield (
            "all weights",
            frozenset((q, g * each + row % each, c, m) for q, row, c, m in rows() for g in range(groups)),
        )
        yield "weights reversed", rows(row=lambda g, j, c: (groups - 1 - g) * each + j)
        yield "next weights", rows(row=lambda g, j, c: (g + 1) % groups * each + j)
        yield "previous weights", rows(row=lambda g, j, c: (g - 1) % groups * each + j)
        yield "first group", frozenset(row for row in rows() if row[0] < each)
        yield "last group", frozenset(row for row in rows() if row[0] >= total - each)
        yield "offset of positions", rows(m=lambda g, j, c: (g * each + c) % (groups * cols))
        yield (
            "offset of positions",
            frozenset(row for row in rows(m=lambda g, j, c: g * each + c) if row[3] < groups * cols),
        )
        yield "tiled", frozenset((q, row, c, g * cols + c) for q, row, c, _ in rows() for g in range(groups))
    if cols > 1:
        yield "columns reversed", rows(m=lambda g, j, c: g * cols + cols - 1 - c)
        yield "first column", frozenset(row for row in rows() if row[2] == 0)
        yield "last column", frozenset(row for row in rows() if row[2] == cols - 1)
        yield "every column", rows() | frozenset((q, row, c, m) for q, row, _, m in rows() for c in range(cols))
    if each > 1:
        yield "rows reversed in groups", rows(row=lambda g, j, c: g * each + each - 1 - j)
        yield (
            "every row",
            frozenset((row // each * each + other, row, c, m) for _, row, c, m in rows() for other in range(each)),
        )
        yield "first row of groups", rows(row=lambda g, j, c: g * each)
        yield "last rows", frozenset(row for row in rows() if row[0] % each == each - 1)
        yield "first rows", frozenset(row for row in rows() if row[0] % each == 0)
    if total > 1:
        for kind, column, whole, block in (("positions", 0, total, each), ("image", 3, groups * cols, cols)):
            for name, size in ((f"earlier {kind}", whole), (f"earlier {kind} of the group", block)):
                yield (
                    name,
                    frozenset(
                        (*row[:column], later, *row[column + 1 :])
                        for row in rows()
                        for later in range(row[column], (row[column] // size + 1) * size)
                    ),
                )
            for block in range(2, whole):
                yield (
                    f"carried {kind} {block}",
                    frozenset(
                        (*row[:column], later, *row[column + 1 :])
                        for row in rows()
                        for later in range(row[column], whole, block)
                    ),
                )
        yield "rows reversed", rows(row=lambda g, j, c: total - 1 - g * each - j)
        yield (
            "rows and columns reversed",
            rows(row=lambda g, j, c: total - 1 - g * each - j, m=lambda g, j, c: g * cols + cols - 1 - c),
        )
        yield "first row", rows(row=lambda g, j, c: 0)


@dataclass(frozen=True)
class Channels:
    """Which channels and weight rows go together.

    `orders` are "right", or the known mix-ups that have these rows. `reads` maps each position channel to image
    channels, `rows` to weight rows, and `entries` to triples (weight row, weight column, image channel).
    `missing` describes absent rows where nothing else is wrong. `moved` maps the image channels of each group that use
    another weight column to this column, if nothing else is wrong.
    """

    orders: tuple[str, ...]
    reads: dict[int, list[int]]
    rows: dict[int, list[int]]
    entries: dict[int, list[tuple[int, int, int]]]
    missing: Pattern | None
    wrong: list[int]
    moved: dict[int, int]

    @property
    def name(self) -> str | None:
        """The first of the orders."""
        return next(iter(self.orders), None)


def fit_channels(rows: Rows, asked: Asked, right: Rows) -> Channels:
    """Describe the rows (q, weight row, weight column, m)."""
    reads: dict[int, set[int]] = {}
    weight_rows: dict[int, set[int]] = {}
    entries: dict[int, list[tuple[int, int, int]]] = {}
    for q, row, col, m in sorted(rows):
        entries.setdefault(q, []).append((row, col, m))
        reads.setdefault(q, set()).add(m)
        weight_rows.setdefault(q, set()).add(row)
    same = (name for name, model in channel_models(asked) if model == rows)
    orders = ("right",) if rows == right else tuple(same)
    missing = None
    if rows < right:
        missing = pattern(right - rows, right, ("q", "row", "col", "m"))
    wrong = sorted({row[0] for row in rows ^ right})
    return Channels(
        orders,
        {q: sorted(reads[q]) for q in sorted(reads)},
        {q: sorted(weight_rows[q]) for q in sorted(weight_rows)},
        entries,
        missing,
        wrong,
        _moved_columns(rows, right, asked.shapes["weight"][1]),
    )


def _moved_columns(rows: Rows, right: Rows, count: int) -> dict[int, int]:
    """Return the weight column of each image channel of a group that uses another one, if that alone is wrong."""
    column = {m % count: col for _, _, col, m in rows}
    same = {(q, row, column[m % count], m) for q, row, _, m in right if m % count in column}
    return {c: col for c, col in sorted(column.items()) if c != col} if rows == same and len(column) == count else {}


def channel_sentences(channels: Channels, asked: Asked, names: Names) -> Iterator[str]:
    """Yield which channels go together instead of the right ones."""
    if channels.name == "right":
        return
    if channels.name is not None:
        yield _known(asked, names)[channels.name]
        return
    of, to = names.positions_channel, names.image_channel
    if channels.missing is not None and channels.missing.name == "all":
        yield "No channel is used."
        return
    if channels.missing is not None and channels.missing.name in ("q", "row", "col", "m"):
        titles = {"q": of, "row": "weight row", "col": f"{to} {{}} of each group", "m": to}
        yield _unused(titles[channels.missing.name], list(channels.missing.values))  # type: ignore[arg-type]
        return
    right = asked.channels({**asked.shapes})
    if channels.moved:
        whole, count = range(asked.shapes["weight"][1]), len(channels.moved)
        asked_for, used = (those("weight column", list(each)) for each in zip(*channels.moved.items(), strict=True))
        rest = "; the others are right" * (count < len(whole))
        use = "uses" if count == 1 else "use"
        each_group = " of each group" * (asked.groups > 1)
        yield f"{those(to, list(channels.moved)).capitalize()}{each_group} {use} {used}, not {asked_for}{rest}."
        return
    listing = told_by_sets(channels, right, names) or _every_term(channels, right, names)
    if listing:
        yield from listing
        return
    yield from filter(None, (_of_one_channel(q, channels, right, names) for q in channels.wrong[:3]))
    yield f"{len(channels.wrong)} of {asked.shapes['positions'][1]} {of}s are wrong."


def told_by_sets(channels: Channels, right: Array, names: Names) -> list[str]:
    """Return a sentence on each wrong channel; none if they are too many, or if sets of channels do not tell it all."""
    sentences = [_of_one_channel(q, channels, right, names) for q in channels.wrong[:4]]
    told = [text for text in sentences if text]
    if len(told) < len(sentences) or len(told) > 3:
        return []
    rest = f"The other {names.positions_channel}s are right."
    return told + [rest] * (len(told) < len(np.unique(right[:, 0])))


def _of_one_channel(q: int, channels: Channels, right: Array, names: Names) -> str | None:
    """Return the sentence on a wrong channel of the positions; None if sets of channels do not tell all of it."""
    due = right[right[:, 0] == q]
    seen, row, entries = channels.reads.get(q, []), channels.rows.get(q, []), set(channels.entries.get(q, []))
    wanted, due_row = (np.unique(due[:, column]).tolist() for column in (3, 1))
    subject, columns = f"{names.positions_channel.capitalize()} {q}", dict(due[:, [3, 2]].tolist())
    if not seen:
        return f"{subject} is not used."
    if seen != wanted:
        per = max(columns.values(), default=0) + 1
        also = f", with {those('weight row', row)}" * (row != due_row)
        text = f"{subject} {names.verb} {those(names.image_channel, seen)}{also}; it should be "
        plain = entries == {(r, m % per, m) for r in row for m in seen}
        return f"{text}{those(names.image_channel, wanted)}." if plain else None
    if row != due_row and entries == {(r, columns[m], m) for r in row for m in seen}:
        return f"{subject} uses {those('weight row', row)}; it should be {those('weight row', due_row)}."
    return None


MOST_TERMS = 24
"""The most products of channels that are listed without an omission."""


def _every_term(channels: Channels, right: Array, names: Names) -> list[str]:
    """Return a sentence with the products of channels that wrong channels of the result add up, if they are few."""
    seen = [(q, *entry) for q, entries in channels.entries.items() for entry in entries]
    found: dict[str, list[str]] = {}
    due: dict[str, list[str]] = {}
    for each, rows in ((found, seen), (due, right.tolist())):
        for q, row, col, m in sorted(rows):
            places = {"positions": f"[{q}]", "weight": f"[{row},{col}]", "image": f"[{m}]"}
            named = {role: f"{names.symbols[role]}{place}" for role, place in places.items()}
            each.setdefault(named.pop(names.role), []).append("·".join(named.values()))
    wrong = {out: found.get(out, []) for out in sorted(found | due) if found.get(out) != due.get(out)}
    if sum(map(len, wrong.values())) > MOST_TERMS:
        return []
    said = [f"{out} adds {' + '.join(products) or 'nothing'}" for out, products in wrong.items()]
    rest = "; the others are right" * (len(wrong) < len(due))
    return [f"Channels are mixed up; by their numbers alone, {'; '.join(said)}{rest}."]


def _known(asked: Asked, names: Names) -> dict[str, str]:
    """Return the sentences of the mix-ups in `channel_models`."""
    of, to, groups, verb, verbs = names.positions_channel, names.image_channel, asked.groups, names.verb, names.verbs
    per, cols = asked.shapes["positions"][1] // groups, asked.shapes["weight"][1]
    known = {
        "first inputs": f"The {of}s of every group {verbs} the {to}s of group 0.",
        "first positions": f"The {of}s of group 0 are used for every group.",
        "groups reversed": f"Groups are reversed: the {of}s of group g {verbs} the {to}s of group {groups - 1} − g.",
        "next group": f"The {of}s of each group {verbs} the {to}s of the next group.",
        "previous group": f"The {of}s of each group {verbs} the {to}s of the previous group.",
        "positions reversed": f"The groups of {names.symbols['positions']} are reversed: its {of}s of group j go with "
        f"the weight rows and {to}s of group {groups - 1} − j.",
        "next positions": f"The {of}s of each group go with the weight rows and {to}s of the next group.",
        "previous positions": f"The {of}s of each group go with the weight rows and {to}s of the previous group.",
        "image interleaved": f"The {to}s are interleaved: group g uses {to}s g, g + {groups}, …, not a block.",
        "positions interleaved": f"The {of}s are interleaved: group g has {of}s g, g + {groups}, …, not a block.",
        "both interleaved": f"Input and output channels are interleaved: group g uses channels g, g + {groups}, …",
        "modulo": f"Each {of} k {verb} the {to}s of group k mod {groups}; it should be group k // {per}.",
        "first weights": "Every group uses the weight rows of group 0.",
        "all weights": "The weight rows of every group contain the sum over all groups."
        if names.result == names.symbols["weight"]
        else "Every group uses the sum of the weight rows of all groups.",
        "weights reversed": "Groups use each other's weight rows, in reverse order.",
        "next weights": "Every group uses the weight rows of the next group.",
        "previous weights": "Every group uses the weight rows of the previous group.",
        "first group": "Only group 0 is computed.",
        "last group": "Only the last group is computed.",
        "offset of positions": f"The {to}s of group g start at g·{per}; they should start at g·{cols}.",
        "tiled": f"Groups are ignored: each {of} {verb} all {to}s, and {to} c uses weight column c mod {cols}.",
        "columns reversed": f"The {to}s of each group are taken in reverse order.",
        "first column": f"Only the first {to} of each group is used.",
        "last column": f"Only the last {to} of each group is used.",
        "every column": f"Each weight is used with all {to}s of its group.",
        "rows reversed in groups": "The weight rows of each group are taken in reverse order.",
        "every row": f"Each {of} is used with all weight rows of its group; it should be its own row.",
        "first row of groups": f"All {of}s of a group use the first weight row of the group.",
        "last rows": f"Only the last {of} of each group is used.",
        "first rows": f"Only the first {of} of each group is used.",
        "rows reversed": "The weight rows are taken in reverse order.",
        "rows and columns reversed": "The weight rows, and the weight columns, are taken in reverse order.",
        "first row": "Weight row 0 is used for all.",
    }
    for role, channel in (("positions", of), ("image", to)):
        letter = "k" if channel == "output channel" else "c"
        for group, before in (
            (f"earlier {role}", f"{channel}s 0 … {letter} − 1"),
            (f"earlier {role} of the group", f"{channel}s before {letter} in its group"),
        ):
            sums = f"{names.result}[{letter}] also contains the sums of {before}: a cumulative sum over channels."
            used = f"{channel.capitalize()} {letter} is also used as the {before}."
            known[group] = sums if names.symbols[role] == names.result else used
        for block in range(2, asked.shapes[role][1]):
            known[f"carried {role} {block}"] = carried_sentence(names, role, block)
    return known


def carried(table: Table, role: str, block: int) -> Table:
    """Return a table in which each channel of a role also has the products of those `block`, 2·`block`, … before it."""
    count, plane = table.shapes[role][1], math.prod(table.shapes[role][2:])
    channel, flat = table.coordinates[role][1], table.flat[role]
    found = [(channel + step < count, step * plane) for step in range(0, count, block)]
    chosen = np.concatenate([np.flatnonzero(inside) for inside, _ in found])
    later = np.concatenate([flat[inside] + shift for inside, shift in found])
    some = table.only(chosen)
    return Table(some.shapes, some.flat | {role: later}, some.factor)


def carried_sentence(names: Names, role: str, block: int) -> str:
    """Return the sentence on channels of a role that also count as the channels `block`, 2·`block`, … after them."""
    channel = names.positions_channel if role == "positions" else names.image_channel
    letter = "k" if channel == "output channel" else "c"
    before = f"{channel}s {letter} − {block}, {letter} − {2 * block}, …"
    if names.symbols[role] != names.result:
        return f"The {before} are also used as {channel} {letter}."
    return f"{names.result}[{letter}] also contains the sums of {before}: they are kept for the next {block} channels."


def _unused(title: str, values: Sequence[int]) -> str:
    """Return the sentence on channels, or weight rows, that are not used.

    >>> _unused("output channel", [5]), _unused("input channel {} of each group", [1, 2])
    ('Output channel 5 is not used.', 'Input channels 1, 2 of each group are not used.')
    """
    s, are = grammar(values)
    noun, _, more = title.partition(" {}")
    return f"{noun.capitalize()}{s} {ranges(values)}{more} {are} not used."


# --- Samples ---------------------------------------------------------------------------------------------------------


def fit_samples(rows: Rows, count: int) -> str | None:
    """Name how samples go together: "right", "only 0, 1", "reversed", "rotated by 1", "from 0", "all" or None.

    >>> fit_samples(frozenset({(1, 1)}), 2), fit_samples(frozenset({(0, 1), (1, 0)}), 2)
    ('only 1', 'reversed')
    """
    pairs = sorted(rows)
    if pairs == [(n, n) for n in range(count)]:
        return "right"
    if pairs and all(a == b for a, b in pairs):
        return "only " + ", ".join(str(a) for a, _ in pairs)
    if pairs == [(n, count - 1 - n) for n in range(count)]:
        return "reversed"
    for n in range(count):
        if pairs == [(a, (a + n) % count) for a in range(count)]:
            return f"rotated by {n}"
        if pairs == [(a, n) for a in range(count)]:
            return f"from {n}"
    if len(pairs) == count * count:
        return "all"
    return None


def sample_sentences(samples: str | None, pairs: Sequence[tuple[int, ...]], count: int, names: Names) -> Iterator[str]:
    """Yield how samples go together instead of each with itself."""
    if samples == "right":
        return
    positions, image = names.symbols["positions"], names.image
    partners: dict[int, list[int]] = {n: [] for n in range(count)}
    for a, b in pairs:
        partners[a].append(b)
    if samples is None:
        wrong = {a: found for a, found in partners.items() if found != [a]}
        shown = [
            f"sample {a} of {positions} {names.verb} {those('sample', found)} of {image}"
            if found
            else f"sample {a} of {positions} is not used"
            for a, found in wrong.items()
        ]
        rest = "; the others are right" * (len(wrong) < count)
        yield f"Samples are mixed: {'; '.join(shown[:4])}{'; …' * (len(shown) > 4)}{rest}."
    elif samples.startswith("only"):
        unused = [a for a, found in partners.items() if not found]
        kept = [a for a, found in partners.items() if found]
        s, are = grammar(unused if len(unused) < len(kept) else kept)
        yield (
            f"Sample{s} {ranges(unused)} of the batch {are} not used."
            if len(unused) < len(kept)
            else f"Only sample{s} {ranges(kept)} of the batch {are} used."
        )
    elif samples == "reversed":
        yield "Samples are in reverse order."
    elif samples.startswith("rotated"):
        n = int(samples.removeprefix("rotated by "))
        yield (f"Samples are rotated: sample n of {positions} {names.verb} sample (n + {n}) mod {count} of {image}.")
    elif samples.startswith("from"):
        yield f"Every sample of {positions} {names.verb} sample {partners[0][0]} of {image}."
    else:
        product = names.verb == "is multiplied by"
        more = ": it is a product of sums over the batch, where a sum of products is right" * product
        yield f"Every sample of {positions} {names.verb} every sample of {image}{more}."
